// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/coroner-dev/coroner/internal/signal"
)

// toldEnd is an end as a table tells it, at a time since its player's.
type toldEnd struct {
	at        time.Duration
	pid, code int
}

// player plays what an engine tells of container "a" to a table.
type player struct {
	*table
	at   time.Time
	ends []toldEnd
}

func newPlayer() *player {
	p := &player{table: newTable(), at: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)}
	p.tell = func(when time.Time, _ bool, b signal.Body) {
		if e, ok := b.(signal.ContainerExit); ok {
			x := toldEnd{at: when.Sub(p.at), pid: e.PID, code: -1}
			if e.Code != nil {
				x.code = *e.Code
			}
			p.ends = append(p.ends, x)
		}
	}
	p.lost, p.want, p.own = func(int, string) {}, func(job) bool { return true }, func(string, bool) {}
	return p
}

// list is a connection and its list; of the first, alive is 0.
func (p *player) list(alive, now time.Duration) {
	since := time.Time{}
	if alive != 0 {
		since = p.at.Add(alive)
	}
	p.connect(dockerReader(), since, p.at.Add(now))
	p.merge([]container.Summary{{ID: "a", State: "running"}}, p.at.Add(now))
}

// answers has j answered: it runs, with this pid, since then; the run before
// ended then.
func (p *player) answers(j job, now time.Duration, pid int, started, finished time.Duration) {
	j.id = "a"
	p.inspected(j, container.InspectResponse{ID: "a", State: &container.State{
		Status: "running", Pid: pid, StartedAt: p.at.Add(started).Format(time.RFC3339Nano), FinishedAt: p.at.Add(finished).Format(time.RFC3339Nano),
	}}, p.at.Add(now))
}

// says is an event of that time, taken then.
func (p *player) says(action events.Action, when, now time.Duration, code string) {
	m := events.Message{Type: "container", Action: action, TimeNano: p.at.Add(when).UnixNano(), Actor: events.Actor{ID: "a"}}
	if code != "" {
		m.Actor.Attributes = map[string]string{"exitCode": code}
	}
	p.event(m, p.at.Add(now))
}

func (p *player) wants(t *testing.T, want ...toldEnd) {
	t.Helper()
	if !slices.Equal(p.ends, want) {
		t.Errorf("ends %+v, want %+v", p.ends, want)
	}
}

const second = time.Second

// TestTable_AnswerOfTheRunAfter: of a container that ends again within seconds,
// the answer to its start can be of the run after that: the end between is none
// that was told.
func TestTable_AnswerOfTheRunAfter(t *testing.T) {
	p := newPlayer()
	p.list(0, -3600*second)
	p.answers(job{}, -3600*second, 11, -7200*second, -7300*second)
	p.says(events.ActionDie, 0, 0, "1")
	p.says(events.ActionStart, 200*time.Millisecond, 200*time.Millisecond, "")
	p.answers(job{events: 2}, 2*second, 13, 1500*time.Millisecond, second)
	p.says(events.ActionDie, second, 2*second, "2")
	p.says(events.ActionStart, 1500*time.Millisecond, 2*second, "")
	p.wants(t, toldEnd{0, 11, 1}, toldEnd{second, 0, 2})
}

// TestTable_EndsSoonAfterAnAnswer: an engine that was made anew remembers no event
// of the end that its answer told. The next within seconds is of the run that it
// said runs.
func TestTable_EndsSoonAfterAnAnswer(t *testing.T) {
	p := newPlayer()
	p.list(0, -3600*second)
	p.answers(job{}, -3600*second, 11, -7200*second, -7300*second)
	p.list(-60*second, 0)
	p.answers(job{again: true}, 0, 12, -second, -2*second)
	p.says(events.ActionDie, second, second, "2")
	p.wants(t, toldEnd{-2 * second, 11, -1}, toldEnd{second, 12, 2})
}

// TestTable_EndOfAnOlderRun: an end that is told by its event, after an answer
// that told of the run after it, is not told again with the start of that.
func TestTable_EndOfAnOlderRun(t *testing.T) {
	p := newPlayer()
	p.list(0, -3600*second)
	p.answers(job{}, -3600*second, 11, -7200*second, -7300*second)
	p.list(-60*second, 0)
	p.says(events.ActionUpdate, -30*second, 0, "")
	p.answers(job{events: 1}, 0, 12, -10*second, -20*second)
	p.says(events.ActionDie, -20*second, 0, "2")
	p.says(events.ActionStart, -10*second, 0, "")
	p.answers(job{restarted: true, pid: 12, started: p.at.Add(-10 * second), events: 3}, second, 12, -10*second, -20*second)
	p.wants(t, toldEnd{-20 * second, 0, 2})
}

// TestTable_OldStartAndAnEvent: what came of a container since it was asked about
// does not make two of an end that the answer told first.
func TestTable_OldStartAndAnEvent(t *testing.T) {
	p := newPlayer()
	p.list(0, -3600*second)
	p.answers(job{}, -3600*second, 11, -7200*second, -7300*second)
	p.says(events.ActionDie, -100*second, -100*second, "1")
	p.list(-60*second, 0)
	p.says(events.ActionStart, -30*second, 0, "")
	p.says(events.ActionKill, -21*second, 0, "")
	p.answers(job{restarted: true, events: 2}, 0, 13, -10*second, -20*second)
	p.says(events.ActionDie, -20*second+time.Millisecond, 0, "2")
	p.says(events.ActionStart, -10*second, 0, "")
	p.wants(t, toldEnd{-100 * second, 11, 1}, toldEnd{-20 * second, 0, -1}, toldEnd{-20 * second, 0, 2})
}

// TestTable_ClockSetBack: a container whose run began, or that ended last, at a
// time that the clock has yet to come to again is told of as any other.
func TestTable_ClockSetBack(t *testing.T) {
	p := newPlayer()
	p.list(0, 0)
	p.answers(job{}, 0, 11, -second, -60*second)
	asked := 0
	p.table.want = func(job) bool { asked++; return true }
	back := -3600 * second
	p.says(events.ActionDie, back, back, "1")
	p.says(events.ActionStart, back+second, back+second, "")
	p.wants(t, toldEnd{back, 11, 1})
	if asked != 2 {
		t.Errorf("asked about %d times, want of the end and of the start", asked)
	}
	p.answers(job{events: 2}, back+second, 12, back+second, back)
	p.says(events.ActionDie, 0, 0, "2")
	p.says(events.ActionStart, back+2*second, back+2*second, "") // set back again
	p.says(events.ActionDie, back+3*second, back+3*second, "3")
	p.wants(t, toldEnd{back, 11, 1}, toldEnd{0, 12, 2}, toldEnd{back + 3*second, 0, 3})
	if asked != 5 {
		t.Errorf("asked about %d times, want of each end and of each start", asked)
	}
}
