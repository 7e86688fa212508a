// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/signal"
)

// The kinds of events, in short.
const (
	evCreated = runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT
	evStarted = runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT
	evStopped = runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT
	evDeleted = runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT
)

// telling is a bubble with a runtime that has events.
func telling(t *testing.T, test func(t *testing.T, f *fake, r *enginetest.Recorder)) {
	t.Helper()
	bubble(t, func(t *testing.T, f *fake) {
		f.name, f.version, f.tells = "cri-o", "1.30.2", true
		r := follow(t, f, Options{})
		enginetest.Pass(10*time.Minute + 10*time.Second) // lists are far apart by now
		if st := enginetest.LastState(r.Taken()); st != (signal.SourceState{Up: true, Mode: "cri-o 1.30.2, events"}) {
			t.Errorf("state %+v", st)
		}
		f.change(func() { clear(f.asked) })
		test(t, f, r)
	})
}

// TestEvents_Life: what events tell is told at once.
func TestEvents_Life(t *testing.T) {
	telling(t, func(t *testing.T, f *fake, r *enginetest.Recorder) {
		f.podRuns("p1", "web")
		f.event("p1", evStarted)
		f.runs("a", "p1", 12)
		f.change(func() { f.boxes["a"].State = runtimeapi.ContainerState_CONTAINER_CREATED })
		f.event("a", evCreated)
		enginetest.Settle()
		f.change(func() { f.boxes["a"].State = runtimeapi.ContainerState_CONTAINER_RUNNING })
		f.event("a", evStarted)
		enginetest.Settle()
		var got []string
		for _, s := range enginetest.Of[signal.ContainerSeen](r.Taken()) {
			pod := ""
			if s.Container.Pod != nil {
				pod = s.Container.Pod.Name
			}
			got = append(got, fmt.Sprintf("%s %s %s %s %d", s.Container.ID, s.Container.Name, s.State, pod, s.PID))
		}
		want := []string{"p1  running web 0", "a name-a created web 0", "p1  running web 9001", "a  running  0", "a name-a running web 12"}
		if len(got) == len(want) && got[1] != want[1] {
			got[1], got[2] = got[2], got[1]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("seen (-want +got):\n%s", diff)
		}
		at := f.ended("a", 137, "OOMKilled")
		f.event("a", evStopped)
		enginetest.Settle()
		said := r.Taken()
		if diff := cmp.Diff([]string{"a 137 OOMKilled pid 12 recovered false"}, exits(said)); diff != "" || !said[0].Time.Equal(at) {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
		f.removed("a")
		f.event("a", evDeleted)
		f.removed("p1")
		f.event("p1", evDeleted)
		enginetest.Settle()
		if gone := enginetest.Of[signal.ContainerGone](r.Taken()); len(gone) != 2 || gone[0].ID != "a" || gone[1].ID != "p1" {
			t.Errorf("gone %+v", gone)
		}
		if n := f.count("ListContainers", ""); n != 0 {
			t.Errorf("%d lists", n)
		}
		enginetest.Pass(5 * time.Minute)
		if said := r.Taken(); len(said) != 0 {
			t.Errorf("said later: %+v", said)
		}
	})
}

// TestEvents_OfWhomNobodyKnows: an event that names nobody makes a list, and
// one that says nothing of an end a question.
func TestEvents_OfWhomNobodyKnows(t *testing.T) {
	telling(t, func(t *testing.T, f *fake, r *enginetest.Recorder) {
		f.runs("a", "", 12)
		f.change(func() {
			f.send(&runtimeapi.ContainerEventResponse{ContainerId: "a", ContainerEventType: evStarted})
			f.send(&runtimeapi.ContainerEventResponse{ContainerId: "../a", ContainerEventType: evStarted})
			f.send(&runtimeapi.ContainerEventResponse{ContainerId: "b", ContainerEventType: 99})
		})
		enginetest.Pass(2 * paceFirst) // what was skipped is told with the next list
		said := r.Taken()
		if seen := enginetest.Of[signal.ContainerSeen](said); len(seen) != 2 || seen[1].PID != 12 {
			t.Errorf("seen %+v", seen)
		}
		if l := enginetest.Of[signal.Lost](said); len(l) != 1 || l[0].Count != 1 {
			t.Errorf("lost %+v", l)
		}
		f.ended("a", 5, "Error")
		f.change(func() { f.send(&runtimeapi.ContainerEventResponse{ContainerId: "a", ContainerEventType: evStopped}) })
		enginetest.Settle()
		if diff := cmp.Diff([]string{"a 5 Error pid 12 recovered false"}, exits(r.Taken())); diff != "" {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
	})
}

// TestEvents_Storm: events of nobody do not make lists without end.
func TestEvents_Storm(t *testing.T) {
	telling(t, func(t *testing.T, f *fake, r *enginetest.Recorder) {
		for range 1000 {
			f.change(func() { f.send(&runtimeapi.ContainerEventResponse{ContainerId: "b", ContainerEventType: evStarted}) })
			enginetest.Pass(10 * time.Millisecond)
		}
		if n := f.count("ListContainers", ""); n < 9 || n > 12 {
			t.Errorf("%d lists in ten seconds", n)
		}
	})
}

// TestEvents_ListIsOlder: what an event said while a list was under way stands
// against the list.
func TestEvents_ListIsOlder(t *testing.T) {
	telling(t, func(t *testing.T, f *fake, r *enginetest.Recorder) {
		for i, id := range []string{"a", "b"} {
			f.runs(id, "", 12+i)
			f.event(id, evStarted)
		}
		f.runs("d", "", 16)
		f.change(func() { f.boxes["d"].State = runtimeapi.ContainerState_CONTAINER_CREATED })
		f.event("d", evCreated)
		enginetest.Settle()
		r.Taken()
		f.beforeEach(func(_ context.Context, method, _ string) error {
			if method == "ListContainers" { // its rows are those of before
				f.beforeEach(nil)
				f.ended("a", 1, "Error")
				f.event("a", evStopped)
				f.removed("b")
				f.event("b", evDeleted)
				f.runs("c", "", 15)
				f.event("c", evStarted)
				f.change(func() { f.boxes["d"].State = runtimeapi.ContainerState_CONTAINER_RUNNING })
				f.event("d", evStarted)
				<-time.After(time.Second)
			}
			return nil
		})
		enginetest.Pass(2 * time.Minute)
		said := r.Taken()
		if diff := cmp.Diff([]string{"a 1 Error pid 12 recovered false"}, exits(said)); diff != "" {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
		if gone := enginetest.Of[signal.ContainerGone](said); len(gone) != 1 || gone[0].ID != "b" {
			t.Errorf("gone %+v", gone)
		}
		for _, s := range enginetest.Of[signal.ContainerSeen](said) {
			if s.Container.ID != "c" && (s.Container.ID != "d" || s.State != "running") {
				t.Errorf("seen %+v", s)
			}
		}
	})
}

// TestEvents_WhileListing: an event that says too little, while a list is under
// way, makes another list soon.
func TestEvents_WhileListing(t *testing.T) {
	telling(t, func(t *testing.T, f *fake, r *enginetest.Recorder) {
		listed := make(chan struct{})
		f.beforeEach(func(_ context.Context, method, _ string) error {
			if method == "ListContainers" {
				f.beforeEach(nil)
				f.runs("a", "", 12)
				f.change(func() { f.send(&runtimeapi.ContainerEventResponse{ContainerId: "a", ContainerEventType: evStarted}) })
				<-time.After(10 * time.Millisecond)
				close(listed)
			}
			return nil
		})
		<-listed
		r.Taken()
		enginetest.Pass(paceFirst + 200*time.Millisecond)
		if seen := enginetest.Of[signal.ContainerSeen](r.Taken()); len(seen) != 2 || seen[1].PID != 12 {
			t.Errorf("seen %+v", seen)
		}
	})
}

// TestEvents_OfARemovedPod: the last event of a container does not bring back
// its pod.
func TestEvents_OfARemovedPod(t *testing.T) {
	telling(t, func(t *testing.T, f *fake, r *enginetest.Recorder) {
		f.podRuns("p", "web")
		f.runs("a", "p", 12)
		f.event("a", evStarted)
		enginetest.Settle()
		f.event("p", evDeleted)
		enginetest.Settle()
		r.Taken()
		f.event("a", evDeleted)
		f.event("a", evStarted)
		enginetest.Settle()
		for _, s := range enginetest.Of[signal.ContainerSeen](r.Taken()) {
			if s.Sandbox {
				t.Errorf("seen %+v", s)
			}
		}
	})
}

// TestEvents_LostOnes: what no event tells, a list does.
func TestEvents_LostOnes(t *testing.T) {
	telling(t, func(t *testing.T, f *fake, r *enginetest.Recorder) {
		f.runs("a", "", 12)
		enginetest.Pass(paceEvents)
		f.ended("a", 1, "Error")
		enginetest.Pass(paceEvents)
		if diff := cmp.Diff([]string{"a 1 Error pid 12 recovered false"}, exits(r.Taken())); diff != "" {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
	})
}

// TestEvents_Held: containerd gives events of before to the first who asks.
func TestEvents_Held(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.name, f.version, f.tells = "containerd", "v2.1.0", true
		f.runs("a", "", 12)
		at := f.ended("a", 1, "Error")
		enginetest.Pass(time.Minute)
		f.beforeEach(func(_ context.Context, method, _ string) error {
			if method == "ListContainers" {
				<-time.After(time.Second)
			}
			return nil
		})
		r := follow(t, f, Options{})
		enginetest.Settle()
		f.event("a", evStopped)
		enginetest.Pass(10 * time.Second)
		said := r.Taken()
		if diff := cmp.Diff([]string{"a 1 Error pid 0 recovered true"}, exits(said)); diff != "" {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
		for _, s := range said {
			if _, ok := s.Body.(signal.ContainerExit); ok && !s.Time.Equal(at) {
				t.Errorf("at %v, want %v", s.Time, at)
			}
		}
	})
}

// TestEvents_End: where there are none, or no more, lists come as often as
// without.
func TestEvents_End(t *testing.T) {
	for name, before := range map[string]func(context.Context, string, string) error{
		"not told to": nil,
		"unknown": func(_ context.Context, method, _ string) error {
			if method == "GetContainerEvents" {
				return status.Error(codes.Unimplemented, "unknown method")
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fake) {
				f.name, f.version, f.before = "cri-o", "1.30.2", before
				f.runs("a", "", 12)
				r := follow(t, f, Options{})
				enginetest.Pass(2 * paceFirst)
				if st := enginetest.LastState(r.Taken()); !st.Up || !strings.HasSuffix(st.Mode, ", lists") {
					t.Errorf("state %+v", st)
				}
				enginetest.Pass(time.Minute)
				f.ended("a", 1, "Error")
				enginetest.Pass(paceLast)
				if diff := cmp.Diff([]string{"a 1 Error pid 12 recovered false"}, exits(r.Taken())); diff != "" {
					t.Errorf("exits (-want +got):\n%s", diff)
				}
				if n := f.count("GetContainerEvents", ""); n != 1 {
					t.Errorf("asked %d times", n)
				}
			})
		})
	}
}

// TestEvents_NotShared: a runtime that would take them from the kubelet is not
// asked.
func TestEvents_NotShared(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.version, f.tells = "1.7.27", true
		r := follow(t, f, Options{})
		enginetest.Pass(time.Minute)
		if st := enginetest.LastState(r.Taken()); !st.Up || f.count("GetContainerEvents", "") != 0 {
			t.Errorf("state %+v", st)
		}
	})
}

func TestSharesEvents(t *testing.T) {
	for _, tt := range []struct {
		name, version string
		want          bool
	}{
		{"containerd", "1.6.20~ds1", false}, {"containerd", "v1.7.27", false}, {"containerd", "2.0.0-rc.1", true}, {"containerd", "v2.1.4-k3s1", true},
		{"containerd", "3.0", true}, {"containerd", "", false}, {"containerd", "two.0", false}, {"cri-o", "1.27.9", false}, {"cri-o", "1.28.0", true},
		{"cri-o", "1.34.1", true}, {"cri-o", "2.0.0", true}, {"docker", "28.0.1", false}, {"", "9.9", false},
	} {
		if got := (identity{tt.name, tt.version}).sharesEvents(); got != tt.want {
			t.Errorf("%s %s: %v", tt.name, tt.version, got)
		}
	}
}
