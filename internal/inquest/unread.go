// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"slices"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// maxUnread bounds the lines of the log that wait for the counters.
const maxUnread = 65536

// tooEarly keeps what the log says of the time before this run, where the run
// goes on from another, until it is known what the counters stand at: they
// tell which of these kills were told already.
func (q *Inquest) tooEarly(s signal.Signal) bool {
	if !s.Recovered || s.Source != death.SourceKmsg || !q.beginning() || len(q.unread) >= maxUnread {
		return false
	}
	q.unread = append(q.unread, s)
	return true
}

// readUnread takes what waited, once it need not wait any more.
func (q *Inquest) readUnread() {
	if len(q.unread) == 0 || q.beginning() {
		return
	}
	unread := q.unread
	q.unread = nil
	for _, s := range unread {
		q.take(s)
	}
}

// goesOn tells whether a kill from before this run may have been told by the
// run before it.
func (q *Inquest) goesOn(recovered bool) bool {
	return recovered && q.ledger.since != nil && q.ledger.begun
}

// toldBefore tells whether the log's line of a kill in g is of one that a run
// before this one told, by a counter alone: then no counter has it to spare.
func (q *Inquest) toldBefore(s signal.Signal, g signal.Cgroup) bool {
	if !q.goesOn(s.Recovered) || g.Path == "" {
		return false
	}
	killed := spanOf(s)
	a := q.ledger.find(g)
	told := false
	switch {
	case a != nil && a.own.known && !a.gone:
		told = a.own.missing() == 0 && a.bornOf(killed, anyCase) < 0
	case q.ledger.nodeKnown && q.mayHaveTold(killed.from, g.Path):
		left := q.ledger.node.missing() // kills in cgroups that are gone
		for o := range q.ledger.active {
			left -= min(left, o.own.missing())
		}
		told = left == 0
	}
	if told {
		q.stats.Late++
	}
	return told
}

// toldKill is an OOM kill of a death from before this run.
type toldKill struct {
	path      string // "": not known
	at        time.Time
	nameless  bool // a counter alone told of it
	recovered bool // and some time after it
}

// rememberTold keeps what d told of a kill; toldSince is since when all is kept.
func (q *Inquest) rememberTold(d *death.Death) {
	if q.toldSince.IsZero() || d.Time.Before(q.toldSince) {
		q.toldSince = d.Time
	}
	if d.OOM == nil {
		return
	}
	nameless := slices.ContainsFunc(d.Processes, func(p death.Process) bool { return p.PID == 0 })
	q.told = append(q.told, toldKill{d.OOM.TaskMemcg, d.Time, nameless, d.Recovered})
}

// mayHaveTold tells whether a death from before this run may be of the kill at
// path then: of one whom nobody named, or who has another name, that of a
// thread. What the counters have to spare does not tell it: a book that is one
// ahead would hide for ever what happened while no agent ran.
func (q *Inquest) mayHaveTold(killed time.Time, path string) bool {
	if q.toldSince.IsZero() || killed.Before(q.toldSince) {
		return true // it is not known what was told then
	}
	return slices.ContainsFunc(q.told, func(k toldKill) bool {
		switch {
		case k.path != path && (k.path != "" || !k.nameless), killed.After(k.at.Add(giveUp)):
			return false
		case k.nameless && k.recovered:
			return true
		}
		return !killed.Before(k.at.Add(-giveUp))
	})
}

// drop lets go of a case whose kill is told by another.
func (q *Inquest) drop(c *caseFile) {
	q.ledger.node.takeBack()
	if c.hasReport && q.reports[c.report] == c {
		delete(q.reports, c.report)
	}
	q.remove(c)
	q.stats.Late++
}
