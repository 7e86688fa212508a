// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"cmp"
	"slices"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
	"github.com/coroner-dev/coroner/internal/signal"
)

// heldEnd is the end of a container in an engine's words that waits for the
// engine to say where the container lives.
type heldEnd struct {
	t  *tenant
	s  signal.Signal
	b  signal.ContainerExit
	at time.Time
}

// holdsEnd keeps the end of a container that its engine has not described yet,
// and whose cgroup does not bear its id: what the kernel tells of it can only
// then be known for its own.
func (q *Inquest) holdsEnd(t *tenant, s signal.Signal, b signal.ContainerExit) bool {
	kernel := q.namersUp() || q.up[death.SourceCgroup]
	if !kernel || t.key == t.ID || t.Name != "" || t.Cgroup != "" || len(q.heldEnds) >= maxPending {
		return false
	}
	q.heldEnds = append(q.heldEnds, heldEnd{t, s, b, q.now})
	return true
}

// releaseEnds takes the ends of t, which may be described now, and those that
// have waited long enough.
func (q *Inquest) releaseEnds(t *tenant) {
	if len(q.heldEnds) == 0 || t != nil && t.Name == "" && t.Cgroup == "" {
		return
	}
	held := q.heldEnds
	q.heldEnds = nil
	for _, h := range held {
		if h.t != t && q.now.Sub(h.at) < q.opts.Patience {
			q.heldEnds = append(q.heldEnds, h)
			continue
		}
		q.endedByEngine(h.t, h.s, h.b)
	}
}

// holdsFirst keeps what the kernel tells of t, a first process in a cgroup that is
// nobody's: an engine may say in a moment that it is a container's.
func (q *Inquest) holdsFirst(s signal.Signal, t signal.Task) bool {
	path := q.roster.path(t.Cgroup)
	if path == "" || q.now.Sub(s.Observed) >= q.opts.Patience || len(q.homeless) >= maxPending {
		return false
	}
	if c, _, _, _ := q.owner(path); c != nil {
		return false
	}
	q.homeless = append(q.homeless, s)
	return true
}

// releaseFirst takes what the kernel told of the first process of t.
func (q *Inquest) releaseFirst(t *tenant) {
	if len(q.homeless) == 0 || t.Cgroup == "" {
		return
	}
	held := q.homeless
	q.homeless = nil
	for _, s := range held {
		if cgpath.Within(t.Cgroup, q.roster.path(cgroupOf(s.Body))) {
			q.take(s)
		} else {
			q.homeless = append(q.homeless, s)
		}
	}
}

// cgroupOf is where the one lived of whose end b tells.
func cgroupOf(b signal.Body) signal.Cgroup {
	switch b := b.(type) {
	case signal.Exit:
		return b.Task.Cgroup
	case signal.Kill:
		return b.Target.Cgroup
	}
	return signal.Cgroup{}
}

// expireHomeless lets go of what was no container's.
func (q *Inquest) expireHomeless() {
	q.homeless = slices.DeleteFunc(q.homeless, func(s signal.Signal) bool { return q.now.Sub(s.Observed) >= q.opts.Patience })
}

// livesAt tells whether c is of the container at path, also where its engine told
// the end before it said where that is.
func (q *Inquest) livesAt(c *caseFile, path string) bool {
	return c.livedAt(path) || c.tenant != nil && c.tenant == q.tenants.at(path)
}

// foldLate makes one of an OOM kill that has been placed after it was known,
// and of the end of its container that was told of before that.
func (q *Inquest) foldLate() {
	for _, c := range slices.Clone(q.dirty) {
		if !c.lateHome || c.revision > 0 || !c.oomKilled || c.ended || c.container == nil || c.countedOnly || c.invocation != nil || q.waiting(c) {
			continue
		}
		c.lateHome = false
		pid := 0
		if len(c.procs) > 0 {
			pid = c.procs[0].PID
		}
		s := signal.Signal{Time: c.at, Observed: c.observed, Recovered: c.recovered}
		if e := q.endAwaiting(s, c.taskMemcg, pid); e != nil {
			q.fold(c, e)
		}
	}
}

// fold makes e, an end told of already, that of the OOM kill c, which was not
// given out.
func (q *Inquest) fold(c, e *caseFile) {
	e.oomKilled, e.oom, e.unbooked, e.recheck = true, c.oom, c.unbooked, time.Time{}
	e.cgroupID, e.taskMemcg = cmp.Or(e.cgroupID, c.cgroupID), c.taskMemcg
	e.named, e.context, e.saidMemcg, e.saidGlobal = c.named, c.context, c.saidMemcg, c.saidGlobal
	e.hasReport, e.report, e.logSeq = c.hasReport, c.report, c.logSeq
	e.chain, e.chainAtKill, e.triggerTID = c.chain, c.chainAtKill, c.triggerTID
	e.group, e.groupCgroup = c.group, c.groupCgroup
	e.weighed, e.decided = c.weighed, c.decided
	if c.hasReport && q.reports[c.report] == c {
		q.reports[c.report] = e
	}
	procs := c.procs
	c.procs = nil
	q.remove(c)
	for _, p := range procs {
		q.add(e, p)
		q.learnInit(e, p)
	}
	e.evidence = append(e.evidence, c.evidence...)
	if e.unshown += c.unshown; len(e.evidence) > maxEvidence {
		e.unshown += len(e.evidence) - maxEvidence
		e.evidence = e.evidence[:maxEvidence]
	}
	q.touch(e)
}

// bookLate books the kills of c, whose cgroup is known now, as those that its
// counter counts.
func (q *Inquest) bookLate(c *caseFile) {
	if c.unbooked || c.weighed || c.taskMemcg == "" {
		return
	}
	for _, p := range c.procs {
		if p.Fate.ByOOMKiller() && !p.restored {
			q.ledger.explainAt(q.home(c), signal.Signal{Time: p.at, Observed: p.seen, Recovered: c.recovered})
		}
	}
}
