// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"slices"

	"github.com/coroner-dev/coroner/internal/death"
)

// endSignal is the signal that ended the container, as the kernel told it or
// as 128 and the code say; 0: none.
func (f *Facts) endSignal() int {
	x := f.Exit
	switch {
	case x == nil:
		return 0
	case x.Signal != nil:
		return *x.Signal
	case x.Code != nil && *x.Code > 128 && *x.Code <= 128+64:
		return *x.Code - 128
	}
	return 0
}

func (f *Facts) endedBy(n int) bool { return f.endSignal() == n }

// left tells whether the kernel says that the first process left with a code:
// no signal ended it, whatever number it chose.
func (f *Facts) left() bool {
	return f.FromKernel && f.Exit != nil && f.Exit.Signal == nil && f.Exit.Code != nil
}

// sigkilled tells whether SIGKILL ended it, by all that is known.
func (f *Facts) sigkilled() bool { return f.endedBy(sigkill) && !f.left() }

// signalInferred tells that the signal is known by an exit code alone: a
// process can choose the same number, and inits pass on a child's.
func (f *Facts) signalInferred() bool {
	return f.Exit != nil && f.Exit.Signal == nil && f.endSignal() != 0
}

// otherKiller tells that somebody who is not the runtime sent the SIGKILL.
func (f *Facts) otherKiller() bool { return f.Killer != nil && !f.KillerIsRuntime }

// toldToStop is the last signal before the end that asked the first process to
// end, sent by a runtime or by others.
func (f *Facts) toldToStop(byRuntime bool) *Sent {
	return f.lastSent(func(s *Sent) bool { return s.ByRuntime == byRuntime && !s.Ignored })
}

// stopSent is the last by a runtime, also one that did not reach the process.
func (f *Facts) stopSent() *Sent { return f.lastSent(func(s *Sent) bool { return s.ByRuntime }) }

func (f *Facts) lastSent(is func(*Sent) bool) *Sent {
	for i := len(f.Sent) - 1; i >= 0; i-- {
		s := &f.Sent[i]
		if (asksToEnd(s.Signal) || f.endedBy(s.Signal)) && s.Before <= SoonAfter && is(s) {
			return s
		}
	}
	return nil
}

// killerBy is who the rule says told the container to end.
func (f *Facts) killerBy(rule string) *death.Killer {
	switch rule {
	case "told-to-end":
		k := f.toldToStop(false).Killer
		return &k
	case "oom-daemon-told":
		return f.DaemonLogged
	}
	return nil
}

// sentByOther tells whether somebody sent the very signal that ended it.
func (f *Facts) sentByOther(n int) bool {
	s := f.toldToStop(false)
	return s != nil && s.Signal == n || f.Asked != nil && f.Asked.Signal == n
}

// sentByOthers tells whether programs seldom send themselves this signal.
func sentByOthers(n int) bool {
	switch n {
	case 1, 2, 3, 10, 12, 15:
		return true
	}
	return false
}

// deadly tells whether a signal ends most that do not handle it (signal(7)).
func deadly(n int) bool {
	return n <= 15 || slices.ContainsFunc(faults, func(x fault) bool { return x.signal == n })
}

// SignalName is SIGTERM of 15, as signal(7) has it.
func SignalName(n int) string {
	names := [...]string{
		1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE",
		9: "SIGKILL", 10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM",
		16: "SIGSTKFLT", 17: "SIGCHLD", 18: "SIGCONT", 19: "SIGSTOP", 20: "SIGTSTP", 21: "SIGTTIN", 22: "SIGTTOU",
		23: "SIGURG", 24: "SIGXCPU", 25: "SIGXFSZ", 26: "SIGVTALRM", 27: "SIGPROF", 28: "SIGWINCH", 29: "SIGIO",
		30: "SIGPWR", 31: "SIGSYS",
	}
	if n > 0 && n < len(names) {
		return names[n]
	}
	return fmt.Sprintf("signal %d", n)
}
