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

// otherShare bounds the time for the events of others to one part in so many:
// each costs a dozen files of procfs, and processes may send as many as they
// like. otherPages is how much of them is read at once.
const (
	otherShare = 4
	otherPages = 2
)

// reading is the state of run.
type reading struct {
	fds   []unix.PollFd // the first breaks poll
	clock host.BootClock
	due   time.Time // of housekeeping
	// others is when the events of others may be read again.
	others time.Time
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
		}
		until := t.ask(r, now)
		_, err := unix.Poll(r.fds, int(time.Until(until)/time.Millisecond)+1)
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

// ask says which buffers poll is to wait for, and until when.
func (t *tracefs) ask(r *reading, now time.Time) (until time.Time) {
	until = r.due
	i := 1
	for _, b := range t.bufs {
		waits := b.other && now.Before(r.others)
		if waits && r.others.Before(until) {
			until = r.others
		}
		for _, fd := range b.cpus {
			r.fds[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
			if waits || r.absent[fd] {
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
			r.absent[b.cpus[i]] = true
		}
	}
	// Each CPU has a stream of its own.
	slices.SortStableFunc(r.batch, func(a, b entry) int { return cmp.Compare(a.ns, b.ns) })
	for _, e := range r.batch {
		t.take(e, r.clock, emit)
	}
	if b.other && len(r.batch) > 0 {
		now := time.Now()
		r.others = now.Add(min((otherShare-1)*now.Sub(began), housekeeping))
	}
	return nil
}

// read takes what one CPU has, bounded, and appends it to batch.
func (t *tracefs) read(b *buffer, fd int, batch []entry, emit func(signal.Signal)) ([]entry, error) {
	pages := 64
	if b.other {
		pages = otherPages
	}
	for range pages {
		page := make([]byte, t.layout.size)
		n, err := unix.Read(fd, page)
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
			lost++
		}
		if lost > 0 {
			why := "trace buffer overran"
			if b.other {
				why += ": SIGKILLs that are not the OOM killer's"
			}
			emit(stamp(time.Now(), signal.Lost{Count: lost, Other: b.other, Why: why}))
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
