// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/sink/kubeevents"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

// sinks tell others of deaths, beside history and metrics. Each has a queue of
// its own, and waits for nobody but whom it tells.
type sinks struct {
	events *kubeevents.Sink // nil: switched off, or no API
}

// openSinks makes the sinks that the options ask for. known are the deaths of
// earlier runs.
func (a *Agent) openSinks(known []death.Death) {
	if a.opts.Sink.KubeEvents {
		a.sinks.events = kubeevents.New(kubeevents.Options{Kubeconfig: a.opts.Source.Kubeconfig, Node: a.node, Logger: a.log})
	}
	if e := a.sinks.events; e != nil {
		e.Remember(known)
		a.keeper.tell = e.Take
	}
}

// runSinks runs them until the returned function is called, which lets them
// tell what they have.
func (a *Agent) runSinks(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var told sync.WaitGroup
	if e := a.sinks.events; e != nil {
		told.Go(func() { e.Run(ctx) })
	}
	return func() {
		cancel()
		told.Wait()
	}
}

// sinkStats lists the sinks for the metrics.
func (a *Agent) sinkStats() []metrics.SinkStat {
	out := []metrics.SinkStat{a.keeper.stat()}
	if e := a.sinks.events; e != nil {
		st := e.Stat()
		out = append(out, metrics.SinkStat{Sink: kubeevents.Name, Up: st.Up, QueueLength: st.QueueLength, Dropped: st.Dropped, Errors: st.Errors})
	}
	return out
}
