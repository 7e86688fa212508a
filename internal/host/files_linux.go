// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// OpenFiles is how many files this process may have open.
func OpenFiles() (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	return limit.Cur, nil
}

// plainFile is an open file of procfs, sysfs or cgroupfs. An os.File asks the
// poller about each as well, and tells it of its end.
type plainFile int

func openPlain(path string) (plainFile, error) {
	fd, err := again(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return plainFile(fd), nil
}

// Read is that of io.Reader.
func (f plainFile) Read(b []byte) (int, error) {
	n, err := again(func() (int, error) { return unix.Read(int(f), b) })
	switch {
	case err != nil:
		return 0, err
	case n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// Close closes the file, which is for reading only: nothing of it can be lost.
func (f plainFile) Close() { _ = unix.Close(int(f)) }

// again does what a signal of Go's own runtime may interrupt.
func again(do func() (int, error)) (int, error) {
	for {
		n, err := do()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
