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

// lost tells whether c is an OOM kill that nobody could place, and that a
// counter may still place.
func (c *caseFile) lost() bool {
	return c.oomKilled && c.taskMemcg == "" && c.below == "" && !c.decided && !c.unbooked
}

const (
	// riseAfter is how long after a kill its counter is read, by a source that
	// does not say when it read it before.
	riseAfter = 1500 * time.Millisecond
	// slack is how far the clocks of two sources may be apart.
	slack = 50 * time.Millisecond
	// drift is how far the stamps of the kernel's log may be off.
	drift = time.Second
	// giveUp is how long the counters have, on a machine that is short of
	// everything, to say where a victim lived.
	giveUp = 10 * time.Second
	// giveUpInStorm is how long they have while others' are still to be found.
	giveUpInStorm = 40 * time.Second
)

// calm is how long nothing may have moved before one counter that rose and one
// victim without a cgroup are taken for the same.
const calm = 100 * time.Millisecond

// may tells whether the kill of c may be one that a counted.
func (a *account) may(c *caseFile) bool { return a.covers(c.killed()) }

// fits tells whether a counted a kill that nobody told of and that may be c's.
func (a *account) fits(c *caseFile) bool { return a.own.missing() > 0 && a.riseOf(c.killed()) != nil }

// open is what a counted and nobody told. Kills that were told before the
// counter was read stand for none of these.
func (a *account) open() uint64 {
	n, told := a.own.counted+uint64(len(a.early)), a.own.explained+a.own.doubles
	return n - min(n, told)
}

// riseOf is the earliest rise that may count a kill then, and that no other
// victim was found for; one that counts it by the slack of the clocks alone
// only where there is no other.
func (a *account) riseOf(killed span) *rise {
	var loose *rise
	for i := range a.rises {
		r := &a.rises[i]
		if r.n == 0 || !r.covers(killed) {
			continue
		}
		if r.strictly(killed) {
			return r
		}
		if loose == nil {
			loose = r
		}
	}
	return loose
}

// strictly tells whether r covers killed without the slack of the clocks.
func (r *rise) strictly(killed span) bool {
	return !r.at.Before(killed.from) && !r.since.After(killed.to)
}

func (a *account) covers(killed span) bool {
	return slices.ContainsFunc(a.rises, func(r rise) bool { return r.covers(killed) })
}

// span is a time in which something happened.
type span struct{ from, to time.Time }

// killed is when the first of c was killed: the stamps of the kernel's log
// drift from the clock, so it is known by when, and roughly since when.
func (c *caseFile) killed() span {
	s := newSpan(c.at, c.observed)
	if at := c.at.Add(drift); c.recovered && at.Before(s.to) {
		s.to = at // it was not read when it was written
	}
	return s
}

func spanOf(s signal.Signal) span { return newSpan(s.Time, s.Observed) }

func newSpan(from, to time.Time) span {
	if from.IsZero() || from.After(to) {
		from = to
	}
	return span{from, to}
}

func (r rise) covers(killed span) bool {
	return !r.at.Before(killed.from.Add(-slack)) && (r.since.IsZero() || !r.since.After(killed.to.Add(slack)))
}

// waiting tells whether c is held back: the counters will say in a moment
// where its victim lived, and a sink that counted it elsewhere could not take
// that back.
func (q *Inquest) waiting(c *caseFile) bool {
	if c.oomKilled && c.revision == 0 && q.beginning() {
		return true
	}
	return c.lost() && q.up[death.SourceCgroup] && q.now.Sub(c.touched) < lostFor
}

// beginning tells that an OOM kill must not be given out yet: where this run
// goes on from another, what is told and what is kept of the counters must
// agree, should it end now, and the cgroups are not known by their ids yet.
func (q *Inquest) beginning() bool {
	return q.ledger.since != nil && !q.ledger.begun && q.now.Sub(q.first) < giveUp
}

// placeLost finds the cgroups of victims whose own source could not tell it
// (tracefs, a log without its report).
func (q *Inquest) placeLost(active []*account) {
	ready := q.readyLost(active)
	if len(ready) == 0 {
		return
	}
	where := map[*caseFile][]*account{}
	for _, c := range ready {
		var at []*account
		for _, a := range active {
			if a.fits(c) {
				at = append(at, a)
			}
		}
		if a := q.firstProcessOf(c, at); a != nil {
			c.decided = true
			q.placeByCount(c, a)
			c.note(a.signal, "placed by count: it was the first process of %s, whose oom_kill counter rose just then", death.Printable(a.path))
			continue
		}
		where[c] = at
	}
	toldAll := q.toldAll(active)
	var open []*caseFile
	for _, c := range ready {
		at, undecided := where[c]
		switch {
		case !undecided:
		case len(at) == 0:
			q.wait(c, active)
		case len(at) == 1 && toldAll && q.certain(c, at[0]):
			q.placeCertain(c, at[0], active)
		case len(at) == 1 && q.now.Sub(c.observed) < q.opts.Patience+oneBreath/4 && !q.ledger.crowded:
			// The machine's count may be a moment apart.
		default:
			open = append(open, c)
		}
	}
	q.placeNameless(open, where, active)
}

// placeCertain places c where it must have been. One that is told late can be
// of a kill that a counter told of alone before this one rose.
func (q *Inquest) placeCertain(c *caseFile, a *account, active []*account) {
	if q.absorbBefore(c, active, a.riseOf(c.killed()).at) {
		return
	}
	c.decided = true
	if a.vague(c.killed()) {
		a.doubtful(c.killed())
	}
	q.placeByCount(c, a)
	c.note(a.signal, "placed by count: only the oom_kill counter of %s rose just then", death.Printable(a.path))
}

// wait leaves c to a counter that is read late, or to the case that a counter
// made of it already. After a while it is given out as it is.
func (q *Inquest) wait(c *caseFile, active []*account) {
	if q.absorb(c, active) || q.now.Sub(c.observed) < giveUp && !q.ledger.crowded {
		return
	}
	if q.ledger.nodeKnown && q.absorbNear(c, active) {
		return
	}
	if q.goesOn(c.recovered) && c.revision == 0 && q.ledger.nodeKnown && q.toldTwice(c, active) {
		q.drop(c) // the run before told of it, by a counter alone
		return
	}
	if c.revision == 0 && q.surplus() {
		q.drop(c) // another source has told of it, by another thread
		return
	}
	if !q.ledger.crowded && q.now.Sub(c.observed) < giveUpInStorm && q.stirring(c, active) {
		return // what others turn out to be says what c is
	}
	c.decided = true
	q.touch(c)
}

// stirring tells whether it is still open for others, or for what cgroups
// counted, whose they are.
func (q *Inquest) stirring(c *caseFile, active []*account) bool {
	return q.ledger.ahead > 0 || slices.ContainsFunc(active, func(a *account) bool { return a.own.missing() > 0 }) ||
		slices.ContainsFunc(q.cases, func(o *caseFile) bool { return o != c && o.lost() && o.observed.Before(c.observed) })
}

// surplus tells whether more kills are told than the machine counted, also if
// it counted all that were told while its counters were read.
func (q *Inquest) surplus() bool {
	return q.up[death.SourceCgroup] && q.ledger.nodeKnown && !q.ledger.countedTo.IsZero() && q.ledger.sum()-q.ledger.perhaps > 0
}

// absorb drops c where a counter's rise, which may well be its kill, was told
// as a death already, before the log said anything: it is not told twice.
func (q *Inquest) absorb(c *caseFile, active []*account) bool {
	return q.absorbBefore(c, active, q.now.Add(time.Hour))
}

// absorbBefore does so if that rise was read before then.
func (q *Inquest) absorbBefore(c *caseFile, active []*account, then time.Time) bool {
	if c.revision > 0 || len(c.procs) != 1 || !q.toldTwice(c, active) {
		return false
	}
	var at *account
	first := 0
	for _, a := range active {
		i := a.bornOf(c.killed(), anyCase)
		if i >= 0 && a.born[i].at.Before(then) && (at == nil || a.born[i].at.Before(at.born[first].at)) {
			at, first = a, i
		}
	}
	if at == nil {
		return false
	}
	q.merge(c, at.takeBorn(first))
	return true
}

// absorbNear does so with the case of a counter that is nearest in time.
func (q *Inquest) absorbNear(c *caseFile, active []*account) bool {
	if c.revision > 0 || len(c.procs) != 1 || !q.toldTwice(c, active) {
		return false
	}
	var at *account
	which, least := 0, lostFor
	for _, a := range active {
		for i, b := range a.born {
			if d := b.at.Sub(c.observed).Abs(); d < least {
				at, which, least = a, i, d
			}
		}
	}
	if at == nil {
		return false
	}
	q.merge(c, at.takeBorn(which))
	return true
}

// merge drops c, which a counter told of as to.
func (q *Inquest) merge(c, to *caseFile) {
	q.ledger.node.takeBack() // both were booked
	names, _ := candidates([]*caseFile{c})
	s := signal.Signal{Time: c.at, Observed: q.now, Source: death.SourceKmsg}
	if len(c.evidence) > 0 {
		s.Source = c.evidence[0].Source
	}
	to.note(s, "told late, and without its cgroup: it may have been %s", names)
	q.touch(to)
	if c.hasReport && q.reports[c.report] == c {
		q.reports[c.report] = to
	}
	q.remove(c)
}

// remove takes a case that was not given out from among them.
func (q *Inquest) remove(c *caseFile) {
	for _, p := range c.procs {
		p.owner = nil
		q.dead.letGo(p)
	}
	c.procs = nil
	is := func(o *caseFile) bool { return o == c }
	q.cases, q.dirty = slices.DeleteFunc(q.cases, is), slices.DeleteFunc(q.dirty, is)
}

// readyLost are the victims to decide on: those whose counters have had their
// time, or all, if one counter alone rose for just as many.
func (q *Inquest) readyLost(active []*account) []*caseFile {
	var lost, old []*caseFile
	stirred := q.now.Sub(q.ledger.node.changed) < calm
	for _, c := range q.cases {
		if !c.lost() {
			continue
		}
		lost = append(lost, c)
		if q.ledger.crowded || q.counted(c) {
			old = append(old, c)
		}
		stirred = stirred || q.now.Sub(c.observed) < calm
	}
	if len(lost) == 0 || stirred || !q.up[death.SourceCgroup] {
		return old
	}
	short, missing := 0, uint64(0)
	for _, a := range active {
		if m := a.own.missing(); m > 0 {
			short++
			missing += m
		}
	}
	if short == 1 && missing == uint64(len(lost)) && q.toldAll(active) {
		return lost
	}
	return old
}

// counted tells whether the counters have had their time to tell of c.
func (q *Inquest) counted(c *caseFile) bool {
	age := q.now.Sub(c.observed)
	if q.lag.behind(q.now, c.killed().from.Add(drift)) {
		return false
	}
	return age >= giveUp || age >= q.opts.Patience &&
		(q.ledger.countedTo.IsZero() || q.ledger.countedTo.After(c.killed().to.Add(slack)))
}

// firstProcessOf finds the cgroup whose first process is the victim of c.
func (q *Inquest) firstProcessOf(c *caseFile, in []*account) *account {
	if len(c.procs) != 1 || c.procs[0].PID == 0 {
		return nil
	}
	for _, a := range in {
		if e := q.roster.find(signal.Cgroup{ID: a.id, Path: a.path}); e != nil && e.initPID == c.procs[0].PID {
			return a
		}
	}
	return nil
}

// placeByCount books the kill of c as one that a counted.
func (q *Inquest) placeByCount(c *caseFile, a *account) {
	q.ledger.book(a, 1, q.now)
	a.spendOn(c.killed())
	q.ledger.explainBelow(a.path, 1, q.now)
	q.place(c, signal.Cgroup{ID: a.sample.ID, Path: a.path})
	if len(c.chain) == 0 {
		c.chain = a.sample.Chain
	}
	q.touch(c)
}

// maxCandidates bounds the processes named where it is not known which of
// them died.
const maxCandidates = 8

// placeNameless gives each cgroup the kills that it counted, where several
// cgroups counted kills and it is not known which victim lived in which. How
// many died where is certain, so each case gets its cgroup and loses its name.
func (q *Inquest) placeNameless(cases []*caseFile, where map[*caseFile][]*account, active []*account) {
	if len(cases) == 0 {
		return
	}
	names, comm := candidates(cases)
	slices.SortStableFunc(cases, func(a, b *caseFile) int { return a.killed().to.Compare(b.killed().to) })
	for _, c := range cases {
		a, at := earliest(c, where[c])
		if a != nil && q.absorbBefore(c, active, at) {
			continue
		}
		if a == nil {
			q.wait(c, active)
			continue
		}
		c.decided = true
		c.unname(comm)
		a.doubtful(c.killed())
		a.nameless = append(a.nameless, born{c, *a.riseOf(c.killed())})
		q.placeByCount(c, a)
		c.note(a.signal, "the oom_kill counter of %s rose; which of the processes killed just then lived there is not known: %s",
			death.Printable(a.path), names)
	}
}

// unname takes from c all that was said of its victim, of which only the name
// may stay.
func (c *caseFile) unname(comm string) {
	c.evidence = slices.DeleteFunc(c.evidence, func(e death.Evidence) bool { return e.Source != death.SourceCgroup })
	c.oom = death.OOM{Events: c.oom.Events}
	c.named, c.saidMemcg, c.saidGlobal, c.triggerTID = false, false, false, 0
	for _, p := range c.procs {
		p.nameless, p.alike = true, comm
	}
}

// earliest is the account among in whose rise that may count c was read first:
// rises that were read later are left to victims that were killed later. One
// that counts c only by the slack of the clocks comes after all others.
func earliest(c *caseFile, in []*account) (first *account, at time.Time) {
	killed := c.killed()
	loose := false
	for _, a := range in {
		r := a.riseOf(killed)
		if r == nil || a.own.missing() == 0 {
			continue
		}
		strict := r.strictly(killed)
		if first == nil || strict && loose || strict != loose && r.at.Before(at) {
			first, at, loose = a, r.at, !strict
		}
	}
	return first, at
}

// candidates lists the victims of cases, and their name if they share it.
func candidates(cases []*caseFile) (list, comm string) {
	var pids []string
	alike := true
	for _, c := range cases {
		for _, p := range c.procs {
			if len(pids) == 0 {
				comm = p.Comm
			}
			alike = alike && p.Comm == comm
			pids = append(pids, "pid "+itoa(p.PID)+" ("+death.Printable(p.Comm)+")")
		}
	}
	if !alike {
		comm = ""
	}
	if n := len(pids); n > maxCandidates {
		return strings.Join(pids[:maxCandidates], ", ") + " and " + itoa(n-maxCandidates) + " more", comm
	}
	return strings.Join(pids, ", "), comm
}

// weigh sets against what a counted the victims that were given out without a
// cgroup and died just then: nothing may be told twice.
func (q *Inquest) weigh(a *account) {
	for _, c := range q.cases {
		if a.own.missing() <= q.ledger.node.missing() {
			return // the machine counted them beside all that is told
		}
		if !c.decided || c.weighed || c.taskMemcg != "" || !a.may(c) {
			continue
		}
		c.weighed = true
		a.doubtful(c.killed())
		q.ledger.book(a, 1, q.now)
		q.ledger.explainBelow(a.path, 1, q.now)
		c.note(a.signal, "its cgroup is not known; it may be %s, whose oom_kill counter rose just then", death.Printable(a.path))
		q.touch(c)
	}
}

// weighBelow does the same with what a subtree counted, and returns how many of
// these kills are told by nobody: of the others, the victims may wait still.
func (q *Inquest) weighBelow(a *account, due uint64) uint64 {
	if !q.ledger.nodeKnown {
		return due
	}
	untold := uint64(max(0, q.ledger.perhaps-q.ledger.sum()))
	for _, c := range q.cases {
		if due <= untold {
			return due
		}
		if !c.decided || c.weighed || c.taskMemcg != "" || c.killed().from.After(a.below.changed) {
			continue
		}
		c.weighed = true
		due--
		q.ledger.explainBelow(a.path, 1, q.now)
		c.note(signal.Signal{Observed: q.now, Source: death.SourceCgroup}, "its cgroup is not known; it may be one below %s, whose oom_kill counter rose just then", death.Printable(a.path))
		q.touch(c)
	}
	return untold
}

// weighOrphans does the same with those whose cases were let go.
func (q *Inquest) weighOrphans(a *account) {
	q.ledger.orphans = slices.DeleteFunc(q.ledger.orphans, func(killed span) bool {
		if a.own.missing() <= q.ledger.node.missing() || !a.covers(killed) {
			return q.now.Sub(killed.to) > lostFor
		}
		a.doubtful(killed)
		q.ledger.book(a, 1, q.now)
		q.ledger.explainBelow(a.path, 1, q.now)
		return true
	})
}

// moveMembers gives a container the members of a group that it counted and
// that the log, which names no container, put beside the group's first victim.
func (q *Inquest) moveMembers(a *account) {
	for _, c := range q.cases {
		if !c.group || c.taskMemcg == a.path || c.groupCgroup == "" || !cgpath.Within(c.groupCgroup, a.path) || !a.may(c) {
			continue
		}
		var members []*process
		for _, p := range c.procs {
			if p.unplaced {
				members = append(members, p)
			}
		}
		missing := a.own.missing()
		if len(members) == 0 || missing == 0 {
			continue
		}
		if uint64(len(members)) != missing {
			n := min(uint64(len(members)), missing)
			q.ledger.book(a, n, q.now) // some of these: nothing twice
			q.ledger.explainBelow(a.path, n, q.now)
			continue
		}
		q.moveGroup(c, members, a)
	}
}

// moveGroup makes a death of its own of a group's members that lived at a.
func (q *Inquest) moveGroup(c *caseFile, members []*process, a *account) {
	to := q.open(a.signal, pidKey(signal.Task{PID: members[0].PID}))
	to.oomKilled, to.oom, to.named, to.group = true, c.oom, c.named, true
	to.groupCgroup, to.chain = c.groupCgroup, a.sample.Chain
	q.place(to, signal.Cgroup{ID: a.sample.ID, Path: a.path})
	to.ended = to.container != nil
	for _, p := range members {
		q.takeBack(p)
		p.unplaced = false
		q.add(to, p)
		q.ledger.unexplain(c.taskMemcg, a.signal)
		q.ledger.explain(signal.Cgroup{ID: a.id, Path: a.path}, a.signal)
	}
	if c.invocation == nil {
		c.invocation = &invocation{cases: []*caseFile{c}}
	}
	c.invocation.join(to)
	to.note(a.signal, "its oom_kill counter rose by as many as the log names without a container")
	q.touch(to)
}
