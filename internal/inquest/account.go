// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"cmp"
	"slices"
	"time"

	"github.com/coroner-dev/coroner/internal/signal"
)

// ledger holds what the kernel counted beside what the inquest explained: for
// each cgroup that ever saw a kill, for each subtree (v2), and for the machine.
type ledger struct {
	byID   map[uint64]*account
	byPath map[string]*account // the newest of that name
	// active are the accounts that the audit looks at: what is balanced and
	// quiet is not among them.
	active map[*account]bool
	all    map[*account]bool
	// changed are those whose told may have changed since it was given out.
	changed map[*account]bool

	node balance
	// nodeKnown is true once the machine's counter has been heard of.
	nodeKnown bool
	// twice are all kills so far that the kernel counted twice.
	twice uint64
	// countedTo is up to when all kills are in the counters that were told.
	countedTo time.Time
	// flat tells that no cgroup counts its subtree (v1).
	flat bool
	// orphans are when victims were killed whose cases were let go without
	// a cgroup: some counter's rise stands for each.
	orphans []span
	doubt   doubt // of kills in no cgroup that is known
	// uncounted are those that node counted since countedTo.
	uncounted uint64
	// ahead are the kills told that node may not have counted yet.
	ahead int
	// perhaps are those that it counted a moment before or after.
	perhaps int
	// crowded: there is no room to let cases wait.
	crowded bool

	// begun is true once each counter's stand at the beginning is known: a
	// cgroup not heard of by then began at nothing.
	begun   bool
	begunAt time.Time
	// since is what earlier runs told; nil: there was none.
	since *Told
	// removed are ids of which nothing more need be kept.
	removed []uint64
	// nodeTold is what TakeTold returned last, if it did.
	nodeTold  uint64
	nodeTaken bool
	// shrunk: a cgroup without an account may have had one.
	shrunk bool

	// limitHit is when a cgroup's own `oom` last rose (v2): whose limit.
	limitHit map[string]time.Time
}

// account compares the counters of one cgroup with what was explained of them.
type account struct {
	id   uint64
	path string
	own  balance
	// below is that of the whole subtree (memory.events of v2): it outlives
	// the cgroups that were removed in it.
	below balance

	born []born // cases that a counter alone made
	// nameless are those of several victims of whom it is not known which lived here.
	nameless []born
	gone     bool
	early    []span                // kills that were told before the counter was read
	rises    []rise                // of own
	doubt    doubt                 // what of them was booked without a name
	sample   signal.CgroupCounters // the newest rise
	signal   signal.Signal
	told     CgroupTold // as last given out
}

// born is a case that a counter alone made, and the rise that made it.
type born struct {
	c *caseFile
	rise
}

// balance is one counter and what is known of the kills that it counts.
type balance struct {
	counted, explained uint64
	// doubles are processes that the kernel killed, and counted, twice: the
	// first victim of a group (mm/oom_kill.c, seen on 5.10 to 7.2).
	doubles uint64
	// total is where the counter stood when it was last read, if known.
	total   uint64
	known   bool
	changed time.Time
	// fresh are the newest kills of counted, which others may yet explain.
	fresh []rise
}

// rise is by how much a counter rose, and when: after since, when it was read
// before, which is zero where nobody watched, until at.
type rise struct {
	since, at time.Time
	n         uint64 // of which no victim without a cgroup was found yet
	missed    bool   // it happened while no agent ran
}

// maxAccounts bounds the cgroups with kills that the ledger remembers.
const maxAccounts = 10000

// maxRises bounds the rises that an account remembers.
const maxRises = 256

func newLedger() ledger {
	return ledger{
		byID: map[uint64]*account{}, byPath: map[string]*account{},
		active: map[*account]bool{}, all: map[*account]bool{}, changed: map[*account]bool{},
		limitHit: map[string]time.Time{},
	}
}

// account finds or opens the account of a cgroup. A name that is used again,
// by another cgroup, has another account.
func (l *ledger) account(g signal.Cgroup) *account {
	a := l.find(g)
	if a == nil {
		if len(l.all) >= maxAccounts {
			l.shrink()
		}
		a = &account{path: g.Path}
		l.all[a] = true
		l.byPath[a.path] = a
	}
	if a.id == 0 && g.ID != 0 {
		a.id = g.ID
		l.byID[a.id] = a
	}
	if a.id != 0 && !a.own.known {
		l.base(a)
	}
	l.active[a], l.changed[a] = true, true
	return a
}

func (l *ledger) find(g signal.Cgroup) *account {
	if a := l.byID[g.ID]; g.ID != 0 && a != nil {
		return a
	}
	a := l.byPath[g.Path]
	if a != nil && g.ID != 0 && a.id != 0 && a.id != g.ID {
		return nil
	}
	return a
}

// shrink drops what is balanced, and if that is not enough the oldest half.
func (l *ledger) shrink() {
	l.shrunk = true
	for a := range l.all {
		if a.own.missing() == 0 && a.below.missing() == 0 {
			l.drop(a)
		}
	}
	if len(l.all) < maxAccounts {
		return
	}
	rest := l.sorted(l.all)
	slices.SortStableFunc(rest, func(a, b *account) int { return a.own.changed.Compare(b.own.changed) })
	for _, a := range rest[:len(rest)/2] {
		l.drop(a)
	}
}

func (l *ledger) drop(a *account) {
	delete(l.all, a)
	delete(l.active, a)
	delete(l.changed, a)
	if l.byID[a.id] == a {
		delete(l.byID, a.id)
	}
	if l.byPath[a.path] == a {
		delete(l.byPath, a.path)
	}
	if a.gone && a.id != 0 {
		l.removed = append(l.removed, a.id)
	}
}

// sorted gives accounts in an order that depends on nothing but themselves:
// the same signals give the same deaths.
func (l *ledger) sorted(set map[*account]bool) []*account {
	out := make([]*account, 0, len(set))
	for a := range set {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b *account) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.id, b.id))
	})
	return out
}

// books tells whether a kill that s tells of is one that the counters have
// counted since they were first read.
func (l *ledger) books(s signal.Signal) bool { return !s.Recovered || l.since != nil }

// explain books one process that the OOM killer took, as seen by a source
// that names it.
func (l *ledger) explain(g signal.Cgroup, s signal.Signal) {
	if !l.books(s) {
		return
	}
	l.node.explain(1, s.Observed)
	l.explainAt(g, s)
}

// explainAt books in its cgroup a kill that the machine's account has already.
func (l *ledger) explainAt(g signal.Cgroup, s signal.Signal) {
	if g.Path == "" || !l.books(s) {
		return
	}
	a := l.account(g)
	a.own.explain(1, s.Observed)
	if killed := spanOf(s); !a.spendEarly(killed, l.countedTo) {
		a.early = append(a.early, killed)
	}
	l.explainBelow(g.Path, 1, s.Observed)
}

// book books kills in an account alone. What is told of it has changed.
func (l *ledger) book(a *account, n uint64, now time.Time) {
	a.own.explain(n, now)
	l.changed[a] = true
}

// explainBelow books kills at path in the sums of all around it.
func (l *ledger) explainBelow(path string, n uint64, now time.Time) {
	for p := path; !l.flat && p != "" && p != "/"; p = parent(p) {
		l.account(signal.Cgroup{Path: p}).below.explain(n, now)
	}
}

func (b *balance) explain(n uint64, now time.Time) {
	b.explained += n
	b.changed = now
}

// unexplain takes back one explain, for a process that was placed wrongly.
func (l *ledger) unexplain(path string, s signal.Signal) {
	if !l.books(s) {
		return
	}
	l.node.takeBack()
	if a := l.byPath[path]; a != nil {
		a.own.takeBack()
		l.changed[a] = true
	}
	for p := path; !l.flat && p != "" && p != "/"; p = parent(p) {
		if a := l.byPath[p]; a != nil {
			a.below.takeBack()
		}
	}
}

func (b *balance) takeBack() {
	if b.explained > 0 {
		b.explained--
	}
}

// double books that the kernel counted p twice, which it does once at most.
func (l *ledger) double(p *process, path string) {
	if p.doubled || p.restored {
		return
	}
	p.doubled = true
	l.node.doubles++
	l.twice++
	if path == "" {
		return
	}
	l.account(signal.Cgroup{Path: path}).own.doubles++
	for q := path; !l.flat && q != "" && q != "/"; q = parent(q) {
		l.account(signal.Cgroup{Path: q}).below.doubles++
	}
}

func (l *ledger) gone(g signal.Cgroup) {
	if a := l.find(g); a != nil {
		a.gone = true
		l.active[a] = true
	}
}

// missing is what was counted and not explained.
func (b *balance) missing() uint64 {
	if b.counted <= b.explained+b.doubles {
		return 0
	}
	return b.counted - b.explained - b.doubles
}

// due is what is missing of the kills that were counted before then: others
// have had their time to tell of them.
func (b *balance) due(then time.Time) uint64 {
	var fresh uint64
	keep := b.fresh[:0]
	for _, r := range b.fresh {
		if r.at.After(then) {
			fresh += r.n
			keep = append(keep, r)
		}
	}
	b.fresh = keep
	m := b.missing()
	return m - min(m, fresh)
}

// base sets from where the counters of a go on.
func (l *ledger) base(a *account) {
	switch {
	case l.shrunk:
	case l.since != nil:
		t := l.since.Cgroups[a.id] // and told again, should it be among the removed
		a.own.total, a.own.known = t.Own, true
		a.below.total, a.below.known = t.Below, true
	case l.begun:
		a.own.known, a.below.known = true, true
	}
}

// count books a reading: total is where the counter stands, 0 if the source
// does not say, added what it rose by since the source last read it. It
// returns by how much it rose in truth, which is more when a source was down.
func (b *balance) count(total, added uint64, now time.Time) uint64 {
	if total > 0 {
		from := b.total
		switch {
		case !b.known:
			from = total - min(total, added)
		case total < from:
			from = total // a counter that began anew
		}
		added = total - from
		b.total, b.known = total, true
	}
	if added == 0 {
		return 0
	}
	b.counted += added
	b.changed = now
	if len(b.fresh) >= maxRises {
		b.fresh[len(b.fresh)-1].n += added
		b.fresh[len(b.fresh)-1].at = now
	} else {
		b.fresh = append(b.fresh, rise{at: now, n: added})
	}
	return added
}

// done tells that there is nothing more to compare, and has not been for a
// while: all that was counted is explained, or more. More is explained than was
// counted where the counter is read late, or was read before the kill was told;
// the latter must not hide for ever what comes later.
func (b *balance) done(now time.Time, quiet time.Duration) bool {
	if b.explained+b.doubles > b.counted {
		quiet = lostFor
	}
	return b.missing() == 0 && now.Sub(b.changed) >= quiet
}

// reset forgets figures that tell nothing more.
func (b *balance) reset() {
	b.counted, b.explained, b.doubles = 0, 0, 0
	b.fresh = b.fresh[:0]
}

// settled tells that there is nothing to compare.
func (b *balance) settled() bool { return b.counted == 0 && b.explained == 0 && b.doubles == 0 }

// told is where the counter would stand if it had counted just the kills of
// which a death was told.
func (b *balance) told() uint64 {
	t := b.total + b.explained + b.doubles
	return t - min(t, b.counted)
}

func (a *account) rose(r rise) {
	if len(a.rises) >= maxRises {
		a.rises = append(a.rises[:0], a.rises[1:]...)
	}
	a.rises = append(a.rises, r)
}

// settle finds the rises that count the kills that were told of early.
func (a *account) settle(countedTo time.Time) {
	a.early = slices.DeleteFunc(a.early, func(killed span) bool { return a.spendEarly(killed, countedTo) })
	if n := len(a.early); n > maxRises {
		a.early = slices.Delete(a.early, 0, n-maxRises)
	}
}

// spendEarly takes a kill of which its cgroup is known from the rise that counts
// it. One that fits by the slack of the clocks alone is taken where all had been
// read: until then that of the kill itself may still come.
func (a *account) spendEarly(killed span, countedTo time.Time) bool {
	r := a.riseOf(killed)
	if r == nil || !r.strictly(killed) && !countedTo.After(killed.to.Add(slack)) {
		return false
	}
	r.n--
	return true
}

// spendOn takes a kill then from the rise that may have counted it.
func (a *account) spendOn(killed span) bool {
	r := a.riseOf(killed)
	if r != nil {
		r.n--
	}
	return r != nil
}

// spend takes a kill from the oldest rise: it stands for a case of its own.
func (a *account) spend() rise {
	for i := range a.rises {
		if r := &a.rises[i]; r.n > 0 {
			r.n--
			return *r
		}
	}
	return rise{since: a.own.changed, at: a.own.changed, missed: a.signal.Recovered}
}

// unspend gives back to r a kill that is told again, by name.
func (a *account) unspend(r rise) {
	for i := range a.rises {
		if o := &a.rises[i]; o.since.Equal(r.since) && o.at.Equal(r.at) {
			o.n++
			return
		}
	}
}

// forget drops what is too old to be anybody's.
func (a *account) forget(now time.Time) {
	a.doubt.forget(now)
	a.rises = slices.DeleteFunc(a.rises, func(r rise) bool { return now.Sub(r.at) > lostFor })
	a.early = slices.DeleteFunc(a.early, func(s span) bool { return now.Sub(s.to) > lostFor })
	old := func(b born) bool { return now.Sub(b.at) > lostFor }
	a.born, a.nameless = slices.DeleteFunc(a.born, old), slices.DeleteFunc(a.nameless, old)
}
