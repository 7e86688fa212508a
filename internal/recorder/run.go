// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"context"
	"time"

	"github.com/coroner-dev/coroner/internal/recorder/pattern"
)

const (
	// slots are the parts of a second over which the readings are spread.
	slots   = 10
	slotFor = time.Second / slots
	// slotLoad is how many cgroups a slot takes before the next is used: a
	// wake-up costs as much as 20 readings, and 50 take less than a millisecond.
	slotLoad = 50

	// A cgroup is read in each slot in its first time, and while it would reach
	// its limit soon at the rate between the last two readings. At most so many
	// are.
	denseTime = 2 * time.Second
	soon      = 5 * time.Second
	maxDense  = 32

	// slowFor is how many seconds lie between two readings of the files that are
	// not kept open: to open one costs more than to read all others.
	slowFor = 30

	// budget is what the readings of all cgroups may take in a second, most
	// the longest time, in seconds, between two of one cgroup then.
	budget = 50 * time.Millisecond
	most   = 10
)

// Run records until ctx is done. Only without a memory hierarchy does it end
// before, with an error.
func (r *Recorder) Run(ctx context.Context) error {
	f, err := openFiles(r.opt.Roots)
	if err != nil {
		return err
	}
	if r.opt.noKeep {
		f.keepNone()
	}
	l := &loop{r: r, files: f, slot: -1}
	defer l.close()
	if err := f.listen(r.stalled); err != nil {
		l.rateAlone(err)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.kick:
		case <-timer.C:
		}
		l.tick()
		timer.Stop()
		if next, ok := r.next(); ok {
			timer.Reset(next - r.now())
		}
	}
}

// loop is the state of one Run.
type loop struct {
	r       *Recorder
	files   *files
	slot    int64 // the last that was read
	round   int64
	batch   []*entry
	samples [][3]int64
	refused bool // the kernel's word on who waits for memory
}

// slotFor returns the slot of a new cgroup.
func (r *Recorder) slotFor() int {
	least := 0
	for i := range r.slots {
		if n := len(r.slots[i]); n < slotLoad {
			return i
		} else if n < len(r.slots[least]) {
			least = i
		}
	}
	return least
}

// next is when a slot with cgroups begins.
func (r *Recorder) next() (time.Duration, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := int64(r.now() / slotFor)
	for i := now + 1; i <= now+slots; i++ {
		if len(r.slots[i%slots]) > 0 || len(r.dense) > 0 {
			return time.Duration(i) * slotFor, true
		}
	}
	return 0, false
}

// tick reads what is due: what is new, what is read densely, and the slots
// that began since the last tick.
func (l *loop) tick() {
	r := l.r
	l.round++
	r.mu.Lock()
	now := r.now()
	l.batch = append(l.batch[:0], r.fresh...)
	for i, e := range r.fresh {
		e.fresh, r.fresh[i] = false, nil
	}
	r.fresh = r.fresh[:0]
	slot := int64(now / slotFor)
	began := slot > l.slot
	if began {
		l.keepDense(now)
	}
	for i := max(l.slot, slot-slots) + 1; i <= slot; i++ {
		l.batch = append(l.batch, r.slots[i%slots]...)
	}
	l.slot = slot
	r.mu.Unlock()
	for _, e := range l.batch {
		l.serve(e)
	}
	clear(l.batch)
	l.bury()
}

// keepDense takes those that are still read densely into the batch.
func (l *loop) keepDense(now time.Duration) {
	r := l.r
	kept := r.dense[:0]
	for _, e := range r.dense {
		if e.dense = !e.gone && now < e.denseFor; e.dense {
			kept = append(kept, e)
		}
	}
	clear(r.dense[len(kept):])
	r.dense = kept
	l.batch = append(l.batch, kept...)
}

// bury closes the files of what has gone.
func (l *loop) bury() {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	for i, e := range l.r.closing {
		l.release(e)
		l.ignore(e)
		l.r.closing[i] = nil
	}
	l.r.closing = l.r.closing[:0]
}

// rateAlone says why the kernel does not tell who waits for memory.
func (l *loop) rateAlone(err error) {
	l.r.log.Debug("how fast memory grows alone tells what is read densely", "err", err)
}

// heed has the kernel tell when a cgroup begins to wait for memory. What cannot
// be heeded at one is taken for what cannot be at all.
func (l *loop) heed(e *entry) {
	if e.trigger >= 0 || !l.files.listening() || l.refused {
		return
	}
	fd, err := l.files.trigger(e.cgroup.Path)
	if err != nil {
		if l.refused = !gone(err); l.refused {
			l.rateAlone(err)
		}
		return
	}
	if e.trigger = fd; fd >= 0 {
		l.r.mu.Lock()
		l.r.waiting[fd] = e
		l.r.mu.Unlock()
	}
}

// ignore takes that back. mu is held.
func (l *loop) ignore(e *entry) {
	if e.trigger >= 0 {
		delete(l.r.waiting, e.trigger)
		l.files.untrigger(e.trigger)
		e.trigger = -1
	}
}

func (l *loop) release(e *entry) {
	if e.opened {
		l.files.close(&e.handle, e.kept)
		e.opened, e.kept = false, false
	}
}

// close closes all files; another Run opens them again.
func (l *loop) close() {
	l.bury()
	l.r.mu.Lock()
	for _, e := range l.r.live {
		l.release(e)
		l.ignore(e)
	}
	l.r.mu.Unlock()
	l.files.deaf()
}

// serve reads one cgroup, once in a tick, unless it costs too much to be read
// now.
func (l *loop) serve(e *entry) {
	r := l.r
	began := r.now()
	at := int64(began / time.Second)
	r.mu.Lock()
	isDense, asked := began < e.denseFor, e.asked
	skip := e.gone || e.served == l.round || at < e.due && !isDense
	now, sl := e.last, e.slow
	if e.served = l.round; !skip {
		e.asked = false
	}
	r.mu.Unlock()
	if skip {
		return
	}
	newTen := at/10 != e.tenAt/10
	slowly := asked || e.slowAt < 0 || at-e.slowAt >= slowFor || isDense && at != e.slowAt
	if slowly {
		e.slowAt = at
	}
	err := l.read(e, &now, &sl, slowly, newTen)
	if err != nil {
		l.trouble(e, err, at)
		return
	}
	l.store(e, now, sl, began, slowly)
	if e.tenAt = at; newTen {
		l.judge(e)
	}
}

// read opens the files where needed, and reads them.
func (l *loop) read(e *entry, now *reading, sl *slow, slowly, all bool) error {
	if !e.opened {
		var err error
		if e.handle, e.kept, err = l.files.open(e.cgroup.Path, e.cgroup.ID); err != nil {
			return err
		}
		e.opened = true
	}
	if slowly {
		l.files.readSlow(e.cgroup.Path, sl)
		l.heed(e)
	}
	err := l.files.read(e.handle, now, all || slowly || l.r.opt.busy)
	if !e.kept || err != nil {
		l.release(e)
	}
	return err
}

// every is how many seconds lie between two readings, of n cgroups. What the
// least of three readings took counts: others may have waited for a CPU.
func (e *entry) every(n int) int64 {
	if e.ncosts < len(e.costs) {
		return 1
	}
	least := min(e.costs[0], e.costs[1], e.costs[2])
	return min(1+int64(least)*int64(n)/int64(budget), most)
}

// store keeps a reading; slowly is true where the limit was read too.
func (l *loop) store(e *entry, now reading, sl slow, began time.Duration, slowly bool) {
	r := l.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.gone {
		return
	}
	if e.cgroup.ID == 0 {
		e.cgroup.ID = e.handle.id
	}
	at, first := int64(began/time.Second), !e.series.some
	e.costs[e.ncosts%len(e.costs)] = r.now() - began
	e.ncosts++
	e.due = at + e.every(len(r.live))
	rose, passed := now.workingSet()-e.last.workingSet(), began-e.lastAt
	e.series.add(at, sampleOf(now.workingSet(), now.usage))
	e.last, e.lastAt, e.slow = now, began, sl
	if slowly {
		e.noteLimit(sl.limit, began)
	}
	e.peak = max(e.peak, now.peak, now.usage)
	e.shmem.take(&now, began)

	left := float64(sl.limit - now.workingSet())
	if first || rose > 0 && sl.limit > 0 && left*float64(passed) < float64(rose)*float64(soon) {
		r.readDensely(e, began)
	}
}

// readDensely has a cgroup read in each slot for a while. mu is held.
func (r *Recorder) readDensely(e *entry, now time.Duration) {
	if !e.dense {
		if len(r.dense) >= maxDense {
			return
		}
		r.dense, e.dense = append(r.dense, e), true
	}
	e.denseFor = now + denseTime
}

// judge finds out whether the working set grows, each ten seconds.
func (l *loop) judge(e *entry) {
	r := l.r
	r.mu.Lock()
	l.samples = e.series.appendTo(l.samples[:0], 0)
	limit := e.slow.limit
	r.mu.Unlock()
	g, grows := pattern.Grows(l.samples, limit)
	r.mu.Lock()
	e.growth, e.grows = g, grows
	r.mu.Unlock()
}

// retryFor is how long, in seconds, a cgroup that cannot be read is left alone.
const retryFor = 10

func (l *loop) trouble(e *entry, err error, at int64) {
	r := l.r
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case e.gone:
	case gone(err):
		r.bury(e)
	default:
		e.due, e.denseFor = at+retryFor, -1
		r.stats.Errors++
		if r.once("unreadable") {
			r.log.Warn("memory of a cgroup cannot be read", "path", e.cgroup.Path, "err", err)
		}
	}
}
