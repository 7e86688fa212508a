// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestKeepable(t *testing.T) {
	for limit, want := range map[uint64]int{0: 0, 256: 64, 1024: 256, 16384: maxKept, 1<<64 - 1: maxKept} {
		if got := keepable(limit); got != want {
			t.Errorf("keepable(%d) = %d, want %d", limit, got, want)
		}
	}
}

// TestRecorder_FewOpenFiles: where the process may not have many files open,
// all cgroups are recorded all the same, and the others find theirs.
func TestRecorder_FewOpenFiles(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	few := before
	few.Cur = uint64(len(open) + 64)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	})
	const n = 200
	inBubble(t, Options{}, func(m *machine) {
		for i := range n {
			m.Watch(m.cgroup(fmt.Sprintf("/c%d", i), truth{usage: 4 * mib, limit: 8 * mib}))
		}
		m.sleep(3 * time.Second)
		if s, got := m.Stats(), len(m.Figures()); got != n || s.Errors != 0 {
			m.t.Errorf("%d of %d are recorded: %+v", got, n, s)
		}
		if kept := openFDs(m.t); kept == 0 || kept > int(few.Cur/4) {
			m.t.Errorf("%d files are kept open where the process may have %d", kept, few.Cur)
		}
	})
}
