// SPDX-License-Identifier: Apache-2.0

package containerlog

import (
	"encoding/binary"
	"time"
)

// frame is the size of an entry in four bytes, before and after the entry.
const frame = 4

// localParts reads the entries of Docker's local driver, newest first: each is
// a protobuf message LogEntry (api/types/plugins/logdriver of Docker) between
// two copies of its size, so that the file can be read from its end. It is
// not that form where the last entry cannot be read so.
func localParts(data []byte, whole bool, c *collector) ([]part, bool) {
	var parts []part
	end := len(data)
	for end > 0 {
		entry, ok := entryBefore(data[:end])
		if !ok {
			if len(parts) > 0 && whole {
				c.skipped++ // else the window begins amid an entry
			}
			break
		}
		end -= len(entry) + 2*frame
		p, ok := decodeEntry(entry)
		switch {
		case ok:
			parts = append(parts, p)
		case len(parts) == 0:
			return nil, false
		default:
			c.skipped++
		}
	}
	if len(parts) > 0 {
		c.rest = end
	}
	return parts, len(parts) > 0
}

// entryBefore is the last entry of data.
func entryBefore(data []byte) ([]byte, bool) {
	if len(data) < 2*frame {
		return nil, false
	}
	body := data[:len(data)-frame]
	n := int64(binary.BigEndian.Uint32(data[len(body):]))
	if n > int64(len(body)-frame) {
		return nil, false
	}
	start := len(body) - int(n)
	if int64(binary.BigEndian.Uint32(body[start-frame:])) != n {
		return nil, false
	}
	return body[start:], true
}

// decodeEntry reads a LogEntry: source = 1, time_nano = 2, line = 3,
// partial = 4, partial_log_metadata = 5 with last = 1.
func decodeEntry(b []byte) (part, bool) {
	var p part
	var partial, last bool
	ok := fields(b, func(field, number uint64, bytes []byte) {
		switch field {
		case 1:
			p.stream = string(bytes[:min(len(bytes), len(stdout)+1)])
		case 2:
			p.at = time.Unix(0, int64(number)).UTC()
		case 3:
			p.text = bytes
		case 4:
			partial = number != 0
		case 5:
			ok := fields(bytes, func(field, number uint64, _ []byte) {
				last = last || field == 1 && number != 0
			})
			partial = partial && ok
		}
	})
	p.more = partial && !last
	return p, ok && p.stream != "" && p.at.Year() >= minYear && p.at.Year() <= maxYear
}

// The wire types of protobuf that LogEntry has.
const (
	wireVarint = 0
	wireBytes  = 2
)

// fields gives each field of a protobuf message, and tells whether it could be
// read to its end.
func fields(b []byte, take func(field, number uint64, bytes []byte)) bool {
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		if n <= 0 {
			return false
		}
		b = b[n:]
		number, n := binary.Uvarint(b)
		if n <= 0 {
			return false
		}
		b = b[n:]
		switch key & 7 {
		case wireVarint:
			take(key>>3, number, nil)
		case wireBytes:
			if number > uint64(len(b)) {
				return false
			}
			take(key>>3, 0, b[:number])
			b = b[number:]
		default:
			return false
		}
	}
	return true
}
