// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package host

import "fmt"

// MonotonicClock is known on Linux only.
func MonotonicClock() (BootClock, error) { return BootClock{}, errNoClock() }

// BoottimeClock is known on Linux only.
func BoottimeClock() (BootClock, error) { return BootClock{}, errNoClock() }

func errNoClock() error {
	return fmt.Errorf("clock counted from boot: %w; Linux has it", ErrNotSupported)
}
