// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// maxKnown bounds the threads that are remembered for their mark, maxThreads
// those of one process.
const (
	maxKnown   = 4096
	maxThreads = 256
)

// otherPages is how much of the events of others is read at once.
const otherPages = 2

// reading is the state of run.
type reading struct {
	fds   []unix.PollFd // the first breaks poll
	clock host.BootClock
	due   time.Time // of housekeeping
	// absent are the files of CPUs that are not there: they say so at once for
	// ever, so they sit out until the next housekeeping, when they may be.
	absent map[int]bool
	batch  []entry
}

func (t *tracefs) run(ctx context.Context, emit func(signal.Signal)) error {
	defer t.interrupt(ctx)()
	r := &reading{fds: []unix.PollFd{{Fd: int32(t.wake), Events: unix.POLLIN}}, absent: map[int]bool{}}
	for _, b := range t.bufs {
		r.fds = append(r.fds, make([]unix.PollFd, len(b.cpus))...)
	}
	for ctx.Err() == nil {
		now := time.Now()
		if !now.Before(r.due) {
			var err error
			if r.clock, err = t.clock(); err != nil {
				return err
			}
			r.due = now.Add(housekeeping)
			clear(r.absent)
			t.tellHeldBack(emit)
		}
		until := t.ask(r, now)
		_, err := unix.Poll(r.fds, pollTimeout(time.Until(until)))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		fds := r.fds[1:]
		for i := range t.bufs {
			b := &t.bufs[i]
			if err := t.round(r, b, fds[:len(b.cpus)], emit); err != nil {
				return err
			}
			fds = fds[len(b.cpus):]
		}
	}
	return nil
}

// pollTimeout is d in poll(2)'s milliseconds, rounded up. A thread that was off
// the CPU comes with less than nothing, which poll would take for ever.
func pollTimeout(d time.Duration) int {
	return int((max(0, d) + time.Millisecond - 1) / time.Millisecond)
}

// ask says which buffers poll is to wait for, and until when.
func (t *tracefs) ask(r *reading, now time.Time) (until time.Time) {
	until = r.due
	i := 1
	for _, b := range t.bufs {
		waits := now.Before(b.rest)
		if waits && b.rest.Before(until) {
			until = b.rest
		}
		for _, s := range b.cpus {
			r.fds[i] = unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN}
			if waits || r.absent[s.fd] {
				r.fds[i].Fd = -1
			}
			i++
		}
	}
	return until
}

// round takes what an instance has to tell, in order.
func (t *tracefs) round(r *reading, b *buffer, fds []unix.PollFd, emit func(signal.Signal)) error {
	began := time.Now()
	r.batch = r.batch[:0]
	for i := range fds {
		var err error
		switch got := fds[i].Revents; {
		case got&unix.POLLIN != 0:
			if r.batch, err = t.read(b, b.cpus[i], r.batch, emit); err != nil {
				return err
			}
		case got != 0:
			r.absent[b.cpus[i].fd] = true
		}
	}
	// Each CPU has a stream of its own.
	slices.SortStableFunc(r.batch, func(a, b entry) int { return cmp.Compare(a.ns, b.ns) })
	for _, e := range r.batch {
		t.take(e, r.clock, emit)
	}
	if b.share > 0 && len(r.batch) > 0 {
		now := time.Now()
		b.rest = now.Add(min(time.Duration(b.share-1)*now.Sub(began), housekeeping))
	}
	return nil
}

// read takes what one CPU has, bounded, and appends it to batch.
func (t *tracefs) read(b *buffer, s *stream, batch []entry, emit func(signal.Signal)) ([]entry, error) {
	pages := 64
	if b.other != "" {
		pages = otherPages
	}
	for range pages {
		page := make([]byte, t.layout.size)
		n, err := unix.Read(s.fd, page)
		switch {
		case errors.Is(err, unix.EAGAIN), err == nil && n == 0:
			return batch, nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return batch, fmt.Errorf("read trace buffer: %w", err)
		}
		var lost uint64
		if batch, lost, err = t.layout.parse(page[:n], batch); err != nil {
			t.opts.Logger.Error("parse page of the trace buffer", "err", err)
			emit(stamp(time.Now(), signal.Lost{Count: 1, Other: b.other != "", Why: "page of the trace buffer: " + err.Error()}))
		}
		if lost > 0 {
			lost = s.overwritten(lost)
		}
		if lost > 0 {
			why := "trace buffer overran"
			if b.other != "" {
				why += ": " + b.other
			}
			emit(stamp(time.Now(), signal.Lost{Count: lost, Other: b.other != "", Why: why}))
		}
	}
	return batch, nil
}

// take emits what an event says, with what procfs knows of its tasks.
func (t *tracefs) take(e entry, clock host.BootClock, emit func(signal.Signal)) {
	body, err := t.formats.decode(e.data)
	if err != nil {
		t.opts.Logger.Error("decode event", "err", err)
		emit(stamp(time.Now(), signal.Lost{Count: 1, Why: err.Error()}))
		return
	}
	switch v := body.(type) {
	case nil:
		return
	case signal.Kill:
		if v.Signal != sigKill {
			if v, ok := t.signalled(v); ok {
				emit(stampAt(clock.Wall(time.Duration(e.ns)), time.Now(), v))
			}
			return
		}
		v.Target = mergeVictim(v.Target, t.proc.lookup(v.Target.TID), t.recall(v.Target.TID, e.ns))
		v.Sender = merge(v.Sender, t.proc.lookup(v.Sender.TID), signal.Task{})
		t.remember(v.Target, e.ns)
		body = v
	case signal.MarkVictim:
		v.Victim = mergeVictim(v.Victim, t.proc.lookup(v.Victim.TID), t.recall(v.Victim.TID, e.ns))
		v.Trigger = merge(v.Trigger, t.proc.lookup(v.Trigger.TID), signal.Task{})
		body = v
	}
	emit(stampAt(clock.Wall(time.Duration(e.ns)), time.Now(), body))
}

// signalled completes a signal other than SIGKILL; ok is false for one that is
// not to be told. Of a target that is gone it is not known whether it was a first
// process.
func (t *tracefs) signalled(k signal.Kill) (_ signal.Kill, ok bool) {
	if !t.beats.one(k) {
		return k, false
	}
	tid := k.Target.TID
	k.Target = mergeVictim(k.Target, t.proc.lookup(tid), signal.Task{})
	if k.Target.Init == nil && k.Target.PID != tid {
		k.Target.Init = t.proc.lookup(k.Target.PID).Init // procfs tells it of the first thread alone
	}
	k.Sender = merge(k.Sender, t.proc.lookup(k.Sender.TID), signal.Task{})
	return k, t.beats.learn(k)
}

// tellHeldBack emits how many signals were not told for their number. Those of a
// process to itself are its way to work: runtimes wake their threads so.
func (t *tracefs) tellHeldBack(emit func(signal.Signal)) {
	others, own := t.beats.next()
	if own > 0 {
		t.opts.Logger.Debug(heldBackOwn, "count", own)
	}
	if others > 0 {
		emit(stamp(time.Now(), signal.Lost{Count: others, Other: true, Why: heldBack}))
	}
}

// known is a task as procfs showed it at a SIGKILL.
type known struct {
	task signal.Task
	ns   uint64
}

// remember keeps a target by its thread, and by the others of its process: in
// a group kill a victim that is half gone is marked again by another thread.
func (t *tracefs) remember(task signal.Task, ns uint64) {
	if len(t.known)+maxThreads >= maxKnown {
		clear(t.known)
	}
	for _, tid := range t.proc.threads(task.PID, maxThreads) {
		t.known[tid] = known{task, ns}
	}
	t.known[task.TID] = known{task, ns}
}

// recall returns the task that was killed a moment ago. Much older ones can
// be other tasks with the same id.
func (t *tracefs) recall(tid int, ns uint64) signal.Task {
	k, ok := t.known[tid]
	if !ok || ns-k.ns > uint64(time.Second) {
		return signal.Task{}
	}
	return k.task
}
