// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// end is one end of a container, by what tells it from another.
type end struct {
	at time.Time
	by map[death.Source]time.Time // who told of it, and when
	// finished is the time that an engine's answer has for it.
	finished time.Time
	pid      int  // of its first process; 0: not known
	code     *int // as an engine would tell it; nil: not known
	// restored is one that an earlier run of the agent told.
	restored bool
}

// match says how well an end fits what a source tells.
type match int

const (
	anotherEnd match = iota
	mayBeItsEnd
	itsEnd
)

// asEnd is what c tells of an end.
func (c *caseFile) asEnd() end {
	e := end{at: c.endTime(), by: c.by, finished: c.words.finished, pid: c.initPID(), restored: c.prior != nil}
	if x := c.exit; x != nil && !c.inRuntime() {
		e.code = exitCode(x.Code, x.Signal)
	}
	return e
}

// exitCode is a code, or that by which engines tell a signal.
func exitCode(code, sig *int) *int {
	if code == nil && sig != nil {
		return new(128 + *sig)
	}
	return code
}

// matches tells whether e is the end that s tells, with what b says of it.
func (q *Inquest) matches(e end, s signal.Signal, b signal.ContainerExit) match {
	apart := s.Time.Sub(e.at).Abs()
	if at, said := e.by[s.Source]; said {
		if at.Equal(s.Time) || e.restored && s.Recovered && answers(s, b) && !s.Time.After(at.Add(slack)) {
			return itsEnd
		}
		return anotherEnd
	}
	if e.pid != 0 && b.PID != 0 {
		if e.pid == b.PID && apart <= samePID {
			return itsEnd
		}
		return anotherEnd
	}
	if apart > endSkew || e.at.Before(q.first) && !q.proves(e, s, b) {
		return anotherEnd
	}
	return mayBeItsEnd
}

// answers tells whether s is an engine's answer, which is of a container's last
// end: of none before one that the engine has told already.
func answers(s signal.Signal, b signal.ContainerExit) bool {
	return !b.Finished.IsZero() && b.Finished.Equal(s.Time)
}

// proves tells whether s may be of e, an end before this run of the agent, by
// more than that it is near: engines start again what has ended.
func (q *Inquest) proves(e end, s signal.Signal, b signal.ContainerExit) bool {
	switch {
	case e.code != nil && b.Code != nil && *e.code != *b.Code:
		return false
	case !b.Started.IsZero():
		return !b.Started.After(e.at.Add(afterEnd)) // one run has one end
	}
	return !q.inThisRun(s) || !e.restored && s.Source != death.SourceTracepoint
}

// inThisRun tells whether s is of a time in this run of the agent.
func (q *Inquest) inThisRun(s signal.Signal) bool { return !s.Recovered && s.Time.After(q.first) }

// outlived tells whether c is of before this run of the agent, and s of a time
// in it: the kernel's word of something new.
func (q *Inquest) outlived(c *caseFile, s signal.Signal) bool {
	return c.endTime().Before(q.first) && q.inThisRun(s)
}

// awaitsEngine tells whether an engine is still to say how c's container ended:
// on a machine that is short of time it comes long after the kernel.
func (q *Inquest) awaitsEngine(c *caseFile) bool {
	if !c.ended || c.words.told || c.prior != nil || q.now.Sub(c.observed) > wordFor {
		return false
	}
	t := q.tenantOf(c)
	if t == nil || !t.goneAt.IsZero() {
		return false
	}
	for _, src := range [...]death.Source{death.SourceDocker, death.SourceContainerd, death.SourceCRI} {
		if q.up[src] && t.has&setOf(src) != 0 {
			return true
		}
	}
	return false
}

// rememberEnd keeps the end of a case that is let go.
func (q *Inquest) rememberEnd(c *caseFile) {
	if !c.ended || c.container == nil {
		return
	}
	t := q.tenantOf(c)
	if t == nil {
		return
	}
	if c.by == nil {
		c.by = map[death.Source]time.Time{}
	}
	t.ends = append(t.ends, c.asEnd())
	if len(t.ends) > maxEnds {
		t.ends = append(t.ends[:0:0], t.ends[len(t.ends)-maxEnds:]...)
	}
}

// endWasTold tells whether s, with what b says of it, speaks of an end whose
// case was let go.
func (q *Inquest) endWasTold(t *tenant, s signal.Signal, b signal.ContainerExit) bool {
	if t == nil {
		return false
	}
	for _, e := range t.ends {
		if q.matches(e, s, b) != anotherEnd {
			e.by[s.Source] = s.Time
			q.stats.Late++
			return true
		}
	}
	return false
}
