// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"maps"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/history"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

const (
	// keeperQueue bounds the rounds of deaths that wait to be written.
	keeperQueue = 1024
	// keeperRetry is how long a history that refuses is left alone.
	keeperRetry = time.Second
	// keeperBacklog bounds the deaths kept in memory while the history
	// refuses them; at some 4 KiB each they take 40 MiB at most.
	keeperBacklog = 10000
)

// The names of what the agent keeps between runs beside the deaths.
const (
	stateBootID       = "boot_id"
	stateNodeKills    = "node_oom_kills"
	stateVMStat       = "vmstat_oom_kill"
	stateUnattributed = "unattributed_oom_kills"
)

// keeper writes deaths to the history and then tells them on. The inquest
// never waits for it: what does not fit is counted and dropped.
type keeper struct {
	store   *history.Store
	metrics *metrics.Metrics
	publish func()
	node    func() (kills, unattributed, vmstat uint64)
	log     *slog.Logger
	bootID  string
	// kept is state that waits for a history that takes it.
	kept map[string]string

	queue   chan progress
	backlog []death.Death
	dropped atomic.Uint64
	errs    atomic.Uint64
	waiting atomic.Int64
	failure atomic.Pointer[string]
}

// give queues one round of deaths.
func (k *keeper) give(p progress) {
	k.waiting.Add(int64(len(p.deaths)))
	select {
	case k.queue <- p:
	default:
		k.waiting.Add(-int64(len(p.deaths)))
		k.dropped.Add(uint64(len(p.deaths)))
	}
}

// run writes until the queue is closed and empty.
func (k *keeper) run() {
	retry := time.NewTimer(keeperRetry)
	defer retry.Stop()
	for {
		select {
		case p, ok := <-k.queue:
			if !ok {
				k.write(progress{})
				return
			}
			k.metrics.Take(p.deaths)
			k.write(p)
		case <-retry.C:
			if len(k.backlog) > 0 {
				k.write(progress{})
			}
		}
		retry.Reset(keeperRetry)
	}
}

// write puts the backlog and p into the history in one transaction.
func (k *keeper) write(p progress) {
	k.backlog = append(k.backlog, p.deaths...)
	if over := len(k.backlog) - keeperBacklog; over > 0 {
		k.dropped.Add(uint64(over))
		k.waiting.Add(-int64(over))
		k.backlog = append(k.backlog[:0:0], k.backlog[over:]...)
	}
	_, err := k.store.Put(context.Background(), k.backlog, k.state(p.state))
	if err != nil {
		k.errs.Add(1)
		why := err.Error()
		if k.failure.Swap(&why) == nil {
			k.log.Error("history refuses deaths; they wait in memory", "err", err)
		}
		return
	}
	if k.failure.Swap(nil) != nil {
		k.log.Info("history takes deaths again")
	}
	k.waiting.Add(-int64(len(k.backlog)))
	k.backlog, k.kept = nil, nil
	now := time.Now()
	for _, d := range p.deaths {
		if d.Revision == 1 && !d.Recovered && len(d.Evidence) > 0 {
			k.metrics.Detected(d.Evidence[0].Source, now.Sub(d.Time).Seconds())
		}
	}
	k.publish()
}

// state is what is to be kept: what the inquest told, and the figures that go
// on from run to run.
func (k *keeper) state(told map[string]string) map[string]string {
	if k.kept == nil {
		k.kept = make(map[string]string, len(told)+4)
	}
	maps.Copy(k.kept, told)
	kills, unattributed, vmstat := k.node()
	k.kept[stateBootID] = k.bootID
	k.kept[stateNodeKills] = strconv.FormatUint(kills, 10)
	k.kept[stateVMStat] = strconv.FormatUint(vmstat, 10)
	k.kept[stateUnattributed] = strconv.FormatUint(unattributed, 10)
	return k.kept
}

// stat is the history's figures as a sink.
func (k *keeper) stat() metrics.SinkStat {
	return metrics.SinkStat{Sink: "history", QueueLength: int(k.waiting.Load()), Dropped: k.dropped.Load(), Errors: k.errs.Load()}
}
