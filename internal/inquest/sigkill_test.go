// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"testing"

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
