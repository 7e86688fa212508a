// SPDX-License-Identifier: Apache-2.0

// Package tracepoint takes OOM kills, signals that end processes and the ends of
// processes from the kernel's tracepoints oom:mark_victim,
// signal:signal_generate and sched:sched_process_exit. Kills are never rate
// limited; it names the victim's and the sender's memory cgroup as they were at
// that moment, and loses nothing that it does not count.
//
// Of signals other than SIGKILL it tells those that reach the first process of a
// container (signal.Task.Init) and whose default action ends a process, four a
// second of one signal at most, those from outside of the container's pid
// namespace apart. First processes of containers that share the pid namespace of
// the host or of another container are not known for such.
//
// Mode bpf loads programs into the kernel (Linux 5.10 with BTF, CAP_BPF and
// CAP_PERFMON). Mode tracefs reads an instance of its own of the trace buffer
// (Linux 4.1, file rights of root) and looks the rest up in procfs, where a
// process can be gone already. Which limit was reached is not known here, but
// where the kernel lets oom_kill_process be traced; nor is it known that a
// marked victim was not dying already.
package tracepoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// The modes of Options.
const (
	ModeAuto    = "auto"    // bpf, else tracefs
	ModeBPF     = "bpf"     // programs in the kernel
	ModeTracefs = "tracefs" // a private instance of the trace buffer
)

// Options set up a Source.
type Options struct {
	// Roots says where the kernel's files are.
	Roots host.Roots
	// Logger takes what is worth a developer's look; nil discards.
	Logger *slog.Logger
	// Mode is one of the Mode constants; empty means ModeAuto.
	Mode string
}

// Source is the source of kernel tracepoints.
type Source struct {
	opts Options
}

// New returns a Source; nothing is opened before Run.
func New(opts Options) *Source {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Source{opts: opts}
}

// Name returns death.SourceTracepoint.
func (s *Source) Name() death.Source { return death.SourceTracepoint }

// Run watches until ctx ends, and then returns nil. It emits a SourceState
// once it watches or knows that it cannot, and calls emit from one goroutine.
func (s *Source) Run(ctx context.Context, emit func(signal.Signal)) error {
	w, err := open(s.opts)
	if err != nil {
		emit(stamp(time.Now(), signal.SourceState{Reason: err.Error()}))
		return err
	}
	emit(stamp(time.Now(), signal.SourceState{Up: true, Mode: w.mode(), Reason: w.lesser()}))
	err = w.run(ctx, emit)
	err = errors.Join(err, w.close())
	if ctx.Err() != nil {
		if err != nil {
			s.opts.Logger.Debug("stop tracepoints", "err", err)
		}
		return nil
	}
	if err == nil {
		err = errors.New("kernel's events ended")
	}
	emit(stamp(time.Now(), signal.SourceState{Mode: w.mode(), Reason: err.Error()}))
	return err
}

// Probe tells which mode would run, by opening and closing it for real, and
// what that cannot tell on this machine. The error says what is lacking and
// the remedy.
func Probe(opts Options) (mode, lesser string, err error) {
	w, err := open(New(opts).opts)
	if err != nil {
		return "", "", err
	}
	return w.mode(), w.lesser(), w.close()
}

// A watcher is one way to the kernel's events, attached already.
type watcher interface {
	mode() string
	// lesser says what this way cannot tell on this machine; empty: nothing.
	lesser() string
	run(ctx context.Context, emit func(signal.Signal)) error
	close() error
}

func open(opts Options) (watcher, error) {
	switch opts.Mode {
	case ModeBPF:
		return openBPF(opts)
	case ModeTracefs:
		return openTracefs(opts, nil)
	case ModeAuto, "":
	default:
		return nil, fmt.Errorf("mode %q: want %s, %s or %s", opts.Mode, ModeAuto, ModeBPF, ModeTracefs)
	}
	w, err := openBPF(opts)
	if err == nil {
		return w, nil
	}
	opts.Logger.Debug("kernel does not take the programs", "err", err)
	t, terr := openTracefs(opts, err)
	if terr == nil {
		return t, nil
	}
	return nil, fmt.Errorf("bpf: %w; tracefs: %w", err, terr)
}

// stamp makes the signal of something that is observed as it happens.
func stamp(now time.Time, b signal.Body) signal.Signal {
	now = now.UTC().Round(0)
	return signal.Signal{Time: now, Observed: now, Source: death.SourceTracepoint, Body: b}
}

// stampAt makes the signal of something that happened before it was observed.
func stampAt(at, now time.Time, b signal.Body) signal.Signal {
	s := stamp(now, b)
	s.Time = at
	return s
}
