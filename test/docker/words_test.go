// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docker

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/test/engines"
	"github.com/coroner-dev/coroner/test/rig"
)

// grower builds testdata/grow: a real runtime that can be refused memory.
func grower(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "grow")
	c := exec.Command("go", "build", "-o", path, "./testdata/grow")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// printed is a program that prints what a real runtime printed, and leaves.
func printed(t *testing.T, run string, code int) []string {
	t.Helper()
	a, err := txtar.ParseFile("../../internal/inquest/verdict/testdata/heap/" + run + ".txtar")
	engines.Must(t, err)
	return []string{"/bin/sh", "-c", fmt.Sprintf("/bin/busybox cat >&2 <<'END'\n%sEND\nexit %d", a.Files[1].Data, code)}
}

// TestDeaths_HeapLimit (S9): what containers wrote last is read from each form
// of log, and tells a runtime's limit apart. A recording has all of it: its
// replay gives the same deaths.
func TestDeaths_HeapLimit(t *testing.T) {
	m := newMorgue(t, func(*agent.Options) {})
	program := coroner(t)
	m.addProgram(grower(t), program)
	sameReplayed := m.record(t, program)
	log := func(driver string) func(*container.HostConfig) {
		return func(h *container.HostConfig) { h.LogConfig.Type = driver }
	}
	usual := func(*container.HostConfig) {}
	sh := func(script string) []string { return []string{"/bin/sh", "-c", script} }
	refused := func(goroutines int) []string {
		return sh(fmt.Sprintf("ulimit -d 20000; exec /grow %d", goroutines))
	}
	jvm := `echo 'Exception in thread "main" java.lang.OutOfMemoryError: Java heap space' >&2; `
	for _, tc := range []struct {
		name    string
		command []string
		change  func(*container.HostConfig)
		cause   []death.Cause
		says    string
	}{
		{"kernel", strings.Fields(leakForever), usual, []death.Cause{death.OOMContainerLimit}, "reached its memory limit"},
		{"go", refused(1), usual, []death.Cause{death.HeapLimit}, "out of memory"},
		{"go-local", refused(1), log("local"), []death.Cause{death.HeapLimit}, "out of memory"},
		{"go-crowd", refused(1500), usual, []death.Cause{death.HeapLimit}, "out of memory"},
		{"python", printed(t, "python", 1), usual, []death.Cause{death.HeapLimit}, "MemoryError"},
		{"jvm-local", printed(t, "java-exit", 3), log("local"), []death.Cause{death.HeapLimit}, "Terminating due to"},
		{"dotnet-137", printed(t, "dotnet9-init", 137), usual, []death.Cause{death.HeapLimit}, "exit code 137, which is no signal here; .NET had been refused memory"},
		{"rotated", sh("i=0; while [ $i -lt 80 ]; do echo line $i >&2; i=$((i+1)); done; " + jvm + "exit 1"),
			func(h *container.HostConfig) {
				h.LogConfig = container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1k", "max-file": "3"}}
			}, []death.Cause{death.HeapLimit}, "Java heap space"},
		{"long-line", sh("/bin/busybox head -c 10485760 /dev/zero | /bin/busybox tr '\\0' x; echo; " + jvm + "exit 1"), usual, []death.Cause{death.HeapLimit}, "Java heap space"},
		{"caught", printed(t, "python-caught", 1), usual, []death.Cause{death.Error}, "exit code 1"},
		{"no-log", sh(jvm + "exit 1"), log("none"), []death.Cause{death.Error}, "exit code 1"},
		{"asked-for", sh(jvm + "exit 0"), usual, []death.Cause{death.Completed}, "exit code 0"},
		{"restarted", sh("[ -e /ran ] && exit 3; >/ran; " + jvm + "exit 1"),
			func(h *container.HostConfig) {
				h.RestartPolicy = container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 1}
			}, []death.Cause{death.HeapLimit, death.Error}, "exit code"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := &container.HostConfig{NetworkMode: "none", Resources: container.Resources{Memory: 32 << 20}}
			tc.change(h)
			made, err := m.client.ContainerCreate(t.Context(), client.ContainerCreateOptions{
				Name: tc.name, Config: &container.Config{Image: "base:1", Cmd: tc.command}, HostConfig: h,
			})
			engines.Must(t, err)
			_, err = m.client.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{})
			engines.Must(t, err)
			i := 0
			ds := m.wait(t, tc.name, len(tc.cause), func(d *death.Death) error {
				want := tc.cause[i%len(tc.cause)]
				i++
				if d.Cause != want || !strings.Contains(d.Summary, tc.says) {
					return fmt.Errorf("%s, want %s that says %q", d.Cause, want, tc.says)
				}
				if want == death.HeapLimit && (d.Confidence != sureOf(tc.command) || d.Memory == nil || *d.Memory.LimitBytes != 32<<20 || d.OOM != nil) {
					return fmt.Errorf("heap_limit %s, memory %+v, OOM %+v", d.Confidence, d.Memory, d.OOM)
				}
				if m := d.Memory; strings.HasPrefix(tc.name, "go") && (m.PeakBytes == nil || *m.PeakBytes < 1<<20 || *m.PeakBytes >= 32<<20) {
					return fmt.Errorf("peak of memory %+v", m) // the programs of the others end before they are measured
				}
				return nil
			})
			t.Log(rig.Sketch(ds))
		})
	}
	// What another process is to record may come to it later than to the agent: it
	// has the words of those above when it has those of one more.
	m.run("fence", false, nil, sh(jvm+"exit 1")...)
	m.wait(t, "fence", 1, func(d *death.Death) error { return wants(d, death.HeapLimit, false) })
	sameReplayed()
}

// sureOf is how sure a heap_limit of this command can be: a shell may print any
// line, and leave with any code.
func sureOf(command []string) death.Confidence {
	if command[0] == "/bin/sh" && !strings.Contains(command[2], "exec ") {
		return death.Probable
	}
	return death.Certain
}

// TestDeaths_HeapLimitRemoved: Docker removes the log of a container that it
// was told to remove, within some ten milliseconds. Where it was opened before,
// it is read; where not, the death is told without.
func TestDeaths_HeapLimitRemoved(t *testing.T) {
	m := newMorgue(t, func(*agent.Options) {})
	command := printed(t, "node", 134)
	read := 0
	for i := 0; i < 10 && read == 0; i++ {
		name := fmt.Sprintf("node-removed-%d", i)
		m.run(name, true, nil, command...)
		m.wait(t, name, 1, func(d *death.Death) error {
			if d.Cause == death.HeapLimit || d.Cause == death.Abort && time.Since(d.ObservedAt) > 5*time.Second {
				return nil // it was read, or will not be
			}
			return fmt.Errorf("%s: %s", d.Cause, d.Summary)
		})
		for _, d := range m.of(t, name) {
			if d.Cause == death.HeapLimit && strings.Contains(d.Summary, "JavaScript heap out of memory") {
				read++
			}
		}
	}
	if read == 0 {
		t.Error("no log of ten was read before it was removed")
	}
}
