// SPDX-License-Identifier: Apache-2.0

package host

import "time"

// BootClock turns a clock that the kernel counts from boot into wall time. It
// holds the wall time of the clock's zero as it was when the BootClock was
// made: setting the wall clock later, or a suspend for the monotonic clock,
// makes it stale, so make a new one for live events now and then. The zero
// value knows nothing: its Known is false.
type BootClock struct {
	zero time.Time
}

// NewBootClock returns the clock whose zero was at this wall time, for
// records of another boot or another machine.
func NewBootClock(zero time.Time) BootClock { return BootClock{zero: zero.UTC().Round(0)} }

// Known tells whether the clock's zero is known.
func (c BootClock) Known() bool { return !c.zero.IsZero() }

// Wall returns the wall time, in UTC, at which the clock showed d.
func (c BootClock) Wall(d time.Duration) time.Time { return c.zero.Add(d) }

// sampledClock reads wall between two readings of the other clock, and keeps
// the pair with the least time between them.
func sampledClock(since func() (time.Duration, error), wall func() time.Time) (BootClock, error) {
	var best BootClock
	least := time.Duration(1<<63 - 1)
	for range 5 {
		before, err := since()
		if err != nil {
			return BootClock{}, err
		}
		now := wall()
		after, err := since()
		if err != nil {
			return BootClock{}, err
		}
		if gap := after - before; gap < least {
			least, best = gap, NewBootClock(now.Add(-before-gap/2))
		}
	}
	return best, nil
}
