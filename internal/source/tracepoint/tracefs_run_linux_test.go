// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"testing"
	"time"
)

// TestPollTimeout: who was off the CPU past the time until which to wait must
// not wait for ever.
func TestPollTimeout(t *testing.T) {
	for d, want := range map[time.Duration]int{
		-time.Hour: 0, -5 * time.Millisecond: 0, -1: 0, 0: 0,
		1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, time.Second: 1000,
	} {
		if got := pollTimeout(d); got != want {
			t.Errorf("pollTimeout(%s) = %d, want %d", d, got, want)
		}
	}
}
