// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/signal"
)

const notFound = `exec: "nosuchprogram": executable file not found in $PATH`

// made puts a container that has not run into the engine.
func (f *fake) made(id string) {
	f.runs(id, 0)
	f.change(func() {
		c := f.boxes[id]
		c.Created = stamp()
		c.State = &container.State{Status: "created", StartedAt: "0001-01-01T00:00:00Z", FinishedAt: "0001-01-01T00:00:00Z"}
	})
}

// failed makes the start of a container fail. No event tells of it.
func (f *fake) failed(id string) {
	f.change(func() { f.boxes[id].State.ExitCode, f.boxes[id].State.Error = 127, notFound })
}

// inspects counts how often a container was asked about.
func (f *fake) inspects(id string) (n int) {
	f.change(func() {
		for _, path := range f.asked {
			if strings.HasSuffix(path, "/"+id+"/json") {
				n++
			}
		}
	})
	return n
}

// TestSource_FailedStart: a start that fails is told once, soon, or when the
// container is started later.
func TestSource_FailedStart(t *testing.T) {
	for after, most := range map[time.Duration]time.Duration{
		0: 300 * time.Millisecond, 100 * time.Millisecond: 200 * time.Millisecond, 2 * time.Second: 3 * time.Second, 45 * time.Second: 20 * time.Second,
	} {
		t.Run(after.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fake) {
				r := follow(t, f, Options{})
				enginetest.Settle()
				f.made("a")
				f.event("create", "a", nil)
				time.Sleep(after)
				f.failed("a")
				failed := time.Now()
				time.Sleep(5 * time.Minute)
				enginetest.Settle()
				n := 0
				for _, s := range r.Taken() {
					if b, ok := s.Body.(signal.ContainerExit); ok {
						n++
						want := signal.ContainerExit{ID: "a", Runtime: "docker", Code: new(127), OOMKilled: new(false), Error: notFound}
						if diff := cmp.Diff(want, b); diff != "" {
							t.Errorf("(-want +got):\n%s", diff)
						}
						if late := s.Time.Sub(failed); late < 0 || late > most || s.Recovered {
							t.Errorf("told for %v later, recovered %v", late, s.Recovered)
						}
					}
				}
				if n != 1 {
					t.Errorf("told %d times", n)
				}
			})
		})
	}
}

// TestSource_FailedStartRemoved: of a container that is removed because its start
// failed, Docker answers why while it is at that, or not at all. Its removal is
// told after that.
func TestSource_FailedStartRemoved(t *testing.T) {
	for _, answers := range []bool{true, false} {
		t.Run(fmt.Sprint(answers), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fake) {
				r := follow(t, f, Options{})
				enginetest.Settle()
				f.made("a")
				f.event("create", "a", nil)
				f.failed("a")
				f.change(func() {
					f.boxes["a"].State.Status = "removing"
					if !answers {
						delete(f.boxes, "a")
					}
				})
				f.send(events.Message{Type: "network", Action: "disconnect", Actor: events.Actor{ID: "n", Attributes: map[string]string{"container": "a"}}})
				f.event("destroy", "a", nil)
				time.Sleep(time.Minute)
				enginetest.Settle()
				got := ""
				for _, s := range r.Taken() {
					switch b := s.Body.(type) {
					case signal.ContainerExit:
						got += fmt.Sprintf("%d %s; ", *b.Code, b.Error)
					case signal.ContainerGone:
						got += "gone"
					}
				}
				want := "127 " + notFound + "; gone"
				if !answers {
					want = "gone"
				}
				if got != want {
					t.Errorf("told %q, want %q", got, want)
				}
			})
		})
	}
}

// TestSource_StartsThatSucceed: a container that starts at once is asked about
// for its start alone; one that nobody starts, a few times.
func TestSource_StartsThatSucceed(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		r := follow(t, f, Options{})
		enginetest.Settle()
		f.made("quick")
		f.event("create", "quick", nil)
		f.runs("quick", 12)
		f.event("start", "quick", nil)
		f.made("slow")
		f.event("create", "slow", nil)
		f.made("removed")
		f.event("create", "removed", nil)
		f.event("destroy", "removed", nil)
		time.Sleep(time.Hour)
		enginetest.Settle()
		for id, want := range map[string]int{"quick": 1, "slow": len(startLooks), "removed": 0} {
			if n := f.inspects(id); n != want {
				t.Errorf("%s was asked about %d times, want %d", id, n, want)
			}
		}
		if exits := enginetest.Of[signal.ContainerExit](r.Taken()); len(exits) != 0 {
			t.Errorf("exits: %+v", exits)
		}
	})
}

// TestSource_FailedStartWhileAway: a start that failed while no agent ran is
// told by the next one, unless it was before the last end that was told.
func TestSource_FailedStartWhileAway(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.made("old")
		f.failed("old")
		time.Sleep(time.Minute)
		since := time.Now()
		time.Sleep(time.Minute)
		f.made("new")
		made := time.Now()
		f.failed("new")
		f.made("waits")
		time.Sleep(time.Minute)
		r := follow(t, f, Options{Since: since})
		enginetest.Settle()
		n := 0
		for _, s := range r.Taken() {
			if b, ok := s.Body.(signal.ContainerExit); ok {
				n++
				if b.ID != "new" || b.Error != notFound || !s.Recovered || !s.Time.Equal(made) {
					t.Errorf("%+v at %v, recovered %v", b, s.Time, s.Recovered)
				}
			}
		}
		if n != 1 {
			t.Errorf("%d ends told", n)
		}
	})
}

// TestStarts_AreBounded: those beyond the bound are not looked at, and make
// room once they were.
func TestStarts_AreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStarts()
		defer s.timer.Stop()
		room := 0
		for i := range maxStarts + 10 {
			if s.await(strconv.Itoa(i), 0, time.Now()) {
				room++
			}
		}
		s.look(<-s.timer.C, func(string) bool { return false })
		if room != maxStarts || s.n != 0 || !s.await("a", 0, time.Now()) {
			t.Errorf("room for %d, %d left", room, s.n)
		}
	})
}
