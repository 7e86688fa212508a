// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"fmt"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestInquest_Audit: what the machine counted and nobody saw is unattributed;
// what a cgroup counted becomes a death.
func TestInquest_Audit(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	v := task(100, "leak", leftPath, false)
	sigs := sources(sc, "tracepoint", "cgroup")
	for _, b := range oomKill(v, v) {
		sigs = append(sigs, sc.sig("tracepoint", b))
	}
	sigs = append(sigs,
		sc.sig("cgroup", signal.CgroupCounters{Cgroup: signal.Cgroup{Path: leftPath}, OOMKill: 3}),
		sc.sig("cgroup", signal.NodeCounters{OOMKill: 5, Total: 5}))
	ds := play(t, q, sigs...)
	if len(ds) != 3 {
		t.Fatalf("deaths = %d, want 3 (one seen, two counted)\n%s", len(ds), sketch(ds))
	}
	q.Tick(q.now.Add(time.Minute))
	if got := q.Stats(); got.Unattributed != 2 || got.NodeOOMKills != 5 {
		t.Errorf("unattributed %d of %d, want 2 of 5", got.Unattributed, got.NodeOOMKills)
	}
}

// TestInquest_LateKillClaimsItsCount: a counter-made death is taken over by
// the kill that it counted.
func TestInquest_LateKillClaimsItsCount(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	v := task(100, "leak", leftPath, false)
	sigs := append(sources(sc, "cgroup"),
		sc.sig("cgroup", signal.CgroupCounters{Cgroup: signal.Cgroup{Path: leftPath}, OOMKill: 1}),
		sc.sig("cgroup", signal.NodeCounters{OOMKill: 1, Total: 1}))
	for _, b := range oomKill(v, v, level(leftPath, 40*mib, 40*mib)) {
		sigs = append(sigs, sc.sig("tracepoint", b))
	}
	d := only(t, play(t, q, sigs...))
	if d.OOMKills() != 1 || d.Processes[0].PID != 100 || d.Confidence != death.Probable {
		t.Errorf("got:\n%s", sketch([]death.Death{d}))
	}
	q.Tick(q.now.Add(time.Minute))
	if n := q.Stats().Unattributed; n != 0 {
		t.Errorf("unattributed = %d, want 0", n)
	}
}

// TestInquest_Restart: the log read again doubles nothing, and amends what
// was given out before the restart.
func TestInquest_Restart(t *testing.T) {
	sc := &scene{}
	v := task(100, "leak", leftPath, false)
	var sigs []signal.Signal
	for _, b := range oomKill(v, v) {
		sigs = append(sigs, sc.sig("tracepoint", b))
	}
	before := play(t, New(Options{}), sigs...)
	q := New(Options{})
	q.Restore(epoch.Add(time.Minute), before)
	s := sc.sig("kmsg", reported(100, "leak", leftPath, leftPath, 40*mib, 40*mib))
	s.Observed, s.Recovered = epoch.Add(time.Minute), true
	q.Feed(s)
	d := only(t, q.Take())
	if d.ID != before[0].ID || d.Revision != before[0].Revision+1 || d.Confidence != death.Certain || d.OOM.LimitBytes == nil {
		t.Errorf("got revision %d of %s:\n%s", d.Revision, d.ID, sketch([]death.Death{d}))
	}
	q.Feed(s)
	if ds := q.Take(); len(ds) != 0 {
		t.Errorf("the same record once more gave:\n%s", sketch(ds))
	}
}

// TestInquest_PIDComesBack: another process of the same pid is another death.
func TestInquest_PIDComesBack(t *testing.T) {
	sc := &scene{}
	v := task(100, "leak", leftPath, false)
	var sigs []signal.Signal
	for range 3 {
		for _, b := range oomKill(v, v) {
			sigs = append(sigs, sc.sig("tracepoint", b))
		}
	}
	if ds := play(t, New(Options{}), sigs...); len(ds) != 3 || ds[0].ID == ds[1].ID {
		t.Errorf("deaths:\n%s", sketch(ds))
	}
}

func TestInquest_MemoryIsBounded(t *testing.T) {
	q := New(Options{MaxCases: 100})
	sc := &scene{}
	for i := range 5000 {
		v := task(1000+i, "leak", fmt.Sprintf("/c%d", i), false)
		for _, b := range oomKill(v, v) {
			q.Feed(sc.sig("tracepoint", b))
		}
		q.Take()
		if i%100 == 0 {
			q.Tick(q.now)
		}
	}
	q.Tick(q.now)
	if got := q.Stats(); got.OpenCases > 100 || got.EarlySettled == 0 {
		t.Errorf("open cases = %d, settled early = %d", got.OpenCases, got.EarlySettled)
	}
}

// TestInquest_PlacedByCount: a victim whose cgroup no source could tell is
// placed by the one counter that rose, and is not counted twice.
func TestInquest_PlacedByCount(t *testing.T) {
	lost := task(100, "leak", "", false)
	for _, tc := range []struct {
		name  string
		risen []string
		pid   int
	}{
		{"one cgroup", []string{leftPath}, 100},
		{"two cgroups, one victim each", []string{leftPath, rightPth}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			sigs := sources(sc, "tracepoint", "cgroup")
			for i, path := range tc.risen {
				v := lost
				v.PID, v.TID, v.MM = 100+i, 100+i, uint64(i+1)
				for _, b := range oomKill(v, v) {
					sigs = append(sigs, sc.sig("tracepoint", b))
				}
				sigs = append(sigs, sc.sig("cgroup", signal.CgroupCounters{Cgroup: signal.Cgroup{Path: path}, OOMKill: 1}))
			}
			sigs = append(sigs, sc.sig("cgroup", signal.NodeCounters{OOMKill: uint64(len(tc.risen))}))
			ds := play(t, q, sigs...)
			if len(ds) != len(tc.risen) {
				t.Fatalf("deaths = %d, want %d\n%s", len(ds), len(tc.risen), sketch(ds))
			}
			for i, d := range ds {
				if p := d.Processes[0]; d.OOM.TaskMemcg != tc.risen[i] || p.PID != tc.pid || p.Comm != "leak" || d.Revision != 1 {
					t.Errorf("pid %d (%s) in %q, revision %d", p.PID, p.Comm, d.OOM.TaskMemcg, d.Revision)
				}
			}
			q.Tick(q.now.Add(time.Minute))
			if n := q.Stats().Unattributed; n != 0 {
				t.Errorf("unattributed = %d, want 0", n)
			}
		})
	}
}

// TestInquest_PlacedWhileKillsGoOn: in a cgroup where one kill follows the
// other, a victim that no source could place is placed and not counted twice.
func TestInquest_PlacedWhileKillsGoOn(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	sigs := sources(sc, "tracepoint", "cgroup")
	const kills = 40
	for i := range kills {
		sc.n = 1000 * (i + 1) // one each second
		v := task(100+i, "leak", leftPath, false)
		v.MM = uint64(i + 1)
		if i%5 == 0 {
			v.Cgroup = signal.Cgroup{}
		}
		for _, b := range oomKill(v, v) {
			sigs = append(sigs, sc.sig("tracepoint", b))
		}
		sigs = append(sigs,
			sc.sig("cgroup", signal.NodeCounters{OOMKill: 1}),
			sc.sig("cgroup", signal.CgroupCounters{Cgroup: signal.Cgroup{Path: leftPath}, OOMKill: 1}))
	}
	var ticked []death.Death
	for _, s := range sigs {
		q.Tick(s.Observed)
		q.Feed(s)
		ticked = append(ticked, q.Take()...)
	}
	ticked = append(ticked, q.Close()...)
	last := map[string]death.Death{}
	for _, d := range ticked {
		last[d.ID] = d
	}
	for _, d := range last {
		if d.OOM.TaskMemcg != leftPath || d.Processes[0].PID == 0 {
			t.Errorf("got:\n%s", sketch([]death.Death{d}))
		}
	}
	q.Tick(q.now.Add(time.Minute))
	if len(last) != kills || q.Stats().Unattributed != 0 {
		t.Errorf("deaths = %d, want %d; unattributed %d, want 0", len(last), kills, q.Stats().Unattributed)
	}
}

// TestInquest_SummaryOfAThreadsKill: the first thread of the victim had ended,
// the rate limit took the link between the kill line, which names another
// thread, and the report, which names the process.
func TestInquest_SummaryOfAThreadsKill(t *testing.T) {
	v := task(835, "member", leftPath, false)
	v.TID = 837
	line := signal.ReportedKill{Report: 1, Victim: signal.Task{PID: 837, Comm: "member"}, Memcg: true}
	late := reported(835, "member", leftPath, leftPath, 40*mib, 40*mib)
	late.Summary, late.Figures = true, signal.Figures{}
	sc := &scene{}
	q := New(Options{})
	sigs := sources(sc, "tracepoint", "kmsg", "cgroup")
	for _, b := range oomKill(v, v) {
		sigs = append(sigs, sc.sig("tracepoint", b))
	}
	sigs = append(sigs, sc.sig("kmsg", line), sc.sig("kmsg", late), sc.sig("cgroup", signal.NodeCounters{OOMKill: 1, Total: 1}))
	d := only(t, play(t, q, sigs...))
	if len(d.Processes) != 1 || d.Processes[0].PID != 835 || d.Confidence != death.Certain || d.OOM.OOMMemcg != leftPath {
		t.Errorf("got:\n%s", sketch([]death.Death{d}))
	}
}

// TestInquest_ManyRestored: what a long history brings back does not take the
// room in which new cases wait.
func TestInquest_ManyRestored(t *testing.T) {
	var before []death.Death
	for i := range 5000 {
		before = append(before, death.Death{
			ID: fmt.Sprint("old", i), Revision: 1, Time: epoch.Add(-time.Hour), Subject: death.SubjectProcess,
			OOM: &death.OOM{TaskMemcg: rightPth}, Processes: []death.Process{{PID: 10000 + i, Fate: death.FateVictim}},
		})
	}
	sc := &scene{}
	q := New(Options{})
	q.Restore(epoch, before)
	sigs := append(sources(sc, "kmsg", "cgroup"), sc.sig("kmsg", signal.ReportedKill{Report: 1, Victim: signal.Task{PID: 100, Comm: "leak"}, Memcg: true}))
	for _, s := range sigs {
		q.Feed(s)
	}
	q.Tick(q.now.Add(500 * time.Millisecond))
	if ds := q.Take(); len(ds) != 0 {
		t.Errorf("told before its counter was read:\n%s", sketch(ds))
	}
	q.Feed(sc.sig("cgroup", signal.NodeCounters{OOMKill: 1, Total: 1}))
	q.Feed(sc.sig("cgroup", signal.CgroupCounters{Cgroup: signal.Cgroup{ID: 7, Path: leftPath}, OOMKill: 1, OOMKillTotal: 1}))
	if d := only(t, q.Close()); d.OOM.TaskMemcg != leftPath || d.Processes[0].PID != 100 {
		t.Errorf("got:\n%s", sketch([]death.Death{d}))
	}
}
