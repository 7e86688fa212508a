// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/inquest/verdict"
	"github.com/coroner-dev/coroner/internal/lastwords"
	"github.com/coroner-dev/coroner/internal/signal"
)

const (
	// maxAsked bounds the logs that are open or waited for at once. Each holds
	// a file, and up to 2 MiB while it is read.
	maxAsked = 256
	// drainFor is how long an engine has to write down what a container said
	// last. A busy one has up to drainMost, until it wrote nothing for quietFor.
	drainFor  = 500 * time.Millisecond
	drainMost = 3 * time.Second
	quietFor  = 250 * time.Millisecond
	// afterEnd is how much later than the end a line may be stamped.
	afterEnd = time.Second
	// readLimit is how long a log may take to be read, its turn included.
	readLimit = 3 * time.Second
)

// openLog is the log of one container.
type openLog interface {
	// Written is when it was last written to.
	Written() time.Time
	Read(ctx context.Context, a lastwords.Ask) signal.ContainerLog
	Close() error
}

// words reads what containers wrote last, for the inquest that wants to know.
// The log is opened at once, for an engine may remove it with the container,
// and read when the engine has had time to write it.
type words struct {
	open func(path string) (openLog, error)
	log  *slog.Logger
	turn chan struct{} // of one: logs are read one after the other

	*lookups
}

func newWords(roots host.Roots, emit func(signal.Signal), log *slog.Logger) *words {
	r := &lastwords.Reader{Roots: roots, Keep: verdict.KeepLogLine, Long: verdict.LongLog}
	return &words{
		open: func(path string) (openLog, error) { return r.Open(path) },
		log:  log, turn: make(chan struct{}, 1), lookups: newLookups(emit, maxAsked),
	}
}

// ask begins to look up what is wanted, and never waits. Where there are too
// many at once, the answer is returned.
func (w *words) ask(want inquest.Want) (refused *signal.Signal) {
	if w.find(func(ctx context.Context) *signal.Signal { return w.look(ctx, want) }) {
		return nil
	}
	return answer(want, signal.ContainerLog{ID: want.ContainerID, At: want.At, Error: fmt.Sprintf("too many at once: %d logs are read already", maxAsked)})
}

// look reads one log.
func (w *words) look(ctx context.Context, want inquest.Want) *signal.Signal {
	failed := signal.ContainerLog{ID: want.ContainerID, At: want.At}
	l, err := w.open(want.LogPath)
	if err != nil {
		w.log.Debug("log of a container", "container_id", want.ContainerID, "path", want.LogPath, "err", err)
		failed.Error = err.Error()
		return answer(want, failed)
	}
	defer func() { _ = l.Close() }()
	if drain(ctx, l) != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		failed.Error = fmt.Sprintf("read log: no turn in %v, others are slow", readLimit)
		return answer(want, failed)
	}
	a := lastwords.Ask{ContainerID: want.ContainerID, At: want.At, Since: want.Since}
	if !want.At.IsZero() {
		a.Until = want.At.Add(afterEnd)
	}
	return answer(want, l.Read(ctx, a))
}

// drain waits until an engine has written what it still had; an error: ctx
// ended before.
func drain(ctx context.Context, l openLog) error {
	waited := time.Duration(0)
	for next := drainFor; ; next = quietFor {
		select {
		case <-time.After(next):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if waited += next; waited >= drainMost || time.Since(l.Written()) >= quietFor {
			return nil
		}
	}
}

func answer(want inquest.Want, body signal.ContainerLog) *signal.Signal {
	now := time.Now()
	return &signal.Signal{Time: now, Observed: now, Source: want.Source, Body: body}
}
