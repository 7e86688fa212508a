// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"fmt"
	"slices"
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

const (
	// startSlack is how much later than it is told a run can be dated, where
	// clocks are read roughly. No more: an engine that is asked about a run can
	// answer about the next one.
	startSlack = time.Millisecond
	// maxRuns bounds the runs and ends that are remembered of one container,
	// so that none that is told late or again counts twice.
	maxRuns = 16
)

// life is what one source tells of the runs of one container. An event and an
// answer tell of the same start, and either can come first.
type life struct {
	starts []start     // of runs, by time
	ends   []time.Time // of runs, by time
	count  int         // of runs
	pid    int
}

// start is when a run began; told is when it was told, where no more is known.
type start struct {
	at   time.Time
	told bool
}

// seen takes what a source says, and tells whether it is of a run that is news.
func (l *life) seen(at time.Time, b signal.ContainerSeen) (news bool) {
	runs, over := phase(b.State)
	first := l.count == 0
	switch {
	case !b.Started.IsZero():
		news = l.dated(b.Started)
	case runs:
		another := b.PID != 0 && l.pid != 0 && b.PID != l.pid
		news = another || l.begun(at)
	case over:
		news = first
	}
	if news {
		if s := (start{at, true}); b.Started.IsZero() {
			l.add(s)
		} else {
			l.add(start{at: b.Started})
		}
	}
	if first && over {
		l.exit(at.Add(1), time.Time{}) // which is not told any more
	}
	if b.PID != 0 {
		l.pid = b.PID
	}
	return news
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

// begun tells whether one that runs at that time is in a run not yet told: the
// one before it has ended, or there was none.
func (l *life) begun(at time.Time) bool {
	for _, s := range slices.Backward(l.starts) {
		if !s.at.After(at) {
			return l.endBetween(s.at, at)
		}
	}
	return len(l.starts) < maxRuns // else it is one that was forgotten
}

// dated takes the exact time of a start, and tells whether it is of a run not
// yet told. It is of the first that was told after it, unless one ended between.
func (l *life) dated(started time.Time) (news bool) {
	for i, s := range l.starts {
		switch {
		case !s.told && s.at.Equal(started):
			return false
		case s.told && !started.After(s.at.Add(startSlack)) && !l.endBetween(started, s.at):
			l.starts[i] = start{at: started}
			return false
		case i == 0 && started.Before(s.at) && len(l.starts) == maxRuns:
			return false // it was forgotten
		}
	}
	return true
}

func (l *life) endBetween(after, until time.Time) bool {
	return slices.ContainsFunc(l.ends, func(t time.Time) bool { return t.After(after) && !t.After(until) })
}

func (l *life) add(s start) {
	l.count++
	i, _ := slices.BinarySearchFunc(l.starts, s.at, func(a start, at time.Time) int { return a.at.Compare(at) })
	if l.starts = slices.Insert(l.starts, i, s); len(l.starts) > maxRuns {
		l.starts = slices.Delete(l.starts, 0, 1)
	}
}

// exit takes that the run that began at started ended; zero: not told which.
func (l *life) exit(at, started time.Time) {
	for _, s := range l.starts {
		if !started.IsZero() && !s.told && s.at.After(started) && !at.Before(s.at) {
			at = s.at.Add(-1) // told late
			break
		}
	}
	i, known := slices.BinarySearchFunc(l.ends, at, time.Time.Compare)
	if known {
		return
	}
	if l.ends = slices.Insert(l.ends, i, at); len(l.ends) > maxRuns {
		l.ends = slices.Delete(l.ends, 0, 1)
	}
}

// story counts the restarts of a container, or of a pod's container over all
// its ids. Of what several sources count, the most is true: a source that came
// late or lost something has counted less.
type story struct {
	Restarts int                           `json:"restarts"` // as far as all sources, or an earlier run, told
	Engines  map[death.Source]*engineCount `json:"engines,omitempty"`
	// Began is when the last run that an engine told of began, by its clock, in
	// nanoseconds since 1970.
	Began map[death.Source]int64 `json:"began,omitempty"`

	pod     bool
	shown   bool // a scrape has shown it
	members int  // containers
	counts  map[death.Source]int
	saved   int  // the restarts that were given to be kept
	kept    bool // so that there is something to forget
	// taken are engines whose last start an earlier run of the agent took, and
	// carried the restarts that it counted.
	taken   map[death.Source]bool
	carried int
	missed  bool // a start between was found, and counted
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

// ran takes when a run began by an engine's clock. missed is true where that was
// while no agent ran: at least one start, which no source has counted.
func (s *story) ran(src death.Source, at, agentBegan time.Time) (news, missed bool) {
	last := s.Began[src]
	if at.IsZero() || s.pod {
		return false, false // the kubelet counts all, each with an id of its own
	}
	missed = s.taken[src] && at.UnixNano() > last && at.Before(agentBegan)
	delete(s.taken, src)
	if at.UnixNano() <= last {
		return false, false
	}
	if s.Began == nil {
		s.Began = map[death.Source]int64{}
	}
	s.Began[src] = at.UnixNano()
	if missed = missed && !s.missed; !missed {
		return true, false // or another engine has told of it
	}
	s.missed = true
	if n, told := s.counts[src]; told {
		s.counts[src] = n + 1
		s.Restarts = max(s.Restarts, n+1)
	}
	s.Restarts = max(s.Restarts, s.carried+1)
	return true, true
}

// floor takes an engine's own count, which begins anew with a start by hand:
// anew, where one was missed. A count that a scrape has shown does not jump to
// what was there before.
func (s *story) floor(src death.Source, n int, anew bool) (news bool) {
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
	case anew:
		s.Restarts = max(s.Restarts, s.carried+1+n)
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
	s.saved, s.carried, s.kept = s.Restarts, s.Restarts, true
	s.taken = make(map[death.Source]bool, len(s.Began))
	for src := range s.Began {
		s.taken[src] = true
	}
	return s
}
