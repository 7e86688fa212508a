// SPDX-License-Identifier: Apache-2.0

package kernlog

import (
	"bytes"
	"time"
)

// iso reads "2024-01-07T17:53:49.053424+00:00" and its kin: a space for the
// T, a comma for the point (which it reports), no fraction, no zone, or a
// zone as Z, +00:00, +0000 or +00.
func (l *Lines) iso(b []byte) (t time.Time, rest []byte, comma, ok bool) {
	y, mon, day, ok := isoDate(b)
	if !ok {
		return t, b, false, false
	}
	h, m, s, ok := clock(b[11:])
	if !ok {
		return t, b, false, false
	}
	rest = b[19:]
	var frac time.Duration
	if len(rest) > 1 && (rest[0] == '.' || rest[0] == ',') && isDigit(rest[1]) {
		comma = rest[0] == ','
		frac, rest = fraction(rest[1:])
	}
	offset, zoned, rest := zone(rest)
	loc := time.UTC
	if !zoned {
		loc = l.location()
	}
	t = time.Date(y, mon, day, h, m, s, int(frac), loc).Add(-offset).UTC()
	return t, rest, comma, true
}

// isoDate reads "2024-01-07T"; a whole stamp has 19 bytes.
func isoDate(b []byte) (y int, mon time.Month, day int, ok bool) {
	if len(b) < 19 || b[4] != '-' || b[7] != '-' || b[10] != 'T' && b[10] != ' ' {
		return 0, 0, 0, false
	}
	y1, ok1 := two(b)
	y2, ok2 := two(b[2:])
	m, ok3 := two(b[5:])
	day, ok4 := two(b[8:])
	ok = ok1 && ok2 && ok3 && ok4 && m >= 1 && m <= 12 && day >= 1 && day <= 31
	return y1*100 + y2, time.Month(m), day, ok
}

// zone reads Z, +00:00, +0000 or +00; ok is false when there is none.
func zone(b []byte) (offset time.Duration, ok bool, rest []byte) {
	if len(b) > 0 && b[0] == 'Z' {
		return 0, true, b[1:]
	}
	if len(b) < 3 || b[0] != '+' && b[0] != '-' {
		return 0, false, b
	}
	h, ok := two(b[1:])
	if !ok {
		return 0, false, b
	}
	offset, rest = time.Duration(h)*time.Hour, b[3:]
	tail := rest
	if len(tail) > 0 && tail[0] == ':' {
		tail = tail[1:]
	}
	if m, ok := two(tail); ok {
		offset, rest = offset+time.Duration(m)*time.Minute, tail[2:]
	}
	if b[0] == '-' {
		offset = -offset
	}
	return offset, true, rest
}

// dated reads the stamps that begin with a word: "May  8 14:05:27[.123456]"
// as of RFC 3164 and journalctl -o short, in any language, and "Thu 2024-05-09
// 14:52:38 UTC" as of journalctl -o short-full.
func (l *Lines) dated(b []byte) (t time.Time, rest []byte, ok bool) {
	i := bytes.IndexByte(b[:min(len(b), 16)], ' ')
	if i < 2 || len(b) < i+12 {
		return t, b, false
	}
	word, after := b[:i], b[i+1:]
	if len(after) > 0 && after[0] == ' ' {
		after = after[1:]
	}
	if t, rest, _, ok := l.iso(after); ok && after[10] == ' ' {
		return t, zoneName(rest), true
	}
	return l.monthDay(month(word), after)
}

// monthDay reads "8 14:05:27[.123456]" behind a month; 0: one of an unknown
// language.
func (l *Lines) monthDay(mon time.Month, b []byte) (t time.Time, rest []byte, ok bool) {
	day, after, ok := number(b)
	if !ok || day < 1 || day > 31 || len(after) < 10 || after[0] != ' ' {
		return t, b, false
	}
	h, m, s, ok := clock(after[1:])
	if !ok {
		return t, b, false
	}
	rest = after[9:]
	var frac time.Duration
	if len(rest) > 1 && rest[0] == '.' && isDigit(rest[1]) {
		frac, rest = fraction(rest[1:])
	}
	if mon != 0 && !l.Now.IsZero() {
		t = l.lastYear(mon, int(day), h, m, s, frac)
	}
	return t, rest, true
}

// lastYear completes a stamp without a year: the latest that does not lie in
// the future, with a day of grace for clocks and zones.
func (l *Lines) lastYear(mon time.Month, day, h, m, s int, frac time.Duration) time.Time {
	limit := l.Now.Add(24 * time.Hour)
	year := l.Now.In(l.location()).Year() + 1
	for range 9 { // 29 February may lie eight years back
		t := time.Date(year, mon, day, h, m, s, int(frac), l.location())
		if !t.After(limit) && t.Month() == mon {
			return t.UTC()
		}
		year--
	}
	return time.Time{}
}

// zoneName takes " UTC", " CEST" or " +03" off.
func zoneName(b []byte) []byte {
	if len(b) < 2 || b[0] != ' ' {
		return b
	}
	i := 1
	for i < len(b) && (b[i] >= 'A' && b[i] <= 'Z' || isDigit(b[i]) || b[i] == '+' || b[i] == '-') {
		i++
	}
	if i == 1 || i > 6 || i < len(b) && b[i] != ' ' {
		return b
	}
	return b[i:]
}

// ctime reads the inside of dmesg -T's brackets, "Thu May  9 14:52:38 2024".
// In other languages only the month may stay unknown; then there is no time.
func (l *Lines) ctime(in []byte) (time.Time, bool) {
	n := len(in)
	if n < 18 || in[n-5] != ' ' || in[n-14] != ' ' {
		return time.Time{}, false
	}
	y1, ok1 := two(in[n-4:])
	y2, ok2 := two(in[n-2:])
	h, m, s, ok3 := clock(in[n-13:])
	if !ok1 || !ok2 || !ok3 {
		return time.Time{}, false
	}
	front, word := lastWord(in[:n-14])
	day, rest, ok := number(word)
	_, word = lastWord(front)
	mon := month(word)
	if !ok || len(rest) > 0 || day < 1 || day > 31 || mon == 0 {
		return time.Time{}, true
	}
	return time.Date(y1*100+y2, mon, int(day), h, m, s, 0, l.location()).UTC(), true
}

// lastWord cuts the last word off b; the word is empty when there is none.
func lastWord(b []byte) (front, word []byte) {
	b = bytes.TrimRight(b, " ")
	i := bytes.LastIndexByte(b, ' ') + 1
	return b[:i], b[i:]
}

// unixTime reads "1715259158.123456".
func unixTime(b []byte) (time.Time, []byte, bool) {
	d, rest, ok := seconds(b)
	if !ok || d < 1e8*time.Second || len(rest) == 0 || rest[0] != ' ' {
		return time.Time{}, b, false
	}
	return time.Unix(0, int64(d)).UTC(), rest, true
}

// clock reads "14:52:38".
func clock(b []byte) (h, m, s int, ok bool) {
	if len(b) < 8 || b[2] != ':' || b[5] != ':' {
		return 0, 0, 0, false
	}
	h, ok1 := two(b)
	m, ok2 := two(b[3:])
	s, ok3 := two(b[6:])
	return h, m, s, ok1 && ok2 && ok3 && h < 24 && m < 60 && s < 61
}

// two reads two digits.
func two(b []byte) (int, bool) {
	if len(b) < 2 || !isDigit(b[0]) || !isDigit(b[1]) {
		return 0, false
	}
	return int(b[0]-'0')*10 + int(b[1]-'0'), true
}

// month knows the English names and those that are numbers ("9月"); 0: unknown.
func month(word []byte) time.Month {
	if n, rest, ok := number(word); ok && n >= 1 && n <= 12 && len(rest) > 0 && rest[0] >= 0x80 {
		return time.Month(n)
	}
	if len(word) != 3 {
		return 0
	}
	for m := time.January; m <= time.December; m++ {
		if string(word) == m.String()[:3] {
			return m
		}
	}
	return 0
}

func (l *Lines) location() *time.Location {
	if l.Location == nil {
		return time.UTC
	}
	return l.Location
}
