// SPDX-License-Identifier: Apache-2.0

package agent

import (
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
		}
	case signal.ContainerSeen:
		if c, _ := p.q.Tenant(b.Namespace, b.Container.ID); c != nil && c.Cgroup != "" {
			p.rec.Watch(signal.Cgroup{Path: c.Cgroup})
		}
	case signal.CgroupGone:
		p.rec.Forget(b.Cgroup)
	case signal.Exit:
		if b.Task.Init != nil && *b.Task.Init {
			p.rec.ReadNow(b.Task.Cgroup)
		}
	}
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
func (r *roster) memory(figures []recorder.Figure) []metrics.Memory {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]metrics.Memory, 0, len(figures))
	for _, f := range figures {
		l := r.byKey[r.byPath[f.Path]]
		if l == nil {
			continue // a pod's own, that only holds its namespaces
		}
		out = append(out, metrics.Memory{
			Container: l.Container, WorkingSetBytes: f.Reading.WorkingSetBytes, UsageBytes: f.Reading.UsageBytes,
			LimitBytes: f.LimitBytes, PeakBytes: f.PeakBytes, LimitETASeconds: f.LimitETASeconds,
		})
	}
	return out
}
