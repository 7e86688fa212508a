// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package image runs the agent from its container image in a real Docker, as
// the README says, and measures what each option of that line is for.
package image

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/oomtest"
	"github.com/coroner-dev/coroner/test/engines"
)

func TestMain(m *testing.M) { oomtest.Main(m) }

// built makes the image as "make image" does.
func built(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program, tar := filepath.Join(dir, "coroner"), filepath.Join(dir, "image.tar")
	for _, args := range [][]string{
		{"build", "-trimpath", "-ldflags=-s -w", "-o", program, "../../cmd/coroner"},
		{"run", "../../deploy/image", "-binary", program, "-to", tar},
	} {
		c := exec.Command("go", args...)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", args[0], err, out)
		}
	}
	return tar
}

// possible takes away what nobody without CAP_SYS_RESOURCE can be given.
func possible(t *testing.T, options []option) []option {
	t.Helper()
	caps, err := host.Roots{}.Capabilities()
	must(t, err)
	if caps.Has(host.CapSysResource) {
		return options
	}
	t.Log("without CAP_SYS_RESOURCE nothing here can lower oom_score_adj or raise limits")
	return slices.DeleteFunc(slices.Clone(options), func(o option) bool { return o.name == "--oom-score-adj" || o.name == "--ulimit" })
}

// run starts the agent.
func (e *engine) run(options []option, image string) {
	e.t.Helper()
	args := []string{"run"}
	for _, o := range options {
		args = append(args, strings.Fields(o.String())...)
	}
	e.docker(append(args, image)...)
}

// all is what the README's line gives.
func all(tracepoint string) []fact {
	return []fact{
		{"tracepoint", "up, " + tracepoint}, {"kmsg", "up"}, {"cgroup", "up"}, {"docker", "up"},
		{"OOM kill", "`oom_container_limit`, certain"}, {"its container's name", "leaks"}, {"its limit", "32 MiB"}, {"its breakdown", "told"},
		{"SIGKILL", "`killed`, certain, its sender named"}, {"end for want of heap", "`heap_limit`, probable"},
		{"the agent's own memory limit", "kept"}, {"memory of containers", "recorded"}, {"node", "the host's name"}, {"port 3001", "served"}, {"history", "kept"},
	}
}

// TestContainer plays on one engine what the README and its compose file say,
// and that line again without each of its options.
func TestContainer(t *testing.T) {
	oomtest.Require(t, oomtest.RealKills)
	engines.Need(t, "containerd, runc, docker.io", "containerd", "runc", "docker", "nsenter")
	// The kernel tells whose limit it was ten times in five seconds, for the
	// whole machine: who was here before may have had them.
	alone := time.After(6 * time.Second)
	tar, programs := built(t), newer(t, "docker.io", "docker-compose")
	options, image := documented(t)
	options = possible(t, options)
	e := startEngine(t, filepath.Join(programs, "usr/sbin/dockerd"))
	e.load(tar)
	<-alone
	t.Run("line", func(t *testing.T) {
		e.run(options, image)
		e.perfect(t, "bpf")
	})
	t.Run("doctor", func(t *testing.T) { e.doctor(t, options, image) })
	t.Run("compose", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "compose.yaml")
		must(t, os.WriteFile(file, possibleFile(t, options), 0o600))
		_, err := e.inside(filepath.Join(programs, "usr/libexec/docker/cli-plugins/docker-compose"), "-f", file, "up", "-d", "--pull", "never")
		must(t, err)
		e.perfect(t, "bpf")
	})
	t.Run("table", func(t *testing.T) { e.table(t, options, image) })
}

// TestContainer_OldDocker: 20.10 knows no CAP_BPF, and the README says what to
// do.
func TestContainer_OldDocker(t *testing.T) {
	oomtest.Require(t, oomtest.RealKills)
	engines.Need(t, "docker.io, containerd, runc", "dockerd", "containerd", "runc", "docker", "nsenter")
	e := startEngine(t, "/usr/sbin/dockerd")
	if version := e.docker("version", "--format", "{{.Server.Version}}"); !strings.HasPrefix(version, "20.10.") {
		t.Skipf("needs a machine that this one is not: its Docker is %s", version)
	}
	e.load(built(t))
	options, image := documented(t)
	options = slices.DeleteFunc(possible(t, options), func(o option) bool { return o.value == "BPF" || o.value == "PERFMON" })
	e.run(append(options, option{"--cap-add", "SYS_ADMIN"}), image)
	e.perfect(t, "bpf")
}

// perfect is what an agent has to do that was started in one of these ways.
func (e *engine) perfect(t *testing.T, tracepoint string) {
	t.Helper()
	tr := e.begin(t)
	defer tr.end()
	want := all(tracepoint)
	if diff := cmp.Diff(want, tr.wait(t, want), cmp.AllowUnexported(fact{})); diff != "" {
		t.Errorf("-want +got:\n%s\n%s%s", diff, tr.comment, e.logs())
	}
}

// doctor has to find in the container what the agent needs.
func (e *engine) doctor(t *testing.T, options []option, image string) {
	t.Helper()
	e.run(options, image)
	defer e.removeAll()
	var report struct {
		Findings []struct{ Name, Status, Detail, Remedy string }
	}
	must(t, json.Unmarshal([]byte(e.docker("exec", agentName, "coroner", "doctor", "-o", "json")), &report))
	want := map[string]string{
		"tracepoint": "yes", "bpf": "yes", "kmsg": "yes", "cgroup": "yes", "vmstat": "yes", "history": "yes",
		"docker": "yes", "logs": "yes", "escapes": "no", "containerd": "absent", "cri": "absent",
	}
	for _, f := range report.Findings {
		if w, ok := want[f.Name]; ok && w != f.Status {
			t.Errorf("%+v, want %s", f, w)
		}
		delete(want, f.Name)
	}
	if len(want) > 0 {
		t.Errorf("doctor says nothing of %v", want)
	}
}

// possibleFile is the compose file without what possible took away.
func possibleFile(t *testing.T, options []option) []byte {
	t.Helper()
	text, err := os.ReadFile(compose)
	must(t, err)
	var out strings.Builder
	limits := slices.ContainsFunc(options, func(o option) bool { return o.name == "--ulimit" })
	for line := range strings.Lines(string(text)) {
		if limits || !strings.Contains(line, "oom_score_adj:") && !strings.Contains(line, "ulimits:") && !strings.Contains(line, "memlock:") {
			out.WriteString(line)
		}
	}
	return []byte(out.String())
}
