// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest/verdict"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
	"github.com/coroner-dev/coroner/internal/signal"
)

// oomDaemons are the units of programs that kill before the kernel must, as
// Debian and their makers name them.
var oomDaemons = map[string]string{
	"systemd-oomd.service":   "systemd-oomd",
	"earlyoom.service":       "earlyoom",
	"oomd.service":           "oomd",
	"nohang.service":         "nohang",
	"nohang-desktop.service": "nohang",
}

// spokenUnits are those whose lines in the journal are understood.
var spokenUnits = []string{"systemd-oomd.service", "earlyoom.service"}

// oomDaemon names the program that kills for want of memory which sent a
// signal; empty: it was none. The system's units are not made by containers
// nor users: their cgroups lie elsewhere.
func (q *Inquest) oomDaemon(t signal.Task) string {
	path := q.roster.path(t.Cgroup)
	at := cgpath.Parse(path)
	if at.ContainerID != "" || at.Nested || !strings.HasPrefix(path, "/system.slice/") {
		return ""
	}
	return oomDaemons[at.Unit]
}

// killedByDaemon makes a death of a SIGKILL that such a program sent, whoever
// it was for.
func (q *Inquest) killedByDaemon(s signal.Signal, b signal.Kill, daemon string) {
	pid := or(b.Target.PID, b.Target.TID)
	c := q.caseByDaemon(s, b, daemon)
	c.byDaemon(q, daemon, b)
	q.takeSent(c, pid)
	q.addSignalled(c, s, b.Target)
	c.noteDaemon(sentSignal{s, b, daemon})
	q.touch(c)
}

func (c *caseFile) byDaemon(q *Inquest, daemon string, b signal.Kill) {
	c.daemon, c.killer = daemon, q.killerOf(b)
}

// addSignalled puts a process among the dead of c that a signal ended.
func (q *Inquest) addSignalled(c *caseFile, s signal.Signal, t signal.Task) {
	q.add(c, &process{
		Process: death.Process{PID: t.PID, Comm: t.Comm, UID: t.UID, Init: t.Init, Fate: death.FateSignalled},
		tid:     t.TID, mm: t.MM, pidns: t.PIDNS, at: s.Time,
	})
	for _, p := range c.procs {
		q.learnInit(c, p)
	}
}

// noteDaemon notes a signal of a program that frees memory.
func (c *caseFile) noteDaemon(x sentSignal) {
	c.note(x.s, "signal:signal_generate: %s (pid %d, %s) sent %s to pid %d (%s): it frees memory before the kernel must",
		death.Printable(x.b.Sender.Comm), x.b.Sender.PID, x.daemon, verdict.SignalName(x.b.Signal),
		or(x.b.Target.PID, x.b.Target.TID), death.Printable(x.b.Target.Comm))
}

// obeyed is how long after such a program's SIGTERM a process may end for it.
// earlyoom waits 10 s before it sends the next signal.
const obeyed = 30 * time.Second

// toldByDaemon is the last SIGTERM of such a program to the process that ended.
func toldByDaemon(known []sentSignal, s signal.Signal, b signal.Exit) *sentSignal {
	for i := len(known) - 1; i >= 0; i-- {
		x := &known[i]
		sameName := x.b.Target.Comm == "" || b.Task.Comm == "" || x.b.Target.Comm == b.Task.Comm
		if x.daemon != "" && sameName && s.Time.Sub(x.s.Time) <= obeyed {
			return x
		}
	}
	return nil
}

// endedForDaemon makes a death of the end of a process, no container's first,
// that such a program told to end.
func (q *Inquest) endedForDaemon(s signal.Signal, b signal.Exit) {
	x := toldByDaemon(q.kernel.sentTo[b.Task.PID], s, b)
	if x == nil {
		return
	}
	c := q.caseByDaemon(s, x.b, x.daemon)
	q.takeSent(c, b.Task.PID)
	q.obeys(c, s, b, x)
	if c.container == nil {
		q.exited(c, s, b, false)
	}
	q.touch(c)
}

// obeys makes c the doing of the program that sent x.
func (q *Inquest) obeys(c *caseFile, s signal.Signal, b signal.Exit, x *sentSignal) {
	c.byDaemon(q, x.daemon, x.b)
	if b.Signal == nil || *b.Signal != x.b.Signal {
		c.daemonObeyed = true
	}
	t := x.b.Target
	t.Init = b.Task.Init
	q.addSignalled(c, s, t)
	switch {
	case b.Signal != nil:
		c.note(s, "sched:sched_process_exit: pid %d (%s) ended by %s", b.Task.PID, death.Printable(b.Task.Comm), verdict.SignalName(*b.Signal))
	case b.Code != nil:
		c.note(s, "sched:sched_process_exit: pid %d (%s) left with exit code %d", b.Task.PID, death.Printable(b.Task.Comm), *b.Code)
	}
}

// caseByDaemon finds the case of the same container or unit that the daemon
// kills process by process, or opens one.
func (q *Inquest) caseByDaemon(s signal.Signal, b signal.Kill, daemon string) *caseFile {
	path := q.roster.path(b.Target.Cgroup)
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		same := c.killer == nil || c.killer.PID == b.Sender.PID // nil: by what it left behind alone
		if c.daemon == daemon && same && q.inOneBreath(c, s) && c.sameOwner(path) {
			return c
		}
	}
	if c := q.endToldBy(s, b.Target); c != nil {
		return c
	}
	c := q.open(s, pidKey(b.Target))
	q.place(c, b.Target.Cgroup)
	return c
}
