// SPDX-License-Identifier: Apache-2.0

// Package cgroup reads what the memory controller itself counts: OOM kills per
// cgroup (memory.oom_control of cgroup v1; memory.events and
// memory.events.local of v2) and of the whole machine (oom_kill of
// /proc/vmstat), all since Linux 4.13, memory.events.local since 5.2. It also
// finds the tree of memory cgroups and follows it as cgroups come and go.
//
// Counters are exact, need no privileges but to read the files, and cannot be
// forged. They say how many, where, and on v2 by whose limit; never which
// process. A v1 counter is gone with its cgroup; v2 ancestors keep the sum.
//
// Cost: at rest one read of vmstat each 100 ms. Only when that moves, or the
// kernel wakes the source, are counters read: on v2 down those branches whose
// sum moved, on v1 all of them. A cgroup takes about 300 bytes, and at most
// Options.MaxCgroups are held; on v1 up to 2048 files are kept open.
package cgroup

import (
	"log/slog"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/host"
)

// Options set up a Source. The zero value is good for a whole machine.
type Options struct {
	Roots host.Roots
	// Logger is told of what is missing; nil discards.
	Logger *slog.Logger
	// PollInterval is how often the machine's count is read; 0: 100 ms.
	PollInterval time.Duration
	// AuditInterval is how often the whole tree is read again although
	// nothing moved; 0: one minute.
	AuditInterval time.Duration
	// RescanInterval is how often the tree is read again where the kernel
	// does not tell of its changes; 0: one second.
	RescanInterval time.Duration
	// MaxCgroups bounds the memory that the tree takes; 0: 200,000.
	MaxCgroups int

	// noInotify makes a test's machine one without a free inotify instance.
	noInotify bool
	// maxWatches makes it one with so few inotify watches; 0: the kernel's own
	// bound (fs.inotify.max_user_watches).
	maxWatches int
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.PollInterval <= 0 {
		o.PollInterval = 100 * time.Millisecond
	}
	if o.AuditInterval <= 0 {
		o.AuditInterval = time.Minute
	}
	if o.RescanInterval <= 0 {
		o.RescanInterval = time.Second
	}
	if o.MaxCgroups <= 0 {
		o.MaxCgroups = 200_000
	}
	return o
}

// Source watches the memory cgroups of a machine.
type Source struct {
	opt Options
}

// New returns a Source; nothing is read before Run.
func New(opt Options) *Source { return &Source{opt: opt.withDefaults()} }

// Name returns death.SourceCgroup.
func (s *Source) Name() death.Source { return death.SourceCgroup }
