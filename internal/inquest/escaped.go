// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"fmt"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest/verdict"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
	"github.com/coroner-dev/coroner/internal/signal"
)

// maxEscapes bounds the containers of which it is remembered that processes
// live outside their cgroup.
const maxEscapes = 4096

// escape is what was found last of one container.
type escape struct {
	signal.ProcessesEscaped
	from death.Source
	at   time.Time
}

// escapes are known by the containers' cgroups. A container that ended keeps
// its own for a while: its death comes after.
type escapes map[string]*escape

// processesEscaped takes what lives outside of a container.
func (q *Inquest) processesEscaped(s signal.Signal, b signal.ProcessesEscaped) {
	switch {
	case b.Path == "":
		return
	case b.Count == 0:
		delete(q.escapes, b.Path)
		return
	case q.escapes[b.Path] == nil && len(q.escapes) >= maxEscapes:
		q.stats.Late++
		return
	}
	at := s.Time
	if at.IsZero() {
		at = s.Observed
	}
	q.escapes[b.Path] = &escape{ProcessesEscaped: b, from: s.Source, at: at}
	for _, c := range q.cases {
		if c.container != nil && c.container.Cgroup == b.Path {
			q.touchNames(c)
		}
	}
}

func (x escapes) expire(now time.Time, ttl time.Duration) {
	for path, e := range x {
		if now.Sub(e.at) > ttl {
			delete(x, path)
		}
	}
}

// learnEscapes notes what lived outside of c's container. What was found is
// kept with the case, whatever is found later.
func (q *Inquest) learnEscapes(c *caseFile) {
	if c.container == nil || c.prior != nil {
		return
	}
	if e := q.escapes[c.container.Cgroup]; e != nil {
		c.escaped = e
	}
}

// evidence says who they are.
func (e *escape) evidence(limit *int64) death.Evidence {
	was, their := "processes of the container lived outside its cgroup", "them"
	if e.Count == 1 {
		was, their = "process of the container lived outside its cgroup", "it"
	}
	own := "its limits do"
	if limit != nil {
		own = "its limit of " + death.FormatBytes(*limit) + " does"
	}
	var who []string
	for _, p := range e.Examples {
		text := fmt.Sprintf("pid %d (%s) in %s", p.PID, death.Printable(p.Comm), death.Printable(p.Cgroup))
		if p.HeldBytes != nil {
			text += " with " + death.FormatBytes(*p.HeldBytes)
		}
		who = append(who, text)
	}
	text := fmt.Sprintf("%d %s, where %s not hold for %s: %s", e.Count, was, own, their, strings.Join(who, ", "))
	if more := e.Count - len(e.Examples); more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	if e.Count > 1 && e.HeldBytes > 0 {
		text += "; together they held " + death.FormatBytes(e.HeldBytes)
	}
	return death.Evidence{Time: e.at.UTC(), Source: e.from, Text: text}
}

// stray is a process of a container that the OOM killer took outside of all
// containers' cgroups. Of one that is restored only its container is known.
type stray struct {
	of   *death.Container
	pid  int
	comm string
	from death.Source // who said so, and when
	at   time.Time
}

// strayOf finds the container of a process that the OOM killer took outside of
// all containers: by who is known to have left one, else it asks whose pid
// namespace it lived in.
func (q *Inquest) strayOf(c *caseFile) {
	if c.strayAsked || c.stray != nil || !c.oomKilled || c.taskMemcg == "" || c.prior != nil {
		return
	}
	p := c.namespaced()
	if p == nil {
		return
	}
	c.strayAsked = true
	if e := q.leftBy(p, c.taskMemcg); e != nil {
		q.isStray(c, p, e.Path, signal.Signal{Time: e.at, Observed: e.at, Source: e.from})
		return
	}
	if c.container == nil {
		q.wantNamespace(c, p)
	}
}

// namespaced is the first victim of c that lived in a pid namespace of its own.
func (c *caseFile) namespaced() *process {
	for _, p := range c.procs {
		if p.pidns != 0 && p.pidns != signal.InitialPIDNS && p.Fate == death.FateVictim {
			return p
		}
	}
	return nil
}

func (q *Inquest) wantNamespace(c *caseFile, p *process) {
	if len(q.wants) < maxWants {
		q.wants = append(q.wants, Want{Kind: WantNamespace, PIDNS: p.pidns, At: c.at})
	}
}

// askAgain asks once more whose the pid namespaces are of which nobody knew
// it: the first process of one more container has been found. That takes up to
// seconds from when a container begins, and one killed by then was asked about
// in vain.
func (q *Inquest) askAgain() {
	asked := map[uint64]bool{}
	for _, c := range q.cases {
		if !c.strayAsked || c.stray != nil || c.container != nil {
			continue
		}
		if p := c.namespaced(); p != nil && !asked[p.pidns] {
			asked[p.pidns] = true
			q.wantNamespace(c, p)
		}
	}
}

// leftBy finds the container that a process has left: it is one of the examples,
// or lived where they do in their namespace. That one's number is given to
// another once the container has gone.
func (q *Inquest) leftBy(p *process, at string) *escape {
	for _, e := range q.escapes {
		if e.PIDNS != p.pidns || cgpath.Within(e.Path, at) {
			continue
		}
		home := q.roster.byPath[e.Path]
		lives := home != nil && home.goneAt.IsZero()
		for _, o := range e.Examples {
			if o.Cgroup == at && (o.PID == p.PID || lives) {
				return e
			}
		}
	}
	return nil
}

// pidNamespace takes the answer to WantNamespace. One that began after a death
// has been given the number of the one that it was asked about.
func (q *Inquest) pidNamespace(s signal.Signal, b signal.PIDNamespace) {
	if b.Cgroup.Path == "" || b.PIDNS == 0 {
		return
	}
	for _, c := range q.cases {
		if !c.strayAsked || c.stray != nil || c.container != nil || cgpath.Within(b.Cgroup.Path, c.taskMemcg) || b.Since.After(c.at.Add(slack)) {
			continue
		}
		for _, p := range c.procs {
			if p.pidns == b.PIDNS {
				q.isStray(c, p, b.Cgroup.Path, s)
				break
			}
		}
	}
}

// namespaceEnds finds the container of those who were killed just before the first
// process of their pid namespace ended: often it ends for that, and is gone
// before anybody has looked whose it was.
func (q *Inquest) namespaceEnds(s signal.Signal, first signal.Task) {
	of, _, _, _ := q.owner(q.roster.path(first.Cgroup))
	if of == nil || first.PIDNS == 0 || first.PIDNS == signal.InitialPIDNS {
		return
	}
	t := q.tenants.of(of)
	for _, c := range q.cases {
		p := c.namespaced()
		if p == nil || !c.outside(of.Cgroup) || p.pidns != first.PIDNS || s.Time.Sub(p.at).Abs() > oneBreath || t != nil && t.started.After(p.at.Add(slack)) {
			continue
		}
		q.isStray(c, p, of.Cgroup, s)
	}
}

// outside tells whether c may be of one who had left the container at a cgroup.
func (c *caseFile) outside(cgroup string) bool {
	known := c.stray != nil || c.container != nil || c.prior != nil
	return c.oomKilled && !known && c.taskMemcg != "" && !cgpath.Within(cgroup, c.taskMemcg)
}

// isStray notes that p, of c, was a process of the container whose cgroup this is.
func (q *Inquest) isStray(c *caseFile, p *process, cgroup string, s signal.Signal) {
	of, _, _, _ := q.owner(cgroup)
	if of == nil || of.Cgroup != cgroup {
		return
	}
	at := s.Time
	if at.IsZero() {
		at = s.Observed
	}
	c.stray = &stray{of: of, pid: p.PID, comm: p.Comm, from: s.Source, at: at}
	q.touchNames(c)
}

// left is the container that c's victim had left, as far as it is known; nil: it is
// not. An engine may say later that it only holds a pod's namespaces: then it was
// one of the pod's, that share them.
func (q *Inquest) left(c *caseFile) *death.Container {
	if c.stray == nil {
		return nil
	}
	of := c.stray.of
	if t := q.tenants.of(of); t != nil && t.sandbox {
		pod := joinPods(of.Pod, t.Pod, false)
		if pod == nil {
			return nil
		}
		return &death.Container{Pod: pod}
	}
	return of
}

// strayEvidence says whose it was, as engines name it by now.
func (q *Inquest) strayEvidence(c *caseFile) []death.Evidence {
	x, of := c.stray, q.left(c)
	if of == nil || x.pid == 0 {
		return nil
	}
	name := of.ID
	if d := q.tenants.dress(of); d.Name != "" {
		name = d.Name
	} else if of.ID == "" {
		name = "of pod " + of.Pod.UID
	}
	return []death.Evidence{{Time: x.at.UTC(), Source: x.from, Text: fmt.Sprintf(
		"pid %d (%s) was a process of container %s, by its pid namespace; it lived outside the container's cgroup, in %s, where the container's limits do not hold",
		x.pid, death.Printable(x.comm), death.Printable(name), death.Printable(c.taskMemcg))}}
}

// strayFacts tells the rules of those that live outside.
func (q *Inquest) strayFacts(c *caseFile, f *verdict.Facts) {
	f.Stray = c.container == nil && q.left(c) != nil
	if c.escaped != nil {
		f.Escaped = c.escaped.Count
	}
}
