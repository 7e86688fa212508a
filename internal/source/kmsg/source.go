// SPDX-License-Identifier: Apache-2.0

// Package kmsg is the source that reads the kernel's log: live from /dev/kmsg
// (since Linux 3.5), where that is not to be had with syslog(2), or from a copy
// of it in a file. It tells the OOM killer's
// reports: whose limit, with which figures, and kills from before the agent
// ran. It does not know them all: the context of a report is rate limited, and
// the ring that holds the log overruns, which is told as lost records.
//
// Live, only records of facility 0 are believed: the kernel refuses that
// facility to user space (Documentation/ABI/testing/dev-kmsg).
package kmsg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/parse/kernlog"
	"github.com/coroner-dev/coroner/internal/parse/oomreport"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Position is a place in the log of one boot.
type Position struct {
	BootID string
	// Seq is of the last record that was read: its number in /dev/kmsg, or
	// stampBit and its stamp in microseconds, where syslog(2) gave it.
	Seq uint64
}

// stampBit marks a position by stamp. No log has as many records.
const stampBit = 1 << 63

func stampSeq(stamp time.Duration) uint64 { return stampBit | uint64(stamp.Microseconds()) }

// upTo tells whether a record with this number and stamp lies up to told.
func upTo(told, seq uint64, stamp time.Duration) bool {
	if told&stampBit != 0 {
		return stampSeq(stamp) <= told
	}
	return seq <= told
}

// Options set up a Source.
type Options struct {
	// Path is the device; empty: /dev/kmsg.
	Path string
	// BootID is this boot's; empty: not known.
	BootID string
	// Syslog lets the source read with syslog(2) where there is no device, or
	// none that may be opened.
	Syslog bool
	// Roots say where the kernel's count of OOM kills is.
	Roots host.Roots
	// Since is how far an earlier run read. Records up to it are not told
	// again, when the boot is the same.
	Since Position
	// Logger is where the source speaks; nil: nowhere.
	Logger *slog.Logger

	// Seams for tests.
	open  func(path string) (device, error)
	ring  func() (ring, error)
	kills func() (counter, error)
	now   func() time.Time
	clock func() (host.BootClock, error)
}

// device is a log that gives one record with each read.
type device interface {
	// Read reads one record. It waits for one, or returns errNoRecord at
	// once if wait is false.
	Read(buf []byte, wait bool) (int, error)
	// SetReadDeadline breaks a Read that waits.
	SetReadDeadline(t time.Time) error
	io.Closer
}

// errNoRecord is returned by a device that was read to its end.
var errNoRecord = errors.New("no record now")

// Source reads the kernel's log live.
type Source struct {
	opts    Options
	started time.Time
	foreign atomic.Uint64
	pos     Position
	tail    []byte        // of what was read with syslog(2)
	stamp   time.Duration // the latest that was read
	// parser outlives a Run, so that reports keep their numbers.
	parser oomreport.Parser
	ran    bool
}

// New returns a Source that has not opened anything yet.
func New(opts Options) *Source {
	if opts.Path == "" {
		opts.Path = "/dev/kmsg"
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.open == nil {
		opts.open = openDevice
	}
	if opts.ring == nil {
		opts.ring = openRing
	}
	if opts.kills == nil {
		opts.kills = func() (counter, error) { return opts.Roots.OpenVMStat() }
	}
	if opts.now == nil {
		opts.now = time.Now
	}
	if opts.clock == nil {
		opts.clock = host.MonotonicClock
	}
	s := &Source{opts: opts, started: opts.now(), pos: opts.Since}
	if s.pos.BootID == "" || s.pos.BootID != opts.BootID {
		s.pos = Position{BootID: opts.BootID}
	}
	return s
}

// Readable tells whether the log can be read with syslog(2), for want of the
// device at path.
func Readable(path string) bool {
	if _, err := os.Stat(path); err == nil || !instead(path, err) {
		return false
	}
	_, err := openRing()
	return err == nil
}

// instead tells whether syslog(2) may stand in for a device that could not be
// opened: where not even its folder is, it is no machine's.
func instead(path string, err error) bool {
	if errors.Is(err, fs.ErrPermission) {
		return true
	}
	_, folder := os.Stat(filepath.Dir(path))
	return errors.Is(err, fs.ErrNotExist) && folder == nil
}

// Name returns death.SourceKmsg.
func (s *Source) Name() death.Source { return death.SourceKmsg }

// Foreign returns how many records were skipped because the kernel did not
// write them.
func (s *Source) Foreign() uint64 { return s.foreign.Load() }

// Run reads what the log holds, says that it watches, and then waits for more
// until ctx ends. When it is run again it goes on behind the last record read.
func (s *Source) Run(ctx context.Context, emit func(signal.Signal)) error {
	dev, err := s.opts.open(s.opts.Path)
	var log ring
	if err != nil && s.opts.Syslog && instead(s.opts.Path, err) {
		var not error
		if log, not = s.opts.ring(); not == nil {
			err = nil
		}
	}
	if err != nil {
		err = explained(err)
		s.state(emit, signal.SourceState{Reason: err.Error()})
		return err
	}
	if log != nil {
		return s.follow(ctx, log, emit)
	}
	defer func() { _ = dev.Close() }()
	r := s.reader(emit)
	r.dev, r.buf = dev, make([]byte, maxRecord)
	stop := context.AfterFunc(ctx, func() { _ = dev.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := r.loop(ctx); err != nil && ctx.Err() == nil {
		err = fmt.Errorf("read %s: %w", s.opts.Path, err)
		s.state(emit, signal.SourceState{Reason: err.Error()})
		return err
	}
	return nil
}

// reader is for one Run.
func (s *Source) reader(emit func(signal.Signal)) *reader {
	zero, err := s.opts.clock()
	if err != nil {
		s.opts.Logger.Warn("kernel's clock is not known; times are of reading", "err", err)
	}
	r := &reader{
		src: s, emit: emit, clock: clock{zero: zero}, draining: true,
		told: s.pos.Seq, have: s.pos.Seq > 0 && s.pos.Seq&stampBit == 0, parsed: s.ran,
	}
	s.ran = true
	return r
}

func (s *Source) state(emit func(signal.Signal), st signal.SourceState) {
	now := s.opts.now()
	emit(signal.Signal{Time: now.UTC(), Observed: now, Source: death.SourceKmsg, Body: st})
}

// explained adds to an error of opening what to do about it.
func explained(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: in a container, add the capability SYSLOG, or pass the device in: --device /dev/kmsg", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: needs CAP_SYSLOG where kernel.dmesg_restrict is 1, and in a container --device /dev/kmsg", err)
	}
	return err
}

// reader is one run over the device.
type reader struct {
	src    *Source
	dev    device
	emit   func(signal.Signal)
	clock  clock
	dec    kernlog.Decoder
	events []oomreport.Event
	buf    []byte
	// draining is true while records from before this run are read.
	draining bool
	// told is the record up to which nothing is told again; parsed, that the
	// parser has seen those; have, that some record was read in this boot.
	told   uint64
	parsed bool
	have   bool
	// malformed counts the records in a row that are none.
	malformed int
}

// maxMalformed is how many records in a row may be none: a file that gives no
// other is not the kernel's log.
const maxMalformed = 64

var errNotALog = errors.New("not a kernel log")

// maxRecord is more than any kernel's record takes (CONSOLE_EXT_LOG_MAX is
// 8 KiB at most).
const maxRecord = 16 << 10

// loop reads until ctx ends or the device fails.
func (r *reader) loop(ctx context.Context) error {
	for ctx.Err() == nil {
		n, err := r.dev.Read(r.buf, false)
		waited := false
		if errors.Is(err, errNoRecord) {
			if r.draining {
				r.draining = false
				r.src.state(r.emit, signal.SourceState{Up: true, Mode: "kmsg"})
			}
			waited = true
			n, err = r.dev.Read(r.buf, true)
		}
		switch {
		case err == nil && n > 0:
			r.record(r.buf[:n], waited)
			if r.malformed >= maxMalformed {
				return errNotALog
			}
		case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.EINTR):
			// Overrun, or a record larger than the buffer: the kernel has
			// moved on, and the next sequence number says how far.
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, errNoRecord):
		case err == nil:
			return io.ErrUnexpectedEOF
		default:
			return err
		}
	}
	return nil
}

// record takes one raw record.
func (r *reader) record(raw []byte, waited bool) {
	rec, err := r.dec.Kmsg(raw)
	if err != nil {
		r.malformed++
		r.src.opts.Logger.Debug("record skipped", "err", err)
		return
	}
	r.malformed = 0
	if !upTo(r.told, rec.Seq, rec.Stamp) {
		r.gap(rec.Seq)
	}
	r.take(rec, waited)
}

// take feeds a record to the parser, if it is the kernel's.
func (r *reader) take(rec kernlog.Record, waited bool) {
	known := upTo(r.told, rec.Seq, rec.Stamp)
	r.src.stamp = max(r.src.stamp, rec.Stamp)
	if rec.Facility != 0 {
		if !known {
			r.src.foreign.Add(1)
		}
		return
	}
	if known && r.parsed {
		return
	}
	now := r.src.opts.now()
	r.clock.learn(rec.Stamp, now, waited)
	r.events = r.src.parser.Feed(r.events[:0], rec)
	r.give(r.events, now)
}

// gap counts the records between the last one and this one. The first record
// of a ring that was never read has none before it.
func (r *reader) gap(seq uint64) {
	pos := &r.src.pos
	if r.have && seq > pos.Seq+1 {
		now := r.src.opts.now()
		r.give(r.src.parser.Gap(r.events[:0]), now)
		r.emit(signal.Signal{Time: now.UTC(), Observed: now, Source: death.SourceKmsg, Body: signal.Lost{
			Count: seq - pos.Seq - 1, Why: "the kernel's log overran before it was read",
		}})
	}
	pos.Seq, r.have = seq, true
}

func (r *reader) give(events []oomreport.Event, now time.Time) {
	for _, e := range events {
		o := originOf(e)
		if r.told > 0 && upTo(r.told, o.Seq, o.Stamp) {
			continue
		}
		at := r.clock.wall(o.Stamp, now)
		r.emit(signal.Signal{
			Time: at, Observed: now, Source: death.SourceKmsg,
			Recovered: r.draining && at.Before(r.src.started),
			Body:      bodyOf(e, r.src.opts.BootID),
		})
	}
}

// clock turns printk's stamps into wall time. Its zero is taken from
// CLOCK_MONOTONIC at the start, but printk counts sched_clock, which is not
// disciplined: after weeks the two may be minutes apart. What is seen live
// corrects it: no record is from the future, and one that was waited for is
// not old.
type clock struct {
	zero host.BootClock
}

// staleAfter is how old a record that was waited for may be: far more than
// reading takes, also on a machine that swaps itself to death.
const staleAfter = time.Second

// learn corrects the zero by a record that was read now.
func (c *clock) learn(stamp time.Duration, now time.Time, waited bool) {
	if !c.zero.Known() {
		return
	}
	if age := now.Sub(c.zero.Wall(stamp)); age < 0 || waited && age > staleAfter {
		c.zero = host.NewBootClock(now.Add(-stamp))
	}
}

// wall gives the time of a stamp; now where no clock is known.
func (c *clock) wall(stamp time.Duration, now time.Time) time.Time {
	if !c.zero.Known() {
		return now.UTC()
	}
	return c.zero.Wall(stamp).UTC()
}
