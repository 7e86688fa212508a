// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// startNested starts a container's first process, which makes a pid namespace
// inside, and returns the first process of that too.
func startNested(t *testing.T, leaf group, act string) (outer *actor, inner int) {
	t.Helper()
	outer = start(t, leaf, "nest", "outer", &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}, innerEnv+"="+act)
	outer.word()
	poll(t, "first process of the nested namespace", func() bool {
		for _, pid := range leaf.procs() {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			if pid != outer.pid() && err == nil && string(b) == "inner\n" {
				inner = pid
			}
		}
		return inner != 0
	})
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", inner))
	if err != nil {
		t.Fatal(err)
	}
	_, ids, _ := strings.Cut(string(b), "NSpid:")
	ids, _, _ = strings.Cut(ids, "\n")
	if f := strings.Fields(ids); len(f) < 3 || f[len(f)-1] != "1" {
		t.Fatalf("ids of %d = %q, want the first one of a nested namespace", inner, ids)
	}
	// While they live, procfs knows for sure.
	p := newProcfs(host.Roots{})
	checkInit(t, ModeBPF, "living nested process", p.lookup(inner), false)
	checkInit(t, ModeBPF, "living first process", p.lookup(outer.pid()), true)
	return outer, inner
}

// checkInit allows for tracefs, which can find a process gone, but never for
// a wrong answer.
func checkInit(t *testing.T, mode, what string, task signal.Task, want bool) {
	t.Helper()
	switch {
	case task.Init == nil && mode != ModeTracefs:
		t.Errorf("%s: init is absent, want %v", what, want)
	case task.Init != nil && *task.Init != want:
		t.Errorf("%s: init = %v, want %v", what, *task.Init, want)
	}
}

func TestRun_NestedNamespaceOOM(t *testing.T) {
	eachMode(t, func(t *testing.T, w *watch, tree group) {
		leaf := tree.child("nested", 2*limit)
		t.Cleanup(leaf.remove)
		outer, inner := startNested(t, leaf, "leak")
		mode := w.state.Mode
		outer.word()
		m, _, _ := w.mark(inner)
		k, _ := w.kill(inner)
		checkInit(t, mode, "nested victim", m.Victim, false)
		checkInit(t, mode, "nested target", k.Target, false)
		outer.word() // it lives on, until it leaks itself
		if sig := outer.end(); sig != syscall.SIGKILL {
			t.Fatalf("outer process ended by %v, want SIGKILL", sig)
		}
		m, _, _ = w.mark(outer.pid())
		k, _ = w.kill(outer.pid())
		checkInit(t, mode, "victim", m.Victim, true)
		checkInit(t, mode, "target", k.Target, true)
		if mode == ModeBPF {
			checkInit(t, mode, "nested exit", w.exit(inner).Task, false)
			checkInit(t, mode, "exit", w.exit(outer.pid()).Task, true)
		}
	})
}

func TestRun_NestedNamespaceKilled(t *testing.T) {
	eachMode(t, func(t *testing.T, w *watch, tree group) {
		leaf := tree.child("nested", 0)
		t.Cleanup(leaf.remove)
		outer, inner := startNested(t, leaf, "wait")
		mode := w.state.Mode
		for _, v := range []struct {
			pid  int
			init bool
		}{{inner, false}, {outer.pid(), true}} {
			if err := syscall.Kill(v.pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			k, _ := w.kill(v.pid)
			checkInit(t, mode, "target", k.Target, v.init)
		}
		outer.end()
		if mode != ModeBPF {
			return
		}
		checkInit(t, mode, "exit", w.exit(outer.pid()).Task, true)
		// The end of its own namespace can hit its last threads: then its exit
		// is told, too.
		for _, s := range w.all() {
			if e, ok := s.Body.(signal.Exit); ok && e.Task.PID == inner {
				checkInit(t, mode, "nested exit", e.Task, false)
			}
		}
	})
}
