// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	// remedy ends every message about the place itself.
	remedy = "choose another place with --history.path, or :memory: to keep deaths no longer than the agent runs"
	// applicationID marks the file as ours: "crnr" (PRAGMA application_id).
	applicationID = 0x63726e72
	// readers is how many reads run at once; each costs about half a MiB.
	readers = 3
	// alwaysCheck is how large a file is looked through at each start.
	alwaysCheck = 32 << 20
)

// Open opens the history at path, makes it when there is none, and brings an
// older one up to date. A damaged file is set aside as
// PATH.damaged-YYYYMMDDTHHMMSS and a new one begun; Notice and the log say so.
// A file of a newer version of coroner, of another program, or in use by
// another coroner, is refused. With Options.Standby what is refused is no error.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	if path == "" {
		return nil, fmt.Errorf("history: no path given (%s)", remedy)
	}
	s := newStore(path, o)
	err := s.begin(ctx)
	if err != nil && o.Standby {
		err = s.standBy(ctx, err)
	}
	if err != nil {
		return nil, err
	}
	s.tell()
	return s, nil
}

func newStore(path string, o Options) *Store {
	s := &Store{path: path, opts: o, log: o.Logger, now: o.Now, grown: newGrowth(o.MaxBytes)}
	if o.Standby && (o.MaxBytes <= 0 || o.MaxBytes > standbyBytes) {
		s.grown = newGrowth(standbyBytes)
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	return s
}

// begin takes the file into use. After an error nothing is left open.
func (s *Store) begin(ctx context.Context) (err error) {
	if s.path == Memory {
		if err := s.open(ctx, Memory); err != nil {
			return fmt.Errorf("history %s: %w", s.path, err)
		}
		return nil
	}
	if err := prepare(s.path); err != nil {
		return fmt.Errorf("history %s: %w (%s)", s.path, err, remedy)
	}
	if s.lock, err = lock(s.path); err != nil {
		return fmt.Errorf("history %s: %w (%s)", s.path, err, remedy)
	}
	defer func() {
		if err != nil {
			unlock(s.lock)
			s.lock = nil
		}
	}()
	writes, err := os.Stat(s.path + wal)
	s.unclosed = err == nil && writes.Size() > 0
	if err = s.openWhole(ctx); damaged(err) { // a page that could not be read just then looks the same
		if err = readable(s.path); err == nil {
			err = s.openWhole(ctx)
		}
	}
	switch {
	case damaged(err):
		err = s.beginAnew(ctx, err)
	case err != nil:
		err = fmt.Errorf("history %s: %w (%s)", s.path, err, remedy)
	}
	if err == nil {
		s.own = identify(s.path)
	}
	return err
}

// beginAnew sets the damaged file aside and opens a new one.
func (s *Store) beginAnew(ctx context.Context, why error) error {
	aside, err := setAside(s.path, s.now())
	if err != nil {
		return fmt.Errorf("history %s is damaged (%w) and cannot be set aside: %w (%s)", s.path, why, err, remedy)
	}
	s.notice = fmt.Sprintf("%s was damaged (%v): it is kept as %s, and a new history was begun", s.path, why, aside)
	s.log.Warn("damaged history set aside", "path", s.path, "aside", aside, "err", why)
	if err := prepare(s.path); err != nil {
		return fmt.Errorf("history %s: %w (%s)", s.path, err, remedy)
	}
	if err := s.open(ctx, s.path); err != nil {
		return fmt.Errorf("history %s, begun anew: %w (%s)", s.path, err, remedy)
	}
	s.anew.Store(true)
	return nil
}

// prepare makes the folder and the file, so that the file is private from the
// first moment; SQLite gives -wal and -shm the same mode.
func prepare(path string) error {
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return err
		}
		syncDir(filepath.Dir(dir))
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return errors.New("is no regular file")
	}
	// WAL needs new files beside it.
	probe, err := os.CreateTemp(dir, ".coroner-probe-*")
	if err != nil {
		return err
	}
	defer syncDir(dir)
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// syncDir makes the names in a folder outlast a power cut. Not every system
// can, and SQLite does the same for the files that it makes.
func syncDir(dir string) {
	if f, err := os.Open(dir); err == nil {
		_ = f.Sync()
		_ = f.Close()
	}
}

// open connects, checks and migrates. After an error nothing is left open.
func (s *Store) open(ctx context.Context, path string) (err error) {
	write, err := sql.Open("sqlite", dsn(path, "immediate", s.opts.vfs))
	if err != nil {
		return err
	}
	s.write = write
	s.write.SetMaxOpenConns(1)
	s.read = s.write
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closeFile())
		}
	}()
	if err := s.check(ctx); err != nil {
		return err
	}
	if err := s.migrate(ctx); err != nil {
		return err
	}
	if path != Memory {
		read, err := sql.Open("sqlite", dsn(path, "deferred", s.opts.vfs)+"&_pragma=query_only(1)&mode=rw") // and makes no file
		if err != nil {
			return err
		}
		s.read = read
		s.read.SetMaxOpenConns(readers)
		s.read.SetMaxIdleConns(readers)
	}
	return s.put.prepare(ctx, s.write)
}

// dsn names the file and the settings of each connection. The busy timeout
// matters only when another process reads the file.
func dsn(path, txlock, vfs string) string {
	v := url.Values{
		"_txlock":       {txlock},
		"_busy_timeout": {"5000"},
		"_journal_mode": {"WAL"},
		"_synchronous":  {"FULL"},
		"_pragma":       {"cache_size(-512)", "journal_size_limit(8388608)", "trusted_schema(0)"},
	}
	if path == Memory {
		return "file::memory:?" + v.Encode()
	}
	if vfs != "" {
		v.Set("vfs", vfs)
	}
	// Only a file without content takes this; one that has it would be written to.
	if fi, err := os.Stat(path); err == nil && fi.Size() == 0 {
		v.Set("_auto_vacuum", "INCREMENTAL")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		abs = path
	}
	return "file:" + (&url.URL{Path: abs}).EscapedPath() + "?" + v.Encode()
}

// check refuses another program's file and finds a damaged one.
func (s *Store) check(ctx context.Context) error {
	var id, objects int64
	if err := s.write.QueryRowContext(ctx, `PRAGMA application_id`).Scan(&id); err != nil {
		return err
	}
	if err := s.write.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master`).Scan(&objects); err != nil {
		return err
	}
	if objects == 0 {
		_, err := s.write.ExecContext(ctx, fmt.Sprintf(`PRAGMA application_id = %d`, applicationID))
		return err
	}
	if id != applicationID {
		return errors.New("is the database of another program")
	}
	if !s.wantsCheck() {
		return nil
	}
	var verdict string
	if err := s.write.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return &damageError{strings.Join(strings.Fields(verdict), " ")}
	}
	return nil
}

// openWhole opens the file, unless it was cut to nothing beside a log of
// writes: SQLite would take that for another file's, and remove it. A new file
// has a header before it has a log.
func (s *Store) openWhole(ctx context.Context) error {
	if fi, err := os.Stat(s.path); err == nil && fi.Size() == 0 && s.unclosed {
		return &damageError{"it is empty, beside a log of writes"}
	}
	return s.open(ctx, s.path)
}

// readable tells whether the disk gives all of the file. It must not be open:
// closing any descriptor of it drops SQLite's own locks.
func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.Copy(io.Discard, f)
	return err
}

// wantsCheck tells whether to look through the whole file, which takes about
// half a second for 100 MiB: a small one always, a large one when a -wal file
// shows that it was not closed, or when it was found damaged.
func (s *Store) wantsCheck() bool {
	fi, err := os.Stat(s.path)
	if err != nil || fi.Size() <= alwaysCheck {
		return true
	}
	return s.unclosed || s.suspect.Load()
}

// damageError is what a quick check found.
type damageError struct{ verdict string }

func (e *damageError) Error() string { return "quick check: " + e.verdict }

// damaged tells whether err says that the file's content is broken.
func damaged(err error) bool {
	var found *damageError
	if errors.As(err, &found) {
		return true
	}
	var se *sqlite.Error
	if !errors.As(err, &se) {
		return false
	}
	code := se.Code() & 0xff // without the extension
	return code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB
}

// setAside renames the file, and its -wal and -shm along with it, so that it
// can still be opened under its new name. It returns that name.
func setAside(path string, now time.Time) (string, error) {
	base := path + ".damaged-" + now.UTC().Format("20060102T150405")
	aside := base
	for n := 2; ; n++ {
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return "", err
		}
		aside = fmt.Sprintf("%s-%d", base, n)
	}
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	for _, suffix := range besides {
		if err := os.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	syncDir(filepath.Dir(path))
	return aside, nil
}
