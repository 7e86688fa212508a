// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"slices"
	"time"
)

// doubt is when kills were counted of which nobody knows whose they were: a
// rise that stands for a death without a name may be the kill of any process
// that was killed then, and so one that seems to fit only one other counter
// may have lived here. The spans do not overlap, and are in order.
type doubt struct{ spans []span }

// add takes in a rise that was booked without a name.
func (d *doubt) add(r rise) {
	s := span{r.since, r.at}
	first, _ := slices.BinarySearchFunc(d.spans, s.from, func(o span, from time.Time) int { return o.to.Compare(from) })
	last := first
	for ; last < len(d.spans) && !d.spans[last].from.After(s.to); last++ {
		if o := d.spans[last]; o.from.Before(s.from) {
			s.from = o.from
		}
		s.to = later(s.to, d.spans[last].to)
	}
	d.spans = slices.Replace(d.spans, first, last, s)
}

// covers tells whether one of these kills may be one that was killed then.
func (d *doubt) covers(killed span) bool {
	return slices.ContainsFunc(d.spans, func(s span) bool { return rise{since: s.from, at: s.to}.covers(killed) })
}

// forget drops what is too old to be anybody's.
func (d *doubt) forget(now time.Time) {
	d.spans = slices.DeleteFunc(d.spans, func(s span) bool { return now.Sub(s.to) > lostFor })
}

// doubtful notes that one of the kills that a counted then is booked without a
// name.
func (a *account) doubtful(killed span) {
	for _, r := range a.rises {
		if r.covers(killed) {
			a.doubt.add(r)
		}
	}
}

// vague tells whether it is not known which of the kills that a counted is the
// one then: who seems to have been another may be this.
func (a *account) vague(killed span) bool {
	n := 0
	for _, r := range a.rises {
		if r.covers(killed) {
			n++
		}
	}
	return n > 1 || a.doubt.covers(killed)
}

// elsewhere tells whether one who was killed then may be one of those that
// were booked without a name, in another cgroup than a.
func (l *ledger) elsewhere(a *account, killed span) bool {
	for o := range l.active {
		if o != a && o.doubt.covers(killed) {
			return true
		}
	}
	return l.doubt.covers(killed)
}

// crowded tells whether there is no room to let cases wait. Those from before a
// restart make room by themselves.
func (q *Inquest) crowded() bool {
	n := len(q.cases)
	if n <= q.opts.MaxCases {
		return false
	}
	for _, c := range q.cases {
		if c.prior != nil {
			n--
		}
	}
	return n > q.opts.MaxCases
}

// lookAhead counts the kills that are told and that the machine may not have
// counted yet: they stand for none that it counted.
func (q *Inquest) lookAhead() {
	q.ledger.ahead, q.ledger.perhaps = 0, 0
	to := q.ledger.countedTo
	for _, c := range q.cases {
		switch {
		case !c.oomKilled || c.unbooked:
		case q.isAhead(c):
			q.ledger.ahead += len(c.procs)
		case !to.IsZero() && c.killed().to.Add(slack).After(to):
			q.ledger.perhaps += len(c.procs)
		}
	}
}

// isAhead tells whether the counters may not have counted c yet. What was seen
// before they were read they have: the kernel counts first.
func (q *Inquest) isAhead(c *caseFile) bool {
	to, killed := q.ledger.countedTo, c.killed().to
	if c.recovered {
		killed = killed.Add(slack)
	}
	return !to.IsZero() && killed.After(to)
}

// sum is how many more kills are told than the machine counted, up to the time
// at which all of its counters were read.
func (l *ledger) sum() int {
	return int(l.node.explained+l.node.doubles) - l.ahead - int(l.node.counted-min(l.node.counted, l.uncounted))
}

// toldAll tells whether all kills that the machine counted are told, also if
// each victim without a counter is one whom a counter told of already.
func (q *Inquest) toldAll(active []*account) bool {
	twice := 0
	if slices.ContainsFunc(active, func(a *account) bool { return len(a.born) > 0 }) {
		for _, c := range q.cases {
			if c.lost() && !slices.ContainsFunc(active, func(a *account) bool { return a.fits(c) }) {
				twice++
			}
		}
	}
	return q.ledger.sum()-twice >= 0
}

func anyCase(*caseFile) bool { return true }

// toldTwice tells whether more is told, or will be, than the machine counted,
// so that c may be a kill that a counter told of already.
func (q *Inquest) toldTwice(c *caseFile, active []*account) bool {
	if !q.ledger.nodeKnown {
		return true
	}
	due := 0 // what cgroups counted and no victim waits for
	for _, a := range active {
		due += int(a.own.missing())
	}
	for _, o := range q.cases {
		if due > 0 && o != c && o.lost() {
			due--
		}
	}
	return q.ledger.sum()-q.ledger.perhaps+due > 0
}

// certain tells whether the kill of c must be the one that a counted: nobody
// else may be meant, and nothing just then was booked without a name.
func (q *Inquest) certain(c *caseFile, a *account) bool {
	killed := c.killed()
	r := a.riseOf(killed)
	if r == nil || q.ledger.elsewhere(a, killed) {
		return false
	}
	if to := q.ledger.countedTo; !to.IsZero() && to.Before(a.rises[len(a.rises)-1].at) {
		return false // the machine's count is older
	}
	others := uint64(0)
	for _, o := range q.cases {
		if o != c && o.lost() && a.may(o) && !q.isAhead(o) {
			others++
		}
	}
	return others < a.open()
}
