// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"strings"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest/verdict"
)

const (
	sigkill = 9
	sigterm = 15
)

// endFacts lays out what is known of the container's end.
func (q *Inquest) endFacts(c *caseFile, f *verdict.Facts) {
	if !c.ended || c.container == nil {
		return
	}
	f.Exit, f.FromKernel, f.First = c.exit, c.told(death.SourceTracepoint), c.first.comm
	f.Fault, f.OOMKilled = c.words.fault, c.words.oomKilled
	f.Engine = c.engine()
	f.NeverRan = c.words.fault != "" && c.words.started.IsZero() && !f.FromKernel && !c.oomKilled
	f.InRuntime = strings.HasPrefix(c.first.comm, runtimeInit)
	f.Waited, f.EndedAt = c.waited, c.endTime()
	if c.log != nil {
		f.LogRead = true
		for _, l := range c.log.Lines {
			f.LogLines = append(f.LogLines, verdict.LogLine{Time: l.Time, Stream: l.Stream, Text: l.Text})
		}
	}
	f.Counted = q.up[death.SourceCgroup] && q.ledger.nodeKnown
	f.Stop = q.stopOf(c)
	q.sentFacts(c, f)
	if t := q.tenantOf(c); t != nil {
		f.ShmSize = t.shmSize
		if !c.oomKilled {
			f.ContainerLimit = t.limit
		}
	}
	f.Unasked = c.told(death.SourceDocker) && q.up[death.SourceDocker] && f.Stop == nil
}

// runtimeInit is what runc and crun call the process that is about to become
// the container's first (libcontainer/nsenter of runc 1.1; crun 1.8).
const runtimeInit = "runc:["

// engine is who told of the end, the one whose names count first.
func (c *caseFile) engine() death.Source {
	var best death.Source
	for src := range c.by {
		if src == death.SourceTracepoint {
			continue
		}
		if best == "" || engineRank(src) > engineRank(best) {
			best = src
		}
	}
	return best
}

// stopOf sums up what engines were asked to do in the run that c ended; nil:
// nothing.
func (q *Inquest) stopOf(c *caseFile) *verdict.Stop {
	asks := q.asksOf(c)
	if len(asks) == 0 {
		return nil
	}
	t := q.tenantOf(c)
	s := &verdict.Stop{Grace: t.grace, End: c.endTime()}
	for _, a := range asks {
		switch {
		case a.Action != actionKill:
			// Told once it is done: it was asked for before.
			s.Engine, s.Restart = a.source, s.Restart || a.Action == actionRestart
			if s.At.IsZero() && s.KilledAt.IsZero() {
				s.At = c.endTime()
			}
		case a.Signal == sigkill:
			if s.KilledAt.IsZero() && !a.at.After(c.endTime().Add(afterAsk)) {
				s.Engine, s.KilledAt = a.source, a.at
			}
		case a.Signal == 0 || t.stopsBy(a.Signal):
			if s.At.IsZero() {
				s.Engine, s.At, s.Signal = a.source, a.at, a.Signal
			}
		}
	}
	if s.Engine == "" {
		return nil // other signals, such as SIGHUP to read a configuration
	}
	return s
}

// The actions of ContainerStop.
const (
	actionKill    = "kill"
	actionRestart = "restart"
)

// stopsBy tells whether a stop sends this signal.
func (t *tenant) stopsBy(n int) bool {
	if t.stopWith != 0 {
		return n == t.stopWith || n == sigterm
	}
	return n == sigterm
}

// askEvidence puts what engines were asked into the evidence.
func (q *Inquest) askEvidence(c *caseFile) []death.Evidence {
	var out []death.Evidence
	for _, a := range q.asksOf(c) {
		text := "the engine was asked to " + death.Printable(a.Action) + " the container"
		switch {
		case a.Action == actionKill && a.Signal != 0:
			text = "the engine sent " + verdict.SignalName(a.Signal) + " to the container, as it was asked"
		case a.Action != actionKill:
			text = "the engine says: " + death.Printable(a.Action) + " done, as it was asked"
		}
		out = append(out, death.Evidence{Time: a.at.UTC(), Source: a.source, Text: text})
	}
	return out
}

// logEvidence is the line of its log that the verdict rests on, in the name of
// the engine that kept it.
func (c *caseFile) logEvidence(l *verdict.LogLine) death.Evidence {
	e := death.Evidence{Time: l.Time.UTC(), Source: c.logFrom, Text: "the container wrote: " + death.Printable(l.Text)}
	if l.Time.IsZero() {
		e.Time = c.endTime().UTC()
	}
	return e
}

// reported says what the engine said of the end, in the words of the CRI, and
// whether that fits the cause.
func (c *caseFile) reported(cause death.Cause) *death.Exit {
	if c.exit == nil {
		return nil
	}
	x := *c.exit
	w := &c.words
	if !w.told {
		return &x
	}
	switch {
	case w.reason != "":
		x.ReportedReason = w.reason
	case w.oomKilled != nil && *w.oomKilled:
		x.ReportedReason = "OOMKilled"
	case w.fault != "" && w.started.IsZero():
		x.ReportedReason = "ContainerCannotRun"
	case w.code == nil:
		return &x
	case *w.code == 0:
		x.ReportedReason = "Completed"
	default:
		x.ReportedReason = "Error"
	}
	if cause != death.Unknown {
		agrees := (x.ReportedReason == "OOMKilled") == cause.OOM()
		x.Agrees = &agrees
	}
	return &x
}
