// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docker

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
	"github.com/coroner-dev/coroner/test/engines"
	"github.com/coroner-dev/coroner/test/rig"
)

// TestOOMDaemons: Debian's earlyoom and systemd-oomd kill in real containers, as
// their units. Each death has its name and its killer, and what the daemon said.
func TestOOMDaemons(t *testing.T) {
	oomtest.Require(t, oomtest.InVM, oomtest.V2)
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skipf("needs a machine that this one is not: no systemd runs: %v", err)
	}
	before := oomKills(t)
	m := newMorgue(t, func(*agent.Options) {})
	// earlyoom takes the process that the kernel would: here the one that leaks, so
	// slowly that it is asked to end long before the size at which it is killed.
	const leak = "/coroner leak --block 4M --interval 100ms"
	for _, tc := range []struct {
		name    string
		command []string
		kills   int // percent below available, at which it sends SIGKILL, not SIGTERM
		signal  int
		rule    string
		lives   bool
	}{
		{"earlyoom-asks", strings.Fields(leak), 45, 15, "oom-daemon-obeyed", false},
		{"earlyoom-kills-worker", []string{"/bin/sh", "-c", leak + "; sleep 600"}, 20, 9, "oom-daemon", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pid := earlyoom(t, 20, tc.kills)
			id := m.runWith(tc.name, false, nil, container.Resources{}, tc.command...)
			ds := m.wait(t, tc.name, 1, func(d *death.Death) error {
				if err := byDaemon(d, id, "earlyoom.service", pid, tc.signal, tc.rule); err != nil {
					return err
				}
				if d.Container.Cgroup != "/system.slice/docker-"+id+".scope" {
					return fmt.Errorf("cgroup %s", d.Container.Cgroup)
				}
				if lives := d.Subject == death.SubjectProcess; lives != tc.lives || !lives && !m.sameCode(t, id, d) {
					return fmt.Errorf("%s, exit %+v", d.Subject, d.Exit)
				}
				return said(t, d, "earlyoom.service", fmt.Sprintf("to process %d ", d.Processes[0].PID))
			})
			t.Log(rig.Sketch(ds))
			m.remove(t, id)
		})
	}
	t.Run("systemd-oomd", func(t *testing.T) {
		pid := systemdOOMD(t)
		// What it reads does not fit: it waits for memory most of the time.
		script := "busybox dd if=/dev/zero of=/f bs=1M count=48; while :; do busybox cat /f >/dev/null; done"
		id := m.runWith("pressed", false, nil, container.Resources{Memory: 16 << 20, CgroupParent: victims}, "/bin/sh", "-c", script)
		ds := m.wait(t, "pressed", 1, func(d *death.Death) error {
			if err := byDaemon(d, id, "systemd-oomd.service", pid, 9, "oom-daemon"); err != nil {
				return err
			}
			if d.Subject != death.SubjectContainer || d.Container.Cgroup != "/"+victims+"/docker-"+id+".scope" || !m.sameCode(t, id, d) {
				return fmt.Errorf("%s in %+v, exit %+v", d.Subject, d.Container, d.Exit)
			}
			if !strings.Contains(d.Summary, "memory pressure for /"+victims) {
				return fmt.Errorf("it does not say why: %s", d.Summary)
			}
			return said(t, d, "systemd-oomd.service", "Killed "+d.Container.Cgroup+" due to ")
		})
		// Docker removes the cgroup within moments, and its attributes with it.
		t.Log(rig.Sketch(ds))
	})
	st, err := m.agent.Client.Status(t.Context())
	engines.Must(t, err)
	if n := st.UnattributedOOMKills; n == nil || *n != 0 {
		t.Errorf("unattributed OOM kills: %v", n)
	}
	if n := oomKills(t) - before; n != 0 {
		t.Errorf("the kernel killed %d itself", n)
	}
}

// sameCode tells whether a death has the exit code that Docker has noted.
func (m *morgue) sameCode(t *testing.T, id string, d *death.Death) bool {
	t.Helper()
	return d.Exit != nil && d.Exit.Code != nil && *d.Exit.Code == m.exitCode(t, id)
}

// victims is the slice that systemd-oomd watches.
const victims = "victims.slice"

func byDaemon(d *death.Death, id, unit string, pid, signal int, rule string) error {
	k := d.Killer
	if d.Cause != death.OOMUserspace || d.Rule != rule || d.Container == nil || d.Container.ID != id || len(d.Processes) == 0 ||
		k == nil || k.PID != pid || k.Unit != unit || k.Signal != signal {
		return fmt.Errorf("killer %+v\n%s", k, rig.Sketch([]death.Death{*d}))
	}
	return nil
}

// said holds that a death has the daemon's line, as journalctl shows it.
func said(t *testing.T, d *death.Death, unit, part string) error {
	t.Helper()
	out, err := exec.Command("journalctl", "--no-pager", "-o", "cat", "-u", unit).Output()
	engines.Must(t, err)
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.Contains(line, part) && slices.ContainsFunc(d.Evidence, func(e death.Evidence) bool {
			return e.Source == death.SourceJournal && e.Text == unit+": "+line
		}) {
			return nil
		}
	}
	return fmt.Errorf("no line with %q among the evidence: %s\n%s", part, rig.Sketch([]death.Death{*d}), out)
}

// earlyoom starts it anew, and gives its pid. It sends SIGTERM where that much
// of the memory, in percent, has gone that is free now, and SIGKILL.
func earlyoom(t *testing.T, asks, kills int) int {
	t.Helper()
	percent := int(100 * available(t) / total(t))
	args := fmt.Sprintf("EARLYOOM_ARGS=\"-r 0 -m %d,%d\"\n", percent-asks, percent-kills)
	engines.Must(t, os.WriteFile("/etc/default/earlyoom", []byte(args), 0o644))
	return unit(t, "earlyoom.service")
}

func systemdOOMD(t *testing.T) int {
	t.Helper()
	for path, text := range map[string]string{
		"/etc/systemd/oomd.conf.d/test.conf": "[OOM]\nDefaultMemoryPressureDurationSec=1s\n",
		"/etc/systemd/system/" + victims:     "[Slice]\nManagedOOMMemoryPressure=kill\nManagedOOMMemoryPressureLimit=5%\n",
	} {
		engines.Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		engines.Must(t, os.WriteFile(path, []byte(text), 0o644))
	}
	systemctl(t, "daemon-reload")
	return unit(t, "systemd-oomd.service")
}

// unit starts a unit until the test ends, and gives its pid.
func unit(t *testing.T, name string) int {
	t.Helper()
	systemctl(t, "restart", name)
	t.Cleanup(func() {
		systemctl(t, "stop", name)
		if t.Failed() {
			out, err := exec.Command("journalctl", "--no-pager", "-u", name).CombinedOutput()
			t.Logf("%s: %v\n%s", name, err, out)
		}
	})
	pid, err := strconv.Atoi(systemctl(t, "show", "-P", "MainPID", name))
	engines.Must(t, err)
	return pid
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func available(t *testing.T) int64 { return meminfo(t, "MemAvailable:") }
func total(t *testing.T) int64     { return meminfo(t, "MemTotal:") }

func meminfo(t *testing.T, key string) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	engines.Must(t, err)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == key {
			n, err := strconv.ParseInt(f[1], 10, 64)
			engines.Must(t, err)
			return n << 10
		}
	}
	t.Fatalf("no %s in /proc/meminfo", key)
	return 0
}

func oomKills(t *testing.T) uint64 {
	t.Helper()
	n, err := oomtest.NodeOOMKills()
	engines.Must(t, err)
	return n
}
