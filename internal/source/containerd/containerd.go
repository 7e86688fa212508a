// SPDX-License-Identifier: Apache-2.0

// Package containerd asks containerd, by its own API, which containers it has
// in all its namespaces, and follows what becomes of them.
//
// It gives containers their names, images, labels, pods, limits, cgroups and
// first processes, and tells each end of a first process with its status. It
// is trusted for who a container is; not for why it ended: its OOM events are
// late, missing, or many for one kill. Of a container that could not be started
// it tells no end, for no event does. Labels are claims of whoever made the
// container or its image. Of Docker's containers (namespace "moby") it tells
// what the processes do; names and images are Docker's to tell, and that one is
// gone here means that it ended, for Docker keeps it.
//
// One goroutine for each engine subscribes to events and then lists, so that
// nothing falls between. What an event carries is told at once; labels and
// limits are asked for right after it. containerd remembers no events: after
// a connection ended, what happened meanwhile is found by listing again.
package containerd

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
	// Hosts are the engines' sockets, as unix:///run/containerd/containerd.sock
	// or as a path, and taken as they are. Empty: the usual places below Roots,
	// also those of users' own engines.
	Hosts []string
	// Labels are those to carry, each a name or a prefix ending in *; nil:
	// DefaultLabels.
	Labels []string
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
	listLimit    = 30 * time.Second // all containers
	tasksLimit   = 10 * time.Second // all tasks of a namespace: one shim that hangs holds them all up
	getLimit     = 5 * time.Second
	pingInterval = 10 * time.Second
	pingLimit    = 10 * time.Second
	// containerd does not say when it has begun to listen for a subscriber.
	// What happened before that is found by a second list.
	listAgain = 2 * time.Second
	listRetry = 30 * time.Second // where a list was not whole
)

// Bounds of what is held. An engine that a user runs may be hostile.
const (
	maxNamespaces = 256
	maxContainers = 10_000    // remembered for each engine
	maxAnswer     = 4 << 20   // bytes of one container, or of the tasks of a namespace
	maxEvent      = 1 << 20   // bytes of one event
	maxHeader     = 256 << 10 // bytes of an answer's header
	maxGets       = 8         // at once
	maxWaiting    = 4096      // to be asked for
)

// Source watches the containerds of a machine.
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

// Name returns death.SourceContainerd.
func (s *Source) Name() death.Source { return death.SourceContainerd }

// Run looks for engines and follows them until ctx ends. That there is none is
// no failure: it says so, and keeps looking.
func (s *Source) Run(ctx context.Context, emit func(signal.Signal)) error {
	own, users := Places(s.opt.Roots)
	rd := reader{labels: engines.SelectionOf(s.opt.Labels)}
	return engines.Run(ctx, engines.Config{
		Source: death.SourceContainerd, Hosts: s.opt.Hosts, Own: own, Users: users, Logger: s.opt.Logger, Dial: s.opt.dial,
		New: func(e *engines.Engine) engines.Follower { return newEngine(e, rd, s.opt.Roots) },
	}, emit)
}

// Places are where engines have their sockets: the machine's (its own, k3s and
// RKE2, Docker's, k0s, MicroK8s), then those of users' own (rootless containerd
// and Docker: their /run/containerd and /run/docker lie there).
func Places(roots host.Roots) (own, users []string) {
	for _, p := range []string{
		"run/containerd/containerd.sock", "run/k3s/containerd/containerd.sock",
		"run/docker/containerd/containerd.sock", "var/run/docker/containerd/containerd.sock",
		"run/k0s/containerd.sock", "var/snap/microk8s/common/run/containerd.sock",
	} {
		own = append(own, roots.RootPath(p))
	}
	for _, p := range []string{"run/user/*/containerd/containerd.sock", "run/user/*/docker/containerd/containerd.sock"} {
		users = append(users, roots.RootPath(p))
	}
	return own, users
}
