// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"time"
)

// defaultGrace is how long engines wait for a container to stop, where they
// were told nothing else; late is how much later they may send SIGKILL, or the
// container's end may be told.
const (
	defaultGrace = 10 * time.Second
	late         = 2 * time.Second
)

func (s *Stop) grace() time.Duration {
	if s.Grace == nil {
		return defaultGrace
	}
	return time.Duration(*s.Grace) * time.Second
}

// inTime tells whether the container ended within the grace period of a stop,
// or whenever the stop was done.
func (s *Stop) inTime() bool {
	return s != nil && !s.At.IsZero() && (s.Confirmed || s.End.Sub(s.At) <= s.grace()+late)
}

// ranOut tells whether SIGKILL came when the grace period was over.
func (s *Stop) ranOut() bool {
	waited := s.KilledAt.Sub(s.At)
	return !s.At.IsZero() && waited >= s.grace()-late/4 && waited <= s.grace()+late
}

// Matters tells whether the end may be due to what the engine was asked.
func (s *Stop) Matters() bool { return s.inTime() || s != nil && !s.KilledAt.IsZero() }

// SoonAfter is how long a program may take to end after it was told to.
const SoonAfter = 30 * time.Second

// sureTimeout tells whether a stop's time ran out, and not somebody's patience.
func (f *Facts) sureTimeout() bool {
	if f.Stop.Done {
		return f.KillerIsRuntime
	}
	return f.Stop.Confirmed && f.Stop.ranOut()
}

// endedOnRequest tells whether the container ended by a signal that an engine
// was asked to send.
func (f *Facts) endedOnRequest() bool {
	a := f.Asked
	return a != nil && (f.endedBy(a.Signal) || asksToEnd(a.Signal) && a.Before <= defaultGrace+late && !f.sigkilled())
}

// signalled says what signal came soon before the end, which may be due to it;
// empty: none is known.
func (f *Facts) signalled() string {
	if a := f.Asked; a != nil {
		return fmt.Sprintf("%s had been asked to send it %s %s before", f.engineName(a.Engine), SignalName(a.Signal), Spell(a.Before))
	}
	for i := len(f.Sent) - 1; i >= 0; i-- {
		if s := &f.Sent[i]; s.Before <= SoonAfter && !s.Ignored {
			return fmt.Sprintf("%s had sent it %s %s before", senderName(&s.Killer), SignalName(s.Signal), Spell(s.Before))
		}
	}
	return ""
}

// asksToEnd tells whether a signal asks a program to end.
func asksToEnd(n int) bool { return n == 15 || n == 2 || n == 3 }

func signalOr(n int) string {
	if n == 0 {
		return "a signal"
	}
	return SignalName(n)
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
	if s := f.stopSent(); s != nil {
		return SignalName(s.Signal)
	}
	if f.Stop != nil && f.Stop.Signal != 0 {
		return SignalName(f.Stop.Signal)
	}
	return SignalName(15)
}

func adviseKilledOnRequest(f *Facts) []string {
	return []string{"Ask who told " + f.engineName(f.Stop.Engine) + " to: its log and its events have the time; raising memory limits will not help."}
}
