// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/recorder"
	"github.com/coroner-dev/coroner/internal/signal"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

// observed is what the recorder is told as signals come.
func (p *pipeline) observed(s signal.Signal) {
	if p.rec == nil {
		return
	}
	switch b := s.Body.(type) {
	case signal.CgroupSeen:
		if p.q.IsContainer(b.Path) {
			p.rec.Watch(b.Cgroup)
			p.homes.seen(b.Cgroup, b.InitPID)
		}
	case signal.ContainerSeen:
		if c, _ := p.q.Tenant(b.Namespace, b.Container.ID); c != nil && c.Cgroup != "" {
			p.rec.Watch(signal.Cgroup{Path: c.Cgroup})
		}
	case signal.CgroupGone:
		p.rec.Forget(b.Cgroup)
		p.homes.gone(b.Cgroup)
	case signal.Exit:
		if b.Task.Init != nil && *b.Task.Init {
			p.rec.ReadNow(b.Task.Cgroup)
		}
	}
}

// homes are the containers' own cgroups with their first processes, also those
// of sandboxes: of all it is looked whether processes live outside.
type homes struct {
	mu     sync.Mutex
	byPath map[string]recorder.Contained
}

func (h *homes) seen(c signal.Cgroup, init int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byPath == nil {
		h.byPath = map[string]recorder.Contained{}
	}
	if init == 0 {
		init = h.byPath[c.Path].InitPID
	}
	h.byPath[c.Path] = recorder.Contained{Cgroup: c, InitPID: init}
}

func (h *homes) gone(c signal.Cgroup) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at := h.byPath[c.Path].Cgroup; at.ID == c.ID || at.ID == 0 || c.ID == 0 {
		delete(h.byPath, c.Path)
	}
}

func (h *homes) list() []recorder.Contained {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]recorder.Contained, 0, len(h.byPath))
	for _, c := range h.byPath {
		if c.InitPID != 0 {
			out = append(out, c)
		}
	}
	return out
}

// memoryOf answers what the inquest wants to know of a container's memory.
func memoryOf(rec *recorder.Recorder, w inquest.Want) *signal.Signal {
	h, known := rec.History(signal.Cgroup{ID: w.CgroupID, Path: w.Cgroup})
	if !known && w.CgroupID != 0 {
		h, known = rec.History(signal.Cgroup{Path: w.Cgroup})
	}
	if !known {
		return nil
	}
	h.Path = w.Cgroup
	return &signal.Signal{Time: w.At, Observed: time.Now(), Source: death.SourceCgroup, Body: h}
}

// memory gives each living container what the recorder knows of its cgroup.
func (r *roster) memory(figures []recorder.Figure, escaped map[string]int) []metrics.Memory {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]metrics.Memory, 0, len(figures))
	for _, f := range figures {
		l := r.byKey[r.byPath[f.Path]]
		if l == nil {
			continue // a pod's own, that only holds its namespaces
		}
		m := metrics.Memory{
			Container: l.Container, WorkingSetBytes: f.Reading.WorkingSetBytes, UsageBytes: f.Reading.UsageBytes,
			LimitBytes: f.LimitBytes, PeakBytes: f.PeakBytes, LimitETASeconds: f.LimitETASeconds,
		}
		if n, known := escaped[f.Path]; known {
			m.Escaped = &n
		}
		out = append(out, m)
	}
	return out
}

// escaped counts the processes outside of each container, by its cgroup.
func (a *Agent) escaped() map[string]int {
	out := map[string]int{}
	for _, e := range a.escapes.Last() {
		out[e.Cgroup.Path] = e.Count
	}
	return out
}

// containers lists the containers that q selects, with what they hold. The
// samples are of a single one.
func (a *Agent) containers(q api.ContainersQuery) []api.Container {
	figures := map[string]recorder.Figure{}
	for _, f := range a.recorder.Figures() {
		figures[f.Path] = f
	}
	escaped := a.escaped()
	var out []api.Container
	for _, c := range a.pipe.living.list() {
		if !q.Matches(&c.Container) {
			continue
		}
		x := api.Container{Container: c.Container, Restarts: c.Restarts, Removed: c.Removed}
		if f, known := figures[c.Cgroup]; known && c.Cgroup != "" {
			x.Memory = memoryNow(f)
		}
		if n, known := escaped[c.Cgroup]; known && c.Cgroup != "" {
			x.EscapedProcesses = &n
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b api.Container) int {
		return cmp.Or(cmp.Compare(podName(a.Pod), podName(b.Pod)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	if len(out) == 1 && q.Container != "" && out[0].Memory != nil {
		if h, known := a.recorder.History(signal.Cgroup{Path: out[0].Cgroup}); known {
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
