// SPDX-License-Identifier: Apache-2.0

// Package recorder remembers the memory of each container, second by second,
// up to its death: usage, working set as the kubelet has it, limit and peak,
// and of the last reading also anonymous, file, shared and kernel memory. It
// reads memory.stat, memory.usage_in_bytes and memory.max_usage_in_bytes of
// cgroup v1; memory.stat, memory.current and memory.peak (since Linux 5.19) of
// v2; each half minute also limit, kernel memory (v1) and pressure (v2, since
// 5.2). It is told which cgroups are containers, and knows nothing else of them.
//
// Kept are the highest of each second of the last two minutes and of each ten
// seconds of the last hour: 4 KiB a cgroup, for 4096 of them, and what is known
// of 1024 that have gone, for ten minutes. In its first two seconds, while it
// would reach its limit within five, and from when the kernel says that it waits
// for memory (pressure stall information, v2), a cgroup is read each 100 ms.
//
// Where neither usage nor peak moved since the last reading, memory.stat is read
// each ten seconds only. A reading takes 6 us, and 20 where nothing of it is in
// the caches; with 300 cgroups below and a process that moves among them 0.1 ms,
// at times 8 ms (Linux 6.18, v1). Where it takes long, cgroups are read less
// often, each ten seconds at least, so that all together take 5 % of a CPU.
package recorder

import (
	"log/slog"
	"path"
	"sync"
	"time"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/recorder/pattern"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Options set up a Recorder. The zero value is good for a whole machine.
type Options struct {
	Roots host.Roots
	// Logger is told of what cannot be recorded; nil discards.
	Logger *slog.Logger
	// MaxCgroups bounds how many are recorded at a time; 0: 4096.
	MaxCgroups int

	// noKeep makes a test's machine one that has no file to keep open.
	noKeep bool
	// busy makes its cgroups ones whose usage moves all the time.
	busy bool
}

// Recorder records the cgroups that it is told of while Run runs. Its methods
// can be called from any goroutine, and do no I/O.
type Recorder struct {
	opt  Options
	log  *slog.Logger
	zero time.Time     // of the recorder's clock, at a whole second
	kick chan struct{} // there is something new

	mu      sync.Mutex
	live    map[string]*entry
	slots   [slots][]*entry
	fresh   []*entry       // to be read at once
	dense   []*entry       // read in each slot
	closing []*entry       // gone, with files that may be open
	waiting map[int]*entry // by the file of the trigger that tells when it waits for memory
	ended   tombs
	stats   Stats
	told    map[string]bool // what was logged
}

// entry is one cgroup that lives.
type entry struct {
	cgroup   signal.Cgroup
	slot, at int // where it is in slots
	gone     bool

	series   series
	last     reading
	lastAt   time.Duration // of the recorder's clock
	slow     slow
	limits   []limitRun // one after the other
	peak     int64      // the highest usage seen, or the kernel's own
	shmem    topShmem
	growth   pattern.Growth
	grows    bool
	fresh    bool          // among those that are read at once
	asked    bool          // to be read whole
	dense    bool          // among those that are read densely
	denseFor time.Duration // until then
	due      int64         // second before which it is not read, but densely
	costs    [3]time.Duration
	ncosts   int
	served   int64 // the last tick

	// Only Run uses what follows.
	handle       handle
	opened, kept bool
	trigger      int   // -1: none
	slowAt       int64 // second of the last reading of the slow; -1: never
	tenAt        int64 // and of any
}

// Stats are counts of a Recorder.
type Stats struct {
	// Recorded are the cgroups that are recorded now, Ended those that have
	// gone and are still known.
	Recorded, Ended int
	// Refused counts those that were too many, Errors the readings that the
	// kernel refused or that were not understood.
	Refused, Errors uint64
	// Triggers are the cgroups of which the kernel tells when they begin to
	// wait for memory, Stalls counts how often it did.
	Triggers int
	Stalls   uint64
	// Seldom are those read less often than each second, for what a reading
	// of them costs.
	Seldom int
}

// New returns a Recorder; nothing is read before Run.
func New(opt Options) *Recorder {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.MaxCgroups <= 0 {
		opt.MaxCgroups = 4096
	}
	now := time.Now()
	return &Recorder{
		opt:  opt,
		log:  opt.Logger.With("component", "recorder"),
		zero: now.Add(-time.Duration(now.Nanosecond())),
		kick: make(chan struct{}, 1),
		live: map[string]*entry{}, waiting: map[int]*entry{},
		told: map[string]bool{},
	}
}

// Watch begins to record a cgroup, at once. It may be told again. Another ID
// at the same path is another cgroup: the one before has gone.
func (r *Recorder) Watch(c signal.Cgroup) {
	if path.Clean(c.Path) != c.Path || !path.IsAbs(c.Path) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.live[c.Path]; e != nil {
		if c.ID == 0 || e.cgroup.ID == 0 || c.ID == e.cgroup.ID {
			return
		}
		r.bury(e)
	}
	if len(r.live) >= r.opt.MaxCgroups {
		r.stats.Refused++
		if r.once("full") {
			r.log.Warn("memory is not recorded of more cgroups", "path", c.Path)
		}
		return
	}
	e := &entry{cgroup: c, slot: r.slotFor(), denseFor: -1, trigger: -1, slowAt: -1, tenAt: -10}
	e.at = len(r.slots[e.slot])
	r.slots[e.slot] = append(r.slots[e.slot], e)
	r.live[c.Path] = e
	r.readSoon(e)
}

// ReadNow has a cgroup read at once, out of its turn: something happened in
// it, its first process ended, and it may be gone in a moment.
func (r *Recorder) ReadNow(c signal.Cgroup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.find(c); e != nil {
		e.asked = true
		r.readSoon(e)
	}
}

// readSoon wakes Run for a cgroup. mu is held.
func (r *Recorder) readSoon(e *entry) {
	e.due = 0
	if !e.fresh {
		r.fresh, e.fresh = append(r.fresh, e), true
	}
	r.wake()
}

// Forget says that a cgroup has gone. What is known of it stays a while.
func (r *Recorder) Forget(c signal.Cgroup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.find(c); e != nil {
		r.bury(e)
		r.wake()
	}
}

// History returns what is known of a cgroup up to now, or up to its end. It is
// found by its path, its ID or both.
func (r *Recorder) History(c signal.Cgroup) (signal.MemoryHistory, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if e := r.find(c); e != nil && e.series.some {
		h := e.head(r.wall(now, 0))
		h.Samples = e.series.appendTo(make([][3]int64, 0, seconds+tens), r.unixZero(now))
		return h, true
	}
	r.ended.expire(now)
	return r.ended.find(c)
}

// Figure is what is true of one cgroup now.
type Figure struct {
	signal.Cgroup
	// Reading is the last one.
	Reading signal.MemoryReading
	// LimitBytes is nil where there is none. PeakBytes is the most that was
	// used, or sampled where the kernel keeps no peak.
	LimitBytes, PeakBytes *int64
	// LimitETASeconds is the time until the working set reaches the limit at
	// the present rate; nil where it does not grow (pattern.Grows).
	LimitETASeconds *float64
}

// stale is how old a reading may be to be a figure of now.
const stale = 30 * time.Second

// Figures returns those of all cgroups that live and were read lately, in no order.
func (r *Recorder) Figures() []Figure {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	zero := r.wall(now, 0)
	out := make([]Figure, 0, len(r.live))
	for _, e := range r.live {
		if f, ok := e.figure(now, zero); ok {
			out = append(out, f)
		}
	}
	return out
}

// Live returns the figures of one cgroup that lives.
func (r *Recorder) Live(c signal.Cgroup) (Figure, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if e := r.find(c); e != nil {
		return e.figure(now, r.wall(now, 0))
	}
	return Figure{}, false
}

// Stats returns the counts up to now.
func (r *Recorder) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Recorded, s.Ended, s.Triggers = len(r.live), len(r.ended.all), len(r.waiting)
	for _, e := range r.live {
		if e.every(len(r.live)) > 1 {
			s.Seldom++
		}
	}
	return s
}

// find returns the cgroup that lives and is meant, nil where there is none.
func (r *Recorder) find(c signal.Cgroup) *entry {
	if c.Path != "" {
		if e := r.live[c.Path]; e != nil && same(e.cgroup, c) {
			return e
		}
		return nil
	}
	for _, e := range r.live {
		if c.ID != 0 && e.cgroup.ID == c.ID {
			return e
		}
	}
	return nil
}

// same tells whether two names can be of one cgroup: what both know is equal,
// and they have something in common.
func same(a, b signal.Cgroup) bool {
	id, at := a.ID != 0 && b.ID != 0, a.Path != "" && b.Path != ""
	return (id || at) && (!id || a.ID == b.ID) && (!at || a.Path == b.Path)
}

// bury makes a cgroup one that has gone.
func (r *Recorder) bury(e *entry) {
	delete(r.live, e.cgroup.Path)
	in := r.slots[e.slot]
	in[e.at] = in[len(in)-1]
	in[e.at].at = e.at
	in[len(in)-1] = nil
	r.slots[e.slot] = in[:len(in)-1]
	e.gone = true
	r.closing = append(r.closing, e)
	if e.series.some {
		now := r.now()
		r.ended.add(e, now, r.wall(now, 0), r.unixZero(now))
	}
}

func (r *Recorder) wake() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// once tells the first trouble of a kind from the others. mu is held.
func (r *Recorder) once(kind string) bool {
	first := !r.told[kind]
	r.told[kind] = true
	return first
}

// now is the recorder's clock, which only goes forward.
func (r *Recorder) now() time.Duration { return time.Since(r.zero) }

// stalled has a cgroup read at once and densely: the kernel says that it begins
// to wait for memory.
func (r *Recorder) stalled(fd int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.waiting[fd]; e != nil && !e.gone {
		r.stats.Stalls++
		e.asked = true
		r.readDensely(e, r.now())
		r.readSoon(e)
	}
}

// wall turns a time of the recorder's clock into wall time, as the wall clock
// goes now.
func (r *Recorder) wall(now, at time.Duration) time.Time {
	return time.Now().Round(0).UTC().Add(at - now)
}

// unixZero is the unix time of the clock's zero. Where the wall clock was set
// by a part of a second, it is the nearest.
func (r *Recorder) unixZero(now time.Duration) int64 { return r.wall(now, 0).Round(time.Second).Unix() }
