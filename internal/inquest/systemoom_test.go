// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestSystemOOM: the kubelet's word that the whole node ran out of memory is held
// against what the kernel said; two questions are for many kills.
func TestSystemOOM(t *testing.T) {
	said := func(pid int, at time.Time) signal.PodEvent {
		return signal.PodEvent{Reason: "SystemOOM", Message: fmt.Sprintf("System OOM encountered, victim process: app, pid: %d", pid), First: at, Last: at, Count: 1, By: "kubelet"}
	}
	const denied = "that is not so: a limit was reached"
	for name, tc := range map[string]struct {
		event signal.PodEvent
		says  bool
	}{
		"of this one":         {said(101, epoch.Add(time.Second)), true},
		"of this one, late":   {said(101, epoch.Add(time.Second)), true},
		"of another":          {said(999, epoch.Add(time.Second)), false},
		"of another long ago": {said(101, epoch.Add(-time.Hour)), false},
		"something else":      {signal.PodEvent{Reason: "NodeNotReady", Message: "System OOM encountered, victim process: app, pid: 101", First: epoch}, false},
	} {
		t.Run(name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{Node: "n1"})
			for _, s := range inKube(sc) {
				q.Feed(s)
			}
			for pid := 101; pid <= 103; pid++ {
				child := task(pid, "app", leftPath, false)
				for _, s := range oomKill(child, child, level(leftPath, 40*mib, 40*mib)) {
					q.Feed(sc.sig("tracepoint", s))
				}
			}
			text, asked := map[string]string{}, 0
			late := strings.HasSuffix(name, "late")
			for now := epoch; now.Before(epoch.Add(40 * time.Second)); now = now.Add(time.Second) {
				q.Tick(now)
				for _, w := range q.TakeWants() {
					if w.Kind != WantEvents {
						continue
					}
					asked++
					if w.Pod.UID != "n1" || w.Pod.Namespace != "default" {
						t.Errorf("asked for the events of %+v", w.Pod)
					}
					b := signal.PodEvents{UID: w.Pod.UID, At: w.At, Events: []signal.PodEvent{tc.event}}
					if late && asked == 1 {
						b.Events = nil
					}
					s := sc.sig("kube", b)
					s.Observed = now
					q.Feed(s)
				}
				for _, d := range q.Take() {
					text[d.ID] = sketch([]death.Death{d})
				}
			}
			n := 0
			for _, s := range text {
				if strings.Contains(s, denied) {
					n++
				}
			}
			if asked != 2 || q.Stats().OpenCases != 0 || len(text) != 3 || (n == 1) != tc.says {
				t.Errorf("asked %d times; %d of %d deaths deny it:\n%v", asked, n, len(text), text)
			}
		})
	}
}
