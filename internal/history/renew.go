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

// besides are the endings of the files that SQLite keeps beside the history.
var besides = []string{"-wal", "-shm"}

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
)

// look costs one stat. What cannot be told is taken for in place.
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
	}
	return inPlace
}

// renew looks whether the file in use is still the one at the path. When it
// was removed or replaced, renew takes into use what is there now, or begins a
// new one, and returns true. After an error no file is in use, and the next
// call tries again.
func (s *Store) renew(ctx context.Context) (bool, error) {
	if s.path == Memory {
		return false, nil
	}
	s.mu.RLock()
	fine := s.lost == nil && s.own.look(s.path) == inPlace
	s.mu.RUnlock()
	if fine {
		return false, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil {
		what := s.own.look(s.path)
		if what == inPlace {
			return false, nil // somebody else was here
		}
		s.leave(ctx, what)
	}
	why := s.notice
	s.notice = ""
	err := s.begin(ctx)
	if err == nil && s.notice != "" {
		why += "; " + s.notice // that one was damaged
	}
	s.notice, s.lost = why, err
	return err == nil, err
}

// leave ends the use of a file that is not at the path any more.
func (s *Store) leave(ctx context.Context, what whereabouts) {
	at := s.now().UTC().Format(time.RFC3339)
	if what == removed {
		s.notice = fmt.Sprintf("%s was removed while in use (noticed %s): a new history was begun there, and the deaths in the old one are gone", s.path, at)
	} else {
		s.notice = fmt.Sprintf("%s was replaced by another file while in use (noticed %s): that one is in use now, and the deaths in the old one are gone from here", s.path, at)
	}
	s.log.Warn("history removed or replaced while in use; going on with what is at its path", "path", s.path, "reason", s.notice)
	// Should it have been moved, it is whole where it is now.
	_, _ = s.write.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`)
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
	unlock(s.lock)
	s.lock, s.own = nil, ownFiles{}
	s.bad.clear()
}
