// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync"
	"time"

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
			isNew, runs := p.homes.seen(b.Cgroup, b.InitPID)
			if runs {
				p.soon()
			}
			if c := p.q.Container(b.Path); isNew && c != nil && c.Pod != nil {
				p.arrivals.ring()
			}
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

// seen tells whether this container is new, and whether it is new that it runs.
func (h *homes) seen(c signal.Cgroup, init int) (isNew, runs bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byPath == nil {
		h.byPath = map[string]recorder.Contained{}
	}
	before, known := h.byPath[c.Path]
	if init == 0 {
		init = before.InitPID
	}
	h.byPath[c.Path] = recorder.Contained{Cgroup: c, InitPID: init}
	return !known, init != before.InitPID
}

// bell wakes all who wait for its next ring.
type bell struct {
	mu sync.Mutex
	ch chan struct{}
}

// next is closed by the next ring.
func (b *bell) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
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

// escaped hands on what was found of the processes outside of one container.
func (p *pipeline) escaped(e recorder.Escaped) {
	now := time.Now()
	p.emit(signal.Signal{Time: now, Observed: now, Source: death.SourceCgroup, Body: signal.ProcessesEscaped{
		Cgroup: e.Cgroup, PIDNS: e.PIDNS, Count: e.Count, HeldBytes: e.HeldBytes, Examples: e.Examples,
	}})
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
	for _, e := range a.desk.escapes.Last() {
		out[e.Cgroup.Path] = e.Count
	}
	return out
}
