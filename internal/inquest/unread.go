// SPDX-License-Identifier: Apache-2.0

package inquest

import (
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
	case q.ledger.nodeKnown:
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

// drop lets go of a case whose kill is told by another.
func (q *Inquest) drop(c *caseFile) {
	q.ledger.node.takeBack()
	if c.hasReport && q.reports[c.report] == c {
		delete(q.reports, c.report)
	}
	q.remove(c)
	q.stats.Late++
}
