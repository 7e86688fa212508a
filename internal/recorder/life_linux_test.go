// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coroner-dev/coroner/internal/signal"
)

func (m *machine) densely() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.dense)
}

func (m *machine) queued() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.fresh)
}

// TestRecorder_Ended: what is known of a cgroup that has gone is known for ten
// minutes, by path, by ID and by both, and is not mixed up with another of its
// name.
func TestRecorder_Ended(t *testing.T) {
	inBubble(t, Options{}, func(m *machine) {
		first := m.cgroup("/box", truth{usage: 10 * mib, limit: 64 * mib})
		m.Watch(first)
		m.sleep(5 * time.Second)
		m.Forget(first)
		m.Forget(first)
		before := m.history(first)
		if n := len(before.Samples); n != 5 && n != 6 {
			m.t.Errorf("%d samples of 5 s", n)
		}
		if err := os.Rename(filepath.Join(m.dir, "box"), filepath.Join(m.dir, "old")); err != nil {
			m.t.Fatal(err)
		}
		second := m.cgroup("/box", truth{usage: 20 * mib})
		m.Watch(second)
		m.sleep(time.Second)
		for _, tt := range []struct {
			name  string
			asked signal.Cgroup
			usage int64
		}{
			{"the first", first, 10 * mib},
			{"the first by its id", signal.Cgroup{ID: first.ID}, 10 * mib},
			{"the second", second, 20 * mib},
			{"the second by its id", signal.Cgroup{ID: second.ID}, 20 * mib},
			{"the one that is there, by its path", signal.Cgroup{Path: "/box"}, 20 * mib},
		} {
			if h := m.history(tt.asked); h.Last.UsageBytes != tt.usage || *h.PeakBytes != tt.usage {
				m.t.Errorf("%s: %+v", tt.name, h)
			}
		}
		for _, c := range []signal.Cgroup{{}, {Path: "/other"}, {ID: 1}, {ID: 1, Path: "/box"}} {
			if h, ok := m.History(c); ok {
				m.t.Errorf("%+v: %+v", c, h)
			}
		}
		if _, ok := m.Live(first); ok {
			m.t.Error("the first lives")
		}
		m.Forget(second)
		if h := m.history(signal.Cgroup{Path: "/box"}); h.Last.UsageBytes != 20*mib {
			m.t.Errorf("of two that have gone: %+v", h)
		}
		m.sleep(tombFor)
		m.history(second)
		m.sleep(2 * time.Second)
		if h, ok := m.History(second); ok {
			m.t.Errorf("after %s: %+v", tombFor, h)
		}
	})
}

// TestRecorder_AnotherOfTheSameName: the engine made it again, and nobody said
// that the first had gone.
func TestRecorder_AnotherOfTheSameName(t *testing.T) {
	inBubble(t, Options{noKeep: true}, func(m *machine) {
		first := m.cgroup("/box", truth{usage: 10 * mib})
		m.Watch(first)
		m.sleep(5 * time.Second)
		if err := os.Rename(filepath.Join(m.dir, "box"), filepath.Join(m.dir, "old")); err != nil {
			m.t.Fatal(err)
		}
		second := m.cgroup("/box", truth{usage: 20 * mib})
		m.sleep(5 * time.Second) // the second is not taken for the first
		if h := m.history(first); h.Last.UsageBytes != 10*mib || len(h.Samples) > 6 {
			m.t.Errorf("%+v", h)
		}
		m.Watch(second)
		m.sleep(time.Second)
		if h := m.history(second); h.Last.UsageBytes != 20*mib {
			m.t.Errorf("%+v", h)
		}
	})
}

// TestRecorder_NeverThere: a cgroup that had gone before it was read.
func TestRecorder_NeverThere(t *testing.T) {
	inBubble(t, Options{}, func(m *machine) {
		m.Watch(signal.Cgroup{ID: 7, Path: "/gone"})
		for _, p := range []string{"", "relative", "/a/../../etc", "/a/", "/a//b"} {
			m.Watch(signal.Cgroup{Path: p})
		}
		m.sleep(3 * time.Second)
		if s := m.Stats(); s != (Stats{}) {
			m.t.Errorf("%+v", s)
		}
	})
}

// TestRecorder_ShortLife: one that lives a tenth of a second is known.
func TestRecorder_ShortLife(t *testing.T) {
	inBubble(t, Options{}, func(m *machine) {
		m.sleep(123 * time.Millisecond)
		c := m.cgroup("/short", truth{usage: 3 * mib})
		m.Watch(c)
		m.sleep(90 * time.Millisecond)
		m.cgroup("/short", truth{usage: 30 * mib})
		m.sleep(90 * time.Millisecond)
		m.Forget(c)
		if h := m.history(c); len(h.Samples) != 1 || h.Samples[0][1] != 30*mib || *h.PeakBytes != 30*mib {
			m.t.Errorf("%+v", h)
		}
	})
}

// TestRecorder_AtRest: where the usage stands still, what else changes is seen
// within ten seconds, and a peak at once.
func TestRecorder_AtRest(t *testing.T) {
	inBubble(t, Options{}, func(m *machine) {
		c := m.cgroup("/box", truth{usage: 30 * mib, peak: 30 * mib})
		m.Watch(c)
		m.sleep(15 * time.Second)
		m.cgroup("/box", truth{usage: 30 * mib, inactive: 10 * mib, peak: 30 * mib})
		m.sleep(10 * time.Second)
		if h := m.history(c); h.Last.WorkingSetBytes != 20*mib || time.Since(h.Last.Time) > time.Second {
			m.t.Errorf("%+v", h)
		}
		m.sleep(time.Second)
		m.cgroup("/box", truth{usage: 30 * mib, inactive: 20 * mib, peak: 40 * mib})
		m.sleep(time.Second)
		if h := m.history(c); h.Last.WorkingSetBytes != 10*mib || *h.PeakBytes != 40*mib || len(h.Samples) < 27 {
			m.t.Errorf("%+v", h)
		}
	})
}

// TestRecorder_ReadNow: what a first process left behind is seen, though its
// cgroup goes before its turn comes.
func TestRecorder_ReadNow(t *testing.T) {
	inBubble(t, Options{}, func(m *machine) {
		c := m.cgroup("/box", truth{usage: 3 * mib, peak: 3 * mib})
		m.Watch(c)
		m.sleep(10*time.Second + 300*time.Millisecond)
		m.cgroup("/box", truth{usage: 30 * mib, peak: 40 * mib})
		for range 3 {
			m.ReadNow(c)
		}
		m.ReadNow(signal.Cgroup{Path: "/other"})
		m.sleep(time.Millisecond)
		m.Forget(c)
		h := m.history(c)
		if last := h.Samples[len(h.Samples)-1]; last[2] != 30*mib || *h.PeakBytes != 40*mib {
			m.t.Errorf("%+v", h)
		}
		if n := m.queued(); n != 0 {
			m.t.Errorf("%d left", n)
		}
	})
}

// TestRecorder_ShmemSetFree: what an end sets free before the last reading is
// known for some seconds.
func TestRecorder_ShmemSetFree(t *testing.T) {
	inBubble(t, Options{}, func(m *machine) {
		c := m.cgroup("/box", truth{usage: 3 * mib, peak: 3 * mib})
		m.Watch(c)
		m.sleep(10*time.Second + 300*time.Millisecond)
		held := func(want int64) {
			m.t.Helper()
			if h := m.history(c); h.ShmemBytes == nil || *h.ShmemBytes != want {
				m.t.Errorf("shared memory %v, want %d", h.ShmemBytes, want)
			}
		}
		held(3)
		m.cgroup("/box", truth{usage: 70 * mib, peak: 70 * mib, shmem: 64 * mib})
		m.sleep(time.Second)
		held(64 * mib)
		m.cgroup("/box", truth{usage: 2 * mib, peak: 70 * mib})
		m.ReadNow(c)
		m.sleep(time.Millisecond)
		held(64 * mib)
		m.sleep(10 * time.Second)
		held(3)
	})
}

// TestRecorder_NearItsLimit: where the limit is seconds away, what lasts a
// tenth of a second is seen; of one that only lives close to it, it need not be.
func TestRecorder_NearItsLimit(t *testing.T) {
	inBubble(t, Options{}, func(m *machine) {
		grows := m.cgroup("/grows", truth{usage: 100 * mib, limit: 1000 * mib})
		still := m.cgroup("/still", truth{usage: 990 * mib, limit: 1000 * mib})
		m.Watch(grows)
		m.Watch(still)
		m.sleep(10*time.Second + 50*time.Millisecond)
		if n := m.densely(); n != 0 {
			m.t.Errorf("%d read densely at rest", n)
		}
		m.cgroup("/grows", truth{usage: 400 * mib, limit: 1000 * mib})
		m.sleep(time.Second)
		if n := m.densely(); n != 1 {
			m.t.Errorf("%d read densely", n)
		}
		m.cgroup("/grows", truth{usage: 900 * mib, limit: 1000 * mib})
		m.sleep(100 * time.Millisecond)
		m.cgroup("/grows", truth{usage: 50 * mib, limit: 1000 * mib})
		m.sleep(1500 * time.Millisecond)
		h := m.history(grows)
		if *h.PeakBytes != 900*mib || !h.PeakSampled && m.version == 2 {
			m.t.Errorf("%+v", h)
		}
		m.sleep(5 * time.Second)
		if n := m.densely(); n != 0 {
			m.t.Errorf("%d read densely at the end", n)
		}
	})
}

// TestRecorder_Peak: the kernel's own, and where there is none the highest
// seen, and told so.
func TestRecorder_Peak(t *testing.T) {
	inBubble(t, Options{}, func(m *machine) {
		with := m.cgroup("/with", truth{usage: 1 * mib, peak: 70 * mib})
		without := m.cgroup("/without", truth{usage: 9 * mib})
		m.Watch(with)
		m.Watch(without)
		m.sleep(time.Second)
		m.cgroup("/without", truth{usage: 1 * mib})
		m.sleep(3 * time.Second)
		if h := m.history(with); *h.PeakBytes != 70*mib || h.PeakSampled {
			m.t.Errorf("%+v", h)
		}
		if h := m.history(without); *h.PeakBytes != 9*mib || h.PeakSampled != (m.version == 2) {
			m.t.Errorf("%+v", h)
		}
	})
}

func TestRecorder_Figures(t *testing.T) {
	inBubble(t, Options{}, func(m *machine) {
		leak := m.cgroup("/leak", truth{limit: 1000 * mib})
		free := m.cgroup("/free", truth{usage: 7 * mib, inactive: 2 * mib})
		m.Watch(leak)
		m.Watch(free)
		m.sleep(50 * time.Millisecond)
		for s := range int64(121) {
			m.cgroup("/leak", truth{usage: s * mib, limit: 1000 * mib})
			m.sleep(time.Second)
		}
		byPath := map[string]Figure{}
		for _, f := range m.Figures() {
			byPath[f.Path] = f
		}
		f, g := byPath["/leak"], byPath["/free"]
		if len(byPath) != 2 || f.LimitETASeconds == nil || *f.LimitETASeconds < 800 || *f.LimitETASeconds > 960 || *f.LimitBytes != 1000*mib {
			m.t.Errorf("%+v", f)
		}
		if g.LimitETASeconds != nil || g.LimitBytes != nil || *g.PeakBytes != 7*mib || g.Reading.WorkingSetBytes != 5*mib || g.Reading.UsageBytes != 7*mib {
			m.t.Errorf("%+v", g)
		}
		if one, ok := m.Live(leak); !ok || one.Reading.UsageBytes != 120*mib {
			m.t.Errorf("%+v, %t", one, ok)
		}
		// A limit that is lowered is seen in half a minute.
		m.cgroup("/free", truth{usage: 7 * mib, inactive: 2 * mib, limit: 8 * mib})
		m.sleep(30 * time.Second)
		if one, ok := m.Live(free); !ok || one.LimitBytes == nil || *one.LimitBytes != 8*mib {
			m.t.Errorf("%+v, %t", one, ok)
		}
		// And from when to when each was read.
		if l := m.history(free).Limits; len(l) != 2 || l[0].Bytes != nil || l[1].Bytes == nil || *l[1].Bytes != 8*mib ||
			l[1].First.Sub(l[0].Last) > slowFor*time.Second || l[1].Last.Before(l[1].First) {
			m.t.Errorf("limits %+v", l)
		}
		// A limit that is raised moves the end away.
		m.cgroup("/leak", truth{usage: 120 * mib, limit: 100_000 * mib})
		m.ReadNow(leak)
		m.sleep(time.Second)
		if one, ok := m.Live(leak); !ok || one.LimitETASeconds != nil || *one.LimitBytes != 100_000*mib {
			m.t.Errorf("%+v, %t", one, ok)
		}
	})
}

// TestRecorder_Bounds: too many cgroups are refused and counted, too many that
// have gone forgotten.
func TestRecorder_Bounds(t *testing.T) {
	inBubble(t, Options{MaxCgroups: 200}, func(m *machine) {
		at := func(i int) signal.Cgroup { return m.cgroup(fmt.Sprintf("/box%d", i), truth{usage: int64(i) * mib}) }
		for i := range 205 {
			m.Watch(at(i))
		}
		m.sleep(2 * time.Second)
		if s := m.Stats(); s.Recorded != 200 || s.Refused != 5 || s.Errors != 0 || strings.Count(m.logged.String(), "\n") != 1 {
			m.t.Errorf("%+v; logged %s", s, m.logged.String())
		}
		m.mu.Lock()
		for _, in := range m.slots {
			if len(in) > slotLoad {
				m.t.Errorf("%d in one slot", len(in))
			}
		}
		m.mu.Unlock()
		if n := len(m.Figures()); n != 200 {
			m.t.Errorf("%d figures", n)
		}
		for i := range 200 {
			if h := m.history(signal.Cgroup{Path: fmt.Sprintf("/box%d", i)}); h.Last.UsageBytes != int64(i)*mib {
				m.t.Errorf("%d: %+v", i, h)
			}
		}
		for i := range maxTombs + 10 {
			c := signal.Cgroup{Path: fmt.Sprintf("/box%d", i%200)}
			m.Forget(c)
			m.Watch(c)
			m.sleep(20 * time.Millisecond)
		}
		if s := m.Stats(); s.Recorded != 200 || s.Ended != maxTombs {
			m.t.Errorf("%+v", s)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		var bytes int
		for i := range m.ended.all {
			bytes += m.ended.all[i].size()
		}
		if bytes != m.ended.bytes || bytes > maxTombBytes || len(m.dense) > maxDense {
			m.t.Errorf("%d bytes, booked %d; %d dense", bytes, m.ended.bytes, len(m.dense))
		}
	})
}

// TestRecorder_Unreadable: what cannot be understood is counted, logged once,
// and tried again.
func TestRecorder_Unreadable(t *testing.T) {
	inBubble(t, Options{}, func(m *machine) {
		c := m.cgroup("/box", truth{usage: mib})
		stat := filepath.Join(m.dir, "box", "memory.stat")
		for _, text := range []string{"total_inactive_file x\ninactive_file x\n", strings.Repeat("long 1\n", 1<<12)} {
			if err := os.WriteFile(stat, []byte(text), 0o600); err != nil {
				m.t.Fatal(err)
			}
			before := m.Stats().Errors
			m.Watch(c)
			m.sleep(25 * time.Second)
			if s := m.Stats(); s.Errors < before+2 || s.Errors > before+4 {
				m.t.Errorf("%.20q: %+v", text, s)
			}
			if _, ok := m.History(c); ok {
				m.t.Errorf("%.20q: there is a history", text)
			}
		}
		m.cgroup("/box", truth{usage: 2 * mib})
		m.sleep(10 * time.Second)
		if h := m.history(c); h.Last.UsageBytes != 2*mib || strings.Count(m.logged.String(), "\n") != 1 {
			m.t.Errorf("%+v; logged %s", h, m.logged.String())
		}
	})
}

// TestRecorder_RunsAgain: a second Run goes on where the first ended.
func TestRecorder_RunsAgain(t *testing.T) {
	inBubble(t, Options{}, func(m *machine) {
		again := New(m.opt)
		c := m.cgroup("/box", truth{usage: mib})
		again.Watch(c)
		for range 2 {
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error)
			go func() { done <- again.Run(ctx) }()
			m.sleep(2*time.Second + time.Millisecond)
			cancel()
			if err := <-done; err != nil {
				m.t.Error(err)
			}
			if len(again.Figures()) != 1 {
				m.t.Error("no figure")
			}
			m.sleep(time.Minute)
			if n := len(again.Figures()); n != 0 {
				m.t.Errorf("%d figures that are a minute old", n)
			}
		}
		synctest.Wait()
		if h, ok := again.History(c); !ok || len(h.Samples) != 6 {
			m.t.Errorf("%+v", h)
		}
	})
}

func TestRun_NoHierarchy(t *testing.T) {
	opt := Options{}
	opt.Roots.Cgroup = t.TempDir()
	if err := New(opt).Run(t.Context()); err == nil {
		t.Error("no error")
	}
}

// TestEvery: what a reading costs decides how often there is one.
func TestEvery(t *testing.T) {
	for _, tt := range []struct {
		cost time.Duration
		n    int
		want int64
	}{
		{15 * time.Microsecond, 200, 1}, {15 * time.Microsecond, 3000, 1}, {15 * time.Microsecond, 4096, 2},
		{50 * time.Microsecond, 200, 1}, {time.Millisecond, 10, 1}, {time.Millisecond, 200, 5}, {time.Second, 1, 10},
	} {
		e := &entry{costs: [3]time.Duration{tt.cost, time.Second, 2 * time.Second}, ncosts: 3}
		if got := e.every(tt.n); got != tt.want {
			t.Errorf("%s, %d cgroups: each %d s, want %d", tt.cost, tt.n, got, tt.want)
		}
	}
}
