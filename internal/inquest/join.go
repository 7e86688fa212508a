// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// samePID is how far apart two sources may place the death of one pid before
// the pid is taken for a reused one.
const samePID = time.Minute

// sameRestored is the same for a log read again after a restart.
const sameRestored = 10 * time.Minute

// oneBreath is how close kills in one container lie that belong to its end,
// or to one group kill.
const oneBreath = 2 * time.Second

// caseForMarked finds the case that the victim belongs to, or opens one.
func (q *Inquest) caseForMarked(s signal.Signal, b signal.MarkVictim, p *process, path string, chain []signal.Level) *caseFile {
	group := groupLevel(chain)
	inv := q.sameInvocation(s, b, group, chain)
	for _, c := range inv.members() {
		if c.sameOwner(path) {
			p.Fate = death.FateGroup
			c.group = true
			return c
		}
	}
	if c := q.sameEnd(s, b.Victim.Cgroup.ID, path, p); c != nil {
		c.oomKilled = true
		return c
	}
	if c := q.claim(signal.Cgroup{ID: b.Victim.Cgroup.ID, Path: path}, s); c != nil {
		return c
	}
	c := q.endAwaiting(s, path, b.Victim.PID)
	if c != nil {
		q.explainedByOOM(c, s)
	} else {
		c = q.open(s, pidKey(b.Victim))
		c.oomKilled = true
		c.oom.Events = 1
	}
	c.triggerTID = or(b.Trigger.TID, b.Trigger.PID)
	q.place(c, b.Victim.Cgroup)
	if group != "" {
		c.groupCgroup = group
		if inv != nil {
			p.Fate, c.group = death.FateGroup, true
			inv.join(c)
		}
	}
	return c
}

// sameInvocation finds the run of the OOM killer whose group this victim belongs
// to.
func (q *Inquest) sameInvocation(s signal.Signal, b signal.MarkVictim, group string, chain []signal.Level) *invocation {
	trigger := or(b.Trigger.TID, b.Trigger.PID)
	path := q.roster.path(b.Victim.Cgroup)
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		if q.now.Sub(c.observed) > samePID {
			break
		}
		if c.triggerTID == 0 || c.triggerTID != trigger || !c.oomKilled || c.took(b.Victim.PID) || !q.oneRun(c, s, b) {
			continue
		}
		grouped := group != "" && c.groupCgroup == group
		if grouped || (len(chain) == 0 && q.blindGroup(c, path)) {
			if c.invocation == nil {
				c.invocation = &invocation{cases: []*caseFile{c}}
			}
			return c.invocation
		}
	}
	return nil
}

// oneRun tells whether the run of the OOM killer that made c may still go on. Who
// was killed by it begins no other; the kernel writes of each kill to the console,
// which can take long.
func (q *Inquest) oneRun(c *caseFile, s signal.Signal, b signal.MarkVictim) bool {
	apart := min(q.now.Sub(c.observed), s.Time.Sub(c.lastAt).Abs())
	return apart <= oneBreath || c.took(b.Trigger.PID)
}

// blindGroup: without any word on memory.oom.group (v2), the kills of one
// trigger in one cgroup within an instant are taken for one invocation.
func (q *Inquest) blindGroup(c *caseFile, path string) bool {
	return q.mode[death.SourceCgroup] != "v1" && len(c.chain) == 0 && !c.named &&
		q.now.Sub(c.observed) < 20*time.Millisecond && c.sameOwner(path)
}

// invocation is one run of the OOM killer that took several containers.
type invocation struct {
	cases []*caseFile
}

func (v *invocation) members() []*caseFile {
	if v == nil {
		return nil
	}
	return v.cases
}

func (v *invocation) join(c *caseFile) {
	v.cases = append(v.cases, c)
	c.invocation = v
	for _, m := range v.cases {
		m.group = true
	}
}

// sameEnd finds the case of the end of the container at path: the kills of
// one breath around the death of its first process are one death.
func (q *Inquest) sameEnd(s signal.Signal, id uint64, path string, p *process) *caseFile {
	if path == "" {
		return nil
	}
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		if !q.inOneBreath(c, s) {
			continue
		}
		if c.container == nil || !c.oomKilled || c.countedOnly || !c.sameOwner(path) || c.over(s, id, path, p) {
			continue
		}
		if c.prior != nil && s.Time.Sub(c.lastAt).Abs() > afterEnd {
			continue // it may have been started again meanwhile
		}
		if c.ended || (p.Init != nil && *p.Init) {
			return c
		}
	}
	return nil
}

// afterEnd is how late a kill may still be told after the container's end.
const afterEnd = 100 * time.Millisecond

// over tells whether p, killed in the cgroup id, cannot be of the end that c
// tells, but is of the container's next life: engines start a container again
// under its old name.
func (c *caseFile) over(s signal.Signal, id uint64, path string, p *process) bool {
	if id != 0 && c.cgroupID != 0 && id != c.cgroupID && path == c.taskMemcg {
		return true
	}
	if !c.endedAt.IsZero() && s.Time.Sub(c.endedAt) > afterEnd {
		return true
	}
	if p.Init == nil || !*p.Init {
		return false
	}
	for _, o := range c.procs {
		if o.Init != nil && *o.Init && o.PID != p.PID {
			return true // a container has one first process
		}
	}
	return false
}

// inOneBreath tells whether s follows closely on what c holds. What is read
// from a log after the fact arrives all at once: there the kernel's times count.
func (q *Inquest) inOneBreath(c *caseFile, s signal.Signal) bool {
	if s.Recovered || c.recovered {
		return s.Time.Sub(c.lastAt).Abs() <= oneBreath
	}
	return q.now.Sub(c.touched) <= oneBreath
}

// groupLevel is the outermost cgroup of the chain with memory.oom.group: the
// kernel kills all of it (mm/memcontrol.c, mem_cgroup_get_oom_group).
func groupLevel(chain []signal.Level) string {
	group := ""
	for _, l := range chain {
		if l.OOMGroup {
			group = l.Path
		}
	}
	return group
}

// fillChain names the levels of a chain whose first is the cgroup at; where
// the source could not read one, the roster's is taken.
func (q *Inquest) fillChain(chain []signal.Level, at signal.Cgroup) []signal.Level {
	path := q.roster.path(at)
	if len(chain) == 0 {
		return q.roster.chain(path)
	}
	out := append([]signal.Level(nil), chain...)
	for i := range out {
		if out[i].Path == "" {
			out[i].Path = path
		}
		path = parent(path)
	}
	return out
}

// near tells whether s speaks of the time at which p was killed: pids come back.
func (q *Inquest) near(p *process, s signal.Signal) bool {
	if s.Recovered && p.restored {
		// The stamps of the log drift from the clock that placed p.
		return s.Time.Sub(p.at).Abs() < sameRestored
	}
	d := s.Time.Sub(p.at).Abs()
	if p.at.IsZero() || s.Time.IsZero() {
		d = s.Observed.Sub(p.seen).Abs()
	}
	return d < samePID || (!s.Recovered && s.Observed.Sub(p.seen).Abs() < q.opts.Settle)
}
