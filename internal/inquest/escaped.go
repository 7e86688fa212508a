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

// strayOf finds the container of a process that the OOM killer took outside of
// all containers: by who is known to have left one, else it asks whose pid
// namespace it lived in.
func (q *Inquest) strayOf(c *caseFile) {
	if c.strayAsked || !c.oomKilled || c.taskMemcg == "" || c.prior != nil {
		return
	}
	for _, p := range c.procs {
		if p.pidns == 0 || p.pidns == signal.InitialPIDNS || p.Fate != death.FateVictim {
			continue
		}
		c.strayAsked = true
		if e := q.leftBy(p, c.taskMemcg); e != nil {
			q.isStray(c, p, e.Path, signal.Signal{Time: e.at, Observed: e.at, Source: e.from})
			return
		}
		if c.container == nil && len(q.wants) < maxWants {
			q.wants = append(q.wants, Want{Kind: WantNamespace, PIDNS: p.pidns, At: c.at})
		}
		return
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

// pidNamespace takes the answer to WantNamespace.
func (q *Inquest) pidNamespace(s signal.Signal, b signal.PIDNamespace) {
	if b.Cgroup.Path == "" || b.PIDNS == 0 {
		return
	}
	for _, c := range q.cases {
		if !c.strayAsked || c.stray != nil || c.container != nil || cgpath.Within(b.Cgroup.Path, c.taskMemcg) {
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

// isStray notes that p, of c, was a process of the container whose cgroup this is.
func (q *Inquest) isStray(c *caseFile, p *process, cgroup string, s signal.Signal) {
	of, _, _, _ := q.owner(cgroup)
	if of == nil || of.Cgroup != cgroup {
		return
	}
	if t := q.tenants.of(of); t != nil && t.sandbox {
		of = &death.Container{Pod: of.Pod} // one of the pod's, that share a namespace
	}
	c.stray = of
	name := of.ID
	if d := q.tenants.dress(of); d.Name != "" {
		name = d.Name
	} else if of.ID == "" {
		name = "of pod " + of.Pod.UID
	}
	c.note(s, "pid %d (%s) was a process of container %s, by its pid namespace; it lived outside the container's cgroup, in %s, where the container's limits do not hold",
		p.PID, death.Printable(p.Comm), death.Printable(name), death.Printable(c.taskMemcg))
	q.touchNames(c)
}

// strayFacts tells the rules of those that live outside.
func (c *caseFile) strayFacts(f *verdict.Facts) {
	f.Stray = c.container == nil && c.stray != nil
	if c.escaped != nil {
		f.Escaped = c.escaped.Count
	}
}
