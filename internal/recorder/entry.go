// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"slices"
	"time"

	"github.com/coroner-dev/coroner/internal/signal"
)

// head is the history without its samples. zero is the wall time of the
// clock's zero.
func (e *entry) head(zero time.Time) signal.MemoryHistory {
	h := signal.MemoryHistory{
		Cgroup: e.cgroup, LimitBytes: known(e.slow.limit), PeakBytes: new(e.peak), PeakSampled: e.last.peak == 0,
		First: zero.Add(time.Duration(e.series.first) * time.Second),
	}
	h.Last, h.ShmemBytes = new(e.reading(zero)), e.shmem.at(e.lastAt)
	for _, l := range e.limits {
		h.Limits = append(h.Limits, signal.LimitReading{First: zero.Add(l.first), Last: zero.Add(l.last), Bytes: known(l.bytes)})
	}
	return h
}

// shmemFor is how long the most shared memory counts: an engine takes away a
// container's /dev/shm within moments of its end, before or after that is read.
const shmemFor = 3 * time.Second

// topShmem is the most shared memory of the last seconds.
type topShmem struct {
	bytes int64
	when  time.Duration
	known bool
}

func (t *topShmem) take(r *reading, at time.Duration) {
	if n := r.figure(shmem); n != nil && (!t.known || *n >= t.bytes || at-t.when > shmemFor) {
		*t = topShmem{*n, at, true}
	}
}

// at is the most up to the last reading, at that time; nil: not known.
func (t *topShmem) at(last time.Duration) *int64 {
	if !t.known || last-t.when > shmemFor {
		return nil
	}
	return new(t.bytes)
}

// maxLimits bounds the limits that are remembered of a cgroup.
const maxLimits = 4

// limitRun is a limit, 0 for none, that was read to be the same for a while, of
// the recorder's clock.
type limitRun struct {
	bytes       int64
	first, last time.Duration
}

// noteLimit keeps a reading of the limit.
func (e *entry) noteLimit(bytes int64, at time.Duration) {
	if n := len(e.limits); n > 0 && e.limits[n-1].bytes == bytes {
		e.limits[n-1].last = at
		return
	}
	if len(e.limits) == maxLimits {
		e.limits = append(e.limits[:0], e.limits[1:]...)
	}
	e.limits = append(e.limits, limitRun{bytes, at, at})
}

// reading is the last one as a signal has it.
func (e *entry) reading(zero time.Time) signal.MemoryReading {
	m := signal.MemoryReading{
		Time: zero.Add(e.lastAt), WorkingSetBytes: e.last.workingSet(), UsageBytes: e.last.usage,
		AnonBytes: e.last.figure(anon), FileBytes: e.last.figure(file), ShmemBytes: e.last.figure(shmem),
		KernelBytes: e.last.figure(kernel),
	}
	if e.slow.kernelKnown {
		m.KernelBytes = new(e.slow.kernel)
	}
	if e.slow.pressureKnown {
		m.SomeAvg10 = new(e.slow.pressure)
	}
	return m
}

func (e *entry) figure(now time.Duration, zero time.Time) (Figure, bool) {
	if !e.series.some || now-e.lastAt > stale {
		return Figure{}, false
	}
	f := Figure{Cgroup: e.cgroup, Reading: e.reading(zero), LimitBytes: known(e.slow.limit), PeakBytes: new(e.peak)}
	if !e.grows {
		return f, true
	}
	if s, ok := e.growth.Until(e.last.workingSet(), e.slow.limit); ok {
		f.LimitETASeconds = &s
	}
	return f, true
}

// known is nil for 0.
func known(n int64) *int64 {
	if n == 0 {
		return nil
	}
	return &n
}

const (
	// maxTombs and maxTombBytes bound what is known of cgroups that have gone,
	// tombFor how long; the inquest keeps their names as long.
	maxTombs     = 1024
	maxTombBytes = 4 << 20
	tombFor      = 10 * time.Minute
)

// tombs are cgroups that have gone, the oldest first.
type tombs struct {
	all     []tomb
	bytes   int
	scratch [][3]int64
}

type tomb struct {
	head    signal.MemoryHistory
	samples []packed
	ended   time.Duration
}

// packed is a sample with its unix time.
type packed struct {
	at uint32
	sample
}

func (t *tomb) size() int { return 512 + len(t.head.Path) + 12*cap(t.samples) }

func (ts *tombs) add(e *entry, now time.Duration, zero time.Time, unixZero int64) {
	ts.scratch = e.series.appendTo(ts.scratch[:0], unixZero)
	t := tomb{head: e.head(zero), samples: make([]packed, len(ts.scratch)), ended: now}
	for i, s := range ts.scratch {
		t.samples[i] = packed{uint32(s[0]), sampleOf(s[1], s[2])}
	}
	ts.all = append(ts.all, t)
	ts.bytes += t.size()
	ts.expire(now)
}

// expire drops what is too old and, from the oldest, what is too much.
func (ts *tombs) expire(now time.Duration) {
	n := 0
	for ; n < len(ts.all); n++ {
		t := &ts.all[n]
		if now-t.ended <= tombFor && len(ts.all)-n <= maxTombs && ts.bytes <= maxTombBytes {
			break
		}
		ts.bytes -= t.size()
	}
	if n > 0 {
		ts.all = slices.Delete(ts.all, 0, n)
	}
}

// find returns the one that went last, where several fit.
func (ts *tombs) find(c signal.Cgroup) (signal.MemoryHistory, bool) {
	for i := len(ts.all) - 1; i >= 0; i-- {
		t := &ts.all[i]
		if !same(t.head.Cgroup, c) {
			continue
		}
		h := t.head
		h.Samples = make([][3]int64, len(t.samples))
		for i, s := range t.samples {
			h.Samples[i] = [3]int64{int64(s.at), int64(s.workingSet) * unit, int64(s.usage) * unit}
		}
		return h, true
	}
	return signal.MemoryHistory{}, false
}
