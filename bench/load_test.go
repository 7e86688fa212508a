// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/oomtest"
)

const mib = float64(1 << 20)

// measureStart is how long an agent takes to answer, and how large it is.
func measureStart(t *testing.T, r *Report) {
	fi, err := os.Stat(flags.binary)
	if err != nil {
		t.Fatalf("%v (make build)", err)
	}
	r.Results["size.binary"] = Result{Values: []float64{float64(fi.Size()) / mib}}
	oomtest.Require(t, oomtest.RealKills)
	took := map[string][]float64{}
	for range 10 {
		for _, what := range []struct{ row, path string }{{"start.answer", "/-/ready"}, {"start.metrics", "/metrics"}} {
			a := launch(t)
			took[what.row] = append(took[what.row], a.answers(what.path, false))
			if what.row == "start.answer" {
				took["start.ready"] = append(took["start.ready"], a.answers(what.path, true))
			}
			a.stop()
		}
	}
	for row, ms := range took {
		r.Results[row] = Result{Values: []float64{quantile(ms, .5), quantile(ms, 1)}}
	}
}

// answers waits for the first answer, or the first with 200, and gives the
// milliseconds since the start of the process.
func (a *running) answers(path string, ok bool) float64 {
	a.t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for deadline := clock() + patience; clock() < deadline; <-ticker.C {
		body, err := a.get(a.t.Context(), path)
		if err == nil || !ok && body != nil {
			return float64(clock()-a.began) / 1e6
		}
	}
	a.t.Fatalf("%s does not answer", path)
	return 0
}

// measureRest is memory, CPU and scrapes with nothing happening, and what the
// costs are made of.
func measureRest(t *testing.T, r *Report) {
	oomtest.Require(t, oomtest.RealKills)
	for _, n := range []int{110, 500} {
		tree := oomtest.New(t)
		fill := func(from, to int) {
			for i := from; i < to; i++ {
				box := tree.Cgroup(oomtest.CgroupfsContainer(oomtest.CgroupfsPod("burstable", oomtest.PodUID(fmt.Sprint(n, i))), oomtest.ContainerID(fmt.Sprint(n, i))))
				if i < 10 {
					box.Start(oomtest.Load{Comm: []byte("idle"), Bytes: oomtest.Idle})
				}
			}
		}
		fill(0, n)
		a := start(t)
		a.knows(n)
		rest(settling)
		used, began := a.cpu(), clock()
		rest(30 * time.Second)
		share := 100 * float64(a.cpu()-used) / float64(clock()-began)
		id := fmt.Sprint(n)
		r.Results["rest.cpu."+id] = Result{Values: []float64{share}}
		r.Results["rest.rss."+id] = Result{Values: []float64{a.memory("VmRSS")}}
		r.Results["rest.anon."+id] = Result{Values: []float64{a.memory("RssAnon")}}
		if n == 500 {
			heap := a.heap("Heap at rest with 500 containers, 30 s after the start")
			r.Profiles = append(r.Profiles, a.profile("CPU at rest with 500 containers", 60, nil), heap)
		}
		a.scrapes(r, id)
		if n == 500 {
			fill(n, 1000)
			a.knows(1000)
			a.scrapes(r, "1000")
			r.Profiles = append(r.Profiles, a.profile("CPU of scrapes with 1,000 containers", 5, func(ctx context.Context) {
				for ctx.Err() == nil {
					_, _ = a.get(ctx, "/metrics") // the last one is cut off
				}
			}))
		}
		a.stop()
	}
}

// knows waits until so many containers have their series.
func (a *running) knows(n int) {
	a.t.Helper()
	a.poll(func() error {
		if got := strings.Count(string(a.must("/metrics")), `coroner_oom_kills_total{cause="oom_node",`); got < n {
			return fmt.Errorf("%d containers, want %d", got, n)
		}
		return nil
	})
}

func (a *running) scrapes(r *Report, id string) {
	a.t.Helper()
	r.Results["scrape.time."+id] = Result{Values: a.scrapeTimes()}
	r.Results["scrape.size."+id] = Result{Values: []float64{float64(len(a.must("/metrics"))) / 1024}}
}

// scrapeTimes are median and worst hundredth of a hundred scrapes, in
// milliseconds.
func (a *running) scrapeTimes() []float64 {
	a.t.Helper()
	var ms []float64
	for range 100 {
		began := clock()
		a.must("/metrics")
		ms = append(ms, float64(clock()-began)/1e6)
	}
	return spread(ms)
}

// measureStorm is 200 containers that die as fast as the machine kills.
func measureStorm(t *testing.T, r *Report) {
	oomtest.Require(t, oomtest.RealKills)
	const containers, profiled = 200, 15
	tree := oomtest.New(t)
	var boxes []*oomtest.Cgroup
	for i := range containers {
		boxes = append(boxes, tree.Cgroup("docker/"+oomtest.ContainerID(fmt.Sprint(tree.Root, i)), oomtest.Limit(oomtest.StormBytes)))
	}
	a := start(t)
	a.knows(containers)
	used, began := a.cpu(), clock()
	s := oomtest.StartStorm(t, boxes, flags.kills, 0)
	s.Wait()
	over := clock()
	total := 0
	for i := range boxes {
		total += len(s.PIDs(i))
	}
	// What is wrong in the end is a result, no failure.
	_ = oomtest.Poll(patience, func() error {
		if wrong := a.disagrees(boxes, s); wrong > 0 {
			return fmt.Errorf("%v kills too few or too many", wrong)
		}
		return nil
	})
	counted := clock()
	r.Results["storm.rate"] = Result{[]float64{float64(total) / (over - began).Seconds()}, fmt.Sprintf("%d kills", total)}
	r.Results["storm.lag"] = Result{Values: []float64{float64(counted-over) / 1e6}}
	r.Results["storm.cpu"] = Result{[]float64{float64((a.cpu() - used).Microseconds()) / float64(total)},
		fmt.Sprintf("%s %% of one core while it lasts", number(100*float64(a.cpu()-used)/float64(counted-began)))}
	r.Results["storm.peak"] = Result{Values: []float64{a.memory("VmHWM")}}
	r.Results["storm.kills"] = Result{Values: []float64{a.disagrees(boxes, s) + a.metric("coroner_unattributed_oom_kills_total")}}
	r.Profiles = append(r.Profiles, a.profile("CPU in a storm over 200 containers", 0, func(context.Context) {
		oomtest.StartStorm(t, boxes, profiled, 0).Wait()
	}))
}

// disagrees counts the kills that /metrics has too few or too many of.
func (a *running) disagrees(boxes []*oomtest.Cgroup, s *oomtest.Storm) (wrong float64) {
	a.t.Helper()
	counted := counts(a.must("/metrics"))
	for i, b := range boxes {
		id := filepath.Base(b.Path)[:12]
		truth := float64(len(s.PIDs(i)))
		if uint64(truth) != b.OOMKills() {
			a.t.Errorf("the book has %v kills in %s, the kernel %d", truth, b.Path, b.OOMKills())
		}
		wrong += max(counted[id]-truth, truth-counted[id])
	}
	return wrong
}
