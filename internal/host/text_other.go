// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package host

import "fmt"

// LockText works on Linux only.
func LockText() (int64, error) { return 0, fmt.Errorf("mlock2: %w", ErrNotSupported) }
