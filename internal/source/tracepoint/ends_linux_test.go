// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/signal"
)

// firstAttr makes the first process of a pid namespace, with mounts of its own.
func firstAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
}

// ready waits until the process has its handlers.
func (a *actor) ready(comm string) {
	a.t.Helper()
	poll(a.t, "process is ready", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", a.pid()))
		return err == nil && string(b) == comm+"!\n"
	})
}

func (a *actor) signal(sigs ...syscall.Signal) {
	a.t.Helper()
	for _, sig := range sigs {
		if err := syscall.Kill(a.pid(), sig); err != nil {
			a.t.Fatal(err)
		}
	}
}

// heardBy are the signals that a process was told to get, in order. Where procfs
// found it gone the thread alone is known.
func (w *watch) heardBy(p *actor) []signal.Kill {
	var got []signal.Kill
	for _, s := range w.all() {
		k, ok := s.Body.(signal.Kill)
		if ok && (k.Target.PID == p.pid() || slices.Contains(p.tids, k.Target.TID)) {
			got = append(got, k)
		}
	}
	return got
}

// settle waits until all that happened before was told.
func (w *watch) settle(tree group, name string) {
	w.t.Helper()
	g := tree.child(name, 0)
	w.t.Cleanup(g.remove)
	p := start(w.t, g, "hear", "fence", firstAttr())
	p.ready("fence")
	p.signal(syscall.SIGTERM)
	w.kill(p.pid())
	p.signal(syscall.SIGKILL)
	p.end()
}

// sent is a signal as the test knows that it was sent: by the process itself,
// by the kernel in its context, or by this test.
type sent struct {
	sig, code int
	own       bool
	fault     bool
	result    int
}

// TestRun_EndsOfFirstProcesses holds what is told of how first processes end
// against what wait(2) says of them, and the signals against those that were sent.
func TestRun_EndsOfFirstProcesses(t *testing.T) {
	const byKernel = signal.CodeKernel
	fault := func(sig syscall.Signal, code int) []sent { return []sent{{int(sig), code, true, true, 0}} }
	type row struct {
		act     string
		status  int // as wait(2) gives it, without the flag of a core dump
		sent    []sent
		outside []syscall.Signal // sent by this test, once the process is ready
	}
	rows := []row{
		{act: "exit0", status: 0},
		{act: "exit3", status: 3 << 8},
		{act: "segv", status: 11, sent: fault(11, 2)}, // SEGV_ACCERR
		{act: "bus", status: 7, sent: fault(7, 2)},    // BUS_ADRERR
		{act: "sys", status: 31, sent: fault(31, 1)},  // SYS_SECCOMP
		// The kernel does not let it reach a first process that has no handler.
		{act: "deaf", outside: []syscall.Signal{15, 15}, status: 0, sent: []sent{{sig: 15, result: signal.ResultIgnored}, {sig: 15, result: signal.ResultIgnored}}},
		{act: "heed", outside: []syscall.Signal{15}, status: 5 << 8, sent: []sent{{sig: 15}}},
		{act: "deaf", outside: []syscall.Signal{9}, status: 9, sent: []sent{{sig: 9}}},
		{act: "raise", status: 8 << 8, sent: []sent{{sig: 15, own: true}}},
		{act: "xcpu", status: 9}, // by the kernel's SIGKILL
		{act: "hearxcpu", status: 6 << 8, sent: []sent{{sig: 24, code: byKernel, own: true}}},
		{act: "xfsz", status: 9 << 8},
		{act: "hearxfsz", status: 7 << 8, sent: []sent{{sig: 25, own: true}}},
	}
	if runtime.GOARCH == "amd64" {
		rows = append(rows,
			row{act: "ill", status: 4, sent: fault(4, 2)}, // ILL_ILLOPN
			row{act: "fpe", status: 8, sent: fault(8, 1)}, // FPE_INTDIV
			row{act: "trap", status: 5, sent: fault(5, byKernel)},
			row{act: "abort", status: 11, sent: fault(11, byKernel)},
		)
	}
	eachMode(t, func(t *testing.T, w *watch, tree group) {
		for i, r := range rows {
			t.Run(fmt.Sprint(r.act, r.outside), func(t *testing.T) {
				leaf := tree.child(fmt.Sprint("ends-", i), 0)
				t.Cleanup(leaf.remove)
				p := start(t, leaf, r.act, "ender", firstAttr(), dirEnv+"="+t.TempDir())
				if r.act == "deaf" || r.act == "heed" {
					p.ready("ender")
				}
				p.signal(r.outside...)
				if r.act != "heed" && (len(r.outside) == 0 || r.outside[0] != syscall.SIGKILL) {
					p.word()
				}
				if stays(r.act) {
					poll(t, "the signal is told", func() bool { return len(w.heardBy(p)) > 0 })
					p.word()
				}
				_ = p.Wait()
				status := uint32(p.ProcessState.Sys().(syscall.WaitStatus))
				if status&^0x80 != uint32(r.status) {
					t.Fatalf("wait(2) says %#x, want %#x: not what this test is about", status, r.status)
				}
				if w.state.Mode == ModeBPF {
					e := w.exit(p.pid())
					if want := exitOf(e.Task, status); !sameEnd(e, want) || e.Task.Init == nil || !*e.Task.Init || e.Task.Cgroup.Path != leaf.path {
						t.Errorf("exit = %+v, want %+v of the first process in %s", e, want, leaf.path)
					}
				} else {
					w.settle(tree, fmt.Sprint("fence-", i))
				}
				checkSent(t, w, p, r.sent, r.act == "xcpu")
				for _, k := range w.heardBy(p) {
					if stays(r.act) && k.Signal != 9 && (k.Target.Init == nil || !*k.Target.Init) {
						t.Errorf("told %+v while it lived, want a first process", k)
					}
				}
			})
		}
	})
}

// stays tells whether a process outlives its signal until it gets the word.
func stays(act string) bool {
	return slices.Contains([]string{"heed", "raise", "hearxcpu", "hearxfsz"}, act)
}

func sameEnd(a, b signal.Exit) bool {
	same := func(a, b *int) bool { return a == b || a != nil && b != nil && *a == *b }
	return same(a.Code, b.Code) && same(a.Signal, b.Signal)
}

// checkSent wants the signals that were sent to be told, and no others. The kernel's
// SIGKILLs are apart: the end of a pid namespace is one for its own threads, too.
func checkSent(t *testing.T, w *watch, p *actor, want []sent, killed bool) {
	t.Helper()
	if len(want) == 1 && want[0].sig == int(syscall.SIGSYS) && !signalsSeccomp(t) {
		want = nil
	}
	if w.state.Mode == ModeTracefs { // nor what does not reach the process
		want = slices.DeleteFunc(slices.Clone(want), func(s sent) bool { return s.result != 0 })
	}
	byKernel := func(k signal.Kill) bool { return k.Signal == 9 && k.Code == signal.CodeKernel }
	var got []signal.Kill
	poll(t, "the signals are told", func() bool {
		all := w.heardBy(p)
		got = slices.DeleteFunc(slices.Clone(all), byKernel)
		return len(got) >= len(want) && (!killed || len(got) < len(all))
	})
	if len(got) != len(want) {
		t.Fatalf("%d signals were told, want %d: %+v", len(got), len(want), got)
	}
	for i, k := range got {
		s := want[i]
		if w.state.Mode == ModeTracefs && s.own && s.code == signal.CodeKernel && !s.fault {
			s.code = 0 // the process may have forged it
		}
		own := k.Sender.PID == p.pid() || slices.Contains(p.tids, k.Sender.TID)
		if k.Signal != s.sig || k.Code != s.code || k.Result != s.result || own != s.own || k.IsFault() != s.fault {
			t.Errorf("signal %d = %+v (a fault: %v), want %+v", i, k, k.IsFault(), s)
		}
		checkInit(t, w.state.Mode, "target", k.Target, true)
		checkCgroup(t, w, k.Target.Cgroup, p.group, p.group.inode())
		if !s.own {
			checkOutsider(t, k.Sender)
		}
	}
}

// signalsSeccomp tells whether the kernel ends a process by a filter with a
// signal (since 5.16); before, it just ends it.
func signalsSeccomp(t *testing.T) bool {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major > 5 || major == 5 && minor >= 16
}

// checkOutsider wants the sender to be this test, and to be known as the host's.
func checkOutsider(t *testing.T, sender signal.Task) {
	t.Helper()
	ns, uid := inodeOf(t, "/proc/self/ns/pid"), int64(os.Getuid())
	if sender.PID != os.Getpid() || sender.PIDNS != ns || sender.UID == nil || *sender.UID != uid {
		t.Errorf("sender = %+v, want pid %d, uid %d, in pid namespace %d", sender, os.Getpid(), uid, ns)
	}
	if ns != signal.InitialPIDNS {
		t.Logf("the test is in pid namespace %d, not in the initial one", ns)
	}
}

// TestRun_SenderInside: who sends from inside a container lives in its pid
// namespace, whatever it calls itself.
func TestRun_SenderInside(t *testing.T) {
	eachMode(t, func(t *testing.T, w *watch, tree group) {
		leaf := tree.child("inside", 0)
		t.Cleanup(leaf.remove)
		p := start(t, leaf, "parent", "outer", firstAttr(), innerEnv+"=child")
		ns := inodeOf(t, fmt.Sprintf("/proc/%d/ns/pid", p.pid()))
		p.word()
		p.word() // for the child
		k, _ := w.kill(p.pid())
		p.word()
		if k.Signal != 15 || k.Code != 0 || k.Sender.Comm != "inner" || k.Sender.PIDNS != ns || ns == signal.InitialPIDNS {
			t.Errorf("kill = %+v, want SIGTERM of inner in pid namespace %d", k, ns)
		}
		checkCgroup(t, w, k.Sender.Cgroup, leaf, leaf.inode())
		_ = p.Wait()
	})
}

// TestRun_ForgedCode: a process gives signals for itself the kernel's code.
func TestRun_ForgedCode(t *testing.T) {
	eachMode(t, func(t *testing.T, w *watch, tree group) {
		leaf := tree.child("forger", 0)
		t.Cleanup(leaf.remove)
		p := start(t, leaf, "forge", "forger", firstAttr())
		p.word()
		_ = p.Wait()
		if code := p.ProcessState.ExitCode(); code != 10 {
			t.Fatalf("exit code %d, want 10: the signals did not come through", code)
		}
		w.settle(tree, "fence")
		told := 0
		for _, k := range w.heardBy(p) {
			switch {
			case k.Signal == 15 && k.Code == 0:
				told++
			case k.Signal == 9: // the end of its pid namespace
			case k.Signal == 11 && w.state.Mode == ModeTracefs: // it cannot be known there
			default:
				t.Errorf("told %+v", k)
			}
		}
		if told != 1 {
			t.Errorf("SIGTERM by itself was told %d times, want 1", told)
		}
	})
}

// TestRun_NotAFirstProcess: signals to others than first processes of containers
// make no record, where it is known: mode tracefs can find a process gone.
func TestRun_NotAFirstProcess(t *testing.T) {
	eachMode(t, func(t *testing.T, w *watch, tree group) {
		leaf := tree.child("plain", 0)
		t.Cleanup(leaf.remove)
		p := start(t, leaf, "hear", "plain", nil)
		p.ready("plain")
		p.signal(syscall.SIGTERM, syscall.SIGUSR1)
		nested := tree.child("nested", 0)
		t.Cleanup(nested.remove)
		outer, inner := startNested(t, nested, "wait")
		in := &actor{Cmd: &exec.Cmd{Process: &os.Process{Pid: inner}}, t: t}
		in.signal(syscall.SIGTERM)
		w.settle(tree, "fence")
		for _, p := range []*actor{p, in} {
			for _, k := range w.heardBy(p) {
				if k.Signal != 9 && (w.state.Mode == ModeBPF || k.Target.Init != nil) {
					t.Errorf("told %+v, want nothing", k)
				}
			}
		}
		outer.signal(syscall.SIGKILL)
		outer.end()
	})
}

// TestRun_TermByOOMDaemon: the SIGTERM by which earlyoom and nohang free memory
// is told, whoever gets it, and so is the end of that process. Others' is not.
func TestRun_TermByOOMDaemon(t *testing.T) {
	w, tree := newWatch(t, ModeBPF), newTree(t)
	for i, tc := range []struct {
		unit string
		told bool
	}{
		{unit: "earlyoom.service", told: true},
		{unit: "nohang.service", told: true},
		{unit: "nohang-desktop.service", told: true},
		{unit: "earlyoom.services"},
		{unit: "nohang-desktop.service-and-more"},
	} {
		t.Run(fmt.Sprint(tc.unit, " told ", tc.told), func(t *testing.T) {
			there, here := tree.child("killed", 0), tree.child(tc.unit, 0)
			t.Cleanup(there.remove)
			t.Cleanup(here.remove)
			victim := start(t, there, "wait", "worker", nil)
			killer := start(t, here, "kill", "early", nil, fmt.Sprintf("CORONER_TEST_PID=%d", victim.pid()), "CORONER_TEST_SIGNAL=15")
			killer.word()
			killer.end()
			victim.end()
			w.settle(tree, fmt.Sprint("fence", i))
			var told []signal.Kill
			for _, k := range w.heardBy(victim) {
				if k.Signal == int(syscall.SIGTERM) {
					told = append(told, k)
				}
			}
			ended := slices.ContainsFunc(w.all(), func(s signal.Signal) bool {
				x, ok := s.Body.(signal.Exit)
				return ok && x.Task.PID == victim.pid() && x.Signal != nil && *x.Signal == int(syscall.SIGTERM)
			})
			switch {
			case !tc.told && len(told) > 0:
				t.Errorf("told %+v, want nothing", told)
			case !tc.told:
			case len(told) != 1 || told[0].Sender.Cgroup.Path != here.path || told[0].Target.Comm != "worker" || !ended:
				t.Errorf("told %+v, its end %v; want one by %s, and the end", told, ended, here.path)
			}
		})
	}
}
