// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"slices"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/recorder"
	"github.com/coroner-dev/coroner/internal/signal"
)

// say takes the state that an engine tells. What it says of before is late.
func (l *living) say(at time.Time, state string) {
	if state != "" && !at.Before(l.stateAt) {
		l.state, l.stateAt = state, at
	}
}

// stopped takes the end of a run. An engine that was asked at that very end
// may have said more: that it will be started again.
func (l *living) stopped(at time.Time) {
	if runs, _ := phase(l.state); runs || at.After(l.stateAt) {
		l.say(at, stateExited)
	}
}

// stateNow is what an engine that still has it says; empty: not known.
func (l *living) stateNow() string {
	if !l.engine {
		return ""
	}
	return l.state
}

// alive tells whether one is there and has not ended: as docker ps lists them.
func (l *living) alive() bool {
	if !l.gone.IsZero() {
		return false
	}
	switch l.stateNow() {
	case "", stateRunning, statePaused, stateRestarting:
		return true
	}
	return false
}

// find lists those that q selects.
func (r *roster) find(q api.ContainersQuery) []api.Container {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expire()
	var out []api.Container
	for _, l := range r.byKey {
		if !q.Matches(&l.Container) || !q.All && !l.alive() {
			continue
		}
		c := l.show()
		out = append(out, api.Container{Container: c.Container, State: l.stateNow(), Restarts: c.Restarts, Removed: c.Removed})
	}
	return out
}

// containers lists the containers that q selects, with what they hold. The
// samples are of a single one.
func (a *Agent) containers(q api.ContainersQuery) []api.Container {
	figures := map[string]recorder.Figure{}
	for _, f := range a.desk.recorder.Figures() {
		figures[f.Path] = f
	}
	escaped := a.escaped()
	out := a.pipe.living.find(q)
	for i := range out {
		x := &out[i]
		if f, known := figures[x.Cgroup]; known && x.Cgroup != "" {
			x.Memory = memoryNow(f)
		}
		if n, known := escaped[x.Cgroup]; known && x.Cgroup != "" {
			x.EscapedProcesses = &n
		}
	}
	slices.SortFunc(out, func(a, b api.Container) int {
		return cmp.Or(cmp.Compare(podName(a.Pod), podName(b.Pod)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	if len(out) == 1 && q.Container != "" && out[0].Memory != nil {
		if h, known := a.desk.recorder.History(signal.Cgroup{Path: out[0].Cgroup}); known {
			out[0].Memory.Samples = h.Samples
		}
	}
	return out
}

func podName(p *death.Pod) string {
	if p == nil {
		return ""
	}
	return p.Namespace + "/" + p.Name
}

func memoryNow(f recorder.Figure) *api.ContainerMemory {
	return &api.ContainerMemory{
		WorkingSetBytes: f.Reading.WorkingSetBytes, UsageBytes: f.Reading.UsageBytes, LimitBytes: f.LimitBytes, PeakBytes: f.PeakBytes,
		AnonBytes: f.Reading.AnonBytes, FileBytes: f.Reading.FileBytes, ShmemBytes: f.Reading.ShmemBytes, KernelBytes: f.Reading.KernelBytes,
		LimitETASeconds: f.LimitETASeconds,
	}
}
