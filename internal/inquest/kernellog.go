// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"slices"
	"strconv"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
	"github.com/coroner-dev/coroner/internal/signal"
)

func itoa(n int) string { return strconv.Itoa(n) }

// maxReports bounds the kernel reports whose last case is remembered.
const maxReports = 1024

// reportedKill takes a "Killed process" line with its report.
func (q *Inquest) reportedKill(s signal.Signal, b signal.ReportedKill) {
	if b.Summary && q.toldAlready(s, b) {
		return
	}
	if p := q.dead.find(b.Victim.PID, b.Victim.TID); p != nil && q.near(p, s) && (!p.reported || b.Again || p.restored) && sameComm(p, b) {
		q.tellReported(p, s, b)
		return
	}
	if q.waitsForTracepoint(s, b) {
		return
	}
	q.newReported(s, b)
}

// toldAlready takes the report of a kill whose line named a thread, so that it
// came as another's: a summary without a kill line is of no other kill of that
// process within seconds.
func (q *Inquest) toldAlready(s signal.Signal, b signal.ReportedKill) bool {
	p := q.dead.find(b.Victim.PID, b.Victim.TID)
	if p == nil || !p.reported || p.restored || !p.Fate.ByOOMKiller() || s.Time.Sub(p.at).Abs() > oneBreath {
		return false
	}
	if c := p.owner; c != nil {
		q.mergeReport(c, s, b)
		q.touch(c)
	}
	return true
}

// heldReport is a kill line without its report that waits for the tracepoint,
// which knows the process and its cgroup: the line may name a thread of a
// process that is told of already.
type heldReport struct {
	s  signal.Signal
	b  signal.ReportedKill
	at time.Time
}

// heldFor is how long such a line waits; the tracepoint is some milliseconds
// apart from the log.
const heldFor = 500 * time.Millisecond

// waitsForTracepoint holds a live line that says nothing but the pid.
func (q *Inquest) waitsForTracepoint(s signal.Signal, b signal.ReportedKill) bool {
	bare := b.OOM == nil || b.OOM.TaskMemcg == ""
	if !bare || s.Recovered || !q.up[death.SourceTracepoint] || len(q.held) >= maxPending {
		return false
	}
	q.held = append(q.held, heldReport{s, b, q.now})
	return true
}

// releaseHeld decides the lines whose process has just been told of.
func (q *Inquest) releaseHeld(t signal.Task) {
	q.held = slices.DeleteFunc(q.held, func(h heldReport) bool {
		id := or(h.b.Victim.PID, h.b.Victim.TID)
		if id != t.PID && id != t.TID {
			return false
		}
		p := q.dead.find(h.b.Victim.PID, h.b.Victim.TID)
		if p == nil || !q.near(p, h.s) {
			return false
		}
		q.tellReported(p, h.s, h.b)
		return true
	})
}

// decideHeld decides the lines that have waited long enough.
func (q *Inquest) decideHeld() {
	held := q.held
	q.held = nil
	for _, h := range held {
		p := q.dead.find(h.b.Victim.PID, h.b.Victim.TID)
		switch {
		case p != nil && q.near(p, h.s):
			q.tellReported(p, h.s, h.b)
		case q.now.Sub(h.at) >= heldFor && !q.lag.behind(q.now, h.s.Time.Add(drift)):
			q.newReported(h.s, h.b)
		default:
			q.held = append(q.held, h)
		}
	}
}

// newReported makes a death, or a part of one, of a kill that the log alone
// tells so far.
func (q *Inquest) newReported(s signal.Signal, b signal.ReportedKill) {
	if p := q.firstVictimAgain(s, b); p != nil {
		q.ledger.double(p, p.owner.taskMemcg)
		q.dead.alias(p, b.Victim.PID)
		return
	}
	p := &process{
		Process: death.Process{PID: b.Victim.PID, Comm: b.Victim.Comm, UID: b.Victim.UID, Init: b.Victim.Init, Fate: death.FateVictim},
		tid:     b.Victim.TID, mm: b.Victim.MM, at: s.Time, reported: true,
	}
	p.figures(b.Figures)
	path := q.taskMemcg(b)
	if q.toldBefore(s, signal.Cgroup{ID: b.Victim.Cgroup.ID, Path: path}) {
		return
	}
	c := q.caseForReported(s, b, p, path)
	q.add(c, p)
	q.learnInit(c, p)
	if c.logSeq == 0 {
		c.logSeq = b.Seq
	}
	q.mergeReport(c, s, b)
	q.ledger.explain(q.home(c), s)
	q.touch(c)
	if m, ok := q.kernel.marked[b.Victim.PID]; ok {
		// mark_victim came without its SIGKILL, and the log says killed.
		delete(q.kernel.marked, b.Victim.PID)
		q.stats.AlreadyDying--
		q.tellMarked(p, m.s, m.b)
	}
}

// firstVictimAgain finds the first victim of a group that the log names a
// second time by the id of another thread: same name, same figures.
func (q *Inquest) firstVictimAgain(s signal.Signal, b signal.ReportedKill) *process {
	if b.OOM != nil && b.OOM.TaskMemcg != "" {
		return nil
	}
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		if !c.group || len(c.procs) == 0 || !q.inOneBreath(c, s) {
			continue
		}
		if p := c.procs[0]; p.reported && p.Comm == b.Victim.Comm && p.sameFigures(b.Figures) {
			return p
		}
	}
	return nil
}

func (q *Inquest) taskMemcg(b signal.ReportedKill) string {
	if path := q.roster.path(b.Victim.Cgroup); path != "" {
		return path
	}
	if b.OOM != nil {
		return b.OOM.TaskMemcg
	}
	return ""
}

// caseForReported finds the case that a kill known only from the log belongs
// to, or opens one.
func (q *Inquest) caseForReported(s signal.Signal, b signal.ReportedKill, p *process, path string) *caseFile {
	if c := q.reports[b.Report]; c != nil && c.group {
		p.Fate = death.FateGroup
		// The line of a group's member names no cgroup: it is of the group's.
		if path == "" && c.container != nil && c.groupCgroup != c.container.Cgroup {
			c.note(s, "in which container of the group pid %d lived, the log does not say", or(b.Victim.PID, b.Victim.TID))
			p.unplaced = true
		}
		if path == "" || c.sameOwner(path) {
			return c
		}
	}
	if c := q.sameEnd(s, b.Victim.Cgroup.ID, path, p); c != nil {
		return c
	}
	if c := q.claim(signal.Cgroup{ID: b.Victim.Cgroup.ID, Path: path}, s); c != nil {
		return c
	}
	if c := q.endAwaiting(s, path, b.Victim.PID); c != nil {
		q.explainedByOOM(c, s)
		q.place(c, signal.Cgroup{ID: b.Victim.Cgroup.ID, Path: path})
		return c
	}
	c := q.open(s, pidKey(b.Victim))
	c.oomKilled = true
	c.oom.Events = 1
	q.place(c, signal.Cgroup{ID: b.Victim.Cgroup.ID, Path: path})
	return c
}

// sameComm tells whether the log may speak of p, known from before a restart.
func sameComm(p *process, b signal.ReportedKill) bool {
	return !p.restored || p.Comm == "" || b.Victim.Comm == "" || p.Comm == valid(b.Victim.Comm)
}

// tellReported adds what the log says to a process already known.
func (q *Inquest) tellReported(p *process, s signal.Signal, b signal.ReportedKill) {
	c := p.owner
	again := b.Again || p.reported
	p.reported = true
	if c == nil {
		if !b.Again {
			q.stats.Late++
		}
		return
	}
	if again {
		if b.Again {
			q.ledger.double(p, c.taskMemcg) // a group's first victim
		}
		return
	}
	if p.Fate == death.FateSignalled {
		return // another death of a pid that came back within a minute
	}
	p.merge(b.Victim, b.Figures, false)
	wasPlaced := c.taskMemcg != ""
	if path := q.taskMemcg(b); path != "" && !wasPlaced {
		q.place(c, signal.Cgroup{Path: path})
		q.ledger.explainAt(q.home(c), s)
	}
	q.mergeReport(c, s, b)
	q.touch(c)
}

// mergeReport takes over what the report around the kill said.
func (q *Inquest) mergeReport(c *caseFile, s signal.Signal, b signal.ReportedKill) {
	if !c.hasReport {
		c.hasReport, c.report = true, b.Report
	}
	if len(q.reports) >= maxReports {
		clear(q.reports)
	}
	q.reports[b.Report] = c
	c.saidMemcg = c.saidMemcg || b.Memcg
	c.saidGlobal = c.saidGlobal || b.Global
	if b.Text != "" {
		c.note(s, "%s", death.Printable(b.Text))
	}
	if b.OOM == nil || c.context {
		return
	}
	c.context = true
	o := *b.OOM
	prior := c.oom
	c.oom = o
	c.oom.Events, c.oom.Containers = prior.Events, prior.Containers
	if o.OOMMemcg == "" {
		c.oom.OOMMemcg = prior.OOMMemcg
	}
	if o.Constraint == "" {
		c.oom.Constraint = prior.Constraint
	}
	c.oom.Trigger = nil
	c.oom.GroupKill = false
	c.group = c.group || o.GroupKill
	q.mergeTrigger(c, prior.Trigger)
	q.mergeTrigger(c, o.Trigger)
	if o.Constraint != "" || o.OOMMemcg != "" {
		c.named = true
		c.note(s, "%s", reportText(&o))
	}
	if len(c.chain) == 0 && c.taskMemcg != "" {
		c.chain = q.roster.chain(c.taskMemcg)
	}
}

// reportText is the report's context as one line of evidence.
func reportText(o *death.OOM) string {
	t := "the kernel's report: "
	if o.Constraint != "" {
		t += o.Constraint + ", "
	}
	if o.OOMMemcg != "" {
		t += "limit of " + death.Printable(o.OOMMemcg)
	} else {
		t += "no cgroup's limit"
	}
	if o.UsageBytes != nil && o.LimitBytes != nil {
		t += ", usage " + death.FormatBytes(*o.UsageBytes) + " of " + death.FormatBytes(*o.LimitBytes)
	}
	return t
}

// mergeTrigger keeps the first and fullest naming of who asked for memory.
func (q *Inquest) mergeTrigger(c *caseFile, t *death.Trigger) {
	if t == nil || (t.PID == 0 && t.Comm == "") {
		return
	}
	have := c.oom.Trigger
	if have == nil {
		copied := *t
		c.oom.Trigger = &copied
		return
	}
	if have.PID == 0 || have.PID == t.PID {
		have.PID = t.PID
		if have.Comm == "" {
			have.Comm = t.Comm
		}
		if have.Cgroup == "" {
			have.Cgroup = t.Cgroup
		}
	}
}

// reportedGroup takes the line that announces the kill of a whole group: it
// concerns the kill before it and the kills after it.
func (q *Inquest) reportedGroup(s signal.Signal, b signal.ReportedGroup) {
	c := q.reports[b.Report]
	if c == nil {
		return
	}
	c.group = true
	if c.groupCgroup == "" {
		c.groupCgroup = b.Cgroup.Path
	}
	if at := cgpath.Parse(b.Cgroup.Path); c.taskMemcg == "" && at.Level == cgpath.Container {
		q.place(c, b.Cgroup)
		q.ledger.explainAt(q.home(c), s)
	}
	c.note(s, "memory.oom.group is set at %s: all of it is killed", death.Printable(b.Cgroup.Path))
	if at := b.Cgroup.Path; c.container != nil && at != "" && (at == c.container.Cgroup || at == c.podCgroup) {
		c.ended = true
	}
	q.touch(c)
}

// reportedNote takes a line that is no kill of its own.
func (q *Inquest) reportedNote(s signal.Signal, b signal.ReportedNote) {
	known := q.dead.find(b.PID)
	if known != nil && !q.near(known, s) {
		known = nil
	}
	switch b.Kind {
	case signal.NoteAlreadyExiting:
		if known == nil { // else it is the second look at a group's first victim
			q.stats.AlreadyDying++
		}
	case signal.NoteSharer:
		c := q.reports[b.Report]
		if c == nil || known != nil {
			return
		}
		p := &process{at: s.Time, reported: true, killSeen: true}
		p.PID, p.Fate = b.PID, death.FateSharer
		q.add(c, p)
		c.note(s, "%s", death.Printable(b.Text))
		q.touch(c)
	}
}
