// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"sync"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Observe runs the sources alone and gives each signal to emit, until ctx ends
// and all have stopped. emit is called from several goroutines.
func Observe(ctx context.Context, o Options, emit func(signal.Signal)) {
	ObserveStarted(ctx, o, emit, func([]api.SourceStatus) {})
}

// ObserveStarted is Observe that says when each source watches, or knows that
// it cannot.
func ObserveStarted(ctx context.Context, o Options, emit func(signal.Signal), started func([]api.SourceStatus)) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	sup := newSupervisor(o.Logger)
	sources := newSources(o, position{})
	sup.enable(sources)
	var wg sync.WaitGroup
	for _, s := range sources {
		wg.Go(func() { sup.run(ctx, s, emit) })
	}
	sup.started(ctx, sources)
	started(sup.status())
	wg.Wait()
}
