// SPDX-License-Identifier: Apache-2.0

package kernlog

import (
	"bytes"
	"errors"
	"time"
)

// ErrRecord is returned for bytes that are no record of /dev/kmsg.
var ErrRecord = errors.New("not a /dev/kmsg record")

// maxUsec is the largest stamp that a time.Duration holds.
const maxUsec = uint64(1<<63-1) / 1000

// Decoder parses raw records. It keeps one buffer for unescaped text, so
// that records cost no allocation; a Record is valid until the next call.
// The zero value is ready.
type Decoder struct {
	buf []byte
}

// ParseKmsg parses what one read of /dev/kmsg returned. A program that reads
// many records uses a Decoder.
func ParseKmsg(raw []byte) (Record, error) {
	var d Decoder
	return d.Kmsg(raw)
}

// Kmsg parses what one read of /dev/kmsg returned
// (Documentation/ABI/testing/dev-kmsg): "prio,seq,usec,flags[,more];text",
// a newline, and lines " KEY=value", which are skipped. Unknown fields after
// the flags are ignored, as the kernel's document asks.
func (d *Decoder) Kmsg(raw []byte) (Record, error) {
	prio, rest, ok := field(raw)
	if !ok || prio > 1<<16 {
		return Record{}, ErrRecord
	}
	rec := Record{HasSeq: true, HasStamp: true}
	rec.setPriority(prio)
	var usec uint64
	if rec.Seq, rest, ok = field(rest); !ok {
		return Record{}, ErrRecord
	}
	if usec, rest, ok = number(rest); !ok || usec > maxUsec || len(rest) == 0 || rest[0] != ',' {
		return Record{}, ErrRecord
	}
	rec.Stamp = time.Duration(usec) * time.Microsecond
	head, text, ok := bytes.Cut(rest, []byte{';'})
	if !ok {
		return Record{}, ErrRecord
	}
	rec.flags(head)
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	rec.Text = d.unescape(text)
	return rec, nil
}

// field reads one number and the comma after it.
func field(b []byte) (uint64, []byte, bool) {
	n, rest, ok := number(b)
	if !ok || len(rest) == 0 || rest[0] != ',' {
		return 0, b, false
	}
	return n, rest[1:], true
}

// flags reads ",flags[,caller=T1][,more]".
func (r *Record) flags(head []byte) {
	for i := 0; len(head) > 0; i++ {
		var f []byte
		head = head[1:] // the comma
		if j := bytes.IndexByte(head, ','); j >= 0 {
			f, head = head[:j], head[j:]
		} else {
			f, head = head, nil
		}
		if i == 0 {
			r.Fragment = bytes.IndexByte(f, 'c') >= 0 || bytes.IndexByte(f, '+') >= 0
		} else if c, ok := bytes.CutPrefix(f, []byte("caller=")); ok {
			r.Caller = c
		}
	}
}

// unescape undoes \xNN. Text without a backslash is given back as it is.
func (d *Decoder) unescape(text []byte) []byte {
	i := bytes.IndexByte(text, '\\')
	if i < 0 {
		return text
	}
	buf := d.buf[:0]
	for i >= 0 {
		buf = append(buf, text[:i]...)
		text = text[i:]
		if c, ok := hexByte(text); ok {
			buf, text = append(buf, c), text[4:]
		} else {
			buf, text = append(buf, '\\'), text[1:]
		}
		i = bytes.IndexByte(text, '\\')
	}
	d.buf = append(buf, text...)
	return d.buf
}

// hexByte reads \xNN.
func hexByte(b []byte) (byte, bool) {
	if len(b) < 4 || b[1] != 'x' {
		return 0, false
	}
	hi, lo := hexDigit(b[2]), hexDigit(b[3])
	return hi<<4 | lo&15, hi < 16 && lo < 16
}

// hexDigit returns 255 for what is no hexadecimal digit.
func hexDigit(c byte) byte {
	switch {
	case isDigit(c):
		return c - '0'
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 255
}
