// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"time"

	"github.com/moby/moby/api/types/events"
)

// startLooks are how long after a container was made, and then after each look,
// it is looked at again while it has not run: Docker (20.10 and later) tells
// no event of a start that fails, but where the container leaves its network. One that starts at once is not looked at. The
// waits are shorter than sources may differ in when a container ended.
var startLooks = [...]time.Duration{
	300 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second,
	20 * time.Second, 20 * time.Second, 20 * time.Second,
}

// maxStarts bounds the containers that are looked at.
const maxStarts = 1024

// starts are the containers that were made and have not run yet. Those that
// wait equally long stand in one line, the first to be looked at first.
type starts struct {
	lines [len(startLooks)][]look
	n     int
	timer *time.Timer
	at    time.Time // for which the timer is set; zero: it is not
}

type look struct {
	id  string
	due time.Time
}

func newStarts() starts {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return starts{timer: t}
}

// await has a container looked at for the nth time, and tells whether there
// was room for it.
func (s *starts) await(id string, nth int, now time.Time) bool {
	if s.n >= maxStarts {
		return false
	}
	s.n++
	s.lines[nth] = append(s.lines[nth], look{id, now.Add(startLooks[nth])})
	s.set(now)
	return true
}

// set sets the timer for the next look.
func (s *starts) set(now time.Time) {
	for _, line := range s.lines {
		if len(line) > 0 && (s.at.IsZero() || line[0].due.Before(s.at)) {
			s.at = line[0].due
			s.timer.Reset(s.at.Sub(now))
		}
	}
}

// look gives those whose time has come. Those of which again is true are
// looked at once more, later.
func (s *starts) look(now time.Time, again func(id string) bool) {
	s.at = time.Time{}
	for nth := len(s.lines) - 1; nth >= 0; nth-- {
		for len(s.lines[nth]) > 0 && !s.lines[nth][0].due.After(now) {
			id := s.lines[nth][0].id
			s.lines[nth] = s.lines[nth][1:]
			s.n--
			if again(id) && nth+1 < len(s.lines) {
				s.await(id, nth+1, now)
			}
		}
	}
	s.set(now)
}

// awaitStart has a container that was made looked at until it has run.
func (s *session) awaitStart(id string) {
	if !s.starts.await(id, 0, time.Now().UTC()) {
		s.table.lost(1, "too many containers that have not run")
	}
}

// lookForStarts asks about those that should have run by now.
func (s *session) lookForStarts() {
	s.starts.look(time.Now().UTC(), func(id string) bool {
		b := s.table.boxes[id]
		if b == nil || !b.waits() {
			return false
		}
		s.want(job{id: id, unstarted: true})
		return true
	})
}

// waits tells whether a container was made and has not run since.
func (b *box) waits() bool { return !b.running && b.exitAt.IsZero() && b.state == stateCreated }

// neverRan tells of a start that failed. When that was is not told: it is known
// by when it was seen, and of a time when nobody looked, by when the container
// was made.
func (t *table) neverRan(b *box, in inspected, now time.Time) {
	if !in.neverRan || !b.exitAt.IsZero() {
		return
	}
	at, recovered := now, false
	if in.made.Before(t.began) {
		if !in.made.After(t.since) {
			return
		}
		at, recovered = in.made, !t.since.IsZero()
	}
	b.ended(at)
	t.tell(at, recovered, *in.exit)
}

// attrContainer is whom an event of a network is about.
const attrContainer = "container"

// disconnected takes that a container leaves its network. One that has not run
// does when its start has failed: Docker notes why, gives back what the container
// had, and then removes it if it was made so (docker run --rm). It answers who asks
// in between, if late: it is busy with that container (daemon/start.go of Docker).
func (t *table) disconnected(m events.Message) {
	id := m.Actor.Attributes[attrContainer]
	if b := t.boxes[id]; b != nil && b.waits() && t.want(job{id: id, unstarted: true, failing: true}) {
		b.failing = true
	}
}

// destroyed takes the removal of a container, whose failed start is told first.
func (t *table) destroyed(id string, at time.Time) {
	if b := t.boxes[id]; b != nil && b.failing {
		b.goneAt = at
		return
	}
	t.drop(id, at)
}

// explained notes that there is an answer of why a start failed, or none.
func (t *table) explained(j job) {
	b := t.boxes[j.id]
	if b == nil || !j.failing {
		return
	}
	if b.failing = false; !b.goneAt.IsZero() {
		t.drop(j.id, b.goneAt)
	}
}
