// SPDX-License-Identifier: Apache-2.0

//go:build linux

package podman

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/oomtest"
	"github.com/coroner-dev/coroner/internal/signal"
	source "github.com/coroner-dev/coroner/internal/source/docker"
	"github.com/coroner-dev/coroner/test/engines"
	"github.com/coroner-dev/coroner/test/rig"
)

const leakForever = "/coroner leak --block 8M --max 200M"

// TestPodman plays the ways in which containers end, on one podman that is
// asked by its Docker API (S1, S2, S10, S11, S27): each death has its name, its
// cause and its exit code.
func TestPodman(t *testing.T) {
	oomtest.Require(t, oomtest.RealKills)
	// The kernel tells whose limit it was ten times in five seconds, for the
	// whole machine: who was here before may have had them.
	<-time.After(6 * time.Second)
	e := startEngine(t, 0, coroner(t))
	a := rig.Start(t, func(o *agent.Options) { o.Source.DockerHosts = []string{"unix://" + e.socket()} })
	st, err := a.Client.Status(t.Context())
	engines.Must(t, err)
	const bpf = "bpf"
	modes := map[death.Source]string{}
	for _, s := range st.Sources {
		modes[s.Name] = s.Mode
		if s.Name == death.SourceDocker && !strings.HasPrefix(s.Mode, "podman ") {
			t.Errorf("the source's mode is %q", s.Mode)
		}
	}
	compose := []string{"--label", "com.docker.compose.project=shop", "--label", "com.docker.compose.service=web", "--label", "other=1"}
	sh := func(script string) []string { return []string{"/bin/sh", "-c", script} }
	for _, tc := range []struct {
		name    string
		flags   []string
		command []string
		then    func(t *testing.T, id string)
		cause   death.Cause
		lives   bool
		code    int
		needs   string // a mode of the tracepoint source
	}{
		{name: "s1-oom", flags: compose, command: strings.Fields(leakForever), cause: death.OOMContainerLimit, code: 137},
		{name: "s2-child", command: sh(leakForever + "; sleep 600"), cause: death.OOMContainerLimit, lives: true},
		{name: "s10-person", command: sh("sleep 600"), cause: death.Killed, code: 137, then: func(t *testing.T, id string) {
			engines.Must(t, syscall.Kill(e.pid(id), syscall.SIGKILL))
		}},
		{name: "s11-in-time", flags: []string{"--stop-timeout", "30"}, command: sh("trap 'exit 5' TERM; while :; do sleep 0.05; done"), cause: death.Stopped, code: 5, then: e.stop(30)},
		// podman 4.3 tells of a stop at times only: that SIGTERM came, the kernel tells, if it is not ignored.
		{name: "s11-too-late", command: sh("trap 'true' TERM; while :; do sleep 0.05; done"), cause: death.StopTimeout, code: 137, then: e.stop(1)},
		// The kernel drops SIGTERM for a first process without a handler, and tells that it was sent.
		{name: "s11-deaf", command: sh("exec sleep 600"), cause: death.StopTimeout, code: 137, needs: bpf, then: e.stop(1)},
		{name: "podman-kill", command: sh("exec sleep 600"), cause: death.Killed, code: 137, then: func(_ *testing.T, id string) { e.podman("kill", id) }},
		{name: "error", command: sh("exit 3"), cause: death.Error, code: 3},
		{name: "removed", flags: []string{"--rm"}, command: sh("exit 4"), cause: death.Error, code: 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.needs != "" && modes[death.SourceTracepoint] != tc.needs {
				t.Skipf("needs the tracepoint source in mode %s, not %q", tc.needs, modes[death.SourceTracepoint])
			}
			id := e.run(tc.name, tc.flags, tc.command...)
			if tc.then != nil {
				e.running(t, id)
				tc.then(t, id)
			}
			d := one(t, a, tc.name, func(d *death.Death) error {
				switch c := d.Container; {
				case d.Cause != tc.cause || (d.Subject == death.SubjectProcess) != tc.lives:
					return fmt.Errorf("%s %s, want %s", d.Subject, d.Cause, tc.cause)
				case c.ID != id || c.Runtime != "podman" || c.Image != "localhost/base:1" || c.Cgroup != "/libpod_parent/libpod-"+id:
					return fmt.Errorf("container %+v", c)
				case !tc.lives && (d.Exit == nil || d.Exit.Code == nil || *d.Exit.Code != tc.code):
					return fmt.Errorf("exit %+v, want code %d", d.Exit, tc.code)
				}
				return nil
			})
			if tc.flags != nil && tc.name == "s1-oom" {
				if w := d.Container.Workload; w == nil || w.String() != "shop/web" || d.Container.Labels["other"] != "" {
					t.Errorf("belongs to %+v, labels %v", w, d.Container.Labels)
				}
			}
			if tc.name == "s10-person" && (d.Killer == nil || d.Killer.PID != os.Getpid()) {
				t.Errorf("killer %+v, want pid %d", d.Killer, os.Getpid())
			}
		})
	}
	t.Run("s27-pod", func(t *testing.T) {
		pod := e.podman("pod", "create", "--name", "group", "--infra=false")
		id := e.run("in-pod", []string{"--pod", "group"}, sh("exit 6")...)
		one(t, a, "in-pod", func(d *death.Death) error {
			if c := d.Container; c.ID != id || d.Cause != death.Error {
				return fmt.Errorf("%s of %+v in pod %s", d.Cause, c, pod)
			}
			return nil
		})
	})
	st, err = a.Client.Status(t.Context())
	engines.Must(t, err)
	if n := st.UnattributedOOMKills; n == nil || *n != 0 {
		t.Errorf("unattributed OOM kills: %v", n)
	}
}

// TestPodman_Rootless is a podman that a user runs: it is found where users have
// theirs, it names its containers and tells how they end, and all that it says
// is known to be that user's word.
func TestPodman_Rootless(t *testing.T) {
	const user = 65534
	e := startEngine(t, user)
	r := engines.Watch(t, source.New(source.Options{Roots: host.Roots{Root: e.dir}, Logger: enginetest.Logger(t)}))
	id := e.podman("run", "--detach", "--name", "users", "--network", "none", "localhost/base:1", "/bin/sh", "-c", "sleep 1; exit 9")
	engines.Find(r, "its name", func(s signal.Signal, c signal.ContainerSeen) bool {
		return s.User == strconv.Itoa(user) && c.Container.ID == id && c.Container.Name == "users" && c.Container.Runtime == "podman"
	})
	engines.Find(r, "its end", func(s signal.Signal, x signal.ContainerExit) bool {
		return s.User == strconv.Itoa(user) && x.ID == id && x.Code != nil && *x.Code == 9
	})
}

// one waits for the one death of a container that satisfies want.
func one(t *testing.T, a *rig.Agent, name string, want func(*death.Death) error) death.Death {
	t.Helper()
	var last death.Death
	rig.Poll(t, func() error {
		n := 0
		for d, err := range a.Client.All(t.Context(), api.Query{Container: name}) {
			if err != nil {
				return err
			}
			n++
			last = d
		}
		if n != 1 {
			return fmt.Errorf("%d deaths of %s, want 1", n, name)
		}
		if err := want(&last); err != nil {
			return fmt.Errorf("%w\n%s\n%+v", err, last.Summary, last.Evidence)
		}
		return nil
	})
	return last
}

// stop asks a container to end within so many seconds. Who obeys does so as soon
// as the machine lets it.
func (e *engine) stop(grace int) func(*testing.T, string) {
	return func(t *testing.T, id string) {
		t.Helper()
		e.podman("stop", "--time", strconv.Itoa(grace), id)
	}
}

// running waits until a container's program waits: shells have set their traps.
func (e *engine) running(t *testing.T, id string) {
	t.Helper()
	rig.Poll(t, func() error {
		pid := e.pid(id)
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			return err
		}
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		if err != nil {
			return err
		}
		if string(comm) != "sleep\n" && len(children) == 0 {
			return fmt.Errorf("its program does not run yet: %s", comm)
		}
		if got := engines.MemoryCgroup(t, strconv.Itoa(pid)); !strings.Contains(got, id) {
			return fmt.Errorf("it lives in %s", got)
		}
		return nil
	})
}

// coroner builds the program, whose "leak" is what the containers run.
func coroner(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "coroner")
	c := exec.Command("go", "build", "-o", path, "github.com/coroner-dev/coroner/cmd/coroner")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}
