// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"cmp"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/parse/cgpath"
	"github.com/coroner-dev/coroner/internal/signal"
)

// maxTombstones bounds the removed cgroups that keep their names. At some 200
// bytes each they take 4 MiB at most.
const maxTombstones = 20000

// resident is one cgroup that lives or lived on this node.
type resident struct {
	signal.Level
	initPID int
	goneAt  time.Time // zero while it lives
}

// roster knows who lives here: cgroups by inode number and by path. The dead
// stay resolvable for a while, for evidence comes after a cgroup has gone.
type roster struct {
	ttl    time.Duration
	byID   map[uint64]*resident
	byPath map[string]*resident
	graves []*resident // gone, oldest first
	claims claims
}

func newRoster(ttl time.Duration) roster {
	return roster{ttl: ttl, byID: map[uint64]*resident{}, byPath: map[string]*resident{}, claims: claims{}}
}

// seen tells whether a first process became known.
func (r *roster) seen(s signal.CgroupSeen) (runs bool) {
	if s.Path == "" {
		return false
	}
	e := r.byPath[s.Path]
	if e == nil || (s.ID != 0 && e.ID != 0 && e.ID != s.ID) {
		e = &resident{} // new, or another cgroup under the old name
		r.byPath[s.Path] = e
		r.claims.seen(s.Path)
	}
	init := cmp.Or(s.InitPID, e.initPID)
	runs = init != e.initPID
	*e = resident{Level: s.Level, initPID: init}
	if s.ID != 0 {
		r.byID[s.ID] = e
	}
	return runs
}

func (r *roster) gone(c signal.Cgroup, now time.Time) *resident {
	e := r.find(c)
	if e == nil || !e.goneAt.IsZero() {
		return nil
	}
	e.goneAt = now
	r.graves = append(r.graves, e)
	return e
}

func (r *roster) find(c signal.Cgroup) *resident {
	if c.ID != 0 {
		if e := r.byID[c.ID]; e != nil {
			return e
		}
	}
	if c.Path == "" {
		return nil
	}
	return r.byPath[c.Path]
}

// limits takes over what a chain says of a cgroup that is known already.
func (r *roster) limits(l signal.Level) {
	if e := r.find(l.Cgroup); e != nil {
		e.LimitBytes, e.OOMGroup = l.LimitBytes, l.OOMGroup
	}
}

// path resolves c; "" when nobody knows.
func (r *roster) path(c signal.Cgroup) string {
	if c.Path != "" {
		return c.Path
	}
	if e := r.find(c); e != nil {
		return e.Path
	}
	return ""
}

// chain is what is known of path and its ancestors, innermost first. Usage is
// left out: it is not of the moment of the kill.
func (r *roster) chain(path string) []signal.Level {
	var out []signal.Level
	for p := path; p != ""; p = parent(p) {
		if e := r.byPath[p]; e != nil {
			l := e.Level
			l.UsageBytes = nil
			out = append(out, l)
		}
	}
	return out
}

// parent of "/a/b" is "/a", of "/a" is "/", of "/" is "".
func parent(p string) string {
	i := strings.LastIndexByte(p, '/')
	switch {
	case p == "/" || i < 0:
		return ""
	case i == 0:
		return "/"
	}
	return p[:i]
}

// goneBelow lists the cgroups below path that were removed around then.
func (r *roster) goneBelow(path string, then time.Time) []*resident {
	var out []*resident
	for i := len(r.graves) - 1; i >= 0; i-- {
		e := r.graves[i]
		if e.goneAt.Before(then.Add(-riseAfter)) {
			break
		}
		if e.goneAt.Sub(then) <= riseAfter && e.Path != path && cgpath.Within(path, e.Path) {
			out = append(out, e)
		}
	}
	return out
}

func (r *roster) expire(now time.Time) {
	n := 0
	for n < len(r.graves) && (now.Sub(r.graves[n].goneAt) > r.ttl || len(r.graves)-n > maxTombstones) {
		e := r.graves[n]
		n++
		if e.goneAt.IsZero() {
			continue // it came back
		}
		if r.byPath[e.Path] == e {
			delete(r.byPath, e.Path)
			r.claims.gone(e.Path)
		}
		if r.byID[e.ID] == e {
			delete(r.byID, e.ID)
		}
	}
	if n > 0 {
		r.graves = append(r.graves[:0:0], r.graves[n:]...)
	}
}

// cgroupSeen notes a cgroup, and tells the cases that waited for its name.
func (q *Inquest) cgroupSeen(s signal.CgroupSeen) {
	if q.roster.seen(s) {
		q.askAgain()
		q.foundFirst(s.Path)
	}
	for _, c := range q.cases {
		if c.taskMemcg == "" && c.cgroupID != 0 && c.cgroupID == s.ID {
			q.place(c, signal.Cgroup{ID: s.ID, Path: s.Path})
			q.bookLate(c)
			q.touch(c)
		}
	}
}

// foundFirst tells the cases of the container at path, which runs still, who its
// first process is: that is found up to seconds after it begins.
func (q *Inquest) foundFirst(path string) {
	for _, c := range q.cases {
		if c.container == nil || c.container.Cgroup != path || c.ended || !c.endedAt.IsZero() || c.initKnown() {
			continue
		}
		for _, p := range c.procs {
			q.learnInit(c, p)
		}
		q.touchNames(c)
	}
}

// cgroupGone notes a removal. A container's cgroup that goes within a second
// of an OOM kill in it, when nobody could tell whether the victim was its
// first process, went because of it.
func (q *Inquest) cgroupGone(s signal.Signal, g signal.CgroupGone) {
	e := q.roster.gone(g.Cgroup, q.now)
	if e == nil {
		return
	}
	q.ledger.gone(e.Cgroup)
	for _, c := range q.cases {
		if c.container == nil || c.container.Cgroup != e.Path {
			continue
		}
		if c.endedAt.IsZero() {
			c.endedAt = s.Time
		}
		if c.ended || !c.oomKilled || c.initKnown() {
			continue
		}
		if q.now.Sub(c.touched) > time.Second {
			continue
		}
		c.ended = true
		c.note(s, "the container's cgroup was removed right after")
		q.touch(c)
	}
}
