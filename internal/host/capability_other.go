// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package host

import "fmt"

// WithCapabilities works on Linux only: f is not run.
func WithCapabilities(CapSet, func()) error {
	return fmt.Errorf("capabilities: %w", ErrNotSupported)
}
