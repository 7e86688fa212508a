// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestSource_StateBeforeEvent: of a container that is started again and ends
// at once, the answer that it has ended can come before the event of its end.
// That is another end than the one before, however short the run.
func TestSource_StateBeforeEvent(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("a", 12)
		r := follow(t, f, Options{})
		enginetest.Settle()
		f.ended("a", 1, false)
		f.event("die", "a", map[string]string{"exitCode": "1"})
		enginetest.Settle()
		r.Taken()

		f.runs("a", 13)
		f.ended("a", 2, false)
		f.event("start", "a", nil)
		enginetest.Settle()
		died := f.event("die", "a", map[string]string{"exitCode": "2"})
		enginetest.Settle()
		code, n := 0, 0
		for _, s := range r.Taken() {
			if e, ok := s.Body.(signal.ContainerExit); ok {
				n++
				code = *e.Code
				if !s.Time.Equal(time.Unix(0, died.TimeNano)) {
					t.Errorf("ended at %v, want that of the event", s.Time)
				}
			}
		}
		if n != 2 || code != 2 { // as the event came, and in full
			t.Errorf("%d exits, the last with code %d", n, code)
		}
	})
}

// TestSource_StartIsRemembered: after a gap an engine may remember a start and
// not the end before it: it was made anew, or had too much to remember. That the
// container runs again tells that it ended, once.
func TestSource_StartIsRemembered(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		for i, id := range []string{"known", "new", "told", "both"} {
			f.runs(id, 11+i)
		}
		fresh := f.boxes["new"]
		f.change(func() { delete(f.boxes, "new") })
		r := follow(t, f, Options{})
		enginetest.Settle()
		f.ended("told", 1, false)
		f.event("die", "told", map[string]string{"exitCode": "1"})
		enginetest.Pass(15 * time.Second)
		r.Taken()

		f.Refuse(syscall.ECONNREFUSED)
		f.CutOff()
		enginetest.Pass(2 * time.Second)
		f.change(func() { f.past, f.boxes["new"] = nil, fresh })
		ends := map[string]time.Time{}
		for i, id := range []string{"known", "new", "both"} {
			f.ended(id, 137, false)
			ends[id] = time.Now().UTC()
			if id == "both" {
				f.event("die", id, map[string]string{"exitCode": "137"})
			}
			enginetest.Pass(time.Second)
			f.again(id, 20+i)
		}
		f.again("told", 30)
		enginetest.Pass(time.Second)
		f.Refuse(nil)
		enginetest.Pass(30 * time.Second)
		got := map[string][]int{}
		for _, s := range r.Taken() {
			if e, ok := s.Body.(signal.ContainerExit); ok {
				got[e.ID] = slices.Compact(append(got[e.ID], e.PID)) // an answer and an event can both tell it
				if !s.Recovered || !s.Time.Equal(ends[e.ID]) {
					t.Errorf("%s told at %v, recovered %v, want %v", e.ID, s.Time, s.Recovered, ends[e.ID])
				}
			}
		}
		want := map[string][]int{"known": {11}, "new": {0}, "both": {14}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pids of exits (-want +got):\n%s", diff)
		}
	})
}

// TestSource_ListOvertakesEvents: after a gap the old events may come after the
// list and what was asked about its containers. Each end is told once.
func TestSource_ListOvertakesEvents(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("runs", 11)
		f.runs("twice", 12)
		r := follow(t, f, Options{})
		enginetest.Settle()
		enginetest.Pass(15 * time.Second)
		r.Taken()

		f.Refuse(syscall.ECONNREFUSED)
		f.CutOff()
		enginetest.Pass(2 * time.Second)
		ends := map[string]int{}
		end := func(id string) {
			f.ended(id, 3, false)
			enginetest.Pass(20 * time.Millisecond)
			f.event("die", id, map[string]string{"exitCode": "3"})
			enginetest.Pass(100 * time.Millisecond)
			ends[id]++
		}
		for _, id := range []string{"runs", "twice"} {
			end(id)
			f.again(id, 20)
			enginetest.Pass(100 * time.Millisecond)
		}
		end("twice")
		f.runs("short", 30)
		f.event("start", "short", nil)
		enginetest.Pass(10 * time.Millisecond)
		end("short")
		f.change(func() { f.late = 3 * time.Second })
		f.Refuse(nil)
		enginetest.Pass(30 * time.Second)
		f.ended("runs", 4, false)
		f.event("die", "runs", map[string]string{"exitCode": "4"})
		ends["runs"]++
		enginetest.Settle()
		got := map[string]int{}
		last := map[string]time.Time{}
		for _, s := range r.Taken() {
			e, ok := s.Body.(signal.ContainerExit)
			switch {
			case !ok || !e.Finished.IsZero() && !e.Finished.Equal(s.Time): // what was noted of an end that was told
			case s.Time.Equal(last[e.ID]):
			default:
				got[e.ID]++
				last[e.ID] = s.Time
			}
		}
		if diff := cmp.Diff(ends, got); diff != "" {
			t.Errorf("ends (-want +got):\n%s", diff)
		}
	})
}

// again starts a container that has ended.
func (f *fake) again(id string, pid int) {
	finished := f.boxes[id].State.FinishedAt
	f.runs(id, pid)
	f.change(func() { f.boxes[id].State.FinishedAt = finished })
	f.event("start", id, nil)
}
