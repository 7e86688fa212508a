// SPDX-License-Identifier: Apache-2.0

//go:build linux

package containerd

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
	"github.com/coroner-dev/coroner/test/engines"
	"github.com/coroner-dev/coroner/test/rig"
)

// leak is a shell that takes more memory than it may have.
const leakShell = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done"

// TestDeaths plays the ways in which containers end on a containerd without
// Docker, in a namespace of their own: in cgroups that bear the names that
// people gave them.
func TestDeaths(t *testing.T) {
	oomtest.Require(t, oomtest.RealKills)
	// The kernel tells whose limit it was ten times in five seconds, for the
	// whole machine: who was here before may have had them.
	<-time.After(6 * time.Second)
	e := startEngine(t)
	a := rig.Start(t, func(o *agent.Options) {
		o.Source.ContainerdHosts = []string{"unix://" + e.socket()}
		o.Source.Docker, o.Source.CRI = false, false
	})
	space := e.spaces[0]
	sh := func(script string) []string { return []string{"/bin/sh", "-c", script} }
	for _, tc := range []struct {
		name       string
		command    []string
		signal     syscall.Signal
		byRuntime  bool
		cause      death.Cause
		confidence death.Confidence
		code       int
		lives      bool
	}{
		{name: "s1-oom", command: sh(leakShell), cause: death.OOMContainerLimit, confidence: death.Certain, code: 137},
		{name: "s2-child", command: sh("sh -c '" + leakShell + "'; sleep 600"), cause: death.OOMContainerLimit, confidence: death.Certain, lives: true},
		{name: "s3-follows", command: sh("sh -c '" + leakShell + "'; exit 7"), cause: death.OOMContainerLimit, confidence: death.Certain, code: 7},
		{name: "s10-person", command: sh("sleep 600"), signal: syscall.SIGKILL, cause: death.Killed, confidence: death.Certain, code: 137},
		{name: "s11-in-time", command: sh("trap 'exit 5' TERM; while :; do sleep 0.05; done"), signal: syscall.SIGTERM, byRuntime: true, cause: death.Stopped, confidence: death.Probable, code: 5},
		{name: "completed", command: sh("exit 0"), cause: death.Completed, confidence: death.Certain},
		{name: "error", command: sh("exit 3"), cause: death.Error, confidence: death.Certain, code: 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e.run(space, tc.name, []string{"--detach"}, tc.command...)
			if tc.signal != 0 {
				pid := e.pid(t, space, tc.name)
				asleep(t, pid)
				if tc.byRuntime {
					e.ctr(space, "task", "kill", "--signal", strconv.Itoa(int(tc.signal)), tc.name)
				} else {
					engines.Must(t, syscall.Kill(pid, tc.signal))
				}
			}
			want := fmt.Sprintf("%v %s %s code %d", map[bool]death.Subject{true: death.SubjectProcess, false: death.SubjectContainer}[tc.lives], tc.cause, tc.confidence, tc.code)
			got := ""
			err := oomtest.Poll(rig.Patience, func() error {
				page, err := a.Client.Deaths(t.Context(), api.Query{Container: tc.name})
				if err != nil || len(page.Deaths) != 1 {
					got = rig.Sketch(page.Deaths)
					return fmt.Errorf("%d deaths: %w", len(page.Deaths), err)
				}
				d := page.Deaths[0]
				code := 0
				if d.Exit != nil && d.Exit.Code != nil {
					code = *d.Exit.Code
				}
				got = d.Summary
				if is := fmt.Sprintf("%v %s %s code %d", d.Subject, d.Cause, d.Confidence, code); is != want || d.Container.Image != image || d.Container.Runtime != "containerd" {
					return fmt.Errorf("%s in %+v, want %s", is, d.Container, want)
				}
				return nil
			})
			if err != nil {
				t.Errorf("%v\n%s", err, got)
			}
		})
	}
	t.Run("in a scope of systemd", func(t *testing.T) { inScope(t, e, a) })
	st, err := a.Client.Status(t.Context())
	engines.Must(t, err)
	if n := st.UnattributedOOMKills; n == nil || *n != 0 {
		t.Errorf("unattributed OOM kills: %v", n)
	}
}

// inScope is S1 in a cgroup that systemd makes, as CRI runtimes have it.
func inScope(t *testing.T, e *engine, a *rig.Agent) {
	oomtest.Require(t, oomtest.V2)
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skipf("needs a machine that this one is not: no systemd runs: %v", err)
	}
	id := oomtest.ContainerID("scope")
	e.run(e.spaces[0], id, []string{"--detach", "--runc-systemd-cgroup", "--cgroup", "system.slice:cri-containerd:" + id}, "/bin/sh", "-c", leakShell)
	got := ""
	err := oomtest.Poll(rig.Patience, func() error {
		page, err := a.Client.Deaths(t.Context(), api.Query{Container: id})
		if err != nil || len(page.Deaths) != 1 {
			return fmt.Errorf("%d deaths: %w", len(page.Deaths), err)
		}
		d := page.Deaths[0]
		got = d.Summary
		path := "/system.slice/cri-containerd-" + id + ".scope"
		if d.Cause != death.OOMContainerLimit || d.Confidence != death.Certain || d.Container.Cgroup != path || d.OOM.OOMMemcg != path ||
			d.OOM.LimitBytes == nil || *d.OOM.LimitBytes != 32<<20 || d.Container.Image != image {
			return fmt.Errorf("%s %s in %+v, at %s", d.Cause, d.Confidence, d.Container, d.OOM.OOMMemcg)
		}
		return nil
	})
	if err != nil {
		t.Errorf("%v\n%s", err, got)
	}
}

// pid is that of a container's first process.
func (e *engine) pid(t *testing.T, space, id string) int {
	t.Helper()
	for line := range strings.Lines(e.ctr(space, "task", "ls")) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == id {
			pid, err := strconv.Atoi(f[1])
			engines.Must(t, err)
			return pid
		}
	}
	t.Fatalf("no task %s", id)
	return 0
}

// asleep waits until a program sleeps, or waits for one that does.
func asleep(t *testing.T, pid int) {
	t.Helper()
	rig.Poll(t, func() error {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			return err
		}
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		if err == nil && string(comm) != "sleep\n" && len(children) == 0 {
			err = fmt.Errorf("its program does not run yet: %s", comm)
		}
		return err
	})
}
