// SPDX-License-Identifier: Apache-2.0

package kernlog

import (
	"bytes"
	"time"
)

// program takes what follows the time in a log of many programs: host, tag
// and text, or the address that a netconsole receiver noted.
func (l *Lines) program(rec *Record, t time.Time, rest []byte) frame {
	tag, text, ok := hostTag(oneSpace(rest))
	if ok && isKernelTag(tag) {
		rec.Time, rec.Text = t, text
		l.stamped(rec)
		rec.Text = l.dec.unescapeOctal(rec.Text)
		return frameLogged
	}
	if host, after, ok := bytes.Cut(oneSpace(rest), []byte{' '}); ok && hostPort(host) {
		r := *rec
		r.Time, r.Text = t, after
		if l.stamped(&r) {
			*rec = r
			return frameKernel
		}
	}
	if has(oneSpace(rest), "[s=") {
		return frameNone // the head of an entry of journalctl -o verbose
	}
	return frameForeign
}

func has(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix
}

// rfc5424 takes what follows the time: HOST APP PROCID MSGID SD MSG.
func (l *Lines) rfc5424(rec *Record, t time.Time, rest []byte) frame {
	var app []byte
	rest = oneSpace(rest)
	for i := range 4 {
		word, after, ok := bytes.Cut(rest, []byte{' '})
		if !ok {
			return frameForeign
		}
		if i == 1 {
			app = word
		}
		rest = after
	}
	if !isKernelTag(app) {
		return frameForeign
	}
	rest = bytes.TrimPrefix(oneSpace(structured(rest)), []byte("\xef\xbb\xbf"))
	rec.Time, rec.Text = t, rest
	l.stamped(rec)
	rec.Text = l.dec.unescapeOctal(rec.Text)
	return frameLogged
}

// structured skips the structured data of RFC 5424: "-" or "[id a="b"]...".
func structured(b []byte) []byte {
	if len(b) > 0 && b[0] == '-' {
		return b[1:]
	}
	quoted := false
	for i := 0; i < len(b); i++ {
		switch {
		case quoted && b[i] == '\\':
			i++
		case b[i] == '"':
			quoted = !quoted
		case !quoted && b[i] == ']' && (i+1 == len(b) || b[i+1] != '['):
			return b[i+1:]
		}
	}
	return nil
}

// hostTag reads "host tag: text", or "tag: text" where the host was left out.
func hostTag(b []byte) (tag, text []byte, ok bool) {
	word, rest, ok := bytes.Cut(b, []byte{' '})
	if !ok {
		return nil, nil, false
	}
	if n := len(word); n > 1 && word[n-1] == ':' {
		return word[:n-1], rest, true
	}
	i := bytes.IndexByte(rest, ':')
	if i <= 0 || bytes.IndexByte(rest[:i], ' ') >= 0 || i+1 < len(rest) && rest[i+1] != ' ' {
		return nil, nil, false
	}
	return rest[:i], oneSpace(rest[i+1:]), true
}

// tagged tells whether text begins with a tag that names a process, "app[1]: ".
func tagged(text []byte) bool {
	tag, _, ok := hostTag(text)
	n := len(tag)
	return ok && n > 3 && tag[n-1] == ']' && isDigit(tag[n-2])
}

// isKernelTag tells whether a syslog tag is the kernel's. It has no process:
// "kernel[123]" is somebody who calls himself so.
func isKernelTag(tag []byte) bool {
	switch string(tag) {
	case "kernel", "kernel[-]", "kernel[0]":
		return true
	}
	return false
}

// hostPort tells whether b is an address and a port, as "192.0.2.1:6665".
func hostPort(b []byte) bool {
	i := bytes.LastIndexByte(b, ':')
	if i < 2 {
		return false
	}
	_, rest, ok := number(b[i+1:])
	if !ok || len(rest) > 0 {
		return false
	}
	for _, c := range b[:i] {
		if hexDigit(c) > 15 && c != '.' && c != ':' && c != '[' && c != ']' {
			return false
		}
	}
	return true
}

// unescapeOctal undoes rsyslog's #NNN for control characters. Others stay: a
// "#" of the text itself is not escaped by it.
func (d *Decoder) unescapeOctal(text []byte) []byte {
	if !bytes.Contains(text, []byte("#0")) {
		return text
	}
	buf := d.buf[:0]
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '#' && i+3 < len(text) && text[i+1] == '0' && text[i+2]-'0' < 4 && text[i+3]-'0' < 8 {
			c = (text[i+2]-'0')<<3 | (text[i+3] - '0')
			i += 3
		}
		buf = append(buf, c)
	}
	d.buf = buf
	return buf
}
