// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestInquest_OtherSignals: a signal that is no SIGKILL makes no death, and is
// not taken for the OOM killer's SIGKILL.
func TestInquest_OtherSignals(t *testing.T) {
	first := task(100, "app", leftPath, true)
	person := task(900, "bash", "/user.slice/user-1000.slice/session-3.scope", false)
	for name, kill := range map[string]signal.Kill{
		"SIGTERM by a person":      {Target: first, Sender: person, Signal: 15},
		"SIGINT by the terminal":   {Target: first, Sender: person, Signal: 2, Code: signal.CodeKernel},
		"SIGSEGV by its own fault": {Target: first, Sender: first, Signal: 11, Code: signal.CodeKernel},
	} {
		t.Run(name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			ds := play(t, q, append(sources(sc, "tracepoint"), sc.sig("tracepoint", kill),
				sc.sig("tracepoint", signal.MarkVictim{Victim: first, Trigger: first}))...)
			if len(ds) != 0 || q.Stats().AlreadyDying != 1 {
				t.Errorf("deaths %d, already dying %d; want 0, 1:\n%s", len(ds), q.Stats().AlreadyDying, sketch(ds))
			}
		})
	}
}

// TestInquest_SandboxKilled: runtimes end what only holds a pod's namespaces by
// SIGKILL, and that is no container's death; an engine's word counts for more
// than the program's name.
func TestInquest_SandboxKilled(t *testing.T) {
	const podUID = "0a1b2c3d-0000-4000-8000-000000000001"
	id := strings.Repeat("5e", 32)
	path := "/kubepods/burstable/pod" + podUID + "/" + id
	seen := func(name string, sandbox bool) *signal.ContainerSeen {
		return &signal.ContainerSeen{
			Container: death.Container{ID: id, Name: name, Runtime: "containerd", Pod: &death.Pod{Namespace: "shop", Name: "web", UID: podUID}},
			Namespace: "k8s.io", Sandbox: sandbox,
		}
	}
	for name, tc := range map[string]struct {
		seen *signal.ContainerSeen
		comm string
		want int
	}{
		"told by the CRI":      {seen("", true), "sleep", 0},
		"by its program alone": {nil, "pause", 0},
		"a container so named": {seen("pause", false), "pause", 1},
		"nobody told of it":    {nil, "sleep", 1},
	} {
		t.Run(name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			in := sources(sc, "tracepoint", "cri")
			if tc.seen != nil {
				in = append(in, sc.sig("cri", *tc.seen))
			}
			runc := onHost(task(901, "runc", "/system.slice/containerd.service", false))
			first := task(100, tc.comm, path, true)
			in = append(in, sc.sig("tracepoint", signal.Kill{Target: first, Sender: runc, Signal: 9}), sc.sig("tracepoint", signal.Exit{Task: first, Signal: ptr(9)}))
			if ds := play(t, q, in...); len(ds) != tc.want {
				t.Errorf("%d deaths, want %d:\n%s", len(ds), tc.want, sketch(ds))
			}
		})
	}
}

// TestInquest_OtherProcessKilled: what is killed in a container just after an
// OOM kill there is no evidence of it; a signal to its first process is.
func TestInquest_OtherProcessKilled(t *testing.T) {
	person := onHost(task(900, "bash", "/user.slice/user-1000.slice/session-3.scope", false))
	victim, exec := task(101, "worker", leftPath, false), task(102, "sleep", leftPath, false)
	first := task(100, "app", leftPath, true)
	first.Init = nil // tracefs does not tell
	for _, tc := range []struct {
		name   string
		target signal.Task
		want   bool
	}{{"an exec", exec, false}, {"the first process", first, true}, {"the victim", victim, true}} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			sigs := append(sources(sc, "tracepoint", "cgroup"), sc.sig("cgroup", seen(7, leftPath, 40*mib, 100)))
			for _, b := range oomKill(victim, victim, level(leftPath, 40*mib, 40*mib)) {
				sigs = append(sigs, sc.sig("tracepoint", b))
			}
			sc.n += 450
			sigs = append(sigs, sc.sig("tracepoint", signal.Kill{Target: tc.target, Sender: person, Signal: 9}))
			d := only(t, play(t, New(Options{}), sigs...))
			if got := strings.Contains(sketch([]death.Death{d}), "bash (pid 900) sent SIGKILL"); got != tc.want {
				t.Errorf("the kill is evidence: %v, want %v\n%s", got, tc.want, sketch([]death.Death{d}))
			}
		})
	}
}

// TestInquest_FirstProcessOfThreads plays what Linux 6.18 told of the OOM kill of
// a container's first process with several threads: the last of them, which was
// the one that asked for memory, kills what is left of its pid namespace, itself
// too. Only in a group is the first victim killed, and counted, twice.
func TestInquest_FirstProcessOfThreads(t *testing.T) {
	group, pod := level(leftPath, 32*mib, 32*mib), level(podPath, -1, -1)
	group.OOMGroup, pod.OOMGroup = true, true
	first := task(3482, "leaky", leftPath, true)
	thread := first
	thread.TID = 3484
	again := signal.Kill{Target: first, Sender: thread, Signal: 9, Code: signal.CodeKernel, Result: 1}
	zap := signal.Kill{Target: thread, Sender: thread, Signal: 9, Code: signal.CodeKernel, Result: 1}
	exit := signal.Exit{Task: first, Signal: ptr(9)}
	for _, tc := range []struct {
		name  string
		mode  string
		chain []signal.Level
		then  []signal.Body
		twice uint64
	}{
		{"v1", "v1", []signal.Level{level(leftPath, 32*mib, 32*mib)}, []signal.Body{exit, zap}, 0},
		{"v1, the exit later", "v1", []signal.Level{level(leftPath, 32*mib, 32*mib)}, []signal.Body{zap, exit}, 0},
		{"v1, its cgroup not read", "v1", nil, []signal.Body{zap, exit}, 0},
		{"v2", "v2", []signal.Level{level(leftPath, 32*mib, 32*mib)}, []signal.Body{exit, zap}, 0},
		{"v2, its cgroup not read", "v2", nil, []signal.Body{exit, zap}, 0},
		{"the flag is further out than the limit", "v2", []signal.Level{level(leftPath, 32*mib, 32*mib), pod}, []signal.Body{exit, zap}, 0},
		{"a group", "v2", []signal.Level{group}, []signal.Body{again, exit, zap}, 1},
		{"a group, its cgroup not read", "v2", nil, []signal.Body{again, exit, zap}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			sigs := append(sources(sc, "tracepoint"), sc.sig("cgroup", signal.SourceState{Up: true, Mode: tc.mode}), sc.sig("cgroup", signal.NodeCounters{Total: 50}))
			for _, b := range append(oomKill(first, thread, tc.chain...), tc.then...) {
				sigs = append(sigs, sc.sig("tracepoint", b))
			}
			n := 1 + tc.twice
			sigs = append(sigs, sc.sig("cgroup", signal.NodeCounters{OOMKill: n, Total: 50 + n}))
			only(t, play(t, q, sigs...))
			told := q.TakeTold().Node
			if got := q.Stats().CountedTwice; got != tc.twice || *told != 50+n {
				t.Errorf("counted twice: %d, want %d; told up to %d, want %d", got, tc.twice, *told, 50+n)
			}
		})
	}
}

// TestKill_KillersEngineIsLate: in whose container the killer lives an engine may
// say after the kill.
func TestKill_KillersEngineIsLate(t *testing.T) {
	first, by := task(100, "app", webPath, true), task(902, "chaos", "/shop/batch", false)
	kill, gone := saying{"tracepoint", signal.Kill{Target: first, Sender: by, Signal: 9}}, saying{"tracepoint", signal.Exit{Task: first, Signal: ptr(9)}}
	described := saying{"containerd", signal.ContainerSeen{Namespace: "shop", Container: death.Container{ID: "batch", Name: "batch", Runtime: "containerd", Cgroup: "/shop/batch"}}}
	says := []saying{kill, gone, described}
	permute(len(says), func(order []int) {
		if !tellable(says, order) {
			return
		}
		sc := &scene{}
		sigs := dockers(sc, "tracepoint", "containerd")
		for _, i := range order {
			sigs = append(sigs, sc.sig(says[i].src, says[i].body))
		}
		d := only(t, ticking(New(Options{}), sigs...))
		if k := d.Killer; k == nil || k.Container == nil || k.Container.Name != "batch" || !strings.Contains(d.Summary, "batch") {
			t.Errorf("order %v: %+v\n%s", order, k, sketch([]death.Death{d}))
		}
	})
}

// TestKill_LikeARuntimeInAContainer: a program that is named like a runtime's is
// none where it lives in a container, also where an engine says so after the kill.
func TestKill_LikeARuntimeInAContainer(t *testing.T) {
	first, by := task(100, "app", webPath, true), task(902, "runc", "/shop/batch", false)
	by.PIDNS = 0 // tracefs does not tell it
	says := []saying{
		{"tracepoint", signal.Kill{Target: first, Sender: by, Signal: 9}},
		{"tracepoint", signal.Exit{Task: first, Signal: ptr(9)}},
		{"containerd", signal.ContainerSeen{Namespace: "shop", Container: death.Container{ID: "batch", Name: "batch", Runtime: "containerd", Cgroup: "/shop/batch"}}},
		{"docker", webExit(137, false)},
	}
	permute(len(says), func(order []int) {
		if !tellable(says, order) {
			return
		}
		sc := &scene{}
		sigs := dockers(sc, "tracepoint", "containerd")
		for _, i := range order {
			sigs = append(sigs, sc.sig(says[i].src, says[i].body))
		}
		if d := only(t, ticking(New(Options{}), sigs...)); d.Rule != "killed" {
			t.Errorf("order %v:\n%s", order, sketch([]death.Death{d}))
		}
	})
}
