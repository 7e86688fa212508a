// SPDX-License-Identifier: Apache-2.0

package kernlog

import (
	"bytes"
	"time"
)

// maxBracket bounds how far a time in brackets may reach.
const maxBracket = 80

// bracket takes the forms of dmesg: seconds since boot ("[  12.345678]", with
// "<0.000010>" after them for dmesg -d), wall time as of dmesg -T in any
// locale ("[Thu May  9 14:52:38 2024]"), and the relative ones of dmesg -H,
// which give no time. journalctl -o short-monotonic has host and tag after it.
func (l *Lines) bracket(rec *Record) frame {
	if l.stamped(rec) {
		if tag, text, ok := hostTag(rec.Text); ok && isKernelTag(tag) {
			rec.Text = text
			return frameLogged
		}
		return frameKernel
	}
	b := rec.Text
	end := bytes.IndexByte(b[:min(len(b), maxBracket)], ']')
	if end < 0 {
		return frameNone
	}
	in := b[1:end]
	t, ok := l.ctime(in)
	if !ok && !relative(in) {
		return frameNone
	}
	rec.Time, rec.Text = t, b[end+1:]
	rec.caller()
	return frameKernel
}

// stamped takes "[  12.345678]" or "[   12.345678 <    0.000010>]" off the
// front of rec.Text, with a caller after it, and tells whether it was there.
func (l *Lines) stamped(rec *Record) bool {
	b := rec.Text
	if len(b) == 0 || b[0] != '[' {
		return false
	}
	i := 1
	for i < len(b) && i < maxBracket && b[i] == ' ' {
		i++
	}
	d, rest, ok := seconds(b[i:])
	if !ok {
		return false
	}
	if len(rest) > 2 && rest[0] == ' ' && rest[1] == '<' {
		gt := bytes.IndexByte(rest[:min(len(rest), maxBracket)], '>')
		if gt < 0 {
			return false
		}
		rest = rest[gt+1:]
	}
	if len(rest) == 0 || rest[0] != ']' {
		return false
	}
	rec.Stamp, rec.HasStamp, rec.Text = d, true, rest[1:]
	rec.caller()
	return true
}

// caller takes "[ T9185]" off, if it stands right behind the time, and the
// one space before the text.
func (r *Record) caller() {
	if c, rest, ok := callerField(r.Text); ok {
		r.Caller, r.Text = c, oneSpace(rest)
		return
	}
	r.Text = oneSpace(r.Text)
	r.spacedCaller()
}

// spacedCaller takes a caller off that a space parts from the time, as
// util-linux 2.40 prints it: padded, so that a text of its own that begins
// with "[T1]" stays one.
func (r *Record) spacedCaller() {
	if len(r.Text) < 2 || r.Text[1] != ' ' {
		return
	}
	if c, rest, ok := callerField(r.Text); ok {
		r.Caller, r.Text = c, oneSpace(rest)
	}
}

// callerField reads "[ T9185]" or "[    C0]".
func callerField(b []byte) (caller, rest []byte, ok bool) {
	if len(b) < 4 || b[0] != '[' {
		return nil, b, false
	}
	i := 1
	for i < len(b) && i < 12 && b[i] == ' ' {
		i++
	}
	if i >= len(b) || b[i] != 'T' && b[i] != 'C' {
		return nil, b, false
	}
	_, after, ok := number(b[i+1:])
	if !ok || len(after) == 0 || after[0] != ']' {
		return nil, b, false
	}
	return b[i : len(b)-len(after)], after[1:], true
}

// seconds reads "12.345678".
func seconds(b []byte) (time.Duration, []byte, bool) {
	sec, rest, ok := number(b)
	if !ok || sec > 1<<33 || len(rest) < 2 || rest[0] != '.' || !isDigit(rest[1]) {
		return 0, b, false
	}
	frac, rest := fraction(rest[1:])
	return time.Duration(sec)*time.Second + frac, rest, true
}

// fraction reads the digits behind a decimal point.
func fraction(b []byte) (time.Duration, []byte) {
	d, unit, i := time.Duration(0), time.Second, 0
	for i < len(b) && isDigit(b[i]) {
		unit /= 10
		d += time.Duration(b[i]-'0') * unit
		i++
	}
	return d, b[i:]
}

// relative tells whether in is one of dmesg -H's times: "+0.000012" or
// "May 9 14:52".
func relative(in []byte) bool {
	in = bytes.TrimLeft(in, " ")
	if plus, ok := bytes.CutPrefix(in, []byte{'+'}); ok {
		_, rest, ok := seconds(plus)
		return ok && len(rest) == 0
	}
	n := len(in)
	return n > 8 && in[n-3] == ':' && isDigit(in[n-1]) && isDigit(in[n-2]) &&
		isDigit(in[n-4]) && isDigit(in[n-5]) && in[n-6] == ' ' && isDigit(in[n-7])
}
