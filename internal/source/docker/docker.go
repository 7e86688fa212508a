// SPDX-License-Identifier: Apache-2.0

// Package docker asks container engines that speak Docker's API (Docker since
// 20.10, podman) which containers they have, and follows what becomes of them.
//
// It gives containers their names, images, labels, limits and first processes,
// and tells each end in the engine's words. It is trusted for who a container
// is and that somebody asked for a stop; not for why a container ended: the
// engine's OOMKilled is missing for real OOM kills, and true for containers
// that survived one. Labels are claims of whoever made the container.
//
// One goroutine for each engine subscribes to events and then lists, so that
// nothing falls between. What an event carries is told at once; what else
// there is to know is asked for afterwards, with a time limit, a few at a
// time. A start that fails has no event, so what was made and has not run is
// asked about a few times. When the connection ends, what happened meanwhile is
// found by asking for old events and by looking at each container's state.
package docker

import (
	"context"
	"log/slog"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Options set up a Source. The zero value is good for a whole machine.
type Options struct {
	Roots host.Roots
	// Hosts are the engines' sockets, as unix:///run/docker.sock or as a
	// path, and taken as they are. Empty: the usual places below Roots, also
	// those of users' own engines.
	Hosts []string
	// Labels are those to carry, each a name or a prefix ending in *; nil:
	// DefaultLabels.
	Labels []string
	// Since is when the last end was told by an earlier run: those after it are
	// told, as far as the engine still has the containers. Zero: none of before.
	Since time.Time
	// Logger is told of engines that come and go; nil discards.
	Logger *slog.Logger

	// dial makes a test's engine one without a socket; nil: a unix socket.
	dial engines.Dialer
}

// DefaultLabels are those that say which workload a container belongs to.
func DefaultLabels() []string { return engines.DefaultLabels() }

// How long an engine may take, and how often it is asked.
const (
	versionLimit = 10 * time.Second // an engine's first answer
	streamLimit  = 10 * time.Second // the head of the stream of events
	listLimit    = 30 * time.Second
	inspectLimit = 5 * time.Second
	pingInterval = 10 * time.Second
	pingLimit    = 10 * time.Second
)

// Bounds of what is held. An engine that a user runs may be hostile.
const (
	maxContainers = 10_000   // remembered for each engine
	maxList       = 32 << 20 // bytes of an answer
	maxAnswer     = 4 << 20  // bytes of any other answer, or of one event
	maxInspects   = 8        // at once
	maxWaiting    = 4096     // to be inspected
)

// Source watches the container engines of a machine.
type Source struct {
	opt Options
}

// New returns a Source; nothing is opened before Run.
func New(opt Options) *Source {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Labels == nil {
		opt.Labels = DefaultLabels()
	}
	return &Source{opt: opt}
}

// Name returns death.SourceDocker.
func (s *Source) Name() death.Source { return death.SourceDocker }

// Run looks for engines and follows them until ctx ends. That there is none is
// no failure: it says so, and keeps looking.
func (s *Source) Run(ctx context.Context, emit func(signal.Signal)) error {
	own, users := Places(s.opt.Roots)
	labels := engines.SelectionOf(s.opt.Labels)
	return engines.Run(ctx, engines.Config{
		Source: death.SourceDocker, Hosts: s.opt.Hosts, Own: own, Users: users, Logger: s.opt.Logger, Dial: s.opt.dial,
		New: func(e *engines.Engine) engines.Follower { return newEngine(e, labels, s.opt.Roots, s.opt.Since) },
	}, emit)
}

// Places are where engines have their sockets: the machine's, then those of
// users' own.
func Places(roots host.Roots) (own, users []string) {
	for _, p := range []string{"var/run/docker.sock", "run/docker.sock", "run/podman/podman.sock"} {
		own = append(own, roots.RootPath(p))
	}
	for _, p := range []string{"run/user/*/docker.sock", "run/user/*/podman/podman.sock"} {
		users = append(users, roots.RootPath(p))
	}
	return own, users
}
