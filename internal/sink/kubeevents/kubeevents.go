// SPDX-License-Identifier: Apache-2.0

// Package kubeevents tells deaths where people of a cluster look first: as
// events on the pod (kubectl describe pod), and on the node where the machine
// itself ran out of memory.
//
// Events are aggregated and rate limited by the correlator of client-go's
// broadcaster (tools/record): similar ones become one with a count, and of
// one container and reason there are 25 at once, then one in five minutes. tools/record and not tools/events,
// because that brings the clients and types of all groups of the API along,
// and leaves out the rate limit. The queue and the tries are our own: the
// broadcaster's drops without a count, gives an event up after two minutes, and
// nobody can wait for its goroutines.
//
// What is known of a death grows within its first seconds, so an event waits
// for that; what is found out afterwards has an event of its own only if it
// changes the cause.
package kubeevents

import (
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/kubeclient"
)

// Name is the sink's.
const Name = "kubeevents"

const (
	// hold is how long a death waits for what Kubernetes adds to it.
	hold = 3 * time.Second
	// holdName is how long one waits for its container's name at most: a kubelet
	// that has many pods to tell of takes its time.
	holdName = 20 * time.Second
	// maxWaiting bounds the deaths that wait while the API is away; at 2 KiB
	// each they take 2 MiB at most.
	maxWaiting = 1000
	// maxTold bounds the deaths of which is known as what they were told.
	maxTold = 4096
)

// Options set up a Sink.
type Options struct {
	// Kubeconfig says where the API is; empty: as the pod's service account.
	Kubeconfig string
	// Node is the node's name in the API.
	Node string
	// Logger is told of troubles; nil discards.
	Logger *slog.Logger
}

// Stat is what the sink has done since the start.
type Stat struct {
	// Up tells whether the API took the last event that it was given.
	Up bool
	// QueueLength counts the deaths that wait.
	QueueLength int
	// Dropped counts the deaths without an event: there was no room, the API
	// refused it for good, or the rate limit held it back.
	Dropped uint64
	// Errors counts the times that the API refused, or was away.
	Errors uint64
}

// Sink makes deaths events.
type Sink struct {
	opt Options
	log *slog.Logger
	// config is the test's own; nil: what the options say.
	config *rest.Config
	wake   chan struct{} // holds one: something waits

	mu      sync.Mutex
	waiting []*note // oldest first
	byID    map[string]*note
	told    map[string]told
	order   []string // of told, oldest first
	trying  bool     // one note is out of the line
	trouble string   // why the API takes nothing; empty: it does
	said    map[string]bool
	dropped uint64
	errs    uint64
}

// told is as what a death was told last.
type told struct {
	cause    death.Cause // empty: it was not
	revision int
}

// note is one death that waits to be told.
type note struct {
	id string
	told
	events []*corev1.Event // that are to be written
	due    time.Time
	since  time.Time // it is in line

	// The writer's own.
	message *message // the first of events, correlated; nil: not yet
	last    bool     // it is tried once
	missed  bool     // one of them was not taken
}

// New returns a Sink, or nil where nothing says where an API would be. Nobody
// is asked before Run.
func New(opt Options) *Sink {
	if _, err := kubeclient.Config(opt.Kubeconfig); errors.Is(err, kubeclient.ErrAbsent) {
		return nil
	}
	return newSink(opt)
}

func newSink(opt Options) *Sink {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	return &Sink{
		opt: opt, log: opt.Logger.With("component", Name),
		wake: make(chan struct{}, 1), byID: map[string]*note{}, told: map[string]told{}, said: map[string]bool{},
	}
}

// Remember takes deaths of an earlier run, oldest first: they were told then,
// or are no news any more.
func (s *Sink) Remember(known []death.Death) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range known {
		if d := &known[i]; reasonOf(d.Cause) != "" {
			s.note(d.ID, told{d.Cause, d.Revision})
		}
	}
}

// Take takes deaths and their amendments. It waits for nobody.
func (s *Sink) Take(deaths []death.Death) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for i := range deaths {
		s.add(&deaths[i], now)
	}
	for len(s.waiting) > maxWaiting {
		s.drop(s.waiting[0])
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// add puts a death in line. What amends one that waits takes its place there.
func (s *Sink) add(d *death.Death, now time.Time) {
	if d.Recovered {
		return // it is not of now
	}
	before, n := s.told[d.ID], s.byID[d.ID]
	if d.Revision <= before.revision || n != nil && d.Revision <= n.revision {
		return // the history took its time with an older one
	}
	var events []*corev1.Event
	if before.cause != d.Cause {
		events = s.events(d, before.cause, now)
	}
	switch {
	case n != nil && len(events) == 0:
		s.forget(n)
	case n != nil:
		n.told, n.events, n.due = told{d.Cause, d.Revision}, events, dueFrom(n.since, d)
	case len(events) > 0:
		n = &note{id: d.ID, told: told{d.Cause, d.Revision}, events: events, due: dueFrom(now, d), since: now}
		s.byID[d.ID] = n
		s.waiting = append(s.waiting, n)
	}
}

// dueFrom is when d is to be told that is in line since then.
func dueFrom(since time.Time, d *death.Death) time.Time {
	if c := d.Container; c != nil && c.Pod != nil && c.Name == "" {
		return since.Add(holdName)
	}
	return since.Add(hold)
}

// note keeps as what a death was told.
func (s *Sink) note(id string, t told) {
	if _, known := s.told[id]; !known {
		s.order = append(s.order, id)
	}
	s.told[id] = t
	for len(s.order) > maxTold {
		delete(s.told, s.order[0])
		s.order = s.order[1:]
	}
}

// forget takes a note out of the line.
func (s *Sink) forget(n *note) {
	delete(s.byID, n.id)
	for i := range s.waiting {
		if s.waiting[i] == n {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			return
		}
	}
}

// drop counts a note that is not told.
func (s *Sink) drop(n *note) {
	s.forget(n)
	s.dropped++
}

// next takes the note that is due first out of the line, or says how long it
// still waits; 0: there is none. At the end nothing waits.
func (s *Sink) next(now time.Time, ending bool) (*note, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trying = false
	if len(s.waiting) == 0 {
		return nil, 0
	}
	n := slices.MinFunc(s.waiting, func(a, b *note) int { return a.due.Compare(b.due) }) // the oldest of those
	if left := n.due.Sub(now); left > 0 && !ending {
		return nil, left
	}
	s.forget(n)
	s.note(n.id, n.told)
	s.trying = true
	return n, 0
}

// Stat tells how the sink is doing.
func (s *Sink) Stat() Stat {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stat{Up: s.trouble == "", QueueLength: len(s.waiting), Dropped: s.dropped, Errors: s.errs}
	if s.trying {
		st.QueueLength++
	}
	return st
}
