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
		a = &account{}
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
	if path == "" {
		return
	}
	a := l.account(path)
	a.explained++
	a.changed = s.Observed
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
	var short, quiet []string
	for _, p := range paths {
		a := q.ledger.accounts[p]
		still := q.now.Sub(a.changed) >= q.opts.Patience
		switch {
		case a.missing() > 0:
			short = append(short, p)
			if still {
				quiet = append(quiet, p)
			}
		case still && a.explained > a.counted:
			a.counted, a.explained, a.doubles = 0, 0, 0 // counted before we looked, or not readable
		}
		if a.gone && q.now.Sub(a.changed) > q.opts.TombstoneTTL {
			delete(q.ledger.accounts, p)
		}
	}
	if len(short) == 1 || len(short) == len(quiet) {
		q.placeByCount(short)
	}
	for _, p := range quiet {
		q.auditCgroup(p, q.ledger.accounts[p])
	}
	q.auditNode()
}

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

// lost tells whether c is a live OOM kill that nobody could place, and that no
// counter's rise stands for yet.
func (c *caseFile) lost() bool {
	return c.oomKilled && c.taskMemcg == "" && !c.recovered && !c.weighed
}

// placeByCount finds the cgroups of victims whose own source could not tell
// it (tracefs, a log without its report): a cgroup's counter rose for a kill
// that nobody placed. With one such cgroup it is settled; with more, each
// victim is told where it may have lived, and none is counted twice.
func (q *Inquest) placeByCount(short []string) {
	var lost []*caseFile
	for _, c := range q.cases {
		if c.lost() && q.now.Sub(c.observed) >= q.opts.Patience {
			lost = append(lost, c)
		}
	}
	for _, p := range short {
		a := q.ledger.accounts[p]
		for range a.missing() {
			if len(lost) == 0 {
				return
			}
			c := lost[0]
			lost = lost[1:]
			a.explained++
			c.weighed = true
			if len(short) == 1 {
				q.place(c, signal.Cgroup{ID: a.sample.ID, Path: p})
				if len(c.chain) == 0 {
					c.chain = a.sample.Chain
				}
				c.note(a.signal, "placed by count: the oom_kill counter of %s rose for a kill that no source placed", death.Printable(p))
			} else {
				c.note(a.signal, "it may have lived in any of %d cgroups whose oom_kill counters rose then", len(short))
			}
			q.touch(c)
		}
	}
}

// auditCgroup makes deaths of what a cgroup counted and nobody saw.
func (q *Inquest) auditCgroup(path string, a *account) {
	made := min(a.missing(), maxBorn)
	if made == 0 {
		return
	}
	a.explained += made
	q.ledger.node.explained += made
	q.ledger.node.changed = q.now
	if group := a.sample.OOMGroupKill > 0; group {
		a.born = append(a.born, q.openCounted(path, a, int(made), true))
		return
	}
	for range made {
		a.born = append(a.born, q.openCounted(path, a, 1, false))
	}
}

func (q *Inquest) openCounted(path string, a *account, kills int, group bool) *caseFile {
	c := q.open(a.signal, "cgroup "+path)
	c.oomKilled, c.countedOnly, c.group = true, true, group
	c.oom.Events = 1
	q.place(c, signal.Cgroup{ID: a.sample.ID, Path: path})
	c.chain = a.sample.Chain
	for range kills {
		p := &process{owner: c, seen: q.now}
		p.Fate = death.FateVictim
		c.procs = append(c.procs, p)
	}
	c.note(a.signal, "the kernel's oom_kill counter of %s rose, and no other source saw the process", death.Printable(path))
	if group {
		c.note(a.signal, "oom_group_kill rose too: all of it was killed; the kernel may count the first victim twice")
	}
	q.touch(c)
	return c
}
