// SPDX-License-Identifier: Apache-2.0

// Package containerlog reads the end of the file in which a container engine
// keeps what a container writes: Docker's json-file and local drivers, and the
// format of the CRI (containerd, CRI-O, podman's k8s-file). It is given the
// last bytes of a file, cut anywhere, and gives the last lines. The form is
// told by the bytes themselves. What it does not know it skips and counts.
//
// A line is what the container wants to say of itself: its text is a claim.
// Its time and stream are the engine's.
package containerlog

import (
	"bytes"
	"strings"
	"time"
	"unicode/utf8"
)

// Line is one line that a container wrote.
type Line struct {
	// Time is when the engine read it; zero: not told.
	Time time.Time
	// Stream is stdout or stderr.
	Stream string
	Text   string
}

// Bounds say what is wanted of a log.
type Bounds struct {
	// Lines is how many of the last lines, Bytes how much of each.
	Lines, Bytes int
	// Since and Until leave out what was written before or after; zero: no
	// bound. A line without a time is within.
	Since, Until time.Time
	// Keep says of an earlier line that it is wanted all the same, of which
	// the last Kept are given. It is asked of the cut text; nil: none is.
	Keep func(text string) bool
	Kept int
}

// Tail is the end of a log.
type Tail struct {
	// Lines are the last ones, oldest first, and before them those that Keep
	// wanted. Empty lines are left out.
	Lines []Line
	// Kept tells whether Keep wanted any of Lines.
	Kept bool
	// Begun tells whether any of data was written before Since.
	Begun bool
	// Skipped counts what is in no form known here.
	Skipped int
	// Rest is how many bytes at the beginning were not read, for they are the
	// end of something that begins before them.
	Rest int
}

// Last reads the last lines from data, the end of a file. Whole says that data
// is all of it, so that it does not begin amid a line.
func Last(data []byte, whole bool, b Bounds) Tail {
	c := collector{Bounds: b}
	if parts, ok := localParts(data, whole, &c); ok {
		for i := len(parts) - 1; i >= 0; i-- {
			c.add(parts[i])
		}
		return c.tail()
	}
	if !whole {
		_, after, found := bytes.Cut(data, []byte{'\n'})
		if !found {
			c.skipped++ // one line, longer than all that was read
		}
		c.rest = len(data) - len(after)
		data = after
	}
	for len(data) > 0 {
		line, after, _ := bytes.Cut(data, []byte{'\n'})
		data = after
		if len(line) == 0 {
			continue
		}
		if p, ok := linePart(line); ok {
			c.add(p)
		} else {
			c.skipped++
		}
	}
	return c.tail()
}

func linePart(line []byte) (part, bool) {
	if line[0] == '{' {
		return jsonPart(line)
	}
	return criPart(line)
}

// part is a line, or a piece of one: engines split long lines.
type part struct {
	at     time.Time
	stream string
	text   []byte
	more   bool // the line goes on in the next part of this stream
}

// collector joins parts to lines, and keeps those that are wanted.
type collector struct {
	Bounds
	open    [2]*Line // of stdout and stderr, what goes on
	last    []Line
	kept    []Line
	begun   bool
	skipped int
	rest    int
}

const (
	stdout = "stdout"
	stderr = "stderr"
)

func (c *collector) add(p part) {
	if p.stream != stdout && p.stream != stderr {
		c.skipped++
		return
	}
	if !p.at.IsZero() && p.at.Before(c.Since) {
		c.begun = true
		return
	}
	if !p.at.IsZero() && !c.Until.IsZero() && p.at.After(c.Until) {
		return
	}
	slot := &c.open[0]
	if p.stream == stderr {
		slot = &c.open[1]
	}
	if *slot == nil {
		*slot = &Line{Time: p.at, Stream: p.stream}
	}
	l := *slot
	if room := c.Bytes - len(l.Text); room > 0 {
		l.Text += string(p.text[:min(room, len(p.text))])
	}
	if !p.more {
		*slot = nil
		c.take(*l)
	}
}

// take adds a whole line, and lets go of the oldest.
func (c *collector) take(l Line) {
	l.Text = clean(l.Text, c.Bytes)
	if l.Text == "" {
		return
	}
	c.last = append(c.last, l)
	if len(c.last) <= c.Lines {
		return
	}
	oldest := c.last[0]
	c.last = c.last[1:]
	if c.Keep == nil || c.Kept <= 0 || !c.Keep(oldest.Text) {
		return
	}
	if c.kept = append(c.kept, oldest); len(c.kept) > c.Kept {
		c.kept = c.kept[1:]
	}
}

// clean makes text valid UTF-8 without what ends a line, not cut amid a rune.
func clean(s string, most int) string {
	if len(s) >= most {
		// The last rune may have been cut.
		for i := len(s) - 1; i >= 0 && i >= len(s)-utf8.UTFMax; i-- {
			if utf8.RuneStart(s[i]) {
				if !utf8.FullRuneInString(s[i:]) {
					s = s[:i]
				}
				break
			}
		}
	}
	s = strings.TrimRight(s, "\r\n")
	if strings.TrimSpace(s) == "" {
		return ""
	}
	return strings.ToValidUTF8(s, "?")
}

func (c *collector) tail() Tail {
	for _, l := range c.open {
		if l != nil { // it ended without the end of its line
			c.take(*l)
		}
	}
	t := Tail{Begun: c.begun, Skipped: c.skipped, Rest: c.rest, Kept: len(c.kept) > 0}
	t.Lines = append(c.kept, c.last...)
	for i := len(t.Lines) - 1; i >= 0 && !t.Kept && c.Keep != nil; i-- {
		t.Kept = c.Keep(t.Lines[i].Text)
	}
	return t
}

// stamp reads a time of the years that a time of ours may have.
func stamp(s string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() < minYear || t.Year() > maxYear {
		return time.Time{}, false
	}
	return t.UTC(), true
}

// The years in which engines with these forms can have written.
const (
	minYear = 2000
	maxYear = 2250
)
