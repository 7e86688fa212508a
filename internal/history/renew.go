// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// wal is the ending of SQLite's log of writes.
const wal = "-wal"

// besides are the endings of the files that SQLite keeps beside the history.
var besides = []string{wal, "-shm"}

// ownFiles tells the files in use from others of the same name.
type ownFiles struct {
	main    os.FileInfo // nil: not known
	besides map[string]os.FileInfo
}

func identify(path string) ownFiles {
	own := ownFiles{besides: map[string]os.FileInfo{}}
	if fi, err := os.Stat(path); err == nil {
		own.main = fi
	}
	for _, suffix := range besides {
		if fi, err := os.Stat(path + suffix); err == nil {
			own.besides[suffix] = fi
		}
	}
	return own
}

// whereabouts of the file in use.
type whereabouts int

const (
	inPlace whereabouts = iota
	removed
	replaced
	bereft  // of its log of writes, which holds the newest deaths
	emptied // cut to nothing
)

// look costs two stats. What cannot be told is taken for in place.
func (o ownFiles) look(path string) whereabouts {
	if o.main == nil {
		return inPlace
	}
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return removed
	case err == nil && !os.SameFile(fi, o.main):
		return replaced
	case err == nil && fi.Size() == 0 && o.main.Size() > 0:
		return emptied
	case err != nil || o.besides[wal] == nil:
		return inPlace
	}
	fi, err = os.Stat(path + wal)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(fi, o.besides[wal]) {
		return bereft
	}
	return inPlace
}

// errClosed is met by who uses a history after Close.
var errClosed = errors.New("the history is closed")

// renew looks whether the file in use is still the one at the path, and whole
// where there is reason to doubt it. Else renew takes into use what is there
// now, or begins a new one. It returns which file that is. After an error no
// file is in use, and the next call tries again.
func (s *Store) renew(ctx context.Context) (int, error) {
	if s.path == Memory {
		return 0, nil
	}
	s.mu.RLock()
	file := s.files
	fine := s.standby != nil || s.lost == nil && !s.suspect.Load() && s.own.look(s.path) == inPlace
	s.mu.RUnlock()
	if fine {
		return file, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.tell()
	if s.closed {
		return s.files, errClosed
	}
	if s.lost == nil {
		what := s.own.look(s.path)
		if what == inPlace && !s.suspect.Load() {
			return s.files, nil // somebody else was here
		}
		s.leave(ctx, what)
	}
	why := s.notice
	s.notice = ""
	err := s.begin(ctx)
	if err == nil {
		s.suspect.Store(false)
		if why != "" && s.notice != "" {
			why += "; "
		}
		why += s.notice // that one was damaged
	}
	s.notice, s.lost = why, err
	s.files++
	return s.files, err
}

// reading runs a read. One that failed because the file went from under it is
// done again, in the file that is there then.
func (s *Store) reading(ctx context.Context, read func() error) error {
	s.mu.RLock()
	err := read()
	gone := err != nil && s.lost == nil && !s.closed && s.own.look(s.path) != inPlace
	s.mu.RUnlock()
	if !gone {
		return err
	}
	if _, lost := s.renew(ctx); lost != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return read()
}

// discard sets the file in use aside: it looks whole, and does not work.
func (s *Store) discard(ctx context.Context, why error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.tell()
	if s.lost != nil || s.path == Memory || s.standby != nil {
		return errors.Join(s.lost, s.standby, why)
	}
	if err := s.closeFile(); err != nil {
		s.log.Warn("damaged history not closed", "path", s.path, "err", err)
	}
	s.bad.clear()
	if s.lost = s.beginAnew(ctx, why); s.lost != nil {
		unlock(s.lock)
		s.lock, s.own = nil, ownFiles{}
		return s.lost
	}
	s.own = identify(s.path)
	return nil
}

// met notes damage that a read met, for Run to look at, and returns err.
func (s *Store) met(err error) error {
	if !damaged(err) {
		return err
	}
	now := s.now().UnixNano()
	if last := s.looked.Load(); now-last > int64(pruneEvery) && s.looked.CompareAndSwap(last, now) {
		s.suspect.Store(true)
		s.grown.wake()
	}
	return err
}

// leave ends the use of a file that is not at the path any more, or that is to
// be looked through.
func (s *Store) leave(ctx context.Context, what whereabouts) {
	s.bad.clear()
	switch what {
	case inPlace, emptied: // what the log of writes has may be all of it
		if err := s.closeFile(); err != nil {
			s.log.Warn("history in doubt not closed", "path", s.path, "err", err)
		}
	default:
		s.depart(ctx, what)
	}
	unlock(s.lock)
	s.lock, s.own = nil, ownFiles{}
}

// depart leaves a file that is not whole at the path.
func (s *Store) depart(ctx context.Context, what whereabouts) {
	at := s.now().UTC().Format(time.RFC3339)
	// Should it have been moved, it is whole where it is now. The log of writes
	// is still open, also when it has no name any more.
	whole := s.checkpoint(ctx)
	s.anew.Store(what != bereft || whole != nil)
	switch {
	case what == bereft && whole == nil:
		s.notice = fmt.Sprintf("%s was removed while in use (noticed %s): what was in it is in %s", s.path+wal, at, s.path)
	case what == bereft:
		s.notice = fmt.Sprintf("%s was removed while in use (noticed %s): the newest deaths are gone (%v)", s.path+wal, at, whole)
	case what == removed:
		s.notice = fmt.Sprintf("%s was removed while in use (noticed %s): a new history was begun there, and the deaths in the old one are gone", s.path, at)
	default:
		s.notice = fmt.Sprintf("%s was replaced by another file while in use (noticed %s): that one is in use now, and the deaths in the old one are gone from here", s.path, at)
	}
	s.log.Warn("history removed or replaced while in use; going on with what is at its path", "path", s.path, "reason", s.notice)
	if err := s.closeFile(); err != nil {
		s.log.Warn("removed history not closed", "path", s.path, "err", err)
	}
	// A -wal left behind would be taken for that of the next file.
	for _, suffix := range besides {
		fi, err := os.Stat(s.path + suffix)
		if err == nil && s.own.besides[suffix] != nil && os.SameFile(fi, s.own.besides[suffix]) {
			_ = os.Remove(s.path + suffix)
		}
	}
}

// checkpoint moves the log of writes into the file.
func (s *Store) checkpoint(ctx context.Context) error {
	var busy, frames, moved int64
	if err := s.write.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &frames, &moved); err != nil {
		return err
	}
	if busy != 0 {
		return errors.New("a reader is in the way")
	}
	return nil
}
