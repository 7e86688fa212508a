// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"slices"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// kernelKills remembers SIGKILLs that the kernel sent and what mark_victim
// said without one: each waits a moment for the other.
type kernelKills struct {
	sent    map[int]pendingKill
	marked  map[int]pendingMark
	invoked map[int]pendingInvocation
	sentTo  map[int][]sentSignal
}

type pendingInvocation struct {
	s  signal.Signal
	b  signal.OOMInvocation
	at time.Time
}

type pendingMark struct {
	s  signal.Signal
	b  signal.MarkVictim
	at time.Time
}

// maxPending bounds each map of kernelKills: a loop of kills that nothing
// explains cannot fill memory.
const maxPending = 8192

func newKernelKills() kernelKills {
	return kernelKills{sent: map[int]pendingKill{}, marked: map[int]pendingMark{}, invoked: map[int]pendingInvocation{}, sentTo: map[int][]sentSignal{}}
}

func (k *kernelKills) expire(now time.Time) {
	for pid, p := range k.sent {
		if now.Sub(p.at) > oneBreath {
			delete(k.sent, pid)
		}
	}
	for pid, p := range k.marked {
		if now.Sub(p.at) > 2*oneBreath {
			delete(k.marked, pid)
		}
	}
	for pid, known := range k.sentTo {
		if now.Sub(known[len(known)-1].s.Observed) > sentFor {
			delete(k.sentTo, pid)
		}
	}
	for pid, p := range k.invoked {
		if now.Sub(p.at) > oneBreath {
			delete(k.invoked, pid)
		}
	}
}

// markVictim takes oom:mark_victim. The kernel sends SIGKILL just before it;
// a task marked without one was dying already, which is no kill.
func (q *Inquest) markVictim(s signal.Signal, b signal.MarkVictim) {
	ids := [2]int{b.Victim.PID, b.Victim.TID}
	pid := or(b.Victim.PID, b.Victim.TID)
	_, killed := q.kernel.sent[pid]
	if p := q.dead.find(ids[:]...); p != nil && !p.marked && q.near(p, s) && (killed || p.Fate.ByOOMKiller() || p.chosenIn(b.Trigger)) {
		if p.Fate.ByOOMKiller() {
			q.tellMarked(p, s, b)
			return
		}
		if p.owner != nil {
			q.takeBack(p) // it was no bystander: the OOM killer chose it
		}
		q.marked(s, b)
		return
	}
	if !killed {
		if p := q.dead.find(pid); p != nil && p.marked && q.near(p, s) {
			return // another thread of it
		}
		if len(q.kernel.marked) < maxPending {
			q.kernel.marked[pid] = pendingMark{s, b, q.now}
		}
		q.stats.AlreadyDying++
		return
	}
	delete(q.kernel.sent, pid)
	q.marked(s, b)
}

// takeBack removes from a case a process that was put there by mistake.
func (q *Inquest) takeBack(p *process) {
	c := p.owner
	c.procs = slices.DeleteFunc(c.procs, func(o *process) bool { return o == p })
	p.owner = nil
	q.touch(c)
}

// marked makes a death of a victim that was truly killed.
func (q *Inquest) marked(s signal.Signal, b signal.MarkVictim) {
	chain := q.fillChain(b.Chain, b.Victim.Cgroup)
	p := &process{
		Process: death.Process{PID: b.Victim.PID, Comm: b.Victim.Comm, UID: b.Victim.UID, Init: b.Victim.Init, Fate: death.FateVictim},
		tid:     b.Victim.TID, mm: b.Victim.MM, pidns: b.Victim.PIDNS, at: s.Time, marked: true, killSeen: true,
	}
	p.figures(b.Figures)
	path := q.roster.path(b.Victim.Cgroup)
	c := q.caseForMarked(s, b, p, path, chain)
	if len(c.chain) == 0 && len(chain) > 0 {
		c.chain, c.chainAtKill = chain, len(b.Chain) > 0
	}
	q.mergeTrigger(c, &death.Trigger{PID: or(b.Trigger.TID, b.Trigger.PID), Comm: b.Trigger.Comm, Cgroup: q.roster.path(b.Trigger.Cgroup)})
	q.add(c, p)
	q.learnInit(c, p)
	for _, id := range [2]int{b.Victim.PID, b.Victim.TID} {
		if in, ok := q.kernel.invoked[id]; ok && id != 0 {
			delete(q.kernel.invoked, id)
			q.named(c, in.s, in.b)
		}
	}
	q.noteMarked(c, s, b)
	q.ledger.explain(q.resolve(b.Victim.Cgroup), s)
	q.touch(c)
}

// tellMarked adds what mark_victim says to a process already known.
func (q *Inquest) tellMarked(p *process, s signal.Signal, b signal.MarkVictim) {
	c := p.owner
	if id := or(b.Victim.PID, b.Victim.TID); q.kernel.sent[id].at.After(time.Time{}) {
		delete(q.kernel.sent, id)
		p.killSeen = true
	}
	p.marked = true
	if c == nil {
		q.stats.Late++
		return
	}
	if path := q.roster.path(b.Victim.Cgroup); p.nameless && path != c.taskMemcg {
		// A counter stands for c, and it is of somebody else.
		if path != "" {
			q.takeBack(p)
			c.anonymous(1, q.now)
			q.marked(s, b)
		}
		return
	}
	p.nameless = false
	if path := q.roster.path(b.Victim.Cgroup); path != "" && c.taskMemcg != "" && !c.sameOwner(path) && len(c.procs) > 1 {
		// The log named no cgroup and put it with its group; it lived elsewhere.
		q.takeBack(p)
		q.ledger.unexplain(c.taskMemcg, s)
		q.marked(s, b)
		if np := q.dead.find(b.Victim.PID, b.Victim.TID); np != nil {
			np.reported = np.reported || p.reported
			fill(&np.TotalVMBytes, p.TotalVMBytes)
			fill(&np.AnonRSSBytes, p.AnonRSSBytes)
			fill(&np.FileRSSBytes, p.FileRSSBytes)
			fill(&np.ShmemRSSBytes, p.ShmemRSSBytes)
			fill(&np.PgtablesBytes, p.PgtablesBytes)
			fill(&np.OOMScoreAdj, p.OOMScoreAdj)
		}
		return
	}
	p.merge(b.Victim, b.Figures, true)
	p.unplaced = false
	q.dead.put(p)
	wasPlaced := c.taskMemcg != ""
	q.place(c, b.Victim.Cgroup)
	if len(b.Chain) > 0 && !c.chainAtKill {
		c.chain, c.chainAtKill = q.fillChain(b.Chain, b.Victim.Cgroup), true
	}
	c.triggerTID = or(b.Trigger.TID, b.Trigger.PID)
	q.mergeTrigger(c, &death.Trigger{PID: c.triggerTID, Comm: b.Trigger.Comm, Cgroup: q.roster.path(b.Trigger.Cgroup)})
	q.learnInit(c, p)
	q.noteMarked(c, s, b)
	if !wasPlaced {
		q.ledger.explainAt(q.home(c), s)
	}
	q.touch(c)
}

func (q *Inquest) noteMarked(c *caseFile, s signal.Signal, b signal.MarkVictim) {
	by := ""
	if b.Trigger.Comm != "" && b.Trigger.PID != b.Victim.PID {
		by = " while " + death.Printable(b.Trigger.Comm) + " (pid " + itoa(b.Trigger.PID) + ") asked for memory"
	}
	c.note(s, "oom:mark_victim: the OOM killer took pid %d (%s)%s", or(b.Victim.PID, b.Victim.TID), death.Printable(b.Victim.Comm), by)
}

// invoked takes oom_kill_process: whose limit it is, before the kill.
func (q *Inquest) invoked(s signal.Signal, b signal.OOMInvocation) {
	if p := q.dead.find(b.Chosen.PID, b.Chosen.TID); p != nil && q.near(p, s) {
		if p.owner != nil {
			q.named(p.owner, s, b)
			q.touch(p.owner)
		}
		return
	}
	if len(q.kernel.invoked) < maxPending {
		q.kernel.invoked[or(b.Chosen.PID, b.Chosen.TID)] = pendingInvocation{s, b, q.now}
	}
}

// named takes over the limit and the constraint that the kernel itself named.
func (q *Inquest) named(c *caseFile, s signal.Signal, b signal.OOMInvocation) {
	c.named = true
	if c.oom.Constraint == "" {
		c.oom.Constraint = b.Constraint
	}
	if c.oom.OOMMemcg == "" {
		c.oom.OOMMemcg = q.roster.path(b.OOMMemcg)
	}
	switch at := q.roster.path(b.OOMMemcg); {
	case at != "":
		c.note(s, "oom_kill_process: %s, at the limit of %s", b.Constraint, death.Printable(at))
	case b.OOMMemcg.ID != 0:
		c.named = false // a limit, but nobody knows the cgroup's name
		c.saidMemcg = true
	default:
		c.note(s, "oom_kill_process: %s, no cgroup's limit", b.Constraint)
	}
}
