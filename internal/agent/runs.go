// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// maxRestarts bounds what an engine may say that it counted.
const maxRestarts = 1 << 31

// The states of a container that matter here.
const (
	stateCreated    = "created" // an engine counts a start that is to come
	stateRunning    = "running"
	statePaused     = "paused"
	stateRestarting = "restarting" // it waits to be started again
	stateExited     = "exited"
	stateDead       = "dead"
)

// life is what one source tells of the runs of one container. Each source
// tells them in order; one beside the other they need not be.
type life struct {
	runs    int
	running bool
	open    bool      // the end of its last run was not told
	started time.Time // of its last run; zero: not told yet
	ended   time.Time // its last end
	pid     int
}

// seen takes what a source says, and tells whether a run has begun.
func (l *life) seen(b signal.ContainerSeen) (begun bool) {
	runs, over := phase(b.State)
	if b.Started.IsZero() {
		another := b.PID != 0 && l.pid != 0 && b.PID != l.pid
		begun = runs && (!l.running || another) || over && l.runs == 0
	} else if begun = l.dated(b.Started, runs); !begun && !b.Started.Equal(l.started) {
		return false // of an earlier run, told late
	}
	if begun {
		l.runs++
		l.open, l.started, l.pid = true, b.Started, 0
	}
	if !l.open {
		return false // its end was told
	}
	l.running = runs || l.running && !over
	if b.PID != 0 {
		l.pid = b.PID
	}
	return begun
}

// phase tells whether a state is that of a run, or of its end.
func phase(state string) (runs, over bool) {
	switch state {
	case stateRunning, statePaused:
		return true, false
	case stateExited, stateDead:
		return false, true
	}
	return false, false
}

// dated takes when a run started, and tells whether it is one not yet told.
func (l *life) dated(started time.Time, runs bool) (begun bool) {
	switch {
	case !l.ended.IsZero() && !started.After(l.ended), !started.After(l.started):
		return false
	case l.runs > 0 && l.open && l.started.IsZero() && (l.running || !runs):
		l.started = started // of the run that was told without it
		return false
	}
	return true
}

// exit takes that a run ended.
func (l *life) exit(at, started time.Time) {
	if at.Before(l.started) || !at.After(l.ended) || !started.IsZero() && started.Before(l.started) {
		return // an earlier one, told late
	}
	l.running, l.open, l.ended = false, false, at
}

// story counts the restarts of a container, or of a pod's container over all
// its ids. Of what several sources count, the most is true: a source that came
// late or lost something has counted less.
type story struct {
	Restarts int                           `json:"restarts"` // as far as all sources, or an earlier run, told
	Engines  map[death.Source]*engineCount `json:"engines,omitempty"`

	pod     bool
	shown   bool // a scrape has shown it
	members int  // containers
	counts  map[death.Source]int
	saved   int // the restarts that were given to be kept
}

// engineCount relates an engine's own count to ours: it misses what was
// started by hand, and begins anew then.
type engineCount struct {
	Count  int `json:"count"`
	Behind int `json:"behind,omitempty"` // how much less than ours it was
}

// begin counts n runs that a source told of one container.
func (s *story) begin(src death.Source, n int) {
	if n <= 0 {
		return
	}
	if s.counts == nil {
		s.counts = map[death.Source]int{}
	}
	if count, told := s.counts[src]; told {
		s.counts[src] = count + n
	} else {
		// The first that it tells is no start after the first, or another
		// source has counted it.
		s.counts[src] = max(s.Restarts, n-1)
	}
	s.Restarts = max(s.Restarts, s.counts[src])
}

// floor takes an engine's own count. A count that a scrape has shown does not
// jump to what was there before.
func (s *story) floor(src death.Source, n int) (news bool) {
	n = min(max(n, 0), maxRestarts)
	e := s.Engines[src]
	switch {
	case e == nil:
		if e = (&engineCount{}); s.Engines == nil {
			s.Engines = map[death.Source]*engineCount{}
		}
		s.Engines[src] = e
		if !s.shown {
			s.Restarts = max(s.Restarts, n)
		}
	case n >= e.Count:
		s.Restarts = max(s.Restarts, n+e.Behind)
	case s.pod:
		return false // of an earlier id
	}
	if _, told := s.counts[src]; told {
		s.counts[src] = s.Restarts
	}
	was := *e
	*e = engineCount{n, s.Restarts - n}
	return *e != was
}

// earlier tells whether a pod's container is one from before the newest id.
func (s *story) earlier(src death.Source, c *death.Container) bool {
	e := s.Engines[src]
	return s.pod && e != nil && c.RestartCount != nil && *c.RestartCount < e.Count
}

// storyOf names the story that a container with this key belongs to.
func storyOf(c *death.Container, key string) (name string, pod bool) {
	if p := c.Pod; p != nil && p.Namespace != "" && p.Name != "" && c.Name != "" {
		return fmt.Sprintf("%q %q %q %q", p.Namespace, p.Name, p.UID, c.Name), true
	}
	return key, false
}

// ending is how a container's last run ended.
type ending struct {
	code int
	at   time.Time
	weak bool // known from before, or without its time
}

// better tells whether e says more of the last end than o.
func (e ending) better(o ending) bool {
	if e.weak != o.weak && !o.at.IsZero() {
		return o.weak
	}
	return !e.at.Before(o.at)
}

// endOf reads the code of a container's end: a shell's, where it was a signal.
func endOf(d *death.Death) (code int, ok bool) {
	switch x := d.Exit; {
	case d.Subject != death.SubjectContainer || x == nil:
		return 0, false
	case x.Code != nil:
		return *x.Code, true
	case x.Signal != nil:
		return 128 + *x.Signal, true
	}
	return 0, false
}

// stateRestarts is the prefix of the names under which the history keeps
// stories; empty: it is over.
const stateRestarts = "restarts/"

func (s *story) text() string {
	b, err := json.Marshal(s)
	if err != nil {
		return ""
	}
	return string(b)
}

// storyFrom reads what text wrote; nil: it is none.
func storyFrom(text string) *story {
	s := &story{}
	if json.Unmarshal([]byte(text), s) != nil || s.Restarts < 0 || s.Restarts > maxRestarts {
		return nil
	}
	for src, e := range s.Engines {
		if e == nil {
			delete(s.Engines, src)
		}
	}
	s.saved = s.Restarts
	return s
}
