// SPDX-License-Identifier: Apache-2.0

package docker

import (
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
