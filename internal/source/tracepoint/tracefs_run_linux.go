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

func (t *tracefs) run(ctx context.Context, emit func(signal.Signal)) error {
	defer t.interrupt(ctx)()
	// A CPU that is not there says so at once for ever: it sits out until
	// the next round, it may be plugged in.
	fds := make([]unix.PollFd, len(t.cpus)+1)
	fds[0] = unix.PollFd{Fd: int32(t.wake), Events: unix.POLLIN}
	var clock host.BootClock
	var due time.Time
	var batch []entry
	for ctx.Err() == nil {
		now := time.Now()
		if !now.Before(due) {
			var err error
			if clock, err = t.clock(); err != nil {
				return err
			}
			due = now.Add(housekeeping)
			for i, fd := range t.cpus {
				fds[i+1] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
			}
		}
		_, err := unix.Poll(fds, int(time.Until(due)/time.Millisecond)+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		batch = batch[:0]
		for i := range fds[1:] {
			fd := &fds[i+1]
			switch {
			case fd.Revents&unix.POLLIN != 0:
				if batch, err = t.read(int(fd.Fd), batch, emit); err != nil {
					return err
				}
			case fd.Revents != 0:
				fd.Fd = -1
			}
			fd.Revents = 0
		}
		// Each CPU has a stream of its own.
		slices.SortStableFunc(batch, func(a, b entry) int { return cmp.Compare(a.ns, b.ns) })
		for _, e := range batch {
			t.take(e, clock, emit)
		}
	}
	return nil
}

// read takes what one CPU has, bounded, and appends it to batch.
func (t *tracefs) read(fd int, batch []entry, emit func(signal.Signal)) ([]entry, error) {
	for range 64 {
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
			emit(stamp(time.Now(), signal.Lost{Count: lost, Why: "trace buffer overran"}))
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
