// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// happened is what a source says of what was at that time.
type happened struct {
	saying
	at time.Duration
}

// late lays out what sources say of one incident, each as late as it likes, but
// its own words in their order: one that is slow is slow in all.
func late(rnd *rand.Rand, most time.Duration, by ...[]happened) []signal.Signal {
	var out []signal.Signal
	for _, says := range by {
		slow, last := time.Duration(rnd.Int64N(int64(most))), time.Time{}
		for _, h := range says {
			at := epoch.Add(h.at)
			observed := later(at.Add(slow*time.Duration(rnd.IntN(5))/4), last)
			last = observed
			out = append(out, signal.Signal{Time: at, Observed: observed, Source: h.src, Body: h.body})
		}
	}
	slices.SortStableFunc(out, func(a, b signal.Signal) int { return a.Observed.Compare(b.Observed) })
	return out
}

// TestEnd_LateHome: of a container in a cgroup that does not bear its id, where
// the log's report is withheld, a child is OOM-killed and the first process
// leaves. Whoever is late, and be it the engine's word of where the container
// lives, that is one death.
func TestEnd_LateHome(t *testing.T) {
	const path = "/shop/batch"
	for _, mode := range []string{"v1", "v2"} {
		for _, most := range []time.Duration{20 * time.Millisecond, 400 * time.Millisecond, 1500 * time.Millisecond} {
			for _, how := range []string{"paths", "numbers", "neither"} {
				t.Run(fmt.Sprint(mode, " ", most, " ", how), func(t *testing.T) {
					for seed := range uint64(200) {
						sigs, q := lateHome(rand.New(rand.NewPCG(seed, uint64(most))), mode, most, how, path)
						ds := ticking(q, sigs...)
						other := slices.IndexFunc(ds, func(d death.Death) bool { return d.Container != nil && d.Container.ID == webID })
						if len(ds) != 2 || other < 0 || ds[other].Cause != death.OOMContainerLimit || len(ds[other].Processes) != 1 {
							t.Fatalf("seed %d: deaths of both:\n%s", seed, sketch(ds))
						}
						d := ds[1-other]
						got := []any{d.Subject, d.Cause, sketchExit(d.Exit), d.Container.Name, len(d.Processes), q.Stats().Unattributed}
						want := []any{death.SubjectContainer, death.OOMContainerLimit, "7 - Error", "batch", 1, uint64(0)}
						if diff := cmp.Diff(want, got); diff != "" {
							t.Fatalf("seed %d (-want +got):\n%s%s", seed, diff, sketch([]death.Death{d}))
						}
					}
				})
			}
		}
	}
}

// lateHome is that container, and another that the kernel kills in just before:
// the tracepoint tells the cgroups by their paths, their numbers, or not at all.
func lateHome(rnd *rand.Rand, mode string, most time.Duration, how, path string) ([]signal.Signal, *Inquest) {
	sc := &scene{}
	first, child := task(100, "sh", path, true), task(101, "sh", path, false)
	beside := task(300, "leak", webPath, false)
	switch how {
	case "numbers":
		first.Cgroup, child.Cgroup = signal.Cgroup{ID: 7}, signal.Cgroup{ID: 7}
	case "neither":
		first.Cgroup, child.Cgroup = signal.Cgroup{}, signal.Cgroup{}
		first.Init, child.Init = nil, nil
		beside.Cgroup, beside.Init = signal.Cgroup{}, nil
	}
	b, o := oomKill(child, child), oomKill(beside, beside)
	line := reported(101, "sh", path, path, 32*mib, 32*mib)
	line.OOM = nil
	otherLine := line
	otherLine.Report, otherLine.Victim = 300, signal.Task{PID: 300, Comm: "leak"}
	cont := death.Container{ID: "batch", Runtime: "containerd"}
	described := cont
	described.Name, described.Image, described.Cgroup = "batch", "base", path
	const ms = time.Millisecond
	counted := func(id uint64, path string) saying {
		c := signal.CgroupCounters{Cgroup: signal.Cgroup{ID: id, Path: path}, OOMKill: 1, OOMKillTotal: 1, Since: epoch, Chain: []signal.Level{level(path, 32*mib, -1)}}
		if mode == "v2" {
			c.OOMKillBelow, c.OOMKillBelowTotal = 1, 1
		}
		return saying{"cgroup", c}
	}
	var sigs []signal.Signal
	for _, src := range []death.Source{"containerd", "tracepoint", "kmsg", "cgroup"} {
		m := ""
		if src == "cgroup" {
			m = mode
		}
		sigs = append(sigs, sc.sig(src, signal.SourceState{Up: true, Mode: m}))
	}
	sigs = append(sigs, sc.sig("cgroup", signal.NodeCounters{Total: 5, Counted: epoch}))
	read := 111*ms + time.Duration(rnd.Int64N(int64(most)))
	sigs = append(sigs, late(rnd, most,
		[]happened{
			{saying{"tracepoint", o[0]}, 90 * ms}, {saying{"tracepoint", o[1]}, 90 * ms}, {saying{"tracepoint", signal.Exit{Task: beside, Signal: ptr(9)}}, 91 * ms},
			{saying{"tracepoint", b[0]}, 110 * ms}, {saying{"tracepoint", b[1]}, 110 * ms},
			{saying{"tracepoint", signal.Exit{Task: child, Signal: ptr(9)}}, 111 * ms}, {saying{"tracepoint", signal.Exit{Task: first, Code: ptr(7)}}, 112 * ms},
		},
		[]happened{{saying{"kmsg", otherLine}, 90 * ms}, {saying{"kmsg", line}, 110 * ms}},
		[]happened{
			{saying{"cgroup", seen(8, webPath, 32*mib, 0)}, 10 * ms}, {saying{"cgroup", seen(7, path, 32*mib, 0)}, 60 * ms},
			{counted(7, path), read}, {counted(8, webPath), read},
			{saying{"cgroup", signal.NodeCounters{OOMKill: 2, Total: 7, Counted: epoch.Add(read)}}, read},
			{saying{"cgroup", signal.NodeCounters{Total: 7, Counted: epoch.Add(read + 2*time.Second)}}, read + 2*time.Second},
		},
		[]happened{
			{saying{"containerd", signal.ContainerSeen{Namespace: "shop", Container: cont, PID: 100, State: "running"}}, 70 * ms},
			{saying{"containerd", signal.ContainerOOM{Namespace: "shop", ID: "batch"}}, 111 * ms},
			{saying{"containerd", signal.ContainerExit{Namespace: "shop", ID: "batch", Runtime: "containerd", Code: ptr(7), PID: 100, Finished: epoch.Add(113 * ms)}}, 113 * ms},
		},
		[]happened{{saying{"containerd", signal.ContainerSeen{Namespace: "shop", Container: described}}, 75 * ms}},
	)...)
	return sigs, New(Options{Node: "n1", BootID: "b1"})
}

// TestEnd_DescribedLate: of a container whose cgroup does not bear its id the
// kernel may tell the end before its engine says where it lives.
func TestEnd_DescribedLate(t *testing.T) {
	const path = "/shop/batch"
	first := task(100, "app", path, true)
	person := onHost(task(902, "bash", "/user.slice/user-0.slice/session-3.scope", false))
	killed := func(n int) saying { return saying{"tracepoint", signal.Kill{Target: first, Sender: person, Signal: n}} }
	for _, tc := range []struct {
		name   string
		kernel []saying
		code   int
		cause  death.Cause
		exit   string
	}{
		{"segfault", []saying{{"tracepoint", signal.Exit{Task: first, Signal: ptr(11)}}}, 139, death.Segfault, "139 11 Error"},
		{"killed", []saying{killed(9), {"tracepoint", signal.Exit{Task: first, Signal: ptr(9)}}}, 137, death.Killed, "137 9 Error"},
		{"told to end", []saying{killed(15), {"tracepoint", signal.Exit{Task: first, Code: ptr(0)}}}, 0, death.Killed, "0 - Completed"},
	} {
		for _, of := range []signal.ContainerExit{
			{Namespace: "shop", ID: "batch", Runtime: "containerd", PID: 100},
			{Namespace: "shop", ID: "batch", Runtime: "containerd"},
			{Namespace: "shop", ID: webID, Runtime: "containerd"},
		} {
			described := signal.ContainerSeen{Namespace: "shop", Container: death.Container{ID: of.ID, Name: "batch", Runtime: "containerd", Cgroup: path}}
			of.Code = &tc.code
			says := append([]saying{{"containerd", described}, {"containerd", of}}, tc.kernel...)
			permute(len(says), func(order []int) {
				ends := tellable(says, order)
				if !ends && of.ID == webID { // it may tell the end first, too
					ends = tellable(says, swapped(order))
				}
				if !ends {
					return
				}
				sc := &scene{}
				sigs := append(sources(sc, "containerd", "tracepoint", "cgroup"), sc.sig("cgroup", seen(7, path, 40*mib, 0)))
				for _, i := range order {
					sigs = append(sigs, sc.sig(says[i].src, says[i].body))
				}
				ds := ticking(New(Options{}), sigs...)
				if len(ds) != 1 || ds[0].Cause != tc.cause || sketchExit(ds[0].Exit) != tc.exit || ds[0].Container == nil || ds[0].Container.Name != "batch" {
					t.Errorf("%s of %s, order %v:\n%s", tc.name, of.ID, order, sketch(ds))
				}
			})
		}
	}
}

// TestEnd_DescribedAfterTwo: a container of which its engine says only after two
// ends where it lives. What the kernel told of the first waited for that, the OOM
// kill that ended the second did not: what the engine says is of each in turn.
func TestEnd_DescribedAfterTwo(t *testing.T) {
	const path = "/shop/batch"
	one, two := task(100, "app", path, true), task(101, "app", path, true)
	ended := func(code int) saying {
		return saying{"containerd", signal.ContainerExit{Namespace: "shop", ID: "batch", Runtime: "containerd", Code: &code}}
	}
	sc := &scene{}
	sigs := append(sources(sc, "containerd", "tracepoint", "cgroup"), sc.sig("cgroup", seen(7, path, 40*mib, 0)))
	oom := oomKill(two, two, level(path, 40*mib, 40*mib))
	for _, x := range []saying{
		{"tracepoint", signal.Exit{Task: one, Code: ptr(1)}},
		{"tracepoint", oom[0]},
		{"tracepoint", oom[1]},
		{"tracepoint", signal.Exit{Task: two, Signal: ptr(9)}},
		{"containerd", signal.ContainerSeen{Namespace: "shop", Container: death.Container{ID: "batch", Name: "batch", Runtime: "containerd", Cgroup: path}}},
		ended(1), ended(137),
	} {
		sc.n += 100
		sigs = append(sigs, sc.sig(x.src, x.body))
	}
	ds := ticking(New(Options{}), sigs...)
	if len(ds) != 2 {
		t.Fatalf("deaths = %d, want 2\n%s", len(ds), sketch(ds))
	}
	for _, d := range ds {
		if d.Cause.OOM() != (said(d, engineEnded+withCode+"137") == 1) {
			t.Errorf("got:\n%s", sketch([]death.Death{d}))
		}
	}
}

// swapped is an order with the first two changing places.
func swapped(order []int) []int {
	out := slices.Clone(order)
	for i, n := range out {
		if n < 2 {
			out[i] = 1 - n
		}
	}
	return out
}
