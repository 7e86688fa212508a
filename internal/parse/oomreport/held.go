// SPDX-License-Identifier: Apache-2.0

package oomreport

import (
	"bytes"

	"github.com/coroner-dev/coroner/internal/parse/kernlog"
)

// held is a line that later records may go on with: the kernel splits what
// does not fit a record, and people's terminals and mail programs wrap.
type held struct {
	kind   lineKind
	line   line
	rec    kernlog.Record
	caller []byte
	waited int
	full   bool
	// unsure is true when a kill line was broken within its name: whether a
	// space was there is not known.
	unsure bool
	// doubt is true when its end may be missing; width is that of its last
	// piece.
	doubt bool
	width int
}

// held tells whether the kernel may split lines of this kind: those with
// paths of cgroups.
func (k lineKind) held() bool {
	return k == lineSummary || k == lineStats || k == lineTaskIn || k == lineTasksIn
}

// maxWait bounds how many records of other callers may come between.
const maxWait = 64

type heldNext int

const (
	heldEnds   heldNext = iota // the line is complete
	heldJoined                 // the record was a piece of it
	heldWaits                  // the record is another caller's
)

// start keeps a copy of the line's first record.
func (h *held) start(rec *kernlog.Record, kind lineKind) {
	h.kind, h.waited, h.full, h.unsure = kind, 0, false, false
	h.line.text = append(h.line.text[:0], numbered(rec.Text)[:min(len(numbered(rec.Text)), maxHeld)]...)
	h.line.starts = h.line.starts[:0]
	h.caller = append(h.caller[:0], rec.Caller[:min(len(rec.Caller), 32)]...)
	h.rec = *rec
}

// record gives the whole line as one record.
func (h *held) record() kernlog.Record {
	rec := h.rec
	rec.Text, rec.Caller, rec.Fragment = h.line.text, h.caller, false
	return rec
}

// next looks at the record after the line: is it a piece of it?
func (h *held) next(rec *kernlog.Record, kind lineKind, d *Dropped) heldNext {
	mine := len(h.caller) == 0 || len(rec.Caller) == 0 || string(h.caller) == string(rec.Caller)
	switch {
	case !mine && h.waited < maxWait:
		h.waited++
		return heldWaits
	case !mine || kind.begins():
		return heldEnds
	case rec.Fragment, !rec.HasSeq && h.unmarked(rec):
		h.add(rec.Text, d)
		return heldJoined
	}
	return heldEnds
}

// unmarked tells whether a record of a framing without flags goes on with the
// line: it could not stand by itself, and the line is not at its end.
func (h *held) unmarked(rec *kernlog.Record) bool {
	t := rec.Text
	if len(t) == 0 || has(t, "...") || has(t, "(...") {
		return false
	}
	if h.kind == lineKilled {
		return rec.Bare && h.rewrap(t)
	}
	return h.open(rec) && (rec.Bare || t[0] == '/' || t[0] == ',' || t[0] == ':' || has(t, " are going to be killed"))
}

// open tells whether the line cannot have been at its end.
func (h *held) open(rec *kernlog.Record) bool {
	text := h.line.text
	switch h.kind {
	case lineSummary:
		var s summary
		body, glued := unglue(text)
		s.tail(body)
		_, digits := all(rec.Text)
		return len(glued) == 0 && (s.pid == 0 || rec.Bare && digits)
	case lineStats:
		return text[len(text)-1] != ':' && !bytes.HasSuffix(text, []byte("KB"))
	case lineTaskIn:
		return !bytes.Contains(text, []byte(limitOf+"/")) || rec.Bare && h.deeper(rec.Text)
	}
	return true // a whole lineTasksIn is not held
}

// deeper tells whether the cgroup at the end of a lineTaskIn, with more behind
// it, is still one that the task's own lies in.
func (h *held) deeper(more []byte) bool {
	tsk, oom, ok := bytes.Cut(bytes.TrimPrefix(h.line.text, []byte("Task in ")), []byte(limitOf))
	n := len(oom) + len(more)
	return ok && n <= len(tsk) && string(tsk[:len(oom)]) == string(oom) && string(tsk[len(oom):n]) == string(more)
}

// add appends a piece.
func (h *held) add(t []byte, d *Dropped) {
	if h.full || len(h.line.starts) == maxPieces || len(h.line.text)+len(t) > maxHeld {
		// A line with a hole in it would be read wrong: leave its end off.
		h.full = true
		d.Text++
		return
	}
	if h.kind == lineKilled {
		return // rewrap did it
	}
	h.line.starts = append(h.line.starts, len(h.line.text))
	h.line.text = append(h.line.text, t...)
}

// rewrap tries to go on with a kill line that was wrapped: at a space, which
// mail programs swallow, or in the middle of a word. It is done only where
// it gives more of a kill line than there was.
func (h *held) rewrap(t []byte) bool {
	n := len(h.line.text)
	if n+len(t) >= maxHeld || len(h.line.starts) >= maxPieces {
		return false
	}
	was, _ := weight(h.line.text)
	h.line.text = append(h.line.text, t...)
	tight, tightComm := weight(h.line.text)
	h.line.text = append(append(h.line.text[:n], ' '), t...)
	loose, looseComm := weight(h.line.text)
	switch {
	case loose > was && loose >= tight:
		h.unsure = h.unsure || loose == tight && looseComm != tightComm
	case tight > was:
		h.line.text = append(h.line.text[:n], t...)
	default:
		h.line.text = h.line.text[:n]
		return false
	}
	h.line.starts = append(h.line.starts, n)
	return true
}

// weight counts what a kill line tells, and gives its name.
func weight(b []byte) (int, string) {
	_, w, rest := classify(b)
	kl, ok := parseKilled(w, rest)
	if !ok {
		return 0, ""
	}
	n := 1
	for _, f := range []bool{kl.totalVM != nil, kl.anon != nil, kl.file != nil, kl.shmem != nil, kl.pgtables != nil, kl.uid != nil, kl.adj != nil, kl.whole} {
		if f {
			n++
		}
	}
	return n, string(kl.comm)
}

// hold begins a line that may go on.
func (p *Parser) hold(rec *kernlog.Record, kind lineKind) {
	p.held.start(rec, kind)
	p.held.doubt, p.held.width = p.doubt, p.width
}

// goesOn looks whether a record goes on with the line that is held, and ends
// that line if it does not.
func (p *Parser) goesOn(dst []Event, rec *kernlog.Record, kind lineKind) (_ []Event, joined bool) {
	if p.held.kind == lineOther {
		return dst, false
	}
	switch p.held.next(rec, kind, &p.Dropped) {
	case heldJoined:
		p.held.doubt, p.held.width = p.doubt, p.width
		return dst, true
	case heldWaits:
		if !kind.held() && kind != lineKilled {
			return dst, false
		}
		// There is room for one.
	case heldEnds:
		p.held.doubt = p.held.doubt || p.isPiece
	}
	return p.finish(dst), false
}
