// SPDX-License-Identifier: Apache-2.0

// Package agent wires one node's coroner: sources into the inquest, its deaths
// into history and metrics, and both onto the network.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
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
	"github.com/coroner-dev/coroner/internal/signal"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

// restoreWindow and restoreLimit bound the deaths of an earlier run that are
// made known to the inquest at start.
const (
	restoreWindow = 7 * 24 * time.Hour
	restoreLimit  = 4096
)

// settleTime is how long after the sources watch the start is over.
const settleTime = 10 * time.Second

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
	sources []source
	desk    *desk
	memory  *nodeDesk
	keeper  *keeper
	sinks   sinks
	figures figures
	read    position
	carried carried
	serve   *server
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
		Sinks:      a.sinkStats,
		Node:       a.nodeStat,
		Roster:     a.rosterStat,
		Containers: func() []metrics.Container { return a.pipe.living.list() },
		Memory:     func() []metrics.Memory { return a.pipe.living.memory(a.desk.recorder.Figures(), a.escaped()) },
		NodeMemory: func() map[string]int64 { return a.memory.figures() },
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
	a.openSinks(known)
	a.read.ends = endsTold(state, known, a.began)
	if state[stateFirstRun] == "" {
		a.keeper.told[stateFirstRun] = strconv.FormatInt(a.began.UnixNano(), 10)
	}
	a.pipe = newPipeline(q, a.keeper.give)
	a.sources = newSources(a.opts, a.read, a.pipe.arrivals.next)
	a.desk = newDesk(a.opts, a.bootID, a.pipe, a.sources)
	a.memory = &nodeDesk{node: a.node, roots: a.opts.Path, living: a.pipe.living, shares: a.pipe.shares,
		seen: a.KubeNode, settings: newKubeletSettings(a.sources), leastHistory: a.opts.growthAfter, log: a.log}
	a.pipe.living.goOn(state, known)
	return nil
}

// endsTold is up to when the ends of containers were told by earlier runs. Where
// known, all that was told of late, has none, there was none since the first run.
func endsTold(state map[string]string, known []death.Death, began time.Time) (last time.Time) {
	for i := range known {
		if d := &known[i]; d.Subject == death.SubjectContainer && d.Time.After(last) {
			last = d.Time
		}
	}
	first := number(state[stateFirstRun])
	if !last.IsZero() || first == 0 || first > math.MaxInt64 || len(known) >= restoreLimit {
		return last
	}
	last = began.Add(-restoreWindow)
	if t := time.Unix(0, int64(first)); t.After(last) {
		last = t
	}
	return last
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

// KubeNode is the node as the Kubernetes API had it last: capacity, allocatable,
// conditions and taints. nil: nobody has told.
func (a *Agent) KubeNode() *signal.NodeSeen { return a.pipe.node.Load() }

// Addresses are where the agent listens.
func (a *Agent) Addresses() []net.Addr { return a.serve.addresses() }

// Run watches and serves until ctx ends, and returns when all is written and
// closed.
func (a *Agent) Run(ctx context.Context) error {
	var kept, thought, watched, served sync.WaitGroup
	kept.Go(a.keeper.run)
	thought.Go(a.pipe.run)
	stopTelling := a.runSinks(ctx)

	a.sup.enable(a.sources)
	watch, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	for _, s := range a.sources {
		watched.Go(func() { a.sup.run(watch, s, a.pipe.emit) })
	}
	watched.Go(func() { a.desk.run(watch) })
	watched.Go(func() { a.memory.run(watch) })
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
	a.sup.started(watch, a.sources)
	if watch.Err() == nil {
		service.tell("READY=1", sourcesLine(a.sup.status()))
		watched.Go(func() { a.reassure(watch, service) })
		watched.Go(func() { a.settle(watch) })
		a.log.Info("watching", "node", a.node, "kernel", a.kernel, "version", a.opts.Version)
	}

	<-watch.Done()
	service.tell("STOPPING=1")
	// What flowed first stops first.
	watched.Wait()
	a.desk.close()
	close(a.pipe.in)
	thought.Wait()
	a.keeper.end()
	kept.Wait()
	stopTelling()
	a.serve.stop()
	served.Wait()
	a.figures.asked.Wait()
	err = errors.Join(failed, a.store.Close())
	a.desk.wait()
	return err
}

// settle gives back what the start took: reading the kernel's types takes some
// 20 MiB, and the first lists of the engines come when all else watches.
func (a *Agent) settle(ctx context.Context) {
	debug.FreeOSMemory()
	select {
	case <-ctx.Done():
		return
	case <-time.After(settleTime):
	}
	debug.FreeOSMemory()
	if a.opts.Settled != nil {
		a.opts.Settled()
	}
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

func (a *Agent) rosterStat() metrics.RosterStat {
	st := a.pipe.stats.Load()
	return metrics.RosterStat{NoRoom: st.NoRoom, Disbelieved: st.Disbelieved}
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
	s := a.pipe.stats.Load()
	st.Roster = api.RosterStatus{NoRoom: s.NoRoom, Disbelieved: s.Disbelieved}
	if node.OOMKills != nil {
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
