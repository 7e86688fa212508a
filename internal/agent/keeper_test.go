// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/history"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

// fakeArchive is a history in a map, that refuses or hangs as it is told.
type fakeArchive struct {
	mu      sync.Mutex
	deaths  map[string]death.Death
	state   map[string]string
	counts  map[history.Count]history.Count // by its labels
	rounds  int
	largest int
	refuse  func() error  // nil: never
	hang    chan struct{} // nil: it does not
	anew    bool
}

func newFakeArchive() *fakeArchive {
	return &fakeArchive{deaths: map[string]death.Death{}, state: map[string]string{}, counts: map[history.Count]history.Count{}}
}

func (f *fakeArchive) Trouble() error  { return nil }
func (f *fakeArchive) Dropped() uint64 { return 0 }

func (f *fakeArchive) Keep(_ context.Context, r history.Round) (history.Kept, error) {
	f.mu.Lock()
	hang, refuse := f.hang, f.refuse
	f.mu.Unlock()
	if hang != nil {
		<-hang
	}
	if refuse != nil {
		if err := refuse(); err != nil {
			return history.Kept{}, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rounds++
	f.largest = max(f.largest, len(r.Deaths))
	for _, d := range r.Deaths {
		if had, ok := f.deaths[d.ID]; !ok || had.Revision < d.Revision {
			f.deaths[d.ID] = d
		}
	}
	for name, value := range r.State {
		f.state[name] = value
	}
	if r.AllCounts {
		clear(f.counts)
	}
	for _, c := range r.Counts {
		k := history.Count{Namespace: c.Namespace, Pod: c.Pod, Container: c.Container, Cause: c.Cause}
		if f.counts[k] = c; c.OOMKills == 0 && c.Terminations == 0 {
			delete(f.counts, k)
		}
	}
	anew := f.anew
	f.anew = false
	return history.Kept{Anew: anew}, nil
}

func (f *fakeArchive) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeArchive) kills() uint64 { return killsIn(maps.Values(f.counts)) }

// killsIn are the OOM kills that counters tell: by the containers' names, and
// once more by their ids. 0: the two are not the same.
func killsIn(counts iter.Seq[history.Count]) uint64 {
	var byName, byID uint64
	for c := range counts {
		if c.Cause == "container_ooms" {
			byID += c.OOMKills
		} else {
			byName += c.OOMKills
		}
	}
	if byName != byID {
		return 0
	}
	return byName
}

// killed is a death of one process in one of ten containers.
func killed(n int) death.Death {
	return death.Death{
		ID: fmt.Sprintf("d%06d", n), Revision: 1, Time: time.Now(), Subject: death.SubjectProcess, Cause: death.OOMContainerLimit,
		Container: &death.Container{ID: fmt.Sprintf("%064d", n%10), Name: fmt.Sprintf("c%d", n%10)},
		Processes: []death.Process{{PID: 1000 + n, Comm: "leak", Fate: death.FateVictim}},
		Evidence:  []death.Evidence{{Source: death.SourceTracepoint}},
	}
}

// keeping is a keeper that runs until end. Its machine counts the deaths given.
type keeping struct {
	*keeper
	total     audit
	published atomic.Int64
	ended     sync.WaitGroup
}

func keep(store archive, state map[string]string) *keeping {
	k := &keeping{keeper: newKeeper(store, metrics.New(metrics.Options{}), state, slog.New(slog.DiscardHandler))}
	k.node = func() audit { return k.total }
	k.publish = func() { k.published.Add(1) }
	k.ended.Go(k.run)
	return k
}

func (k *keeping) take(deaths ...death.Death) {
	k.total.kills += uint64(len(deaths))
	k.give(progress{deaths: deaths, state: readTo(k.total.kills)})
}

// readTo is the state of an inquest that has read the kernel's log up to seq.
func readTo(seq uint64) map[string]string {
	return map[string]string{stateKmsgSeq: strconv.FormatUint(seq, 10)}
}

func (k *keeping) stop() {
	k.end()
	k.ended.Wait()
}

// scraped is the sum of coroner_oom_kills_total in a scrape.
func scraped(t *testing.T, m *metrics.Metrics) (sum uint64) {
	t.Helper()
	rec := httptest.NewRecorder()
	m.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(rec.Body.String()) {
		if strings.HasPrefix(line, "coroner_oom_kills_total{") {
			n, err := strconv.ParseUint(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

func TestKeeper_HistoryHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeArchive()
		k := keep(f, map[string]string{})
		synctest.Wait() // it wrote where it goes on from
		hang := make(chan struct{})
		f.set(func() { f.hang = hang })
		k.take(killed(0))
		synctest.Wait()
		time.Sleep(900 * time.Millisecond)
		if got := scraped(t, k.metrics); got != 0 || k.failure() != "" || k.counted().kills != 0 {
			t.Errorf("before a second: %d shown, %d of the machine, failure %q", got, k.counted().kills, k.failure())
		}
		time.Sleep(200 * time.Millisecond)
		if got := scraped(t, k.metrics); got != 1 || k.counted().kills != 1 || !strings.Contains(k.failure(), "does not answer") {
			t.Errorf("after a second: %d shown, %d of the machine, failure %q", got, k.counted().kills, k.failure())
		}
		for n := 1; n < 500; n++ { // nobody waits
			k.take(killed(n))
		}
		time.Sleep(1100 * time.Millisecond)
		if got := scraped(t, k.metrics); got != 500 {
			t.Errorf("%d shown, want 500", got)
		}
		if st := k.stat(); st.Up || st.QueueLength != 500 || st.Dropped != 0 {
			t.Errorf("as a sink: %+v", st)
		}
		if k.published.Load() != 0 {
			t.Error("told on before it is kept")
		}
		f.set(func() { f.hang = nil })
		close(hang)
		synctest.Wait()
		if st := k.stat(); !st.Up || st.QueueLength != 0 || k.failure() != "" || k.published.Load() == 0 {
			t.Errorf("back: %+v, failure %q", st, k.failure())
		}
		k.stop()
		if len(f.deaths) != 500 || f.kills() != 500 || f.state[stateNodeKills] != "500" || f.largest > keeperRound {
			t.Errorf("kept %d deaths, counters of %d, state %v, at most %d in one round", len(f.deaths), f.kills(), f.state, f.largest)
		}
	})
}

func TestKeeper_BacklogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeArchive()
		f.refuse = func() error { return errors.New("no space left on device") }
		k := keep(f, map[string]string{})
		const extra = 500
		for n := range keeperBacklog + extra {
			k.take(killed(n))
		}
		synctest.Wait()
		if st := k.stat(); st.Up || st.QueueLength != keeperBacklog || st.Dropped != extra || !strings.Contains(k.failure(), "no space") {
			t.Errorf("as a sink: %+v, failure %q", st, k.failure())
		}
		time.Sleep(1100 * time.Millisecond)
		if got := scraped(t, k.metrics); got != keeperBacklog+extra {
			t.Errorf("%d shown, want %d", got, keeperBacklog+extra)
		}
		f.set(func() { f.refuse = nil })
		time.Sleep(keeperLast)
		synctest.Wait()
		if st := k.stat(); !st.Up || st.QueueLength != 0 || st.Dropped != extra {
			t.Errorf("back: %+v", st)
		}
		k.stop()
		if len(f.deaths) != keeperBacklog || f.kills() != keeperBacklog+extra {
			t.Errorf("kept %d deaths, counters of %d", len(f.deaths), f.kills())
		}
		if _, oldest := f.deaths[killed(extra-1).ID]; oldest {
			t.Error("the oldest was not the one to go")
		}
	})
}

// TestKeeper_PartOfARound: while a part of the deaths is written, no run may
// go on from the counters; after the last of them one may, as before.
func TestKeeper_PartOfARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeArchive()
		k := keep(f, map[string]string{stateToldNode: "7"})
		synctest.Wait()
		var deaths []death.Death
		for n := range keeperRound + 1 {
			deaths = append(deaths, killed(n))
		}
		var parts []string
		f.refuse = func() error {
			parts = append(parts, f.state[stateToldNode])
			return nil
		}
		k.take(deaths...)
		k.stop()
		if len(parts) != 2 || parts[1] != "" || f.state[stateToldNode] != "7" || len(f.deaths) != len(deaths) {
			t.Errorf("told before each part %q, in the end %q; %d deaths", parts, f.state[stateToldNode], len(f.deaths))
		}
	})
}

// TestKeeper_AnewGetsEverything: a new file has all counters and all state.
func TestKeeper_AnewGetsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeArchive()
		k := keep(f, map[string]string{})
		for n := range 10 {
			k.take(killed(n))
		}
		synctest.Wait()
		f.set(func() {
			clear(f.deaths)
			clear(f.state)
			clear(f.counts)
			f.anew = true
		})
		k.take(killed(10))
		synctest.Wait()
		k.stop()
		if f.kills() != 11 || f.state[stateNodeKills] != "11" || f.state[stateVMStat] == "" || f.state[stateKmsgSeq] != "11" {
			t.Errorf("counters of %d, state %v", f.kills(), f.state)
		}
	})
}

func TestKeeper_EndsWhileItIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeArchive()
		f.refuse = func() error { return errors.New("read-only file system") }
		k := keep(f, map[string]string{})
		k.take(killed(0), killed(1))
		time.Sleep(10 * time.Second)
		k.stop()
		if st := k.stat(); st.Dropped != 2 {
			t.Errorf("dropped %d, want 2", st.Dropped)
		}
	})
}

// TestKeeper_Detected: the time of detection is that at which the death is
// visible, also when an amendment overtook it.
func TestKeeper_Detected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeArchive()
		hang := make(chan struct{})
		f.hang = hang
		k := keep(f, map[string]string{})
		d := killed(0)
		k.take(d)
		d.Revision, d.Evidence = 2, []death.Evidence{{Source: death.SourceKmsg}}
		k.give(progress{deaths: []death.Death{d}})
		time.Sleep(300 * time.Millisecond)
		close(hang)
		synctest.Wait()
		rec := httptest.NewRecorder()
		k.metrics.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
		for _, want := range []string{`coroner_detection_seconds_count{source="tracepoint"} 1`, `coroner_detection_seconds_sum{source="tracepoint"} 0.3`} {
			if !strings.Contains(rec.Body.String(), want) {
				t.Errorf("no %s", want)
			}
		}
		k.stop()
	})
}

// TestKeeper_WhateverFails: the history refuses and hangs at random, deaths
// come and are amended: in the end each is there once, as last amended.
func TestKeeper_WhateverFails(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 3))
			var mu sync.Mutex
			f := newFakeArchive()
			f.refuse = func() error {
				mu.Lock() // not while it sleeps, or the bubble's time stands still
				wait, fails := rnd.IntN(1500), rnd.IntN(3) == 0
				mu.Unlock()
				time.Sleep(time.Duration(wait) * time.Millisecond)
				if fails {
					return errors.New("disk I/O error")
				}
				return nil
			}
			k := keep(f, map[string]string{})
			truth := map[string]death.Death{}
			want, shown := 0, uint64(0)
			for n := range 300 {
				d := killed(n)
				if n > 0 && n%3 == 0 {
					d = truth[killed(n-1-n%2).ID]
					d.Revision++
					d.Cause = death.OOMPodLimit
					d.Processes = append(d.Processes[:len(d.Processes):len(d.Processes)], death.Process{PID: n, Fate: death.FateGroup})
				}
				truth[d.ID] = d
				k.take(d)
				want++
				mu.Lock()
				wait := time.Duration(rnd.IntN(200)) * time.Millisecond
				mu.Unlock()
				time.Sleep(wait)
				if n%20 == 0 {
					now := scraped(t, k.metrics)
					if now < shown {
						t.Errorf("seed %d: %d shown after %d", seed, now, shown)
					}
					shown = now
				}
			}
			f.set(func() { f.refuse = nil })
			k.stop()
			if len(f.deaths) != len(truth) || f.kills() != uint64(want) || scraped(t, k.metrics) != uint64(want) {
				t.Errorf("seed %d: kept %d deaths of %d, counters of %d, shown %d, want %d",
					seed, len(f.deaths), len(truth), f.kills(), scraped(t, k.metrics), want)
			}
			for id, d := range truth {
				if f.deaths[id].Revision != d.Revision {
					t.Errorf("seed %d: death %s has revision %d, want %d", seed, id, f.deaths[id].Revision, d.Revision)
				}
			}
		})
	}
}
