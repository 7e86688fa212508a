// SPDX-License-Identifier: Apache-2.0

package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/coroner-dev/coroner/internal/death"
)

// maxUnreadable bounds the memory of which deaths cannot be read.
const maxUnreadable = 10_000

// UnreadableError says that a death is there, but damaged.
type UnreadableError struct {
	ID  string
	Err error
}

// Error names the death and what is wrong with it.
func (e *UnreadableError) Error() string {
	return fmt.Sprintf("death %q is damaged in the history and cannot be read: %v", e.ID, e.Err)
}

// Unwrap is what is wrong with the record.
func (e *UnreadableError) Unwrap() error { return e.Err }

// Unreadable tells a reader that does not know this package that this one
// death is damaged, and not the history as a whole.
func (e *UnreadableError) Unreadable() bool { return true }

// unreadable remembers the deaths that were found damaged. The file's own
// check does not look into a row: a changed byte stays there unnoticed.
type unreadable struct {
	mu     sync.Mutex
	ids    map[string]struct{}
	logged bool
}

// add tells whether this is the first one ever.
func (u *unreadable) add(id string) (first bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ids == nil {
		u.ids = map[string]struct{}{}
	}
	if len(u.ids) < maxUnreadable {
		u.ids[id] = struct{}{}
	}
	first = !u.logged
	u.logged = true
	return first
}

func (u *unreadable) forget(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.ids, id)
}

func (u *unreadable) clear() {
	u.mu.Lock()
	defer u.mu.Unlock()
	clear(u.ids)
}

func (u *unreadable) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.ids)
}

func (s *Store) unreadableNotice(n int) string {
	deaths := fmt.Sprintf("%d deaths", n)
	switch {
	case n == 1:
		deaths = "1 death"
	case n >= maxUnreadable:
		deaths = fmt.Sprintf("at least %d deaths", n)
	}
	return fmt.Sprintf("%s in %s cannot be read, because the file is damaged there: they are left out", deaths, s.path)
}

// decode reads the body of a row. A body that is none is noted; it does not
// keep the others from being read.
func (s *Store) decode(id string, body any) (death.Death, error) {
	var d *death.Death
	err := errors.New("the body is no text")
	if text, ok := body.(string); ok {
		err = json.Unmarshal([]byte(text), &d)
	}
	if err == nil && d == nil {
		err = errors.New("the body is null")
	}
	if err != nil {
		if s.bad.add(id) {
			s.log.Warn("death in the history cannot be read and is left out; the status counts such", "path", s.path, "id", id, "err", err)
		}
		return death.Death{}, &UnreadableError{id, err}
	}
	d.ID = id // by which everything else goes, should the damage be there
	return *d, nil
}
