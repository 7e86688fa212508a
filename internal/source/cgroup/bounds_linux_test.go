// SPDX-License-Identifier: Apache-2.0

package cgroup

import "testing"

func TestKeepable(t *testing.T) {
	for limit, want := range map[uint64]int{0: 0, 256: 64, 1024: 256, 8192: maxKept, 1 << 40: maxKept, 1<<64 - 1: maxKept} {
		if got := keepable(limit); got != want {
			t.Errorf("keepable(%d) = %d, want %d", limit, got, want)
		}
	}
}
