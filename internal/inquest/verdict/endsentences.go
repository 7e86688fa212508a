// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// endSentence is the summary of a container's end that was no OOM kill.
func endSentence(c death.Cause, rule string, f *Facts) string {
	for _, says := range []map[string]func(*Facts) string{endSentences, podSentences} {
		if say, known := says[rule]; known {
			return say(f)
		}
	}
	how := endedHow(f)
	if n := f.endSignal(); f.left() && n != 0 {
		how = fmt.Sprintf("left with exit code %d", *f.Exit.Code)
		if deadly(n) {
			how += ", which shells and inits give for a child killed by " + SignalName(n)
		}
	}
	return fmt.Sprintf("%s ended: %s %s%s.", upper(where(f)), firstName(f), how, byFault(c, f))
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
		if f.Killer != nil {
			return upper(where(f)) + " never ran: the runtime could not run its program, and killed its first process (SIGKILL)."
		}
		return upper(where(f)) + " never ran: the runtime could not run its program, and left with " + strings.TrimPrefix(endedHow(f), "left with ") + "."
	},
	"stop-timeout": func(f *Facts) string {
		within := "within " + Spell(f.Stop.KilledAt.Sub(f.Stop.At))
		if f.Stop.Done {
			within = "in time"
		}
		return fmt.Sprintf("%s was asked to %s %s%s; it did not end %s and was killed (SIGKILL).",
			f.engineName(f.Stop.Engine), stopOrRestart(f.Stop), where(f), bySignal(f.Stop.Signal), within)
	},
	"killed-on-request": func(f *Facts) string {
		return fmt.Sprintf("%s was asked to kill %s at once (SIGKILL, as by docker kill or docker rm -f), and it ended.", f.engineName(f.Stop.Engine), where(f))
	},
	"stopped": func(f *Facts) string {
		after := " after " + Spell(f.Stop.End.Sub(f.Stop.At))
		if f.Stop.Done {
			after = ""
		}
		if !f.Stop.Confirmed {
			return fmt.Sprintf("%s was asked to send %s to %s, as for a stop, and it ended in time: it %s%s.", f.engineName(f.Stop.Engine),
				signalOr(f.Stop.Signal), where(f), endedHow(f), after)
		}
		return fmt.Sprintf("%s was asked to %s %s%s; it ended in time: it %s%s.", f.engineName(f.Stop.Engine),
			stopOrRestart(f.Stop), where(f), bySignal(f.Stop.Signal), endedHow(f), after)
	},
	"signalled-on-request": func(f *Facts) string {
		return fmt.Sprintf("%s was asked to send %s to %s, and it ended: it %s after %s.", f.engineName(f.Asked.Engine),
			SignalName(f.Asked.Signal), where(f), endedHow(f), Spell(f.Asked.Before))
	},
	"stop-timeout-by-runtime": func(f *Facts) string {
		s := f.stopSent()
		deaf := ""
		if s.Ignored {
			deaf = ", for which its first process has no handler"
		}
		return fmt.Sprintf("The container's runtime (%s, pid %d) told %s to stop (%s%s); it did not end within %s and was killed (SIGKILL).",
			death.Printable(s.Comm), s.PID, where(f), SignalName(s.Signal), deaf, Spell(s.Before))
	},
	"stopped-by-runtime": func(f *Facts) string {
		s := f.toldToStop(true)
		return fmt.Sprintf("The container's runtime (%s, pid %d) told %s to stop (%s); it ended in time: it %s after %s.",
			death.Printable(s.Comm), s.PID, where(f), SignalName(s.Signal), endedHow(f), Spell(s.Before))
	},
	"told-to-end": func(f *Facts) string {
		s := f.toldToStop(false)
		return fmt.Sprintf("%s sent %s to the first process of %s, which %s after %s.",
			senderName(&s.Killer), SignalName(s.Signal), where(f), endedHow(f), Spell(s.Before))
	},
	"oom-daemon": func(f *Facts) string {
		return daemonSentence(f, senderName(f.Killer)+" killed "+tellProcesses(f.Processes)+" in "+where(f), "")
	},
	"oom-daemon-obeyed": func(f *Facts) string {
		asked := fmt.Sprintf("%s sent %s to %s in %s", senderName(f.Killer), SignalName(f.Killer.Signal), tellProcesses(f.Processes), where(f))
		return daemonSentence(f, asked, "; it left")
	},
	"oom-daemon-told": func(f *Facts) string {
		return daemonSentence(f, f.OOMDaemon+" killed "+firstName(f)+" in "+where(f), "")
	},
	"sigkill-flagged": func(f *Facts) string {
		return fmt.Sprintf("%s was killed (SIGKILL), and %s calls it OOM-killed; the kernel was not watched, so whether it was is not known.", upper(where(f)), f.engineName(f.Engine))
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
	if before := f.signalled(); c == death.Error && before != "" {
		return "; " + before
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

// engineName is how people write an engine's name.
func (f *Facts) engineName(s death.Source) string {
	switch s {
	case death.SourceDocker:
		if f.Container != nil && f.Container.Runtime == "podman" {
			return "podman"
		}
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

// Spell is a duration as people say it.
func Spell(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 100*time.Millisecond:
		return span(d)
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

// daemonSentence ends what is said of a program that frees memory.
func daemonSentence(f *Facts, did, then string) string {
	s := did + ", to free memory before the kernel must"
	if f.DaemonWhy != "" {
		s += " (" + shorten(death.Printable(f.DaemonWhy), 300) + ")"
	}
	s += then
	if f.Ended {
		s += "; the container ended"
	}
	return s + "."
}
