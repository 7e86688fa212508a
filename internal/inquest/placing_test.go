// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// world is a made-up machine whose kills are told by a log that names no
// cgroup and by counters: when, where and in which order is random.
type world struct {
	rnd *rand.Rand
	// calm: one kill after the other, nothing is lost, late or removed.
	calm    bool
	mixed   bool // every second line names the cgroup
	v2      bool // a cgroup counts its subtree
	kills   []madeKill
	removed map[string]time.Duration
	sigs    []signal.Signal
}

type madeKill struct {
	at    time.Duration
	pid   int
	path  string
	heard bool // its line was not lost
}

// sayAt adds what a source says then, of what happened at another time.
func (w *world) sayAt(observed, at time.Duration, src death.Source, b signal.Body) *signal.Signal {
	w.sigs = append(w.sigs, signal.Signal{Time: epoch.Add(at), Observed: epoch.Add(observed), Source: src, Body: b})
	return &w.sigs[len(w.sigs)-1]
}

func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.rnd.Int64N(int64(d) + 1)) }

// logDelay is mostly nothing, and sometimes that of a starved reader.
func (w *world) logDelay() time.Duration {
	if !w.calm && w.rnd.IntN(5) == 0 {
		return w.upTo(4 * time.Second)
	}
	return w.upTo(5 * time.Millisecond)
}

const worldLasts = 10 * time.Second

// makeWorld lets containers die for ten seconds. Before up no agent ran.
func makeWorld(seed uint64, v2 bool, up time.Duration) *world {
	w := &world{v2: v2, rnd: rand.New(rand.NewPCG(seed, 3)), calm: seed%4 == 0, mixed: seed%8 < 4, removed: map[string]time.Duration{}}
	var paths []string
	for i := range 2 + w.rnd.IntN(5) {
		paths = append(paths, fmt.Sprintf("/docker/%064x", i+1))
		if !w.calm && w.rnd.IntN(3) == 0 {
			w.removed[paths[i]] = w.upTo(worldLasts)
		}
	}
	lossy := !w.calm && w.rnd.IntN(2) == 0
	for i := range 2 + w.rnd.IntN(12) {
		k := madeKill{at: 100*time.Millisecond + w.upTo(worldLasts-time.Second), pid: 100 + i, path: paths[w.rnd.IntN(len(paths))], heard: !lossy || w.rnd.IntN(4) > 0}
		if gone, ok := w.removed[k.path]; ok && gone <= k.at {
			continue
		}
		if w.calm {
			k.at = time.Duration(i+1) * 700 * time.Millisecond
		}
		w.kills = append(w.kills, k)
	}
	w.sources(up)
	w.log(up)
	w.counters(paths, up)
	slices.SortStableFunc(w.sigs, func(a, b signal.Signal) int { return a.Observed.Compare(b.Observed) })
	return w
}

func (w *world) sources(up time.Duration) {
	w.sayAt(up+2*time.Millisecond, up+2*time.Millisecond, "kmsg", signal.SourceState{Up: true})
	w.sayAt(up+20*time.Millisecond, up+20*time.Millisecond, "cgroup", signal.SourceState{Up: true, Mode: map[bool]string{true: "v2", false: "v1"}[w.v2]})
}

func (w *world) log(up time.Duration) {
	read := time.Duration(0)
	if w.mixed {
		slices.SortFunc(w.kills, func(a, b madeKill) int { return cmp.Compare(a.at, b.at) })
	}
	for i, k := range w.kills {
		if !k.heard {
			continue
		}
		b := signal.ReportedKill{Report: uint64(i + 1), Victim: signal.Task{PID: k.pid, Comm: "leak"}, Memcg: true}
		if w.mixed && w.rnd.IntN(2) == 0 {
			b.OOM = &death.OOM{TaskMemcg: k.path}
		}
		stamp := k.at + w.upTo(20*time.Millisecond) - 10*time.Millisecond
		if at := max(k.at+w.logDelay(), up+time.Millisecond); w.mixed {
			read = max(read, at)
		} else {
			read = at
		}
		s := w.sayAt(read, stamp, "kmsg", b)
		s.Recovered = k.at < up
	}
}

// counters are read as the source reads them: the machine's, and where that
// moved each cgroup's, one after the other.
func (w *world) counters(paths []string, up time.Duration) {
	told, since, node := map[string]uint64{}, map[string]time.Duration{}, uint64(0)
	pass := func(now time.Duration, first bool) time.Duration {
		total, began := w.died("", now), now
		if added := total - node; added > 0 && !first {
			w.sayAt(now, now, "cgroup", signal.NodeCounters{OOMKill: added, Total: 1000 + total})
		}
		if total > node {
			for i, p := range paths {
				now += w.upTo(3 * time.Millisecond)
				if gone, ok := w.removed[p]; ok && gone <= now {
					continue
				}
				n := w.died(p, now)
				b := signal.CgroupCounters{Cgroup: signal.Cgroup{ID: uint64(i + 1), Path: p}, OOMKill: n - told[p], OOMKillTotal: n}
				if first {
					b.OOMKill = 0
				} else {
					b.Since = epoch.Add(since[p])
				}
				if n > told[p] {
					w.sayAt(now, now, "cgroup", b)
				}
				told[p], since[p] = n, now
			}
			if n := w.died("", now); w.v2 && n > told["/docker"] {
				b := signal.CgroupCounters{Cgroup: signal.Cgroup{ID: 99, Path: "/docker"}, OOMKillBelow: n - told["/docker"], OOMKillBelowTotal: n}
				if first {
					b.OOMKillBelow = 0
				}
				w.sayAt(now, now, "cgroup", b)
				told["/docker"] = n
			}
		}
		node = total
		w.sayAt(now, now, "cgroup", signal.NodeCounters{Total: 1000 + total, Counted: epoch.Add(began)})
		return now
	}
	for _, p := range paths {
		since[p] = up
	}
	now := pass(up+5*time.Millisecond, true)
	now = max(now, up+20*time.Millisecond)
	for now < worldLasts+15*time.Second {
		gap := 50 * time.Millisecond
		if !w.calm && w.rnd.IntN(2) == 0 {
			gap += w.upTo(time.Second)
		}
		now = pass(now+gap, false)
	}
}

// died is how many had died by then at path; "": anywhere.
func (w *world) died(path string, by time.Duration) (n uint64) {
	for _, k := range w.kills {
		if k.at <= by && (path == "" || path == k.path) {
			n++
		}
	}
	return n
}

// TestPlacing_NeverGuesses: whatever is lost, late or removed, no process is
// told in a cgroup where it did not live, each cgroup that stays has as many
// deaths as it had kills, and no kill is told twice.
func TestPlacing_NeverGuesses(t *testing.T) {
	named, all := 0, 0 // of those who died in calm worlds, with the agent up
	for i := range 4 {
		up, v2 := time.Duration(i%2)*worldLasts/2, i >= 2
		for seed := range uint64(2000) { // half of them mixed
			w := makeWorld(seed, v2, up)
			q := New(Options{})
			if up > 0 {
				q.Continue(Told{Node: 1000})
			}
			n := w.check(t, q)
			if t.Failed() {
				t.Fatalf("seed %d, v2 %v, agent up after %v", seed, v2, up)
			}
			if w.calm && up == 0 {
				named += n
				all += len(w.kills)
			}
		}
	}
	if named != all || all == 0 {
		t.Errorf("%d of %d kills of which there is no doubt are known by name", named, all)
	}
}

// check plays the world and returns how many kills were told by name.
func (w *world) check(t *testing.T, q *Inquest) (named int) {
	t.Helper()
	lived := map[int]string{}
	for _, k := range w.kills {
		lived[k.pid] = k.path
	}
	told, total := map[string]int{}, 0
	ds := w.keeping(t, q)
	for _, d := range ds {
		at := d.OOM.TaskMemcg
		for _, p := range d.Processes {
			told[at]++
			total++
			if p.PID == 0 && strings.Contains(d.Summary, "pid ") {
				t.Errorf("a process is named that may be another: %s", d.Summary)
			}
			if p.PID == 0 || at == "" {
				continue
			}
			named++
			if at != lived[p.PID] {
				t.Errorf("pid %d is told in %s, lived in %s\n%s", p.PID, at, lived[p.PID], sketch([]death.Death{d}))
			}
		}
	}
	for _, k := range w.kills {
		want := int(w.died(k.path, 2*worldLasts))
		if _, removed := w.removed[k.path]; !removed && told[k.path] != want || told[k.path] > want {
			t.Errorf("%d deaths in %s, want %d\n%s", told[k.path], k.path, want, sketch(ds))
		}
	}
	if missed := unattributed(q); uint64(total)+missed != uint64(len(w.kills)) {
		t.Errorf("%d deaths and %d unattributed, want %d in all\n%s", total, missed, len(w.kills), sketch(ds))
	}
	return named
}

// keeping plays the world as an agent does, which keeps what is told of the
// counters with each round of deaths: should it end there, what it kept must be
// just what it told.
func (w *world) keeping(t *testing.T, q *Inquest) []death.Death {
	t.Helper()
	last, kept := map[string]death.Death{}, map[uint64]uint64{}
	var order []string
	round := func() {
		ds := q.Take()
		for _, d := range ds {
			if _, known := last[d.ID]; !known {
				order = append(order, d.ID)
			}
			last[d.ID] = d
		}
		for id, told := range q.TakeTold().Cgroups {
			kept[id] = told.Own
		}
		if len(ds) == 0 || t.Failed() {
			return
		}
		told := map[string]uint64{}
		for _, d := range last {
			told[d.OOM.TaskMemcg] += uint64(len(d.Processes))
		}
		for id, own := range kept {
			if path := fmt.Sprintf("/docker/%064x", id); id < 99 && told[path] > own {
				t.Errorf("%v: %d deaths are told in %s, and kept is that it told %d", q.now.Sub(epoch), told[path], path, own)
			}
		}
	}
	for _, s := range w.sigs {
		q.Tick(s.Observed)
		q.Feed(s)
		round()
	}
	for range 20 {
		q.Tick(q.now.Add(500 * time.Millisecond))
		round()
	}
	out := make([]death.Death, 0, len(order))
	for _, id := range order {
		out = append(out, last[id])
	}
	return out
}

// TestPlacing_BesideThoseWithCgroup: of a loop of kills in one cgroup, some are
// told with it, before its counter was read, and some without it. Each is known
// by name: what is told early does not take the rise of the kill before it.
func TestPlacing_BesideThoseWithCgroup(t *testing.T) {
	const every, kills = 33 * time.Millisecond, 20
	path := "/docker/" + strings.Repeat("a", 64)
	for seed := range uint64(500) {
		w := &world{rnd: rand.New(rand.NewPCG(seed, 5))}
		w.sayAt(0, 0, "tracepoint", signal.SourceState{Up: true, Mode: "tracefs"})
		w.sayAt(0, 0, "cgroup", signal.SourceState{Up: true, Mode: "v1"})
		w.sayAt(0, 0, "cgroup", signal.NodeCounters{Total: 1000, Counted: epoch})
		without, since := 0, time.Duration(0)
		for i := range kills {
			at := time.Second + time.Duration(i)*every
			victim := signal.Task{PID: 100 + i, Comm: "leak", Cgroup: signal.Cgroup{ID: 1, Path: path}}
			if w.rnd.IntN(4) == 0 {
				victim.Cgroup = signal.Cgroup{}
				without++
			}
			told, read := at+w.upTo(4*time.Millisecond), at+time.Millisecond+w.upTo(20*time.Millisecond)
			w.sayAt(told, at, "tracepoint", signal.Kill{Target: victim, Signal: 9, Code: signal.CodeKernel})
			w.sayAt(told, at, "tracepoint", signal.MarkVictim{Victim: victim})
			w.sayAt(read, read, "cgroup", signal.NodeCounters{OOMKill: 1, Total: uint64(1001 + i)})
			w.sayAt(read, read, "cgroup", signal.CgroupCounters{
				Cgroup: signal.Cgroup{ID: 1, Path: path}, OOMKill: 1, OOMKillTotal: uint64(i + 1), Since: epoch.Add(since),
			})
			w.sayAt(read, read, "cgroup", signal.NodeCounters{Total: uint64(1001 + i), Counted: epoch.Add(read)})
			since = read
		}
		for at := 2 * time.Second; at < 20*time.Second; at += 50 * time.Millisecond {
			w.sayAt(at, at, "cgroup", signal.NodeCounters{Total: 1000 + kills, Counted: epoch.Add(at)})
		}
		slices.SortStableFunc(w.sigs, func(a, b signal.Signal) int { return a.Observed.Compare(b.Observed) })
		ds := w.keeping(t, New(Options{}))
		told := map[int]int{}
		wrong := slices.DeleteFunc(slices.Clone(ds), func(d death.Death) bool {
			pid := d.Processes[0].PID
			told[pid]++
			return len(d.Processes) == 1 && pid != 0 && told[pid] == 1 && d.OOM.TaskMemcg == path
		})
		if len(ds) != kills || len(wrong) > 0 {
			t.Fatalf("seed %d, %d of %d kills told without a cgroup: %d deaths, wrong are\n%s", seed, without, kills, len(ds), sketch(wrong))
		}
	}
}

// TestPlacing_LateBesideALaterKill: a line that comes seconds late is of the kill
// that its cgroup's counter told of alone, not of the one that was counted since.
func TestPlacing_LateBesideALaterKill(t *testing.T) {
	path := "/docker/" + strings.Repeat("a", 64)
	w := &world{}
	w.sources(0)
	count := func(n uint64, since, at time.Duration) {
		w.sayAt(at, at, "cgroup", signal.NodeCounters{OOMKill: 1, Total: 1000 + n})
		w.sayAt(at, at, "cgroup", signal.CgroupCounters{
			Cgroup: signal.Cgroup{ID: 1, Path: path}, OOMKill: 1, OOMKillTotal: n, Since: epoch.Add(since),
		})
	}
	line := func(pid int, memcg string, at, read time.Duration) {
		b := signal.ReportedKill{Report: uint64(pid), Victim: signal.Task{PID: pid, Comm: "leak"}, Memcg: true}
		if memcg != "" {
			b.OOM = &death.OOM{TaskMemcg: memcg}
		}
		w.sayAt(read, at, "kmsg", b)
	}
	count(1, 0, 700*time.Millisecond)
	count(2, 700*time.Millisecond, 5*time.Second)
	line(101, "", 470*time.Millisecond, 4200*time.Millisecond)
	line(102, path, 4980*time.Millisecond, 7*time.Second)
	for at := time.Duration(0); at < 15*time.Second; at += 100 * time.Millisecond {
		n := uint64(1000)
		for _, k := range []time.Duration{470 * time.Millisecond, 4980 * time.Millisecond} {
			if k < at {
				n++
			}
		}
		w.sayAt(at, at, "cgroup", signal.NodeCounters{Total: n, Counted: epoch.Add(at)})
	}
	slices.SortStableFunc(w.sigs, func(a, b signal.Signal) int { return a.Observed.Compare(b.Observed) })
	if ds := w.keeping(t, New(Options{})); len(ds) != 2 {
		t.Errorf("%d deaths, want 2\n%s", len(ds), sketch(ds))
	}
}

// TestPlacing_LateWithItsCgroup: who is told late, with its cgroup, takes over the
// death of one who may have lived there, and nothing says any more that it did.
// What the container's engine has told of that death stays.
func TestPlacing_LateWithItsCgroup(t *testing.T) {
	here, there := "/docker/"+strings.Repeat("a", 64), "/docker/"+strings.Repeat("b", 64)
	for _, told := range []bool{false, true} {
		w := &world{}
		w.sources(0)
		w.sayAt(0, 0, "docker", signal.SourceState{Up: true})
		w.sayAt(time.Second, 990*time.Millisecond, "kmsg", signal.ReportedKill{Report: 1, Victim: signal.Task{PID: 101, Comm: "leak"}, Memcg: true})
		w.sayAt(2*time.Second, 2*time.Second, "cgroup", signal.NodeCounters{OOMKill: 2, Total: 1002})
		for i, path := range []string{here, there} {
			w.sayAt(2*time.Second, 2*time.Second, "cgroup", signal.CgroupCounters{
				Cgroup: signal.Cgroup{ID: uint64(i + 1), Path: path}, OOMKill: 1, OOMKillTotal: 1, Since: epoch,
			})
		}
		if told {
			for at := 7 * time.Second; at < 11*time.Second; at += time.Second { // told again, as engines do
				w.sayAt(at, 1500*time.Millisecond, "docker", signal.ContainerExit{ID: here[len("/docker/"):], Runtime: "docker", Code: ptr(137)})
			}
		}
		w.sayAt(7500*time.Millisecond, 1500*time.Millisecond, "kmsg", signal.ReportedKill{
			Report: 2, Victim: signal.Task{PID: 102, Comm: "leak"}, Memcg: true, OOM: &death.OOM{TaskMemcg: here},
		})
		for at := 100 * time.Millisecond; at < 15*time.Second; at += 100 * time.Millisecond {
			n := uint64(1002)
			if at < 1500*time.Millisecond {
				n = 1000
			}
			w.sayAt(at, at, "cgroup", signal.NodeCounters{Total: n, Counted: epoch.Add(at)})
		}
		slices.SortStableFunc(w.sigs, func(a, b signal.Signal) int { return a.Observed.Compare(b.Observed) })
		ds := w.keeping(t, New(Options{}))
		if told {
			if len(ds) != 2 || !strings.Contains(sketch(ds), "the container ended with exit code 137") {
				t.Errorf("the engine's words are lost: %d deaths\n%s", len(ds), sketch(ds))
			}
			continue
		}
		named := slices.IndexFunc(ds, func(d death.Death) bool { return d.Processes[0].PID == 102 && d.OOM.TaskMemcg == here })
		if len(ds) != 2 || named < 0 || strings.Contains(sketch(ds[named:named+1]), "101") {
			t.Errorf("%d deaths, 102 is %d\n%s", len(ds), named, sketch(ds))
		}
	}
}
