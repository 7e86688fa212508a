// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/nodemap"
	"github.com/coroner-dev/coroner/internal/signal"
)

// factsFresh is how long what was read of the node's memory is good enough for
// who asks, trendFresh for a sample of it; at least: reading it takes a fiftieth of
// the time at most, and a sample a two-hundredth.
const (
	factsFresh = time.Second
	trendFresh = nodemap.Interval / 2
	factsShare = 50
	trendShare = 200
)

// nodeDesk knows where the node's memory is.
type nodeDesk struct {
	node   string
	roots  host.Roots
	living *roster
	shares *shares
	// seen is the node as Kubernetes told of it last; nil: it did not.
	seen func() *signal.NodeSeen
	// settings are the kubelet's; nil: nobody asks for them.
	settings *kubeletSettings
	// leastHistory is nodemap's; 0: its default.
	leastHistory time.Duration
	log          *slog.Logger

	reading sync.Mutex // one reads at a time
	last    nodemap.Facts
	took    time.Duration // to read them

	mu     sync.Mutex
	trend  nodemap.Trend
	silent bool // that it cannot be read was said
}

// run remembers the figures of the last minutes until ctx ends.
func (d *nodeDesk) run(ctx context.Context) {
	d.sample(ctx)
	timer := time.NewTimer(nodemap.Interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			began := time.Now()
			d.sample(ctx)
			timer.Reset(max(nodemap.Interval, trendShare*time.Since(began)))
		}
	}
}

func (d *nodeDesk) sample(ctx context.Context) {
	f, err := d.facts(false, trendFresh)
	if err == nil {
		d.ask(ctx, f, 0)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		if !d.silent {
			d.log.Warn("the node's memory is not known", "err", err)
		}
		d.silent = true
		return
	}
	d.trend.Add(nodemap.SampleOf(f))
}

// facts reads what the kernel tells, or takes what it told just now.
func (d *nodeDesk) facts(tasks bool, fresh time.Duration) (nodemap.Facts, error) {
	d.reading.Lock()
	defer d.reading.Unlock()
	known := d.last.Tasks != nil || d.last.TasksWhy != ""
	if !d.last.Time.IsZero() && time.Since(d.last.Time) < max(fresh, factsShare*d.took) && (known || !tasks) {
		return d.last, nil
	}
	began := time.Now()
	f, err := nodemap.Read(d.roots)
	if err != nil {
		return f, err
	}
	if tasks {
		f.ReadTasks(d.roots)
	}
	d.last, d.took = f, time.Since(began)
	return f, nil
}

// ask has the kubelet tell its settings, on a node of Kubernetes.
func (d *nodeDesk) ask(ctx context.Context, f nodemap.Facts, fresh time.Duration) {
	k := f.Kubepods
	if k == nil {
		return
	}
	limit := int64(0)
	if k.LimitBytes != nil {
		limit = *k.LimitBytes
	}
	d.settings.refresh(ctx, limit, fresh)
}

// told is what is known from Kubernetes of the node.
func (d *nodeDesk) told() *nodemap.NodeFacts {
	var k nodemap.NodeFacts
	k.Kubelet, k.KubeletWhy = d.settings.get()
	if n := d.seen(); n != nil {
		k.CapacityBytes, k.AllocatableBytes = n.Capacity.MemoryBytes, n.Allocatable.MemoryBytes
	}
	return &k
}

// Map is the whole map as it is now.
func (d *nodeDesk) Map(ctx context.Context) (api.NodeMap, error) {
	f, err := d.facts(true, factsFresh)
	if err != nil {
		return api.NodeMap{}, err
	}
	d.ask(ctx, f, settingsFresh)
	in := nodemap.Input{Node: d.node, Facts: f, Kubernetes: d.told(), LeastHistory: d.leastHistory}
	in.Pods, in.Containers = d.shares.of(d.living.find(api.ContainersQuery{}))
	d.mu.Lock()
	in.Before = d.trend.Oldest()
	d.mu.Unlock()
	return nodemap.Build(in), nil
}

// figures are what the metrics show; none where they cannot be read.
func (d *nodeDesk) figures() map[string]int64 {
	f, err := d.facts(false, factsFresh)
	if err != nil {
		return nil
	}
	return nodemap.Figures(f, d.told())
}
