// SPDX-License-Identifier: Apache-2.0

package kernlog

import (
	"bytes"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// entry is what is kept of one object of journalctl -o json. The slices are
// raw JSON values.
type entry struct {
	message, transport, identifier, facility, priority []byte
	realtime, monotonic, source, boot                  []byte
	twice                                              bool
}

// journal takes one object of journalctl -o json. journald gives the fields
// that begin with an underscore itself, so _TRANSPORT cannot be forged. User
// space that writes to /dev/kmsg has the kernel's transport too, but another
// facility (systemd, journald-kmsg.c).
func (l *Lines) journal(rec *Record) frame {
	var e entry
	if !e.scan(rec.Text) {
		return frameNone
	}
	if e.twice || string(unquoteASCII(e.transport)) != "kernel" {
		return frameForeign
	}
	if id := unquoteASCII(e.identifier); e.identifier != nil && string(id) != "kernel" {
		return frameForeign
	}
	text, ok := l.dec.jsonText(e.message)
	if !ok {
		return frameForeign
	}
	rec.Text, rec.BootID = text, unquoteASCII(e.boot)
	if n, rest, ok := number(unquoteASCII(e.facility)); ok && len(rest) == 0 {
		rec.Facility = int(min(n, 1<<16))
	} else if e.facility != nil {
		return frameForeign
	}
	if n, rest, ok := number(unquoteASCII(e.priority)); ok && len(rest) == 0 && n < 8 {
		rec.Level = int(n)
	}
	if usec, ok := usecs(e.realtime); ok {
		rec.Time = time.Unix(0, 0).Add(usec).UTC()
	}
	// The source's stamp is printk's; the other is when journald read it.
	if rec.Stamp, rec.HasStamp = usecs(e.source); !rec.HasStamp {
		rec.Stamp, rec.HasStamp = usecs(e.monotonic)
	}
	return frameLogged
}

func usecs(v []byte) (time.Duration, bool) {
	n, rest, ok := number(unquoteASCII(v))
	if !ok || len(rest) > 0 || n > maxUsec {
		return 0, false
	}
	return time.Duration(n) * time.Microsecond, true
}

// field gives the place for the value of a key; nil: the key is not wanted.
func (e *entry) field(key []byte) *[]byte {
	switch string(key) {
	case "MESSAGE":
		return &e.message
	case "_TRANSPORT":
		return &e.transport
	case "SYSLOG_IDENTIFIER":
		return &e.identifier
	case "SYSLOG_FACILITY":
		return &e.facility
	case "PRIORITY":
		return &e.priority
	case "__REALTIME_TIMESTAMP":
		return &e.realtime
	case "__MONOTONIC_TIMESTAMP":
		return &e.monotonic
	case "_SOURCE_MONOTONIC_TIMESTAMP":
		return &e.source
	case "_BOOT_ID":
		return &e.boot
	}
	return nil
}

// scan reads the members of one object. Values stay raw.
func (e *entry) scan(b []byte) bool {
	b = blank(b[1:]) // the brace
	for first := true; ; first = false {
		if len(b) > 0 && b[0] == '}' {
			return true
		}
		if !first {
			if len(b) == 0 || b[0] != ',' {
				return false
			}
			b = blank(b[1:])
		}
		key, rest, ok := jsonValue(b)
		if !ok || key[0] != '"' {
			return false
		}
		rest = blank(rest)
		if len(rest) == 0 || rest[0] != ':' {
			return false
		}
		val, rest, ok := jsonValue(blank(rest[1:]))
		if !ok {
			return false
		}
		if to := e.field(key[1 : len(key)-1]); to != nil {
			e.twice = e.twice || *to != nil
			*to = val
		}
		b = blank(rest)
	}
}

func blank(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	return b
}

// jsonValue cuts one value off the front of b: a string, an array (journald
// nests them two deep at most, and no objects), or a bare word.
func jsonValue(b []byte) (val, rest []byte, ok bool) {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch c := b[i]; c {
		case '"':
			end := stringEnd(b[i:])
			if end < 0 {
				return nil, nil, false
			}
			i += end
		case '[':
			depth++
			continue
		case ']':
			depth--
		case ',', '}', ':':
			if depth > 0 {
				continue
			}
			return b[:i], b[i:], i > 0
		default:
			continue
		}
		if depth < 0 {
			return nil, nil, false
		}
		if depth == 0 {
			return b[:i+1], b[i+1:], true
		}
	}
	return nil, nil, false
}

// stringEnd gives the place of the quote that closes the string b begins with.
func stringEnd(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

// unquoteASCII takes the quotes off a string without escapes; nil otherwise.
func unquoteASCII(v []byte) []byte {
	if len(v) < 2 || v[0] != '"' || bytes.IndexByte(v, '\\') >= 0 {
		return nil
	}
	return v[1 : len(v)-1]
}

// jsonText decodes MESSAGE: a string, or the numbers of its bytes where it is
// no valid text.
func (d *Decoder) jsonText(v []byte) ([]byte, bool) {
	if t := unquoteASCII(v); t != nil {
		return t, true
	}
	buf := d.buf[:0]
	var ok bool
	switch {
	case len(v) >= 2 && v[0] == '"':
		buf, ok = unquoteJSON(buf, v[1:len(v)-1])
	case len(v) >= 2 && v[0] == '[':
		buf, ok = byteArray(buf, v[1:len(v)-1])
	}
	d.buf = buf
	return buf, ok
}

func byteArray(buf, v []byte) ([]byte, bool) {
	for v = blank(v); len(v) > 0; v = blank(v) {
		n, rest, ok := number(v)
		if !ok || n > 255 {
			return buf, false
		}
		buf = append(buf, byte(n))
		rest = blank(rest)
		if len(rest) > 0 && rest[0] != ',' {
			return buf, false
		}
		if len(rest) > 0 {
			rest = rest[1:]
		}
		v = rest
	}
	return buf, true
}

func unquoteJSON(buf, s []byte) ([]byte, bool) {
	for len(s) > 0 {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return append(buf, s...), true
		}
		buf, s = append(buf, s[:i]...), s[i+1:]
		if len(s) == 0 {
			return buf, false
		}
		c := s[0]
		s = s[1:]
		switch c {
		case 'n':
			c = '\n'
		case 't':
			c = '\t'
		case 'r':
			c = '\r'
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'u':
			r, rest, ok := unicodeEscape(s)
			if !ok {
				return buf, false
			}
			buf, s = utf8.AppendRune(buf, r), rest
			continue
		}
		buf = append(buf, c)
	}
	return buf, true
}

// unicodeEscape reads the XXXX of \uXXXX, and the second half of a pair.
func unicodeEscape(s []byte) (rune, []byte, bool) {
	r, ok := fourHex(s)
	if !ok {
		return 0, s, false
	}
	s = s[4:]
	if utf16.IsSurrogate(r) && len(s) >= 6 && s[0] == '\\' && s[1] == 'u' {
		if r2, ok := fourHex(s[2:]); ok {
			return utf16.DecodeRune(r, r2), s[6:], true
		}
	}
	return r, s, true
}

func fourHex(s []byte) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	r := rune(0)
	for _, c := range s[:4] {
		d := hexDigit(c)
		if d > 15 {
			return 0, false
		}
		r = r<<4 | rune(d)
	}
	return r, true
}
