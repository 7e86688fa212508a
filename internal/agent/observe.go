// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"sync"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Record runs what an agent runs up to its inquest, and gives each signal to
// write, the answers to what the inquest asks among them, until ctx ends and
// all have stopped. The same signals in the same order give the same deaths.
func Record(ctx context.Context, o Options, write func(signal.Signal)) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	node, _ := o.Path.Hostname() // the deaths themselves go nowhere
	boot, _ := o.Path.BootID()
	p := newPipeline(inquest.New(inquest.Options{Node: node, BootID: boot, Settle: o.Inquest.Settle, TombstoneTTL: o.Inquest.TombstoneTTL}), func(progress) {})
	p.fed = write
	sources := newSources(o, position{}, p.arrivals.next)
	d := newDesk(o, boot, p, sources)
	var thought, watched sync.WaitGroup
	thought.Go(p.run)
	watched.Go(func() { d.run(ctx) })
	observe(ctx, o, sources, p.emit, func([]api.SourceStatus) {})
	watched.Wait()
	d.close()
	close(p.in)
	thought.Wait()
	d.wait()
}

// ObserveStarted runs the sources alone and gives each signal to emit, until
// ctx ends and all have stopped. emit is called from several goroutines.
// started is told when each source watches, or knows that it cannot.
func ObserveStarted(ctx context.Context, o Options, emit func(signal.Signal), started func([]api.SourceStatus)) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	observe(ctx, o, newSources(o, position{}, nil), emit, started)
}

// observe runs sources until ctx ends.
func observe(ctx context.Context, o Options, sources []source, emit func(signal.Signal), started func([]api.SourceStatus)) {
	sup := newSupervisor(o.Logger)
	sup.enable(sources)
	var wg sync.WaitGroup
	for _, s := range sources {
		wg.Go(func() { sup.run(ctx, s, emit) })
	}
	sup.started(ctx, sources)
	started(sup.status())
	wg.Wait()
}
