// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"slices"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// A death is told with what held when it happened: what engines say of the
// container later, under another name or of another run, is no news of it.

const (
	// maxNamings and maxRuns bound what is remembered of one container.
	maxNamings = 4
	maxRuns    = 8
	// notedLate is how much later than its end the start of a run may be noted
	// that was over at once. The next one is no sooner.
	notedLate = 100 * time.Millisecond
)

// naming is what a container is called, since a time.
type naming struct {
	at       time.Time
	name     string
	workload *death.Workload
}

// oneRun is one run of a container, and how often it had been restarted by then.
type oneRun struct {
	started  time.Time
	restarts int
}

// renamed notes what t is called from now on. What a greater engine says was
// true before, too.
func (t *tenant) renamed(at time.Time, greater bool) {
	if n := len(t.namings); n > 0 && t.namings[n-1].name == t.Name && !greater {
		t.namings[n-1].workload = t.Workload
		return
	}
	if greater {
		t.namings = nil
	}
	t.namings = slices.DeleteFunc(t.namings, func(o naming) bool { return !o.at.Before(at) })
	t.namings = append(t.namings, naming{at, t.Name, t.Workload})
	if len(t.namings) > maxNamings {
		t.namings = slices.Delete(t.namings, 0, 1)
	}
}

// calledAt is what t was called at a time.
func (t *tenant) calledAt(at time.Time) (string, *death.Workload) {
	for i := len(t.namings) - 1; i >= 0; i-- {
		if x := t.namings[i]; i == 0 || !x.at.After(at) {
			return x.name, x.workload
		}
	}
	return t.Name, t.Workload
}

// The states of ContainerSeen that matter here.
const (
	stateRestarting = "restarting"
	stateCreated    = "created"
)

// ran notes the restarts before a run. What is said first of a run is kept.
func (t *tenant) ran(b signal.ContainerSeen) {
	n := b.Container.RestartCount
	if n == nil || b.Started.IsZero() || b.State == stateCreated || b.State == "" && b.PID == 0 {
		return // not known of which run it tells
	}
	if slices.ContainsFunc(t.runs, func(r oneRun) bool { return r.started.Equal(b.Started) }) {
		return
	}
	restarts := *n
	if b.State == stateRestarting {
		restarts = max(0, restarts-1) // the one that it waits for is counted
	}
	t.runs = append(t.runs, oneRun{b.Started, restarts})
	if len(t.runs) > maxRuns {
		t.runs = slices.Delete(t.runs, 0, 1)
	}
}

// restartsBefore is how often the container had been restarted when the run
// began in which c happened; nil: not known.
func (t *tenant) restartsBefore(c *caseFile) *int {
	if t.rank != engineRank(death.SourceDocker) {
		return t.RestartCount // other engines make each run another container
	}
	var its *oneRun
	for i := range t.runs {
		r := &t.runs[i]
		if !c.words.started.IsZero() && r.started.Equal(c.words.started) {
			return &r.restarts
		}
		if r.started.Before(c.ranSince) || r.started.After(c.endTime().Add(notedLate)) {
			continue
		}
		if its == nil || r.started.After(its.started) {
			its = r
		}
	}
	if its == nil {
		return nil
	}
	return &its.restarts
}

// dressAsOf names the container of c as engines did when it happened.
func (t *tenant) dressAsOf(c *caseFile, d *death.Container) *death.Container {
	out := t.dress(d)
	name, workload := t.calledAt(c.endTime())
	if d.Name == "" {
		out.Name, out.Workload = name, workload
	}
	if out.RestartCount = d.RestartCount; out.RestartCount == nil {
		if n := t.restartsBefore(c); n != nil {
			out.RestartCount = new(*n)
		}
	}
	return out
}
