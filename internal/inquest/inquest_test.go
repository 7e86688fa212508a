// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

const (
	podPath  = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod6b3f0c1e_8d2a_4f57_9c3b_1a2b3c4d5e6f.slice"
	leftID   = "3f1c9a5e7b2d4c6f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7"
	rightID  = "a7e6d5c4b3a291807f6e5d4c3b2a19080f7e6d5c4b3a291807f6e5d4c3b2a190"
	leftPath = podPath + "/cri-containerd-" + leftID + ".scope"
	rightPth = podPath + "/cri-containerd-" + rightID + ".scope"
	podUID   = "6b3f0c1e-8d2a-4f57-9c3b-1a2b3c4d5e6f"
	mib      = int64(1 << 20)
)

var epoch = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

// scene makes signals, each a millisecond after the one before.
type scene struct{ n int }

func (sc *scene) sig(src death.Source, b signal.Body) signal.Signal {
	sc.n++
	at := epoch.Add(time.Duration(sc.n) * time.Millisecond)
	return signal.Signal{Time: at, Observed: at.Add(50 * time.Microsecond), Source: src, Body: b}
}

func ptr[T any](v T) *T { return &v }

func task(pid int, comm, path string, init bool) signal.Task {
	return signal.Task{PID: pid, TID: pid, Comm: comm, UID: ptr(int64(0)), Cgroup: signal.Cgroup{Path: path}, Init: &init, PIDNS: 4026531836 + uint64(len(path)), MM: uint64(pid) << 4}
}

func level(path string, limit, usage int64) signal.Level {
	l := signal.Level{Cgroup: signal.Cgroup{Path: path}}
	if limit > 0 {
		l.LimitBytes = &limit
	}
	if usage >= 0 {
		l.UsageBytes = &usage
	}
	return l
}

// onHost puts a task into the host's pid namespace.
func onHost(t signal.Task) signal.Task {
	t.PIDNS = signal.InitialPIDNS
	return t
}

func oomKill(victim, trigger signal.Task, chain ...signal.Level) []signal.Body {
	return []signal.Body{
		signal.Kill{Target: victim, Sender: trigger, Signal: 9, Code: signal.CodeKernel},
		signal.MarkVictim{Victim: victim, Trigger: trigger, Chain: chain},
	}
}

func reported(pid int, comm, task, memcg string, usage, limit int64) signal.ReportedKill {
	return signal.ReportedKill{
		Report: uint64(pid), Victim: signal.Task{PID: pid, Comm: comm}, Memcg: memcg != "", Global: memcg == "",
		Figures: signal.Figures{AnonRSSBytes: ptr(limit * 9 / 10)},
		OOM: &death.OOM{
			Constraint: map[bool]string{true: "CONSTRAINT_NONE", false: "CONSTRAINT_MEMCG"}[memcg == ""],
			OOMMemcg:   memcg, TaskMemcg: task, UsageBytes: &usage, LimitBytes: &limit,
		},
	}
}

// play feeds signals and returns the last revision of each death, in the
// order in which they were opened, after everything has settled.
func play(t *testing.T, q *Inquest, sigs ...signal.Signal) []death.Death {
	t.Helper()
	at := map[string]int{}
	var out []death.Death
	take := func(ds []death.Death) {
		for _, d := range ds {
			i, known := at[d.ID]
			if !known {
				if d.Revision != 1 {
					t.Errorf("first revision of %s is %d, want 1", d.ID, d.Revision)
				}
				at[d.ID] = len(out)
				out = append(out, d)
				continue
			}
			if d.Revision != out[i].Revision+1 {
				t.Errorf("revision of %s is %d after %d", d.ID, d.Revision, out[i].Revision)
			}
			out[i] = d
		}
	}
	for _, s := range sigs {
		q.Feed(s)
		take(q.Take())
	}
	take(q.Close())
	return out
}

func sources(sc *scene, names ...death.Source) []signal.Signal {
	var out []signal.Signal
	for _, n := range names {
		out = append(out, sc.sig(n, signal.SourceState{Up: true}))
	}
	return out
}

func only(t *testing.T, ds []death.Death) death.Death {
	t.Helper()
	if len(ds) != 1 {
		t.Fatalf("deaths = %d, want 1:\n%s", len(ds), sketch(ds))
	}
	return ds[0]
}

func sketch(ds []death.Death) string {
	s := ""
	for _, d := range ds {
		s += fmt.Sprintf("  %s %s %s %s: %s\n", d.Subject, d.Cause, d.Confidence, d.Rule, d.Summary)
		for _, e := range d.Evidence {
			s += fmt.Sprintf("      %s %s\n", e.Source, e.Text)
		}
	}
	return s
}

// TestInquest_AnyOrder plays the signals of one kill in each order that they
// can come in: it is always one death, with the same verdict.
func TestInquest_AnyOrder(t *testing.T) {
	victim := task(100, "leak", leftPath, true)
	bodies := oomKill(victim, victim,
		level(leftPath, 40*mib, 40*mib), level(podPath, 40*mib, 40*mib+4096))
	bodies = append(bodies,
		reported(100, "leak", leftPath, podPath, 40*mib, 40*mib),
		signal.CgroupCounters{Cgroup: signal.Cgroup{Path: leftPath}, OOMKill: 1},
		signal.Exit{Task: victim, Signal: ptr(9)},
		signal.NodeCounters{OOMKill: 1, Total: 1})
	from := []death.Source{"tracepoint", "tracepoint", "kmsg", "cgroup", "tracepoint", "cgroup"}
	permute(len(bodies), func(order []int) {
		sc := &scene{}
		sigs := sources(sc, "tracepoint", "kmsg", "cgroup")
		for _, i := range order {
			sigs = append(sigs, sc.sig(from[i], bodies[i]))
		}
		q := New(Options{Node: "n1", BootID: "b1"})
		d := only(t, play(t, q, sigs...))
		got := []any{d.Cause, d.Confidence, d.Subject, d.Container.ID, d.Container.Pod.UID, len(d.Processes), d.Processes[0].PID, d.OOM.OOMMemcg, q.Stats().Unattributed, q.Stats().AlreadyDying}
		want := []any{death.OOMContainerLimit, death.Certain, death.SubjectContainer, leftID, podUID, 1, 100, podPath, uint64(0), uint64(0)}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("order %v (-want +got):\n%s%s", order, diff, sketch([]death.Death{d}))
		}
	})
}

func permute(n int, f func([]int)) {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	var rec func(k int)
	rec = func(k int) {
		if k == n {
			f(order)
			return
		}
		for i := k; i < n; i++ {
			order[k], order[i] = order[i], order[k]
			rec(k + 1)
			order[k], order[i] = order[i], order[k]
		}
	}
	rec(0)
}

// TestInquest_AtOnce shows that a death is given out with the first signal
// that makes it certain, and amended after.
func TestInquest_AtOnce(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	victim := task(100, "leak", leftPath, false)
	b := oomKill(victim, victim)
	q.Feed(sc.sig("tracepoint", b[0]))
	if ds := q.Take(); len(ds) != 0 {
		t.Fatalf("deaths after a SIGKILL alone:\n%s", sketch(ds))
	}
	q.Feed(sc.sig("tracepoint", b[1]))
	first := only(t, q.Take())
	q.Feed(sc.sig("kmsg", reported(100, "leak", leftPath, leftPath, 40*mib, 40*mib)))
	second := only(t, q.Take())
	if first.Revision != 1 || second.Revision != 2 || first.ID != second.ID {
		t.Errorf("revisions %d %s, %d %s; want 1, 2 of one id", first.Revision, first.ID, second.Revision, second.ID)
	}
	if second.Cause != death.OOMContainerLimit || second.Subject != death.SubjectProcess || second.Confidence != death.Certain {
		t.Errorf("amended to:\n%s", sketch([]death.Death{second}))
	}
	q.Tick(epoch.Add(time.Minute))
	if ds := q.Take(); len(ds) != 0 {
		t.Errorf("deaths after settling:\n%s", sketch(ds))
	}
}

func TestInquest_Causes(t *testing.T) {
	leak := task(100, "leak", leftPath, false)
	for _, tc := range []struct {
		name       string
		from       death.Source
		bodies     []signal.Body
		cause      death.Cause
		confidence death.Confidence
		rule       string
	}{
		{
			"two containers, sum over the pod's limit", "tracepoint",
			oomKill(leak, leak, level(leftPath, 40*mib, 20*mib), level(podPath, 60*mib, 60*mib)),
			death.OOMPodLimit, death.Probable, "pod-limit",
		},
		{
			"one-container pod by usage alone", "tracepoint",
			oomKill(leak, leak, level(leftPath, 40*mib, 40*mib-400<<10), level(podPath, 40*mib, 40*mib)),
			death.OOMContainerLimit, death.Probable, "pod-limit-is-container-limit",
		},
		{
			"log alone, container filled the pod", "kmsg",
			[]signal.Body{reported(100, "leak", leftPath, podPath, 40*mib, 40*mib)},
			death.OOMContainerLimit, death.Probable, "pod-filled-by-container",
		},
		{
			"log alone, small victim under a pod's limit", "kmsg",
			[]signal.Body{func() signal.Body {
				b := reported(100, "leak", leftPath, podPath, 40*mib, 40*mib)
				b.Figures.AnonRSSBytes = ptr(5 * mib)
				return b
			}()},
			death.OOMPodLimit, death.Possible, "pod-limit-alone",
		},
		{
			"kubepods", "kmsg",
			[]signal.Body{reported(100, "leak", leftPath, "/kubepods.slice", 400*mib, 400*mib)},
			death.OOMNodeAllocatable, death.Certain, "kubepods-limit",
		},
		{
			"QoS group", "kmsg",
			[]signal.Body{reported(100, "leak", leftPath, "/kubepods.slice/kubepods-burstable.slice", 400*mib, 400*mib)},
			death.OOMNodeAllocatable, death.Certain, "kubepods-limit",
		},
		{
			"slice", "kmsg",
			[]signal.Body{reported(100, "leak", "/system.slice/nginx.service", "/system.slice", 400*mib, 400*mib)},
			death.OOMAncestorLimit, death.Certain, "ancestor-limit",
		},
		{
			"group inside the container", "kmsg",
			[]signal.Body{reported(100, "leak", leftPath+"/app", leftPath+"/app", 40*mib, 40*mib)},
			death.OOMAncestorLimit, death.Certain, "limit-inside-container",
		},
		{
			"node", "kmsg",
			[]signal.Body{reported(100, "leak", leftPath, "", 0, 0)},
			death.OOMNode, death.Certain, "node",
		},
		{
			"node by tracepoint alone", "tracepoint",
			oomKill(leak, leak, level(leftPath, 400*mib, 20*mib), level(podPath, 600*mib, 60*mib)),
			death.OOMNode, death.Probable, "node",
		},
		{
			"kill line alone", "kmsg",
			[]signal.Body{signal.ReportedKill{Report: 1, Victim: signal.Task{PID: 5, Comm: "x"}, Global: true}},
			death.OOMNode, death.Probable, "node-line-alone",
		},
		{
			"kill line of a cgroup alone", "kmsg",
			[]signal.Body{signal.ReportedKill{Report: 1, Victim: signal.Task{PID: 5, Comm: "x"}, Memcg: true}},
			death.Unknown, death.Possible, "oom-not-placed",
		},
		{
			"counter alone", "cgroup",
			[]signal.Body{signal.CgroupCounters{Cgroup: signal.Cgroup{Path: leftPath}, OOMKill: 1, Chain: []signal.Level{level(leftPath, 40*mib, -1)}}},
			death.OOMContainerLimit, death.Possible, "limit-not-named",
		},
		{
			"counters of v2 tell whose limit", "cgroup",
			[]signal.Body{
				signal.CgroupCounters{Cgroup: signal.Cgroup{Path: "/kubepods.slice"}, OOM: 3},
				signal.CgroupCounters{Cgroup: signal.Cgroup{Path: leftPath}, OOMKill: 1, Chain: []signal.Level{level(leftPath, 0, -1), level("/kubepods.slice", 400*mib, -1)}},
			},
			death.OOMNodeAllocatable, death.Possible, "kubepods-limit",
		},
		{
			"rate-limited storm: limits known from the kernel at kill time", "tracepoint",
			append(oomKill(leak, leak, level(leftPath, 40*mib, 40*mib-64<<10), level(podPath, 600*mib, 60*mib)),
				signal.ReportedKill{Report: 1, Victim: signal.Task{PID: 100, Comm: "leak"}, Memcg: true}),
			death.OOMContainerLimit, death.Probable, "container-limit",
		},
		{
			"the kernel names it by oom_kill_process", "tracepoint",
			append([]signal.Body{signal.OOMInvocation{Constraint: "CONSTRAINT_MEMCG", OOMMemcg: signal.Cgroup{Path: leftPath}, Chosen: leak, Trigger: leak}},
				oomKill(leak, leak)...),
			death.OOMContainerLimit, death.Certain, "container-limit",
		},
		{
			"cpuset", "tracepoint",
			append([]signal.Body{signal.OOMInvocation{Constraint: "CONSTRAINT_CPUSET", Chosen: leak, Trigger: leak}},
				oomKill(leak, leak)...),
			death.OOMCpuset, death.Certain, "cpuset",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			sigs := sources(sc, tc.from)
			for _, b := range tc.bodies {
				sigs = append(sigs, sc.sig(tc.from, b))
			}
			d := only(t, play(t, New(Options{}), sigs...))
			if d.Cause != tc.cause || d.Confidence != tc.confidence || d.Rule != tc.rule {
				t.Errorf("got %s %s %s, want %s %s %s\n%s", d.Cause, d.Confidence, d.Rule, tc.cause, tc.confidence, tc.rule, sketch([]death.Death{d}))
			}
		})
	}
}

// TestInquest_GroupKill plays a group kill as tracepoints and as the log tell
// it, the first victim twice: one death, each process once.
func TestInquest_GroupKill(t *testing.T) {
	group := level(leftPath, 40*mib, 40*mib)
	group.OOMGroup = true
	trigger := task(105, "trigger", leftPath, false)
	victims := []signal.Task{task(101, "fat", leftPath, false), task(102, "m1", leftPath, true), task(103, "m2", leftPath, false), trigger}
	sc := &scene{}
	var marks, log []signal.Signal
	for i, v := range victims {
		for _, b := range oomKill(v, trigger, group) {
			marks = append(marks, sc.sig("tracepoint", b))
		}
		r := signal.ReportedKill{Report: 7, Victim: signal.Task{PID: v.PID, Comm: v.Comm}, Memcg: true}
		if i == 0 {
			r.OOM = &death.OOM{Constraint: "CONSTRAINT_MEMCG", OOMMemcg: leftPath, TaskMemcg: leftPath, LimitBytes: ptr(40 * mib), UsageBytes: ptr(40 * mib)}
		}
		log = append(log, sc.sig("kmsg", r))
		if i == 0 {
			log = append(log, sc.sig("kmsg", signal.ReportedGroup{Report: 7, Cgroup: signal.Cgroup{Path: leftPath}}))
		}
	}
	marks = append(marks, sc.sig("tracepoint", signal.Kill{Target: victims[0], Sender: trigger, Signal: 9, Code: signal.CodeKernel, Result: 1}))
	log = append(log, sc.sig("kmsg", signal.ReportedKill{Report: 7, Victim: signal.Task{PID: 101, Comm: "fat"}, Memcg: true, Again: true}))
	counters := []signal.Signal{
		sc.sig("cgroup", signal.CgroupCounters{Cgroup: signal.Cgroup{Path: leftPath}, OOMKill: 5, OOM: 1, OOMGroupKill: 1}),
		sc.sig("cgroup", signal.NodeCounters{OOMKill: 5, Total: 5}),
	}
	for _, tc := range []struct {
		name    string
		sources []death.Source
		sigs    [][]signal.Signal
	}{
		{"tracepoints", []death.Source{"tracepoint", "cgroup"}, [][]signal.Signal{marks, counters}},
		{"log", []death.Source{"kmsg", "cgroup"}, [][]signal.Signal{log, counters}},
		{"both", []death.Source{"tracepoint", "kmsg", "cgroup"}, [][]signal.Signal{marks, log, counters}},
		{"log first", []death.Source{"tracepoint", "kmsg", "cgroup"}, [][]signal.Signal{counters, log, marks}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := New(Options{})
			sigs := sources(&scene{}, tc.sources...)
			for _, s := range tc.sigs {
				sigs = append(sigs, s...)
			}
			d := only(t, play(t, q, sigs...))
			var pids []int
			for _, p := range d.Processes {
				pids = append(pids, p.PID)
			}
			if diff := cmp.Diff([]int{101, 102, 103, 105}, pids); diff != "" {
				t.Errorf("pids (-want +got):\n%s", diff)
			}
			if d.OOMKills() != 4 || d.OOM.Events != 1 || d.OOM.Containers != 1 || !d.OOM.GroupKill || d.Subject != death.SubjectContainer || d.Cause != death.OOMContainerLimit {
				t.Errorf("kills %d, events %d, containers %d, group %v\n%s", d.OOMKills(), d.OOM.Events, d.OOM.Containers, d.OOM.GroupKill, sketch([]death.Death{d}))
			}
			if n := q.Stats().Unattributed; n != 0 {
				t.Errorf("unattributed = %d, want 0: the first victim is counted twice by the kernel", n)
			}
		})
	}
}

// TestInquest_HiddenAndCollateral shows that a process that shared the
// victim's memory, and one whose pid namespace ended, belong to the death.
func TestInquest_HiddenAndCollateral(t *testing.T) {
	sc := &scene{}
	first := task(100, "app", leftPath, true)
	other := task(104, "other", leftPath, false)
	sharer := task(103, "vfork", leftPath, false)
	sharer.MM = first.MM
	sigs := sources(sc, "tracepoint")
	for _, b := range oomKill(first, other) {
		sigs = append(sigs, sc.sig("tracepoint", b))
	}
	sigs = append(sigs,
		sc.sig("tracepoint", signal.Kill{Target: sharer, Sender: other, Signal: 9, Code: signal.CodeKernel}),
		sc.sig("tracepoint", signal.Kill{Target: other, Sender: first, Signal: 9, Code: signal.CodeKernel}),
		sc.sig("tracepoint", signal.Kill{Target: other, Sender: first, Signal: 9, Code: signal.CodeKernel}))
	d := only(t, play(t, New(Options{}), sigs...))
	want := []death.Fate{death.FateVictim, death.FateSharer, death.FateCollateral}
	var got []death.Fate
	for _, p := range d.Processes {
		got = append(got, p.Fate)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fates (-want +got):\n%s%s", diff, sketch([]death.Death{d}))
	}
	if d.OOMKills() != 1 {
		t.Errorf("OOM kills = %d, want 1", d.OOMKills())
	}
}

// TestInquest_MemoryComesBack: the next victim may have the number of the
// last one's memory, and is no sharer of it.
func TestInquest_MemoryComesBack(t *testing.T) {
	sc := &scene{}
	sigs := sources(sc, "tracepoint")
	for i := range 3 {
		v := task(100+i, "leak", leftPath, false)
		v.MM = 77
		trigger := v
		if i == 2 {
			trigger = task(101, "leak", leftPath, false)
		}
		for _, b := range oomKill(v, trigger, level(leftPath, 40*mib, 40*mib)) {
			sigs = append(sigs, sc.sig("tracepoint", b))
		}
	}
	ds := play(t, New(Options{}), sigs...)
	if len(ds) != 3 {
		t.Fatalf("deaths = %d, want 3\n%s", len(ds), sketch(ds))
	}
	for _, d := range ds {
		if len(d.Processes) != 1 || d.OOMKills() != 1 {
			t.Errorf("got:\n%s", sketch([]death.Death{d}))
		}
	}
}

// TestInquest_ThreadInTheLog: the log names a thread, the tracepoint the
// process; in either order the death names the process.
func TestInquest_ThreadInTheLog(t *testing.T) {
	v := task(835, "member", leftPath, false)
	v.TID = 837
	marks := oomKill(v, v)
	log := reported(837, "member", leftPath, leftPath, 40*mib, 40*mib)
	for _, order := range [][]signal.Body{{marks[0], marks[1], log}, {log, marks[0], marks[1]}} {
		sc := &scene{}
		sigs := sources(sc, "tracepoint", "kmsg")
		for _, b := range order {
			sigs = append(sigs, sc.sig("tracepoint", b))
		}
		if d := only(t, play(t, New(Options{}), sigs...)); len(d.Processes) != 1 || d.Processes[0].PID != 835 {
			t.Errorf("got:\n%s", sketch([]death.Death{d}))
		}
	}
}

// TestInquest_NamesThatAreNoUTF8 come out as the kernel shows them.
func TestInquest_NamesThatAreNoUTF8(t *testing.T) {
	sc := &scene{}
	v := task(100, "\xff\xfe\x1bü\ufffd", "/odd\x80", false)
	sigs := sources(sc, "tracepoint")
	for _, b := range oomKill(v, v) {
		sigs = append(sigs, sc.sig("tracepoint", b))
	}
	d := only(t, play(t, New(Options{}), sigs...))
	got := []string{d.Processes[0].Comm, d.OOM.TaskMemcg, d.OOM.Trigger.Comm}
	if diff := cmp.Diff([]string{`\xff\xfe` + "\x1bü\ufffd", `/odd\x80`, `\xff\xfe` + "\x1bü\ufffd"}, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestInquest_AlreadyDyingIsNoDeath(t *testing.T) {
	sc := &scene{}
	v := task(100, "app", leftPath, true)
	q := New(Options{})
	ds := play(t, q, append(sources(sc, "tracepoint"), sc.sig("tracepoint", signal.MarkVictim{Victim: v, Trigger: v}))...)
	if len(ds) != 0 || q.Stats().AlreadyDying != 1 {
		t.Errorf("deaths %d, already dying %d; want 0, 1", len(ds), q.Stats().AlreadyDying)
	}
}

func TestInquest_KillBySomebody(t *testing.T) {
	first := task(100, "app", leftPath, true)
	person := onHost(task(900, "bash", "/user.slice/user-1000.slice/session-3.scope", false))
	runc := onHost(task(901, "runc", "/system.slice/containerd.service", false))
	fake := onHost(task(902, "runc", rightPth, false))
	for _, tc := range []struct {
		name   string
		kill   signal.Kill
		cause  death.Cause
		deaths int
	}{
		{"a person", signal.Kill{Target: first, Sender: person, Signal: 9}, death.Killed, 1},
		{"the runtime", signal.Kill{Target: first, Sender: runc, Signal: 9}, death.Unknown, 1},
		{"a container that calls itself runc", signal.Kill{Target: first, Sender: fake, Signal: 9}, death.Killed, 1},
		{"from inside, which the kernel ignores", signal.Kill{Target: first, Sender: person, Signal: 9, Result: 1}, "", 0},
		{"of another process", signal.Kill{Target: task(101, "worker", leftPath, false), Sender: person, Signal: 9}, "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			sigs := append(sources(sc, "tracepoint"), sc.sig("tracepoint", tc.kill))
			if tc.kill.Result == 0 {
				sigs = append(sigs, sc.sig("tracepoint", signal.Exit{Task: tc.kill.Target, Signal: ptr(9)}))
			}
			ds := play(t, New(Options{}), sigs...)
			if len(ds) != tc.deaths {
				t.Fatalf("deaths = %d, want %d", len(ds), tc.deaths)
			}
			if tc.deaths == 0 {
				return
			}
			d := ds[0]
			if d.Cause != tc.cause || d.Killer == nil || d.Killer.PID != tc.kill.Sender.PID || d.Subject != death.SubjectContainer || *d.Exit.Signal != 9 {
				t.Errorf("got:\n%s", sketch(ds))
			}
		})
	}
}

// TestInquest_FirstProcessFollows plays S3: a child is OOM-killed, and the
// first process leaves with an ordinary code.
func TestInquest_FirstProcessFollows(t *testing.T) {
	sc := &scene{}
	child, first := task(101, "worker", leftPath, false), task(100, "app", leftPath, true)
	sigs := sources(sc, "tracepoint")
	for _, b := range oomKill(child, child, level(leftPath, 40*mib, 40*mib)) {
		sigs = append(sigs, sc.sig("tracepoint", b))
	}
	sigs = append(sigs, sc.sig("tracepoint", signal.Exit{Task: first, Code: ptr(3)}))
	d := only(t, play(t, New(Options{}), sigs...))
	if d.Subject != death.SubjectContainer || d.Exit == nil || d.Exit.Code == nil || *d.Exit.Code != 3 || d.Cause != death.OOMContainerLimit {
		t.Errorf("got:\n%s", sketch([]death.Death{d}))
	}
}

// TestInquest_ChildThenFirst shows that a child and then the first process,
// OOM-killed in one breath, are the one end of one container.
func TestInquest_ChildThenFirst(t *testing.T) {
	sc := &scene{}
	child, first := task(101, "worker", leftPath, false), task(100, "app", leftPath, true)
	sigs := sources(sc, "tracepoint")
	for _, v := range []signal.Task{child, first} {
		for _, b := range oomKill(v, v, level(leftPath, 40*mib, 40*mib)) {
			sigs = append(sigs, sc.sig("tracepoint", b))
		}
	}
	d := only(t, play(t, New(Options{}), sigs...))
	if d.Subject != death.SubjectContainer || d.OOMKills() != 2 {
		t.Errorf("got:\n%s", sketch([]death.Death{d}))
	}
}

// TestInquest_Repeats plays S2: a worker that is killed again and again.
func TestInquest_Repeats(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	var sigs []signal.Signal
	for i := range 14 {
		v := task(200+i, "worker", leftPath, false)
		sc.n = i * 46000 // 14 times in 10 minutes
		for _, b := range oomKill(v, v, level(leftPath, 40*mib, 40*mib)) {
			sigs = append(sigs, sc.sig("tracepoint", b))
		}
	}
	ds := play(t, q, sigs...)
	if len(ds) != 14 {
		t.Fatalf("deaths = %d, want 14", len(ds))
	}
	r := ds[13].Repeat
	if r == nil || r.Count != 14 || !r.First.Equal(ds[0].Time) || r.PerHour == nil || *r.PerHour < 75 || *r.PerHour > 82 {
		t.Errorf("repeat = %+v", r)
	}
	if ds[0].Repeat != nil {
		t.Errorf("the first is no repeat: %+v", ds[0].Repeat)
	}
}
