// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/kernlog"
	"github.com/coroner-dev/coroner/internal/parse/oomreport"
	"github.com/coroner-dev/coroner/internal/signal"
)

// FileOptions say what a copy of a log leaves open.
type FileOptions struct {
	// Now is when the log was read: it gives stamps without a year theirs.
	// Zero: such stamps give no time.
	Now time.Time
	// Location is the zone of stamps that name none; nil: UTC.
	Location *time.Location
	// Boot is the wall time of the log's zero. When it is not set, and the
	// log has no wall time either, times count from 1970-01-01: their
	// differences are true, their date says that it is not known.
	Boot time.Time
	// BootID goes into the signals.
	BootID string
	// Progress is told how many bytes of the file were read; nil: nobody is.
	Progress func(read int64)
}

// Stats says what ReadFile met.
type Stats struct {
	Bytes   int64  // as stored: before unpacking
	Lines   uint64 // all of them
	Records uint64 // lines that are the kernel's, as far as the framing tells
	Foreign uint64 // lines of other programs
	Framed  uint64 // lines whose framing was recognised, whosever they are
	Cut     uint64 // lines longer than 64 KiB, whose end was left out
	Lost    uint64 // records missing from the sequence of raw records
	Kills   uint64 // processes killed
	// Skipped counts lines that begin like the OOM killer's and are none.
	Skipped uint64
	Dropped oomreport.Dropped
}

// maxLine bounds a line of a file. A record of the kernel has 8 KiB at most.
const maxLine = 64 << 10

// The files that ReadFile cannot read.
var (
	ErrEmpty  = errors.New("the file is empty")
	ErrBinary = errors.New("not a text file")
)

// ReadFile reads a copy of the kernel's log in any framing that package
// kernlog knows, gzipped or not, of any size, and gives out what the OOM
// killer did in it, in order. Memory stays bounded. The signals carry
// Recovered, and no Observed: nobody saw them live.
func ReadFile(in io.Reader, opts FileOptions, emit func(signal.Signal)) (Stats, error) {
	f := &fileReader{opts: opts, emit: emit}
	f.lines = kernlog.Lines{Now: opts.Now, Location: opts.Location}
	f.zero = opts.Boot
	counted := &countingReader{r: in, tell: opts.Progress}
	text, err := unpacked(counted)
	if err == nil {
		err = f.read(text)
	}
	f.give(f.parser.Flush(f.events[:0]))
	f.stats.Bytes = counted.n
	f.stats.Framed = f.lines.Framed
	f.stats.Foreign, f.stats.Skipped = f.lines.Foreign, f.parser.Malformed
	f.stats.Dropped = f.parser.Dropped
	switch {
	case err != nil:
		return f.stats, err
	case f.stats.Lines == 0:
		return f.stats, ErrEmpty
	case f.nul && f.framed == 0 && f.stats.Kills == 0:
		return f.stats, ErrBinary
	}
	return f.stats, nil
}

type fileReader struct {
	opts   FileOptions
	emit   func(signal.Signal)
	lines  kernlog.Lines
	parser oomreport.Parser
	events []oomreport.Event
	stats  Stats

	framed  uint64
	nul     bool
	seq     uint64
	haveSeq bool
	zero    time.Time // wall time of stamp 0; zero: not known
	last    time.Time // of the latest event with a time
}

func (f *fileReader) read(in *bufio.Reader) error {
	for {
		line, cut, err := nextLine(in)
		if len(line) > 0 {
			f.line(line, cut)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", f.stats.Lines+1, err)
		}
	}
}

// nextLine reads one line; what goes beyond maxLine is skipped.
func nextLine(in *bufio.Reader) (line []byte, cut bool, err error) {
	line, err = in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, false, err
	}
	line = bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = in.ReadSlice('\n')
	}
	return line, true, err
}

func (f *fileReader) line(line []byte, cut bool) {
	f.stats.Lines++
	if cut {
		f.stats.Cut++
	}
	if f.framed == 0 && !f.nul {
		f.nul = bytes.IndexByte(line, 0) >= 0
	}
	rec, ok := f.lines.Feed(line)
	if rec.HasSeq {
		f.sequence(rec.Seq)
	}
	if !ok {
		return
	}
	f.stats.Records++
	if !rec.Bare {
		f.framed++
	}
	if rec.HasStamp && !rec.Time.IsZero() && f.opts.Boot.IsZero() {
		f.zero = rec.Time.Add(-rec.Stamp)
	}
	f.events = f.parser.Feed(f.events[:0], rec)
	f.give(f.events)
}

// sequence looks for records that are missing.
func (f *fileReader) sequence(seq uint64) {
	if f.haveSeq && seq != f.seq+1 {
		if seq > f.seq {
			f.stats.Lost += seq - f.seq - 1
		}
		f.give(f.parser.Gap(f.events[:0]))
	}
	f.seq, f.haveSeq = seq, true
}

func (f *fileReader) give(events []oomreport.Event) {
	for _, e := range events {
		at := f.wall(originOf(e))
		if k, ok := e.(*oomreport.Kill); ok && !k.Again {
			f.stats.Kills++
		}
		f.emit(signal.Signal{Time: at, Source: death.SourceKmsg, Recovered: true, Body: bodyOf(e, f.opts.BootID)})
	}
}

// wall gives the time of an event: the framing's, else the stamp's, else that
// of the event before.
func (f *fileReader) wall(o oomreport.Origin) time.Time {
	switch {
	case !o.Time.IsZero():
		f.last = o.Time
	case o.HasStamp && !f.zero.IsZero():
		f.last = f.zero.Add(o.Stamp).UTC()
	case o.HasStamp:
		f.last = time.Unix(0, int64(o.Stamp)).UTC()
	case f.last.IsZero():
		f.last = time.Unix(0, 0).UTC()
	}
	return f.last
}

func originOf(e oomreport.Event) oomreport.Origin {
	switch e := e.(type) {
	case *oomreport.Kill:
		return e.Origin
	case *oomreport.Group:
		return e.Origin
	case *oomreport.Note:
		return e.Origin
	}
	return oomreport.Origin{}
}

// packings are the forms of compression that are recognised and not read.
var packings = []struct{ name, magic, tool string }{
	{"xz", "\xfd7zXZ\x00", "xzcat"},
	{"zstd", "\x28\xb5\x2f\xfd", "zstdcat"},
	{"bzip2", "BZh", "bzcat"},
	{"a journal file", "LPKSHHRH", "journalctl -k -o json --file"},
}

// unpacked undoes gzip, by its first bytes; members one after the other, as
// log rotation makes them, are one text.
func unpacked(in io.Reader) (*bufio.Reader, error) {
	b := bufio.NewReaderSize(in, maxLine)
	head, err := b.Peek(8)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if bytes.HasPrefix(head, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("unpack gzip: %w", err)
		}
		return bufio.NewReaderSize(z, maxLine), nil
	}
	for _, p := range packings {
		if bytes.HasPrefix(head, []byte(p.magic)) {
			return nil, fmt.Errorf("%s is not read here; use: %s FILE | coroner explain", p.name, p.tool)
		}
	}
	return b, nil
}

// countingReader counts what is read, and tells it.
type countingReader struct {
	r    io.Reader
	n    int64
	tell func(int64)
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	if c.tell != nil {
		c.tell(c.n)
	}
	return n, err
}
