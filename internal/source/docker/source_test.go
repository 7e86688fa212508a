// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/signal"
)

// bubble runs a test with a fake engine in time that is not real.
func bubble(t *testing.T, test func(t *testing.T, f *fake)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newFake(t)) })
}

func TestSource_Life(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("old", 11)
		r := follow(t, f, Options{})
		enginetest.Settle()
		said := r.Taken()
		if st := enginetest.LastState(said); st != (signal.SourceState{Up: true, Mode: "docker 20.10.24"}) {
			t.Errorf("state %+v", st)
		}
		seen := enginetest.Of[signal.ContainerSeen](said)
		if len(seen) != 2 || seen[0].Container.Name != "name-old" || seen[1].PID != 11 || *seen[1].LimitBytes != 32<<20 || seen[1].StopSignal != 3 {
			t.Errorf("of the list: %+v", seen)
		}

		f.event("create", "a", map[string]string{"com.docker.compose.service": "web"})
		f.runs("a", 12)
		f.event("start", "a", map[string]string{"com.docker.compose.service": "web"})
		enginetest.Settle()
		seen = enginetest.Of[signal.ContainerSeen](r.Taken())
		if len(seen) != 3 || seen[0].State != "created" || seen[0].Container.Labels["com.docker.compose.service"] != "web" ||
			seen[1].State != "running" || seen[2].PID != 12 || seen[2].LogPath != "/log/a" {
			t.Errorf("of the start: %+v", seen)
		}

		started := seen[2].Started
		f.event("kill", "a", map[string]string{"signal": "15"})
		f.ended("a", 137, true)
		died := f.event("die", "a", map[string]string{"exitCode": "137"})
		f.event("stop", "a", nil)
		f.event("oom", "a", nil)
		enginetest.Settle()
		said = r.Taken()
		exits := enginetest.Of[signal.ContainerExit](said)
		want := []signal.ContainerExit{
			{ID: "a", Runtime: "docker", Code: new(137), PID: 12, Started: started},
			{ID: "a", Runtime: "docker", Code: new(137), OOMKilled: new(true), PID: 12, Started: started, Finished: time.Unix(0, died.TimeNano).UTC()},
		}
		if diff := cmp.Diff(want, exits); diff != "" {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
		for _, s := range said {
			if _, ok := s.Body.(signal.ContainerExit); ok && (s.Recovered || s.Time.UnixNano() != died.TimeNano) {
				t.Errorf("exit at %v, recovered %v", s.Time, s.Recovered)
			}
		}
		wantStops := []signal.ContainerStop{{ID: "a", Runtime: "docker", Signal: 15, Action: "kill"}, {ID: "a", Runtime: "docker", Action: "stop"}}
		if diff := cmp.Diff(wantStops, enginetest.Of[signal.ContainerStop](said)); diff != "" {
			t.Errorf("stops (-want +got):\n%s", diff)
		}
		if n := len(enginetest.Of[signal.ContainerOOM](said)); n != 1 {
			t.Errorf("%d OOM events", n)
		}
		f.event("destroy", "a", nil)
		enginetest.Settle()
		if gone := enginetest.Of[signal.ContainerGone](r.Taken()); len(gone) != 1 || gone[0].ID != "a" {
			t.Errorf("gone: %+v", gone)
		}
	})
}

// TestSource_ShortLife: a container that is gone before it can be asked for
// has its name and its code all the same.
func TestSource_ShortLife(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		r := follow(t, f, Options{})
		enginetest.Settle()
		r.Taken()
		f.event("start", "a", nil)
		time.Sleep(20 * time.Millisecond)
		f.event("die", "a", map[string]string{"exitCode": "137"})
		f.event("destroy", "a", nil)
		enginetest.Settle()
		said := r.Taken()
		if seen := enginetest.Of[signal.ContainerSeen](said); len(seen) != 1 || seen[0].Container.Name != "name-a" || seen[0].Container.Image != "image" {
			t.Errorf("seen: %+v", seen)
		}
		if exits := enginetest.Of[signal.ContainerExit](said); len(exits) != 1 || *exits[0].Code != 137 {
			t.Errorf("exits: %+v", exits)
		}
		if len(enginetest.Of[signal.Lost](said)) != 0 {
			t.Error("something was lost")
		}
	})
}

// TestSource_ForgedLabels: Docker writes labels over the attributes of its
// events, so a label named exitCode is no exit code.
func TestSource_ForgedLabels(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		r := follow(t, f, Options{})
		enginetest.Settle()
		labels := map[string]string{"exitCode": "0", "signal": "1"}
		f.event("create", "a", labels)
		f.runs("a", 12)
		f.event("start", "a", labels)
		enginetest.Settle()
		r.Taken()
		f.ended("a", 137, false)
		f.event("kill", "a", labels)
		f.event("die", "a", labels)
		enginetest.Settle()
		said := r.Taken()
		exits := enginetest.Of[signal.ContainerExit](said)
		if len(exits) != 2 || exits[0].Code != nil || *exits[1].Code != 137 {
			t.Errorf("exits: %+v", exits)
		}
		if stops := enginetest.Of[signal.ContainerStop](said); len(stops) != 1 || stops[0].Signal != 0 {
			t.Errorf("stops: %+v", stops)
		}
	})
}

func TestSource_ExecIsNoEnd(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("a", 12)
		r := follow(t, f, Options{})
		enginetest.Settle()
		r.Taken()
		for _, action := range []string{"exec_create: die", "exec_start: /bin/sh -c die", "exec_die", "exec_died", "health_status: die", "attach", "top"} {
			f.event(action, "a", map[string]string{"exitCode": "137", "execID": "e"})
		}
		enginetest.Settle()
		if said := r.Taken(); len(said) != 0 {
			t.Errorf("said: %+v", said)
		}
	})
}

func TestSource_EventsTwice(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("a", 12)
		r := follow(t, f, Options{})
		enginetest.Settle()
		r.Taken()
		for _, action := range []string{"kill", "die", "oom"} {
			m := f.event(action, "a", map[string]string{"exitCode": "1", "signal": "9"})
			f.send(m)
			f.send(m)
		}
		enginetest.Settle()
		said := r.Taken()
		if e, s, o := len(enginetest.Of[signal.ContainerExit](said)), len(enginetest.Of[signal.ContainerStop](said)), len(enginetest.Of[signal.ContainerOOM](said)); e != 1 || s != 1 || o != 1 {
			t.Errorf("%d exits, %d stops, %d ooms", e, s, o)
		}
	})
}

// TestSource_WhileAway: deaths between two connections are told when the
// second is made, with the time at which they were, each once.
func TestSource_WhileAway(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		for i, id := range []string{"lives", "dies", "removed", "again", "told"} {
			f.runs(id, 10+i)
		}
		r := follow(t, f, Options{})
		enginetest.Settle()
		f.ended("told", 1, false)
		f.event("die", "told", map[string]string{"exitCode": "1"})
		enginetest.Pass(15 * time.Second)
		r.Taken()

		f.Refuse(syscall.ECONNREFUSED)
		f.CutOff()
		time.Sleep(2 * time.Second)
		f.ended("dies", 137, true)
		diedAt := time.Now().UTC()
		f.ended("again", 139, false)
		time.Sleep(time.Second)
		againAt := f.boxes["again"].State.FinishedAt
		f.runs("again", 99)
		f.change(func() {
			f.boxes["again"].State.FinishedAt = againAt
			f.boxes["again"].RestartCount = 1
			delete(f.boxes, "removed")
		})
		f.runs("new", 50)
		f.ended("new", 2, false)
		// Of this one only the engine's memory of events tells.
		f.change(func() {
			f.past = append(f.past, f.message("die", "flash", map[string]string{"exitCode": "3"}), f.message("destroy", "flash", nil))
		})
		time.Sleep(3 * time.Second)
		if st := enginetest.LastState(r.Taken()); st.Up || !strings.Contains(st.Reason, "refused") {
			t.Errorf("while away: %+v", st)
		}
		f.Refuse(nil)
		enginetest.Pass(30 * time.Second)
		said := r.Taken()
		got := map[string]string{}
		for _, s := range said {
			e, ok := s.Body.(signal.ContainerExit)
			if !ok {
				continue
			}
			text := fmt.Sprintf("recovered %v, pid %d, code ", s.Recovered, e.PID)
			if e.Code != nil {
				text += fmt.Sprint(*e.Code)
			}
			got[e.ID] += text
			if e.ID == "dies" && !s.Time.Equal(diedAt) {
				t.Errorf("died at %v, told %v", diedAt, s.Time)
			}
		}
		want := map[string]string{
			"dies": "recovered true, pid 11, code 137", "again": "recovered true, pid 13, code ",
			"new": "recovered true, pid 0, code 2", "flash": "recovered true, pid 0, code 3",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
		var gone []string
		for _, g := range enginetest.Of[signal.ContainerGone](said) {
			gone = append(gone, g.ID)
		}
		slices.Sort(gone) // the list and old events come in either order
		if diff := cmp.Diff([]string{"flash", "removed"}, gone); diff != "" {
			t.Errorf("gone (-want +got):\n%s", diff)
		}
		if st := enginetest.LastState(said); !st.Up {
			t.Errorf("after: %+v", st)
		}
	})
}

// TestSource_StreamIsLate: engines answer before they listen to themselves.
func TestSource_StreamIsLate(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.late = time.Second
		r := follow(t, f, Options{})
		enginetest.Settle()
		f.event("die", "a", map[string]string{"exitCode": "3"})
		enginetest.Pass(2 * time.Second)
		said := r.Taken()
		if exits := enginetest.Of[signal.ContainerExit](said); len(exits) != 1 || *exits[0].Code != 3 {
			t.Errorf("exits %+v", exits)
		}
		for _, s := range said {
			if s.Recovered {
				t.Errorf("recovered: %+v", s)
			}
		}
	})
}

// TestSource_ListIsOlder: what an event said while a list was under way stands
// against the list.
func TestSource_ListIsOlder(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("a", 12)
		f.runs("b", 13)
		old := f.list()
		f.serve = func(path string) http.Handler {
			if path != "/containers/json" {
				return nil
			}
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				// An engine tells of a change once who asks is told the same.
				f.ended("a", 1, false)
				f.event("die", "a", map[string]string{"exitCode": "1"})
				f.change(func() { delete(f.boxes, "b") })
				f.event("destroy", "b", nil)
				time.Sleep(time.Second)
				f.answer(w, old)
			})
		}
		r := follow(t, f, Options{})
		enginetest.Pass(5 * time.Second)
		said := r.Taken()
		for _, s := range enginetest.Of[signal.ContainerSeen](said) {
			if s.State == "running" {
				t.Errorf("seen %s running: %+v", s.Container.ID, s)
			}
			if s.Container.ID == "b" {
				t.Errorf("seen after it was removed: %+v", s)
			}
		}
		if n := len(enginetest.Of[signal.ContainerExit](said)); n != 2 { // as the event came, and in full
			t.Errorf("%d exits", n)
		}
	})
}

// TestSource_InspectHangs: an answer that never comes holds up nothing else.
func TestSource_InspectHangs(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("good", 12)
		f.serve = func(path string) http.Handler {
			if !strings.HasPrefix(path, "/containers/bad") {
				return nil
			}
			return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		}
		r := follow(t, f, Options{})
		enginetest.Settle()
		r.Taken()
		f.event("start", "bad", nil)
		f.runs("good", 77)
		f.event("start", "good", nil)
		f.event("die", "bad", map[string]string{"exitCode": "1"})
		enginetest.Settle()
		said := r.Taken()
		if n := len(enginetest.Of[signal.ContainerExit](said)); n != 1 {
			t.Errorf("%d exits", n)
		}
		pid := 0
		for _, s := range enginetest.Of[signal.ContainerSeen](said) {
			pid = max(pid, s.PID)
		}
		if pid != 77 {
			t.Errorf("the other container has pid %d", pid)
		}
		enginetest.Pass(time.Minute)
		if st := enginetest.LastState(r.Taken()); st.Reason != "" {
			t.Errorf("state %+v", st)
		}
	})
}

func TestSource_InspectsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		for i := range 100 {
			f.runs(fmt.Sprint("c", i), 100+i)
		}
		f.serve = func(path string) http.Handler {
			if !strings.HasPrefix(path, "/containers/c") {
				return nil
			}
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				f.change(func() { f.busy++; f.most = max(f.most, f.busy) })
				time.Sleep(time.Second)
				f.change(func() { f.busy-- })
				f.inspect(w, strings.TrimSuffix(strings.TrimPrefix(path, "/containers/"), "/json"))
			})
		}
		r := follow(t, f, Options{})
		enginetest.Pass(20 * time.Second)
		pids := 0
		for _, s := range enginetest.Of[signal.ContainerSeen](r.Taken()) {
			if s.PID != 0 {
				pids++
			}
		}
		if pids != 100 || f.most > maxInspects {
			t.Errorf("%d inspected, %d at once", pids, f.most)
		}
	})
}

// TestSource_EngineHangs: an engine that stops answering is left, said to be
// down, and found again.
func TestSource_EngineHangs(t *testing.T) {
	for _, at := range []string{"/version", "/events", "/containers/json", "/_ping"} {
		t.Run(at[1:], func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fake) {
				r := follow(t, f, Options{})
				enginetest.Settle()
				if st := enginetest.LastState(r.Taken()); !st.Up {
					t.Fatalf("at first %+v", st)
				}
				hang := func(path string) http.Handler {
					if path != at {
						return nil
					}
					return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
				}
				f.change(func() { f.serve = hang })
				f.CutOff()
				enginetest.Pass(50 * time.Second)
				if st := enginetest.LastState(r.Taken()); st.Up || st.Reason == "" {
					t.Errorf("hanging %+v", st)
				}
				f.change(func() { f.serve = nil })
				enginetest.Pass(90 * time.Second)
				if st := enginetest.LastState(r.Taken()); !st.Up {
					t.Errorf("afterwards %+v", st)
				}
			})
		})
	}
}

// TestSource_StreamHangs: a stream that is silent while nothing answers is
// noticed by a ping.
func TestSource_StreamHangs(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		r := follow(t, f, Options{})
		enginetest.Settle()
		r.Taken()
		f.change(func() {
			f.serve = func(string) http.Handler {
				return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			}
		})
		enginetest.Pass(21 * time.Second)
		if st := enginetest.LastState(r.Taken()); st.Up || !strings.Contains(st.Reason, "no answer") {
			t.Errorf("state %+v", st)
		}
	})
}

func TestSource_Garbage(t *testing.T) {
	long := `{"Type":"container","Action":"die","Actor":{"ID":"` + strings.Repeat("a", maxAnswer) + `"}}`
	for name, bytes := range map[string]string{
		"no JSON": "\x00\xffnonsense\n", "another shape": "[1,2]\n", "half": `{"Type":"container","Ac`, "endless": long,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fake) {
				f.runs("a", 12)
				r := follow(t, f, Options{})
				enginetest.Settle()
				r.Taken()
				f.send([]byte(bytes))
				if name == "half" {
					enginetest.Settle()
					f.CutOff()
				}
				f.ended("a", 137, false)
				enginetest.Pass(10 * time.Second)
				said := r.Taken()
				states := enginetest.Of[signal.SourceState](said)
				if len(states) != 2 || states[0].Up || !states[1].Up {
					t.Errorf("states %+v", states)
				}
				if exits := enginetest.Of[signal.ContainerExit](said); len(exits) != 1 || *exits[0].Code != 137 {
					t.Errorf("exits %+v", exits)
				}
			})
		})
	}
}

// TestSource_GarbageInAList: an endless list, or one of nonsense, is given up,
// and rows without an id are counted.
func TestSource_GarbageInAList(t *testing.T) {
	for name, tc := range map[string]struct {
		serve func(w io.Writer)
		up    bool
		lost  uint64
	}{
		"endless": {serve: func(w io.Writer) {
			for {
				if _, err := io.WriteString(w, `["`+strings.Repeat("x", 1<<20)); err != nil {
					return
				}
			}
		}},
		"nonsense": {serve: func(w io.Writer) { _, _ = io.WriteString(w, "<html>") }},
		"rows":     {serve: func(w io.Writer) { _, _ = io.WriteString(w, `[{"Id":""},{"Id":"../x"},{"Id":"good","Names":null}]`) }, up: true, lost: 2},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fake) {
				f.serve = func(path string) http.Handler {
					if path != "/containers/json" {
						return nil
					}
					return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { tc.serve(w) })
				}
				r := follow(t, f, Options{})
				enginetest.Pass(15 * time.Second)
				said := r.Taken()
				if st := enginetest.LastState(said); st.Up != tc.up || len(st.Reason) > engines.MaxReason {
					t.Errorf("state %+v", st)
				}
				var lost uint64
				for _, l := range enginetest.Of[signal.Lost](said) {
					lost += l.Count
					if !l.Other {
						t.Errorf("%+v", l)
					}
				}
				if lost != tc.lost {
					t.Errorf("%d lost, want %d", lost, tc.lost)
				}
			})
		})
	}
}

func TestSource_HugeLabelsAreToldOnce(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		r := follow(t, f, Options{})
		enginetest.Settle()
		r.Taken()
		labels := map[string]string{"io.kubernetes.x": strings.Repeat("x\n", 32<<10)}
		f.event("create", "a", labels)
		f.event("start", "a", labels)
		f.event("die", "a", labels)
		enginetest.Pass(11 * time.Second)
		said := r.Taken()
		lost := enginetest.Of[signal.Lost](said)
		if len(lost) != 1 || lost[0].Count != 1 {
			t.Errorf("lost %+v", lost)
		}
		if n := len(enginetest.Of[signal.ContainerSeen](said)[0].Container.Labels["io.kubernetes.x"]); n != engines.MaxLabelValue {
			t.Errorf("label of %d bytes", n)
		}
	})
}

func TestSource_Podman(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.podman, f.version = true, "4.3.1"
		r := follow(t, f, Options{})
		enginetest.Settle()
		f.event("died", "a", map[string]string{"containerExitCode": "137"})
		f.event("remove", "a", nil)
		enginetest.Settle()
		said := r.Taken()
		if st := enginetest.LastState(said); st.Mode != "podman 4.3.1" {
			t.Errorf("state %+v", st)
		}
		if e := enginetest.Of[signal.ContainerExit](said); len(e) != 1 || *e[0].Code != 137 || e[0].Runtime != "podman" {
			t.Errorf("exits %+v", e)
		}
		if len(enginetest.Of[signal.ContainerGone](said)) != 1 {
			t.Error("not gone")
		}
	})
}

func TestSource_Denied(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.Refuse(syscall.EACCES)
		r := follow(t, f, Options{})
		enginetest.Settle()
		want := signal.SourceState{Reason: "/fake.sock: dial unix: permission denied: needs user 0, or the group of the socket (for the systemd unit: engines.conf)"}
		if st := enginetest.LastState(r.Taken()); st != want {
			t.Errorf("state %+v", st)
		}
	})
}

func TestSource_TwoEngines(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		r := follow(t, f, Options{Hosts: []string{"/one.sock", "unix:///two.sock"}})
		enginetest.Settle()
		if st := enginetest.LastState(r.Taken()); st != (signal.SourceState{Up: true, Mode: "2 engines"}) {
			t.Errorf("state %+v", st)
		}
	})
}
