// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// field is where a value lies in an event, or in the head of a page.
type field struct {
	offset, size int
	signed       bool
	// loc is true where the value is the place of a string: its offset in
	// the low 16 bits, its length in the high ones. From is what the offset
	// counts from: the event's start, or (__rel_loc, since 5.16) the field's end.
	loc  bool
	from int
}

// format is the description that the kernel gives of an event (events/*/*/format).
type format struct {
	id     int
	fields map[string]field
}

var errNoField = errors.New("field is missing")

// parseFormat reads a format file: "ID: N" and lines of
// "field:TYPE NAME; offset:N; size:N; signed:N;". Other lines are skipped.
func parseFormat(b []byte) (format, error) {
	f := format{fields: make(map[string]field)}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if v, ok := strings.CutPrefix(line, "ID:"); ok {
			id, err := strconv.Atoi(strings.TrimSpace(v))
			if err != nil {
				return format{}, fmt.Errorf("line %q: %w", line, err)
			}
			f.id = id
			continue
		}
		v, ok := strings.CutPrefix(line, "field:")
		if !ok {
			continue
		}
		name, fd, err := parseField(v)
		if err != nil {
			return format{}, fmt.Errorf("line %q: %w", line, err)
		}
		f.fields[name] = fd
	}
	if len(f.fields) == 0 {
		return format{}, fmt.Errorf("format: %w", errNoField)
	}
	return f, nil
}

func parseField(s string) (name string, f field, err error) {
	parts := strings.Split(s, ";")
	decl := strings.TrimSpace(parts[0])
	i := strings.LastIndexAny(decl, " \t*")
	name, _, _ = strings.Cut(decl[i+1:], "[")
	if name == "" {
		return "", field{}, errNoField
	}
	f = field{offset: -1, size: -1}
	for _, p := range parts[1:] {
		key, value, ok := strings.Cut(strings.TrimSpace(p), ":")
		if !ok {
			continue
		}
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 || n > 1<<16 {
			return "", field{}, fmt.Errorf("%s: %q", key, value)
		}
		switch key {
		case "offset":
			f.offset = n
		case "size":
			f.size = n
		case "signed":
			f.signed = n != 0
		}
	}
	if f.offset < 0 || f.size < 0 {
		return "", field{}, fmt.Errorf("%s: offset or size: %w", name, errNoField)
	}
	switch {
	case strings.HasPrefix(decl, "__data_loc "):
		f.loc = true
	case strings.HasPrefix(decl, "__rel_loc "):
		f.loc, f.from = true, f.offset+f.size
	}
	return name, f, nil
}

// need returns an error that names what is missing.
func (f format) need(names ...string) error {
	for _, n := range names {
		if _, ok := f.fields[n]; !ok {
			return fmt.Errorf("field %s: %w", n, errNoField)
		}
	}
	return nil
}

// int returns a number; ok is false where the event does not hold it.
func (f format) int(data []byte, name string, order binary.ByteOrder) (v int64, ok bool) {
	fd, ok := f.fields[name]
	if !ok || fd.loc || fd.offset+fd.size > len(data) {
		return 0, false
	}
	return fd.int(data, order)
}

func (fd field) int(data []byte, order binary.ByteOrder) (int64, bool) {
	if fd.offset+fd.size > len(data) {
		return 0, false
	}
	b := data[fd.offset:]
	switch {
	case fd.size == 8:
		return int64(order.Uint64(b)), true
	case fd.size == 4 && fd.signed:
		return int64(int32(order.Uint32(b))), true
	case fd.size == 4:
		return int64(order.Uint32(b)), true
	case fd.size == 2 && fd.signed:
		return int64(int16(order.Uint16(b))), true
	case fd.size == 2:
		return int64(order.Uint16(b)), true
	}
	return 0, false
}

// string returns a text, in place or elsewhere in the event.
func (f format) string(data []byte, name string, order binary.ByteOrder) (s string, ok bool) {
	fd, ok := f.fields[name]
	if !ok || fd.offset+fd.size > len(data) {
		return "", false
	}
	if !fd.loc {
		return cString(data[fd.offset : fd.offset+fd.size]), true
	}
	if fd.size != 4 {
		return "", false
	}
	loc := order.Uint32(data[fd.offset:])
	start := fd.from + int(loc&0xffff)
	end := start + int(loc>>16)
	if start > len(data) || end > len(data) {
		return "", false
	}
	return cString(data[start:end]), true
}
