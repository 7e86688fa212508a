// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	"github.com/containerd/containerd/api/types"

	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/host"
)

// engine is one engine, over all connections to it.
type engine struct {
	*engines.Engine
	rd    reader
	roots host.Roots
	table *table
	// alive is when it was last heard of.
	alive time.Time
	// hierarchy is the version of the one with the memory controller; 0: none.
	hierarchy int
}

func newEngine(of *engines.Engine, rd reader, roots host.Roots) *engine {
	e := &engine{Engine: of, rd: rd, roots: roots, table: newTable()}
	e.table.tell, e.table.lost, e.table.own = of.Tell, of.Skip, of.Own
	return e
}

// session is one connection to an engine.
type session struct {
	*engine
	api   *engineAPI
	ctx   context.Context
	group sync.WaitGroup

	failed  chan error // a ping, the stream or a list
	events  chan *types.Envelope
	rows    chan found
	ends    chan listEnd
	answers chan answer
	pong    chan struct{}
	relist  *time.Timer

	version string
	whole   bool // a list came
	waiting []job
	pending map[*box]bool
	busy    int
}

// listEnd is what came of a list.
type listEnd struct {
	lesser string
	whole  bool
}

// answer is what came of a job.
type answer struct {
	job job
	d   *described
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
		engine: e, api: api, ctx: ctx, failed: make(chan error, 3), events: make(chan *types.Envelope),
		rows: make(chan found), ends: make(chan listEnd), answers: make(chan answer, maxGets),
		pong: make(chan struct{}, 1), relist: time.NewTimer(listAgain), pending: map[*box]bool{},
	}
	s.relist.Stop()
	defer s.relist.Stop()
	defer s.group.Wait()
	defer cancel()
	if s.version, err = api.identify(ctx); err != nil {
		return err
	}
	e.hierarchy = 0
	if h, err := e.roots.MemoryHierarchy(); err == nil {
		e.hierarchy = h.Version
	}
	since := e.alive
	if !since.IsZero() {
		since = since.Add(-overlap)
	}
	e.table.connect(since, time.Now().UTC())
	e.table.want = s.want
	defer e.table.disconnect()
	stream, err := api.subscribe(ctx)
	if err != nil {
		return err
	}
	s.group.Go(func() { s.receive(stream) })
	s.group.Go(func() { engines.Pings(s.ctx, pingInterval, s.api.ping, s.pong, s.failed) })
	s.list()
	return s.loop()
}

// loop takes what comes, in one goroutine.
func (s *session) loop() error {
	for {
		select {
		case e := <-s.events:
			s.heard()
			h, err := event(e)
			s.table.event(h, err, time.Now().UTC())
		case f := <-s.rows:
			s.table.row(f, time.Now().UTC())
		case end := <-s.ends:
			s.listed(end)
		case <-s.relist.C:
			s.list()
		case a := <-s.answers:
			s.busy--
			if a.err != nil {
				s.Log.Debug("container not described", "err", a.err)
			}
			s.table.answered(a.job, a.d, time.Now().UTC())
		case <-s.pong:
			s.heard()
			s.table.sweep(time.Now().UTC())
			s.TellSkipped()
		case err := <-s.failed:
			return err
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
		s.ask()
	}
}

// heard notes that the engine is there. What it was not asked for yet while
// its first list is due is not heard.
func (s *session) heard() {
	if s.whole {
		s.alive = time.Now().UTC()
	}
}

// receive passes events on.
func (s *session) receive(stream eventsapi.Events_SubscribeClient) {
	for {
		e, err := stream.Recv()
		if err != nil {
			s.failed <- fmt.Errorf("stream of events: %w", err)
			return
		}
		select {
		case s.events <- e:
		case <-s.ctx.Done():
			return
		}
	}
}

// list asks for all containers.
func (s *session) list() {
	s.table.listing()
	s.group.Go(func() {
		lesser, whole, err := s.api.list(s.ctx, func(r row) error {
			select {
			case s.rows <- s.read(r):
				return nil
			case <-s.ctx.Done():
				return s.ctx.Err()
			}
		})
		if err != nil {
			s.failed <- err
			return
		}
		select {
		case s.ends <- listEnd{lesser, whole}:
		case <-s.ctx.Done():
		}
	})
}

// read reads one row of a list.
func (s *session) read(r row) found {
	f := found{silent: r.silent}
	if f.described, f.err = s.rd.describe(r.namespace, r.container); f.err != nil {
		return f
	}
	if r.task != nil {
		t := taskOf(r.task)
		f.task = &t
		if !t.stopped {
			f.lives = s.lives(t.pid)
		}
	}
	f.lives = s.doubt(&f.described, f.lives)
	return f
}

// listed takes the end of a list. The first is followed by a second.
func (s *session) listed(end listEnd) {
	s.table.listedAll(end.whole, time.Now().UTC())
	switch {
	case !s.whole:
		s.relist.Reset(listAgain)
	case end.lesser != "":
		s.relist.Reset(listRetry)
	}
	s.whole = true
	s.heard()
	s.Up(s.version, end.lesser)
}

// lives is where a process lives; empty: not known.
func (s *session) lives(pid int) string {
	if pid <= 0 {
		return ""
	}
	if p := s.roots.TaskCgroup(pid, s.hierarchy); host.BelowRoot(p) {
		return p
	}
	return ""
}

// doubt takes away what a user's engine says of a cgroup in which it shows no
// process, or which is not of users.
func (s *session) doubt(d *described, lives string) string {
	if s.Foreign() && !strings.HasPrefix(lives, "/user.slice/") {
		d.cgroup, d.literal = "", ""
		return ""
	}
	return lives
}

// want notes a container to be asked for, once, and tells whether it did.
func (s *session) want(j job) bool {
	if s.pending[j.box] {
		return false
	}
	if len(s.waiting) >= maxWaiting {
		s.table.lost(1, "too many containers to ask for")
		return false
	}
	s.pending[j.box] = true
	s.waiting = append(s.waiting, j)
	return true
}

// ask asks for what waits, a few at a time.
func (s *session) ask() {
	for s.busy < maxGets && len(s.waiting) > 0 {
		j := s.waiting[0]
		s.waiting = s.waiting[1:]
		delete(s.pending, j.box)
		if j.box.running {
			j.pid = j.box.pid
		}
		s.busy++
		s.group.Go(func() { s.answers <- s.get(j) })
	}
}

// get asks for one container.
func (s *session) get(j job) answer {
	// The process first: it is what goes first.
	lives := s.lives(j.pid)
	c, err := s.api.get(s.ctx, j.box.namespace, j.box.id)
	if err != nil {
		return answer{job: j, err: err}
	}
	d, err := s.rd.describe(j.box.namespace, c)
	if err != nil {
		return answer{job: j, err: err}
	}
	j.cgroup = s.doubt(&d, lives)
	return answer{job: j, d: &d}
}
