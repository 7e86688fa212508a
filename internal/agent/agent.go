// SPDX-License-Identifier: Apache-2.0

// Package agent wires one node's coroner: sources into the inquest, its deaths
// into history and metrics, and both onto the network.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/history"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/recorder"
	"github.com/coroner-dev/coroner/internal/signal"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

// restoreWindow and restoreLimit bound the deaths of an earlier run that are
// made known to the inquest at start.
const (
	restoreWindow = 7 * 24 * time.Hour
	restoreLimit  = 4096
)

// Agent watches one node.
type Agent struct {
	opts    Options
	log     *slog.Logger
	node    string
	kernel  string
	bootID  string
	began   time.Time
	store   *history.Store
	metrics *metrics.Metrics
	sup     *supervisor
	pipe    *pipeline
	words   *words

	recorder *recorder.Recorder
	escapes  *recorder.Escapes
	keeper   *keeper
	figures  figures
	read     position
	carried  carried
	serve    *server
}

// carried is what earlier runs counted.
type carried struct {
	// kills of the machine up to the moment at which its own counter, which
	// begins with the boot, stood at vmstat.
	kills, vmstat uint64
	unattributed  uint64
}

// carry goes on from what the last run wrote. What the kernel counted since
// then, while no agent ran, counts too.
func carry(state map[string]string, bootID string, vmstat uint64) carried {
	c := carried{vmstat: vmstat, unattributed: number(state[stateUnattributed])}
	if _, ranBefore := state[stateNodeKills]; !ranBefore {
		return c
	}
	c.kills = number(state[stateNodeKills]) + vmstat
	if last := number(state[stateVMStat]); state[stateBootID] == bootID && last <= vmstat {
		c.kills -= last
	}
	return c
}

// New prepares an agent: it opens the history and the listeners, and watches
// nothing yet. A history that cannot be used is no reason not to watch: deaths
// are then kept in memory, and the status says why.
func New(ctx context.Context, o Options) (*Agent, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Agent{opts: o, log: o.Logger, node: o.NodeName, began: time.Now()}
	a.identify()
	listeners, err := listen(ctx, o.Web)
	if err != nil {
		return nil, err
	}
	if err := a.openHistory(ctx); err != nil {
		closeAll(listeners)
		return nil, err
	}
	a.sup = newSupervisor(a.log)
	a.metrics = metrics.New(metrics.Options{
		Version: o.Version, Revision: o.Revision, Log: a.log,
		Sources:    a.sup.stats,
		Sinks:      func() []metrics.SinkStat { return []metrics.SinkStat{a.keeper.stat()} },
		Node:       a.nodeStat,
		Containers: func() []metrics.Container { return a.pipe.living.list() },
		Memory:     func() []metrics.Memory { return a.pipe.living.memory(a.recorder.Figures(), a.escaped()) },
	})
	if err := a.wire(ctx); err != nil {
		closeAll(listeners)
		return nil, errors.Join(err, a.store.Close())
	}
	if a.serve, err = a.newServer(listeners); err != nil {
		closeAll(listeners)
		return nil, errors.Join(err, a.store.Close())
	}
	a.keeper.publish = a.serve.broker.Publish
	return a, nil
}

// identify finds out where this is.
func (a *Agent) identify() {
	var err error
	if a.node == "" {
		if a.node, err = a.opts.Path.Hostname(); err != nil {
			a.log.Warn("host name is not known", "err", err)
		}
	}
	if a.kernel, err = a.opts.Path.KernelRelease(); err != nil {
		a.log.Warn("kernel release is not known", "err", err)
	}
	if a.bootID, err = a.opts.Path.BootID(); err != nil {
		a.log.Warn("boot id is not known: a reboot cannot be told from a restart", "err", err)
	}
}

func (a *Agent) openHistory(ctx context.Context) error {
	h := a.opts.History
	store, err := history.Open(ctx, h.Path, history.Options{
		Retention: h.Retention, MaxBytes: h.MaxBytes, Logger: a.log, Standby: true,
	})
	if err != nil {
		return fmt.Errorf("open history: %w", err)
	}
	if n := store.Notice(); n != "" {
		a.log.Warn("history begun anew", "reason", n)
	}
	a.store = store
	return nil
}

// wire builds the flow from what the history remembers.
func (a *Agent) wire(ctx context.Context) error {
	state, err := a.store.State(ctx)
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	vmstat, err := a.opts.Path.NodeOOMKills()
	if err != nil {
		a.log.Warn("the machine's own count of OOM kills is not known", "err", err)
	}
	a.carried = carry(state, a.bootID, vmstat)

	q := inquest.New(inquest.Options{
		Node: a.node, BootID: a.bootID,
		Settle: a.opts.Inquest.Settle, TombstoneTTL: a.opts.Inquest.TombstoneTTL,
	})
	known, err := a.store.Recent(ctx, a.began.Add(-restoreWindow), restoreLimit)
	if err != nil {
		return fmt.Errorf("read recent deaths: %w", err)
	}
	q.Restore(a.began, known)
	if err := a.seed(ctx, state); err != nil {
		return err
	}
	a.metrics.Remember(known)

	a.keeper = newKeeper(a.store, a.metrics, state, a.log)
	a.keeper.bootID, a.keeper.node = a.bootID, a.nodeKills
	a.keeper.latest = audit{a.carried.kills, a.carried.unattributed, a.carried.vmstat}
	a.goOn(q, state)
	for i := range known {
		if d := &known[i]; d.Subject == death.SubjectContainer && d.Time.After(a.read.ends) {
			a.read.ends = d.Time
		}
	}
	a.pipe = newPipeline(q, a.keeper.give)
	a.words = newWords(a.opts.Path, a.pipe.emit, a.log)
	a.recorder = recorder.New(recorder.Options{Roots: a.opts.Path, Logger: a.log})
	a.pipe.rec = a.recorder
	a.escapes = recorder.NewEscapes(recorder.EscapesOptions{Roots: a.opts.Path, Logger: a.log, Containers: a.pipe.homes.list})
	a.pipe.ask = func(w inquest.Want) *signal.Signal {
		if w.Kind == inquest.WantMemory {
			return memoryOf(a.recorder, w)
		}
		return a.words.ask(w)
	}
	a.pipe.living.goOn(state, known)
	return nil
}

// seed lets the counters go on from where the last run kept them.
func (a *Agent) seed(ctx context.Context, state map[string]string) error {
	counts, err := a.store.Counts(ctx)
	if err != nil {
		return fmt.Errorf("read counters: %w", err)
	}
	seed := make([]metrics.Count, len(counts))
	for i, c := range counts {
		seed[i] = metrics.Count(c)
	}
	a.metrics.Seed(seed, number(state[stateFolded]))
	return nil
}

// goOn takes up what earlier runs told of what the kernel counted and logged.
func (a *Agent) goOn(q *inquest.Inquest, state map[string]string) {
	a.read = position{bootID: a.bootID}
	keep := a.keeper.told
	if state[stateBootID] == a.bootID && a.bootID != "" {
		a.read.seq = number(state[stateKmsgSeq])
	} else {
		// Counters and log begin anew with the machine.
		keep[stateKmsgSeq] = "0"
		for name := range state {
			if strings.HasPrefix(name, toldCgroup) {
				keep[name] = ""
			}
		}
	}
	told, ok := toldBefore(state, a.bootID)
	if !ok || !a.opts.Source.Cgroup {
		keep[stateToldNode] = "" // until the counters are known
		return
	}
	keep[stateToldNode] = strconv.FormatUint(told.Node, 10)
	q.Continue(told)
}

// Addresses are where the agent listens.
func (a *Agent) Addresses() []net.Addr { return a.serve.addresses() }

// Run watches and serves until ctx ends, and returns when all is written and
// closed.
func (a *Agent) Run(ctx context.Context) error {
	var kept, thought, watched, served sync.WaitGroup
	kept.Go(a.keeper.run)
	thought.Go(a.pipe.run)

	sources := newSources(a.opts, a.read)
	a.sup.enable(sources)
	watch, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	for _, s := range sources {
		watched.Go(func() { a.sup.run(watch, s, a.pipe.emit) })
	}
	watched.Go(func() {
		if err := a.recorder.Run(watch); err != nil {
			a.log.Warn("containers' memory is not recorded", "err", err)
		}
	})
	watched.Go(func() {
		if err := a.escapes.Run(watch); err != nil {
			a.log.Warn("processes outside of their containers are not looked for", "err", err)
		}
	})
	watched.Go(func() {
		if err := a.store.Run(watch); err != nil {
			a.log.Error("history is not pruned", "err", err)
		}
	})
	var failed error
	served.Go(func() {
		failed = a.serve.run()
		stopWatching()
	})
	service, err := dialManager(ctx, a.opts.Service.NotifySocket)
	if err != nil {
		a.log.Warn("nobody is told that the agent is ready", "err", err)
	}
	defer service.close()
	a.sup.started(watch, sources)
	if watch.Err() == nil {
		service.tell("READY=1", sourcesLine(a.sup.status()))
		watched.Go(func() { a.reassure(watch, service) })
		debug.FreeOSMemory() // reading the kernel's types took some 20 MiB, once
		a.log.Info("watching", "node", a.node, "kernel", a.kernel, "version", a.opts.Version)
	}

	<-watch.Done()
	service.tell("STOPPING=1")
	// What flowed first stops first.
	watched.Wait()
	a.words.end()
	close(a.pipe.in)
	thought.Wait()
	a.keeper.end()
	kept.Wait()
	a.serve.stop()
	served.Wait()
	a.figures.asked.Wait()
	err = errors.Join(failed, a.store.Close())
	a.words.wait()
	return err
}

// nodeKills are what the inquest knows now of the machine's own count.
func (a *Agent) nodeKills() audit {
	st := a.pipe.stats.Load()
	vmstat := max(st.NodeTotal, a.carried.vmstat)
	return audit{a.carried.kills + vmstat - a.carried.vmstat, a.carried.unattributed + st.Unattributed, vmstat}
}

func (a *Agent) nodeStat() metrics.NodeStat {
	if _, err := a.opts.Path.NodeOOMKills(); err != nil || !a.opts.Source.Cgroup {
		return metrics.NodeStat{}
	}
	n := a.keeper.counted()
	return metrics.NodeStat{OOMKills: &n.kills, Unattributed: &n.unattributed}
}

// Status says how the agent is doing.
func (a *Agent) Status(context.Context) api.Status {
	node := a.nodeStat()
	st := api.Status{
		Version: a.opts.Version, Node: a.node, Kernel: a.kernel, Started: a.began.UTC(),
		Sources:      a.sup.status(),
		NodeOOMKills: node.OOMKills, UnattributedOOMKills: node.Unattributed,
		History: a.historyStatus(),
	}
	if node.OOMKills != nil {
		s := a.pipe.stats.Load()
		st.Audit = &api.Audit{
			CountedOnly: s.CountedOnly, CountedTwice: s.CountedTwice, AlreadyDying: s.AlreadyDying,
			Late: s.Late, Open: s.OpenCases, SettledEarly: s.EarlySettled,
		}
	}
	return st
}

func (a *Agent) historyStatus() api.HistoryStatus {
	sink := a.keeper.stat()
	st := api.HistoryStatus{
		Path: a.store.Path(), MaxBytes: a.opts.History.MaxBytes,
		RetentionSeconds: a.opts.History.Retention.Seconds(),
		Notice:           a.store.Notice(), Error: a.keeper.failure(),
		Waiting: sink.QueueLength, Dropped: sink.Dropped,
	}
	s := a.figures.get(a.store)
	st.Deaths, st.Bytes = s.Deaths, s.Bytes
	if !s.Oldest.IsZero() {
		st.Oldest, st.Newest = &s.Oldest, &s.Newest
	}
	return st
}

func number(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0 // not written yet
	}
	return n
}
