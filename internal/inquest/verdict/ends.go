// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"github.com/coroner-dev/coroner/internal/death"
)

// endRules judge the ends of containers that the OOM killer had no hand in.
// What a program did itself is asked after what was done to it.
var endRules = []Rule{
	{
		ID: "never-ran", Cause: death.StartFailed, Confidence: death.Certain,
		Meaning: "The engine could not start the container: the program, its image, a mount or the runtime failed. It never ran.",
		Needs:   "the engine's error, and no time of start",
		fits:    func(f *Facts) bool { return f.NeverRan },
		advice:  adviseStart,
	},
	{
		ID: "left-in-runtime", Cause: death.StartFailed, Confidence: death.Probable,
		Meaning: "The first process left while it was still the runtime's, which makes the container and then runs its program: the program is not there, may not be executed, or its interpreter or loader is missing. (A program may give itself that name.)",
		Needs:   "sched_process_exit of a first process that is named like runc's, with a code; or SIGKILL to it by a runtime's process, of which nobody asked the engine",
		fits:    (*Facts).leftInRuntime,
		advice:  adviseStart,
	},
	{
		ID: "stop-timeout", Cause: death.StopTimeout, Confidence: death.Certain,
		Meaning: "The engine was asked to stop the container, which did not end within the grace period, and sent SIGKILL.",
		Needs:   "the engine's word that a stop is done, or SIGTERM and after the grace period SIGKILL on its request; SIGKILL as its end. Certain with both",
		fits: func(f *Facts) bool {
			s := f.Stop
			return s != nil && !s.At.IsZero() && !s.KilledAt.IsZero() && (s.Confirmed || s.ranOut()) && f.endedBy(sigkill) && !f.otherKiller()
		},
		sure:   (*Facts).sureTimeout,
		advice: adviseStopTimeout,
	},
	{
		ID: "killed-on-request", Cause: death.Killed, Confidence: death.Certain,
		Meaning: "Somebody asked the engine to send SIGKILL at once (docker kill, docker rm -f), and not for a stop, whose grace period would have run out.",
		Needs:   "the engine's word that it was asked to kill; SIGKILL as its end",
		fits: func(f *Facts) bool {
			return f.Stop != nil && !f.Stop.KilledAt.IsZero() && f.endedBy(sigkill) && !f.otherKiller()
		},
		advice: adviseKilledOnRequest,
	},
	{
		ID: "stop-timeout-by-runtime", Cause: death.StopTimeout, Confidence: death.Probable,
		Meaning: "A runtime's process outside containers sent the signal that asks to stop, the container did not end, and a runtime's process sent SIGKILL: a stop whose grace period ran out. Who asked the runtime, no engine tells.",
		Needs:   "signal_generate: SIGTERM (in mode bpf also one that the process has no handler for), then SIGKILL, to the first process by a runtime's processes",
		fits: func(f *Facts) bool {
			return f.Killer != nil && f.KillerIsRuntime && !f.Unasked && f.stopSent() != nil
		},
		advice: adviseStopTimeout,
	},
	{
		ID: "oom-daemon", Cause: death.OOMUserspace, Confidence: death.Certain,
		Meaning: "A program that frees memory before the kernel must (systemd-oomd, earlyoom, oomd, nohang) killed it.",
		Needs:   "signal_generate: SIGKILL, or the SIGTERM that ended it, by a process of such a program's unit below /system.slice",
		fits:    func(f *Facts) bool { return f.OOMDaemon != "" && f.Killer != nil && !f.DaemonObeyed },
		advice:  adviseDaemon,
	},
	{
		ID: "oom-daemon-obeyed", Cause: death.OOMUserspace, Confidence: death.Probable,
		Meaning: "A program that frees memory before the kernel must (earlyoom, nohang) asked it to end, and it left by itself soon after.",
		Needs:   "signal_generate: SIGTERM by a process of such a program's unit below /system.slice, at most 30 s before sched_process_exit",
		fits:    func(f *Facts) bool { return f.OOMDaemon != "" && f.Killer != nil },
		advice:  adviseDaemon,
	},
	{
		ID: "oom-daemon-told", Cause: death.OOMUserspace, Confidence: death.Probable,
		Meaning: "It ended by SIGKILL, nobody was seen who sent it, and a program that frees memory before the kernel must says that it did: in the journal, or by an attribute of the cgroup.",
		Needs:   "a line of systemd-oomd.service or earlyoom.service in the journal that names the cgroup or the first process; or user.oomd_ooms of the cgroup",
		fits:    func(f *Facts) bool { return f.OOMDaemon != "" && f.endedBy(sigkill) },
		advice:  adviseDaemon,
	},
	{
		ID: "killed-past-engine", Cause: death.Killed, Confidence: death.Probable,
		Meaning: "A process outside containers that is named like a container runtime sent the SIGKILL, and the engine, which tells of what it is asked, was asked for nothing.",
		Needs:   "signal_generate: SIGKILL by a runtime's process; an engine that tells requests, and told none",
		fits:    func(f *Facts) bool { return f.Killer != nil && f.KillerIsRuntime && f.Unasked && f.Waited },
		advice:  adviseKilled,
	},
	{
		ID: "killed-by-runtime", Cause: death.Unknown, Confidence: death.Possible,
		Meaning: "A process outside containers that is named like a container runtime sent the SIGKILL. If it is the runtime, it acted for somebody: a stop whose grace period ran out, a kill, a removal; who asked only the engine or Kubernetes can tell. A name can be forged, so nothing more is said.",
		Needs:   "signal_generate: SIGKILL to the container's first process by a runtime's process outside containers",
		fits:    func(f *Facts) bool { return f.Killer != nil && f.KillerIsRuntime },
		advice:  adviseRuntimeKill,
	},
	{
		ID: "killed", Cause: death.Killed, Confidence: death.Certain,
		Meaning: "Somebody who is not the runtime sent SIGKILL to the container's first process. It was not the OOM killer.",
		Needs:   "signal_generate: SIGKILL with si_code of a process",
		fits:    func(f *Facts) bool { return f.Killer != nil },
		advice:  adviseKilled,
	},
}

// leftInRuntime tells that the first process ended before it was the
// container's program. A runtime that cannot go on kills it.
func (f *Facts) leftInRuntime() bool {
	x := f.Exit
	switch {
	case !f.InRuntime || f.OOM:
		return false
	case f.Killer != nil:
		return f.KillerIsRuntime && !f.Stop.Matters() && (x == nil || f.endedBy(sigkill))
	}
	return x != nil && x.Signal == nil && (x.Code == nil || *x.Code != 0)
}

// lateRules are for what is left when nobody is known to have done it.
var lateRules = []Rule{
	{
		ID: "stopped", Cause: death.Stopped, Confidence: death.Certain,
		Meaning: "The engine was asked to stop the container, and it ended in time, by the signal or with a code of its own.",
		Needs:   "the engine's word that a stop is done; or that it was asked to send the signal that asks to stop, at most the grace period before the end: probable then, since others may ask for it (docker kill -s TERM)",
		fits:    func(f *Facts) bool { return f.Stop.inTime() && !f.sigkilled() },
		sure:    func(f *Facts) bool { return f.Stop.Confirmed },
		advice:  noAdvice,
	},
	{
		ID: "signalled-on-request", Cause: death.Killed, Confidence: death.Certain,
		Meaning: "Somebody asked the engine to send a signal that is not the container's own for a stop (docker kill -s), and it ended soon after.",
		Needs:   "the engine's word that it was asked to send the signal that ended the container, at most 30 s before; or SIGINT, SIGQUIT or SIGTERM within the usual grace period: probable then",
		fits:    (*Facts).endedOnRequest,
		sure:    func(f *Facts) bool { return f.endedBy(f.Asked.Signal) },
		advice: func(f *Facts) []string {
			return []string{"Ask who told " + f.engineName(f.Asked.Engine) + " to: its log and its events have the time."}
		},
	},
	{
		ID: "stopped-by-runtime", Cause: death.Stopped, Confidence: death.Probable,
		Meaning: "A runtime's process outside containers sent the signal that asks to stop, and the container ended soon after. Who asked the runtime, no engine tells.",
		Needs:   "signal_generate: SIGTERM, SIGINT or SIGQUIT to the first process by a runtime's process, at most 30 s before the end",
		fits:    func(f *Facts) bool { return f.toldToStop(true) != nil && !f.Unasked && !f.sigkilled() },
		advice:  noAdvice,
	},
	{
		ID: "told-to-end", Cause: death.Killed, Confidence: death.Probable,
		Meaning: "A process that is no runtime's sent the first process a signal that asks it to end, and it did so soon after.",
		Needs:   "signal_generate: SIGTERM, SIGINT, SIGQUIT or the signal that ended it, to the first process, at most 30 s before the end",
		fits:    func(f *Facts) bool { return f.toldToStop(false) != nil && !f.sigkilled() },
		advice:  adviseSender,
	},
	{
		ID: "sigkill-flagged", Cause: death.OOMContainerLimit, Confidence: death.Possible,
		Meaning: "The container ended by SIGKILL and its engine calls it OOM-killed. Engines miss real OOM kills, and call so what outlived one; the kernel was not watched.",
		Needs:   "the engine's OOMKilled and exit code 137; none of the kernel's sources",
		fits: func(f *Facts) bool {
			return f.sigkilled() && f.OOMKilled != nil && *f.OOMKilled && !f.Counted
		},
		advice: adviseUnplaced,
	},
	{
		ID: "sigkill-not-oom", Cause: death.Killed, Confidence: death.Probable,
		Meaning: "The container ended by SIGKILL, and the kernel counted no OOM kill in it: somebody sent it. Who is not known.",
		Needs:   "SIGKILL as its end; the kernel's OOM counters, which did not rise",
		fits:    func(f *Facts) bool { return f.sigkilled() && f.Counted && f.Waited },
		advice:  adviseWhoKilled,
	},
	{
		ID: "sigkill", Cause: death.Unknown, Confidence: death.Possible,
		Meaning: "The container ended by SIGKILL. Whether the OOM killer or somebody else sent it, no source has told.",
		Needs:   "SIGKILL as its end",
		fits:    (*Facts).sigkilled,
		advice:  adviseUnplaced,
	},
	{
		ID: "signal", Cause: death.Killed, Confidence: death.Probable,
		Meaning: "The container ended by a signal that programs do not send themselves (SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2), and no engine was asked to stop it.",
		Needs:   "such a signal as its end",
		fits:    func(f *Facts) bool { return sentByOthers(f.endSignal()) && !f.left() },
		advice:  adviseWhoKilled,
	},
	{
		ID: "completed", Cause: death.Completed, Confidence: death.Certain,
		Meaning: "The container's first process left with exit code 0.",
		Needs:   "exit code 0",
		fits: func(f *Facts) bool {
			return f.Exit != nil && f.Exit.Code != nil && *f.Exit.Code == 0 && f.Exit.Signal == nil
		},
		advice: noAdvice,
	},
	{
		ID: "error", Cause: death.Error, Confidence: death.Certain,
		Meaning: "The container's first process left with another exit code, by its own will, or ended by a signal that programs bring upon themselves and that has no cause of its own here (SIGPIPE, SIGTRAP). A code such as 137 or 143 of which the kernel says that the process left is one of these: shells and inits give it for a child that was killed.",
		Needs:   "another exit code. Probable where a signal of others came at most 30 s before",
		fits:    func(f *Facts) bool { return f.Exit != nil && (f.Exit.Code != nil || f.Exit.Signal != nil) },
		sure:    func(f *Facts) bool { return f.signalled() == "" },
		advice:  adviseError,
	},
}

// lastRules fit when nothing else does.
var lastRules = []Rule{
	{
		ID: "unknown", Cause: death.Unknown, Confidence: death.Possible,
		Meaning: "Something died, and nothing that was seen says why.",
		Needs:   "nothing",
		fits:    func(*Facts) bool { return true },
		advice:  noAdvice,
	},
}

const sigkill = 9

// fault is a signal that a program brings upon itself.
type fault struct {
	signal        int
	cause         death.Cause
	id, meaning   string
	what, whereTo string // for the sentence, and for the advice
}

// faults are of signal(7), Linux on all architectures but alpha, mips, parisc
// and sparc.
var faults = []fault{
	{11, death.Segfault, "segfault", "The first process reached for memory that is not its own (SIGSEGV).", "a segmentation fault", "Look for a crash report or a core dump, and for what was deployed last; .NET and others also end so when their stack overflows."},
	{6, death.Abort, "abort", "The first process gave up (SIGABRT): a failed assertion, an uncaught exception of C++, a runtime that lost its footing.", "an abort", "Its last log lines say what failed: an assertion, an uncaught exception, or a runtime that gave up."},
	{7, death.BusError, "bus-error", "The first process touched memory that could not be provided (SIGBUS): a mapped file cut short, or a full tmpfs such as /dev/shm.", "a bus error", "Check the size of /dev/shm (--shm-size, an emptyDir of medium Memory) and files mapped into memory that others shorten."},
	{4, death.IllegalInstruction, "illegal-instruction", "The first process ran an instruction that this processor does not have (SIGILL).", "an illegal instruction", "The program may be built for a newer processor than this node has; some runtimes end so on purpose when they find a fault."},
	{8, death.Arithmetic, "arithmetic", "The first process divided by zero or overflowed (SIGFPE).", "an arithmetic fault", "Look for an integer division by zero."},
	{31, death.BadSystemCall, "bad-system-call", "The first process made a system call that its seccomp profile forbids (SIGSYS).", "a forbidden system call", "Compare the container's seccomp profile with what the program needs; a new libc or runtime may use a newer call."},
	{24, death.CPUTimeLimit, "cpu-time-limit", "The first process used up its processor time (SIGXCPU, RLIMIT_CPU).", "its limit of processor time", "Raise the CPU time limit (ulimit -t, --ulimit cpu=), or find what runs for ever."},
	{25, death.FileSizeLimit, "file-size-limit", "The first process wrote a file larger than it may (SIGXFSZ, RLIMIT_FSIZE).", "its limit of file size", "Raise the file size limit (ulimit -f, --ulimit fsize=), or rotate what it writes."},
}

// faultRules are the rules of faults, one each.
var faultRules = []Rule{
	faults[0].rule(), faults[1].rule(), faults[2].rule(), faults[3].rule(),
	faults[4].rule(), faults[5].rule(), faults[6].rule(), faults[7].rule(),
}

func (x fault) rule() Rule {
	return Rule{
		ID: x.id, Cause: x.cause, Confidence: death.Certain, Meaning: x.meaning,
		Needs:  "sched_process_exit, or the engine's exit code " + fmt.Sprint(128+x.signal),
		fits:   func(f *Facts) bool { return f.endedBy(x.signal) && !f.sentByOther(x.signal) },
		advice: func(*Facts) []string { return []string{x.whereTo} },
	}
}
