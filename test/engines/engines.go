// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package engines is what tests with real container engines share: an engine's
// folder and daemon, the one program that their containers run, and a recorder
// of what a source says of them.
package engines

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Patience is how long a test waits for what must come.
const Patience = time.Minute

// busybox is what the containers run: one static program.
const busybox = "/bin/busybox"

// Need skips a test where user 0 or a program is missing. packages are Debian's.
func Need(t *testing.T, packages string, programs ...string) {
	t.Helper()
	why := ""
	if os.Getuid() != 0 {
		why = "an engine needs user 0"
	}
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			why = name + " is not installed (Debian: " + packages + ")"
		}
	}
	if _, err := os.Stat(busybox); err != nil {
		why = "no static busybox (Debian: busybox-static)"
	}
	switch {
	case why == "":
	case os.Getenv("CORONER_CI") == "1":
		t.Fatalf("CORONER_CI=1, but %s", why)
	default:
		t.Skip(why)
	}
}

// Dir is a folder with a short path, which goes with the test, and what is
// mounted in it too.
func Dir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ce")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unmountBelow(t, dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Daemon is a program that a test starts and stops.
type Daemon struct {
	T       *testing.T
	Log     string // a file
	Command []string
	// Answers tells whether it does.
	Answers func() bool

	cmd *exec.Cmd
}

// Start starts it, and waits until it answers.
func (d *Daemon) Start() {
	d.T.Helper()
	log, err := os.OpenFile(d.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.T.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(d.Command[0], d.Command[1:]...) //nolint:gosec // the test's own
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := d.cmd.Start(); err != nil {
		d.T.Fatal(err)
	}
	Poll(d.T, d.Command[0], func() bool {
		if d.Answers() {
			return true
		}
		var state syscall.WaitStatus
		if pid, _ := syscall.Wait4(d.cmd.Process.Pid, &state, syscall.WNOHANG, nil); pid != 0 {
			text, _ := os.ReadFile(d.Log)
			d.T.Fatalf("%s ended: %s", d.Command[0], text[max(0, len(text)-4096):])
		}
		return false
	})
}

// Stop ends it; containers live on.
func (d *Daemon) Stop() {
	d.T.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { defer close(done); _ = d.cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(Patience):
		d.T.Errorf("%s does not end", d.Command[0])
		_ = d.cmd.Process.Kill()
		<-done
	}
}

// MemoryCgroup is where a process lives, by the kernel's own word.
func MemoryCgroup(t *testing.T, pid string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", pid, "cgroup"))
	Must(t, err)
	unified := ""
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(f) != 3:
		case f[1] == "memory":
			return f[2]
		case f[1] == "":
			unified = f[2]
		}
	}
	return unified
}

// Poll waits for something.
func Poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", Patience, what)
		}
		<-tick.C
	}
}

// Must fails the test for an error.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// unmountBelow takes away what an engine left mounted.
func unmountBelow(t *testing.T, dir string) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			_ = syscall.Unmount(f[4], syscall.MNT_DETACH)
		}
	}
}
