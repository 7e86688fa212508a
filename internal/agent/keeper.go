// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
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
	stateKmsgSeq      = "kmsg_seq"
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
	seq     uint64 // last record of this boot's log that is in the history

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
	_, err := k.store.Put(context.Background(), k.backlog, k.state(p.seq))
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
	k.backlog = nil
	now := time.Now()
	for _, d := range p.deaths {
		if d.Revision == 1 && !d.Recovered && len(d.Evidence) > 0 {
			k.metrics.Detected(d.Evidence[0].Source, now.Sub(d.Time).Seconds())
		}
	}
	k.publish()
}

func (k *keeper) state(seq uint64) map[string]string {
	kills, unattributed, vmstat := k.node()
	k.seq = max(k.seq, seq)
	return map[string]string{
		stateBootID:       k.bootID,
		stateKmsgSeq:      strconv.FormatUint(k.seq, 10),
		stateNodeKills:    strconv.FormatUint(kills, 10),
		stateVMStat:       strconv.FormatUint(vmstat, 10),
		stateUnattributed: strconv.FormatUint(unattributed, 10),
	}
}

// stat is the history's figures as a sink.
func (k *keeper) stat() metrics.SinkStat {
	return metrics.SinkStat{Sink: "history", QueueLength: int(k.waiting.Load()), Dropped: k.dropped.Load(), Errors: k.errs.Load()}
}
