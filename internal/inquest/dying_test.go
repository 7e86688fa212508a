// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"testing"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestInquest_MarkedAfterSomebodysKill: at its limit a container is killed by
// somebody, and before it is gone another of its processes asks for memory. The
// kernel then marks who is dying already, and kills and counts nobody
// (mm/oom_kill.c, oom_kill_process: task_will_free_mem).
func TestInquest_MarkedAfterSomebodysKill(t *testing.T) {
	full := level(leftPath, 32*mib, 32*mib)
	first, child, other := task(100, "app", leftPath, true), task(101, "worker", leftPath, false), task(102, "asker", leftPath, false)
	child.PIDNS, other.PIDNS = first.PIDNS, first.PIDNS
	person := task(900, "bash", "/user.slice/user-1000.slice/session-3.scope", false)
	zap := signal.Kill{Target: child, Sender: first, Signal: 9, Code: signal.CodeKernel}
	mark := func(who signal.Task) signal.MarkVictim {
		return signal.MarkVictim{Victim: who, Trigger: other, Chain: []signal.Level{full}}
	}
	for _, tc := range []struct {
		name string
		then []signal.Body
		oom  bool
	}{
		{"its first process", []signal.Body{mark(first)}, false},
		{"one that ends with its pid namespace", []signal.Body{zap, mark(child)}, false},
		{"a group's, which the kernel kills all the same", []signal.Body{zap, signal.Kill{Target: child, Sender: other, Signal: 9, Code: signal.CodeKernel, Result: 1}, zap, mark(child)}, true},
		{"another process under its number", []signal.Body{signal.Kill{Target: first, Sender: other, Signal: 9, Code: signal.CodeKernel}, mark(first)}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			sigs := append(sources(sc, "tracepoint"), sc.sig("tracepoint", signal.Kill{Target: first, Sender: person, Signal: 9}))
			for _, b := range tc.then {
				sigs = append(sigs, sc.sig("tracepoint", b))
			}
			ds := play(t, q, sigs...)
			oom := false
			for _, d := range ds {
				oom = oom || d.Cause == death.OOMContainerLimit
			}
			if oom != tc.oom {
				t.Errorf("an OOM kill is told: %v, want %v\n%s", oom, tc.oom, sketch(ds))
			}
			if dying := q.Stats().AlreadyDying == 1; dying == tc.oom {
				t.Errorf("already dying = %d", q.Stats().AlreadyDying)
			}
		})
	}
}
