// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

const limit = 32 << 20

// eachMode runs a test with real kills in each way of watching.
func eachMode(t *testing.T, f func(t *testing.T, w *watch, tree group)) {
	for _, mode := range []string{ModeBPF, ModeTracefs} {
		t.Run(mode, func(t *testing.T) {
			w := newWatch(t, mode)
			if w.state.Mode != mode {
				t.Errorf("mode = %q, want %q", w.state.Mode, mode)
			}
			f(t, w, newTree(t))
		})
	}
}

func TestRun_OOMKill(t *testing.T) {
	eachMode(t, func(t *testing.T, w *watch, tree group) {
		g := tree.child("pod=a,task_memcg= x", 0)
		before := time.Now()
		c := group{t, g.h, g.path}
		if g.h.version == 2 {
			g.set(g.dir()+"/cgroup.subtree_control", "+memory")
		}
		leaf := c.child("leaf", limit)
		t.Cleanup(g.remove)
		t.Cleanup(leaf.remove)
		inode := leaf.inode()
		const comm = "a) b,pid=1,uid"
		p := start(t, leaf, "leak", comm, nil)
		p.word()
		if sig := p.end(); sig != syscall.SIGKILL {
			t.Fatalf("process ended by %v, want SIGKILL", sig)
		}
		m, s, mi := w.mark(p.pid())
		k, ki := w.kill(p.pid())
		if ki > mi {
			t.Errorf("kill came after the mark (%d, %d)", ki, mi)
		}
		if s.Source != death.SourceTracepoint || s.Time.Before(before) || s.Time.After(s.Observed) || s.Time.Location() != time.UTC {
			t.Errorf("time = %v, want UTC from %v to %v", s.Time, before, s.Observed)
		}
		if k.Code != signal.CodeKernel || k.Signal != 9 || k.Result != 0 {
			t.Errorf("kill = %+v, want code %d, signal 9, result 0", k, signal.CodeKernel)
		}
		for what, v := range map[string]signal.Task{"victim": m.Victim, "target": k.Target} {
			if v.PID != p.pid() || v.Comm != comm || v.UID != nil && *v.UID != 0 {
				t.Errorf("%s = %+v, want pid %d, comm %q, uid 0", what, v, p.pid(), comm)
			}
			checkCgroup(t, w, v.Cgroup, leaf, inode)
		}
		if m.Trigger.PID != p.pid() && (m.Trigger.PID != 0 || w.state.Mode == ModeBPF) {
			t.Errorf("trigger = %d, want the victim itself, %d", m.Trigger.PID, p.pid())
		}
		if w.state.Mode != ModeBPF {
			return
		}
		if m.Victim.Init == nil || *m.Victim.Init || m.Victim.MM == 0 || m.Victim.MM != k.Target.MM || m.Victim.PIDNS == 0 || m.Victim.UID == nil {
			t.Errorf("victim = %+v, want uid, no init, one mm in both records, a pid namespace", m.Victim)
		}
		checkChain(t, m.Chain, leaf, inode)
		checkFigures(t, m.Figures)
		checkInvocation(t, w, p.pid(), ki, leaf, inode)
		if e := w.exit(p.pid()); e.Signal == nil || *e.Signal != 9 || e.Task.Comm != comm || e.Task.Cgroup.Path != leaf.path {
			t.Errorf("exit = %+v, want signal 9, %q in %s", e, comm, leaf.path)
		}
	})
}

// checkCgroup allows for tracefs, which can find a process gone, but never for
// a wrong path.
func checkCgroup(t *testing.T, w *watch, got signal.Cgroup, want group, inode uint64) {
	t.Helper()
	if got.Path == "" && w.state.Mode == ModeTracefs {
		return
	}
	if got.Path != want.path {
		t.Errorf("cgroup path = %q, want %q", got.Path, want.path)
	}
	if w.state.Mode == ModeBPF && got.ID != inode {
		t.Errorf("cgroup id = %d, want inode %d", got.ID, inode)
	}
}

func checkChain(t *testing.T, chain []signal.Level, leaf group, inode uint64) {
	t.Helper()
	var paths []string
	for p := leaf.path; p != ""; p = parentPath(p) {
		paths = append(paths, p)
	}
	if len(chain) != len(paths) {
		t.Fatalf("chain = %+v, want %d levels", chain, len(paths))
	}
	for i, l := range chain {
		if l.Path != paths[i] {
			t.Errorf("level %d = %q, want %q", i, l.Path, paths[i])
		}
		if i > 0 && l.LimitBytes != nil {
			t.Errorf("level %d: limit = %d, want none", i, *l.LimitBytes)
		}
	}
	l := chain[0]
	if l.ID != inode || l.LimitBytes == nil || *l.LimitBytes != limit {
		t.Errorf("level 0 = %+v, want id %d and limit %d", l, inode, limit)
	}
	if l.UsageBytes == nil || *l.UsageBytes < limit*9/10 || *l.UsageBytes > limit {
		t.Errorf("level 0: usage = %v, want almost %d", l.UsageBytes, limit)
	}
}

// checkInvocation wants the entry of oom_kill_process before the kill, where
// the source did not say that it cannot trace it.
func checkInvocation(t *testing.T, w *watch, pid, kill int, leaf group, inode uint64) {
	t.Helper()
	if w.state.Reason != "" {
		t.Logf("no invocation: %s", w.state.Reason)
		return
	}
	s, i := w.await("invocation", func(s signal.Signal) bool {
		v, ok := s.Body.(signal.OOMInvocation)
		return ok && v.Chosen.PID == pid
	})
	v := s.Body.(signal.OOMInvocation)
	want := signal.Cgroup{ID: inode, Path: leaf.path}
	if v.Constraint != "CONSTRAINT_MEMCG" || v.OOMMemcg != want || v.Trigger.PID != pid || i > kill {
		t.Errorf("invocation %d = %+v, want CONSTRAINT_MEMCG of %+v before the kill, %d", i, v, want, kill)
	}
}

func checkFigures(t *testing.T, f signal.Figures) {
	t.Helper()
	if f.AnonRSSBytes == nil || *f.AnonRSSBytes < limit/2 || *f.AnonRSSBytes > 2*limit {
		t.Errorf("anonymous memory = %v, want about %d", f.AnonRSSBytes, limit)
	}
	if f.TotalVMBytes == nil || f.FileRSSBytes == nil || f.ShmemRSSBytes == nil || f.PgtablesBytes == nil || *f.PgtablesBytes == 0 {
		t.Errorf("figures = %+v, want all", f)
	}
	if f.OOMScoreAdj == nil {
		t.Error("oom_score_adj is absent")
	}
}

func TestRun_FirstProcessOfANamespace(t *testing.T) {
	eachMode(t, func(t *testing.T, w *watch, tree group) {
		leaf := tree.child("init", limit)
		t.Cleanup(leaf.remove)
		p := start(t, leaf, "leak", "leaker", &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID})
		ns := inodeOf(t, fmt.Sprintf("/proc/%d/ns/pid", p.pid()))
		p.word()
		p.end()
		m, _, _ := w.mark(p.pid())
		if m.Victim.Init == nil && w.state.Mode == ModeTracefs {
			t.Skip("process was gone before procfs told: allowed in this mode")
		}
		if m.Victim.Init == nil || !*m.Victim.Init {
			t.Errorf("init = %v, want true", m.Victim.Init)
		}
		if m.Victim.PIDNS != ns && (m.Victim.PIDNS != 0 || w.state.Mode == ModeBPF) {
			t.Errorf("pid namespace = %d, want %d", m.Victim.PIDNS, ns)
		}
	})
}

func TestRun_FirstProcessExits(t *testing.T) {
	w := newWatch(t, ModeBPF)
	leaf := newTree(t).child("exit", 0)
	t.Cleanup(leaf.remove)
	p := start(t, leaf, "exit3", "leaver", &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID})
	p.word()
	p.end()
	e := w.exit(p.pid())
	if e.Code == nil || *e.Code != 3 || e.Signal != nil || e.Task.Init == nil || !*e.Task.Init || e.Task.Cgroup.Path != leaf.path {
		t.Errorf("exit = %+v, want code 3 of the first process in %s", e, leaf.path)
	}
}

func TestRun_KilledBySomebody(t *testing.T) {
	eachMode(t, func(t *testing.T, w *watch, tree group) {
		there, here := tree.child("killed", 0), tree.child("killer", 0)
		t.Cleanup(there.remove)
		t.Cleanup(here.remove)
		victim := start(t, there, "wait", "sleeper", nil)
		killer := start(t, here, "kill", "angry", nil, fmt.Sprintf("CORONER_TEST_PID=%d", victim.pid()))
		killer.word()
		victim.end()
		k, _ := w.kill(victim.pid())
		if k.Code != 0 || k.Target.Comm != "sleeper" {
			t.Errorf("kill = %+v, want code 0, comm sleeper", k)
		}
		checkCgroup(t, w, k.Target.Cgroup, there, there.inode())
		// The killer can be gone when procfs is asked.
		if w.state.Mode == ModeTracefs && k.Sender.Cgroup.Path == "" {
			return
		}
		if k.Sender.PID != killer.pid() || k.Sender.Comm != "angry" || k.Sender.UID == nil || *k.Sender.UID != 0 {
			t.Errorf("sender = %+v, want pid %d, comm angry, uid 0", k.Sender, killer.pid())
		}
		checkCgroup(t, w, k.Sender.Cgroup, here, here.inode())
		killer.end()
	})
}

func TestRun_SharedMemory(t *testing.T) {
	eachMode(t, func(t *testing.T, w *watch, tree group) {
		leaf := tree.child("share", limit)
		t.Cleanup(leaf.remove)
		p := start(t, leaf, "share", "sharer", nil)
		p.word()
		var pids []int
		poll(t, "two processes with one memory", func() bool {
			pids = leaf.procs()
			return len(pids) == 2
		})
		p.word()
		p.end()
		a, _ := w.kill(pids[0])
		b, _ := w.kill(pids[1])
		if a.Code != signal.CodeKernel || b.Code != signal.CodeKernel {
			t.Errorf("codes = %d, %d, want %d by the kernel", a.Code, b.Code, signal.CodeKernel)
		}
		if w.state.Mode == ModeBPF && (a.Target.MM == 0 || a.Target.MM != b.Target.MM) {
			t.Errorf("memory = %d, %d, want the same", a.Target.MM, b.Target.MM)
		}
		marks, _ := w.marks()
		if n := marks[pids[0]] + marks[pids[1]]; n != 1 {
			t.Errorf("%d of the two were marked, want 1: the other is killed unseen", n)
		}
	})
}

func TestRun_CountsExactly(t *testing.T) {
	eachMode(t, func(t *testing.T, w *watch, tree group) {
		before := oomKills(t)
		want := make(map[int]string)
		for i := range 100 {
			pid, path := killOne(t, tree, fmt.Sprintf("seq-%d", i))
			want[pid] = path
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for worker := range 5 {
			wg.Go(func() {
				for i := range 10 {
					pid, path := killOne(t, tree, fmt.Sprintf("par-%d-%d", worker, i))
					mu.Lock()
					want[pid] = path
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		for pid := range want {
			w.mark(pid)
		}
		if len(want) != 150 {
			t.Skipf("process ids came round: %d processes of 150", len(want))
		}
		checkAll(t, w, want)
		t.Logf("kernel counted %d kills meanwhile", oomKills(t)-before)
	})
}

// killOne has one process killed in a cgroup that is removed at once.
func killOne(t *testing.T, tree group, name string) (pid int, path string) {
	g := tree.child(name, 16<<20)
	p := start(t, g, "leak", "leaker", nil)
	p.word()
	if sig := p.end(); sig != syscall.SIGKILL {
		t.Errorf("process ended by %v, want SIGKILL", sig)
	}
	g.remove()
	return p.pid(), g.path
}

func checkAll(t *testing.T, w *watch, want map[int]string) {
	t.Helper()
	marks, lost := w.marks()
	if lost != 0 {
		t.Errorf("lost = %d, want 0", lost)
	}
	named := 0
	for _, s := range w.all() {
		m, ok := s.Body.(signal.MarkVictim)
		path := want[m.Victim.PID]
		switch {
		case !ok || path == "":
		case m.Victim.Cgroup.Path == path:
			named++
		case m.Victim.Cgroup.Path != "" || w.state.Mode == ModeBPF:
			t.Errorf("cgroup of %d = %q, want %q", m.Victim.PID, m.Victim.Cgroup.Path, path)
		}
	}
	for pid := range want {
		if marks[pid] != 1 {
			t.Errorf("marks of %d = %d, want 1", pid, marks[pid])
		}
	}
	t.Logf("%d of %d victims with their cgroup's path", named, len(want))
}

func TestProbe_EachMode(t *testing.T) {
	needRoot(t)
	for _, mode := range []string{ModeBPF, ModeTracefs, ModeAuto} {
		want := mode
		if mode == ModeAuto {
			want = ModeBPF
		}
		if got, _, err := Probe(Options{Mode: mode}); got != want || err != nil {
			t.Errorf("Probe(%q) = %q, %v; want %q", mode, got, err, want)
		}
	}
	if _, _, err := Probe(Options{Mode: "x"}); err == nil || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("Probe of a mode that is none = %v, want an error that names it", err)
	}
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Ino
}

// BenchmarkRun_Latency kills one process after the other and reports the time
// from the kernel's own stamp of the mark to emit.
func BenchmarkRun_Latency(b *testing.B) {
	for _, mode := range []string{ModeBPF, ModeTracefs} {
		b.Run(mode, func(b *testing.B) {
			w := newWatch(b, mode)
			g := newTree(b).child("latency", 16<<20)
			b.Cleanup(g.remove)
			var took []time.Duration
			for b.Loop() {
				p := start(b, g, "leak", "leaker", nil)
				p.word()
				p.end()
				_, s, _ := w.mark(p.pid())
				took = append(took, s.Observed.Sub(s.Time))
			}
			slices.Sort(took)
			for _, q := range []int{50, 90, 99} {
				b.ReportMetric(float64(took[len(took)*q/100].Microseconds()), fmt.Sprintf("p%d-µs", q))
			}
			b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-µs")
		})
	}
}
