// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// kernelClock tells when the kernel chose a process to be killed, by a trace
// buffer of its own: nothing of coroner is in it.
type kernelClock struct {
	t   *testing.T
	dir string
}

func newKernelClock(t *testing.T) *kernelClock {
	t.Helper()
	mount := "/sys/kernel/tracing"
	if _, err := os.Stat(filepath.Join(mount, "instances")); err != nil {
		mount = t.TempDir()
		if err := unix.Mount("tracefs", mount, "tracefs", 0, ""); err != nil {
			t.Fatalf("mount tracefs, for the kernel's own time of a kill: %v", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(mount, 0); err != nil {
				t.Errorf("unmount tracefs: %v", err)
			}
		})
	}
	k := &kernelClock{t, filepath.Join(mount, "instances", fmt.Sprintf("coroner-bench-%d", os.Getpid()))}
	if err := os.Mkdir(k.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(k.dir); err != nil {
			t.Errorf("remove the trace buffer: %v", err)
		}
	})
	for _, s := range [][2]string{{"trace_clock", "mono"}, {"buffer_size_kb", "64"}, {"events/oom/mark_victim/enable", "1"}} {
		if err := os.WriteFile(filepath.Join(k.dir, s[0]), []byte(s[1]), 0); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

// of gives the time of a process's mark, and forgets all marks.
func (k *kernelClock) of(pid int) time.Duration {
	k.t.Helper()
	for _, m := range k.marks() {
		if m.pid == strconv.Itoa(pid) {
			k.forget()
			return m.at
		}
	}
	k.t.Fatalf("the kernel marked no process %d", pid)
	return 0
}

// until gives the times of the marks up to then.
func (k *kernelClock) until(then time.Duration) (at []time.Duration) {
	k.t.Helper()
	for _, m := range k.marks() {
		if m.at <= then {
			at = append(at, m.at)
		}
	}
	return at
}

type mark struct {
	pid string
	at  time.Duration
}

// marks are all since they were forgotten. A line is
// "comm-PID [001] d..1. 123.456789: mark_victim: pid=77 ...".
func (k *kernelClock) marks() (out []mark) {
	k.t.Helper()
	b, err := os.ReadFile(k.trace())
	if err != nil {
		k.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(line, ": mark_victim: pid=")
		if !ok {
			continue
		}
		pid, _, _ := strings.Cut(strings.TrimSpace(after), " ")
		seconds, err := strconv.ParseFloat(before[strings.LastIndexByte(before, ' ')+1:], 64)
		if err != nil {
			k.t.Fatalf("time of %q: %v", line, err)
		}
		out = append(out, mark{pid, time.Duration(seconds * 1e9)})
	}
	return out
}

func (k *kernelClock) trace() string { return filepath.Join(k.dir, "trace") }

// forget clears the buffer: opening the file to be written from its beginning
// does that, truncate(2) does nothing.
func (k *kernelClock) forget() {
	k.t.Helper()
	if err := os.WriteFile(k.trace(), nil, 0); err != nil {
		k.t.Fatal(err)
	}
}
