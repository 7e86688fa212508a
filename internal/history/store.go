// SPDX-License-Identifier: Apache-2.0

// Package history keeps deaths and finds them again. They live in one SQLite
// file (modernc.org/sqlite, no cgo), or in memory under the name ":memory:".
//
// The file is in WAL mode with synchronous=FULL: each commit ends with an fsync
// of the log of writes. Whatever Keep returned for is there after a kill -9 of
// the agent, a crash of the kernel and a power cut, as long as the file system
// and the disk do what fsync asks for; one that only says so may lose the last
// commits. A file that is damaged all the same is set aside under a new name,
// never deleted, also while it is in use.
//
// The statements are such that PostgreSQL takes them too, with $n for ?. What
// is SQLite's own is in open.go, search.go and vacuum of prune.go.
package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// Memory is the path of a history that is kept in memory and ends with the process.
const Memory = ":memory:"

// ErrNotFound is returned by Get for a death that the history does not have.
var ErrNotFound = errors.New("no such death")

// Options set up a Store. The zero value keeps everything for ever.
type Options struct {
	// Retention is how long a death is kept; 0 means for ever.
	Retention time.Duration
	// MaxBytes is how large the file may grow before the oldest deaths go;
	// 0 means any size. The -wal file beside it has some 4 MiB more.
	MaxBytes int64
	// Standby: where the file cannot be opened, Open gives a history in memory,
	// and Run tries again until what is in memory is in the file.
	Standby bool
	// Logger takes what Run does and what Open found; nil discards.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time

	vfs string // what SQLite reads and writes through; tests give their own
}

// Store is an open history. It is safe for concurrent use.
type Store struct {
	path string
	opts Options
	log  *slog.Logger
	now  func() time.Time

	// mu is held to read by whoever uses the file, and to write by renew,
	// which puts another in its place.
	mu       sync.RWMutex
	notice   string
	unclosed bool // the file's last user did not close it
	lock     *os.File
	own      ownFiles
	files    int // how many were in use before this one
	closed   bool
	lost     error // why there is no file in use; nil: there is
	standby  error // why memory stands in for the file; nil: it does not
	told     atomic.Pointer[condition]

	// anew: the file is not the one of earlier rounds, and Keep is to say so.
	anew atomic.Bool
	// suspect: a read or write met damage, and the file is to be looked through.
	suspect atomic.Bool
	looked  atomic.Int64 // when it last was, for the sake of a read
	dropped atomic.Uint64

	// write has one connection, because SQLite has one writer. read is the
	// same one for a history in memory, which one connection owns.
	write, read *sql.DB
	put         putStatements
	// bad are the deaths that were found unreadable.
	bad unreadable
	// grown counts bytes put since the last pruning; full wakes Run.
	grown growth
}

// Entry is a death with its place in the order in which the history learned
// of deaths and amendments.
type Entry struct {
	Seq   int64
	Death death.Death
}

// condition is what is told of a Store while its lock may be held for long,
// by a disk that hangs.
type condition struct {
	path, notice string
	trouble      error
}

// tell brings the condition up to date, under the lock.
func (s *Store) tell() {
	c := condition{s.path, s.notice, errors.Join(s.lost, s.standby)}
	if s.standby != nil {
		c.path = Memory
	}
	s.told.Store(&c)
}

// Path is where the deaths are kept. Like Notice, Trouble and Dropped it does
// not wait for the disk.
func (s *Store) Path() string { return s.told.Load().path }

// Trouble is why deaths are not kept where they should be; nil: they are.
func (s *Store) Trouble() error { return s.told.Load().trouble }

// Dropped counts the deaths that memory, standing in for the file, had no room
// for.
func (s *Store) Dropped() uint64 { return s.dropped.Load() }

// Notice says what had to be done to the file, such as setting a damaged one
// aside, and how many deaths were found unreadable; empty when nothing.
func (s *Store) Notice() string {
	n, notice := s.bad.count(), s.told.Load().notice
	switch {
	case n == 0:
		return notice
	case notice != "":
		return notice + "; " + s.unreadableNotice(n)
	}
	return s.unreadableNotice(n)
}

// Close ends the use of the file. Run must have ended before.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.closeFile()
	s.closed = true
	unlock(s.lock)
	s.lock = nil
	if err != nil {
		return fmt.Errorf("close history: %w", err)
	}
	return nil
}

func (s *Store) closeFile() error {
	err := s.put.close()
	if s.read != s.write {
		err = errors.Join(err, s.read.Close())
	}
	return errors.Join(err, s.write.Close())
}

// State returns the names and values that Put was given along with deaths.
// Of a damaged file it returns what can be read, and logs the rest: nothing in
// it is worth an agent that does not start. The only error is that of ctx.
func (s *Store) State(ctx context.Context) (map[string]string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	state := map[string]string{}
	err := readState(ctx, s.read, state)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("read state: %w", ctx.Err())
	}
	if err != nil {
		s.log.Warn("state of the last run not read to the end", "path", s.path, "err", err)
	}
	return state, nil
}

func readState(ctx context.Context, db *sql.DB, state map[string]string) error {
	rows, err := db.QueryContext(ctx, `SELECT name, value FROM state`)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	var bad error
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			bad = err
			continue
		}
		state[name] = value
	}
	return errors.Join(bad, rows.Err())
}

// Stats are the figures of a history.
type Stats struct {
	Deaths int64
	// Bytes is the size of the pages in use.
	Bytes int64
	// Oldest and Newest are zero in an empty history.
	Oldest, Newest time.Time
	// Unreadable counts those of Deaths that were found damaged so far.
	Unreadable int64
}

// Stats returns how much is kept.
func (s *Store) Stats(ctx context.Context) (st Stats, err error) {
	err = s.reading(ctx, func() error {
		st, err = s.stats(ctx)
		return err
	})
	return st, err
}

func (s *Store) stats(ctx context.Context) (st Stats, err error) {
	var oldest, newest sql.NullInt64
	row := s.read.QueryRowContext(ctx,
		`SELECT count(*), (SELECT min(time_ns) FROM deaths), (SELECT max(time_ns) FROM deaths) FROM deaths`)
	if err := row.Scan(&st.Deaths, &oldest, &newest); err != nil {
		return Stats{}, fmt.Errorf("count deaths: %w", s.met(err))
	}
	if oldest.Valid {
		st.Oldest, st.Newest = time.Unix(0, oldest.Int64).UTC(), time.Unix(0, newest.Int64).UTC()
	}
	st.Bytes, err = s.usedBytes(ctx, s.read)
	st.Unreadable = int64(s.bad.count())
	return st, err
}
