// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"strings"

	"github.com/coroner-dev/coroner/internal/death"
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
	c.daemon = daemon
	c.killer = q.killerOf(b)
	q.takeSent(c, pid)
	q.add(c, &process{
		Process: death.Process{PID: b.Target.PID, Comm: b.Target.Comm, UID: b.Target.UID, Init: b.Target.Init, Fate: death.FateSignalled},
		tid:     b.Target.TID, mm: b.Target.MM, pidns: b.Target.PIDNS, at: s.Time,
	})
	for _, p := range c.procs {
		q.learnInit(c, p)
	}
	c.note(s, "signal:signal_generate: %s (pid %d, %s) sent SIGKILL to pid %d (%s): it frees memory before the kernel must",
		death.Printable(b.Sender.Comm), b.Sender.PID, daemon, pid, death.Printable(b.Target.Comm))
	q.touch(c)
}

// caseByDaemon finds the case of the same container or unit that the daemon
// kills process by process, or opens one.
func (q *Inquest) caseByDaemon(s signal.Signal, b signal.Kill, daemon string) *caseFile {
	path := q.roster.path(b.Target.Cgroup)
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		if c.daemon == daemon && c.killer.PID == b.Sender.PID && q.inOneBreath(c, s) && c.sameOwner(path) {
			return c
		}
	}
	if c := q.endToldBy(b.Target); c != nil {
		return c
	}
	c := q.open(s, pidKey(b.Target))
	q.place(c, b.Target.Cgroup)
	return c
}
