// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
	"github.com/coroner-dev/coroner/internal/signal"
)

type pendingKill struct {
	signal.Kill
	at time.Time // arrival
}

// kill takes a signal.
func (q *Inquest) kill(s signal.Signal, b signal.Kill) {
	if b.Signal != sigkill {
		q.sent(s, b)
		return
	}
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
	if daemon := q.oomDaemon(b.Sender); daemon != "" && !own && b.Result == 0 {
		q.killedByDaemon(s, b, daemon)
		return
	}
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
	if p := q.dead.find(pid); p != nil && q.near(p, s) && q.knownKill(p, b) {
		return
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
		p.killedIn(b.Sender)
		if path := q.roster.path(b.Target.Cgroup); path != c.taskMemcg {
			p.Cgroup = path
			if c.container != nil && path != "" && !cgpath.Within(c.container.Cgroup, path) {
				why += "; it lived outside the container's cgroup, in " + death.Printable(path) + ", where the container's limits do not hold"
			}
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

// knownKill tells whether a kernel's SIGKILL says nothing new of p.
func (q *Inquest) knownKill(p *process, b signal.Kill) bool {
	if !p.marked && !p.reported {
		// A bystander of several threads is told several times.
		p.killedIn(b.Sender)
		return p.owner != nil && !p.Fate.ByOOMKiller()
	}
	if b.Result != 0 {
		if c := p.owner; c != nil && c.triggerTID == or(b.Sender.TID, b.Sender.PID) && q.killsGroup(c) && !q.leaving(b.Sender) {
			// A group's first victim, killed again. The log names it again
			// too, by whichever thread is left.
			q.ledger.double(p, c.taskMemcg)
			q.dead.alias(p, b.Target.TID)
		}
		return true
	}
	if !p.killSeen {
		p.killSeen = true
		return true
	}
	return false // delivered once more: the pid has come back as another process
}

// killsGroup tells whether the OOM killer may have killed a whole group at c's.
// Only it kills twice: the first victim, which it finds again in the group.
func (q *Inquest) killsGroup(c *caseFile) bool {
	if c.group || groupLevel(c.chain) != "" {
		return true
	}
	return len(c.chain) == 0 && !q.ledger.flat // nobody read the flag
}

// leaving tells whether the sender has left, as its exit was told before: then
// it kills what is left of its pid namespace, its own threads too, which the
// kernel counts as nothing (kernel/pid_namespace.c, zap_pid_ns_processes). The
// OOM killer's caller is still there.
func (q *Inquest) leaving(sender signal.Task) bool {
	p := q.dead.find(sender.PID)
	return p != nil && p.left
}

// byTheWay finds the death that explains a kernel's SIGKILL without
// mark_victim.
func (q *Inquest) byTheWay(b signal.Kill) (*caseFile, death.Fate, string) {
	if p := q.dead.find(b.Sender.PID); p != nil && p.owner != nil && p.endedNamespaceOf(b.Target) {
		return p.owner, death.FateCollateral, "its pid namespace ended with the first process"
	}
	if b.Target.MM == 0 {
		return nil, "", ""
	}
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		if !c.oomKilled || q.now.Sub(c.touched) > oneBreath {
			continue
		}
		if c.triggerTID != 0 && c.triggerTID != or(b.Sender.TID, b.Sender.PID) {
			continue // the same task kills the victim and all that share its memory
		}
		for _, p := range c.procs {
			if p.mm == b.Target.MM && p.PID != b.Target.PID {
				return c, death.FateSharer, "it shared the memory of pid " + itoa(p.PID)
			}
		}
	}
	return nil, "", ""
}

// endedNamespaceOf tells whether p was the first process of t's pid namespace.
func (p *process) endedNamespaceOf(t signal.Task) bool {
	return p.pidns != 0 && p.pidns == t.PIDNS && p.Init != nil && *p.Init && p.PID != t.PID
}

// bystanderKill takes a SIGKILL that makes no death: evidence, if its target is
// of one. What else is killed in that container has nothing to do with it.
func (q *Inquest) bystanderKill(s signal.Signal, b signal.Kill) {
	path := q.roster.path(b.Target.Cgroup)
	if path == "" || b.Result != 0 {
		return
	}
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		if c.container == nil || q.now.Sub(c.touched) > oneBreath || !c.sameOwner(path) || !q.isOf(c, b.Target) || q.outlived(c, s) {
			continue
		}
		c.note(s, "%s (pid %d) sent SIGKILL to %s (pid %d)", death.Printable(b.Sender.Comm), b.Sender.PID,
			death.Printable(b.Target.Comm), b.Target.PID)
		q.touch(c)
		return
	}
}

// isOf tells whether t is among the dead of c, or its container's first process.
func (q *Inquest) isOf(c *caseFile, t signal.Task) bool {
	pid := or(t.PID, t.TID)
	if c.took(pid) || c.initPID() == pid {
		return true
	}
	e := q.roster.byPath[c.container.Cgroup]
	return e != nil && e.initPID == pid
}

// killed makes a death of a SIGKILL to a container's first process.
func (q *Inquest) killed(s signal.Signal, b signal.Kill, pid int) {
	if path := q.roster.path(b.Target.Cgroup); path != "" {
		// Somebody's own pid namespace, or a pod's, which runtimes end like that.
		if c, _, _, _ := q.owner(path); c == nil || q.isSandbox(c, b.Target.Comm) {
			q.holdsFirst(s, b.Target)
			return
		}
	}
	c := q.endToldBy(s, b.Target)
	if c == nil {
		if q.killWasTold(s, b.Target) {
			return
		}
		c = q.open(s, pidKey(b.Target))
		q.place(c, b.Target.Cgroup)
	}
	c.killer = q.killerOf(b)
	c.killerRuntime = q.isRuntime(c.killer, b.Sender)
	q.takeSent(c, pid)
	c.ended = true
	q.add(c, &process{
		Process: death.Process{PID: b.Target.PID, Comm: b.Target.Comm, UID: b.Target.UID, Init: b.Target.Init, Fate: death.FateSignalled},
		tid:     b.Target.TID, mm: b.Target.MM, pidns: b.Target.PIDNS, at: s.Time,
	})
	c.note(s, "signal:signal_generate: %s (pid %d) sent SIGKILL to pid %d (%s), si_code %d: a process, not the OOM killer",
		death.Printable(b.Sender.Comm), b.Sender.PID, pid, death.Printable(b.Target.Comm), b.Code)
	q.touch(c)
}

// killWasTold tells whether the SIGKILL that s tells of is late for an end whose
// case was let go. The one that ends the next run comes after that end.
func (q *Inquest) killWasTold(s signal.Signal, t signal.Task) bool {
	of, _, _, _ := q.owner(q.roster.path(t.Cgroup))
	its := q.tenants.of(of)
	if its == nil || s.Observed.Sub(s.Time) < oneBreath { // of now, whatever the clock was at that end
		return false
	}
	for _, e := range its.ends {
		if !s.Time.After(e.at.Add(afterEnd)) && q.matches(e, s, signal.ContainerExit{PID: t.PID}) != anotherEnd {
			q.stats.Late++
			return true
		}
	}
	return false
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
