// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Told is how much of what the kernel counted has been told as deaths: what an
// agent keeps with them, so that the next one finds the kills that happened in
// between, by the counters, once each.
type Told struct {
	// Node is where the machine's counter would stand if it had counted just
	// the kills that were told.
	Node uint64
	// Cgroups is the same for each cgroup, by its id. One that is not there
	// had no kill.
	Cgroups map[uint64]CgroupTold
}

// CgroupTold is Told of one cgroup: of its own kills, and of those of its
// whole subtree (v2).
type CgroupTold struct {
	Own, Below uint64
}

// ToldChange is what changed of Told since it was last taken.
type ToldChange struct {
	// Node is nil where the machine's counter is not known.
	Node    *uint64
	Cgroups map[uint64]CgroupTold
	// Removed are ids that will not come back.
	Removed []uint64
	// LogSeq is the kernel log's record up to which all that it says is told;
	// 0: not known.
	LogSeq uint64
	// Void: what was kept of the counters no longer holds. A next run must not
	// go on from it.
	Void bool
}

// Empty tells that nothing changed.
func (c *ToldChange) Empty() bool {
	return c.Node == nil && len(c.Cgroups) == 0 && len(c.Removed) == 0 && !c.Void
}

// TakeTold returns what changed since it was last called. It belongs to the
// deaths that Take returns at the same time: keep both together, or none.
func (q *Inquest) TakeTold() ToldChange {
	var c ToldChange
	l := &q.ledger
	if q.beginning() {
		return c
	}
	c.LogSeq = q.logTold()
	if n := q.nodeTold(); l.node.known && (n != l.nodeTold || !l.nodeTaken) {
		l.nodeTold, l.nodeTaken = n, true
		c.Node = &n
	}
	for a := range l.changed {
		if g := q.resolve(signal.Cgroup{Path: a.path}); a.id == 0 && g.ID != 0 {
			l.account(g)
		}
		delete(l.changed, a)
		t := CgroupTold{Own: a.own.told(), Below: a.below.told()}
		switch {
		case a.id == 0 && !a.gone && !q.up[death.SourceCgroup]:
			c.Void = true // where a kill was told is not known by id
			continue
		case a.id == 0 || !a.own.known || t == a.told:
			continue
		}
		a.told = t
		if c.Cgroups == nil {
			c.Cgroups = map[uint64]CgroupTold{}
		}
		c.Cgroups[a.id] = t
	}
	c.Removed, l.removed = l.removed, nil
	return c
}

// Continue makes known what earlier runs told, in this boot of the machine.
// Call it before the first signal. Without it, what the counters have counted
// before the first signal is nobody's.
func (q *Inquest) Continue(t Told) {
	if t.Cgroups == nil {
		t.Cgroups = map[uint64]CgroupTold{}
	}
	q.ledger.since = &t
	q.ledger.node.total, q.ledger.node.known = t.Node, true
}

// nodeTold leaves out the kills whose death is still held back.
func (q *Inquest) nodeTold() uint64 {
	n := q.ledger.node.told()
	for _, c := range q.dirty {
		if c.revision == 0 {
			n -= min(n, uint64(len(c.procs)))
		}
	}
	return n
}

// logTold is the record before the first whose kill is still held back.
func (q *Inquest) logTold() uint64 {
	seq := q.logSeq
	hold := func(its uint64) {
		if its > 0 {
			seq = min(seq, its-1)
		}
	}
	for _, h := range q.held {
		hold(h.b.Seq)
	}
	for _, c := range q.dirty {
		if c.revision == 0 {
			hold(c.logSeq)
		}
	}
	return seq
}

// begin is called once the cgroup source has told of all that is there.
func (l *ledger) begin(now time.Time) {
	if l.begun {
		return
	}
	l.begun, l.begunAt = true, now
	if l.since == nil {
		return
	}
	for id := range l.since.Cgroups {
		if l.byID[id] == nil {
			l.removed = append(l.removed, id)
		}
	}
}
