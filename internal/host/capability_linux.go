// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// WithCapabilities runs f on a thread that has no capability but those of
// keep, as far as this process has them. Capabilities belong to threads: the
// rest of the process keeps its own. What f starts elsewhere is not bound.
func WithCapabilities(keep CapSet, f func()) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with this goroutine, whatever
		// rights it has by then.
		runtime.LockOSThread()
		done <- confined(keep, f)
	}()
	return <-done
}

func confined(keep CapSet, f func()) error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var all [2]unix.CapUserData
	if err := unix.Capget(&head, &all[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	few := all
	few[0].Effective &= uint32(keep)
	few[1].Effective &= uint32(keep >> 32)
	if err := unix.Capset(&head, &few[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	f()
	if err := unix.Capset(&head, &all[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}
