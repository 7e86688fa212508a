// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
)

const (
	// fastKills are made one after the other; slowKills so far apart that the
	// kernel withholds no context (10 reports in 5 seconds).
	fastKills, slowKills = 120, 60
	slowPause            = 530 * time.Millisecond
)

// seen is what was measured with one set of sources, in milliseconds.
type seen struct{ metrics, stream, record []float64 }

// witness reads the agent's event stream and remembers when it told of what.
type witness struct {
	mu           sync.Mutex
	told, record map[string]time.Duration // by the victim's pid, and by its cgroup
}

func (w *witness) take(_ string, d death.Death) error {
	now := clock()
	var names []string
	if d.Container != nil {
		names = append(names, d.Container.Cgroup)
	}
	for _, p := range d.Processes {
		names = append(names, strconv.Itoa(p.PID))
	}
	full := d.OOM != nil && d.OOM.LimitBytes != nil && d.OOM.UsageBytes != nil && len(d.OOM.MemoryStat) > 0
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range names {
		if _, known := w.told[n]; !known {
			w.told[n] = now
		}
		if _, known := w.record[n]; !known && full {
			w.record[n] = now
		}
	}
	return nil
}

// of gives when a kill was told, and when with its figures; 0: not yet. Some
// sources know the victim and not its cgroup, some the cgroup alone.
func (w *witness) of(pid int, cgroup string) (told, record time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range []string{strconv.Itoa(pid), cgroup} {
		if told == 0 {
			told = w.told[n]
		}
		if record == 0 {
			record = w.record[n]
		}
	}
	return told, record
}

// measureKills is kill to /metrics and to the API, with each set of sources.
func measureKills(t *testing.T, r *Report) {
	oomtest.Require(t, oomtest.RealKills)
	k := newKernelClock(t)
	for _, s := range sets {
		t.Run(s.id, func(t *testing.T) {
			got := measureSet(t, k, s.flags, s.context)
			remark := fmt.Sprintf("%d kills", len(got.metrics))
			r.Results["kill."+s.id+".metrics"] = Result{spread(got.metrics), remark}
			r.Results["kill."+s.id+".stream"] = Result{spread(got.stream), fmt.Sprintf("%d kills", len(got.stream))}
			if s.context && len(got.record) > 0 {
				r.Results["kill."+s.id+".record"] = Result{spread(got.record), fmt.Sprintf("%d kills", len(got.record))}
			}
		})
	}
}

func measureSet(t *testing.T, k *kernelClock, flagged []string, full bool) seen {
	a := start(t, flagged...)
	tree := oomtest.New(t)
	w := &witness{told: map[string]time.Duration{}, record: map[string]time.Duration{}}
	a.watch(w)
	n := fastKills
	if full {
		n = slowKills
	}
	rest(settling / 2) // the log may tell of kills from before the agent ran
	var got seen
	for i := range n {
		nameless := counts(a.must("/metrics"))[""]
		began := clock()
		box := tree.Cgroup("docker/"+oomtest.ContainerID(fmt.Sprint(tree.Root, i)), oomtest.Limit(oomtest.StormBytes))
		id := filepath.Base(box.Path)[:12]
		// Each other kill is watched on /metrics; both at once would be in each other's way.
		var counted time.Duration
		polled := make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		go func() {
			defer close(polled)
			if i%2 == 0 {
				counted = a.untilCounted(ctx, id, nameless)
			}
		}()
		storm := oomtest.StartStorm(t, []*oomtest.Cgroup{box}, 1, 0)
		storm.Wait()
		<-polled
		cancel()
		pids := storm.PIDs(0)
		if i%2 == 0 && counted == 0 {
			t.Fatalf("kill %d in %s is not counted", i+1, box.Path)
		}
		if len(pids) != 1 {
			t.Fatalf("%d kills in %s, want 1", len(pids), box.Path)
		}
		var told, record time.Duration
		a.poll(func() error {
			if told, record = w.of(pids[0], box.Path); told == 0 {
				return fmt.Errorf("kill of %d in %s is not told", pids[0], box.Path)
			}
			return nil
		})
		if full {
			// Kills elsewhere on the machine may make the kernel withhold it.
			_ = oomtest.Poll(2*time.Second, func() error {
				if _, record = w.of(pids[0], box.Path); record == 0 {
					return errors.New("no figures")
				}
				return nil
			})
		}
		if i%2 == 1 {
			a.untilCounted(t.Context(), id, nameless) // before the next
		}
		killed := k.of(pids[0])
		keep := func(to *[]float64, at time.Duration) {
			if at > killed { // else it was a kill elsewhere on the machine that was counted
				*to = append(*to, float64(at-killed)/1e6)
			}
		}
		if i%2 == 0 {
			keep(&got.metrics, counted)
		} else {
			keep(&got.stream, told)
			keep(&got.record, record)
		}
		box.Remove()
		if full {
			rest(began + slowPause - clock())
		}
	}
	if min(len(got.metrics), len(got.stream)) < n/3 {
		t.Fatalf("of %d kills %d were timed on /metrics and %d on the stream: somebody else's kills disturb", n, len(got.metrics), len(got.stream))
	}
	return got
}

// watch reads the event stream until the test ends.
func (a *running) watch(w *witness) {
	a.t.Helper()
	client, err := api.NewClient(a.base, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- client.Stream(ctx, api.Query{}, "", w.take) }()
	a.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			a.t.Errorf("stream: %v", err)
		}
	})
}

// untilCounted asks for /metrics without a pause, and gives the time at which
// the first answer was read that counts a kill of a container, or one more
// without a container.
func (a *running) untilCounted(ctx context.Context, id string, nameless float64) time.Duration {
	for ctx.Err() == nil {
		body, err := a.get(ctx, "/metrics")
		now := clock()
		if c := counts(body); err == nil && (c[id] > 0 || c[""] > nameless) {
			return now
		}
	}
	return 0
}

// counts are the OOM kills of each container in a scrape.
func counts(scrape []byte) map[string]float64 {
	out := map[string]float64{}
	for line := range strings.Lines(string(scrape)) {
		rest, ok := strings.CutPrefix(line, "coroner_oom_kills_total{")
		if !ok {
			continue
		}
		_, rest, _ = strings.Cut(rest, `container="`)
		id, _, _ := strings.Cut(rest, `"`)
		n, _ := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]), 64)
		out[id] += n
	}
	return out
}
