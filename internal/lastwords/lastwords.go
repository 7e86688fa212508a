// SPDX-License-Identifier: Apache-2.0

// Package lastwords reads what a container wrote last, from the file in which
// its engine keeps that: a bounded part of the end of one regular file. No
// link is followed out of the file's folder, and where the host's root is seen
// below another directory, none out of that. What a container wrote is its own
// claim of itself.
package lastwords

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/parse/containerlog"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Bounds of what is read and told.
const (
	// window is how much of the end of a file is read. Where that has fewer
	// than maxLines of the run, or they say that what counts stands farther up,
	// what is before it is read, too, up to farthest.
	window   = 256 << 10
	farthest = 8 << 20
	// chunk is read at once: a slow file is given up between two.
	chunk = 64 << 10
	// nearlyEmpty is a file that was begun a moment ago: the one before it is
	// read too.
	nearlyEmpty = 4 << 10

	maxLines = 64
	maxLine  = 1 << 10
	maxKept  = 16
	maxPath  = 4096
)

// Ask is whose last lines are wanted.
type Ask struct {
	// ContainerID and At, its end, are told with the answer.
	ContainerID string
	At          time.Time
	// Since and Until bound the lines to those of the run that ended; zero: no
	// bound.
	Since, Until time.Time
}

// Reader reads the ends of logs.
type Reader struct {
	// Roots says where the host's files are.
	Roots host.Roots
	// Keep says of a line before the last ones that it is wanted all the same;
	// nil: none is.
	Keep func(text string) bool
	// Long says of one of the last lines that it is part of something long, of
	// which the beginning counts; nil: none is.
	Long func(text string) bool
}

var (
	errNoPath     = errors.New("no absolute path")
	errNotRegular = errors.New("not a regular file")
)

// Log is an open log. It can be read after the engine has removed it.
type Log struct {
	reader *Reader
	dir    *os.Root
	name   string
	file   *os.File
}

// Open opens the log at path. It does not wait for the other end of a pipe.
func (r *Reader) Open(path string) (*Log, error) {
	if !filepath.IsAbs(path) || len(path) > maxPath {
		return nil, fmt.Errorf("open log: %w", errNoPath)
	}
	path = filepath.Clean(path)
	dir, err := r.folder(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("open the log's folder: %w", err)
	}
	l := &Log{reader: r, dir: dir, name: filepath.Base(path)}
	if l.file, err = openRegular(dir, l.name); err != nil {
		return nil, errors.Join(fmt.Errorf("open log: %w", err), dir.Close())
	}
	return l, nil
}

// folder opens a directory of the host.
func (r *Reader) folder(path string) (*os.Root, error) {
	top := r.Roots.RootPath()
	if top == string(filepath.Separator) {
		return os.OpenRoot(path)
	}
	root, err := os.OpenRoot(top)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.OpenRoot(strings.TrimPrefix(path, string(filepath.Separator)))
}

// openRegular opens a regular file of a folder.
func openRegular(dir *os.Root, name string) (*os.File, error) {
	// To open a device may do something; a pipe is taken for what it is below.
	if st, err := dir.Stat(name); err != nil {
		return nil, err
	} else if !st.Mode().IsRegular() {
		return nil, errNotRegular
	}
	f, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close lets the log go.
func (l *Log) Close() error { return errors.Join(l.file.Close(), l.dir.Close()) }

// Written is when the log was last written to; zero: not known.
func (l *Log) Written() time.Time {
	st, err := l.dir.Stat(l.name) // the one of that name now, if it was rotated
	if err != nil {
		if st, err = l.file.Stat(); err != nil {
			return time.Time{}
		}
	}
	return st.ModTime()
}

// Read reads the last lines, until ctx ends.
func (l *Log) Read(ctx context.Context, a Ask) signal.ContainerLog {
	answer := signal.ContainerLog{ID: a.ContainerID, At: a.At}
	t, err := l.last(ctx, a)
	for _, line := range t.Lines {
		answer.Lines = append(answer.Lines, signal.LogLine{Time: line.Time, Stream: line.Stream, Text: line.Text})
	}
	switch {
	case err != nil:
		answer.Error = "read log: " + err.Error()
	case t.Skipped > 0 && len(t.Lines) == 0:
		answer.Error = fmt.Sprintf("%d lines of the log are in no form known here", t.Skipped)
	}
	return answer
}

func (l *Log) last(ctx context.Context, a Ask) (containerlog.Tail, error) {
	b := containerlog.Bounds{Lines: maxLines, Bytes: maxLine, Since: a.Since, Until: a.Until, Keep: l.reader.Keep, Kept: maxKept}
	// What it was when it was opened may have been rotated away since then.
	if newer, err := openRegular(l.dir, l.name); err == nil {
		_ = l.file.Close()
		l.file = newer
	}
	from, data, err := tail(ctx, l.file)
	if err != nil {
		return containerlog.Tail{}, err
	}
	whole, size := from == 0, from+int64(len(data))
	if size < nearlyEmpty && strings.HasSuffix(l.name, jsonFile) {
		var earlier []byte
		if earlier, whole, err = l.rotated(ctx); err != nil {
			return containerlog.Tail{}, err
		}
		data = append(earlier, data...)
	}
	t := containerlog.Last(data, whole, b)
	if !whole && !t.Kept && b.Keep != nil {
		l.farther(ctx, &t, b, from, size)
	}
	return t, nil
}

// jsonFile is how the names of Docker's json-file driver end; it numbers the
// files before it.
const jsonFile = "-json.log"

// rotated is the end of the file before this one, mostly none, and whether
// that is all of it.
func (l *Log) rotated(ctx context.Context) ([]byte, bool, error) {
	f, err := openRegular(l.dir, l.name+".1")
	if err != nil {
		return nil, true, nil // there is none, or none that may be read
	}
	defer f.Close()
	from, data, err := tail(ctx, f)
	return data, from == 0, err
}

// tail reads the end of a file, and tells where that begins.
func tail(ctx context.Context, f *os.File) (int64, []byte, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, nil, err
	}
	return before(ctx, f, st.Size())
}

// farther looks before what was read from the offset from on for lines that
// are wanted, and puts them before those of t. Where it cannot, t stands.
//
// An engine reads what a container writes to stdout and to stderr apart, and
// may hold back a megabyte of one: the last line of the other then stands that
// far before the end.
func (l *Log) farther(ctx context.Context, t *containerlog.Tail, b containerlog.Bounds, from, size int64) {
	long := l.long(t.Lines)
	seen, begun, rest := len(t.Lines), t.Begun, t.Rest
	for from > 0 && size-from < farthest && rest < window && (long || seen < maxLines && !begun) {
		at, data, err := before(ctx, l.file, from+int64(rest))
		if err != nil {
			return
		}
		older := containerlog.Last(data, at == 0, b)
		if older.Kept {
			wanted := slices.DeleteFunc(older.Lines, func(line containerlog.Line) bool { return !b.Keep(line.Text) })
			t.Lines, t.Kept = append(wanted, t.Lines...), true
			return
		}
		from, seen, begun, rest = at, seen+len(older.Lines), older.Begun, older.Rest
	}
}

func (l *Log) long(lines []containerlog.Line) bool {
	if l.reader.Long == nil {
		return false
	}
	for _, line := range lines {
		if l.reader.Long(line.Text) {
			return true
		}
	}
	return false
}

// before reads the window of a file that ends at the offset end, and tells
// where it begins.
func before(ctx context.Context, f *os.File, end int64) (from int64, data []byte, err error) {
	from = max(0, end-window)
	data = make([]byte, end-from)
	for n := 0; n < len(data); {
		if ctx.Err() != nil {
			return 0, nil, context.Cause(ctx)
		}
		got, err := f.ReadAt(data[n:min(n+chunk, len(data))], from+int64(n))
		n += got
		if errors.Is(err, io.EOF) {
			return from, data[:n], nil // it was cut short meanwhile
		}
		if err != nil {
			return 0, nil, err
		}
	}
	return from, data, nil
}
