// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"sort"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
	"github.com/coroner-dev/coroner/internal/signal"
)

// ledger holds what the kernel counted beside what the inquest explained: for
// each cgroup that ever saw a kill, and for the machine.
type ledger struct {
	accounts map[string]*account
	node     account
	// nodeKnown is true once the machine's counter has been heard of.
	nodeKnown bool
	// limitHit is when a cgroup's own `oom` last rose (v2): whose limit.
	limitHit map[string]time.Time
}

// account compares one counter with what was explained of it.
type account struct {
	counted, explained uint64
	// doubles are processes that the kernel killed, and counted, twice: the
	// first victim of a group (mm/oom_kill.c, seen on 5.10 to 7.2).
	doubles uint64
	changed time.Time
	born    []*caseFile // cases that a counter alone made
	gone    bool
	path    string
	rises   []rise
	sample  signal.CgroupCounters // the newest rise
	signal  signal.Signal
}

// maxAccounts bounds the cgroups with kills that the ledger remembers.
const maxAccounts = 10000

// maxBorn bounds the deaths that one rise of one counter may make.
const maxBorn = 1000

func newLedger() ledger {
	return ledger{accounts: map[string]*account{}, limitHit: map[string]time.Time{}}
}

func (l *ledger) account(path string) *account {
	a := l.accounts[path]
	if a == nil {
		if len(l.accounts) >= maxAccounts {
			l.shrink()
		}
		a = &account{path: path}
		l.accounts[path] = a
	}
	return a
}

// shrink drops the accounts that are balanced, or else the oldest half.
func (l *ledger) shrink() {
	paths := make([]string, 0, len(l.accounts))
	for p, a := range l.accounts {
		if a.counted <= a.explained+a.doubles {
			delete(l.accounts, p)
			continue
		}
		paths = append(paths, p)
	}
	if len(l.accounts) < maxAccounts {
		return
	}
	sort.Slice(paths, func(i, j int) bool { return l.accounts[paths[i]].changed.Before(l.accounts[paths[j]].changed) })
	for _, p := range paths[:len(paths)/2] {
		delete(l.accounts, p)
	}
}

// explain books one process that the OOM killer took, as seen by a source
// that names it. Kills from before the start were never counted here.
func (l *ledger) explain(path string, s signal.Signal) {
	if s.Recovered {
		return
	}
	l.node.explained++
	l.node.changed = s.Observed
	l.explainAt(path, s)
}

// explainAt books in its cgroup a kill that the machine's account has already.
func (l *ledger) explainAt(path string, s signal.Signal) {
	if path == "" || s.Recovered {
		return
	}
	a := l.account(path)
	a.explained++
	a.changed = s.Observed
}

// unexplain takes back one explain, for a process that was placed wrongly.
func (l *ledger) unexplain(path string, s signal.Signal) {
	if s.Recovered {
		return
	}
	l.node.explained--
	if a := l.accounts[path]; a != nil && a.explained > 0 {
		a.explained--
	}
}

// double books that the kernel counted p twice, which it does once at most.
func (l *ledger) double(p *process, path string) {
	if p.doubled || p.restored {
		return
	}
	p.doubled = true
	l.node.doubles++
	if path != "" {
		l.account(path).doubles++
	}
}

// claim gives a case that a counter made to the kill that it counted.
func (l *ledger) claim(path string) *caseFile {
	a := l.accounts[path]
	if path == "" || a == nil || len(a.born) == 0 {
		return nil
	}
	c := a.born[0]
	a.born = a.born[1:]
	a.explained-- // explain books it again, by name
	l.node.explained--
	c.countedOnly, c.procs = false, nil
	return c
}

func (l *ledger) gone(path string) {
	if a := l.accounts[path]; a != nil {
		a.gone = true
	}
}

// cgroupCounters takes a rise of one cgroup's counters.
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
		if len(q.ledger.limitHit) > maxAccounts {
			clear(q.ledger.limitHit)
		}
		q.ledger.limitHit[path] = q.now
		q.limitHit(path, s)
	}
	if b.OOMKill == 0 {
		return
	}
	a := q.ledger.account(path)
	a.counted += b.OOMKill
	a.changed = q.now
	a.rose(q.now, b.OOMKill)
	a.sample, a.signal = b, s
	if !q.namersUp() {
		q.auditCgroup(path, a)
		return
	}
	// Tell the case that the counter agrees.
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		if q.now.Sub(c.observed) > q.opts.Settle {
			break
		}
		if c.oomKilled && c.taskMemcg == path && !c.countedOnly {
			c.note(s, "the kernel's oom_kill counter of %s rose by %d", death.Printable(path), b.OOMKill)
			if len(c.chain) == 0 {
				c.chain = b.Chain
			}
			q.touch(c)
			break
		}
	}
}

// limitHit tells the open cases below path whose limit it was.
func (q *Inquest) limitHit(path string, s signal.Signal) {
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

// nodeCounters takes a rise of the machine's own count.
func (q *Inquest) nodeCounters(b signal.NodeCounters) {
	q.ledger.nodeKnown = true
	q.ledger.node.counted += b.OOMKill
	q.ledger.node.changed = q.now
	q.stats.NodeOOMKills += b.OOMKill
	q.stats.NodeTotal = b.Total
}

// namersUp tells whether a source runs that names processes.
func (q *Inquest) namersUp() bool {
	return q.up[death.SourceTracepoint] || q.up[death.SourceKmsg]
}

// audit holds the counters beside what was explained, once nothing has moved
// for a while.
func (q *Inquest) audit() {
	paths := make([]string, 0, len(q.ledger.accounts))
	for p := range q.ledger.accounts {
		paths = append(paths, p)
	}
	sort.Strings(paths) // the same signals give the same deaths in the same order
	var short []string
	for _, p := range paths {
		a := q.ledger.accounts[p]
		a.forgetRises(q.now)
		switch {
		case a.missing() > 0:
			short = append(short, p)
		case a.explained > a.counted && q.quiet(a):
			a.counted, a.explained, a.doubles = 0, 0, 0 // counted before we looked, or not readable
		}
		if a.gone && q.now.Sub(a.changed) > q.opts.TombstoneTTL {
			delete(q.ledger.accounts, p)
		}
	}
	if len(short) > 0 {
		q.placeByCount(short)
	}
	for _, p := range short {
		if a := q.ledger.accounts[p]; q.quiet(a) {
			q.weigh(a)
			q.auditCgroup(p, a)
		}
	}
	q.auditNode()
}

func (q *Inquest) quiet(a *account) bool { return q.now.Sub(a.changed) >= q.opts.Patience }

func (q *Inquest) auditNode() {
	n := &q.ledger.node
	if !q.ledger.nodeKnown || q.now.Sub(n.changed) < q.opts.Patience+time.Second {
		return
	}
	q.stats.Unattributed += n.missing()
	n.counted, n.explained, n.doubles = 0, 0, 0
}

// missing is what was counted and not explained.
func (a *account) missing() uint64 {
	if a.counted <= a.explained+a.doubles {
		return 0
	}
	return a.counted - a.explained - a.doubles
}

// auditCgroup makes deaths of what a cgroup counted and nobody saw.
func (q *Inquest) auditCgroup(path string, a *account) {
	q.moveMembers(path, a)
	made := min(a.missing(), maxBorn)
	if made == 0 {
		return
	}
	a.explained += made
	q.ledger.node.explained += made
	q.ledger.node.changed = q.now
	if a.sample.OOMGroupKill > 0 || groupLevel(q.fillChain(a.sample.Chain, signal.Cgroup{Path: path})) != "" {
		q.countedGroup(path, a, int(made))
		return
	}
	for range made {
		a.born = append(a.born, q.openCounted(path, a, 1, false))
	}
}

// countedGroup makes one death of a whole group's kills, which the counter may
// tell in several steps.
func (q *Inquest) countedGroup(path string, a *account, kills int) {
	for _, c := range a.born {
		if c.group && q.now.Sub(c.touched) <= oneBreath {
			c.anonymous(kills, q.now)
			q.touch(c)
			return
		}
	}
	a.born = append(a.born, q.openCounted(path, a, kills, true))
}

// anonymous adds dead of whom nothing is known.
func (c *caseFile) anonymous(n int, now time.Time) {
	for range n {
		p := &process{owner: c, seen: now}
		p.Fate = death.FateVictim
		c.procs = append(c.procs, p)
	}
}

func (q *Inquest) openCounted(path string, a *account, kills int, group bool) *caseFile {
	c := q.open(a.signal, "cgroup "+path)
	c.oomKilled, c.countedOnly, c.group = true, true, group
	c.oom.Events = 1
	q.place(c, signal.Cgroup{ID: a.sample.ID, Path: path})
	c.chain = a.sample.Chain
	c.anonymous(kills, q.now)
	c.note(a.signal, "the kernel's oom_kill counter of %s rose, and no other source saw the process", death.Printable(path))
	if group {
		c.note(a.signal, "memory.oom.group is set: all of it was killed; the kernel may count the first victim twice")
	}
	q.touch(c)
	return c
}
