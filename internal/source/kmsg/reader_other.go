// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package kmsg

import "errors"

// openDevice says that there is nothing to open.
func openDevice(string) (device, error) {
	return nil, errors.New("the kernel's log device is Linux's; elsewhere read a copy of a log: coroner explain FILE")
}

// openRing says the same.
func openRing() (ring, error) { return nil, errors.New("syslog(2) for the kernel's log is Linux's") }
