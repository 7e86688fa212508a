// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"context"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

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
		f.runs("default", "old", 11)
		f.runs("k8s.io", "other", 21)
		r := follow(t, f, Options{})
		enginetest.Settle()
		said := r.Taken()
		if st := enginetest.LastState(said); st != (signal.SourceState{Up: true, Mode: "containerd 1.6.20"}) {
			t.Errorf("state %+v", st)
		}
		got := map[string]string{}
		for _, s := range enginetest.Of[signal.ContainerSeen](said) {
			got[s.Namespace+"/"+s.Container.ID] += fmt.Sprint(s.Container.Name, s.PID, s.State, s.Container.Cgroup, " ")
		}
		if diff := cmp.Diff(map[string]string{"default/old": "old0/default/old 11running ", "k8s.io/other": "other0/k8s.io/other 21running "}, got); diff != "" {
			t.Errorf("of the list (-want +got):\n%s", diff)
		}

		f.created("default", "a")
		f.event("default", &eventsapi.TaskCreate{ContainerID: "a", Pid: 12})
		start := f.event("default", &eventsapi.TaskStart{ContainerID: "a", Pid: 12})
		f.started("default", "a", 12)
		enginetest.Settle()
		seen := enginetest.Of[signal.ContainerSeen](r.Taken())
		var described, running signal.ContainerSeen
		for _, s := range seen {
			if s.Container.Cgroup != "" {
				described = s
			}
			if s.State == "running" {
				running = s
			}
		}
		if len(seen) != 4 || seen[0].State != "created" || seen[0].Container.Image != "base:1" || described.Container.Name != "a" ||
			described.Container.Cgroup != "/default/a" || *described.LimitBytes != 32<<20 || running.PID != 12 || running.Started.UnixNano() != start.Timestamp.AsTime().UnixNano() {
			t.Errorf("of the start: %+v", seen)
		}

		f.event("default", &eventsapi.TaskExit{ContainerID: "a", ID: "exec", Pid: 13, ExitStatus: 7, ExitedAt: timestamppb.Now()})
		f.event("default", &eventsapi.TaskOOM{ContainerID: "a"})
		f.event("default", &eventsapi.TaskOOM{ContainerID: "a"})
		exit := f.exits("default", "a", 12, 137)
		f.ended("default", "a", 137)
		f.event("default", &eventsapi.TaskDelete{ContainerID: "a", Pid: 12, ExitStatus: 137, ExitedAt: exit.Timestamp})
		enginetest.Settle()
		said = r.Taken()
		want := []signal.ContainerExit{{
			ID: "a", Namespace: "default", Runtime: "containerd", Code: new(137), PID: 12,
			Started: running.Started, Finished: exit.Timestamp.AsTime(),
		}}
		if diff := cmp.Diff(want, enginetest.Of[signal.ContainerExit](said)); diff != "" {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
		if n := len(enginetest.Of[signal.ContainerOOM](said)); n != 1 {
			t.Errorf("%d OOM events", n)
		}
		f.removed("default", "a")
		f.event("default", &eventsapi.ContainerDelete{ID: "a"})
		enginetest.Settle()
		want2 := []signal.ContainerGone{{ID: "a", Namespace: "default", Runtime: "containerd"}}
		if diff := cmp.Diff(want2, enginetest.Of[signal.ContainerGone](r.Taken())); diff != "" {
			t.Errorf("gone (-want +got):\n%s", diff)
		}
		enginetest.Pass(time.Minute)
		if said := r.Taken(); len(said) != 0 {
			t.Errorf("said when nothing happened: %+v", said)
		}
	})
}

// TestSource_ShortLife: a container that lives for 20 ms has its name, image
// and cgroup, told before it is gone; also one that cannot be asked for.
func TestSource_ShortLife(t *testing.T) {
	for _, slow := range []bool{false, true} {
		t.Run(fmt.Sprint("slow ", slow), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fake) {
				r := follow(t, f, Options{})
				enginetest.Settle()
				r.Taken()
				if slow { // the answer is right, but late
					f.change(func() {
						f.hang = func(_ context.Context, method string) error {
							if method == "Get" {
								time.Sleep(time.Second)
							}
							return nil
						}
					})
				}
				f.created("default", "a")
				f.event("default", &eventsapi.TaskCreate{ContainerID: "a", Pid: 12})
				f.event("default", &eventsapi.TaskStart{ContainerID: "a", Pid: 12})
				time.Sleep(20 * time.Millisecond)
				f.exits("default", "a", 12, 137)
				f.event("default", &eventsapi.ContainerDelete{ID: "a"})
				if !slow {
					f.removed("default", "a")
				}
				f.event("default", &eventsapi.ContainerCreate{ID: "b", Image: "base:1"})
				f.event("default", &eventsapi.ContainerDelete{ID: "b"})
				time.Sleep(1200 * time.Millisecond)
				f.removed("default", "a")
				enginetest.Pass(5 * time.Second)
				said := r.Taken()
				names, gone := map[string]string{}, map[string]bool{}
				for _, s := range said {
					switch b := s.Body.(type) {
					case signal.ContainerSeen:
						if gone[b.Container.ID] {
							t.Errorf("seen after it was gone: %+v", b)
						}
						names[b.Container.ID] += b.Container.Name + b.Container.Image + b.Container.Cgroup + " "
					case signal.ContainerGone:
						gone[b.ID] = true
					}
				}
				if !strings.Contains(names["a"], "abase:1/default/a") || names["b"] != "base:1 b " || !gone["a"] || !gone["b"] {
					t.Errorf("names %q, gone %v", names, gone)
				}
				if exits := enginetest.Of[signal.ContainerExit](said); len(exits) != 1 || *exits[0].Code != 137 {
					t.Errorf("exits: %+v", exits)
				}
				if lost := enginetest.Of[signal.Lost](said); len(lost) != 0 {
					t.Errorf("lost %+v", lost)
				}
			})
		})
	}
}

// TestSource_EventsTwice: what shims send again is told once.
func TestSource_EventsTwice(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("default", "a", 12)
		r := follow(t, f, Options{})
		enginetest.Settle()
		r.Taken()
		e := f.exits("default", "a", 12, 1)
		f.send(e)
		f.ended("default", "a", 1)
		enginetest.Settle()
		enginetest.Pass(time.Millisecond)
		f.event("default", &eventsapi.TaskCreate{ContainerID: "a", Pid: 12}) // the number came back
		f.event("default", &eventsapi.TaskStart{ContainerID: "a", Pid: 12})
		f.exits("default", "a", 12, 2)
		f.event("default", &eventsapi.ContainerDelete{ID: "a"})
		f.removed("default", "a")
		f.event("default", &eventsapi.ContainerDelete{ID: "a"})
		f.event("default", &eventsapi.TaskDelete{ContainerID: "a", Pid: 12, ExitStatus: 2})
		enginetest.Pass(10 * time.Second)
		said := r.Taken()
		var codes []int
		for _, x := range enginetest.Of[signal.ContainerExit](said) {
			codes = append(codes, *x.Code)
		}
		if diff := cmp.Diff([]int{1, 2}, codes); diff != "" {
			t.Errorf("codes (-want +got):\n%s", diff)
		}
		if n := len(enginetest.Of[signal.ContainerGone](said)); n != 1 {
			t.Errorf("%d times gone", n)
		}
	})
}

// TestSource_WhileAway: deaths between two connections are told when the
// second is made, each once.
func TestSource_WhileAway(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		for i, id := range []string{"lives", "dies", "deleted", "removed", "again", "told", "late"} {
			f.runs("default", id, uint32(10+i))
		}
		r := follow(t, f, Options{})
		enginetest.Settle()
		f.ended("default", "told", 1)
		f.exits("default", "told", 15, 1)
		enginetest.Pass(15 * time.Second)
		r.Taken()

		f.Refuse(syscall.ECONNREFUSED)
		f.CutOff()
		time.Sleep(2 * time.Second)
		f.ended("default", "dies", 137)
		diedAt := time.Now().UTC()
		f.change(func() { delete(f.tasks, "default/deleted") })
		f.change(func() { delete(f.tasks, "default/late") })
		f.removed("default", "removed")
		f.started("default", "again", 99)
		f.runs("default", "new", 50)
		f.ended("default", "new", 2)
		enginetest.Pass(3 * time.Second)
		if st := enginetest.LastState(r.Taken()); st.Up || !strings.Contains(st.Reason, "refused") {
			t.Errorf("while away: %+v", st)
		}
		f.Refuse(nil)
		enginetest.Pass(20 * time.Second)
		// A shim's event that waited for the engine says the code of an end
		// that is told already.
		f.event("default", &eventsapi.TaskExit{ContainerID: "late", ID: "late", Pid: 16, ExitStatus: 9, ExitedAt: timestamppb.New(diedAt)})
		f.exits("default", "dies", 11, 137)
		enginetest.Pass(20 * time.Second)
		said := r.Taken()
		got, times := map[string]string{}, map[string][]time.Time{}
		for _, s := range said {
			e, ok := s.Body.(signal.ContainerExit)
			if !ok {
				continue
			}
			text := fmt.Sprintf("recovered %v, pid %d, code ", s.Recovered, e.PID)
			if e.Code != nil {
				text += fmt.Sprint(*e.Code)
			}
			got[e.ID] += text + ";"
			times[e.ID] = append(times[e.ID], s.Time)
		}
		want := map[string]string{
			"dies": "recovered true, pid 11, code 137;", "deleted": "recovered true, pid 12, code ;",
			"removed": "recovered true, pid 13, code ;", "again": "recovered true, pid 14, code ;",
			"new": "recovered true, pid 50, code 2;", "late": "recovered true, pid 16, code ;recovered true, pid 16, code 9;",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
		if !times["dies"][0].Equal(diedAt) || !times["late"][0].Equal(times["late"][1]) {
			t.Errorf("died at %v, told %v; late told %v", diedAt, times["dies"], times["late"])
		}
		if gone := enginetest.Of[signal.ContainerGone](said); len(gone) != 1 || gone[0].ID != "removed" {
			t.Errorf("gone %+v", gone)
		}
		if st := enginetest.LastState(said); !st.Up {
			t.Errorf("after: %+v", st)
		}
	})
}

// TestSource_BeforeItListens: what ended before the engine listened for its
// subscriber, and after it was listed, is found.
func TestSource_BeforeItListens(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("default", "a", 12)
		f.change(func() {
			f.hang = func(_ context.Context, method string) error {
				if method == "Subscribe" {
					time.Sleep(time.Second)
				}
				return nil
			}
		})
		r := follow(t, f, Options{})
		enginetest.Settle()
		f.exits("default", "a", 12, 137)
		f.ended("default", "a", 137)
		endedAt := time.Now().UTC()
		enginetest.Pass(5 * time.Second)
		said := r.Taken()
		for _, s := range said {
			if _, ok := s.Body.(signal.ContainerExit); ok && (s.Recovered || !s.Time.Equal(endedAt)) {
				t.Errorf("%+v", s)
			}
		}
		if x := enginetest.Of[signal.ContainerExit](said); len(x) != 1 || *x[0].Code != 137 {
			t.Errorf("exits %+v", x)
		}
	})
}

// TestSource_ListIsOlder: what an event said while a list was under way stands
// against the list.
func TestSource_ListIsOlder(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("default", "a", 12)
		f.runs("default", "b", 13)
		f.change(func() {
			f.hang = func(_ context.Context, method string) error {
				if method == "ListStream" { // the tasks are told already
					f.exits("default", "a", 12, 1)
					f.event("default", &eventsapi.ContainerDelete{ID: "b"})
					time.Sleep(time.Second)
				}
				return nil
			}
		})
		r := follow(t, f, Options{})
		time.Sleep(1500 * time.Millisecond)
		f.change(func() { f.hang = nil })
		f.ended("default", "a", 1)
		f.removed("default", "b")
		enginetest.Pass(5 * time.Second)
		said := r.Taken()
		for _, s := range enginetest.Of[signal.ContainerSeen](said) {
			if s.State == "running" || s.Container.ID == "b" {
				t.Errorf("seen %+v", s)
			}
		}
		if n := len(enginetest.Of[signal.ContainerExit](said)); n != 1 {
			t.Errorf("%d exits", n)
		}
	})
}

// TestSource_Hangs: an engine that stops answering is left, said to be down,
// and found again. Tasks alone that hang make it lesser: its containers are
// told.
func TestSource_Hangs(t *testing.T) {
	for _, at := range []string{"Version", "Namespaces", "ListStream", "Tasks"} {
		t.Run(at, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fake) {
				f.runs("default", "a", 12)
				method := at
				if at == "Namespaces" || at == "Tasks" {
					method = "List"
				}
				calls := 0
				f.change(func() {
					f.hang = func(ctx context.Context, m string) error {
						if m != method || at == "Tasks" && asked(ctx) == "" {
							return nil
						}
						f.change(func() { calls++ })
						<-ctx.Done()
						return ctx.Err()
					}
				})
				r := follow(t, f, Options{})
				enginetest.Pass(50 * time.Second)
				said := r.Taken()
				st := enginetest.LastState(said)
				if st.Up != (at == "Tasks") || !strings.Contains(st.Reason, "no answer in") {
					t.Errorf("hanging %+v", st)
				}
				if n := len(enginetest.Of[signal.ContainerSeen](said)); at == "Tasks" && n != 1 {
					t.Errorf("%d seen", n)
				}
				f.change(func() { f.hang = nil })
				enginetest.Pass(90 * time.Second)
				said = r.Taken()
				if st := enginetest.LastState(said); !st.Up || st.Reason != "" || calls == 0 {
					t.Errorf("afterwards %+v, %d calls", st, calls)
				}
				if at == "Tasks" {
					if seen := enginetest.Of[signal.ContainerSeen](said); len(seen) != 1 || seen[0].PID != 12 {
						t.Errorf("afterwards seen %+v", seen)
					}
				}
			})
		})
	}
}

// TestSource_GetHangs: an answer that never comes holds up nothing else.
func TestSource_GetHangs(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		r := follow(t, f, Options{})
		enginetest.Settle()
		r.Taken()
		f.change(func() {
			f.hang = func(ctx context.Context, method string) error {
				if method == "Get" {
					<-ctx.Done()
				}
				return ctx.Err()
			}
		})
		for i := range 100 {
			f.created("default", fmt.Sprint("c", i))
		}
		f.exits("default", "c99", 12, 3)
		f.event("default", &eventsapi.ContainerDelete{ID: "c99"})
		enginetest.Settle()
		if n := len(enginetest.Of[signal.ContainerExit](r.Taken())); n != 1 {
			t.Errorf("%d exits", n)
		}
		enginetest.Pass(2 * time.Minute)
		said := r.Taken()
		if st := enginetest.LastState(said); st.Reason != "" {
			t.Errorf("state %+v", st)
		}
		named := map[string]int{}
		for _, s := range enginetest.Of[signal.ContainerSeen](said) {
			if s.Container.Name == s.Container.ID {
				named[s.Container.ID]++
			}
		}
		if len(named) != 100 || len(enginetest.Of[signal.ContainerGone](said)) != 1 {
			t.Errorf("%d named by their ids", len(named))
		}
	})
}

func TestSource_GetsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		r := follow(t, f, Options{})
		enginetest.Settle()
		f.change(func() {
			f.hang = func(_ context.Context, method string) error {
				if method == "Get" {
					f.change(func() { f.busy++; f.most = max(f.most, f.busy) })
					time.Sleep(time.Second)
					f.change(func() { f.busy-- })
				}
				return nil
			}
		})
		for i := range 100 {
			f.created("default", fmt.Sprint("c", i))
		}
		enginetest.Pass(20 * time.Second)
		described := map[string]bool{}
		for _, s := range enginetest.Of[signal.ContainerSeen](r.Taken()) {
			described[s.Container.ID] = described[s.Container.ID] || s.LimitBytes != nil
		}
		if len(described) != 100 || f.most != maxGets {
			t.Errorf("%d described, %d at once", len(described), f.most)
		}
	})
}

// TestSource_StreamEnds: a silent engine is noticed by a ping, and one that
// closes its stream at once.
func TestSource_StreamEnds(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		r := follow(t, f, Options{})
		enginetest.Settle()
		r.Taken()
		f.change(func() {
			f.hang = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
		})
		enginetest.Pass(21 * time.Second)
		if st := enginetest.LastState(r.Taken()); st.Up || !strings.Contains(st.Reason, "ping: no answer") {
			t.Errorf("state %+v", st)
		}
	})
}

func TestSource_Garbage(t *testing.T) {
	for name, play := range map[string]func(c net.Conn){
		"another protocol": func(c net.Conn) { _, _ = c.Write([]byte("SSH-2.0-x\r\n\x00\xff nonsense of any length at all")) },
		"silence": func(c net.Conn) {
			buf := make([]byte, 1024)
			for {
				if _, err := c.Read(buf); err != nil {
					return
				}
			}
		},
		"hangs up": func(c net.Conn) { _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fake) {
				f.Play(play)
				r := follow(t, f, Options{})
				enginetest.Pass(25 * time.Second)
				if st := enginetest.LastState(r.Taken()); st.Up || !strings.HasPrefix(st.Reason, "/fake.sock: ask for its version: ") || len(st.Reason) > engines.MaxReason {
					t.Errorf("state %+v", st)
				}
				f.Play(nil)
				f.CutOff()
				enginetest.Pass(90 * time.Second)
				if st := enginetest.LastState(r.Taken()); !st.Up {
					t.Errorf("afterwards %+v", st)
				}
			})
		})
	}
}

// TestSource_GarbageEvents: what no event is made of is counted, and costs
// nothing else.
func TestSource_GarbageEvents(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("default", "a", 12)
		r := follow(t, f, Options{})
		enginetest.Settle()
		r.Taken()
		f.send(&types.Envelope{})
		f.send(&types.Envelope{Namespace: "default", Event: &anypb.Any{TypeUrl: "containerd.events.TaskExit", Value: []byte("\xff\xff\xff")}})
		f.send(envelope("../x", &eventsapi.TaskOOM{ContainerID: "a"}, time.Now()))
		f.send(envelope("default", &eventsapi.TaskOOM{ContainerID: strings.Repeat("a", 200)}, time.Now()))
		f.send(envelope("default", &eventsapi.TaskExit{ContainerID: "a", ID: "a", Pid: 12, ExitStatus: 1<<32 - 1, ExitedAt: &timestamppb.Timestamp{Seconds: 1 << 60}}, time.Unix(1<<40, 0)))
		enginetest.Pass(15 * time.Second)
		said := r.Taken()
		var lost uint64
		for _, l := range enginetest.Of[signal.Lost](said) {
			lost += l.Count
			if !l.Other {
				t.Errorf("%+v", l)
			}
		}
		if lost != 3 {
			t.Errorf("%d lost", lost)
		}
		if x := enginetest.Of[signal.ContainerExit](said); len(x) != 1 || x[0].Code != nil || !x[0].Finished.IsZero() {
			t.Errorf("exits %+v", x)
		}
		if len(enginetest.Of[signal.SourceState](said)) != 0 {
			t.Error("the connection was given up")
		}
	})
}

// TestSource_TooLarge: an answer beyond its bound is given up, others go on.
func TestSource_TooLarge(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.create("default", "a", map[string]string{"x": strings.Repeat("x", maxAnswer)})
		r := follow(t, f, Options{})
		enginetest.Pass(5 * time.Second)
		if st := enginetest.LastState(r.Taken()); st.Up || !strings.Contains(st.Reason, "larger than max") {
			t.Errorf("state %+v", st)
		}
	})
}

// TestSource_HostileLabels: text that is not UTF-8, and much of it, spoils no list.
func TestSource_HostileLabels(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.create("default", "a", map[string]string{"io.kubernetes.x": "a" + enginetest.InvalidUTF8 + "\"\nb", "io.kubernetes.big": strings.Repeat("x", 64<<10), "nerdctl/name": "n" + enginetest.InvalidUTF8})
		f.create("default", "b", nil)
		r := follow(t, f, Options{})
		enginetest.Pass(15 * time.Second)
		said := r.Taken()
		if st := enginetest.LastState(said); !st.Up {
			t.Errorf("state %+v", st)
		}
		seen := map[string]signal.ContainerSeen{}
		for _, s := range enginetest.Of[signal.ContainerSeen](said) {
			seen[s.Container.ID] = s
		}
		a := seen["a"].Container
		if a.Labels["io.kubernetes.x"] != "a?I?ID8\"\nb" || len(a.Labels["io.kubernetes.big"]) != engines.MaxLabelValue || a.Name != "n?I?ID8" || seen["b"].Container.Name != "b" {
			t.Errorf("seen %+v", seen)
		}
		if lost := enginetest.Of[signal.Lost](said); len(lost) != 1 || lost[0].Count != 1 {
			t.Errorf("lost %+v", lost)
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

// TestSource_NotContainerd: another program that speaks gRPC is named as such.
func TestSource_NotContainerd(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.change(func() {
			f.hang = func(context.Context, string) error { return status.Error(codes.Unimplemented, "unknown service") }
		})
		r := follow(t, f, Options{})
		enginetest.Settle()
		if st := enginetest.LastState(r.Taken()); st.Up || !strings.Contains(st.Reason, "unknown service") {
			t.Errorf("state %+v", st)
		}
	})
}
