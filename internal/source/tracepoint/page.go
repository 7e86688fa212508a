// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The types of an entry in a page of the trace buffer that are not data
// (events/header_event, include/linux/ring_buffer.h); 1 to 28 are the data's
// length in words, 0 says that a word with the length follows.
const (
	entryPadding = 29
	entryExtend  = 30
	entryStamp   = 31
)

// The flags in the commit word of a page (kernel/trace/ring_buffer.c).
const (
	commitMask   = 1<<20 - 1
	missedEvents = 1 << 31 // events were overwritten before this page
	missedStored = 1 << 30 // and their number stands behind the data
	stampBits    = 59      // of an absolute stamp; the page's own has the rest
)

var errPage = errors.New("page does not hold together")

// pageLayout is where the parts of a page lie (events/header_page).
type pageLayout struct {
	stamp, commit field
	data          int
	size          int // of the whole page
	order         binary.ByteOrder
}

func parseHeaderPage(b []byte, order binary.ByteOrder) (pageLayout, error) {
	f, err := parseFormat(b)
	if err != nil {
		return pageLayout{}, err
	}
	if err := f.need("timestamp", "commit", "data"); err != nil {
		return pageLayout{}, err
	}
	l := pageLayout{stamp: f.fields["timestamp"], commit: f.fields["commit"], data: f.fields["data"].offset, order: order}
	l.size = l.data + f.fields["data"].size
	if l.stamp.size != 8 || l.commit.size < 4 || max(l.stamp.offset+8, l.commit.offset+l.commit.size) > l.data {
		return pageLayout{}, fmt.Errorf("head of %d bytes: %w", l.data, errPage)
	}
	return l, nil
}

// entry is one event of a page: when, by the buffer's clock, and its bytes,
// which are those of the page.
type entry struct {
	ns   uint64
	data []byte
}

// parse appends the events of a page to dst. Lost counts the events that were
// overwritten before it; where the kernel tells only that there were some, it
// is 1. An error says that the rest of the page cannot be read; what came
// before it stands.
func (l pageLayout) parse(b []byte, dst []entry) (events []entry, lost uint64, err error) {
	if len(b) < l.data {
		return dst, 0, fmt.Errorf("%d bytes: %w", len(b), errPage)
	}
	ns := l.order.Uint64(b[l.stamp.offset:])
	commit := uint64(l.order.Uint32(b[l.commit.offset:]))
	if l.commit.size == 8 {
		commit = l.order.Uint64(b[l.commit.offset:])
	}
	n := int(commit & commitMask)
	rest := b[l.data:]
	if n > len(rest) {
		return dst, 0, fmt.Errorf("%d bytes of data in %d: %w", n, len(rest), errPage)
	}
	if commit&missedEvents != 0 {
		lost = 1
		if commit&missedStored != 0 && n+l.commit.size <= len(rest) {
			lost = max(1, l.word(rest[n:]))
		}
	}
	events, err = l.entries(rest[:n], ns, dst)
	return events, lost, err
}

func (l pageLayout) word(b []byte) uint64 {
	if l.commit.size == 8 {
		return l.order.Uint64(b)
	}
	return uint64(l.order.Uint32(b))
}

func (l pageLayout) entries(b []byte, ns uint64, dst []entry) ([]entry, error) {
	base := ns
	for len(b) >= 4 {
		typ, delta := l.head(b)
		b = b[4:]
		size := 0
		switch {
		case typ == entryPadding && delta == 0: // nothing after it
			return dst, nil
		case typ == entryExtend || typ == entryStamp:
			if len(b) < 4 {
				return dst, fmt.Errorf("time of an entry: %w", errPage)
			}
			t := uint64(delta) | uint64(l.order.Uint32(b))<<27
			b = b[4:]
			if typ == entryExtend {
				ns += t
			} else {
				ns = t | base>>stampBits<<stampBits
			}
			continue
		case typ == 0 || typ == entryPadding:
			if len(b) < 4 {
				return dst, fmt.Errorf("length of an entry: %w", errPage)
			}
			size = int(l.order.Uint32(b)) - 4 // it counts its own word
			b = b[4:]
		default:
			size = typ * 4
		}
		if size < 0 || size > len(b) {
			return dst, fmt.Errorf("entry of %d bytes in %d: %w", size, len(b), errPage)
		}
		ns += uint64(delta)
		if typ != entryPadding {
			dst = append(dst, entry{ns, b[:size]})
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return dst, nil
}

// parseOverrun finds the line "overrun: N" of per_cpu/*/stats.
func parseOverrun(stats []byte) (uint64, bool) {
	for line := range strings.Lines(string(stats)) {
		value, ok := strings.CutPrefix(line, "overrun: ")
		if !ok {
			continue
		}
		if value, ok = strings.CutSuffix(value, "\n"); !ok {
			break
		}
		n, err := strconv.ParseUint(value, 10, 64)
		return n, err == nil
	}
	return 0, false
}

// head splits the first word: five bits of type, 27 of time since the last
// entry; the compiler lays bit fields out by the machine's byte order.
func (l pageLayout) head(b []byte) (typ int, delta uint32) {
	w := l.order.Uint32(b)
	if l.order.Uint16([]byte{1, 0}) == 1 {
		return int(w & 31), w >> 5
	}
	return int(w >> 27), w & (1<<27 - 1)
}
