// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"time"

	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/signal"
)

// found is one row of a list, as it was read.
type found struct {
	described
	lives  string     // where its first process lives; empty: not known
	task   *taskState // nil: it has none
	silent bool       // what tasks there are was not told
	err    error
}

// listing begins a list that is asked for now.
func (t *table) listing() { t.fresh, t.listed = map[string]fresh{}, map[string]bool{} }

// row takes one container of the list.
func (t *table) row(f found, now time.Time) {
	if f.err != nil {
		t.lost(1, "rows of a list with "+f.err.Error())
		return
	}
	namespace, id := f.seen.Namespace, f.seen.Container.ID
	key := engines.Key(namespace, id)
	known := t.fresh[key]
	if t.listed[key] || known.container {
		return
	}
	if len(t.listed) < maxContainers {
		t.listed[key] = true
	}
	b := t.box(namespace, id)
	t.describe(b, &f.described, f.lives, now)
	if !known.task && !f.silent {
		t.standing(key, b, f.task, now)
	}
}

// standing takes what a list says of a container's task.
func (t *table) standing(key string, b *box, s *taskState, now time.Time) {
	switch {
	case s == nil:
		if b.running {
			t.ended(key, b, signal.ContainerExit{PID: b.pid, Started: b.started}, now, t.away())
		}
	case s.stopped:
		t.stopped(key, b, s, now)
	default:
		if b.running && b.pid == s.pid {
			return
		}
		t.begin(key, b, s.pid, now)
		seen := b.seen()
		seen.State, seen.PID = s.state, s.pid
		t.tell(now, false, seen)
	}
}

// stopped takes a task that has ended. If nobody saw that happen, and nobody
// listened then, it is told.
func (t *table) stopped(key string, b *box, s *taskState, now time.Time) {
	if t.told(key, s.pid) == nil && !b.running && !s.finished.After(t.horizon()) {
		if !b.over {
			b.over = true
			seen := b.seen()
			seen.State = s.state
			t.tell(now, false, seen)
		}
		return
	}
	if b.running && b.pid != s.pid && b.pid != 0 {
		t.ended(key, b, signal.ContainerExit{PID: b.pid, Started: b.started}, now, t.away())
	}
	at, recovered := s.finished, t.before(s.finished)
	if at.IsZero() || at.After(now) {
		at, recovered = now, t.away()
	}
	x := signal.ContainerExit{Code: s.code, PID: s.pid, Finished: s.finished}
	if b.pid == s.pid {
		x.Started = b.started
	}
	t.ended(key, b, x, at, recovered)
}

// horizon is from when on an end is one that nobody told yet.
func (t *table) horizon() time.Time {
	if t.since.IsZero() {
		return t.began
	}
	return t.since
}

// listedAll ends the list. What it did not have is gone, if it is whole.
func (t *table) listedAll(whole bool, now time.Time) {
	for key, b := range t.boxes {
		if !whole || t.listed[key] || t.fresh[key] != (fresh{}) || !b.goneAt.IsZero() {
			continue
		}
		t.drop(key, b, now)
	}
	t.fresh, t.listed, t.lists = nil, nil, t.lists+1
}
