// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package host

import "fmt"

// OpenFiles works on Linux only.
func OpenFiles() (uint64, error) { return 0, fmt.Errorf("limit of open files: %w", ErrNotSupported) }
