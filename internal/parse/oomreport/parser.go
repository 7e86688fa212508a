// SPDX-License-Identifier: Apache-2.0

package oomreport

import (
	"bytes"
	"time"

	"github.com/coroner-dev/coroner/internal/parse/kernlog"
)

// Parser takes the records of one kernel log in order and gives out what the
// OOM killer did. It has no clock and does no I/O; the same records give the
// same events. The zero value is ready.
type Parser struct {
	// Dropped counts what was left out to stay within bounds.
	Dropped Dropped
	// Malformed counts lines that begin like the OOM killer's and are none.
	Malformed uint64

	// busy is true while lines that say nothing by themselves may matter.
	busy    bool
	reports []*report // open ones, oldest first
	free    []*report
	lastID  uint64
	held    held
	wrap    wrap
	// doubt is true while a line is taken whose end may be missing; width is
	// how wide it is, 0: not known.
	doubt bool
	width int
	// isPiece is true while a line without framing is taken that may be a
	// piece of the one before it.
	isPiece bool
	starts  [rateBurst]moment
	nStarts uint64
	// The boot that the records are of, and its latest stamp.
	boot  string
	stamp time.Duration
}

// The kernel's rate limit for reports (DEFINE_RATELIMIT_STATE in
// oom_kill_process) is rateBurst in 5 seconds; the second more is for the
// stamps.
const (
	rateBurst    = 10
	rateInterval = 6 * time.Second
	// reportSpan is the longest silence within a report: a slow console.
	reportSpan = 10 * time.Second
)

// Feed takes one record and appends the events that it completes to dst. The
// caller must have checked that the kernel wrote it (facility 0).
func (p *Parser) Feed(dst []Event, rec kernlog.Record) []Event {
	if p.rebooted(&rec) {
		dst = p.Flush(dst)
	}
	kind, w, rest := classify(rec.Text)
	if rec.Line != nil && !rec.HasSeq {
		return p.wrapped(dst, &rec, kind, w, rest)
	}
	dst = p.unwrap(dst, false)
	if kind == lineOther && !p.busy {
		return dst
	}
	dst = p.line(dst, &rec, kind, w, rest)
	p.settled()
	return dst
}

// Gap says that records were lost here: what follows is not joined to what
// came before by nearness alone, and a victim whose kill line may be among the
// lost is given out.
func (p *Parser) Gap(dst []Event) []Event {
	dst = p.finish(p.unwrap(dst, false))
	for _, r := range p.reports {
		dst = p.giveOut(dst, r, nil)
		r.gap, r.inStats = true, false
	}
	return dst
}

// Flush ends the log: a victim whose kill line never came is given out.
func (p *Parser) Flush(dst []Event) []Event {
	dst = p.finish(p.unwrap(dst, false))
	for _, r := range p.reports {
		dst = p.giveOut(dst, r, nil)
		p.free = append(p.free, r)
	}
	p.reports = p.reports[:0]
	p.nStarts, p.busy = 0, false
	return dst
}

// gathering tells whether a report waits for lines without a mark of their own.
func (p *Parser) gathering() bool {
	for _, r := range p.reports {
		if !r.done && r.stage <= stageTable {
			return true
		}
	}
	return false
}

// line takes a record that may matter.
func (p *Parser) line(dst []Event, rec *kernlog.Record, kind lineKind, w whose, rest []byte) []Event {
	dst, joined := p.goesOn(dst, rec, kind)
	if joined || rec.Fragment && !kind.begins() {
		return dst // the latter is of a line that was not kept
	}
	if kind.held() {
		p.hold(rec, kind)
		if kind == lineTasksIn && bytes.HasSuffix(rec.Text, []byte(tasksInEnd)) {
			return p.finish(dst)
		}
		return dst
	}
	if kind != lineKilled {
		return p.message(dst, rec, kind, rest)
	}
	kl, ok := parseKilled(w, rest)
	switch {
	case (!kl.whole || p.doubt) && !rec.HasSeq:
		p.hold(rec, kind)
		return dst
	case !ok:
		p.Malformed++
		return dst
	}
	return p.killed(dst, rec, &kl)
}

// message takes a record that is a line by itself.
func (p *Parser) message(dst []Event, rec *kernlog.Record, kind lineKind, rest []byte) []Event {
	switch kind {
	case lineOther:
		p.contextLine(rec)
	case lineInvoked:
		dst = p.giveOutOlder(dst, rec)
		var r *report
		dst, r = p.open(dst, rec)
		p.starts[p.nStarts%rateBurst] = momentOf(rec)
		p.nStarts++
		r.began = true
		r.touch(rec, stageInvoked)
		r.parseInvoked(numbered(rec.Text), p.doubt)
		r.adjWidth = p.width
	case lineUsage:
		var r *report
		dst, r = p.at(dst, rec, stageUsage)
		r.parseUsage(numbered(rec.Text), p.doubt)
	case lineTable, lineHeader:
		var r *report
		dst, r = p.at(dst, rec, stageTable)
		if kind == lineHeader {
			r.table.header(numbered(rec.Text))
		}
	case lineChosen:
		dst = p.chosen(dst, rec, rest)
	default:
		dst = p.note(dst, rec, kind, rest)
	}
	return dst
}

// contextLine takes what only a report in the making gives a meaning.
func (p *Parser) contextLine(rec *kernlog.Record) {
	r := p.newest(rec.Caller)
	if r == nil || r.done {
		return
	}
	text := numbered(rec.Text)
	switch {
	case p.doubt && len(text) > 0 && has([]byte(statsFor), string(text)):
		// The next counters would be another cgroup's.
		r.hasStats, r.noTotals = true, true
	case r.stage == stageTable && len(r.table.cols) > 0 && len(text) > 0 && text[0] == '[':
		p.tableRow(r, rec, text)
	case r.inStats && p.doubt:
		// Its number may lack its end.
	case r.inStats:
		r.parseStatLines(text, &p.Dropped)
		r.last, r.snap = momentOf(rec), nil
	case r.stage == stageInvoked:
		if r.parseTrigger(text, p.doubt) {
			r.memsWidth = p.width
		}
		r.last = momentOf(rec)
	}
}

// tableRow takes one row of the task table.
func (p *Parser) tableRow(r *report, rec *kernlog.Record, text []byte) {
	if p.doubt {
		r.table.lost = true // its name may lack its end
		return
	}
	r.table.add(text, &p.Dropped)
	r.last, r.snap = momentOf(rec), nil
}

// newest gives the latest report that a record of this caller can belong to.
func (p *Parser) newest(caller []byte) *report {
	for i := len(p.reports) - 1; i >= 0; i-- {
		if p.reports[i].compatible(caller) {
			return p.reports[i]
		}
	}
	return nil
}

// open begins a report. The oldest makes room, and is given out if it named a
// victim.
func (p *Parser) open(dst []Event, rec *kernlog.Record) ([]Event, *report) {
	if len(p.reports) == maxReports {
		old := p.reports[0]
		dst = p.giveOut(dst, old, nil)
		p.reports = append(p.reports[:0], p.reports[1:]...)
		p.free = append(p.free, old)
	}
	var r *report
	if n := len(p.free); n > 0 {
		r, p.free = p.free[n-1], p.free[:n-1]
	} else {
		r = &report{}
	}
	p.lastID++
	r.reset(p.lastID, rec.Caller)
	p.reports = append(p.reports, r)
	return dst, r
}

// at gives the report that a line of stage s belongs to: the newest, unless it
// is past that stage or told. Then another begins here, without its head.
func (p *Parser) at(dst []Event, rec *kernlog.Record, s stage) ([]Event, *report) {
	r := p.newest(rec.Caller)
	if r == nil || r.done || r.gap || !within(r.last, momentOf(rec), reportSpan) ||
		r.stage > s || s == stageSummary && r.stage == s || s == stageTable && len(r.table.cols) > 0 {
		// Two summaries in a row may both still get their kill lines.
		if s != stageSummary {
			dst = p.giveOutOlder(dst, rec)
		}
		dst, r = p.open(dst, rec)
	}
	r.touch(rec, s)
	return dst, r
}

// chosen takes "Kill process P (c) score N or sacrifice child" (before 5.1).
// The one that dies may be a child of P.
func (p *Parser) chosen(dst []Event, rec *kernlog.Record, rest []byte) []Event {
	n, _, ok := pid(rest)
	if !ok {
		p.Malformed++
		return dst
	}
	r := p.newest(rec.Caller)
	if r == nil || r.done || r.gap || r.stage >= stageChosen || r.sum.pid != 0 && r.sum.pid != n ||
		!within(r.last, momentOf(rec), reportSpan) {
		dst, r = p.open(dst, rec)
	}
	r.touch(rec, stageChosen)
	r.chosen = n
	return dst
}

// finish takes the line that was being put together.
func (p *Parser) finish(dst []Event) []Event {
	h := &p.held
	kind := h.kind
	if kind == lineOther {
		return dst
	}
	h.kind = lineOther
	rec := h.record()
	switch kind {
	case lineKilled:
		_, w, rest := classify(rec.Text)
		if kl, ok := parseKilled(w, rest); ok {
			if h.unsure {
				kl.comm = nil
			}
			if h.doubt {
				kl.doubtEnd(rest)
			}
			return p.killed(dst, &rec, &kl)
		}
		p.Malformed++
	case lineSummary:
		return p.summary(dst, &rec)
	case lineStats:
		var r *report
		dst, r = p.at(dst, &rec, stageUsage)
		r.parseStats(&h.line, h.doubt, &p.Dropped)
	case lineTaskIn:
		var r *report
		dst, r = p.at(dst, &rec, stageUsage)
		r.parseTaskIn(&h.line, h.doubt)
		r.taskWidth = h.width
	case lineTasksIn:
		return p.group(dst, &rec)
	}
	return dst
}

// summary takes a whole oom-kill: line.
func (p *Parser) summary(dst []Event, rec *kernlog.Record) []Event {
	s, glued, ok := parseSummary(&p.held.line, "", "")
	if !ok {
		p.Malformed++
		return dst
	}
	var r *report
	dst, r = p.at(dst, rec, stageSummary)
	r.began = true
	if p.held.doubt {
		s.uid = nil // its last digits may be missing
	}
	r.sumWidth, r.sumDoubt = p.held.width, p.held.doubt
	r.sum, r.sumAt = s, originOf(rec)
	text := p.held.line.text
	r.sumLine = line{bytes.Clone(text), append([]int(nil), p.held.line.starts...)}
	if len(glued) == 0 {
		return dst
	}
	r.sumLine.text = r.sumLine.text[:len(text)-len(glued)]
	rest := *rec
	rest.Text = bytes.Clone(glued)
	kind, w, tail := classify(rest.Text)
	if kind == lineOther {
		return dst
	}
	return p.line(dst, &rest, kind, w, tail)
}
