// SPDX-License-Identifier: Apache-2.0

package kernlog

import (
	"bytes"
	"time"
)

// Lines takes a copy of the kernel's log line by line, in whatever framing,
// which may change from line to line. The zero value is ready; Now and
// Location say what a line's own time leaves open.
type Lines struct {
	// Now is when the log was read. A stamp without a year is of the last
	// year that keeps it from lying in the future; zero Now: it gives no time.
	Now time.Time
	// Location is the time zone of stamps that name none; nil: UTC.
	Location *time.Location
	// Foreign counts the lines that other programs than the kernel wrote, as
	// far as the framing tells: user space writing to /dev/kmsg included.
	Foreign uint64
	// Framed counts the lines whose framing was recognised, whosever they are.
	Framed uint64

	dec Decoder
	// logged is true once a line came from a log that other programs write
	// to as well; other is true after a line of one of those. What follows
	// unframed or indented is then that program's next line of text.
	logged, other bool
	// raw is true after a raw record, whose " KEY=value" lines follow it.
	raw, started bool
}

// frame is what a line's framing tells of who wrote it.
type frame int

const (
	frameNone    frame = iota // no framing seen
	frameKernel               // a form in which only the kernel's log is shown
	frameLogged               // the kernel's line in a log of many programs
	frameForeign              // somebody else's line
)

// Feed takes one line, with or without its line end. It returns false for a
// line that is not the kernel's or that says nothing; the Record then still
// holds the Seq that a raw record has. A line without any framing is given
// back as it is: files of bare message texts exist.
func (l *Lines) Feed(line []byte) (Record, bool) {
	line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte{'\n'}), []byte{'\r'})
	if !l.started {
		line, l.started = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf")), true
	}
	body := unquote(line)
	if len(body) == 0 {
		return Record{}, false
	}
	rec := unknown(body)
	kind := l.frame(&rec)
	indented := len(body) < len(line)
	if kind == frameNone && l.raw && indented {
		return Record{}, false
	}
	l.raw = rec.HasSeq
	if kind != frameNone {
		l.Framed++
	}
	if rec.Facility > 0 || l.others(kind, indented) {
		l.logged, l.other = true, true
		l.Foreign++
		return rec, false
	}
	// journalctl -o short-monotonic looks like dmesg; a tag with a process in
	// it is somebody's, and so are the lines without framing behind it.
	l.other = kind == frameKernel && tagged(rec.Text)
	l.logged = l.logged || l.other || kind == frameLogged
	rec.Bare = kind == frameNone
	if rec.Bare || body[0] != '{' {
		rec.Line = line
	}
	return rec, true
}

// others tells whether a line is another program's: it says so, or it is one
// of the further lines of that program's message, which journalctl indents.
func (l *Lines) others(kind frame, indented bool) bool {
	return kind == frameForeign ||
		l.logged && l.other && (kind == frameNone || kind == frameKernel && indented)
}

// unquote takes the marks of a quoting mail and indentation off. The 0x1e is
// journalctl's, before each object of -o json-seq.
func unquote(line []byte) []byte {
	i := 0
	for i < len(line) && (line[i] == ' ' || line[i] == '\t' || line[i] == '>' || line[i] == 0x1e) {
		i++
	}
	return line[i:]
}

// frame recognises the framing of rec.Text and takes it off.
func (l *Lines) frame(rec *Record) frame {
	c := rec.Text[0]
	switch {
	case isDigit(c):
		return l.digits(rec)
	case c == '[':
		return l.bracket(rec)
	case c == '<':
		return l.angle(rec)
	case c == '{':
		return l.journal(rec)
	}
	if t, rest, ok := l.dated(rec.Text); ok {
		return l.program(rec, t, rest)
	}
	return l.levelled(rec)
}

// digits takes a line that begins with a digit: a raw record, an ISO time, or
// seconds since 1970 as journalctl -o short-unix has them.
func (l *Lines) digits(rec *Record) frame {
	if raw, err := l.dec.Kmsg(rec.Text); err == nil {
		*rec = raw
		return frameKernel
	}
	if t, rest, comma, ok := l.iso(rec.Text); ok {
		if comma {
			// dmesg --time-format iso is the only one with a comma.
			rec.Time, rec.Text = t, oneSpace(rest)
			rec.spacedCaller()
			return frameKernel
		}
		return l.program(rec, t, rest)
	}
	if t, rest, ok := unixTime(rec.Text); ok {
		return l.program(rec, t, rest)
	}
	// "9月 03 05:57:48 host kernel: ...".
	if t, rest, ok := l.dated(rec.Text); ok {
		return l.program(rec, t, rest)
	}
	return frameNone
}

// angle takes "<4>text" (dmesg --raw, syslog on the wire) and what may follow.
func (l *Lines) angle(rec *Record) frame {
	prio, rest, ok := number(rec.Text[1:])
	if !ok || prio > 1023 || len(rest) < 2 || rest[0] != '>' {
		return frameNone
	}
	rest = rest[1:]
	rec.setPriority(prio)
	if five, ok := bytes.CutPrefix(rest, []byte("1 ")); ok {
		if t, after, _, ok := l.iso(five); ok {
			return l.rfc5424(rec, t, after)
		}
	}
	rec.Text = rest
	if t, after, ok := l.dated(rest); ok {
		return l.program(rec, t, after)
	}
	if t, after, _, ok := l.iso(rest); ok {
		return l.program(rec, t, after)
	}
	if rest[0] == '[' {
		return max(frameKernel, l.bracket(rec))
	}
	return frameKernel
}

// levelled takes what dmesg -x puts first ("kern  :err   : "), or a vendor's
// template.
func (l *Lines) levelled(rec *Record) frame {
	b := rec.Text
	i := bytes.IndexAny(b[:min(len(b), 12)], ":|")
	if i <= 0 {
		return frameNone
	}
	if b[i] == '|' {
		return l.template(rec, b[:i], b[i+1:])
	}
	j := bytes.IndexByte(b[i+1:], ':')
	if j <= 0 || j > 8 {
		return frameNone
	}
	fac := index(facilities[:], bytes.TrimRight(b[:i], " "))
	lvl := index(levels[:], bytes.TrimRight(b[i+1:i+1+j], " "))
	if fac < 0 || lvl < 0 {
		return frameNone
	}
	rec.Facility, rec.Level, rec.Text = fac, lvl, oneSpace(b[i+2+j:])
	if t, rest, comma, ok := l.iso(rec.Text); ok && comma {
		rec.Time, rec.Text = t, oneSpace(rest)
		rec.spacedCaller()
	} else if len(rec.Text) > 0 && rec.Text[0] == '[' {
		l.bracket(rec)
	}
	return frameKernel
}

// template takes "warning|kernel[-]|[secs] text", as some vendors' syslog
// writes it.
func (l *Lines) template(rec *Record, word, rest []byte) frame {
	lvl := index(levels[:], word)
	if string(word) == "warning" {
		lvl = 4
	}
	tag, rest, ok := bytes.Cut(rest, []byte{'|'})
	if !ok || lvl < 0 || !isKernelTag(tag) || len(rest) == 0 {
		return frameNone
	}
	rec.Text, rec.Level = rest, lvl
	l.stamped(rec)
	return frameLogged
}

// The names of util-linux's dmesg, in the order of their numbers.
var (
	facilities = [...]string{"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"}
	levels     = [...]string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"}
)

func index(names []string, word []byte) int {
	for i, n := range names {
		if n == string(word) {
			return i
		}
	}
	return -1
}

// oneSpace takes off the one space that parts a framing from the text; more
// of them are the text's own.
func oneSpace(b []byte) []byte {
	if len(b) > 0 && b[0] == ' ' {
		return b[1:]
	}
	return b
}
