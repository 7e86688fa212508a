// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// engine is one engine, over all connections to it. One goroutine owns it.
type engine struct {
	path string
	// configured is true where somebody named it: then it is missed when it
	// is not there.
	configured bool
	// foreign is true for an engine that a user runs: it cannot speak of
	// containers of the machine's own engines.
	foreign bool
	changed chan struct{} // its socket is another one

	r     *run
	log   *slog.Logger
	table *table
	// alive is when it was last heard of.
	alive   time.Time
	skipped map[string]int

	status status
	file   os.FileInfo // of its socket, as it was found
}

// status is how an engine is doing.
type status struct {
	up     bool
	who    identity
	reason string
	absent bool // there is no socket
}

func (r *run) newEngine(path string, configured, foreign bool) *engine {
	e := &engine{
		path: path, configured: configured, foreign: foreign, r: r, changed: make(chan struct{}, 1),
		log: r.log.With("engine", path), table: newTable(), skipped: map[string]int{},
		status: status{reason: "no answer yet"},
	}
	e.table.tell = e.tell
	e.table.lost = func(n int, why string) { e.skipped[why] += n }
	e.table.own = func(id string, mine bool) { r.own(e, id, mine) }
	return e
}

// tell gives out one signal.
func (e *engine) tell(at time.Time, recovered bool, b signal.Body) {
	if e.foreign && e.r.owned(containerOf(b)) {
		e.skipped["words of a user's engine about a container that is not its own"]++
		return
	}
	e.r.emit(signal.Signal{Time: at, Observed: time.Now().UTC(), Source: death.SourceDocker, Recovered: recovered, Body: b})
}

func containerOf(b signal.Body) string {
	switch b := b.(type) {
	case signal.ContainerSeen:
		return b.Container.ID
	case signal.ContainerGone:
		return b.ID
	case signal.ContainerExit:
		return b.ID
	case signal.ContainerStop:
		return b.ID
	case signal.ContainerOOM:
		return b.ID
	}
	return ""
}

// tellSkipped tells how much was skipped since it was last told. Nothing of it
// is evidence of an OOM kill: those are the kernel's.
func (e *engine) tellSkipped() {
	for why, n := range e.skipped {
		now := time.Now().UTC()
		e.r.emit(signal.Signal{Time: now, Observed: now, Source: death.SourceDocker, Body: signal.Lost{
			Count: uint64(max(n, 0)), Other: true, Why: e.path + ": " + why, //nolint:gosec // never negative
		}})
	}
	clear(e.skipped)
}

// follow keeps connected until ctx ends.
func (e *engine) follow(ctx context.Context) {
	wait := backoffFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := e.session(ctx)
		e.tellSkipped()
		if ctx.Err() != nil {
			return
		}
		e.r.report(e, status{reason: err.Error(), absent: errors.Is(err, fs.ErrNotExist)})
		if time.Since(began) > backoffLast {
			wait = backoffFirst
		}
		e.log.Debug("engine left", "err", err, "retry_in", wait.String())
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
			wait = min(2*wait, backoffLast)
		case <-e.changed:
			wait = backoffFirst
		}
		timer.Stop()
	}
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

	who     identity
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

// session connects, and follows events until the connection ends.
func (e *engine) session(ctx context.Context) error {
	if err := e.reach(ctx); err != nil {
		return err
	}
	api, err := newAPI(e.path, e.r.opt.dial)
	if err != nil {
		return err
	}
	defer api.close()
	ctx, cancel := context.WithCancel(ctx)
	s := &session{
		engine: e, api: api, ctx: ctx, failed: make(chan error, 2), listed: make(chan []container.Summary, 1),
		answers: make(chan answer, maxInspects), pong: make(chan struct{}, 1), pending: map[string]int{},
	}
	defer s.group.Wait()
	defer cancel()
	if s.who, err = api.identify(ctx); err != nil {
		return err
	}
	since, began := e.alive, time.Now().UTC()
	if !since.IsZero() {
		since = since.Add(-overlap)
	}
	e.table.connect(reader{runtime: s.who.runtime, labels: e.r.labels}, since, began)
	e.table.want = s.want
	// An engine answers before it listens to itself: what happens between is
	// asked for as an old event.
	from := since
	if from.IsZero() {
		from = began
	}
	res, err := api.subscribe(ctx, from)
	if err != nil {
		return err
	}
	defer func() {
		cancel()
		for range res.Err { // until the stream has ended
		}
	}()
	s.group.Go(s.list)
	s.group.Go(s.pings)
	return s.loop(res)
}

// reach says in plain words why an engine cannot be connected to.
func (e *engine) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, versionLimit)
	defer cancel()
	c, err := e.r.opt.dial(ctx, e.path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: needs user 0, or the group of the socket", err)
	case err != nil:
		return err
	}
	return c.Close()
}

// loop takes what comes, in one goroutine.
func (s *session) loop(res client.EventsResult) error {
	for {
		select {
		case m := <-res.Messages:
			s.api.taken.Store(0)
			s.heard()
			s.table.event(m, time.Now().UTC())
		case err, open := <-res.Err:
			if !open || err == nil {
				err = io.EOF
			}
			return fmt.Errorf("stream of events: %w", err)
		case list := <-s.listed:
			s.table.merge(list, time.Now().UTC())
			s.heard()
			s.r.report(s.engine, status{up: true, who: s.who})
		case a := <-s.answers:
			s.busy--
			if a.err != nil {
				s.log.Debug("container not inspected", "err", a.err)
			} else {
				s.table.inspected(a.job, a.c, time.Now().UTC())
			}
		case <-s.pong:
			s.heard()
			s.tellSkipped()
		case err := <-s.failed:
			return err
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
		s.ask()
	}
}

// heard notes that the engine is there. What it was not asked for yet while
// its list is due is not heard.
func (s *session) heard() {
	if s.table.fresh == nil {
		s.alive = time.Now().UTC()
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

func (s *session) pings() {
	ticker := time.NewTicker(pingInterval)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
		}
		if err := s.api.ping(s.ctx); err != nil {
			s.failed <- err
			return
		}
		select {
		case s.pong <- struct{}{}:
		default:
		}
	}
}

// want notes a container to be inspected, once.
func (s *session) want(j job) {
	if at, ok := s.pending[j.id]; ok {
		w := &s.waiting[at-s.done]
		w.again = w.again || j.again
		if !j.end.IsZero() {
			w.end, w.pid, w.started = j.end, j.pid, j.started
		}
		return
	}
	if len(s.waiting) >= maxWaiting {
		s.table.lost(1, "too many containers to inspect")
		return
	}
	s.pending[j.id] = s.done + len(s.waiting)
	s.waiting = append(s.waiting, j)
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
			s.answers <- answer{j, c, err}
		})
	}
}

func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	d := net.Dialer{Timeout: versionLimit}
	return d.DialContext(ctx, "unix", path)
}
