// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// tracefs watches through three instances of the trace buffer: what processes
// send each other, as many as they like, cannot drive the OOM killer's events out
// of theirs, nor signals that end nothing SIGKILLs.
type tracefs struct {
	opts    Options
	reason  string
	hidden  *os.File // a mount of our own, or nil
	bufs    []buffer
	wake    int // an eventfd that breaks poll; -1: none
	layout  pageLayout
	formats traceFormats
	clock   func() (host.BootClock, error)
	proc    procfs
	// known are the latest targets of SIGKILL, by thread: a victim's mark
	// comes after its kill, when it may be gone.
	known map[int]known
	beats beats
}

// buffer is one instance.
type buffer struct {
	dir  string
	cpus []*stream
	// other says what it has, where that is no evidence of OOM kills.
	other string
	// share bounds the time for it to one part in so many; 0: no bound.
	share int
	// rest is until when it may not be read again.
	rest time.Time
}

// stream is what one CPU recorded.
type stream struct {
	fd    int    // of trace_pipe_raw
	stats string // the file beside it
	// lost is how many events of it are known to be overwritten.
	lost uint64
}

// overwritten is how many more events were overwritten than the last time. A
// page says how many only where there is room behind its events (kernel/trace/
// ring_buffer.c, ring_buffer_read_page); told is what it said, for a kernel that
// does not count them. Those that the next page is to tell of may be among them.
func (s *stream) overwritten(told uint64) uint64 {
	b, err := host.ReadFile(s.stats)
	n, ok := parseOverrun(b)
	if err != nil || !ok || n < s.lost {
		s.lost += told
		return told
	}
	more := n - s.lost
	s.lost = n
	return more
}

// Bounds of the time for the events of others: each costs a dozen files of
// procfs, and processes may send as many as they like.
const (
	killShare   = 4
	signalShare = 8
)

// settings say what an instance records.
type setting struct{ name, value string }

// ofKernel is what the OOM killer does, ofOthers the SIGKILLs of processes
// that end another: those that changed nothing are left out.
func ofKernel() []setting {
	return []setting{
		{"events/signal/signal_generate/filter", fmt.Sprintf("sig==%d && code==%d", sigKill, signal.CodeKernel)},
		{"events/signal/signal_generate/enable", "1"},
		{"events/oom/mark_victim/enable", "1"},
	}
}

func ofOthers() []setting {
	return []setting{
		{"events/signal/signal_generate/filter", fmt.Sprintf("sig==%d && code!=%d && result==0", sigKill, signal.CodeKernel)},
		{"events/signal/signal_generate/enable", "1"},
	}
}

// ofSignals are the other signals whose default action ends a process (signal(7),
// by the numbers of ENDING in probe.bpf.c), where they are delivered. The kernel
// cannot be asked here for those to first processes alone.
func ofSignals() []setting {
	return []setting{
		{"events/signal/signal_generate/filter", fmt.Sprintf(
			"(sig<9 || (sig>9 && sig<17) || (sig>23 && sig<28) || (sig>28 && sig<32)) && (result==0 || result==%d)", loseInfo)},
		{"events/signal/signal_generate/enable", "1"},
	}
}

// openTracefs sets an instance up; why is what keeps better ways away, or nil.
func openTracefs(opts Options, why error) (watcher, error) {
	t := &tracefs{
		opts: opts, wake: -1, proc: newProcfs(opts.Roots), known: make(map[int]known),
		reason: "cgroups are looked up after the kill and are missing where the process was gone; " +
			"no exits, no shared memory, no memory levels",
	}
	if why != nil {
		t.reason += "; programs cannot be loaded: " + why.Error()
	}
	if t.proc.blind {
		t.reason += "; this procfs is not the host's, so names are missing too (in a container: --pid host)"
	}
	if err := t.open(); err != nil {
		switch {
		case confidential(opts.Roots):
			err = fmt.Errorf("kernel is locked down (lockdown=confidentiality), nothing can be traced: %w", err)
		case errors.Is(err, os.ErrPermission) && !errors.Is(err, errNotMounted):
			err = fmt.Errorf("needs user 0 or CAP_DAC_OVERRIDE for the tracing files: %w", err)
		}
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *tracefs) open() error {
	root, hidden, err := mountTracefs(t.opts.Roots)
	if err != nil {
		return err
	}
	t.hidden = hidden
	if err := t.readFormats(root); err != nil {
		return err
	}
	if t.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		t.wake = -1
		return fmt.Errorf("eventfd: %w", err)
	}
	for _, b := range []struct {
		size   string
		events []setting
		buffer
	}{
		{bufferKB, ofKernel(), buffer{}},
		{otherBufferKB, ofOthers(), buffer{other: "SIGKILLs that are not the OOM killer's", share: killShare}},
		{otherBufferKB, ofSignals(), buffer{other: "signals other than SIGKILL", share: signalShare}},
	} {
		if b.dir, err = makeInstance(t.opts.Roots, root); err != nil {
			return fmt.Errorf("make a trace instance: %w", err)
		}
		t.bufs = append(t.bufs, b.buffer)
		if err := t.record(&t.bufs[len(t.bufs)-1], b.size, b.events); err != nil {
			return err
		}
	}
	return nil
}

// record sets an instance up and lets it record.
func (t *tracefs) record(b *buffer, size string, events []setting) (err error) {
	dir := b.dir
	if t.clock, err = setClock(dir); err != nil {
		return fmt.Errorf("set the trace clock: %w", err)
	}
	for _, s := range []setting{
		{"buffer_size_kb", size},
		{"buffer_percent", "0"}, // wake the reader at the first event (since 5.0)
	} {
		if err := write(dir, s.name, s.value); err != nil {
			t.opts.Logger.Debug("set up the trace buffer", "err", err)
		}
	}
	if err := b.openCPUs(); err != nil {
		return err
	}
	for _, s := range events {
		if err := write(dir, s.name, s.value); err != nil {
			return fmt.Errorf("enable tracepoints: %w", err)
		}
	}
	return nil
}

func (t *tracefs) readFormats(root string) error {
	var text [3][]byte
	for i, name := range []string{"header_page", "signal/signal_generate/format", "oom/mark_victim/format"} {
		b, err := os.ReadFile(filepath.Join(root, "events", name))
		if err != nil {
			return err
		}
		text[i] = b
	}
	var err error
	if t.layout, err = parseHeaderPage(text[0], binary.NativeEndian); err != nil {
		return fmt.Errorf("parse header_page: %w", err)
	}
	t.formats, err = newTraceFormats(text[1], text[2], binary.NativeEndian)
	return err
}

func (b *buffer) openCPUs() error {
	dirs, err := os.ReadDir(filepath.Join(b.dir, "per_cpu"))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if !strings.HasPrefix(d.Name(), "cpu") {
			continue
		}
		path := filepath.Join(b.dir, "per_cpu", d.Name(), "trace_pipe_raw")
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: path, Err: err}
		}
		b.cpus = append(b.cpus, &stream{fd: fd, stats: filepath.Join(filepath.Dir(path), "stats")})
	}
	if len(b.cpus) == 0 {
		return fmt.Errorf("no CPU in %s/per_cpu", b.dir)
	}
	return nil
}

func (t *tracefs) mode() string   { return ModeTracefs }
func (t *tracefs) lesser() string { return t.reason }

func (t *tracefs) close() error {
	var errs []error
	if t.wake >= 0 {
		errs = append(errs, unix.Close(t.wake))
		t.wake = -1
	}
	for _, b := range t.bufs {
		errs = append(errs, b.close())
	}
	t.bufs = nil
	if t.hidden != nil {
		errs = append(errs, t.hidden.Close())
		t.hidden = nil
	}
	return errors.Join(errs...)
}

func (b *buffer) close() error {
	var errs []error
	for _, s := range b.cpus {
		errs = append(errs, unix.Close(s.fd)) // an instance that is open cannot be removed
	}
	errs = append(errs, write(b.dir, "events/enable", "0"))
	if err := unix.Rmdir(b.dir); err != nil {
		errs = append(errs, fmt.Errorf("remove trace instance: %w", err))
	}
	return errors.Join(errs...)
}

// interrupt breaks the poll of run when ctx ends; the returned function waits
// until it does so no more.
func (t *tracefs) interrupt(ctx context.Context) (done func()) {
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		if _, err := unix.Write(t.wake, one[:]); err != nil {
			t.opts.Logger.Debug("wake the reader", "err", err)
		}
	})
	return func() {
		if !stop() {
			<-woken
		}
	}
}
