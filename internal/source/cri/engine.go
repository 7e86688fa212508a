// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/host"
)

// engine is one runtime, over all connections to it.
type engine struct {
	*engines.Engine
	labels engines.Selection
	roots  host.Roots
	news   func() <-chan struct{}
	table  *table
	// since is up to when all that ended is known: shortly before the last list
	// that it answered was asked for; at first, when this source began.
	since time.Time
}

func newEngine(of *engines.Engine, labels engines.Selection, opt Options, began time.Time) *engine {
	e := &engine{Engine: of, labels: labels, roots: opt.Roots, news: opt.News, table: newTable(), since: began}
	if e.news == nil {
		e.news = func() <-chan struct{} { return nil }
	}
	e.table.tell, e.table.lost = of.Tell, of.Skip
	return e
}

// session is one connection to a runtime.
type session struct {
	*engine
	api       *client
	who       identity
	hierarchy host.Hierarchy // of memory cgroups; none: not to be found

	ctx     context.Context
	group   sync.WaitGroup
	failed  chan error // the list
	listed  chan listing
	events  chan *runtimeapi.ContainerEventResponse
	silent  chan error // the stream of events has ended
	answers chan answer

	waiting []job
	busy    int
	// listing is true while a list is under way; asked is when the last was
	// asked for, next when the next is due. hurry is true where something came
	// up since that only a list can tell.
	listing, hurry bool
	asked, next    time.Time
	// pace is how far lists are apart, least how far at the least, and took how
	// long one is under way, of those in lasted.
	pace, least, took time.Duration
	lasted            [3]time.Duration // the last lists
	lists             int
	// called is true where somebody has seen what is new, since the last list
	// was asked for.
	called bool
	heeded bool // events come
	timer  *time.Timer
}

// containerdNamespace is where containerd keeps the containers of the CRI.
const containerdNamespace = "k8s.io"

// Session connects, and asks until the connection ends.
func (e *engine) Session(ctx context.Context) error {
	api, err := connect(ctx, e.Engine)
	if err != nil {
		return err
	}
	defer api.close()
	ctx, cancel := context.WithCancel(ctx)
	s := &session{
		engine: e, api: api, ctx: ctx, failed: make(chan error, 1), listed: make(chan listing, 1), answers: make(chan answer, maxStatuses),
		events: make(chan *runtimeapi.ContainerEventResponse), silent: make(chan error, 1), pace: paceFirst, least: paceFirst, timer: time.NewTimer(0),
	}
	defer s.timer.Stop()
	defer s.group.Wait()
	defer cancel()
	if s.who, err = api.identify(ctx); err != nil {
		return err
	}
	rd := reader{runtime: s.who.runtime, labels: e.labels}
	if rd.runtime == "containerd" {
		rd.namespace = containerdNamespace
	}
	if s.hierarchy, err = e.roots.MemoryHierarchy(); err != nil {
		s.Log.Debug("cgroups of containers are taken from what runtimes say of them", "err", err)
	}
	e.table.connect(rd, e.since, time.Now().UTC())
	e.table.want = func(j job) { s.waiting = append(s.waiting, j) }
	if s.who.sharesEvents() {
		s.heeded = true
		s.group.Go(func() { s.silent <- api.events(ctx, s.events) })
	}
	return s.loop()
}

// loop takes what comes, in one goroutine.
func (s *session) loop() error {
	news := s.news()
	for {
		select {
		case <-news:
			news = s.news()
			s.called = true
			s.next = earlier(s.next, s.asked.Add(max(paceNews, paceShare*s.took)))
		case <-s.timer.C:
		case l := <-s.listed:
			s.take(l)
		case e := <-s.events:
			if s.table.event(e, time.Now().UTC()) {
				s.soon()
			}
		case err := <-s.silent:
			// What it told nobody, lists find. It is asked again when the
			// connection is made again.
			s.Log.Debug("no events", "err", err)
			s.heeded = false
			s.soon()
		case a := <-s.answers:
			s.answered(a)
		case err := <-s.failed:
			return err
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
		s.ask()
	}
}

// take takes a list.
func (s *session) take(l listing) {
	s.listing = false
	now := time.Now().UTC()
	news := s.table.merge(l, now)
	s.since = l.at.Add(-overlap)
	s.TellSkipped()
	s.Up(s.mode(), "")
	last := paceLast
	if s.heeded {
		last = paceEvents
	}
	if s.pace = min(2*s.pace, last); news || s.hurry {
		s.pace = paceFirst
	}
	s.hurry = false
	s.lasts(l.took)
	s.least = min(max(paceFirst, paceShare*s.took), paceMost)
	s.next = now.Add(max(s.pace, s.least))
	if s.called {
		s.next = earlier(s.next, now.Add(max(paceNews, paceShare*s.took)))
	}
}

// lasts notes how long a list was under way. The least of three counts: others
// may have waited for a processor, and the next would be a minute away.
func (s *session) lasts(took time.Duration) {
	s.lasted[s.lists%len(s.lasted)] = took
	if s.lists++; s.lists >= len(s.lasted) {
		s.took = slices.Min(s.lasted[:])
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// soon lets the next list come as early as lists do.
func (s *session) soon() {
	s.hurry = true
	if at := s.asked.Add(s.least); at.Before(s.next) {
		s.next = at
	}
}

// mode says which runtime this is, and how it is followed.
func (s *session) mode() string {
	if s.heeded {
		return s.who.String() + ", events"
	}
	return s.who.String() + ", lists"
}

// ask asks for what is due: a list, and the status of what waits for it, a few
// at a time. It sets the timer to what is due next.
func (s *session) ask() {
	now := time.Now()
	at := s.table.due(now.UTC())
	if !s.listing && !now.Before(s.next) {
		s.listing, s.hurry, s.called, s.asked = true, false, false, now
		asked := s.table.seq
		s.group.Go(func() { s.list(asked) })
	}
	for s.busy < maxStatuses && len(s.waiting) > 0 {
		j := s.waiting[0]
		s.waiting = s.waiting[1:]
		s.busy++
		s.group.Go(func() { s.answers <- s.status(j) })
	}
	if !s.listing && (at.IsZero() || s.next.Before(at)) {
		at = s.next
	}
	s.timer.Stop()
	if !at.IsZero() {
		s.timer.Reset(max(at.Sub(now), 0))
	}
}

func (s *session) list(asked uint64) {
	l, err := s.api.list(s.ctx)
	if err != nil {
		s.failed <- err
		return
	}
	l.asked = asked
	s.listed <- l
}

// status asks for the status of one container or sandbox, and looks where its
// first process lives.
func (s *session) status(j job) answer {
	a := answer{job: j}
	var more map[string]string
	var runs bool
	if j.sandbox {
		var r *runtimeapi.PodSandboxStatusResponse
		r, a.err = s.api.pod(s.ctx, j.id)
		a.sandbox, more = r.GetStatus(), r.GetInfo()
		runs = a.sandbox.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY
	} else {
		var r *runtimeapi.ContainerStatusResponse
		r, a.err = s.api.container(s.ctx, j.id, j.verbose)
		a.container, more = r.GetStatus(), r.GetInfo()
		runs = a.container.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING
	}
	if a.err == nil && j.verbose {
		var err error
		a.own, err = parseInfo(more[infoKey])
		a.bad = err != nil
		a.cgroup = s.cgroup(j.id, a.own, runs)
	}
	return a
}

// cgroup finds a container's own cgroup: where its first process lives, else
// where the runtime was asked to make it, which of one that runs must be there.
func (s *session) cgroup(id string, own info, runs bool) string {
	if s.hierarchy.Version == 0 || !runs {
		return own.cgroup
	}
	if own.pid > 0 {
		lives := s.roots.TaskCgroup(own.pid, s.hierarchy.Version)
		if lives != "" && !host.BelowRoot(lives) {
			return "" // the reader does not see the root
		}
		if at := ownCgroup(lives, id, own.cgroup); at != "" {
			return at
		}
	}
	if _, err := os.Stat(s.hierarchy.Dir(own.cgroup)); err != nil {
		return ""
	}
	return own.cgroup
}

// answered takes what came of a job.
func (s *session) answered(a answer) {
	s.busy--
	now := time.Now().UTC()
	if a.err != nil {
		s.Log.Debug("no status", "err", a.err)
		s.table.unanswered(a.job, errors.Is(a.err, errRemoved), now)
	} else {
		s.table.answered(a, now)
	}
	if s.table.owes(a.job.id) {
		s.soon()
	}
}
