// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"
	"time"

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
		Needs:   "sched_process_exit of a first process that is named like runc's, with a code",
		fits: func(f *Facts) bool {
			return f.InRuntime && !f.OOM && f.Exit != nil && f.Exit.Signal == nil && (f.Exit.Code == nil || *f.Exit.Code != 0)
		},
		advice: adviseStart,
	},
	{
		ID: "stop-timeout", Cause: death.StopTimeout, Confidence: death.Certain,
		Meaning: "The engine was asked to stop the container, which did not end within the grace period, and sent SIGKILL.",
		Needs:   "the engine's word that it was asked to stop and then killed; SIGKILL as its end",
		fits: func(f *Facts) bool {
			return f.Stop != nil && !f.Stop.At.IsZero() && !f.Stop.KilledAt.IsZero() && f.endedBy(sigkill) && !f.otherKiller()
		},
		advice: adviseStopTimeout,
	},
	{
		ID: "killed-on-request", Cause: death.Killed, Confidence: death.Certain,
		Meaning: "Somebody asked the engine to send SIGKILL at once (docker kill, docker rm -f), without asking for a stop before.",
		Needs:   "the engine's word that it was asked to kill; SIGKILL as its end",
		fits: func(f *Facts) bool {
			return f.Stop != nil && f.Stop.At.IsZero() && !f.Stop.KilledAt.IsZero() && f.endedBy(sigkill) && !f.otherKiller()
		},
		advice: adviseKilledOnRequest,
	},
	{
		ID: "stop-timeout-by-runtime", Cause: death.StopTimeout, Confidence: death.Probable,
		Meaning: "A runtime's process outside containers sent the signal that asks to stop, the container did not end, and a runtime's process sent SIGKILL: a stop whose grace period ran out. Who asked the runtime, no engine tells.",
		Needs:   "signal_generate: SIGTERM, then SIGKILL, to the first process by a runtime's processes",
		fits: func(f *Facts) bool {
			return f.Killer != nil && f.KillerIsRuntime && !f.Unasked && f.toldToStop(true) != nil
		},
		advice: adviseStopTimeout,
	},
	{
		ID: "oom-daemon", Cause: death.OOMUserspace, Confidence: death.Certain,
		Meaning: "A program that frees memory before the kernel must (systemd-oomd, earlyoom, oomd, nohang) killed it.",
		Needs:   "signal_generate: SIGKILL by a process of such a program's unit below /system.slice",
		fits:    func(f *Facts) bool { return f.OOMDaemon != "" && f.Killer != nil },
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

// lateRules are for what is left when nobody is known to have done it.
var lateRules = []Rule{
	{
		ID: "stopped", Cause: death.Stopped, Confidence: death.Certain,
		Meaning: "The engine was asked to stop the container, and it ended in time, by the signal or with a code of its own.",
		Needs:   "the engine's word that it was asked to stop, before the end",
		fits:    func(f *Facts) bool { return f.Stop != nil && !f.Stop.At.IsZero() && !f.endedBy(sigkill) },
		advice:  noAdvice,
	},
	{
		ID: "stopped-by-runtime", Cause: death.Stopped, Confidence: death.Probable,
		Meaning: "A runtime's process outside containers sent the signal that asks to stop, and the container ended soon after. Who asked the runtime, no engine tells.",
		Needs:   "signal_generate: SIGTERM, SIGINT or SIGQUIT to the first process by a runtime's process, at most 30 s before the end",
		fits:    func(f *Facts) bool { return f.toldToStop(true) != nil && !f.Unasked && !f.endedBy(sigkill) },
		advice:  noAdvice,
	},
	{
		ID: "told-to-end", Cause: death.Killed, Confidence: death.Probable,
		Meaning: "A process that is no runtime's sent the first process a signal that asks it to end, and it did so soon after.",
		Needs:   "signal_generate: SIGTERM, SIGINT, SIGQUIT or the signal that ended it, to the first process, at most 30 s before the end",
		fits:    func(f *Facts) bool { return f.toldToStop(false) != nil && !f.endedBy(sigkill) },
		advice:  adviseSender,
	},
	{
		ID: "sigkill-flagged", Cause: death.OOMContainerLimit, Confidence: death.Possible,
		Meaning: "The container ended by SIGKILL and its engine calls it OOM-killed. Engines miss real OOM kills, and call so what outlived one; the kernel was not watched.",
		Needs:   "the engine's OOMKilled and exit code 137; none of the kernel's sources",
		fits: func(f *Facts) bool {
			return f.endedBy(sigkill) && f.OOMKilled != nil && *f.OOMKilled && !f.Counted
		},
		advice: adviseUnplaced,
	},
	{
		ID: "sigkill-not-oom", Cause: death.Killed, Confidence: death.Probable,
		Meaning: "The container ended by SIGKILL, and the kernel counted no OOM kill in it: somebody sent it. Who is not known.",
		Needs:   "SIGKILL as its end; the kernel's OOM counters, which did not rise",
		fits:    func(f *Facts) bool { return f.endedBy(sigkill) && f.Counted && f.Waited },
		advice:  adviseWhoKilled,
	},
	{
		ID: "sigkill", Cause: death.Unknown, Confidence: death.Possible,
		Meaning: "The container ended by SIGKILL. Whether the OOM killer or somebody else sent it, no source has told.",
		Needs:   "SIGKILL as its end",
		fits:    func(f *Facts) bool { return f.endedBy(sigkill) },
		advice:  adviseUnplaced,
	},
	{
		ID: "signal", Cause: death.Killed, Confidence: death.Probable,
		Meaning: "The container ended by a signal that programs do not send themselves (SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2), and no engine was asked to stop it.",
		Needs:   "such a signal as its end",
		fits:    func(f *Facts) bool { n := f.endSignal(); return sentByOthers(n) },
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
		Meaning: "The container's first process left with another exit code, by its own will, or ended by a signal that programs bring upon themselves and that has no cause of its own here (SIGPIPE, SIGTRAP).",
		Needs:   "another exit code",
		fits:    func(f *Facts) bool { return f.Exit != nil && (f.Exit.Code != nil || f.Exit.Signal != nil) },
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

// signalInferred tells that the signal is known by an exit code alone: a
// process can choose the same number, and inits pass on a child's.
func (f *Facts) signalInferred() bool {
	return f.Exit != nil && f.Exit.Signal == nil && f.endSignal() != 0
}

// otherKiller tells that somebody who is not the runtime sent the SIGKILL.
func (f *Facts) otherKiller() bool { return f.Killer != nil && !f.KillerIsRuntime }

// soonAfter is how long a program may take to end after it was told to.
const soonAfter = 30 * time.Second

// toldToStop is the last signal before the end that asked the first process to
// end, sent by a runtime or by others.
func (f *Facts) toldToStop(byRuntime bool) *Sent {
	for i := len(f.Sent) - 1; i >= 0; i-- {
		s := &f.Sent[i]
		asks := s.Signal == 15 || s.Signal == 2 || s.Signal == 3 || f.endedBy(s.Signal)
		if asks && s.ByRuntime == byRuntime && s.Before <= soonAfter {
			return s
		}
	}
	return nil
}

// killerBy is who the rule says told the container to end.
func (f *Facts) killerBy(rule string) *death.Killer {
	if rule != "told-to-end" {
		return nil
	}
	k := f.toldToStop(false).Killer
	return &k
}

// sentByOther tells whether somebody sent the very signal that ended it.
func (f *Facts) sentByOther(n int) bool {
	s := f.toldToStop(false)
	return s != nil && s.Signal == n
}

// sentByOthers tells whether programs seldom send themselves this signal.
func sentByOthers(n int) bool {
	switch n {
	case 1, 2, 3, 10, 12, 15:
		return true
	}
	return false
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

// endSentence is the summary of a container's end that was no OOM kill.
func endSentence(c death.Cause, rule string, f *Facts) string {
	if say, known := endSentences[rule]; known {
		return say(f)
	}
	return fmt.Sprintf("%s ended: %s %s%s.", upper(where(f)), firstName(f), endedHow(f), byFault(c, f))
}

// endSentences are the summaries of the rules that have one of their own.
var endSentences = map[string]func(*Facts) string{
	"never-ran": func(f *Facts) string {
		s := upper(where(f)) + " never ran"
		if f.Fault != "" {
			s += ": " + shorten(death.Printable(f.Fault), 300)
		}
		return s + "."
	},
	"left-in-runtime": func(f *Facts) string {
		return upper(where(f)) + " never ran: the runtime could not run its program, and left with " + strings.TrimPrefix(endedHow(f), "left with ") + "."
	},
	"stop-timeout": func(f *Facts) string {
		return fmt.Sprintf("%s was asked to %s %s%s; it did not end within %s and was killed (SIGKILL).",
			engineName(f.Stop.Engine), stopOrRestart(f.Stop), where(f), bySignal(f.Stop.Signal), spell(f.Stop.KilledAt.Sub(f.Stop.At)))
	},
	"killed-on-request": func(f *Facts) string {
		return fmt.Sprintf("%s was asked to kill %s at once (SIGKILL, as by docker kill or docker rm -f), and it ended.", engineName(f.Stop.Engine), where(f))
	},
	"stopped": func(f *Facts) string {
		return fmt.Sprintf("%s was asked to %s %s%s; it ended in time: it %s after %s.", engineName(f.Stop.Engine),
			stopOrRestart(f.Stop), where(f), bySignal(f.Stop.Signal), endedHow(f), spell(f.Stop.End.Sub(f.Stop.At)))
	},
	"stop-timeout-by-runtime": func(f *Facts) string {
		s := f.toldToStop(true)
		return fmt.Sprintf("The container's runtime (%s, pid %d) told %s to stop (%s); it did not end within %s and was killed (SIGKILL).",
			death.Printable(s.Comm), s.PID, where(f), SignalName(s.Signal), spell(s.Before))
	},
	"stopped-by-runtime": func(f *Facts) string {
		s := f.toldToStop(true)
		return fmt.Sprintf("The container's runtime (%s, pid %d) told %s to stop (%s); it ended in time: it %s after %s.",
			death.Printable(s.Comm), s.PID, where(f), SignalName(s.Signal), endedHow(f), spell(s.Before))
	},
	"told-to-end": func(f *Facts) string {
		s := f.toldToStop(false)
		return fmt.Sprintf("%s sent %s to the first process of %s, which %s after %s.",
			senderName(&s.Killer), SignalName(s.Signal), where(f), endedHow(f), spell(s.Before))
	},
	"oom-daemon": func(f *Facts) string {
		s := fmt.Sprintf("%s killed %s in %s, to free memory before the kernel must", senderName(f.Killer), tellProcesses(f.Processes), where(f))
		if f.Ended {
			s += "; the container ended"
		}
		return s + "."
	},
	"sigkill-flagged": func(f *Facts) string {
		return fmt.Sprintf("%s was killed (SIGKILL), and %s calls it OOM-killed; the kernel was not watched, so whether it was is not known.", upper(where(f)), engineName(f.Engine))
	},
	"sigkill-not-oom": func(f *Facts) string {
		return fmt.Sprintf("%s was killed (SIGKILL) by somebody who was not seen; it was not the OOM killer, whose counter did not rise.", upper(where(f)))
	},
	"sigkill": func(f *Facts) string {
		return fmt.Sprintf("%s was killed (SIGKILL); whether by the OOM killer or by somebody else, no source has told.", upper(where(f)))
	},
	"heap-limit": func(f *Facts) string {
		return heapSentence(f)
	},
	"bus-error-shm-full": func(f *Facts) string {
		return shmSentence(f)
	},
	"completed": func(f *Facts) string {
		return fmt.Sprintf("%s ran to its end: %s left with exit code 0.", upper(where(f)), firstName(f))
	},
	"unknown": func(f *Facts) string {
		return "Something died in " + where(f) + ", and nothing that was seen says why."
	},
}

// endedHow says how the first process ended.
func endedHow(f *Facts) string {
	x := f.Exit
	switch {
	case x == nil:
		return "it ended"
	case x.Signal != nil:
		return "ended by " + SignalName(*x.Signal)
	case x.Code == nil:
		return "ended"
	case f.endSignal() != 0:
		return fmt.Sprintf("left with exit code %d (%s)", *x.Code, SignalName(f.endSignal()))
	}
	return fmt.Sprintf("left with exit code %d", *x.Code)
}

func byFault(c death.Cause, f *Facts) string {
	for _, x := range faults {
		if x.cause == c {
			return ", " + x.what
		}
	}
	if c == death.Killed && f.endSignal() != 0 {
		return "; somebody sent it who was not seen"
	}
	return ""
}

func firstName(f *Facts) string {
	if f.First == "" {
		return "its first process"
	}
	return "its first process " + death.Printable(f.First)
}

func stopOrRestart(s *Stop) string {
	if s.Restart {
		return "restart"
	}
	return "stop"
}

func bySignal(n int) string {
	if n == 0 {
		return ""
	}
	return " and sent " + SignalName(n)
}

// engineName is how people write an engine's name.
func engineName(s death.Source) string {
	switch s {
	case death.SourceDocker:
		return "Docker"
	case death.SourceCRI:
		return "the CRI runtime"
	case death.SourceKube:
		return "Kubernetes"
	case "":
		return "the engine"
	}
	return string(s)
}

// spell is a duration as people say it.
func spell(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}

func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n]) + " …"
}

// tellProcesses names the first of the killed, and counts the others.
func tellProcesses(ps []death.Process) string {
	if len(ps) == 0 {
		return "a process"
	}
	return some(ps)
}

func adviseDaemon(f *Facts) []string {
	out := []string{"Look at what uses the machine's memory: " + f.OOMDaemon + " goes by that, or by the pressure on it, and its victim need not be the cause."}
	switch f.OOMDaemon {
	case "systemd-oomd":
		out = append(out, "Its limits are ManagedOOMSwap= and ManagedOOMMemoryPressure= of the unit or slice (oomctl shows what it watches); ManagedOOMPreference=omit spares a unit.")
	case "earlyoom":
		out = append(out, "Its limits are the options -m and -s in /etc/default/earlyoom; --avoid spares processes by name.")
	}
	return out
}

func noAdvice(*Facts) []string { return nil }

func adviseStart(*Facts) []string {
	return []string{"Correct what the engine names: the command, its rights (it must be executable), the image, a mount or a device."}
}

func adviseStopTimeout(f *Facts) []string {
	out := []string{"Have the program end when it is told to: handle " + f.stopSignal() + " in the first process. One without a handler never gets it, since the kernel spares a pid namespace's first process: start it by exec, or with an init (docker run --init)."}
	if f.Stop != nil && f.Stop.Grace != nil {
		out = append(out, fmt.Sprintf("If it honestly needs longer than %d s to end, give it longer (--stop-timeout, terminationGracePeriodSeconds).", *f.Stop.Grace))
	} else {
		out = append(out, "If it honestly needs longer to end, give it longer (--stop-timeout, terminationGracePeriodSeconds).")
	}
	return out
}

// stopSignal is the signal that asked the container to stop.
func (f *Facts) stopSignal() string {
	if s := f.toldToStop(true); s != nil {
		return SignalName(s.Signal)
	}
	if f.Stop != nil && f.Stop.Signal != 0 {
		return SignalName(f.Stop.Signal)
	}
	return SignalName(15)
}

func adviseSender(f *Facts) []string {
	return []string{"Ask the owner of " + death.Printable(f.toldToStop(false).Comm) + " why it tells the container to end."}
}

func adviseKilledOnRequest(f *Facts) []string {
	return []string{"Ask who told " + engineName(f.Stop.Engine) + " to: its log and its events have the time; raising memory limits will not help."}
}

func adviseWhoKilled(*Facts) []string {
	return []string{"Run coroner doctor: with tracepoints the sender is named. Raising memory limits will not help."}
}

func adviseError(f *Facts) []string {
	out := []string{"Its last log lines say why it left."}
	if x := f.Exit; x != nil && x.Code != nil {
		switch *x.Code {
		case 126:
			out = append(out, "Shells use 126 for a command that is there but may not be run.")
		case 127:
			out = append(out, "Shells use 127 for a command that was not found.")
		}
	}
	return out
}
