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
	f.InRuntime = c.inRuntime()
	f.NeverRan = c.words.fault != "" && c.words.started.IsZero() && (!f.FromKernel || f.InRuntime) && !c.oomKilled
	f.Waited, f.EndedAt = c.waited, c.endTime()
	if c.log != nil {
		f.LogRead = true
		for _, l := range c.log.Lines {
			f.LogLines = append(f.LogLines, verdict.LogLine{Time: l.Time, Stream: l.Stream, Text: l.Text})
		}
	}
	f.Counted = q.countersSay(c)
	f.Stop, f.Asked = q.stopOf(c), q.askedOf(c)
	q.sentFacts(c, f)
	if t := q.tenantOf(c); t != nil {
		f.Program, f.ShmSize, f.RequestBytes = t.program, t.shmSize, t.request
		if !c.oomKilled {
			f.ContainerLimit = t.limit
		}
	}
	f.Unasked = q.unasked(c, f)
}

// podman is the runtime of its containers.
const podman = "podman"

// runtimeInit is what runc and crun call the process that is about to become
// the container's first (libcontainer/nsenter of runc 1.1; crun 1.8).
const runtimeInit = "runc:["

// inRuntime tells whether a first process of this name had not become the
// container's own program yet.
func inRuntime(comm string) bool { return strings.HasPrefix(comm, runtimeInit) }

// inRuntime tells whether c's first process ended while it was the runtime's.
func (c *caseFile) inRuntime() bool {
	for _, p := range c.procs {
		if c.first.comm == "" && p.Init != nil && *p.Init && inRuntime(p.Comm) {
			return true
		}
	}
	return inRuntime(c.first.comm)
}

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
	if w.code != nil && c.inRuntime() {
		x.Signal = nil // how the runtime's process ended
	}
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
	case w.code == nil, w.oomKilled == nil && c.told(death.SourceDocker):
		return &x // Docker has a flag of it, which was not seen: it started again
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
