// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest/verdict"
	"github.com/coroner-dev/coroner/internal/recorder/pattern"
	"github.com/coroner-dev/coroner/internal/signal"
)

const (
	// askMemoryAfter is how long after a death the memory before it is asked
	// for: the recorder reads once more when a container ends.
	askMemoryAfter = 200 * time.Millisecond
	// curveEach is how often the same container's curve is told: in a storm of
	// kills one says it for many.
	curveEach = 10 * time.Second
	// recentPoints of a curve are each of a second, the same number is spread
	// over what was before.
	recentPoints = 60
)

// wantMemory asks once for the memory of each open case's container.
func (q *Inquest) wantMemory() {
	for _, c := range q.cases {
		if !c.memoryAsked.IsZero() || c.prior != nil || c.revision == 0 || c.container == nil || c.container.Cgroup == "" || c.recovered || q.now.Sub(c.observed) < askMemoryAfter {
			continue
		}
		if len(q.wants) >= maxWants {
			return
		}
		c.memoryAsked = c.endTime()
		q.wants = append(q.wants, Want{Kind: WantMemory, ContainerID: c.container.ID, Cgroup: c.container.Cgroup, CgroupID: q.containerCgroupID(c), At: c.memoryAsked})
	}
}

// containerCgroupID is the number of the container's own cgroup; 0: not known.
func (q *Inquest) containerCgroupID(c *caseFile) uint64 {
	if c.taskMemcg == c.container.Cgroup {
		return c.cgroupID
	}
	return 0
}

// memoryHistory takes the answer to WantMemory, for the case that was asked about:
// of a run that was over at once the recorder may have known nothing.
func (q *Inquest) memoryHistory(s signal.Signal, b signal.MemoryHistory) {
	var its *caseFile
	for _, c := range q.cases {
		if c.memoryAsked.IsZero() || c.memory != nil || c.container == nil || c.container.Cgroup != b.Path {
			continue
		}
		if its == nil || c.memoryAsked.Sub(s.Time).Abs() < its.memoryAsked.Sub(s.Time).Abs() {
			its = c
		}
	}
	if its == nil {
		q.stats.Late++
		return
	}
	its.memory = q.remember(its, &b)
	q.touchNames(its)
}

// remember takes what a death keeps of its container's memory.
func (q *Inquest) remember(c *caseFile, b *signal.MemoryHistory) *death.Memory {
	m := &death.Memory{LimitBytes: b.LimitBytes}
	if b.PeakBytes != nil && *b.PeakBytes > 0 { // else it was read before anything ran
		m.PeakBytes, c.kernelPeak = b.PeakBytes, b.PeakBytes
	}
	limit := int64(0)
	if b.LimitBytes != nil {
		limit = *b.LimitBytes
	}
	m.Pattern, c.growth = pattern.Tell(b.Samples, limit)
	c.figures(b)
	if last, told := q.curves[c.container.Cgroup]; told && q.now.Sub(last) < curveEach && !c.ended {
		return m
	}
	if len(q.curves) > maxSeries {
		clear(q.curves)
	}
	q.curves[c.container.Cgroup] = q.now
	for _, s := range thin(b.Samples) {
		m.Samples = append(m.Samples, [3]float64{float64(s[0]), float64(s[1]), float64(s[2])})
	}
	return m
}

// figures takes what the rules ask for.
func (c *caseFile) figures(b *signal.MemoryHistory) {
	for _, s := range b.Samples {
		if c.peak == nil || s[1] > *c.peak {
			c.peak = &s[1]
		}
	}
	if b.Last != nil {
		c.shmem = b.Last.ShmemBytes
	}
	if b.ShmemBytes != nil {
		c.shmem = b.ShmemBytes
	}
	c.limits = b.Limits
}

// thin leaves of a curve its last minute, and as many points of what was
// before, each the highest of its time.
func thin(samples [][3]int64) [][3]int64 {
	old := len(samples) - recentPoints
	if old <= recentPoints {
		return samples
	}
	out := make([][3]int64, 0, 2*recentPoints)
	for i := range recentPoints {
		part := samples[i*old/recentPoints : (i+1)*old/recentPoints]
		top := part[0]
		for _, s := range part[1:] {
			if s[1] > top[1] {
				top = s
			}
		}
		out = append(out, top)
	}
	return append(out, samples[old:]...)
}

// memoryFacts says what is known of the container's memory.
func (c *caseFile) memoryFacts(f *verdict.Facts) {
	f.PeakBytes, f.ShmBytes = c.peak, c.shmem
	f.LeakPerSecond, f.LeakedFor = c.growth.BytesPerSecond, c.growth.Window
	if f.ContainerLimit == nil && c.memory != nil {
		f.ContainerLimit = c.memory.LimitBytes
	}
	// Between two samples only the kernel looked. Its figure has the page cache
	// in it, which alone may fill a container up to its limit.
	if p, limit := c.kernelPeak, f.ContainerLimit; p != nil && limit != nil && *p < *limit {
		f.PeakBytes = p
	}
}

// memoryRecord is what the death tells of the container's memory; nil: nothing.
func (c *caseFile) memoryRecord(f *verdict.Facts) *death.Memory {
	if c.memory == nil && f.ContainerLimit == nil && f.RequestBytes == nil {
		return nil
	}
	m := death.Memory{RequestBytes: f.RequestBytes}
	if c.memory != nil {
		m = *c.memory
		m.RequestBytes = f.RequestBytes
	}
	if f.ContainerLimit != nil {
		m.LimitBytes = f.ContainerLimit
	}
	// What the kernel found at the kill, the recorder may not have seen yet.
	if n := f.UsageBytes; n != nil && c.memory != nil && c.container != nil && f.OOMMemcg != "" && f.OOMMemcg == c.container.Cgroup &&
		(m.PeakBytes == nil || *m.PeakBytes < *n) {
		m.PeakBytes = n
	}
	return &m
}
