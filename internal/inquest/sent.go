// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest/verdict"
	"github.com/coroner-dev/coroner/internal/signal"
)

const (
	// sentFor is how long a signal to a container's first process is known that
	// has not ended yet: longer than most grace periods.
	sentFor = 2 * time.Minute
	// maxSent bounds the signals known of one process, the newest of them.
	maxSent = 4
)

// sentSignal is a signal other than SIGKILL that reached a container's first
// process, from somebody, or any process from a program that frees memory.
type sentSignal struct {
	s signal.Signal
	b signal.Kill
	// daemon frees memory by it: then the target may be any process.
	daemon string
}

// ignored tells whether the kernel dropped it.
func (x sentSignal) ignored() bool { return x.b.Result == signal.ResultIgnored }

// sent keeps a signal until its target's end, which it may explain.
func (q *Inquest) sent(s signal.Signal, b signal.Kill) {
	own := b.Sender.PID != 0 && b.Sender.PID == b.Target.PID
	ignored := b.Result == signal.ResultIgnored && b.Target.Init != nil && *b.Target.Init
	if own || b.Code > 0 || b.Result != 0 && !ignored || b.Target.PID == 0 {
		return
	}
	daemon := q.oomDaemon(b.Sender)
	if daemon == "" && b.Target.Init != nil && !*b.Target.Init {
		return
	}
	known := q.kernel.sentTo[b.Target.PID]
	if known == nil && len(q.kernel.sentTo) >= maxPending {
		return
	}
	known = append(known, sentSignal{s, b, daemon})
	q.kernel.sentTo[b.Target.PID] = known[max(0, len(known)-maxSent):]
}

// takeSent gives c the signals that reached its first process.
func (q *Inquest) takeSent(c *caseFile, pid int) {
	known := q.kernel.sentTo[pid]
	if pid == 0 || len(known) == 0 {
		return
	}
	delete(q.kernel.sentTo, pid)
	for _, x := range known {
		if x.daemon != "" {
			c.noteDaemon(x)
			continue
		}
		dropped := ""
		if x.ignored() {
			dropped = "; it has no handler for it, so the kernel dropped it"
		}
		c.note(x.s, "signal:signal_generate: %s (pid %d) sent %s to the container's first process, si_code %d%s",
			death.Printable(x.b.Sender.Comm), x.b.Sender.PID, verdict.SignalName(x.b.Signal), x.b.Code, dropped)
	}
	c.sent = known
}

// sentFacts says who sent the signal that ended the container, or that it ended
// after.
func (q *Inquest) sentFacts(c *caseFile, f *verdict.Facts) {
	for _, x := range c.sent {
		k := q.killerOf(x.b)
		f.Sent = append(f.Sent, verdict.Sent{Killer: *q.dressKiller(k), ByRuntime: q.isRuntime(k, x.b.Sender), Before: c.endTime().Sub(x.s.Time), Ignored: x.ignored()})
	}
}

// killerOf names the sender of a signal.
func (q *Inquest) killerOf(b signal.Kill) *death.Killer {
	from := q.roster.path(b.Sender.Cgroup)
	k := &death.Killer{PID: b.Sender.PID, Comm: b.Sender.Comm, UID: b.Sender.UID, Cgroup: from, Signal: b.Signal}
	k.Container, k.Unit, _, _ = q.owner(from)
	return k
}

// isRuntime tells whether k may be a container runtime: named like one, in no
// container, and where its pid namespace is known, in the host's.
func (q *Inquest) isRuntime(k *death.Killer, t signal.Task) bool {
	return k.Container == nil && runtimeComm(k.Comm) && (t.PIDNS == 0 || t.PIDNS == signal.InitialPIDNS)
}
