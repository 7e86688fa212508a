// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// MonotonicClock samples CLOCK_MONOTONIC, which stands still in suspend: the
// clock of BPF's ktime_get_ns and of trace buffers set to "mono". The stamps
// of the kernel's log are of sched_clock, which starts with it but drifts.
func MonotonicClock() (BootClock, error) { return sample(unix.CLOCK_MONOTONIC) }

// BoottimeClock samples CLOCK_BOOTTIME (since Linux 2.6.39), which counts
// suspended time too: the clock of BPF's ktime_get_boot_ns, of trace buffers
// set to "boot" and of the start times in /proc/PID/stat.
func BoottimeClock() (BootClock, error) { return sample(unix.CLOCK_BOOTTIME) }

func sample(id int32) (BootClock, error) {
	return sampledClock(func() (time.Duration, error) {
		var ts unix.Timespec
		if err := unix.ClockGettime(id, &ts); err != nil {
			return 0, fmt.Errorf("read clock %d: %w", id, err)
		}
		return time.Duration(ts.Nano()), nil
	}, time.Now)
}
