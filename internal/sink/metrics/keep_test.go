// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

// file is a history that a test holds in its hand.
type file struct {
	counts map[string]metrics.Count
	deaths map[string]death.Death
	folded uint64
}

func newFile() *file {
	return &file{counts: map[string]metrics.Count{}, deaths: map[string]death.Death{}}
}

func (f *file) keep(b metrics.Batch, deaths ...death.Death) {
	if b.All {
		clear(f.counts)
	}
	for _, c := range b.Counts {
		k := strings.Join([]string{c.Namespace, c.Pod, c.Container, string(c.Cause)}, "/")
		if f.counts[k] = c; c.OOMKills == 0 && c.Terminations == 0 {
			delete(f.counts, k)
		}
	}
	for _, d := range deaths {
		f.deaths[d.ID] = d
	}
	f.folded = b.Folded
}

// open gives Metrics that go on from the file.
func (f *file) open(o metrics.Options) *metrics.Metrics {
	m := metrics.New(o)
	var counts []metrics.Count
	for _, c := range f.counts {
		counts = append(counts, c)
	}
	m.Seed(counts, f.folded)
	for _, d := range f.deaths {
		m.Remember([]death.Death{d})
	}
	return m
}

func TestSeed_GoesOn(t *testing.T) {
	f, first := newFile(), metrics.New(metrics.Options{})
	d := kill("d1", death.OOMContainerLimit, process(1, death.FateVictim))
	other := kill("d2", death.OOMPodLimit, process(2, death.FateVictim))
	change := first.Take(&d)
	change.Join(first.Take(&other))
	f.keep(first.Prepare(change, false), d, other)

	second := f.open(metrics.Options{})
	before := scrape(t, second)
	for _, cause := range []string{"oom_container_limit", "oom_pod_limit"} {
		if got := before[kills("web", cause)]; got != "1" {
			t.Errorf("%s after a restart = %q, want 1", cause, got)
		}
		series := strings.Replace(kills("web", cause), "coroner_oom_kills_total", "coroner_last_death_timestamp_seconds", 1)
		if got := before[series]; got != "1.77260076789e+09" {
			t.Errorf("%s = %q", series, got)
		}
	}
	take(second, amended(d, func(d *death.Death) {
		d.Processes = append(d.Processes, process(3, death.FateGroup))
	}))
	if got := scrape(t, second)[kills("web", "oom_container_limit")]; got != "2" {
		t.Errorf("after an amendment = %q, want 2", got)
	}
}

func TestSeed_MoreThanThereIsRoomFor(t *testing.T) {
	f, first := newFile(), metrics.New(metrics.Options{})
	for n := range 5 {
		d := death.Death{ID: fmt.Sprint(n), Unit: fmt.Sprintf("u%d.service", n), Time: start, Cause: death.OOMNode,
			Processes: []death.Process{process(n, death.FateVictim)}}
		f.keep(first.Prepare(first.Take(&d), false), d)
	}
	for range 3 { // and again, from what the second kept
		m := f.open(metrics.Options{MaxSeries: 3})
		sum := 0
		for series, v := range scrape(t, m) {
			if strings.HasPrefix(series, "coroner_oom_kills_total{") {
				n, _ := strconv.Atoi(v)
				sum += n
			}
		}
		if sum != 5 {
			t.Errorf("%d kills, want 5", sum)
		}
		f.keep(m.Prepare(metrics.Change{}, false))
	}
	if len(f.counts) != 4 {
		t.Errorf("%d rows kept, want 3 and the one for the rest", len(f.counts))
	}
}

func TestScrape_ShowsWhatIsKept(t *testing.T) {
	m := metrics.New(metrics.Options{})
	first, second := kill("d1", death.OOMContainerLimit, process(1, death.FateVictim)), kill("d2", death.OOMContainerLimit, process(2, death.FateVictim))
	series := kills("web", "oom_container_limit")
	one := m.Take(&first)
	if got := scrape(t, m)[series]; got != "" {
		t.Errorf("taken: %q, want none", got)
	}
	b := m.Prepare(one, false)
	two := m.Take(&second) // while the other is written
	m.Kept(b)
	if got := scrape(t, m)[series]; got != "1" {
		t.Errorf("the first kept: %q, want 1", got)
	}
	m.Release()
	if got := scrape(t, m)[series]; got != "2" {
		t.Errorf("the second let out: %q, want 2", got)
	}
	m.Kept(m.Prepare(two, false))
	if got := scrape(t, m)[series]; got != "2" {
		t.Errorf("the second kept: %q, want 2", got)
	}
}

// TestMove_WhileItIsKept: a count that moves to another cause is never shown
// where it is taken from, and comes where it goes once that is kept.
func TestMove_WhileItIsKept(t *testing.T) {
	m := metrics.New(metrics.Options{})
	d := kill("d1", death.OOMContainerLimit, process(1, death.FateVictim))
	m.Kept(m.Prepare(m.Take(&d), false))
	moved := amended(d, func(d *death.Death) { d.Cause = death.OOMPodLimit })
	change := m.Take(&moved)
	got := scrape(t, m)
	if a, b := got[kills("web", "oom_container_limit")], got[kills("web", "oom_pod_limit")]; a != "" && a != "0" || b != "" {
		t.Errorf("on the way: %q and %q", a, b)
	}
	m.Kept(m.Prepare(change, false))
	got = scrape(t, m)
	if a, b := got[kills("web", "oom_container_limit")], got[kills("web", "oom_pod_limit")]; a != "" || b != "1" {
		t.Errorf("kept: %q and %q, want none and 1", a, b)
	}
}

func TestSweep_IsKeptToo(t *testing.T) {
	c, f := &clock{start}, newFile()
	m := metrics.New(metrics.Options{Now: c.Now})
	d := kill("d1", death.OOMContainerLimit, process(1, death.FateVictim))
	b := m.Prepare(m.Take(&d), false)
	f.keep(b, d)
	m.Kept(b)
	scrape(t, m)
	c.now = c.now.Add(25 * time.Hour)
	scrape(t, m)
	if !m.Unkept() {
		t.Error("nothing to keep after a series went")
	}
	b = m.Prepare(metrics.Change{}, false)
	f.keep(b)
	m.Kept(b)
	if diff := cmp.Diff(map[string]metrics.Count{}, f.counts); diff != "" || m.Unkept() {
		t.Errorf("what is kept (-want +got):\n%s", diff)
	}
}

// TestCounters_OverKills: whatever is taken, kept, scraped and killed in
// whatever order, no counter is ever lower than a scrape has shown it, and in
// the end each kill is counted once.
func TestCounters_OverKills(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 20
	}
	for seed := range rounds {
		w := &world{t: t, rnd: rand.New(rand.NewPCG(7, uint64(seed))), file: newFile(), truth: map[string]death.Death{}, seen: map[string]float64{}}
		w.m = w.file.open(metrics.Options{})
		for range 200 {
			w.step()
		}
		w.keepSome(len(w.waiting))
		w.look()
		want := 0
		for _, d := range w.truth {
			want += d.OOMKills()
		}
		got := 0.0
		for series, v := range w.seen {
			if strings.HasPrefix(series, "coroner_oom_kills_total{") {
				got += v
			}
		}
		if got != float64(want) {
			t.Fatalf("seed %d: %v kills counted, want %d", seed, got, want)
		}
	}
}

type waitingDeath struct {
	death  death.Death
	change metrics.Change
}

// world is an agent in small: deaths come, wait, are kept, and it is killed.
type world struct {
	t       *testing.T
	rnd     *rand.Rand
	m       *metrics.Metrics
	file    *file
	truth   map[string]death.Death
	ids     []string
	waiting []waitingDeath
	seen    map[string]float64
}

func (w *world) step() {
	switch n := w.rnd.IntN(20); {
	case n < 7:
		cause := []death.Cause{death.OOMContainerLimit, death.OOMPodLimit, death.OOMNode}[w.rnd.IntN(3)]
		d := kill(fmt.Sprint("d", len(w.ids)), cause, process(len(w.ids), death.FateVictim))
		w.ids = append(w.ids, d.ID)
		w.tell(d)
	case n < 11 && len(w.ids) > 0:
		w.tell(amended(w.truth[w.ids[max(0, len(w.ids)-1-w.rnd.IntN(4))]], func(d *death.Death) {
			switch w.rnd.IntN(3) {
			case 0:
				d.Cause = death.OOMPodLimit
			case 1:
				d.Processes = append(d.Processes[:len(d.Processes):len(d.Processes)], process(1000+w.rnd.IntN(9), death.FateGroup))
			case 2:
				d.Subject = death.SubjectContainer
			}
		}))
	case n < 15:
		w.keepSome(w.rnd.IntN(len(w.waiting) + 1))
	case n < 16: // it fails
		w.prepare(w.rnd.IntN(len(w.waiting) + 1))
	case n < 19:
		w.look()
	default:
		w.kill()
	}
}

func (w *world) tell(d death.Death) {
	w.truth[d.ID] = d
	w.waiting = append(w.waiting, waitingDeath{d, w.m.Take(&d)})
}

func (w *world) prepare(n int) (metrics.Batch, []death.Death) {
	var all metrics.Change
	var deaths []death.Death
	for _, d := range w.waiting[:n] {
		all.Join(d.change)
		deaths = append(deaths, d.death)
	}
	return w.m.Prepare(all, w.rnd.IntN(8) == 0), deaths
}

func (w *world) keepSome(n int) {
	b, deaths := w.prepare(n)
	w.waiting = w.waiting[n:]
	w.file.keep(b, deaths...)
	w.m.Kept(b)
}

// kill may come between the commit and its being known. What was not kept is
// told again by the next run, as the kernel's log does.
func (w *world) kill() {
	if n := len(w.waiting); n > 0 && w.rnd.IntN(2) == 0 {
		b, deaths := w.prepare(w.rnd.IntN(n) + 1)
		w.file.keep(b, deaths...)
	}
	w.m, w.waiting = w.file.open(metrics.Options{}), nil
	if w.rnd.IntN(2) == 0 {
		w.look()
	}
	for _, id := range w.ids {
		if w.file.deaths[id].Revision < w.truth[id].Revision {
			w.tell(w.truth[id])
		}
	}
}

// look scrapes, and compares with what was seen before.
func (w *world) look() {
	got := scrape(w.t, w.m)
	for series, was := range w.seen {
		if now, _ := strconv.ParseFloat(got[series], 64); now < was {
			w.t.Fatalf("%s fell from %v to %v", series, was, now)
		}
	}
	for series, v := range got {
		if strings.HasPrefix(series, "coroner_oom_kills_total{") || strings.HasPrefix(series, "coroner_container_terminations_total{") {
			w.seen[series], _ = strconv.ParseFloat(v, 64)
		}
	}
}
