// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"fmt"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// ticking plays signals with a tick before each, as the agent does, and gives
// the last revisions.
func ticking(q *Inquest, sigs ...signal.Signal) []death.Death {
	last := map[string]int{}
	var out []death.Death
	take := func(ds []death.Death) {
		for _, d := range ds {
			if i, known := last[d.ID]; known {
				out[i] = d
				continue
			}
			last[d.ID] = len(out)
			out = append(out, d)
		}
	}
	for _, s := range sigs {
		q.Tick(s.Observed)
		q.Feed(s)
		take(q.Take())
	}
	for range 20 {
		q.Tick(q.now.Add(500 * time.Millisecond))
		take(q.Take())
	}
	return out
}

// TestInquest_StormWithoutReports: 40 kills in 40 cgroups, the log without its
// reports and the counters: one
// death in each cgroup, and no process told where it did not live.
func TestInquest_StormWithoutReports(t *testing.T) {
	for _, gap := range []int{10, 50, 400, 3000} {
		t.Run(fmt.Sprint(gap, " ms apart"), func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			sigs := sources(sc, "kmsg", "cgroup")
			lived := map[int]string{}
			for i := range 40 {
				sc.n = 100 + i*gap
				path := fmt.Sprintf("/docker/%064x", i+1)
				lived[1000+i] = path
				b := signal.ReportedKill{Report: uint64(i), Victim: signal.Task{PID: 1000 + i, Comm: "leak"}, Memcg: true}
				if i < 10 {
					b = reported(1000+i, "leak", path, path, 16*mib, 16*mib)
				}
				sigs = append(sigs, sc.sig("kmsg", b),
					sc.sig("cgroup", signal.NodeCounters{OOMKill: 1}),
					sc.sig("cgroup", signal.CgroupCounters{Cgroup: signal.Cgroup{Path: path}, OOMKill: 1}))
			}
			ds := ticking(q, sigs...)
			if len(ds) != 40 {
				t.Errorf("deaths = %d, want 40\n%s", len(ds), sketch(ds[:min(len(ds), 5)]))
			}
			named, kills := 0, map[string]int{}
			for _, d := range ds {
				at, p := d.OOM.TaskMemcg, d.Processes[0]
				kills[at]++
				if p.PID == 0 {
					continue // known by count, not by name
				}
				named++
				if at != lived[p.PID] {
					t.Errorf("pid %d is told in %q, lived in %s", p.PID, at, lived[p.PID])
				}
			}
			for _, path := range lived {
				if kills[path] != 1 {
					t.Errorf("%d deaths in %s, want 1", kills[path], path)
				}
			}
			q.Tick(q.now.Add(time.Minute))
			if named < 10 || q.Stats().Unattributed != 0 {
				t.Errorf("named %d, unattributed %d", named, q.Stats().Unattributed)
			}
		})
	}
}

// TestInquest_NextLife: an engine starts a container again under its old name:
// each end is a death of its own.
func TestInquest_NextLife(t *testing.T) {
	for _, tc := range []struct {
		name     string
		by       death.Source
		exits    bool
		newInode bool
		init     bool
	}{
		{"new first process", "tracepoint", false, false, true},
		{"after the exit of the first", "tracepoint", true, false, true},
		{"another inode", "tracepoint", false, true, false},
		{"log, cgroup removed between", "kmsg", false, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			sigs := sources(sc, tc.by, "cgroup")
			for i := range 3 {
				sc.n = 200 * (i + 1)
				id := uint64(7)
				if tc.newInode {
					id += uint64(i)
				}
				v := task(100+i, "leak", leftPath, tc.init)
				v.MM, v.Cgroup.ID = uint64(i+1), id
				sigs = append(sigs, sc.sig("cgroup", seen(id, leftPath, 20*mib, 0)))
				if tc.by == "kmsg" {
					sigs = append(sigs, sc.sig("kmsg", reported(100+i, "leak", leftPath, leftPath, 20*mib, 20*mib)))
				} else {
					for _, b := range oomKill(v, v, level(leftPath, 20*mib, 20*mib)) {
						sigs = append(sigs, sc.sig("tracepoint", b))
					}
				}
				if tc.exits {
					sigs = append(sigs, sc.sig("tracepoint", signal.Exit{Task: v, Signal: ptr(9)}))
				}
				if tc.newInode {
					sigs = append(sigs, sc.sig("cgroup", signal.CgroupGone{Cgroup: signal.Cgroup{ID: id, Path: leftPath}}))
				}
			}
			ds := play(t, New(Options{}), sigs...)
			if len(ds) != 3 {
				t.Errorf("deaths = %d, want 3\n%s", len(ds), sketch(ds))
			}
		})
	}
}

// TestInquest_GroupLogFirst: the log names a group's member without a cgroup
// before the tracepoint tells that it lived in another container.
func TestInquest_GroupLogFirst(t *testing.T) {
	pod := level(podPath, 40*mib, 40*mib)
	pod.OOMGroup = true
	fat, other := task(100, "fat", leftPath, true), task(200, "other", rightPth, true)
	fat2 := fat
	fat2.TID = 104
	head := reported(100, "fat", leftPath, podPath, 40*mib, 40*mib)
	head.Figures.TotalVMBytes, head.Figures.FileRSSBytes = ptr(90*mib), ptr(mib)
	again := signal.ReportedKill{Report: 900, Victim: signal.Task{PID: 104, Comm: "fat"}, Memcg: true, Figures: head.Figures}
	log := []signal.Body{
		head,
		signal.ReportedGroup{Report: head.Report, Cgroup: signal.Cgroup{Path: podPath}},
		signal.ReportedKill{Report: head.Report, Victim: signal.Task{PID: 200, Comm: "other"}, Memcg: true},
		again,
	}
	var marks []signal.Body
	for _, v := range []signal.Task{fat, other} {
		marks = append(marks, oomKill(v, fat, level(v.Cgroup.Path, 0, 20*mib), pod)...)
	}
	marks = append(marks, signal.Kill{Target: fat2, Sender: fat, Signal: 9, Code: signal.CodeKernel, Result: 1})
	for _, tc := range []struct {
		name string
		up   []death.Source
		sigs []signal.Body
		want int
	}{
		{"log first", []death.Source{"tracepoint", "kmsg"}, append(append([]signal.Body{}, log...), marks...), 2},
		{"tracepoint first", []death.Source{"tracepoint", "kmsg"}, append(append([]signal.Body{}, marks...), log...), 2},
		{"log alone", []death.Source{"kmsg"}, log, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			sigs := sources(sc, tc.up...)
			for _, b := range tc.sigs {
				sigs = append(sigs, sc.sig("tracepoint", b))
			}
			ds := ticking(q, sigs...)
			kills := 0
			for _, d := range ds {
				kills += d.OOMKills()
				for _, p := range d.Processes {
					if tc.want == 2 && (p.PID == 200) != (d.Container.ID == rightID) {
						t.Errorf("pid %d in container %s", p.PID, d.Container.ID)
					}
				}
			}
			if len(ds) != tc.want || kills != 2 {
				t.Errorf("deaths = %d with %d kills, want %d with 2\n%s", len(ds), kills, tc.want, sketch(ds))
			}
		})
	}
}

// TestInquest_KillOutsideContainers: somebody's own pid namespace is none.
func TestInquest_KillOutsideContainers(t *testing.T) {
	sc := &scene{}
	k := signal.Kill{Target: task(100, "sleep", "/user.slice/user-0.slice/session-1.scope", true), Sender: task(9, "bash", "/x", false), Signal: 9}
	if ds := play(t, New(Options{}), append(sources(sc, "tracepoint"), sc.sig("tracepoint", k))...); len(ds) != 0 {
		t.Errorf("deaths:\n%s", sketch(ds))
	}
}

// TestInquest_GroupByCountersAlone: one group kill, counted in two steps, is
// one death.
func TestInquest_GroupByCountersAlone(t *testing.T) {
	sc := &scene{}
	group := level(leftPath, 40*mib, -1)
	group.OOMGroup = true
	ds := play(t, New(Options{}), append(sources(sc, "cgroup"),
		sc.sig("cgroup", signal.CgroupCounters{Cgroup: signal.Cgroup{Path: leftPath}, OOMKill: 2, OOMGroupKill: 1, Chain: []signal.Level{group}}),
		sc.sig("cgroup", signal.CgroupCounters{Cgroup: signal.Cgroup{Path: leftPath}, OOMKill: 1, Chain: []signal.Level{group}}))...)
	if d := only(t, ds); d.OOMKills() != 3 || !d.OOM.GroupKill {
		t.Errorf("got:\n%s", sketch(ds))
	}
}

// TestInquest_SameIDWhoeverSeesIt: sources place a kill milliseconds apart,
// and two agents must come to the same id.
func TestInquest_SameIDWhoeverSeesIt(t *testing.T) {
	at := epoch.Add(3 * time.Second)
	v := task(100, "leak", leftPath, false)
	var ids []string
	for i, first := range []signal.Body{
		signal.MarkVictim{Victim: v, Trigger: v},
		reported(100, "leak", leftPath, leftPath, 40*mib, 40*mib),
	} {
		q := New(Options{BootID: "b1"})
		q.kernel.sent[100] = pendingKill{}
		s := signal.Signal{Time: at.Add(time.Duration(i) * 3 * time.Millisecond), Observed: at, Source: "x", Body: first}
		q.Feed(s)
		ids = append(ids, only(t, q.Take()).ID)
	}
	if ids[0] != ids[1] {
		t.Errorf("ids %s and %s of one kill", ids[0], ids[1])
	}
}

// TestInquest_RateLimitedGroup: without the report, the line that announces
// the group still names the container.
func TestInquest_RateLimitedGroup(t *testing.T) {
	sc := &scene{}
	d := ticking(New(Options{}), append(sources(sc, "kmsg"),
		sc.sig("kmsg", signal.ReportedKill{Report: 1, Victim: signal.Task{PID: 101, Comm: "a"}, Memcg: true}),
		sc.sig("kmsg", signal.ReportedGroup{Report: 1, Cgroup: signal.Cgroup{Path: leftPath}}))...)
	if len(d) != 1 || d[0].Container == nil || d[0].Container.ID != leftID || d[0].Subject != death.SubjectContainer {
		t.Errorf("got:\n%s", sketch(d))
	}
}

// TestInquest_GroupOverContainersByLogAndCounters: the log names the members
// of a pod's group without their container, the counters say which it was.
func TestInquest_GroupOverContainersByLogAndCounters(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	head := reported(216, "fat", rightPth, podPath, 60*mib, 60*mib)
	ds := ticking(q, append(sources(sc, "kmsg", "cgroup"),
		sc.sig("kmsg", head),
		sc.sig("kmsg", signal.ReportedGroup{Report: head.Report, Cgroup: signal.Cgroup{Path: podPath}}),
		sc.sig("kmsg", signal.ReportedKill{Report: head.Report, Victim: signal.Task{PID: 209, Comm: "other"}, Memcg: true}),
		sc.sig("cgroup", signal.CgroupCounters{Cgroup: signal.Cgroup{Path: rightPth}, OOMKill: 1}),
		sc.sig("cgroup", signal.CgroupCounters{Cgroup: signal.Cgroup{Path: leftPath}, OOMKill: 1}),
		sc.sig("cgroup", signal.NodeCounters{OOMKill: 2}))...)
	if len(ds) != 2 {
		t.Fatalf("deaths = %d, want 2\n%s", len(ds), sketch(ds))
	}
	for i, want := range []struct {
		id  string
		pid int
	}{{rightID, 216}, {leftID, 209}} {
		d := ds[i]
		if d.Container.ID != want.id || len(d.Processes) != 1 || d.Processes[0].PID != want.pid || d.OOM.Containers != 2 || d.Subject != death.SubjectContainer {
			t.Errorf("got:\n%s", sketch(ds[i:i+1]))
		}
	}
	q.Tick(q.now.Add(time.Minute))
	if n := q.Stats().Unattributed; n != 0 {
		t.Errorf("unattributed = %d, want 0", n)
	}
}
