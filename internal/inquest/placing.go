// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
	"github.com/coroner-dev/coroner/internal/signal"
)

// lost tells whether c is a live OOM kill that nobody could place, and that no
// counter's rise stands for yet.
func (c *caseFile) lost() bool {
	return c.oomKilled && c.taskMemcg == "" && !c.recovered && !c.weighed
}

// The rise of a counter is read after the kill, within this time.
const (
	riseBefore = 200 * time.Millisecond
	riseAfter  = 1500 * time.Millisecond
)

// rise is when a counter rose, and by how much.
type rise struct {
	at time.Time
	n  uint64
}

// maxRises bounds the rises that an account remembers.
const maxRises = 256

func (a *account) rose(at time.Time, n uint64) {
	if len(a.rises) >= maxRises {
		a.rises = append(a.rises[:0], a.rises[1:]...)
	}
	a.rises = append(a.rises, rise{at, n})
}

func (a *account) forgetRises(now time.Time) {
	n := 0
	for n < len(a.rises) && now.Sub(a.rises[n].at) > lostFor {
		n++
	}
	a.rises = a.rises[n:]
}

// may tells whether the kill of c may be one that a counted.
func (a *account) may(c *caseFile) bool {
	for _, r := range a.rises {
		if d := r.at.Sub(c.observed); d >= -riseBefore && d <= riseAfter {
			return true
		}
	}
	return false
}

// placeByCount finds the cgroups of victims whose own source could not tell
// it (tracefs, a log without its report): one cgroup's counter, and only one,
// rose just then for kills that nobody placed.
func (q *Inquest) placeByCount(short []string) {
	waiting := map[string][]*caseFile{}
	for _, c := range q.cases {
		if !c.lost() || q.now.Sub(c.observed) < q.opts.Patience {
			continue
		}
		var where []string
		for _, p := range short {
			if q.ledger.accounts[p].may(c) {
				where = append(where, p)
			}
		}
		if len(where) == 1 {
			waiting[where[0]] = append(waiting[where[0]], c)
		}
	}
	for _, p := range short {
		a := q.ledger.accounts[p]
		if uint64(len(waiting[p])) > a.missing() {
			continue // more victims than kills: not settled
		}
		for _, c := range waiting[p] {
			a.explained++
			c.weighed = true
			q.place(c, signal.Cgroup{ID: a.sample.ID, Path: p})
			if len(c.chain) == 0 {
				c.chain = a.sample.Chain
			}
			c.note(a.signal, "placed by count: only the oom_kill counter of %s rose just then", death.Printable(p))
			q.touch(c)
		}
	}
}

// weigh sets against what a counted and nobody explained the victims that
// nobody could place and that died just then: they are these kills, or those
// of another cgroup, so nothing may be counted twice. What is left over after
// that is not made a death of this cgroup either, for it is not known that it
// is not theirs; the machine's own account tells it as unattributed.
func (q *Inquest) weigh(a *account) {
	found := false
	for _, c := range q.cases {
		if !c.oomKilled || c.taskMemcg != "" || c.recovered || !a.may(c) {
			continue
		}
		found = true
		if a.missing() > 0 && !c.weighed {
			a.explained++
			c.weighed = true
			c.note(a.signal, "its cgroup is not known; it may be %s, whose oom_kill counter rose just then", death.Printable(a.path))
			q.touch(c)
		}
	}
	if found {
		a.explained += a.missing()
	}
}

// moveMembers gives a container the members of a group that it counted and
// that the log, which names no container, put beside the group's first victim.
func (q *Inquest) moveMembers(path string, a *account) {
	for _, c := range q.cases {
		if !c.group || c.taskMemcg == path || c.groupCgroup == "" || !cgpath.Within(c.groupCgroup, path) || !a.may(c) {
			continue
		}
		var members []*process
		for _, p := range c.procs {
			if p.unplaced {
				members = append(members, p)
			}
		}
		if len(members) == 0 || a.missing() == 0 {
			continue
		}
		if uint64(len(members)) != a.missing() {
			a.explained += min(uint64(len(members)), a.missing()) // some of these: nothing twice
			continue
		}
		to := q.open(a.signal, pidKey(signal.Task{PID: members[0].PID}))
		to.oomKilled, to.oom, to.named, to.group = true, c.oom, c.named, true
		to.groupCgroup, to.chain = c.groupCgroup, a.sample.Chain
		q.place(to, signal.Cgroup{ID: a.sample.ID, Path: path})
		to.ended = to.container != nil
		for _, p := range members {
			q.takeBack(p)
			p.unplaced = false
			q.add(to, p)
			q.ledger.unexplain(c.taskMemcg, a.signal)
			q.ledger.explain(path, a.signal)
		}
		if c.invocation == nil {
			c.invocation = &invocation{cases: []*caseFile{c}}
		}
		c.invocation.join(to)
		to.note(a.signal, "its oom_kill counter rose by as many as the log names without a container")
		q.touch(to)
	}
}
