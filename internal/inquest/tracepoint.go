// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"slices"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
	"github.com/coroner-dev/coroner/internal/signal"
)

// samePID is how far apart two sources may place the death of one pid before
// the pid is taken for a reused one.
const samePID = time.Minute

// oneBreath is how close kills in one container lie that belong to its end,
// or to one group kill.
const oneBreath = 2 * time.Second

// kernelKills remembers SIGKILLs that the kernel sent and what mark_victim
// said without one: each waits a moment for the other.
type kernelKills struct {
	sent    map[int]pendingKill
	marked  map[int]pendingMark
	invoked map[int]pendingInvocation
}

type pendingInvocation struct {
	s  signal.Signal
	b  signal.OOMInvocation
	at time.Time
}

type pendingKill struct {
	signal.Kill
	at time.Time // arrival
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
	return kernelKills{sent: map[int]pendingKill{}, marked: map[int]pendingMark{}, invoked: map[int]pendingInvocation{}}
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
	if p := q.dead.find(ids[:]...); p != nil && !p.marked && q.near(p, s) {
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
	pid := b.Victim.PID
	if pid == 0 {
		pid = b.Victim.TID
	}
	if _, killed := q.kernel.sent[pid]; !killed {
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
	q.ledger.explain(path, s)
	q.touch(c)
}

// caseForMarked finds the case that the victim belongs to, or opens one.
func (q *Inquest) caseForMarked(s signal.Signal, b signal.MarkVictim, p *process, path string, chain []signal.Level) *caseFile {
	group := groupLevel(chain)
	inv := q.sameInvocation(b, group, chain)
	for _, c := range inv.members() {
		if c.sameOwner(path) {
			p.Fate = death.FateGroup
			c.group = true
			return c
		}
	}
	if c := q.sameEnd(path, p.Init); c != nil {
		c.oomKilled = true
		return c
	}
	if c := q.ledger.claim(path); c != nil {
		c.countedOnly = false
		c.procs = nil
		c.oom.Events = 1
		return c
	}
	c := q.open(s, "pid "+itoa(or(b.Victim.PID, b.Victim.TID)))
	c.oomKilled = true
	c.oom.Events = 1
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

// sameInvocation finds the run of the OOM killer, still in one breath, whose
// group this victim belongs to.
func (q *Inquest) sameInvocation(b signal.MarkVictim, group string, chain []signal.Level) *invocation {
	trigger := or(b.Trigger.TID, b.Trigger.PID)
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		if q.now.Sub(c.observed) > oneBreath {
			break
		}
		if c.triggerTID == 0 || c.triggerTID != trigger || !c.oomKilled || c.took(b.Victim.PID) {
			continue
		}
		grouped := group != "" && c.groupCgroup == group
		// Without any word on memory.oom.group (v2), the kills of one trigger
		// in one cgroup within an instant are taken for one invocation.
		blind := q.mode[death.SourceCgroup] != "v1" && len(chain) == 0 && len(c.chain) == 0 && !c.named && q.now.Sub(c.observed) < 20*time.Millisecond &&
			c.sameOwner(q.roster.path(b.Victim.Cgroup))
		if grouped || blind {
			if c.invocation == nil {
				c.invocation = &invocation{cases: []*caseFile{c}}
			}
			return c.invocation
		}
	}
	return nil
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
func (q *Inquest) sameEnd(path string, init *bool) *caseFile {
	if path == "" {
		return nil
	}
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		if q.now.Sub(c.touched) > oneBreath {
			continue
		}
		if c.container == nil || !c.oomKilled || c.countedOnly || !c.sameOwner(path) {
			continue
		}
		if c.ended || (init != nil && *init) {
			return c
		}
	}
	return nil
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
	p.merge(b.Victim, b.Figures)
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
		q.ledger.explain(c.taskMemcg, s)
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

// kill takes a SIGKILL.
func (q *Inquest) kill(s signal.Signal, b signal.Kill) {
	pid := or(b.Target.PID, b.Target.TID)
	if b.Code == signal.CodeKernel {
		q.kernelKill(s, b, pid)
		return
	}
	known := q.dead.find(pid)
	if known != nil && known.owner != nil && q.near(known, s) {
		known.owner.note(s, "then %s (pid %d) sent SIGKILL too", death.Printable(b.Sender.Comm), b.Sender.PID)
		q.touch(known.owner)
		return
	}
	own := b.Sender.PID == b.Target.PID
	if first := b.Target.Init != nil && *b.Target.Init; !first || own || b.Result != 0 {
		q.bystanderKill(s, b)
		return
	}
	q.killed(s, b, pid)
}

// kernelKill takes a SIGKILL of the kernel's own: the OOM killer's (then
// mark_victim follows), one for a process that shares the victim's memory, or
// the end of a pid namespace whose first process died.
func (q *Inquest) kernelKill(s signal.Signal, b signal.Kill, pid int) {
	if p := q.dead.find(pid); p != nil && q.near(p, s) && (p.marked || p.reported) {
		switch c := p.owner; {
		case b.Result != 0:
			if c != nil && c.triggerTID == or(b.Sender.TID, b.Sender.PID) {
				q.ledger.double(p, c.taskMemcg) // a group's first victim, killed again
			}
			return
		case !p.killSeen:
			p.killSeen = true
			return
		}
		// Delivered once more: the pid has come back as another process.
	}
	if m, ok := q.kernel.marked[pid]; ok {
		delete(q.kernel.marked, pid)
		q.stats.AlreadyDying--
		q.marked(m.s, m.b)
		return
	}
	if c, fate, why := q.byTheWay(b); c != nil {
		p := &process{
			Process: death.Process{PID: b.Target.PID, Comm: b.Target.Comm, UID: b.Target.UID, Init: b.Target.Init, Fate: fate},
			tid:     b.Target.TID, mm: b.Target.MM, pidns: b.Target.PIDNS, at: s.Time,
		}
		if path := q.roster.path(b.Target.Cgroup); path != c.taskMemcg {
			p.Cgroup = path
		}
		q.add(c, p)
		c.note(s, "the kernel killed pid %d (%s) too: %s", pid, death.Printable(b.Target.Comm), why)
		q.touch(c)
		return
	}
	if len(q.kernel.sent) < maxPending {
		q.kernel.sent[pid] = pendingKill{b, q.now}
	}
}

// byTheWay finds the death that explains a kernel's SIGKILL without
// mark_victim.
func (q *Inquest) byTheWay(b signal.Kill) (*caseFile, death.Fate, string) {
	if p := q.dead.find(b.Sender.PID); p != nil && p.owner != nil && p.pidns != 0 &&
		p.pidns == b.Target.PIDNS && p.Init != nil && *p.Init && p.PID != b.Target.PID {
		return p.owner, death.FateCollateral, "its pid namespace ended with the first process"
	}
	if b.Target.MM == 0 {
		return nil, "", ""
	}
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		if q.now.Sub(c.touched) > oneBreath || (c.triggerTID != 0 && c.triggerTID != or(b.Sender.TID, b.Sender.PID)) {
			continue // the same task kills the victim and all that share its memory
		}
		for _, p := range c.procs {
			if c.oomKilled && p.mm == b.Target.MM && p.PID != b.Target.PID {
				return c, death.FateSharer, "it shared the memory of pid " + itoa(p.PID)
			}
		}
	}
	return nil, "", ""
}

// bystanderKill takes a SIGKILL that makes no death: evidence, if anything
// died where its target lived.
func (q *Inquest) bystanderKill(s signal.Signal, b signal.Kill) {
	path := q.roster.path(b.Target.Cgroup)
	if path == "" || b.Result != 0 {
		return
	}
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		if c.container == nil || q.now.Sub(c.touched) > oneBreath || !c.sameOwner(path) {
			continue
		}
		c.note(s, "%s (pid %d) sent SIGKILL to %s (pid %d)", death.Printable(b.Sender.Comm), b.Sender.PID,
			death.Printable(b.Target.Comm), b.Target.PID)
		q.touch(c)
		return
	}
}

// killed makes a death of a SIGKILL to a container's first process.
func (q *Inquest) killed(s signal.Signal, b signal.Kill, pid int) {
	c := q.open(s, "pid "+itoa(pid))
	q.place(c, b.Target.Cgroup)
	from := q.roster.path(b.Sender.Cgroup)
	k := &death.Killer{PID: b.Sender.PID, Comm: b.Sender.Comm, UID: b.Sender.UID, Cgroup: from, Signal: b.Signal}
	k.Container, k.Unit, _ = owner(from)
	c.killer = k
	c.killerRuntime = k.Container == nil && runtimeComm(k.Comm)
	c.ended = true
	q.add(c, &process{
		Process: death.Process{PID: b.Target.PID, Comm: b.Target.Comm, UID: b.Target.UID, Init: b.Target.Init, Fate: death.FateSignalled},
		tid:     b.Target.TID, mm: b.Target.MM, pidns: b.Target.PIDNS, at: s.Time,
	})
	c.note(s, "signal:signal_generate: %s (pid %d) sent SIGKILL to pid %d (%s), si_code %d: a process, not the OOM killer",
		death.Printable(b.Sender.Comm), b.Sender.PID, pid, death.Printable(b.Target.Comm), b.Code)
	q.touch(c)
}

// runtimeComm tells whether comm is that of a program that kills containers
// for others. A name can be forged, so it decides no cause.
func runtimeComm(comm string) bool {
	switch comm {
	case "runc", "crun", "youki", "runsc", "containerd-shim", "containerd", "dockerd", "conmon", "crio", "podman":
		return true
	}
	return false
}

// exit takes the end of a process: how a container's first process ended
// after an OOM kill in it, or that a victim is gone.
func (q *Inquest) exit(s signal.Signal, b signal.Exit) {
	first := b.Task.Init != nil && *b.Task.Init
	c := q.caseOfExit(b, first)
	if c == nil || c.exit != nil || (!first && c.container != nil) {
		return
	}
	c.exit = &death.Exit{Code: b.Code, Signal: b.Signal}
	if first && c.container != nil {
		c.ended = true
		switch {
		case b.Signal != nil:
			c.note(s, "sched:sched_process_exit: the container's first process, pid %d, ended by signal %d", b.Task.PID, *b.Signal)
		case b.Code != nil:
			c.note(s, "sched:sched_process_exit: the container's first process, pid %d, left with exit code %d", b.Task.PID, *b.Code)
		}
	}
	q.touch(c)
}

func (q *Inquest) caseOfExit(b signal.Exit, first bool) *caseFile {
	if p := q.dead.find(b.Task.PID); p != nil && p.owner != nil && p.exited(b) {
		if c := p.owner; c.container == nil || first || !c.initKnown() {
			return c
		}
	}
	if !first {
		return nil
	}
	path := q.roster.path(b.Task.Cgroup)
	for i := len(q.cases) - 1; i >= 0 && path != ""; i-- {
		c := q.cases[i]
		if c.container != nil && q.now.Sub(c.touched) <= oneBreath && cgpath.Within(c.container.Cgroup, path) {
			return c
		}
	}
	return nil
}

func (p *process) exited(b signal.Exit) bool {
	return b.Task.Comm == "" || p.Comm == "" || b.Task.Comm == p.Comm || p.PID == b.Task.PID
}

// near tells whether s speaks of the time at which p was killed: pids come back.
func (q *Inquest) near(p *process, s signal.Signal) bool {
	if s.Recovered && p.restored {
		return true
	}
	d := s.Time.Sub(p.at).Abs()
	if p.at.IsZero() || s.Time.IsZero() {
		d = s.Observed.Sub(p.seen).Abs()
	}
	return d < samePID || (!s.Recovered && s.Observed.Sub(p.seen).Abs() < q.opts.Settle)
}

// figures takes the kernel's sizes over.
func (p *process) figures(f signal.Figures) {
	fill(&p.TotalVMBytes, f.TotalVMBytes)
	fill(&p.AnonRSSBytes, f.AnonRSSBytes)
	fill(&p.FileRSSBytes, f.FileRSSBytes)
	fill(&p.ShmemRSSBytes, f.ShmemRSSBytes)
	fill(&p.PgtablesBytes, f.PgtablesBytes)
	fill(&p.OOMScoreAdj, f.OOMScoreAdj)
}

// merge adds what another source knows of the process.
func (p *process) merge(t signal.Task, f signal.Figures) {
	if t.PID != 0 {
		if p.PID != 0 && p.PID != t.PID && p.tid == 0 {
			p.tid = p.PID // the log printed a thread's id
		}
		p.PID = t.PID
	}
	p.tid = or(p.tid, t.TID)
	if p.Comm == "" {
		p.Comm = t.Comm
	}
	fill(&p.UID, t.UID)
	fill(&p.Init, t.Init)
	if p.mm == 0 {
		p.mm = t.MM
	}
	if p.pidns == 0 {
		p.pidns = t.PIDNS
	}
	p.figures(f)
}

func fill[T any](dst **T, v *T) {
	if *dst == nil {
		*dst = v
	}
}

func or(a, b int) int {
	if a != 0 {
		return a
	}
	return b
}
