// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

func (b *bpf) run(ctx context.Context, emit func(signal.Signal)) error {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		if err := b.ring.Close(); err != nil { // breaks the read below
			b.opts.Logger.Debug("close ring", "err", err)
		}
	})
	defer func() {
		if !stop() {
			<-closed
		}
	}()

	var rec ringbuf.Record
	var clock host.BootClock
	var due time.Time
	for {
		now := time.Now()
		if !now.Before(due) {
			var err error
			if clock, err = host.BoottimeClock(); err != nil {
				return err
			}
			if err := b.tellLost(emit); err != nil && ctx.Err() == nil {
				return err
			}
			due = now.Add(housekeeping)
			b.ring.SetDeadline(due)
		}
		err := b.ring.ReadInto(&rec)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case errors.Is(err, ringbuf.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("read ring: %w", err)
		}
		b.take(rec.RawSample, clock, emit)
	}
}

// take emits what a record says.
func (b *bpf) take(raw []byte, clock host.BootClock, emit func(signal.Signal)) {
	body, ns, err := b.decoder.decode(raw)
	if err != nil {
		// The programs and this file disagree: a mistake of ours.
		b.opts.Logger.Error("decode record", "err", err)
		emit(stamp(time.Now(), signal.Lost{Count: 1, Why: err.Error()}))
		return
	}
	switch v := body.(type) {
	case nil:
		return
	case signal.MarkVictim:
		b.complete(&v.Victim)
		body = v
	case signal.Kill:
		b.complete(&v.Target)
		body = v
	}
	emit(stampAt(clock.Wall(time.Duration(ns)), time.Now(), body))
}

// complete asks procfs for what the kernel could not tell at once: the
// process of a thread that 5.10 marks without having signalled it, the path
// of a cgroup whose record was lost.
func (b *bpf) complete(t *signal.Task) {
	switch {
	case t.PID == 0 && t.TID != 0:
		*t = b.proc.lookup(t.TID)
	case t.Cgroup.ID != 0 && t.Cgroup.Path == "":
		if now := b.proc.lookup(t.TID); now.PID == t.PID {
			t.Cgroup.Path = now.Cgroup.Path
		}
	}
}

// tell says what became of d records of a kind or loss that were not told.
func (b *bpf) tell(kind uint32, d uint64, emit func(signal.Signal)) {
	lost := signal.Lost{Count: d, Other: kind >= kinds, Why: lossNames[kind]}
	switch kind {
	case kindPath: // no signal: procfs stands in
		b.opts.Logger.Warn("ring was full for the paths of cgroups", "count", d)
		return
	case lossOwnRepeat: // its way to work: runtimes wake their threads so
		b.opts.Logger.Debug(heldBackOwn, "count", d)
		return
	case lossRepeat:
	default:
		lost.Why = "no room in the ring for " + lost.Why
	}
	emit(stamp(time.Now(), lost))
}

// tellLost emits what was lost since it was last asked.
func (b *bpf) tellLost(emit func(signal.Signal)) error {
	for kind := uint32(1); kind < losses; kind++ {
		var n uint64
		if err := b.main.Maps[probeMapLost].Lookup(kind, &n); err != nil {
			return fmt.Errorf("read losses: %w", err)
		}
		if d := n - b.seen.lost[kind]; d > 0 {
			b.seen.lost[kind] = n
			b.tell(kind, d, emit)
		}
	}
	// The kernel does not run a program inside itself. What it skipped of the
	// signals need not have been a SIGKILL: the count is the most it can be.
	for i, name := range [...]string{b.markName, probeProgSignalGenerate} {
		stats, err := b.main.Programs[name].Stats()
		if err != nil {
			return fmt.Errorf("read losses of program %s: %w", name, err)
		}
		if d := stats.RecursionMisses - b.seen.missed[i]; d > 0 {
			b.seen.missed[i] = stats.RecursionMisses
			emit(stamp(time.Now(), signal.Lost{Count: d, Why: "kernel skipped the program " + name}))
		}
	}
	return nil
}
