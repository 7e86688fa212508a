// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/host"
)

// found is what doctor says of one thing where the host's root is dir.
func found(t *testing.T, dir, name string) finding {
	t.Helper()
	roots := host.Roots{Root: dir}
	for _, trial := range engineTrials(roots, engineHosts{}) {
		if trial.name == name {
			return trial.finding(0)
		}
	}
	t.Fatalf("doctor does not look at %s", name)
	return finding{}
}

// listen makes a socket; what connects to it is not answered.
func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestDoctor_Engines(t *testing.T) {
	short := func(t *testing.T) string {
		dir, err := os.MkdirTemp("", "d")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		return dir
	}
	for _, name := range []string{"docker", "containerd", "cri"} {
		t.Run(name+", nowhere", func(t *testing.T) {
			f := found(t, short(t), name)
			if f.Status != host.Absent || f.Missing != nil || f.Adds == "" || !strings.Contains(f.Remedy, "--volume") {
				t.Errorf("%+v", f)
			}
		})
	}
	t.Run("a socket that nobody serves", func(t *testing.T) {
		dir := short(t)
		_ = listen(t, filepath.Join(dir, "run/docker.sock")).Close()
		if f := found(t, dir, "docker"); f.Status != host.No || !strings.Contains(f.Detail, "refused") || !strings.Contains(f.Remedy, "running?") {
			t.Errorf("%+v", f)
		}
	})
	t.Run("two sockets, one of them by two names", func(t *testing.T) {
		dir := short(t)
		_ = listen(t, filepath.Join(dir, "run/docker.sock")).Close()
		_ = listen(t, filepath.Join(dir, "run/podman/podman.sock")).Close()
		if err := os.MkdirAll(filepath.Join(dir, "var"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../run", filepath.Join(dir, "var/run")); err != nil {
			t.Fatal(err)
		}
		f := found(t, dir, "docker")
		if strings.Count(f.Detail, "docker.sock") != 1 || strings.Count(f.Detail, "refused") != 2 || strings.Count(f.Detail, "; ") != 1 || strings.Contains(f.Detail, "\n") {
			t.Errorf("detail %q", f.Detail)
		}
		if f.Missing == nil || len(f.Missing.Files) != 2 {
			t.Errorf("missing %+v", f.Missing)
		}
	})
	t.Run("an engine that hangs", func(t *testing.T) {
		dir := short(t)
		listen(t, filepath.Join(dir, "run/containerd/containerd.sock"))
		if f := found(t, dir, "containerd"); f.Status != host.No || f.Detail == "" {
			t.Errorf("%+v", f)
		}
	})
	t.Run("logs", func(t *testing.T) {
		dir := short(t)
		if f := found(t, dir, probeLogs); f.Status != host.Absent {
			t.Errorf("%+v", f)
		}
		if err := os.MkdirAll(filepath.Join(dir, usualLogs), 0o755); err != nil {
			t.Fatal(err)
		}
		if f := found(t, dir, probeLogs); f.Status != host.Yes || f.Needs == nil {
			t.Errorf("%+v", f)
		}
	})
}

// TestDoctor_LeastIsNotRoot: what is as good as root is no part of the fewest
// rights, even where it works.
func TestDoctor_LeastIsNotRoot(t *testing.T) {
	fs := []finding{
		{Probe: host.Probe{Name: "docker"}, Needs: &rights{Files: []string{"write socket"}}, set: host.CapDACOverride, apart: true},
		{Probe: host.Probe{Name: host.ProbeKmsg}, Needs: &rights{Files: []string{"read log"}}, set: host.CapSyslog},
	}
	if l := least(fs); strings.Join(l.Capabilities, " ") != "CAP_SYSLOG" || strings.Join(l.Files, " ") != "read log" {
		t.Errorf("%+v", l)
	}
}
