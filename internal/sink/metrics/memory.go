// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"slices"

	dto "github.com/prometheus/client_model/go"

	"github.com/coroner-dev/coroner/internal/death"
)

// Memory is what a container holds now.
type Memory struct {
	Container                   death.Container
	WorkingSetBytes, UsageBytes int64
	// Nil: there is none, or it is not known.
	LimitBytes, PeakBytes *int64
	// LimitETASeconds is nil where it does not grow.
	LimitETASeconds *float64
	// Escaped are processes of it outside its cgroup; nil: not known.
	Escaped *int
}

// memory shows what the living containers hold. Of several with one name the
// one that holds most is shown.
func (g *gatherer) memory() []*dto.MetricFamily {
	if g.m.opts.Memory == nil {
		return nil
	}
	all := g.m.opts.Memory()
	held := make(map[owner]*Memory, len(all))
	for i := range all {
		c := &all[i]
		o := ownerOf(&c.Container)
		if other, twice := held[o]; twice && other.WorkingSetBytes >= c.WorkingSetBytes || len(held) >= g.m.opts.MaxSeries {
			continue
		}
		held[o] = c
	}
	owners := make([]owner, 0, len(held))
	for o := range held {
		owners = append(owners, o)
	}
	slices.SortFunc(owners, func(a, b owner) int {
		return cmp.Or(cmp.Compare(a.container, b.container), cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.pod, b.pod))
	})
	workingSet, usage, limit, peak, eta := family(memoryWorkingSet), family(memoryUsage), family(memoryLimit), family(memoryPeak), family(memoryETA)
	escaped := family(escapedProcesses)
	for _, f := range []*dto.MetricFamily{workingSet, usage, limit, peak} {
		f.Metric = make([]*dto.Metric, 0, len(held))
	}
	for _, o := range owners {
		c, pairs := held[o], g.owners.of(o)
		gauge := func(f *dto.MetricFamily, v float64) { f.Metric = append(f.Metric, gauge(pairs, v)) }
		gauge(workingSet, float64(c.WorkingSetBytes))
		gauge(usage, float64(c.UsageBytes))
		if c.LimitBytes != nil {
			gauge(limit, float64(*c.LimitBytes))
		}
		if c.PeakBytes != nil {
			gauge(peak, float64(*c.PeakBytes))
		}
		if c.Escaped != nil {
			gauge(escaped, float64(*c.Escaped))
		}
		if c.LimitETASeconds != nil {
			gauge(eta, *c.LimitETASeconds)
		}
	}
	return slices.DeleteFunc([]*dto.MetricFamily{workingSet, usage, limit, peak, eta, escaped}, func(f *dto.MetricFamily) bool { return len(f.Metric) == 0 })
}
