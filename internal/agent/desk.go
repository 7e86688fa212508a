// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/recorder"
	"github.com/coroner-dev/coroner/internal/signal"
)

// How much is looked up at once. Of more namespaces there is no answer.
const (
	maxNamespaces = 64
	maxPodsAsked  = 16
	maxNodesAsked = 2 // apart from pods: where many end at once it has its turn, too
)

// desk answers what the inquest asks: a container's memory, what it wrote last,
// whose a pid namespace is, what an OOM daemon said, what Kubernetes noted of a
// pod.
type desk struct {
	recorder *recorder.Recorder
	escapes  *recorder.Escapes
	words    *words
	daemons  *daemonWords
	spaces   *lookups
	pods     *lookups
	node     *lookups
	events   eventful // nil: nobody asks Kubernetes
	log      *slog.Logger
}

// eventful is a source that can be asked for a pod's events.
type eventful interface {
	Events(ctx context.Context, pod death.Pod, at time.Time) signal.PodEvents
}

// newDesk makes the desk of p, which takes its answers.
func newDesk(o Options, bootID string, p *pipeline, sources []source) *desk {
	d := &desk{
		recorder: recorder.New(recorder.Options{Roots: o.Path, Logger: o.Logger}),
		escapes:  recorder.NewEscapes(recorder.EscapesOptions{Roots: o.Path, Logger: o.Logger, Containers: p.homes.list, Found: p.escaped}),
		words:    newWords(o.Path, p.emit, o.Logger),
		daemons:  newDaemonWords(o.Path, bootID, p.emit),
		spaces:   newLookups(p.emit, maxNamespaces),
		pods:     newLookups(p.emit, maxPodsAsked),
		node:     newLookups(p.emit, maxNodesAsked),
		log:      o.Logger,
	}
	for _, s := range sources {
		if e, ok := s.(eventful); ok {
			d.events = e
		}
	}
	p.rec, p.soon, p.ask = d.recorder, d.escapes.Soon, d.ask
	return d
}

// ask begins to look up what is wanted, and never waits. An answer that is
// there already, or that none is looked for, is returned.
func (d *desk) ask(w inquest.Want) *signal.Signal {
	switch w.Kind {
	case inquest.WantMemory:
		return memoryOf(d.recorder, w)
	case inquest.WantNamespace:
		d.spaces.find(func(context.Context) *signal.Signal { return d.namespace(w) })
		return nil
	case inquest.WantEvents:
		return d.askEvents(w, d.pods)
	case inquest.WantNodeEvents:
		return d.askEvents(w, d.node)
	case inquest.WantDaemon:
		return d.daemons.ask(w)
	}
	return d.words.ask(w)
}

// namespace says whose a pid namespace is; nil: nobody's that is known. Each
// container is looked at for that.
func (d *desk) namespace(w inquest.Want) *signal.Signal {
	of, since, known := d.escapes.Namespace(w.PIDNS)
	if !known {
		return nil
	}
	return &signal.Signal{Time: w.At, Observed: time.Now(), Source: death.SourceCgroup, Body: signal.PIDNamespace{PIDNS: w.PIDNS, Cgroup: of.Cgroup, Since: since}}
}

// askEvents asks Kubernetes what it noted of a pod, or of the node.
func (d *desk) askEvents(w inquest.Want, l *lookups) (refused *signal.Signal) {
	told := func(b signal.PodEvents) *signal.Signal {
		now := time.Now()
		return &signal.Signal{Time: now, Observed: now, Source: w.Source, Body: b}
	}
	why := "nobody asks Kubernetes"
	if d.events != nil {
		if l.find(func(ctx context.Context) *signal.Signal { return told(d.events.Events(ctx, w.Pod, w.At)) }) {
			return nil
		}
		why = fmt.Sprintf("too many at once: %d are asked about already", cap(l.slots))
	}
	return told(signal.PodEvents{UID: w.Pod.UID, At: w.At, Error: why})
}

// run records and looks until ctx ends.
func (d *desk) run(ctx context.Context) {
	var work sync.WaitGroup
	work.Go(func() {
		if err := d.recorder.Run(ctx); err != nil {
			d.log.Warn("containers' memory is not recorded", "err", err)
		}
	})
	work.Go(func() {
		if err := d.escapes.Run(ctx); err != nil {
			d.log.Warn("processes outside of their containers are not looked for", "err", err)
		}
	})
	work.Wait()
}

// close has no more answers given. The queue that takes them must still be read.
func (d *desk) close() {
	for _, l := range d.lookups() {
		l.end()
	}
}

func (d *desk) lookups() []*lookups {
	return []*lookups{d.words.lookups, d.daemons.lookups, d.spaces, d.pods, d.node}
}

// wait returns when nothing is looked up any more: a file system that hangs
// keeps it waiting, so all else comes first.
func (d *desk) wait() {
	for _, l := range d.lookups() {
		l.wait()
	}
}
