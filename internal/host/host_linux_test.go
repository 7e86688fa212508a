// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/host"
)

// The machine's own files, with what other programs say of them.

func TestRoots_ThisMachine(t *testing.T) {
	var r host.Roots
	var uts syscall.Utsname
	if err := syscall.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	var release strings.Builder
	for _, c := range uts.Release {
		if c == 0 {
			break
		}
		release.WriteByte(byte(c))
	}
	if got, err := r.KernelRelease(); err != nil || got != release.String() {
		t.Errorf("KernelRelease: got %q, %v, want %q", got, err, release.String())
	}
	if id, err := r.BootID(); err != nil || len(id) != 36 {
		t.Errorf("BootID: got %q, %v, want 36 characters", id, err)
	}
	if ids, err := r.TaskIDs(os.Getpid()); err != nil || ids.Parent != os.Getppid() || len(ids.Own) == 0 || ids.First() {
		t.Errorf("TaskIDs of this test: got %+v, %v, want parent %d", ids, err, os.Getppid())
	}
	want, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	if ns, err := r.PIDNS(os.Getpid()); err != nil || !strings.Contains(want, fmt.Sprintf("[%d]", ns)) {
		t.Errorf("PIDNS: got %d, %v, want %s", ns, err, want)
	}
	for _, p := range r.Probes() {
		t.Logf("%s: %s: %s; %s", p.Name, p.Status, p.Detail, p.Remedy)
	}
}

func TestMemoryHierarchy_ThisMachine(t *testing.T) {
	h, err := host.Roots{}.MemoryHierarchy()
	if err != nil {
		if os.Getenv("CORONER_CI") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	file := map[int]string{1: "memory.limit_in_bytes", 2: "cgroup.controllers"}[h.Version]
	if _, err := os.Stat(filepath.Join(h.Dir("/"), file)); err != nil {
		t.Errorf("%+v: %v", h, err)
	}
	// Found by its files alone, it is the same one.
	looked, err := host.Roots{Cgroup: h.Mount}.MemoryHierarchy()
	if err != nil || looked.Version != h.Version || looked.Mount != h.Mount || looked.Root != h.Root {
		t.Errorf("by its files: got %+v, %v, want %+v", looked, err, h)
	}
}

func TestTaskIDs_OfANamespace(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		if os.Getenv("CORONER_CI") == "1" {
			t.Fatal(err)
		}
		t.Skipf("new pid namespace: %v", err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	var r host.Roots
	ids, err := r.TaskIDs(cmd.Process.Pid)
	if err != nil || !ids.First() || ids.Parent != os.Getpid() {
		t.Errorf("got %+v, %v, want the first process of its namespace, child of %d", ids, err, os.Getpid())
	}
	inner, err := r.PIDNS(cmd.Process.Pid)
	outer, err2 := r.PIDNS(os.Getpid())
	if err != nil || err2 != nil || inner == outer || inner == 0 {
		t.Errorf("namespaces %d (%v) and %d (%v), want two", inner, err, outer, err2)
	}
}

func TestBootClock_Now(t *testing.T) {
	for name, sample := range map[string]func() (host.BootClock, error){"monotonic": host.MonotonicClock, "boottime": host.BoottimeClock} {
		before := time.Now()
		c, err := sample()
		if err != nil {
			t.Fatal(err)
		}
		if zero := c.Wall(0); !zero.Before(before) || zero.Before(before.Add(-20*365*24*time.Hour)) {
			t.Errorf("%s: zero at %v", name, zero)
		}
	}
	// btime of /proc/stat is the boot time in whole seconds.
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), "btime ")
	line, _, _ := strings.Cut(rest, "\n")
	btime, err := time.ParseDuration(line + "s")
	if err != nil {
		t.Fatal(err)
	}
	c, _ := host.BoottimeClock()
	if d := c.Wall(0).Sub(time.Unix(0, 0).Add(btime)); d < -2*time.Second || d > 2*time.Second {
		t.Errorf("boot at %v, /proc/stat says %v", c.Wall(0), time.Unix(0, 0).Add(btime).UTC())
	}
}

// TestStarted_Real: a process began between the two moments around its start.
func TestStarted_Real(t *testing.T) {
	c, err := host.BoottimeClock()
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	after := time.Now()
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	at, err := host.Roots{}.Started(cmd.Process.Pid)
	const tick = 10 * time.Millisecond
	if is := c.Wall(at); err != nil || is.Before(before.Add(-2*tick)) || is.After(after.Add(tick)) {
		t.Errorf("began at %v (%v), want it between %v and %v", is, err, before, after)
	}
	if _, err := (host.Roots{}).Started(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of no process: %v", err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"1": "1 (x) S 1 1 1 0 -1 4194560 1 2\n", "2": "2 (x) S 1 1 1 0 -1 0 1 2 3 4 5 6 7 8 9 10 11 12 18446744073709551615 0\n"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "stat"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		pid, _ := strconv.Atoi(name)
		if _, err := (host.Roots{Proc: dir}).Started(pid); err == nil || !strings.Contains(err.Error(), "no start time") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func BenchmarkVMStat(b *testing.B) {
	v, err := host.Roots{}.OpenVMStat()
	if err != nil {
		b.Skip(err)
	}
	defer v.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.OOMKills(); err != nil {
			b.Fatal(err)
		}
	}
}
