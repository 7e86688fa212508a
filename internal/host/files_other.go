// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package host

import (
	"fmt"
	"os"
)

// OpenFiles works on Linux only.
func OpenFiles() (uint64, error) { return 0, fmt.Errorf("limit of open files: %w", ErrNotSupported) }

// plainFile is an open file.
type plainFile struct{ *os.File }

func openPlain(path string) (plainFile, error) {
	f, err := os.Open(path)
	return plainFile{f}, err
}

// Close closes the file, which is for reading only: nothing of it can be lost.
func (f plainFile) Close() { _ = f.File.Close() }
