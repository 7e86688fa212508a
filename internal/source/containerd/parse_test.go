// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	eventsapi "github.com/containerd/containerd/api/events"
	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/signal"
)

func TestEvent(t *testing.T) {
	at := time.Date(2026, 11, 22, 9, 46, 52, 55858848, time.UTC)
	ended := timestamppb.New(at.Add(-time.Millisecond))
	prefixed := envelope("default", &eventsapi.TaskOOM{ContainerID: "a"}, at)
	prefixed.Event.TypeUrl = "types.containerd.io/" + prefixed.Event.TypeUrl
	for _, tc := range []struct {
		name string
		m    proto.Message
		e    *types.Envelope
		want happening
		err  error
	}{
		{name: "create", m: &eventsapi.ContainerCreate{ID: "a", Image: "i:1"}, want: happening{action: containerCreated, image: "i:1"}},
		{name: "update", m: &eventsapi.ContainerUpdate{ID: "a"}, want: happening{action: containerUpdated}},
		{name: "delete", m: &eventsapi.ContainerDelete{ID: "a"}, want: happening{action: containerDeleted}},
		{name: "task", m: &eventsapi.TaskCreate{ContainerID: "a", Pid: 7}, want: happening{action: taskCreated, pid: 7}},
		{name: "start", m: &eventsapi.TaskStart{ContainerID: "a", Pid: 7}, want: happening{action: taskStarted, pid: 7}},
		{name: "start with no pid", m: &eventsapi.TaskStart{ContainerID: "a", Pid: 1<<32 - 1}, want: happening{action: taskStarted}},
		{name: "exit", m: &eventsapi.TaskExit{ContainerID: "a", ID: "a", Pid: 7, ExitStatus: 137, ExitedAt: ended},
			want: happening{action: taskExited, pid: 7, code: new(137), finished: ended.AsTime()}},
		{name: "exit without the process", m: &eventsapi.TaskExit{ContainerID: "a", Pid: 7}, want: happening{action: taskExited, pid: 7, code: new(0)}},
		{name: "exit of an exec", m: &eventsapi.TaskExit{ContainerID: "a", ID: "probe", Pid: 8, ExitStatus: 137}, err: errIgnore},
		{name: "exit with no status", m: &eventsapi.TaskExit{ContainerID: "a", ExitStatus: 1 << 20}, want: happening{action: taskExited}},
		{name: "end of a task", m: &eventsapi.TaskDelete{ContainerID: "a", Pid: 7, ExitStatus: 1, ExitedAt: ended},
			want: happening{action: taskDeleted, pid: 7, code: new(1), finished: ended.AsTime()}},
		{name: "end of an exec's", m: &eventsapi.TaskDelete{ContainerID: "a", ID: "probe"}, err: errIgnore},
		{name: "OOM", m: &eventsapi.TaskOOM{ContainerID: "a"}, want: happening{action: taskOOM}},
		{name: "OOM, its type with a prefix", e: prefixed, want: happening{action: taskOOM}},
		{name: "paused", m: &eventsapi.TaskPaused{ContainerID: "a"}, want: happening{action: taskPaused}},
		{name: "resumed", m: &eventsapi.TaskResumed{ContainerID: "a"}, want: happening{action: taskResumed}},
		{name: "an exec begins", m: &eventsapi.TaskExecStarted{ContainerID: "a"}, err: errIgnore},
		{name: "an image", m: &eventsapi.ImageCreate{Name: "a"}, err: errIgnore},
		{name: "nothing", e: &types.Envelope{}, err: errIgnore},
		{name: "no id", m: &eventsapi.ContainerDelete{}, err: errNoID},
		{name: "id that climbs", m: &eventsapi.ContainerDelete{ID: "../a"}, err: errNoID},
		{name: "another type's content", e: &types.Envelope{Namespace: "default", Event: &anypb.Any{TypeUrl: "containerd.events.TaskOOM", Value: []byte{0xff}}}, err: errEvent},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.e == nil {
				tc.e = envelope("default", tc.m, at)
			}
			got, err := event(tc.e)
			if !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			if tc.err != nil {
				return
			}
			tc.want.namespace, tc.want.id, tc.want.at = "default", "a", at
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(happening{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestEvent_BadText: an image's name that is not UTF-8 costs no event.
func TestEvent_BadText(t *testing.T) {
	e := envelope("default", &eventsapi.ContainerCreate{ID: "a", Image: "BAD!:1"}, time.Now())
	e.Event.Value = []byte(strings.ReplaceAll(string(e.Event.Value), "BAD!", "x\xff\xfey"))
	if h, err := event(e); err != nil || h.id != "a" || h.image != "x?y:1" {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestTaskOf(t *testing.T) {
	at := timestamppb.Now()
	for s, want := range map[task.Status]taskState{
		task.Status_CREATED: {state: "created", pid: 7}, task.Status_RUNNING: {state: "running", pid: 7},
		task.Status_PAUSED: {state: "paused", pid: 7}, task.Status_PAUSING: {state: "running", pid: 7},
		task.Status_STOPPED: {state: "exited", stopped: true, pid: 7, code: new(3), finished: at.AsTime()},
		task.Status_UNKNOWN: {pid: 7}, 99: {pid: 7},
	} {
		got := taskOf(&task.Process{Pid: 7, Status: s, ExitStatus: 3, ExitedAt: at})
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(taskState{})); diff != "" {
			t.Errorf("%v (-want +got):\n%s", s, diff)
		}
	}
}

// FuzzEvent: whatever an engine sends, reading it does not panic, and what
// comes out is bounded, valid text.
func FuzzEvent(f *testing.F) {
	at := time.Date(2026, 11, 22, 9, 46, 52, 0, time.UTC)
	for _, m := range []proto.Message{
		&eventsapi.ContainerCreate{ID: "a", Image: "i"}, &eventsapi.TaskStart{ContainerID: "a", Pid: 7},
		&eventsapi.TaskExit{ContainerID: "a", ID: "b", Pid: 7, ExitStatus: 137, ExitedAt: timestamppb.New(at)}, &eventsapi.TaskOOM{ContainerID: "a"},
	} {
		b, err := proto.Marshal(envelope("default", m, at))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var e types.Envelope
		if engines.Unmarshal(b, &e) != nil {
			return
		}
		h, err := event(&e)
		if err != nil {
			return
		}
		if h.action == 0 || h.pid < 0 || h.code != nil && (*h.code < 0 || *h.code > 1<<16) {
			t.Errorf("%+v", h)
		}
		tb := newTable()
		tb.lost, tb.want, tb.own = func(int, string) {}, func(job) bool { return true }, func(string, bool) {}
		tb.tell = func(at time.Time, recovered bool, b signal.Body) {
			if _, err := json.Marshal(signal.Signal{Time: at, Body: b}); err != nil || recovered {
				t.Errorf("%+v: %v", b, err)
			}
			if s, ok := b.(signal.ContainerSeen); ok {
				withinBounds(t, s)
			}
		}
		now := time.Now()
		tb.connect(time.Time{}, now)
		tb.event(h, nil, now)
		tb.event(h, nil, now)
	})
}

// FuzzUnmarshal: text that is not UTF-8 is made so, and nothing else changes.
func FuzzUnmarshal(f *testing.F) {
	for _, label := range []string{"BAD!", "x"} {
		b, err := proto.Marshal(&containersapi.ListContainerMessage{Container: &containersapi.Container{
			ID: "a", Labels: map[string]string{label: label}, Spec: specOf("/a", 1),
		}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(strings.ReplaceAll(string(b), "BAD!", "\xff\xfe\xff\xfe")))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var plain, ours containersapi.ListContainerMessage
		plainErr, err := proto.Unmarshal(b, &plain), engines.Unmarshal(b, &ours)
		switch {
		case plainErr == nil && (err != nil || !proto.Equal(&plain, &ours)):
			t.Errorf("%v, %v, want %v", err, &ours, &plain)
		case err == nil:
			for k, v := range ours.GetContainer().GetLabels() {
				if !utf8.ValidString(k) || !utf8.ValidString(v) {
					t.Errorf("%q: %q", k, v)
				}
			}
		}
	})
}
