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

func systemOOMOf(pid int, at time.Time) signal.PodEvent {
	return signal.PodEvent{Reason: "SystemOOM", Message: fmt.Sprintf("System OOM encountered, victim process: app, pid: %d", pid), First: at, Last: at, Count: 1, By: "kubelet"}
}

// denied is what the evidence says of it where a limit was reached.
const denied = "that is not so: a limit was reached"

// TestSystemOOM: the kubelet's word that the whole node ran out of memory is held
// against what the kernel said; two questions are for many kills.
func TestSystemOOM(t *testing.T) {
	said := systemOOMOf
	for name, tc := range map[string]struct {
		event signal.PodEvent
		says  bool
	}{
		"of this one":       {said(101, epoch.Add(time.Second)), true},
		"of this one, late": {said(101, epoch.Add(time.Second)), true},
		"of this one, and of others before": {signal.PodEvent{Reason: "SystemOOM", Message: "(combined from similar events): System OOM encountered, victim process: app, pid: 101",
			First: epoch.Add(-time.Minute), Last: epoch.Add(time.Second), Count: 12, By: "kubelet"}, true},
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
					if w.Kind != WantNodeEvents {
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
				if strings.Contains(s, "the node: System OOM encountered, victim process: app, pid: 101; "+denied) {
					n++
				}
			}
			if asked != 2 || q.Stats().OpenCases != 0 || len(text) != 3 || (n == 1) != tc.says {
				t.Errorf("asked %d times; %d of %d deaths deny it:\n%v", asked, n, len(text), text)
			}
		})
	}
}

// TestSystemOOM_SoonAfterAnother: a kill for which it is not time to ask, since it
// was asked for another just now, stays open until it is.
func TestSystemOOM_SoonAfterAnother(t *testing.T) {
	for after := time.Second; after < 20*time.Second; after += 100 * time.Millisecond {
		sc := &scene{}
		q := New(Options{Node: "n1"})
		for _, s := range inKube(sc) {
			q.Feed(s)
		}
		kill := func(pid int, at time.Time) {
			child := task(pid, "app", leftPath, false)
			for _, b := range oomKill(child, child, level(leftPath, 40*mib, 40*mib)) {
				q.Feed(signal.Signal{Time: at, Observed: at, Source: death.SourceTracepoint, Body: b})
			}
		}
		kill(101, epoch.Add(time.Millisecond))
		text := map[string]string{}
		for now := epoch; now.Before(epoch.Add(70 * time.Second)); now = now.Add(100 * time.Millisecond) {
			if now.Equal(epoch.Add(after)) {
				kill(102, now)
			}
			q.Tick(now)
			for _, w := range q.TakeWants() {
				if w.Kind == WantNodeEvents {
					b := signal.PodEvents{UID: w.Pod.UID, At: w.At, Events: []signal.PodEvent{systemOOMOf(102, epoch.Add(after))}}
					q.Feed(signal.Signal{Time: now, Observed: now, Source: death.SourceKube, Body: b})
				}
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
		if len(text) != 2 || n != 1 || q.Stats().OpenCases != 0 {
			t.Errorf("%v after another: %d of %d deaths deny it, %d are open", after, n, len(text), q.Stats().OpenCases)
		}
	}
}

// TestSystemOOM_Unanswered: where the API does not answer, or too much is asked at
// once, it is asked again; where it never does, no case stays open for it.
func TestSystemOOM_Unanswered(t *testing.T) {
	for fails, says := range map[int]bool{1: true, systemOOMFails: true, 1000: false} {
		sc := &scene{}
		q := New(Options{Node: "n1"})
		for _, s := range inKube(sc) {
			q.Feed(s)
		}
		child := task(101, "app", leftPath, false)
		for _, b := range oomKill(child, child, level(leftPath, 40*mib, 40*mib)) {
			q.Feed(sc.sig("tracepoint", b))
		}
		asked, text := 0, ""
		for now := epoch; now.Before(epoch.Add(3 * time.Minute)); now = now.Add(200 * time.Millisecond) {
			q.Tick(now)
			for _, w := range q.TakeWants() {
				if w.Kind != WantNodeEvents {
					continue
				}
				b := signal.PodEvents{UID: w.Pod.UID, At: w.At, Error: "too many at once"}
				if asked++; asked > fails {
					b.Error, b.Events = "", []signal.PodEvent{systemOOMOf(101, epoch)}
				}
				q.Feed(signal.Signal{Time: now, Observed: now, Source: death.SourceKube, Body: b})
			}
			for _, d := range q.Take() {
				text = sketch([]death.Death{d})
			}
		}
		if strings.Contains(text, denied) != says || q.Stats().OpenCases != 0 || asked > systemOOMFails+2 {
			t.Errorf("%d answers are missing: asked %d times, %d cases are open:\n%s", fails, asked, q.Stats().OpenCases, text)
		}
	}
}

// TestSystemOOM_AfterManyOfBefore: an agent that has just found many kills in the
// kernel's log, or told many before it was started anew, asks for one of now.
func TestSystemOOM_AfterManyOfBefore(t *testing.T) {
	for _, told := range []bool{false, true} {
		sc := &scene{}
		q := New(Options{Node: "n1"})
		var known []death.Death
		for i := range 2 * systemOOMCases {
			known = append(known, death.Death{ID: itoa(i), Revision: 1, Time: epoch.Add(-time.Hour), ObservedAt: epoch.Add(-time.Hour), Cause: death.OOMNode, OOM: &death.OOM{}})
		}
		if told {
			q.Restore(epoch, known)
		}
		for _, s := range inKube(sc) {
			q.Feed(s)
		}
		for pid := 1000; pid < 1000+2*systemOOMCases && !told; pid++ {
			s := sc.sig("kmsg", reported(pid, "old", "/old", "/old", 40*mib, 40*mib))
			s.Recovered = true
			q.Feed(s)
		}
		child := task(101, "app", leftPath, false)
		for _, b := range oomKill(child, child, level(leftPath, 40*mib, 40*mib)) {
			q.Feed(sc.sig("tracepoint", b))
		}
		asked := 0
		for now := epoch.Add(2 * time.Second); now.Before(epoch.Add(5 * time.Second)); now = now.Add(200 * time.Millisecond) {
			q.Tick(now)
			for _, w := range q.TakeWants() {
				if w.Kind == WantNodeEvents {
					asked++
				}
			}
		}
		if n := q.Stats().OpenCases; asked != 1 || n <= systemOOMCases {
			t.Errorf("told before: %v: asked %d times beside %d open cases", told, asked, n)
		}
	}
}
