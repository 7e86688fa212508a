// SPDX-License-Identifier: Apache-2.0

package history

import (
	"errors"
	"os"
	"path/filepath"
)

// errInUse says that somebody else holds the lock.
var errInUse = errors.New("is in use by another coroner, and two on one history would keep every death twice")

// lock makes this process the only one that writes the history at path. SQLite
// itself lets several write in turn. The lock is on a file beside it, because
// closing any descriptor of the history would drop SQLite's own locks on it.
// It ends with the process, however that ends; the file stays.
func lock(path string) (*os.File, error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // the same history under two names
	}
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// unlock lets others have the history; without a lock it does nothing.
func unlock(f *os.File) {
	if f != nil {
		unlockFile(f)
		_ = f.Close()
	}
}
