// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

const leftCgroup, rightCgroup, podCgroup = 11, 12, 10

// stands is what the cgroup source says that a counter stands at.
func stands(id uint64, path string, own, below uint64) signal.CgroupCounters {
	return signal.CgroupCounters{Cgroup: signal.Cgroup{ID: id, Path: path}, OOMKillTotal: own, OOMKillBelowTotal: below}
}

// unattributed waits for the audit and returns its figure.
func unattributed(q *Inquest) uint64 {
	for range 40 {
		q.Tick(q.now.Add(500 * time.Millisecond))
	}
	return q.Stats().Unattributed
}

// restart hands over to another inquest what an agent keeps.
func restart(sc *scene, q *Inquest, deaths []death.Death, told *Told) *Inquest {
	c := q.TakeTold()
	if c.Node != nil {
		told.Node = *c.Node
	}
	if told.Cgroups == nil {
		told.Cgroups = map[uint64]CgroupTold{}
	}
	for id, t := range c.Cgroups {
		told.Cgroups[id] = t
	}
	for _, id := range c.Removed {
		delete(told.Cgroups, id)
	}
	next := New(Options{})
	next.Continue(*told)
	sc.n += 60_000
	next.Restore(epoch.Add(time.Duration(sc.n)*time.Millisecond), deaths)
	return next
}

// TestAudit_KillsWhileAway: what the counters counted while no agent ran
// becomes deaths, once each, with the log's unread part and without.
func TestAudit_KillsWhileAway(t *testing.T) {
	for _, tc := range []struct {
		name string
		log  []signal.ReportedKill
		// want are the deaths of the second run: process by cgroup.
		want map[string][]int
	}{
		{"counters alone", nil, map[string][]int{leftPath: {0, 0}, rightPth: {0}}},
		{"the log names all", []signal.ReportedKill{
			reported(201, "leak", leftPath, leftPath, mib, mib), reported(202, "leak", leftPath, leftPath, mib, mib),
			reported(203, "leak", rightPth, rightPth, mib, mib),
		}, map[string][]int{leftPath: {201, 202}, rightPth: {203}}},
		{"the log names one, and two without a cgroup", []signal.ReportedKill{
			reported(201, "leak", leftPath, leftPath, mib, mib),
			{Report: 7, Victim: signal.Task{PID: 202, Comm: "leak"}, Memcg: true},
			{Report: 7, Victim: signal.Task{PID: 203, Comm: "leak"}, Memcg: true},
		}, map[string][]int{leftPath: {0, 201}, rightPth: {0}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc, told := &scene{}, &Told{}
			q := New(Options{})
			v := task(100, "leak", leftPath, false)
			v.Cgroup.ID = leftCgroup
			sigs := []signal.Signal{
				sc.sig("cgroup", stands(leftCgroup, leftPath, 5, 0)), // from before the first run: nobody's
				sc.sig("cgroup", signal.NodeCounters{Total: 50}),
			}
			sigs = append(sigs, sources(sc, "cgroup", "tracepoint", "kmsg")...)
			for _, b := range oomKill(v, v) {
				sigs = append(sigs, sc.sig("tracepoint", b))
			}
			sigs = append(sigs, sc.sig("cgroup", signal.NodeCounters{OOMKill: 1, Total: 51}), sc.sig("cgroup", stands(leftCgroup, leftPath, 6, 0)))
			before := ticking(q, sigs...)
			if len(before) != 1 || unattributed(q) != 0 {
				t.Fatalf("first run: %d deaths, unattributed %d\n%s", len(before), unattributed(q), sketch(before))
			}

			q = restart(sc, q, before, told)
			sigs = nil
			for _, b := range tc.log {
				s := sc.sig("kmsg", b)
				s.Recovered, s.Time = true, s.Time.Add(-10*time.Second)
				sigs = append(sigs, s)
			}
			sigs = append(sigs,
				sc.sig("cgroup", stands(leftCgroup, leftPath, 8, 0)),
				sc.sig("cgroup", stands(rightCgroup, rightPth, 1, 0)),
				sc.sig("cgroup", signal.NodeCounters{Total: 54}))
			sigs = append(sigs, sources(sc, "cgroup", "tracepoint", "kmsg")...)
			got := map[string][]int{}
			for _, d := range ticking(q, sigs...) {
				got[d.OOM.TaskMemcg] = append(got[d.OOM.TaskMemcg], d.Processes[0].PID)
				if !d.Recovered {
					t.Errorf("not recovered:\n%s", sketch([]death.Death{d}))
				}
			}
			for path, pids := range tc.want {
				if !samePIDs(got[path], pids) {
					t.Errorf("in %s: pids %v, want %v", path, got[path], pids)
				}
			}
			if len(got) != len(tc.want) || unattributed(q) != 0 {
				t.Errorf("in %d cgroups, want %d; unattributed %d, want 0", len(got), len(tc.want), unattributed(q))
			}

			// A third run, in which nothing happened.
			q = restart(sc, q, nil, told)
			ds := ticking(q, append([]signal.Signal{
				sc.sig("cgroup", stands(leftCgroup, leftPath, 8, 0)), sc.sig("cgroup", stands(rightCgroup, rightPth, 1, 0)),
				sc.sig("cgroup", signal.NodeCounters{Total: 54}),
			}, sources(sc, "cgroup")...)...)
			if len(ds) != 0 || unattributed(q) != 0 {
				t.Errorf("third run: unattributed %d, want 0, and no deaths:\n%s", unattributed(q), sketch(ds))
			}
		})
	}
}

func samePIDs(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	n := map[int]int{}
	for i := range a {
		n[a[i]]++
		n[b[i]]--
	}
	for _, v := range n {
		if v != 0 {
			return false
		}
	}
	return true
}

// TestAudit_OldDeathsExplainNothing: a death without a cgroup from before the
// restart does not stand for kills that the counters counted since.
func TestAudit_OldDeathsExplainNothing(t *testing.T) {
	sc, told := &scene{}, &Told{}
	q := New(Options{})
	line := sc.sig("kmsg", signal.ReportedKill{Report: 1, Victim: signal.Task{PID: 100, Comm: "leak"}, Memcg: true})
	line.Recovered = true // and before the first run: nobody's
	before := ticking(q, append(append([]signal.Signal{line}, sc.sig("cgroup", signal.NodeCounters{Total: 3})), sources(sc, "cgroup", "kmsg")...)...)
	only(t, before)
	q = restart(sc, q, before, told)
	ds := ticking(q, append([]signal.Signal{
		sc.sig("cgroup", stands(leftCgroup, leftPath, 1, 0)), sc.sig("cgroup", signal.NodeCounters{Total: 4}),
	}, sources(sc, "cgroup", "kmsg")...)...)
	if d := only(t, ds); d.ID == before[0].ID || d.OOM.TaskMemcg != leftPath || unattributed(q) != 0 {
		t.Errorf("unattributed %d; got:\n%s", unattributed(q), sketch(ds))
	}
}

// TestAudit_KillLostAtTheEnd: a counter that rose just before the agent died,
// with no death told yet, is found by the next one.
func TestAudit_KillLostAtTheEnd(t *testing.T) {
	sc, told := &scene{}, &Told{}
	q := New(Options{})
	for _, s := range append(sources(sc, "cgroup", "kmsg"),
		sc.sig("cgroup", signal.NodeCounters{Total: 3}),
		sc.sig("cgroup", signal.NodeCounters{OOMKill: 1, Total: 4}),
		sc.sig("cgroup", stands(leftCgroup, leftPath, 1, 0))) {
		q.Feed(s)
	}
	if ds := q.Take(); len(ds) != 0 {
		t.Fatalf("deaths before the others had their time:\n%s", sketch(ds))
	}
	q = restart(sc, q, nil, told)
	d := only(t, ticking(q, append([]signal.Signal{
		sc.sig("cgroup", stands(leftCgroup, leftPath, 1, 0)), sc.sig("cgroup", signal.NodeCounters{Total: 4}),
	}, sources(sc, "cgroup", "kmsg")...)...))
	if d.OOM.TaskMemcg != leftPath || !d.Recovered || d.Confidence != death.Possible || unattributed(q) != 0 {
		t.Errorf("unattributed %d, got:\n%s", unattributed(q), sketch([]death.Death{d}))
	}
}

// TestAudit_SourceRestarts: kills while the cgroup source was down are found
// when it comes back.
func TestAudit_SourceRestarts(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	sigs := append(sources(sc, "cgroup", "kmsg"),
		sc.sig("cgroup", signal.SourceState{Reason: "broken"}),
		sc.sig("cgroup", stands(leftCgroup, leftPath, 2, 0)))
	sigs = append(sigs, sources(sc, "cgroup")...)
	if ds := ticking(q, sigs...); len(ds) != 2 || ds[0].Recovered {
		t.Errorf("deaths = %d, want 2, not recovered\n%s", len(ds), sketch(ds))
	}
}

// TestAudit_SubtreeNamesTheGone: on v2 the sum of a pod tells of a kill in a
// container that was removed before its own counter was read.
func TestAudit_SubtreeNamesTheGone(t *testing.T) {
	for _, tc := range []struct {
		name    string
		removed []string
		placed  string
	}{
		{"one container was removed", []string{leftPath}, leftPath},
		{"two were", []string{leftPath, rightPth}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			sigs := []signal.Signal{
				sc.sig("cgroup", signal.CgroupSeen{Level: level(podPath, 0, -1)}),
				sc.sig("cgroup", signal.CgroupSeen{Level: level(leftPath, 0, -1)}),
				sc.sig("cgroup", signal.CgroupSeen{Level: level(rightPth, 0, -1)}),
			}
			sigs = append(sigs, sources(sc, "cgroup", "kmsg")...)
			for _, path := range tc.removed {
				sigs = append(sigs, sc.sig("cgroup", signal.CgroupGone{Cgroup: signal.Cgroup{Path: path}}))
			}
			sigs = append(sigs, sc.sig("cgroup", signal.NodeCounters{Total: 7}),
				sc.sig("cgroup", signal.NodeCounters{OOMKill: 1, Total: 8}),
				sc.sig("cgroup", stands(1, "/kubepods.slice", 0, 1)),
				sc.sig("cgroup", stands(2, parent(podPath), 0, 1)),
				sc.sig("cgroup", stands(podCgroup, podPath, 0, 1)))
			d := only(t, ticking(q, sigs...))
			if d.OOM.TaskMemcg != tc.placed || d.Container == nil || d.Container.Pod == nil || d.Container.Pod.UID != podUID || d.Confidence != death.Possible {
				t.Errorf("placed in %q:\n%s", d.OOM.TaskMemcg, sketch([]death.Death{d}))
			}
			if n := unattributed(q); n != 0 {
				t.Errorf("unattributed = %d, want 0", n)
			}
		})
	}
}

// TestAudit_SumsAddNothing: sums of subtrees whose cgroups tell of their own
// kills make no deaths.
func TestAudit_SumsAddNothing(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	sigs := append([]signal.Signal{sc.sig("cgroup", signal.SourceState{Up: true, Mode: "v2"})}, sources(sc, "tracepoint")...)
	for i := range 3 {
		v := task(100+i, "leak", leftPath, false)
		v.Cgroup.ID = leftCgroup
		for _, b := range oomKill(v, v) {
			sigs = append(sigs, sc.sig("tracepoint", b))
		}
		n := uint64(i + 1)
		sigs = append(sigs, sc.sig("cgroup", stands(leftCgroup, leftPath, n, n)),
			sc.sig("cgroup", stands(podCgroup, podPath, 0, n)), sc.sig("cgroup", signal.NodeCounters{OOMKill: 1, Total: n}))
	}
	// And one that only the counters saw.
	sigs = append(sigs, sc.sig("cgroup", stands(rightCgroup, rightPth, 1, 1)),
		sc.sig("cgroup", stands(podCgroup, podPath, 0, 4)), sc.sig("cgroup", signal.NodeCounters{OOMKill: 1, Total: 4}))
	if ds := ticking(q, sigs...); len(ds) != 4 {
		t.Errorf("deaths = %d, want 4\n%s", len(ds), sketch(ds))
	}
	if n := unattributed(q); n != 0 {
		t.Errorf("unattributed = %d, want 0", n)
	}
}

// TestAudit_HeldBack: a victim without a cgroup is told once the counters have
// said where it lived, so that no sink counts it under the wrong name.
func TestAudit_HeldBack(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	for _, s := range append(sources(sc, "kmsg", "cgroup"),
		sc.sig("kmsg", signal.ReportedKill{Report: 1, Victim: signal.Task{PID: 100, Comm: "leak"}, Memcg: true}),
		sc.sig("cgroup", stands(leftCgroup, leftPath, 1, 0))) {
		q.Feed(s)
	}
	if ds := q.Take(); len(ds) != 0 {
		t.Fatalf("told at once:\n%s", sketch(ds))
	}
	q.Tick(q.now.Add(150 * time.Millisecond))
	d := only(t, q.Take())
	if d.OOM.TaskMemcg != leftPath || d.Processes[0].PID != 100 || d.Revision != 1 {
		t.Errorf("got:\n%s", sketch([]death.Death{d}))
	}
}

// TestAudit_StormInMemoryBounds: victims without a cgroup beyond the bound are
// given out, and the counters add nothing to them.
func TestAudit_StormInMemoryBounds(t *testing.T) {
	sc := &scene{}
	q := New(Options{MaxCases: 50})
	sigs := sources(sc, "kmsg", "cgroup")
	const kills = 400
	for i := range kills {
		sigs = append(sigs, sc.sig("kmsg", signal.ReportedKill{Report: uint64(i), Victim: signal.Task{PID: 1000 + i, Comm: "leak"}, Memcg: true}))
	}
	sigs = append(sigs, sc.sig("cgroup", signal.NodeCounters{OOMKill: kills, Total: kills}))
	for i := range 4 {
		sigs = append(sigs, sc.sig("cgroup", stands(uint64(100+i), "/docker/"+strings.Repeat(itoa(i), 64), kills/4, 0)))
	}
	if ds := ticking(q, sigs...); len(ds) != kills {
		t.Errorf("deaths = %d, want %d", len(ds), kills)
	}
	if n := unattributed(q); n != 0 {
		t.Errorf("unattributed = %d, want 0", n)
	}
}

// TestAudit_CounterReadLate: a counter that is read seconds after its kills
// were told makes no deaths of them.
func TestAudit_CounterReadLate(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	sigs := sources(sc, "tracepoint", "cgroup")
	for i := range 5 {
		v := task(100+i, "leak", leftPath, false)
		v.MM = uint64(i + 1)
		for _, b := range oomKill(v, v) {
			sigs = append(sigs, sc.sig("tracepoint", b))
		}
	}
	for n := range 20 { // time goes on
		sc.n += 500
		sigs = append(sigs, sc.sig("cgroup", signal.NodeCounters{Total: uint64(20 + 5*min(n, 1)), OOMKill: uint64(5 * min(n, 1) / max(n, 1))}))
	}
	sigs = append(sigs, sc.sig("cgroup", stands(leftCgroup, leftPath, 5, 0)))
	if ds := ticking(q, sigs...); len(ds) != 5 {
		t.Errorf("deaths = %d, want 5\n%s", len(ds), sketch(ds))
	}
}

// TestAudit_LogReadLate: lines of the log that come long after the counters
// told of their kills add no deaths.
func TestAudit_LogReadLate(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	sigs := append(sources(sc, "kmsg", "cgroup"), sc.sig("cgroup", signal.NodeCounters{Total: 10}))
	killed := sc.sig("cgroup", signal.NodeCounters{OOMKill: 2, Total: 12})
	sigs = append(sigs, killed, sc.sig("cgroup", stands(leftCgroup, leftPath, 1, 0)), sc.sig("cgroup", stands(rightCgroup, rightPth, 1, 0)))
	sc.n += 7000
	for i := range 2 {
		s := sc.sig("kmsg", signal.ReportedKill{Report: uint64(i), Victim: signal.Task{PID: 100 + i, Comm: "leak"}, Memcg: true})
		s.Time = killed.Time
		sigs = append(sigs, s)
	}
	if ds := ticking(q, sigs...); len(ds) != 2 {
		t.Errorf("deaths = %d, want 2\n%s", len(ds), sketch(ds))
	}
	if n := unattributed(q); n != 0 {
		t.Errorf("unattributed = %d, want 0", n)
	}
}

// TestAudit_LogBeforeTheTree: kills that the log tells before the cgroups are
// known are given out with what belongs to them, so that a next run, however
// soon this one ends, tells none of them again.
func TestAudit_LogBeforeTheTree(t *testing.T) {
	sc, told := &scene{}, &Told{}
	q := restart(sc, New(Options{}), nil, told)
	line := sc.sig("kmsg", reported(201, "leak", leftPath, leftPath, mib, mib))
	line.Recovered = true
	q.Feed(line)
	if ds := q.Take(); len(ds) != 0 {
		t.Errorf("given out before it is known of which cgroup:\n%s", sketch(ds))
	}
	for _, s := range append([]signal.Signal{
		sc.sig("cgroup", signal.CgroupSeen{Level: signal.Level{Cgroup: signal.Cgroup{ID: leftCgroup, Path: leftPath}}}),
		sc.sig("cgroup", stands(leftCgroup, leftPath, 1, 0)), sc.sig("cgroup", signal.NodeCounters{Total: 1}),
	}, sources(sc, "cgroup", "kmsg")...) {
		q.Feed(s)
	}
	before := q.Take()
	only(t, before)
	q = restart(sc, q, before, told)
	ds := ticking(q, append([]signal.Signal{
		sc.sig("cgroup", stands(leftCgroup, leftPath, 1, 0)), sc.sig("cgroup", signal.NodeCounters{Total: 1}),
	}, sources(sc, "cgroup", "kmsg")...)...)
	if len(ds) != 0 {
		t.Errorf("told again:\n%s", sketch(ds))
	}
}

// TestAudit_LogAfterCountersAlone: what one run told by a counter alone, the
// next, which can read the log, does not tell again. What happened between
// them it does.
func TestAudit_LogAfterCountersAlone(t *testing.T) {
	bare := func(pid int) signal.ReportedKill {
		return signal.ReportedKill{Report: uint64(pid), Victim: signal.Task{PID: pid, Comm: "leak"}, Memcg: true}
	}
	whole := func(pid int) signal.ReportedKill {
		return reported(pid, "leak", leftPath, leftPath, mib, mib)
	}
	for _, tc := range []struct {
		name   string
		line   func(int) signal.ReportedKill
		away   int // kills between the runs
		before bool
	}{
		{"nothing in between", whole, 0, false},
		{"one in between", whole, 1, false},
		{"one in between, the log first", whole, 1, true},
		{"without reports", bare, 0, false},
		{"without reports, one in between", bare, 1, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc, told := &scene{}, &Told{}
			q := New(Options{})
			sigs := append([]signal.Signal{sc.sig("cgroup", stands(leftCgroup, leftPath, 0, 0)), sc.sig("cgroup", signal.NodeCounters{Total: 50})}, sources(sc, "cgroup")...)
			sigs = append(sigs, sc.sig("cgroup", signal.NodeCounters{OOMKill: 2, Total: 52}), sc.sig("cgroup", stands(leftCgroup, leftPath, 2, 0)))
			before := ticking(q, sigs...)
			if len(before) != 2 {
				t.Fatalf("first run: %d deaths\n%s", len(before), sketch(before))
			}
			q = restart(sc, q, before, told)
			var lines, counters []signal.Signal
			for i := range 2 + tc.away {
				s := sc.sig("kmsg", tc.line(200+i))
				s.Recovered, s.Time = true, s.Time.Add(-time.Minute)
				lines = append(lines, s)
			}
			counters = append(counters, sc.sig("cgroup", stands(leftCgroup, leftPath, uint64(2+tc.away), 0)),
				sc.sig("cgroup", signal.NodeCounters{Total: uint64(52 + tc.away), Counted: epoch.Add(time.Duration(sc.n) * time.Millisecond)}))
			counters = append(counters, sources(sc, "cgroup", "kmsg")...)
			if sigs = append(counters, lines...); tc.before {
				sigs = append(lines, counters...)
			}
			ds := ticking(q, sigs...)
			if len(ds) != tc.away || unattributed(q) != 0 {
				t.Errorf("second run: %d deaths, want %d; unattributed %d\n%s", len(ds), tc.away, unattributed(q), sketch(ds))
			}
			for _, d := range ds {
				if !d.Recovered || d.OOM.TaskMemcg != leftPath {
					t.Errorf("got\n%s", sketch([]death.Death{d}))
				}
			}
		})
	}
}

// TestAudit_LogWhileAway: kills while no agent ran, of which the log alone tells,
// for their cgroups are gone: all are told, also if the run before told one more
// than the machine counted, unless it is known of what.
func TestAudit_LogWhileAway(t *testing.T) {
	for _, tc := range []struct {
		name    string
		earlier death.Death // told by the run before, of no process
		ahead   uint64
		want    int
	}{
		{"the book is right", death.Death{}, 0, 2},
		{"the book is one ahead", death.Death{}, 1, 2},
		{"a kill was told by count, then", death.Death{OOM: &death.OOM{}}, 1, 1},
		{"one was told by count, elsewhere", death.Death{OOM: &death.OOM{TaskMemcg: leftPath}}, 1, 2},
		{"one was told by count, of another time", death.Death{Time: epoch, OOM: &death.OOM{}}, 1, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			v := task(100, "leak", leftPath, true)
			sigs := append([]signal.Signal{sc.sig("cgroup", signal.NodeCounters{Total: 50})}, sources(sc, "cgroup", "tracepoint", "kmsg")...)
			for _, b := range oomKill(v, v) {
				sigs = append(sigs, sc.sig("tracepoint", b))
			}
			sc.n += 60_000
			before := ticking(q, append(sigs, sc.sig("cgroup", signal.NodeCounters{OOMKill: 1, Total: 51}))...)
			only(t, before)
			first, second := sc.sig("kmsg", reported(201, "leak", rightPth, rightPth, mib, mib)), sc.sig("kmsg", reported(202, "leak", rightPth, rightPth, mib, mib))
			if d := tc.earlier; d.OOM != nil {
				if d.Time.IsZero() {
					d.Time = first.Time
				}
				d.ID, d.Revision, d.Processes = "counted", 1, []death.Process{{Fate: death.FateVictim}}
				before = append(before, d)
			}
			c := q.TakeTold()
			q = restart(sc, q, before, &Told{Node: *c.Node + tc.ahead})
			sigs = []signal.Signal{first, second}
			for i := range sigs {
				sigs[i].Recovered, sigs[i].Observed = true, sc.sig("kmsg", signal.Lost{}).Observed
			}
			sigs = append(sigs, sc.sig("cgroup", signal.NodeCounters{Total: 53}))
			ds := ticking(q, append(sigs, sources(sc, "cgroup", "kmsg")...)...)
			if len(ds) != tc.want || unattributed(q) != 0 {
				t.Errorf("%d deaths, want %d; unattributed %d\n%s", len(ds), tc.want, unattributed(q), sketch(ds))
			}
		})
	}
}

// TestAudit_NotMoreThanCounted: two sources tell of one kill, and nothing shows
// that it is the same (the log names a thread, the tracepoint knows no cgroup):
// what the machine did not count is not told.
func TestAudit_NotMoreThanCounted(t *testing.T) {
	for _, gap := range []int{1, 700} {
		t.Run(fmt.Sprint(gap, " ms apart"), func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			sigs := append(sources(sc, "tracepoint", "kmsg", "cgroup"), sc.sig("cgroup", signal.NodeCounters{Counted: sc.sig("cgroup", signal.CgroupGone{}).Time}))
			v := signal.Task{PID: 100, Comm: "leak"}
			for _, b := range oomKill(v, v) {
				sigs = append(sigs, sc.sig("tracepoint", b))
			}
			sc.n += gap
			sigs = append(sigs, sc.sig("kmsg", signal.ReportedKill{Report: 1, Victim: signal.Task{PID: 105, Comm: "leak"}, Memcg: true}))
			sc.n += 200
			last := sc.sig("cgroup", signal.CgroupCounters{Cgroup: signal.Cgroup{Path: leftPath}, OOMKill: 1})
			sigs = append(sigs, last, sc.sig("cgroup", signal.NodeCounters{OOMKill: 1, Total: 1, Counted: last.Time}))
			ds := ticking(q, sigs...)
			if len(ds) != 1 || ds[0].Container == nil || q.Stats().Unattributed != 0 {
				t.Errorf("deaths = %d, want 1; %+v\n%s", len(ds), q.Stats(), sketch(ds))
			}
		})
	}
}
