// SPDX-License-Identifier: Apache-2.0

package oomreport

import "github.com/coroner-dev/coroner/internal/parse/kernlog"

// killed takes a kill line: finds the report that it proves to belong to, or
// begins one that has nothing but it.
func (p *Parser) killed(dst []Event, rec *kernlog.Record, kl *killLine) []Event {
	r, group := p.match(rec, kl)
	if r == nil {
		dst, r = p.open(dst, rec)
	}
	again := r.again(kl, momentOf(rec))
	dead := r.find(kl.pid) // where it is named again
	pid, tid := kl.pid, 0
	if of, named := p.byThread(r, kl, momentOf(rec)); of != 0 && of != kl.pid {
		again, dead, pid, tid = named, r.find(of), of, kl.pid
	}
	if !group && !r.done && r.sum.pid != 0 && r.chosen == 0 && r.sum.pid != kl.pid {
		pid, tid = r.sum.pid, kl.pid
	}
	r.recheck(&p.wrap)
	r.settle(string(kl.comm))
	if !group {
		r.done = true
	}
	r.last = momentOf(rec)
	k := &Kill{
		Origin: originOf(rec), ReportID: r.id, Report: r.snapshot(),
		PID: pid, TID: tid, Comm: string(kl.comm), UID: kl.uid,
		TotalVMBytes: kl.totalVM, AnonRSSBytes: kl.anon, FileRSSBytes: kl.file,
		ShmemRSSBytes: kl.shmem, PgtablesBytes: kl.pgtables, OOMScoreAdj: kl.adj,
		Memcg: kl.memcg, Global: kl.global, Group: group && !again, Again: again,
		Text: bounded(rec.Text, maxText),
	}
	if again {
		dead.witness(k)
	} else {
		r.name(k, &p.Dropped)
	}
	r.complete(k)
	return append(dst, k)
}

// match finds the report of a kill line. The pid must be one that the report
// names: in its summary, among its dead, or in its table. Only a report that
// names nobody takes the kill that follows it.
func (p *Parser) match(rec *kernlog.Record, kl *killLine) (r *report, group bool) {
	now := momentOf(rec)
	var first *report
	for i := len(p.reports) - 1; i >= 0; i-- {
		r := p.reports[i]
		if !r.compatible(rec.Caller) {
			continue
		}
		if first == nil {
			first = r
		}
		if r.again(kl, now) {
			return r, r.isGrp
		}
		if !r.done && r.sum.pid == kl.pid && within(r.last, now, 6*reportSpan) {
			return r, false
		}
	}
	switch {
	case first == nil:
	case !first.done && first.takes(kl, now, p.limited(now)):
		return first, false
	case first.done && p.member(first, kl, now):
		return first, true
	}
	return nil, false
}

// takes tells whether r, whose victim's pid is not the kill line's, or not
// known, is still this kill's report. Where the rate limit may be in force, the
// line may be of a kill whose own report was left out.
func (r *report) takes(kl *killLine, now moment, limited bool) bool {
	if r.gap || !within(r.last, now, reportSpan) {
		return false
	}
	listed := len(r.table.rows) == 0 || r.table.lost || r.table.find(kl.pid) != nil
	if r.sum.pid != 0 {
		return r.child() && listed || !limited && r.thread(kl)
	}
	ofMemcg := r.rep.Memory != nil || r.taskIn || r.sum.oomMemcg != ""
	ofNode := r.sum.global
	return listed && !(ofMemcg && kl.global) && !(ofNode && kl.memcg)
}

// child tells whether the kernel may kill a child of the one that it chose, as
// those before 5.1 do.
func (r *report) child() bool { return r.stage == stageChosen && r.chosen == r.sum.pid }

// thread tells whether kl names a thread of the process that r's summary names:
// the one that still had the memory, where the first had ended. The kernel holds
// a lock from the summary to the kill line, which is never left out.
func (r *report) thread(kl *killLine) bool {
	if r.chosen != 0 || r.table.find(kl.pid) != nil {
		return false
	}
	if kl.global && !r.sum.global || kl.memcg && r.sum.global {
		return false
	}
	s, _, ok := parseSummary(&r.sumLine, string(kl.comm), r.statMemcg)
	return ok && s.comm == string(kl.comm)
}

// member tells whether a kill line is proven to be of the group that r kills.
// The OOM killer holds a lock, so no other kill can come in between; but later
// ones can, and look the same where the rate limit takes their heads.
func (p *Parser) member(r *report, kl *killLine, now moment) bool {
	if !p.inGroup(r, kl, now) {
		return false
	}
	of, _ := p.byThread(r, kl, now)
	return of != 0 || !r.table.lacks(kl.pid)
}

func (p *Parser) inGroup(r *report, kl *killLine, now moment) bool {
	return r.isGrp && r.began && !r.gap && r.saidOf(kl) && r.find(kl.pid) == nil && !p.limited(now) && within(r.last, now, reportSpan)
}

// byThread finds the member of a group that a kill line names by the id of a
// thread, which still had the memory when the first one had ended: its pid is not
// in the table, which has every process, and the rest is the member's. Named says
// that it was named before. Seen on 6.1 and 6.12. Where it may be several the
// thread's id stands for it; 0: it is none.
func (p *Parser) byThread(r *report, kl *killLine, now moment) (pid int, named bool) {
	if !p.inGroup(r, kl, now) || !r.table.lacks(kl.pid) {
		return 0, false
	}
	for i := range r.named {
		if v := &r.named[i]; v.witnessed && v.comm == string(kl.comm) && v.whose == kl.whose && v.shrankTo(kl) {
			return v.pid, true
		}
	}
	return r.unnamed(kl), false
}

// unnamed finds the process of the table that has a kill line's name and size and
// was not named before; where several have, the line's own pid; 0: none has.
func (r *report) unnamed(kl *killLine) (pid int) {
	page := r.pageSize()
	if page == 0 || kl.totalVM == nil {
		return 0
	}
	for i := range r.table.rows {
		x := &r.table.rows[i]
		if x.name != string(kl.comm) || x.vals[colTotalVM]*page != *kl.totalVM || r.find(x.pid) != nil {
			continue
		}
		if pid != 0 {
			return kl.pid
		}
		pid = x.pid
	}
	return pid
}

// pageSize is how large a page of the table is, by its row of the first victim;
// 0: not known.
func (r *report) pageSize() int64 {
	if len(r.named) == 0 || !r.table.has[colTotalVM] {
		return 0
	}
	x := r.table.find(r.named[0].pid)
	if x == nil || x.vals[colTotalVM] == 0 || r.named[0].figures[0]%x.vals[colTotalVM] != 0 {
		return 0
	}
	return r.named[0].figures[0] / x.vals[colTotalVM]
}

// saidOf tells whether a kill line's first words may be those of the group that r
// kills: the kernel gives each member the first victim's, also where the machine
// ran out. Before 5.1 they have none.
func (r *report) saidOf(kl *killLine) bool {
	global := len(r.named) > 0 && r.named[0].global
	return kl.global == global || !kl.global && !kl.memcg
}

// limited tells whether the kernel's rate limit may be in force.
func (p *Parser) limited(now moment) bool {
	if p.nStarts < rateBurst {
		return false
	}
	return within(p.starts[p.nStarts%rateBurst], now, rateInterval)
}

// complete fills in what the context says of the killed process.
func (r *report) complete(k *Kill) {
	if r.sum.pid == k.PID {
		k.TaskMemcg = r.sum.taskMemcg
		if k.UID == nil {
			k.UID = r.sum.uid
		}
	} else if r.taskIn && r.sum.pid == 0 && !k.Group && (r.chosen == 0 || r.chosen == k.PID) {
		k.TaskMemcg = r.rep.TaskMemcg
	}
	if row := r.table.find(k.PID); row != nil {
		r.table.complete(k, row)
	}
}

// giveOut gives a victim out that only the summary names, or the reaper's line
// if there is one.
func (p *Parser) giveOut(dst []Event, r *report, reaped *Note) []Event {
	k := &Kill{Origin: r.sumAt, ReportID: r.id, From: FromSummary, PID: r.sum.pid, Text: bounded(r.sumLine.text, maxText)}
	if reaped != nil {
		k.Origin, k.From, k.PID, k.Comm, k.Text = reaped.Origin, FromReaper, reaped.PID, reaped.Comm, reaped.Text
	}
	if k.PID == 0 || r.done {
		return dst
	}
	r.done = true
	if row := r.table.find(k.PID); row != nil && k.Comm == "" {
		k.Comm = row.name
	}
	r.recheck(&p.wrap)
	r.settle(k.Comm)
	if r.sum.pid == k.PID && k.Comm == "" {
		k.Comm = r.sum.comm
	}
	k.Report = r.snapshot()
	k.Global = r.sum.global
	k.Memcg = !r.sum.global && k.Report != nil && (k.Report.OOMMemcg != "" || k.Report.Memory != nil)
	r.complete(k)
	r.name(k, &p.Dropped)
	return append(dst, k)
}

// giveOutOlder is called when another report begins: kill lines of those
// before it, by the same caller, will not come any more.
func (p *Parser) giveOutOlder(dst []Event, rec *kernlog.Record) []Event {
	for _, r := range p.reports {
		if r.compatible(rec.Caller) {
			dst = p.giveOut(dst, r, nil)
		}
	}
	return dst
}

// group takes "Tasks in A are going to be killed due to memory.oom.group set":
// it belongs to the kill before it.
func (p *Parser) group(dst []Event, rec *kernlog.Record) []Event {
	path, ok := parseTasksIn(&p.held.line)
	if !ok {
		p.Malformed++
		return dst
	}
	r := p.newest(rec.Caller)
	if r == nil || len(r.named) == 0 || r.isGrp && r.group != path || !within(r.last, momentOf(rec), reportSpan) {
		dst, r = p.open(dst, rec)
		r.done = true
	}
	r.isGrp, r.group, r.last = true, path, momentOf(rec)
	return append(dst, &Group{Origin: originOf(rec), ReportID: r.id, Cgroup: path})
}

// note takes the lines that are no kill.
func (p *Parser) note(dst []Event, rec *kernlog.Record, kind lineKind, rest []byte) []Event {
	n := &Note{Origin: originOf(rec), Text: bounded(rec.Text, maxText)}
	ok := true
	switch kind {
	case lineUnkillable:
		n.Kind = NoteUnkillable
		p.unkillable(rec, n)
	case lineExiting:
		n.Kind = NoteAlreadyExiting
		if ok = n.process(rest, " is already exiting"); ok {
			p.exiting(rec, n)
		}
	case lineSharer:
		n.Kind = NoteSharer
		ok = n.process(rest, " sharing same memory")
		if r := p.newest(rec.Caller); r != nil && !r.gap {
			n.ReportID = r.id
		}
	case lineSuppressed:
		n.Kind = NoteSuppressed
		ok = n.callbacks(numbered(rec.Text))
	case lineReaped:
		n.Kind = NoteReaped
		if ok = n.process(rest, ", now anon-rss:"); ok {
			dst = p.reaped(dst, momentOf(rec), n)
		}
	}
	if !ok {
		p.Malformed++
		return dst
	}
	return append(dst, n)
}

// process reads "P (c)" before mark.
func (n *Note) process(b []byte, mark string) bool {
	p, comm, ok := pidComm(b, mark)
	n.PID, n.Comm = p, string(comm)
	return ok
}

// callbacks reads "oom_kill_process: N callbacks suppressed".
func (n *Note) callbacks(b []byte) bool {
	c, after, ok := number(b[len("oom_kill_process: "):])
	n.Count = int(c)
	return ok && has(after, " callbacks suppressed") && c > 0 && c < 1<<31
}

// unkillable ends a report without a victim.
func (p *Parser) unkillable(rec *kernlog.Record, n *Note) {
	if r := p.newest(rec.Caller); r != nil && !r.done && !r.gap && r.context {
		n.ReportID, r.done = r.id, true
	}
}

// exiting takes the report's victim back: it was dying already.
func (p *Parser) exiting(rec *kernlog.Record, n *Note) {
	for _, r := range p.reports {
		if !r.done && r.sum.pid == n.PID && r.compatible(rec.Caller) {
			n.ReportID, r.done = r.id, true
		}
	}
}

// reaped notes whose memory the reaper took. Where a report lacks its kill
// line, this is the proof that one of its table was killed.
func (p *Parser) reaped(dst []Event, now moment, n *Note) []Event {
	for i := len(p.reports) - 1; i >= 0; i-- {
		r := p.reports[i]
		if r.find(n.PID) != nil && within(r.last, now, 6*reportSpan) {
			n.ReportID = r.id
			return dst
		}
	}
	if len(p.reports) == 0 {
		return dst
	}
	r := p.reports[len(p.reports)-1]
	if r.done || r.gap || !within(r.last, now, reportSpan) || r.sum.pid != n.PID && (r.sum.pid != 0 || r.table.find(n.PID) == nil) {
		return dst
	}
	n.ReportID = r.id
	return p.giveOut(dst, r, n)
}
