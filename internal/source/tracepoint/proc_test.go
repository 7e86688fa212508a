// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

func TestParseStatus(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		tid        int
		want       signal.Task
		parent     int
		first      bool
	}{
		{"host process", "Name:\tx\nTgid:\t7\nUid:\t1000\t0\t0\t0\nNSpid:\t7\n", 7, signal.Task{PID: 7, TID: 7, Comm: "x", UID: ptr(int64(1000)), Init: ptr(false)}, 0, false},
		{"a name that the kernel escapes", "Name:\ta\\nTgid: 8 \\\\n\nTgid:\t7\n", 7, signal.Task{PID: 7, TID: 7, Comm: "a\nTgid: 8 \\n"}, 0, false},
		{"first of a namespace", "Tgid:\t7\nPPid:\t3\nNSpid:\t7\t1\n", 7, signal.Task{PID: 7, TID: 7}, 3, true},
		{"nested", "Tgid:\t7\nPPid:\t3\nNSpid:\t7\t1\t12\n", 7, signal.Task{PID: 7, TID: 7, Init: ptr(false)}, 3, false},
		{"another thread", "Tgid:\t7\nPPid:\t3\nNSpid:\t9\t1\n", 9, signal.Task{PID: 7, TID: 9}, 3, false},
		{"before 4.1", "Tgid:\t7\nPPid:\t3\n", 7, signal.Task{PID: 7, TID: 7}, 3, false},
		{"gone", "", 7, signal.Task{TID: 7}, 0, false},
		{"cut in its last id", "Tgid:\t7\nPPid:\t3\nNSpid:\t7\t1", 7, signal.Task{PID: 7, TID: 7}, 3, false},
		{"numbers that are no ids", "Tgid:\t-7\nPPid:\t4294967296\nUid:\t-1\n", 7, signal.Task{TID: 7}, 0, false},
		{"broken", "Tgid:\tx\nUid:\nPPid:\tx\n", 7, signal.Task{TID: 7}, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := signal.Task{TID: tt.tid}
			parent, first := parseStatus([]byte(tt.text), &got)
			if diff := cmp.Diff(tt.want, got); diff != "" || parent != tt.parent || first != tt.first {
				t.Errorf("parent %d, first %v; want %d, %v; task (-want +got):\n%s", parent, first, tt.parent, tt.first, diff)
			}
		})
	}
}

// TestLookup_Init has a process 7, the first one of a pid namespace.
func TestLookup_Init(t *testing.T) {
	const alive, exiting = "3 (x) S 1 3 3 0 -1 4194304 0", "3 (x) S 1 3 3 0 -1 4194308 0"
	for _, tt := range []struct {
		name         string
		version      int
		own          string
		parent, stat string
		want         *bool
	}{
		{"v1, child of the runtime", 1, "5:memory:/c\n", "5:memory:/system\n", alive, ptr(true)},
		{"v1, child of the container", 1, "5:memory:/c\n", "5:memory:/c\n", alive, ptr(false)},
		{"v1, child of the root", 1, "5:memory:/c\n", "5:memory:/\n", alive, ptr(true)},
		{"v1, the parent exits: it shows the root", 1, "5:memory:/c\n", "5:memory:/\n", exiting, nil},
		{"v2, child of the runtime", 2, "0::/c\n", "0::/system\n", alive, ptr(true)},
		{"v2, child of the container", 2, "0::/c (deleted)\n", "0::/c\n", exiting, ptr(false)},
		{"v2, above the reader's namespace", 2, "0::/../c\n", "0::/../system\n", alive, ptr(true)},
		{"v2, the same above it", 2, "0::/../c\n", "0::/../c\n", alive, ptr(false)},
		{"the parent is gone", 2, "0::/c\n", "", "", nil},
		{"its own is not known", 2, "", "0::/c\n", alive, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range map[string]string{
				"7/cgroup": tt.own, "7/status": "Tgid:\t7\nPPid:\t3\nNSpid:\t7\t1\n", "3/cgroup": tt.parent, "3/stat": tt.stat,
			} {
				path := filepath.Join(dir, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			got := procfs{roots: host.Roots{Proc: dir}, version: tt.version}.lookup(7)
			if diff := cmp.Diff(tt.want, got.Init); diff != "" {
				t.Errorf("init (-want +got):\n%s", diff)
			}
		})
	}
}

// TestLookup_OtherProcfs: in a pid namespace of its own, an id of the kernel's
// events is another process's, and that one is not named.
func TestLookup_OtherProcfs(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"1/status": "Name:\tcoroner\nTgid:\t1\nNSpid:\t1\n", "1/comm": "coroner\n", "self/status": "NSpid:\t1\n"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "self", "ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("pid:[4026532000]", filepath.Join(dir, "self", "ns", "pid")); err != nil {
		t.Fatal(err)
	}
	p := newProcfs(host.Roots{Proc: dir})
	if diff := cmp.Diff(signal.Task{TID: 1}, p.lookup(1)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := p.threads(1, 9); got != nil {
		t.Errorf("threads %v", got)
	}
}
