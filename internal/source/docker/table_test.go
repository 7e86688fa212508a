// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/coroner-dev/coroner/internal/signal"
)

// TestTable_AnswerBeforeEvent: an end that an answer told first is not told
// again by its event; the end of the next run is.
func TestTable_AnswerBeforeEvent(t *testing.T) {
	var exits []signal.ContainerExit
	tb := newTable()
	tb.tell = func(_ time.Time, _ bool, b signal.Body) {
		if e, ok := b.(signal.ContainerExit); ok {
			exits = append(exits, e)
		}
	}
	tb.lost, tb.want, tb.own = func(int, string) {}, func(job) bool { return true }, func(string, bool) {}
	at := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	tb.connect(dockerReader(), at.Add(-time.Minute), at)
	ended := container.InspectResponse{ID: "a", State: &container.State{
		Status: "exited", ExitCode: 137, StartedAt: at.Add(-time.Hour).Format(time.RFC3339Nano), FinishedAt: at.Add(-time.Second).Format(time.RFC3339Nano),
	}}
	event := func(action events.Action, after time.Duration) {
		tb.event(events.Message{
			Type: "container", Action: action, TimeNano: at.Add(after).UnixNano(),
			Actor: events.Actor{ID: "a", Attributes: map[string]string{"exitCode": "137"}},
		}, at.Add(time.Hour))
	}
	tb.merge([]container.Summary{{ID: "a", State: "exited"}}, at)
	tb.inspected(job{id: "a", again: true}, ended, at)
	event(events.ActionDie, -time.Second+30*time.Millisecond)
	if len(exits) != 1 {
		t.Errorf("%d exits, want 1", len(exits))
	}
	event(events.ActionStart, time.Second)
	event(events.ActionDie, 2*time.Second)
	if len(exits) != 2 {
		t.Errorf("%d exits, want 2", len(exits))
	}
}

// TestTable_AnswerBeforeOldEvents: after a gap the answer that a container runs
// again can come before the old events of its end and its start. They are of the
// run that ended.
func TestTable_AnswerBeforeOldEvents(t *testing.T) {
	type exit struct {
		at        time.Duration
		pid, code int
	}
	var exits []exit
	at := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	tb := newTable()
	tb.tell = func(when time.Time, _ bool, b signal.Body) {
		if e, ok := b.(signal.ContainerExit); ok {
			x := exit{at: when.Sub(at), pid: e.PID, code: -1}
			if e.Code != nil {
				x.code = *e.Code
			}
			exits = append(exits, x)
		}
	}
	tb.lost, tb.want, tb.own = func(int, string) {}, func(job) bool { return true }, func(string, bool) {}
	answer := func(pid int, started, finished time.Duration) container.InspectResponse {
		return container.InspectResponse{ID: "a", State: &container.State{
			Status: "running", Pid: pid, StartedAt: at.Add(started).Format(time.RFC3339Nano), FinishedAt: at.Add(finished).Format(time.RFC3339Nano),
		}}
	}
	event := func(action events.Action, when time.Duration) {
		tb.event(events.Message{
			Type: "container", Action: action, TimeNano: at.Add(when).UnixNano(),
			Actor: events.Actor{ID: "a", Attributes: map[string]string{"exitCode": "137"}},
		}, at.Add(time.Hour))
	}
	rows := []container.Summary{{ID: "a", State: "running"}}
	tb.connect(dockerReader(), time.Time{}, at.Add(-time.Hour))
	tb.merge(rows, at.Add(-time.Hour))
	tb.inspected(job{id: "a"}, answer(14, -2*time.Hour, -3*time.Hour), at.Add(-time.Hour))

	tb.connect(dockerReader(), at.Add(-time.Minute), at)
	tb.merge(rows, at)
	tb.inspected(job{id: "a", again: true}, answer(22, -10*time.Second, -20*time.Second), at)
	event(events.ActionDie, -30*time.Second) // an earlier one
	event(events.ActionDie, -20*time.Second+30*time.Millisecond)
	event(events.ActionDie, time.Second)
	want := []exit{{-20 * time.Second, 14, -1}, {-30 * time.Second, 0, 137}, {-20 * time.Second, 14, 137}, {time.Second, 22, 137}}
	if !slices.Equal(exits, want) {
		t.Errorf("exits %+v, want %+v", exits, want)
	}
}

// TestTable_IsBounded: more containers than are remembered are still told of.
func TestTable_IsBounded(t *testing.T) {
	seen, lost := 0, 0
	tb := newTable()
	tb.tell = func(time.Time, bool, signal.Body) { seen++ }
	tb.lost = func(n int, _ string) { lost += n }
	tb.want, tb.own = func(job) bool { return true }, func(string, bool) {}
	at := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	tb.connect(dockerReader(), time.Time{}, at)
	for i := range maxContainers + 10 {
		tb.event(events.Message{
			Type: "container", Action: events.ActionCreate, TimeNano: at.UnixNano(),
			Actor: events.Actor{ID: "c" + strconv.Itoa(i)},
		}, at)
	}
	if seen != maxContainers+10 || lost != 10 || len(tb.boxes) != maxContainers {
		t.Errorf("%d told, %d lost, %d remembered", seen, lost, len(tb.boxes))
	}
}
