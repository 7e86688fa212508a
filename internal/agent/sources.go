// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
	"github.com/coroner-dev/coroner/internal/source/cgroup"
	"github.com/coroner-dev/coroner/internal/source/containerd"
	"github.com/coroner-dev/coroner/internal/source/cri"
	"github.com/coroner-dev/coroner/internal/source/docker"
	"github.com/coroner-dev/coroner/internal/source/kmsg"
	"github.com/coroner-dev/coroner/internal/source/kube"
	"github.com/coroner-dev/coroner/internal/source/tracepoint"
)

// source turns the outside into signals until its context ends.
type source interface {
	Name() death.Source
	Run(ctx context.Context, emit func(signal.Signal)) error
}

// rejecter is a source that knows what others than the kernel wrote.
type rejecter interface{ Foreign() uint64 }

// position is how far the kernel's log was read before this run.
type position struct {
	bootID string
	seq    uint64
	// ends is when the last end of a container was told.
	ends time.Time
}

// newSources makes the sources that the options ask for.
// news tells of new containers of pods before their engine does; nil: nobody.
func newSources(o Options, read position, news func() <-chan struct{}) []source {
	var out []source
	if o.Source.Tracepoint {
		out = append(out, tracepoint.New(tracepoint.Options{Roots: o.Path, Logger: o.Logger, Mode: o.Source.TracepointMode}))
	}
	if o.Source.Cgroup {
		out = append(out, cgroup.New(cgroup.Options{Roots: o.Path, Logger: o.Logger}))
	}
	if o.Source.Kmsg {
		device := o.Source.KmsgDevice
		if device == "" {
			device = o.Path.Devkmsg()
		}
		bootID, _ := o.Path.BootID() // without it, what was read before is read again and joined
		out = append(out, kmsg.New(kmsg.Options{
			Path: device, BootID: bootID, Logger: o.Logger, Roots: o.Path, Syslog: o.Source.KmsgDevice == "",
			Since: kmsg.Position{BootID: read.bootID, Seq: read.seq},
		}))
	}
	if o.Source.Docker {
		out = append(out, docker.New(docker.Options{Roots: o.Path, Hosts: o.Source.DockerHosts, Labels: o.Source.Labels, Since: read.ends, Logger: o.Logger}))
	}
	if o.Source.Containerd {
		out = append(out, containerd.New(containerd.Options{Roots: o.Path, Hosts: o.Source.ContainerdHosts, Labels: o.Source.Labels, Logger: o.Logger}))
	}
	if o.Source.CRI {
		out = append(out, cri.New(cri.Options{Roots: o.Path, Endpoints: o.Source.CRIEndpoints, Labels: o.Source.Labels, News: news, Logger: o.Logger}))
	}
	if o.Source.Kube {
		node := o.NodeName
		if node == "" {
			node, _ = o.Path.Hostname() // as the kubelet does
		}
		out = append(out, kube.New(kube.Options{Kubeconfig: o.Source.Kubeconfig, Kubelet: o.Source.Kubelet, KubeletCA: o.Source.KubeletCA, NodeAddress: o.Source.NodeAddress, Node: node, Labels: o.Source.Labels, Since: read.ends, Logger: o.Logger}))
	}
	return out
}

// backoff is how long a source that failed is left alone: from the first,
// doubled each time, to the last.
const (
	backoffFirst = time.Second
	backoffLast  = time.Minute
	// backoffReset is how long a source must have run to start over with
	// the first.
	backoffReset = time.Minute
)

// supervisor keeps sources running and knows how each is doing.
type supervisor struct {
	log   *slog.Logger
	known map[death.Source]*health
}

// health is how one source is doing.
type health struct {
	events, lost, lostOOM, errs atomic.Uint64

	rejected func() uint64 // nil: nobody but the kernel can write there

	mu     sync.Mutex
	state  signal.SourceState
	since  time.Time
	on     bool
	heard  chan struct{} // closed once the source has said how it is
	closed bool
}

// allSources is what a status lists, switched on or not.
func allSources() []death.Source {
	return []death.Source{death.SourceTracepoint, death.SourceKmsg, death.SourceCgroup, death.SourceDocker, death.SourceContainerd, death.SourceCRI, death.SourceKube}
}

// isEngine tells whether a source speaks for a container engine or for
// Kubernetes, which may take their time, or not be there.
func isEngine(s death.Source) bool {
	return s == death.SourceDocker || s == death.SourceContainerd || s == death.SourceCRI || s == death.SourceKube
}

func newSupervisor(log *slog.Logger) *supervisor {
	v := &supervisor{log: log, known: map[death.Source]*health{}}
	for _, name := range allSources() {
		v.known[name] = &health{heard: make(chan struct{})}
	}
	return v
}

// run keeps s running until ctx ends: a source that fails is tried again.
func (v *supervisor) run(ctx context.Context, s source, emit func(signal.Signal)) {
	h := v.known[s.Name()]
	log := v.log.With("component", string(s.Name()))
	counted := func(sig signal.Signal) {
		v.count(h, log, sig)
		emit(sig)
	}
	wait := backoffFirst
	for {
		began := time.Now()
		err := s.Run(ctx, counted)
		if ctx.Err() != nil {
			return
		}
		reason := "it ended"
		if err != nil {
			reason = err.Error()
			h.errs.Add(1)
		}
		if time.Since(began) > backoffReset {
			wait = backoffFirst
		}
		if h.change(signal.SourceState{Reason: reason}) {
			log.Warn("source is down", "err", reason, "retry_in", wait.String())
		}
		emit(signal.Signal{Time: time.Now(), Observed: time.Now(), Source: s.Name(), Body: signal.SourceState{Reason: reason}})
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, backoffLast)
	}
}

func (v *supervisor) count(h *health, log *slog.Logger, s signal.Signal) {
	switch b := s.Body.(type) {
	case signal.SourceState:
		if h.change(b) {
			switch {
			case b.Up:
				log.Info("source is up", "mode", b.Mode, "reason", b.Reason)
			case b.Absent:
				log.Info("nothing to watch", "reason", b.Reason)
			default:
				log.Warn("source is down", "err", b.Reason)
			}
		}
	case signal.Lost:
		h.lost.Add(b.Count)
		if b.Other {
			log.Info("lost signals that are no evidence of an OOM kill", "count", b.Count, "err", b.Why)
			return
		}
		h.lostOOM.Add(b.Count)
		log.Warn("lost evidence", "count", b.Count, "err", b.Why)
	case signal.CgroupSeen, signal.CgroupGone, signal.ContainerSeen, signal.ContainerGone, signal.PodSeen, signal.PodGone, signal.NodeSeen:
		// Cgroups and containers coming and going is no event that somebody waits for.
	case signal.NodeCounters:
		if b.OOMKill > 0 {
			h.events.Add(1)
		}
	default:
		h.events.Add(1)
	}
}

// change notes a new state and tells whether it is news.
func (h *health) change(s signal.SourceState) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.on = true
	news := !h.closed || h.state != s
	if !h.closed || h.state.Up != s.Up {
		h.since = time.Now()
	}
	h.state = s
	if !h.closed {
		h.closed = true
		close(h.heard)
	}
	return news
}

// started waits until each source has said how it is, or ctx ends. Engines are
// not waited for.
func (v *supervisor) started(ctx context.Context, ss []source) {
	for _, s := range ss {
		if isEngine(s.Name()) {
			continue
		}
		select {
		case <-v.known[s.Name()].heard:
		case <-ctx.Done():
			return
		}
	}
}

// enable marks the sources that were not switched off.
func (v *supervisor) enable(ss []source) {
	for _, s := range ss {
		h := v.known[s.Name()]
		h.mu.Lock()
		h.on = true
		h.state.Reason = "starting"
		if r, ok := s.(rejecter); ok {
			h.rejected = r.Foreign
		}
		h.mu.Unlock()
	}
}

// status lists the sources for the API.
func (v *supervisor) status() []api.SourceStatus {
	out := make([]api.SourceStatus, 0, len(v.known))
	for name, h := range v.known {
		h.mu.Lock()
		st := api.SourceStatus{
			Name: name, Enabled: h.on, Up: h.state.Up, Absent: h.state.Absent, Mode: h.state.Mode, Reason: h.state.Reason,
			Since: h.since.UTC(), Events: h.events.Load(), Lost: h.lost.Load(), LostOOMEvidence: h.lostOOM.Load(), Errors: h.errs.Load(),
		}
		if h.rejected != nil {
			st.Rejected = h.rejected()
		}
		h.mu.Unlock()
		if !st.Enabled {
			st.Reason = "switched off by --no-source." + string(name)
		}
		out = append(out, st)
	}
	order := allSources()
	sort.Slice(out, func(i, j int) bool { return indexOf(order, out[i].Name) < indexOf(order, out[j].Name) })
	return out
}

// stats lists the sources for the metrics: one that is switched off, or has
// nothing to watch here, is not down.
func (v *supervisor) stats() []metrics.SourceStat {
	var out []metrics.SourceStat
	for _, s := range v.status() {
		if s.Absent || !s.Enabled {
			continue
		}
		out = append(out, metrics.SourceStat{Source: s.Name, Up: s.Up, Events: s.Events, Lost: s.Lost, LostOOMEvidence: s.LostOOMEvidence, Rejected: s.Rejected, Errors: s.Errors})
	}
	return out
}

func indexOf(in []death.Source, s death.Source) int {
	for i := range in {
		if in[i] == s {
			return i
		}
	}
	return len(in)
}
