// SPDX-License-Identifier: Apache-2.0

// Package cri asks container runtimes of Kubernetes (containerd, CRI-O, Docker
// behind cri-dockerd) through the Container Runtime Interface, version 1, which
// containers and pods they have, and follows what becomes of them.
//
// It gives containers their names, pods, images, labels, limits and first
// processes, and tells each end in the runtime's words. It is trusted for who
// a container is; not for why it ended: the reason OOMKilled is missing for
// real OOM kills, and stands for ends long after a kill that was survived.
//
// All containers are listed again and again, the more often the more happens,
// and at once when a new cgroup of a pod was seen: the interface promises no more. An end between two lists is not lost, for
// the kubelet removes a container some time after its end. Where the runtime
// gives container events to each who asks, they are taken too, and tell an end
// at once; lists then find what events left out.
package cri

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
	// Endpoints are the runtimes' sockets, as unix:///run/crio/crio.sock or as
	// a path, and taken as they are. Empty: the usual places below Roots.
	Endpoints []string
	// Labels are those to carry, each a name or a prefix ending in *, of a
	// container and of its pod; nil: DefaultLabels.
	Labels []string
	// News is closed when somebody else has seen a new container of a pod, and
	// the next one then: what is new is listed at once, before it has gone.
	// nil: nobody tells.
	News func() <-chan struct{}
	// Logger is told of runtimes that come and go; nil discards.
	Logger *slog.Logger

	// dial makes a test's runtime one without a socket; nil: a unix socket.
	dial engines.Dialer
}

// DefaultLabels are those that say which workload a container belongs to.
func DefaultLabels() []string { return engines.DefaultLabels() }

// How long a runtime may take, and how often it is asked.
const (
	versionLimit = 10 * time.Second // a runtime's first answer
	listLimit    = 30 * time.Second
	statusLimit  = 5 * time.Second
)

// The time between two lists: the first while things happen, the last while
// nothing does. A runtime that takes long for a list is asked less often.
const (
	paceFirst  = time.Second
	paceLast   = 2 * time.Second
	paceEvents = 30 * time.Second // the last where events tell, too
	paceNews   = 100 * time.Millisecond
	paceShare  = 50 // a list takes at most this part of the time
	paceMost   = time.Minute
)

// Bounds of what is held.
const (
	maxContainers = 10_000   // remembered of each runtime, and as many pods
	maxList       = 32 << 20 // bytes of a list; the kubelet takes 16 MiB
	maxAnswer     = 4 << 20  // bytes of any other answer, or of one event
	maxHeaders    = 64 << 10
	maxStatuses   = 8 // asked at once
	maxTries      = 4 // for one container's status
)

// Source watches the runtimes of a machine.
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

// Name returns death.SourceCRI.
func (s *Source) Name() death.Source { return death.SourceCRI }

// Run looks for runtimes and follows them until ctx ends. That there is none
// is no failure: it says so, and keeps looking.
func (s *Source) Run(ctx context.Context, emit func(signal.Signal)) error {
	labels, began := engines.SelectionOf(s.opt.Labels), time.Now().UTC()
	return engines.Run(ctx, engines.Config{
		Source: death.SourceCRI, Hosts: s.opt.Endpoints, Own: Places(s.opt.Roots), Logger: s.opt.Logger, Dial: s.opt.dial,
		New: func(e *engines.Engine) engines.Follower { return newEngine(e, labels, s.opt, began) },
	}, emit)
}

// Places are where runtimes have their sockets.
func Places(roots host.Roots) []string {
	var at []string
	for _, p := range []string{
		"run/containerd/containerd.sock", "run/k3s/containerd/containerd.sock", "run/crio/crio.sock", "var/run/crio/crio.sock", "run/cri-dockerd.sock",
	} {
		at = append(at, roots.RootPath(p))
	}
	return at
}
