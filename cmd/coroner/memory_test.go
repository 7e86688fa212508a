// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"testing"
)

func TestGoLimit_LeavesHeadroom(t *testing.T) {
	for _, tt := range []struct{ cgroup, want int64 }{
		{100, 80}, {160 << 20, 128 << 20}, {math.MaxInt64 - 1, math.MaxInt64},
	} {
		if got := goLimit(tt.cgroup); got != tt.want {
			t.Errorf("goLimit(%d) = %d, want %d", tt.cgroup, got, tt.want)
		}
	}
}
