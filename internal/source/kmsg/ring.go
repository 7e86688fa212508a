// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/kernlog"
	"github.com/coroner-dev/coroner/internal/parse/oomreport"
	"github.com/coroner-dev/coroner/internal/signal"
)

// ring is the kernel's log as syslog(2) gives it: as text, over and over.
type ring interface {
	// Size is how many bytes the kernel keeps.
	Size() (int, error)
	// ReadAll gives the newest of it, whole records, as much as buf holds.
	ReadAll(buf []byte) (int, error)
}

// counter is the kernel's count of OOM kills.
type counter interface {
	OOMKills() (uint64, error)
	Close() error
}

const (
	// ringTick is how often it is looked whether the kernel killed, ringRest
	// how often the log is read although it did not: a reading walks the whole
	// of the log in the kernel.
	ringTick = time.Second
	ringRest = 10
	// ringFirst is what is read of the end; where that does not reach back to
	// the last reading, all is.
	ringFirst = 16 << 10
	// ringMost bounds a reading. Heads of lines make a log longer than it is kept.
	ringMost = 16 << 20
)

var errNoStamps = errors.New("syslog(2) gives no times: switch them on with printk.time=1 on the kernel's command line, or: echo 1 > /sys/module/printk/parameters/time")

// ringReader is one run over the ring.
type ringReader struct {
	*reader
	log   ring
	buf   []byte
	whole oomreport.Whole
	kills counter // nil: the kernel does not count
	count uint64
	known bool
	again bool // the kernel counts a kill before it writes of it
	idle  int
}

// follow reads with syslog(2), which has nothing that could be waited for.
func (s *Source) follow(ctx context.Context, log ring, emit func(signal.Signal)) error {
	r := &ringReader{reader: s.reader(emit), log: log, buf: make([]byte, ringFirst)}
	if s.stamp > 0 {
		r.told = stampSeq(s.stamp)
	}
	if kills, err := s.opts.kills(); err == nil {
		r.kills = kills
		defer func() { _ = kills.Close() }()
	}
	tick := time.NewTicker(ringTick)
	defer tick.Stop()
	for {
		if killed, due := r.due(); due {
			if err := r.read(killed); err != nil {
				err = fmt.Errorf("syslog(2): %w", err)
				s.state(emit, signal.SourceState{Reason: err.Error()})
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// due tells whether to read now, and whether the kernel killed since the last tick.
func (r *ringReader) due() (killed, due bool) {
	known := false
	var n uint64
	if r.kills != nil {
		var err error
		n, err = r.kills.OOMKills()
		known = err == nil
	}
	killed = known && r.known && n != r.count
	due = !known || !r.known || killed || r.again || r.idle+1 >= ringRest
	r.count, r.known, r.again = n, known, killed
	if r.idle++; due {
		r.idle = 0
	}
	return killed, due
}

// read takes in what was written since the last reading.
func (r *ringReader) read(killed bool) error {
	log, whole, err := r.text()
	if err != nil {
		return err
	}
	s := r.src
	now := s.opts.now()
	if r.draining && s.tail == nil {
		whole = r.reaches(log)
	}
	if !whole && len(log) > 0 {
		if s.stamp > 0 {
			r.told, r.parsed = stampSeq(s.stamp), true
		}
		s.tail = nil
		r.give(s.parser.Gap(r.events[:0]), now)
		r.emit(signal.Signal{Time: now.UTC(), Observed: now, Source: death.SourceKmsg, Body: signal.Lost{
			Count: 1, Why: "the kernel's log overran, or was cleared, before it was read: one record or more",
		}})
	}
	if err := r.lines(log, killed); err != nil {
		return err
	}
	r.remember(log)
	if r.draining {
		r.draining = false
		s.state(r.emit, signal.SourceState{Up: true, Mode: "syslog"})
	}
	return nil
}

// text is what of the log is new; false: something may be missing before it.
func (r *ringReader) text() ([]byte, bool, error) {
	tail := r.src.tail
	if tail != nil {
		n, err := r.log.ReadAll(r.buf)
		if err != nil {
			return nil, false, err
		}
		if log, ok := fresh(tail, r.buf[:n]); ok {
			return log, true, nil
		}
	}
	size, err := r.log.Size()
	if err != nil {
		return nil, false, err
	}
	for size = max(2*size, ringFirst); ; size *= 2 {
		buf := make([]byte, min(size, ringMost)) // rarely needed, and large
		n, err := r.log.ReadAll(buf)
		if err != nil {
			return nil, false, err
		}
		if n+maxRecord > len(buf) && len(buf) < ringMost {
			continue // there may be more
		}
		log, ok := fresh(tail, buf[:n])
		return log, ok, nil
	}
}

// remember keeps the end of what was read.
func (r *ringReader) remember(log []byte) {
	if len(log) > 0 {
		r.src.tail = bytes.Clone(lastLines(append(r.src.tail, log...)))
	}
}

// reaches tells whether the log, read for the first time, goes back to where
// an earlier run stopped.
func (r *ringReader) reaches(log []byte) bool {
	if r.told&stampBit == 0 {
		return true // not known
	}
	line, _, _ := bytes.Cut(log, []byte{'\n'})
	rec, ok := kernlog.Syslog(line)
	return !ok || upTo(r.told, 0, rec.Stamp)
}

// lines takes lines of the log.
func (r *ringReader) lines(log []byte, killed bool) error {
	r.date(log, killed)
	stamped, bare := 0, 0
	for line := range bytes.Lines(log) {
		rec, ok := kernlog.Syslog(bytes.TrimSuffix(line, []byte{'\n'}))
		switch {
		case !ok:
			r.src.opts.Logger.Debug("line skipped")
		case !rec.HasStamp:
			bare++
		default:
			stamped++
			r.line(r.whole.Feed(rec))
		}
	}
	r.line(r.whole.End())
	if bare > stamped {
		return errNoStamps
	}
	return nil
}

func (r *ringReader) line(rec kernlog.Record, ok bool) {
	if !ok {
		return
	}
	rec.Seq = stampSeq(rec.Stamp)
	r.take(rec, false)
	r.src.pos.Seq = max(r.src.pos.Seq, rec.Seq)
}

// date corrects the clock by the newest line: when the kernel killed, that is
// no older than a tick.
func (r *ringReader) date(log []byte, killed bool) {
	var newest time.Duration
	for line := range bytes.Lines(lastLines(log)) {
		if rec, ok := kernlog.Syslog(bytes.TrimSuffix(line, []byte{'\n'})); ok {
			newest = max(newest, rec.Stamp)
		}
	}
	now := r.src.opts.now()
	if killed && newest > 0 && r.clock.zero.Known() && now.Sub(r.clock.zero.Wall(newest)) > ringTick+staleAfter {
		r.clock.learn(newest, now.Add(-ringTick/2), true)
	}
}
