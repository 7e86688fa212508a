// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/host"
)

// engine is one engine, over all connections to it.
type engine struct {
	*engines.Engine
	labels engines.Selection
	roots  host.Roots
	table  *table
	// alive is up to when all that it told was taken.
	alive time.Time
	// hierarchy is the version of the one with the memory controller; 0: none.
	hierarchy int
}

func newEngine(of *engines.Engine, labels engines.Selection, roots host.Roots, since time.Time) *engine {
	e := &engine{Engine: of, labels: labels, roots: roots, table: newTable(), alive: since}
	e.table.tell, e.table.lost, e.table.own = of.Tell, of.Skip, of.Own
	return e
}

// session is one connection to an engine.
type session struct {
	*engine
	api     *engineAPI
	ctx     context.Context
	group   sync.WaitGroup
	failed  chan error // a ping or the list
	listed  chan []container.Summary
	answers chan answer
	pong    chan struct{}
	starts  starts

	who     identity
	ponged  time.Time // when a ping was last answered; at first, when this began
	waiting []job
	pending map[string]int // place in waiting, counted from done
	done    int
	busy    int
}

// answer is what came of a job.
type answer struct {
	job job
	c   container.InspectResponse
	err error
}

// Session connects, and follows events until the connection ends.
func (e *engine) Session(ctx context.Context) error {
	if err := e.Reach(ctx); err != nil {
		return err
	}
	api, err := newAPI(e.Path, e.Dial)
	if err != nil {
		return err
	}
	defer api.close()
	ctx, cancel := context.WithCancel(ctx)
	s := &session{
		engine: e, api: api, ctx: ctx, failed: make(chan error, 2), listed: make(chan []container.Summary, 1),
		answers: make(chan answer, maxInspects), pong: make(chan struct{}, 1), pending: map[string]int{},
		starts: newStarts(),
	}
	defer s.starts.timer.Stop()
	defer s.group.Wait()
	defer cancel()
	if s.who, err = api.identify(ctx); err != nil {
		return err
	}
	e.hierarchy = 0
	if h, err := e.roots.MemoryHierarchy(); err == nil {
		e.hierarchy = h.Version
	}
	since, began := e.alive, time.Now().UTC()
	s.ponged = began
	if !since.IsZero() {
		since = since.Add(-overlap)
	}
	e.table.connect(reader{runtime: s.who.runtime, labels: e.labels}, since, began)
	e.table.want, e.table.made = s.want, s.awaitStart
	// An engine answers before it listens to itself: what happens between is
	// asked for as an old event.
	from := since
	if from.IsZero() {
		from = began
	}
	res, err := api.subscribe(ctx, s.who.runtime, from)
	if err != nil {
		return err
	}
	defer func() {
		cancel()
		for range res.Err { // until the stream has ended
		}
	}()
	s.group.Go(s.list)
	s.group.Go(func() { engines.Pings(s.ctx, pingInterval, s.api.ping, s.pong, s.failed) })
	return s.loop(res)
}

// loop takes what comes, in one goroutine.
func (s *session) loop(res client.EventsResult) error {
	for {
		select {
		case m := <-res.Messages:
			s.api.taken.Store(0)
			s.table.event(m, time.Now().UTC())
			s.heard(eventTime(m))
		case err, open := <-res.Err:
			if !open || err == nil {
				err = io.EOF
			}
			return fmt.Errorf("stream of events: %w", err)
		case list := <-s.listed:
			s.table.merge(list, time.Now().UTC())
			s.heard(s.table.began)
			s.Up(s.who.String(), "")
		case a := <-s.answers:
			s.busy--
			if a.err != nil {
				s.Log.Debug("container not inspected", "err", a.err)
			} else {
				s.table.inspected(a.job, a.c, time.Now().UTC())
			}
			s.table.explained(a.job)
		case <-s.starts.timer.C:
			s.lookForStarts()
		case <-s.pong:
			s.heard(s.ponged) // what it told before that has come and was taken
			s.ponged = time.Now().UTC()
			s.TellSkipped()
		case err := <-s.failed:
			return err
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
		s.ask()
	}
}

// heard notes up to when all that the engine told was taken: events wait where
// who takes them has much to do. What it was not asked for yet while its list is
// due is not heard.
func (s *session) heard(at time.Time) {
	now := time.Now()
	if s.table.fresh == nil && !at.After(now) && (at.After(s.alive) || s.alive.After(now)) { // the clock may be set back
		s.alive = at
	}
}

func (s *session) list() {
	list, err := s.api.list(s.ctx)
	if err != nil {
		s.failed <- err
		return
	}
	s.listed <- list
}

// want notes a container to be inspected, once, and tells whether it did.
func (s *session) want(j job) bool {
	if at, ok := s.pending[j.id]; ok {
		w := &s.waiting[at-s.done]
		w.again, w.unstarted, w.failing = w.again || j.again, w.unstarted || j.unstarted, w.failing || j.failing
		if !j.changed.IsZero() {
			w.changed = j.changed
		}
		if j.restarted && !w.restarted && w.end.IsZero() {
			w.restarted, w.pid, w.started = true, j.pid, j.started
		}
		if !j.end.IsZero() {
			w.end, w.pid, w.started = j.end, j.pid, j.started
		}
		return true
	}
	if len(s.waiting) >= maxWaiting {
		s.table.lost(1, "too many containers to inspect")
		return false
	}
	s.pending[j.id] = s.done + len(s.waiting)
	s.waiting = append(s.waiting, j)
	return true
}

// ask inspects what waits, a few at a time.
func (s *session) ask() {
	for s.busy < maxInspects && len(s.waiting) > 0 {
		j := s.waiting[0]
		s.waiting = s.waiting[1:]
		s.done++
		delete(s.pending, j.id)
		b := s.table.boxes[j.id]
		if b == nil {
			continue // removed meanwhile
		}
		j.events = b.events
		s.busy++
		s.group.Go(func() {
			c, err := s.api.inspect(s.ctx, j.id)
			if err == nil && c.State != nil && c.State.Pid > 0 {
				j.cgroup = engines.OwnCgroup(s.roots.TaskCgroup(c.State.Pid, s.hierarchy), j.id)
			}
			s.answers <- answer{j, c, err}
		})
	}
}
