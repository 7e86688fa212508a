// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"slices"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
	"github.com/coroner-dev/coroner/internal/signal"
)

// namersStart is how long the sources that name processes have to come up,
// before a counter's rise is told at once.
const namersStart = time.Second

// maxBorn bounds the deaths that one rise of one counter may make.
const maxBorn = 1000

// claim gives a case that a counter made to the kill that it counted, of which
// s tells late.
func (q *Inquest) claim(g signal.Cgroup, s signal.Signal) *caseFile {
	if g.Path == "" {
		return nil
	}
	killed := spanOf(s)
	if a := q.ledger.find(g); a != nil {
		if i := a.bornOf(killed, func(c *caseFile) bool { return c.below == "" }); i >= 0 {
			a.own.takeBack() // explain books it again, by name
			a.unspend(a.born[i].rise)
			q.ledger.changed[a] = true
			return q.reclaim(a, a.takeBorn(i))
		}
		if c := a.takeNameless(killed); c != nil {
			a.own.takeBack()
			q.ledger.changed[a] = true
			q.displace(c)
			return q.reclaim(a, c)
		}
	}
	here := func(c *caseFile) bool { return c.below != "" && (c.taskMemcg == "" || c.taskMemcg == g.Path) }
	for p := g.Path; p != "" && p != "/"; p = parent(p) {
		if a := q.ledger.byPath[p]; a != nil {
			if i := a.bornOf(killed, here); i >= 0 {
				c := q.reclaim(a, a.takeBorn(i))
				c.below = ""
				q.place(c, g)
				return c
			}
		}
	}
	return nil
}

// displace leaves it open again where the victim of c lived, who may have lived
// where c is told of, and did not.
func (q *Inquest) displace(c *caseFile) {
	p := c.procs[0]
	p.nameless, p.alike = false, ""
	to := q.open(signal.Signal{Time: c.at, Observed: c.observed, Recovered: c.recovered}, pidKey(signal.Task{PID: p.PID}))
	to.oomKilled, to.oom.Events = true, 1
	q.add(to, p)
	q.ledger.node.explain(1, q.now)
	c.evidence = nil // of him
}

// reclaim makes a case of a counter of a one of those that are known by name.
func (q *Inquest) reclaim(a *account, c *caseFile) *caseFile {
	q.ledger.node.takeBack()
	for p := a.path; !q.ledger.flat && p != "" && p != "/"; p = parent(p) {
		q.ledger.account(signal.Cgroup{Path: p}).below.takeBack()
	}
	if c.countedOnly {
		q.stats.CountedOnly--
	}
	c.countedOnly, c.procs = false, nil
	return c
}

// bornOf finds the earliest case that a counter alone made, that is one of
// these, and that may be of a kill then; -1: there is none.
func (a *account) bornOf(killed span, one func(*caseFile) bool) int {
	return slices.IndexFunc(a.born, func(b born) bool { return b.covers(killed) && one(b.c) })
}

// takeNameless gives the case of one of several victims to the one who is known
// to have lived at a, unless a counted another kill then, or before, or an
// engine has told of the case, too: its words are of the one who may have died.
func (a *account) takeNameless(killed span) *caseFile {
	i := slices.IndexFunc(a.nameless, func(b born) bool {
		return b.strictly(killed) && b.c.engineLine == nil && len(b.c.procs) == 1 && b.c.procs[0].nameless
	})
	if i < 0 {
		return nil
	}
	if r := a.riseOf(killed); r != nil && !a.nameless[i].at.Before(r.at) {
		return nil
	}
	c := a.nameless[i].c
	a.unspend(a.nameless[i].rise)
	a.nameless = slices.Delete(a.nameless, i, i+1)
	return c
}

// takeBorn gives a case of a counter to whoever told of its kill late.
func (a *account) takeBorn(i int) *caseFile {
	c := a.born[i].c
	a.born = slices.Delete(a.born, i, i+1)
	return c
}

// cgroupCounters takes what one cgroup's counters stand at.
func (q *Inquest) cgroupCounters(s signal.Signal, b signal.CgroupCounters) {
	for _, l := range b.Chain {
		if l.Path != "" {
			q.roster.limits(l)
		}
	}
	path := q.roster.path(b.Cgroup)
	if path == "" {
		return
	}
	if b.OOM > 0 {
		q.limitHit(path, s)
	}
	if b.OOMKill|b.OOMKillBelow|b.OOMKillTotal|b.OOMKillBelowTotal == 0 {
		return
	}
	// What the source tells before it is up happened while it was down.
	missed := !q.up[death.SourceCgroup]
	s.Recovered = missed && !q.ledger.begun
	a := q.ledger.account(signal.Cgroup{ID: b.ID, Path: path})
	if b.OOMKillBelow > 0 || b.OOMKillBelowTotal > 0 {
		a.below.count(b.OOMKillBelowTotal, b.OOMKillBelow, q.now)
	}
	b.OOMKill = a.own.count(b.OOMKillTotal, b.OOMKill, q.now)
	if b.OOMKill == 0 {
		return
	}
	a.rose(riseOf(s, b, missed))
	a.settle(q.ledger.countedTo)
	a.sample, a.signal = b, s
	if !q.namersUp() && !s.Recovered && q.now.Sub(q.ledger.begunAt) > namersStart {
		q.auditCgroup(a, a.own.missing())
		return
	}
	q.agree(path, s, b, riseOf(s, b, missed))
}

// riseOf says when what b tells of happened.
func riseOf(s signal.Signal, b signal.CgroupCounters, missed bool) rise {
	r := rise{since: b.Since, at: s.Observed, n: b.OOMKill, missed: s.Recovered}
	switch {
	case missed:
		r.since = time.Time{}
	case r.since.IsZero():
		r.since = r.at.Add(-riseAfter)
	}
	return r
}

// agree tells the case that the counter counted it too.
func (q *Inquest) agree(path string, s signal.Signal, b signal.CgroupCounters, r rise) {
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		if q.now.Sub(c.observed) > q.opts.Settle {
			break
		}
		if c.oomKilled && c.taskMemcg == path && !c.countedOnly && r.covers(c.killed()) {
			c.note(s, "the kernel's oom_kill counter of %s rose by %d", death.Printable(path), b.OOMKill)
			if len(c.chain) == 0 {
				c.chain = b.Chain
			}
			q.touch(c)
			break
		}
	}
}

// limitHit notes, and tells the open cases below path whose limit it was.
func (q *Inquest) limitHit(path string, s signal.Signal) {
	if len(q.ledger.limitHit) > maxAccounts {
		clear(q.ledger.limitHit)
	}
	q.ledger.limitHit[path] = q.now
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		if q.now.Sub(c.observed) > q.opts.Settle {
			break
		}
		if c.oomKilled && !c.named && cgpath.Within(path, c.taskMemcg) {
			c.note(s, "the oom counter of %s rose: its limit was reached", death.Printable(path))
			q.touch(c)
		}
	}
}

// nodeCounters takes what the machine's own count stands at.
func (q *Inquest) nodeCounters(b signal.NodeCounters) {
	q.ledger.nodeKnown = true
	added := q.ledger.node.count(b.Total, b.OOMKill, q.now)
	q.stats.NodeOOMKills += added
	if !q.ledger.countedTo.IsZero() {
		q.ledger.uncounted += added
	}
	if b.Counted.After(q.ledger.countedTo) {
		q.ledger.countedTo, q.ledger.uncounted = b.Counted, 0
	}
	q.stats.NodeTotal = b.Total
}

// namersUp tells whether a source runs that names processes.
func (q *Inquest) namersUp() bool {
	return q.up[death.SourceTracepoint] || q.up[death.SourceKmsg]
}

// audit holds the counters beside what was explained: first each cgroup's,
// then, from the inside out, those of subtrees, in which a cgroup may have gone
// before anybody read it, and last the machine's.
func (q *Inquest) audit() {
	active := q.ledger.sorted(q.ledger.active)
	q.ledger.doubt.forget(q.now)
	q.lookAhead()
	q.ledger.crowded = q.crowded()
	for _, a := range active {
		a.settle(q.ledger.countedTo)
	}
	q.placeLost(active)
	then := q.now.Add(-q.opts.Patience)
	if q.namersUp() {
		then = then.Add(-oneBreath / 2) // a line without a cgroup is placed first
	}
	then = q.lag.cut(q.now, then)
	for _, a := range active {
		a.forget(q.now)
		q.auditCgroup(a, a.own.due(then))
		if a.own.done(q.now, q.opts.Patience) {
			a.own.reset()
			q.ledger.changed[a] = true
		}
	}
	q.auditSums(active)
	q.auditNode()
	q.retire(active)
}

// auditSums makes deaths of what a subtree counted and no cgroup in it did.
func (q *Inquest) auditSums(active []*account) {
	if q.ledger.flat {
		return
	}
	then := q.lag.cut(q.now, q.now.Add(-q.opts.Patience-time.Second))
	deepest := slices.Clone(active)
	slices.SortStableFunc(deepest, func(a, b *account) int {
		return strings.Count(b.path, "/") - strings.Count(a.path, "/")
	})
	for _, a := range deepest {
		due := a.below.due(then)
		if !a.below.known {
			due = 0
		}
		for _, o := range active { // a cgroup that is still there tells of its own
			if due > 0 && cgpath.Within(a.path, o.path) {
				due -= min(due, o.own.missing())
			}
		}
		if due > 0 {
			due = q.weighBelow(a, due)
		}
		for range min(due, maxBorn) {
			r := rise{since: a.below.changed.Add(-giveUp), at: q.now}
			q.ledger.doubt.add(r)
			a.born = append(a.born, born{q.openBelow(a), r})
			q.ledger.node.explain(1, q.now)
			q.ledger.explainBelow(a.path, 1, q.now)
		}
		if a.below.done(q.now, q.opts.Patience+time.Second) {
			a.below.reset()
			q.ledger.changed[a] = true
		}
	}
}

// auditNode counts as unattributed what the machine counted and nobody told.
func (q *Inquest) auditNode() {
	n := &q.ledger.node
	if !q.ledger.nodeKnown {
		return
	}
	if due := n.due(q.lag.cut(q.now, q.now.Add(-giveUp))); due > 0 && q.now.Sub(n.changed) >= q.opts.Patience+time.Second {
		q.ledger.doubt.add(rise{since: n.changed.Add(-giveUp), at: q.now})
		q.stats.Unattributed += due
		n.explained += due
	}
	if n.done(q.now, q.opts.Patience+time.Second) {
		n.reset()
	}
}

// retire takes from the audit what is balanced and quiet, and drops the
// accounts of cgroups that have long gone.
func (q *Inquest) retire(active []*account) {
	for _, a := range active {
		if !a.own.settled() || !a.below.settled() || len(a.rises) > 0 || len(a.born)+len(a.nameless) > 0 || len(a.doubt.spans) > 0 {
			continue
		}
		if !a.gone {
			delete(q.ledger.active, a)
			continue
		}
		if q.now.Sub(later(a.own.changed, a.below.changed)) > q.opts.TombstoneTTL {
			q.ledger.drop(a)
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// auditCgroup makes deaths of what a cgroup counted and nobody saw.
func (q *Inquest) auditCgroup(a *account, due uint64) {
	if due == 0 {
		return
	}
	q.moveMembers(a)
	q.weigh(a)
	q.weighOrphans(a)
	made := min(due, a.own.missing(), maxBorn)
	if made == 0 {
		return
	}
	q.ledger.book(a, made, q.now)
	q.ledger.node.explain(made, q.now)
	q.ledger.explainBelow(a.path, made, q.now)
	if a.sample.OOMGroupKill > 0 || groupLevel(q.fillChain(a.sample.Chain, signal.Cgroup{Path: a.path})) != "" {
		q.countedGroup(a, int(made))
		return
	}
	for range made {
		r := a.spend()
		a.doubt.add(r)
		a.born = append(a.born, born{q.openCounted(a, r, 1, false), r})
	}
}

// countedGroup makes one death of a whole group's kills, which the counter may
// tell in several steps.
func (q *Inquest) countedGroup(a *account, kills int) {
	r := a.spend()
	a.doubt.add(r)
	for range kills - 1 {
		a.doubt.add(a.spend())
	}
	for _, b := range a.born {
		if b.c.group && q.now.Sub(b.c.touched) <= oneBreath {
			b.c.anonymous(kills, q.now)
			q.touch(b.c)
			return
		}
	}
	a.born = append(a.born, born{q.openCounted(a, r, kills, true), r})
}

// anonymous adds dead of whom nothing is known.
func (c *caseFile) anonymous(n int, now time.Time) {
	for range n {
		p := &process{owner: c, seen: now}
		p.Fate = death.FateVictim
		c.procs = append(c.procs, p)
	}
}

func (q *Inquest) openCounted(a *account, r rise, kills int, group bool) *caseFile {
	s := a.signal
	s.Time, s.Observed, s.Recovered = r.at, r.at, r.missed
	c := q.endCounted(a.path, r)
	if c != nil {
		q.explainedByOOM(c, s)
	} else {
		c = q.open(s, "cgroup "+a.path)
	}
	c.oomKilled, c.countedOnly, c.group = true, true, group
	c.oom.Events = 1
	q.stats.CountedOnly++
	q.place(c, signal.Cgroup{ID: a.sample.ID, Path: a.path})
	c.chain = a.sample.Chain
	c.anonymous(kills, q.now)
	c.note(s, "the kernel's oom_kill counter of %s rose, and no other source saw the process", death.Printable(a.path))
	if group {
		c.note(s, "memory.oom.group is set: all of it was killed; the kernel may count the first victim twice")
	}
	q.touch(c)
	return c
}

// openBelow opens a case for a kill that a subtree counted, in a cgroup that
// was gone before its own counter was read.
func (q *Inquest) openBelow(a *account) *caseFile {
	s := signal.Signal{Time: a.below.changed, Observed: q.now, Source: death.SourceCgroup, Recovered: !q.ledger.begun}
	c := q.open(s, "below "+a.path)
	c.oomKilled, c.countedOnly, c.below = true, true, a.path
	c.oom.Events = 1
	q.stats.CountedOnly++
	c.anonymous(1, q.now)
	at := cgpath.Parse(a.path)
	c.podCgroup = at.PodCgroup
	if at.PodUID != "" {
		c.container = &death.Container{Pod: &death.Pod{UID: at.PodUID, QoSClass: at.QoS}}
	}
	c.chain = q.roster.chain(a.path)
	c.note(s, "the oom_kill counter of %s, which counts all below it, rose, and that of no cgroup which is still there", death.Printable(a.path))
	gone := q.roster.goneBelow(a.path, a.below.changed)
	switch {
	case len(gone) == 1:
		q.place(c, gone[0].Cgroup)
		c.note(s, "%s was removed just then, as the only one", death.Printable(gone[0].Path))
	case len(gone) > 1:
		c.note(s, "%d cgroups below it were removed just then", len(gone))
	}
	q.touch(c)
	return c
}
