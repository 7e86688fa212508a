// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// maxLag is how late the tracepoint may tell before it counts as behind.
const maxLag = time.Second

// lag is how far the tracepoint is behind the kernel, on a machine or in a
// cgroup that gives the agent too little CPU: it tells each kill for certain,
// so what others tell meanwhile is not decided before it has caught up.
type lag struct {
	told time.Time // the kernel's time of what it told last, while it is behind
	at   time.Time // when it told that
}

// heard takes what the tracepoint says. Of signals that processes send each
// other anybody can make as many as he likes: they may come late.
func (l *lag) heard(s signal.Signal, now time.Time) {
	if b, other := s.Body.(signal.Kill); other && b.Signal != sigkill || s.Source != death.SourceTracepoint || s.Time.IsZero() {
		return
	}
	if l.told = s.Time; now.Sub(s.Time) < maxLag {
		l.told = time.Time{}
	}
	l.at = now
}

// behind tells whether the tracepoint may still tell of a kill then. It has
// caught up when it has said nothing for a while.
func (l *lag) behind(now, then time.Time) bool {
	return !l.told.IsZero() && now.Sub(l.at) < 2*maxLag && !then.Before(l.told)
}

// cut gives then, or up to when the tracepoint has told of all kills.
func (l *lag) cut(now, then time.Time) time.Time {
	if l.behind(now, then) {
		return l.told
	}
	return then
}
