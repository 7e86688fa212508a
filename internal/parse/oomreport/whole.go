// SPDX-License-Identifier: Apache-2.0

package oomreport

import (
	"bytes"

	"github.com/coroner-dev/coroner/internal/parse/kernlog"
)

// Whole makes records of the lines that syslog(2) gives. There a line end
// within a record begins a line that looks like a record of its own, with the
// same stamp and priority: it could say that somebody was killed who was not.
// So lines with one stamp and priority are one record, as /dev/kmsg would give
// it; but for lines of a report, which come so fast that they may share a
// stamp, where all before them with it are of a report too. Those hold nothing
// with a line end that somebody chose but the name of a process, which is too
// short to say more: no cgroup's name has one. The zero value is ready.
type Whole struct {
	rec     kernlog.Record
	text    []byte
	caller  []byte
	spare   [2][]byte
	has     bool
	tainted bool // a line with this stamp is none of a report's
}

// Feed takes a line and gives the record before it, if that is complete. It is
// valid until the next call.
func (w *Whole) Feed(line kernlog.Record) (kernlog.Record, bool) {
	if w.has && w.same(&line) && !w.apart(line.Text) {
		if room := maxHeld - len(w.text) - 1; room > 0 {
			w.text = append(append(w.text, '\n'), line.Text[:min(len(line.Text), room)]...)
		}
		if kind, _, _ := classify(w.text); kind == lineKilled && ended(w.text) {
			w.tainted = false // the line end is in the name of a process
		}
		return kernlog.Record{}, false
	}
	tainted := w.has && w.same(&line) && w.tainted
	done, ok := w.End()
	w.spare[0], w.text = w.text, append(w.spare[0][:0], line.Text...)
	w.spare[1], w.caller = w.caller, append(w.spare[1][:0], line.Caller...)
	w.rec, w.has, w.tainted = line, true, tainted || !closed(line.Text)
	return done, ok
}

// End gives the last record: no line follows that is part of it.
func (w *Whole) End() (kernlog.Record, bool) {
	if !w.has {
		return kernlog.Record{}, false
	}
	w.has = false
	rec := w.rec
	rec.Text, rec.Caller = w.text, w.caller
	// A kill line is whole, as the kernel's own are; a line with a path may go
	// on in the next record, of which nothing here tells.
	kind, _, _ := classify(rec.Text)
	rec.HasSeq = kind == lineKilled
	return rec, true
}

func (w *Whole) same(line *kernlog.Record) bool {
	return line.Stamp == w.rec.Stamp && line.HasStamp == w.rec.HasStamp && line.Facility == w.rec.Facility &&
		line.Level == w.rec.Level && string(line.Caller) == string(w.caller)
}

// apart tells whether a line with the stamp of the record before it cannot be
// a part of that.
func (w *Whole) apart(text []byte) bool {
	return !w.tainted && (closed(text) || ended(w.text))
}

// ended tells whether a line is one of a report's, up to its end.
func ended(text []byte) bool {
	kind, w, rest := classify(text)
	switch kind {
	case lineInvoked:
		_, adj, _ := bytes.Cut(text, []byte(" oom_score_adj="))
		_, ok := all(adj)
		return ok
	case lineKilled:
		kl, ok := parseKilled(w, rest)
		return ok && kl.totalVM != nil
	case lineSummary:
		i := bytes.LastIndexByte(text, '=')
		_, ok := all(text[i+1:])
		return ok
	case lineUsage:
		return true
	}
	return statRow(text)
}

// closed tells whether a line is one of a report's.
func closed(text []byte) bool {
	kind, _, _ := classify(text)
	return kind.begins() || statRow(text) || taskRow(text) || pagesRow(text)
}

// statRow tells whether text is a row of a cgroup's figures: "anon 4096".
func statRow(text []byte) bool {
	name, n, ok := bytes.Cut(text, []byte{' '})
	if !ok || len(name) == 0 {
		return false
	}
	for _, c := range name {
		if c != '_' && c != '(' && c != ')' && c-'0' >= 10 && c|0x20-'a' >= 26 {
			return false
		}
	}
	_, ok = all(n)
	return ok
}

// pagesRow tells whether text is of what a machine's report ends with before
// the task table: "0 pages hwpoisoned".
func pagesRow(text []byte) bool {
	_, rest, ok := number(text)
	return ok && has(rest, " pages ") && len(rest) < 40
}

// taskRow tells whether text begins like a row of the task table: "[  7]  0  7 ".
func taskRow(text []byte) bool {
	if len(text) == 0 || text[0] != '[' {
		return false
	}
	id, rest, ok := bytes.Cut(text[1:], []byte{']'})
	if _, digits := all(bytes.TrimLeft(id, " ")); !ok || !digits {
		return false
	}
	n := 0
	for rest = bytes.TrimLeft(rest, " "); ; n++ {
		_, after, ok := number(rest)
		if !ok {
			return n >= 4
		}
		rest = bytes.TrimLeft(after, " ")
	}
}
