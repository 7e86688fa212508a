// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docker

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
	"github.com/coroner-dev/coroner/test/engines"
	"github.com/coroner-dev/coroner/test/rig"
)

// morgue is an engine with an agent that watches it and the kernel.
type morgue struct {
	*engine
	agent *rig.Agent
}

func newMorgue(t *testing.T, change func(*agent.Options)) *morgue {
	t.Helper()
	oomtest.Require(t, oomtest.RealKills)
	e := startEngine(t)
	e.addProgram(coroner(t), faulter(t))
	return &morgue{e, rig.Start(t, func(o *agent.Options) {
		o.Source.DockerHosts = []string{"unix://" + e.socket()}
		change(o)
	})}
}

// coroner builds the program, whose "leak" is what the containers run.
func coroner(t *testing.T) string {
	t.Helper()
	if path := "/test/coroner"; built(path) {
		return path
	}
	path := filepath.Join(t.TempDir(), "coroner")
	c := exec.Command("go", "build", "-o", path, "github.com/coroner-dev/coroner/cmd/coroner")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// built tells whether a program came with the test into a machine of its own.
func built(path string) bool {
	_, err := os.Stat(path)
	return err == nil && oomtest.Has(oomtest.InVM)
}

// faulter builds testdata/fault.c.
func faulter(t *testing.T) string {
	t.Helper()
	if path := "/test/fault"; built(path) {
		return path
	}
	path := filepath.Join(t.TempDir(), "fault")
	if out, err := exec.Command("cc", "-static", "-O1", "-o", path, "testdata/fault.c").CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	return path
}

// of are the deaths of containers with this name, oldest first.
func (m *morgue) of(t *testing.T, name string) []death.Death {
	t.Helper()
	var out []death.Death
	for d, err := range m.agent.Client.All(t.Context(), api.Query{Container: name, Since: m.agent.Began.Add(-time.Second)}) {
		if err != nil {
			t.Fatal(err)
		}
		out = append([]death.Death{d}, out...)
	}
	return out
}

// wait waits until the deaths of a container are n that satisfy want.
func (m *morgue) wait(t *testing.T, name string, n int, want func(*death.Death) error) []death.Death {
	t.Helper()
	var ds []death.Death
	err := oomtest.Poll(rig.Patience, func() error {
		if ds = m.of(t, name); len(ds) != n {
			return fmt.Errorf("%d deaths of %s, want %d", len(ds), name, n)
		}
		for i := range ds {
			if err := want(&ds[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		if len(ds) == 0 {
			ds = m.of(t, "") // whoever's they are
		}
		t.Errorf("%v\n%s", err, rig.Sketch(ds))
	}
	return ds
}

const leakForever = "/coroner leak --block 8M --max 200M"

// TestDeaths plays the ways in which containers end, on one engine: each death
// has its name, its cause, and the exit code that the engine has noted.
func TestDeaths(t *testing.T) {
	// The kernel tells whose limit it was ten times in five seconds, for the
	// whole machine: who was here before may have had them.
	<-time.After(6 * time.Second)
	m := newMorgue(t, func(*agent.Options) {})
	sh := func(script string) []string { return []string{"/bin/sh", "-c", script} }
	kill := func(n syscall.Signal) func(*testing.T, string) {
		return func(t *testing.T, id string) { engines.Must(t, syscall.Kill(m.pid(t, id), n)) }
	}
	for _, tc := range []struct {
		name       string
		command    []string
		then       func(*testing.T, string)
		cause      death.Cause
		confidence death.Confidence
		subject    death.Subject
		lives      bool
		obeys      bool // when asked to end, as soon as the machine lets it
	}{
		{name: "s1-oom", command: strings.Fields(leakForever), cause: death.OOMContainerLimit, confidence: death.Certain},
		{name: "s2-child", command: sh(leakForever + "; sleep 600"), cause: death.OOMContainerLimit, confidence: death.Certain, lives: true},
		{name: "s3-follows", command: sh(leakForever + "; exit 7"), cause: death.OOMContainerLimit, confidence: death.Certain},
		{name: "s10-person", command: sh("sleep 600"), then: kill(syscall.SIGKILL), cause: death.Killed, confidence: death.Certain},
		{name: "s10-term", command: sh("trap 'exit 0' TERM; while :; do sleep 0.05; done"), then: kill(syscall.SIGTERM), cause: death.Killed, confidence: death.Probable},
		{name: "s11-in-time", command: sh("trap 'exit 5' TERM; while :; do sleep 0.05; done"), then: m.stopIt, cause: death.Stopped, confidence: death.Certain, obeys: true},
		{name: "s11-too-late", command: sh("trap '' TERM; sleep 600"), then: m.stopIt, cause: death.StopTimeout, confidence: death.Certain},
		{name: "docker-kill", command: sh("sleep 600"), then: m.signalIt("KILL"), cause: death.Killed, confidence: death.Certain},
		{name: "docker-kill-int", command: sh("trap 'exit 130' INT; while :; do sleep 0.05; done"), then: m.signalIt("INT"), cause: death.Killed, confidence: death.Certain},
		{name: "docker-kill-term", command: sh("trap 'exit 7' TERM; while :; do sleep 0.05; done"), then: m.signalIt("TERM"), cause: death.Stopped, confidence: death.Probable, obeys: true},
		{name: "s14-segv", command: []string{"/fault", "segv"}, cause: death.Segfault, confidence: death.Certain},
		{name: "s14-fpe", command: []string{"/fault", "fpe"}, cause: death.Arithmetic, confidence: death.Certain},
		{name: "s14-ill", command: []string{"/fault", "ill"}, cause: death.IllegalInstruction, confidence: death.Certain},
		{name: "s14-sys", command: []string{"/fault", "sys"}, cause: death.BadSystemCall, confidence: death.Certain},
		{name: "s14-abrt-passed-on", command: sh("exit 134"), cause: death.Abort, confidence: death.Probable},
		{name: "s14-bus", command: []string{"/fault", "bus"}, cause: death.BusError, confidence: death.Certain},
		{name: "completed", command: []string{"/bin/true"}, cause: death.Completed, confidence: death.Certain},
		{name: "error", command: sh("exit 3"), cause: death.Error, confidence: death.Certain},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m.grace = map[bool]int{false: 1, true: 30}[tc.obeys]
			id := m.run(tc.name, false, nil, tc.command...)
			if tc.then != nil {
				m.running(t, id)
				tc.then(t, id)
			}
			subject := death.SubjectContainer
			if tc.lives {
				subject = death.SubjectProcess
			}
			ds := m.wait(t, tc.name, 1, func(d *death.Death) error {
				switch {
				case d.Cause != tc.cause || d.Confidence != tc.confidence || d.Subject != subject:
					return fmt.Errorf("%s %s %s, want %s %s %s", d.Subject, d.Cause, d.Confidence, subject, tc.cause, tc.confidence)
				case d.Container.ID != id || d.Container.Image != "base:1":
					return fmt.Errorf("container %+v", d.Container)
				case !tc.lives && (d.Exit == nil || d.Exit.Code == nil || *d.Exit.Code != m.exitCode(t, id)):
					return fmt.Errorf("exit %+v, want code %d", d.Exit, m.exitCode(t, id))
				}
				return nil
			})
			if len(ds) == 1 && tc.name == "s14-bus" {
				fullShm(t, m, id)
			}
			if len(ds) == 1 && tc.cause == death.Killed && tc.name == "s10-person" && (ds[0].Killer == nil || ds[0].Killer.PID != os.Getpid()) {
				t.Errorf("killer %+v, want pid %d", ds[0].Killer, os.Getpid())
			}
		})
	}
	changed(t, m)
	neverRan(t, m)
	neverRanRemoved(t, m)
	st, err := m.agent.Client.Status(t.Context())
	engines.Must(t, err)
	if n := st.UnattributedOOMKills; n == nil || *n != 0 {
		t.Errorf("unattributed OOM kills: %v", n)
	}
}

// fullShm: of a SIGBUS for a full /dev/shm that is said.
func fullShm(t *testing.T, m *morgue, id string) {
	t.Helper()
	m.wait(t, id, 1, func(d *death.Death) error {
		if d.Rule != "bus-error-shm-full" || !strings.Contains(d.Summary, "while its /dev/shm was full") {
			return fmt.Errorf("rule %s: %s; memory %+v", d.Rule, d.Summary, d.Memory)
		}
		return nil
	})
}

// running waits until a container's program sleeps, or waits for one that does:
// shells have then set their traps.
func (m *morgue) running(t *testing.T, id string) {
	t.Helper()
	rig.Poll(t, func() error {
		pid := m.pid(t, id)
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
		return nil
	})
}

func (m *morgue) pid(t *testing.T, id string) int {
	t.Helper()
	c, err := m.client.ContainerInspect(t.Context(), id, client.ContainerInspectOptions{})
	engines.Must(t, err)
	return c.Container.State.Pid
}

func (m *morgue) exitCode(t *testing.T, id string) int {
	t.Helper()
	c, err := m.client.ContainerInspect(t.Context(), id, client.ContainerInspectOptions{})
	engines.Must(t, err)
	return c.Container.State.ExitCode
}

func (m *morgue) stopIt(t *testing.T, id string) {
	_, err := m.client.ContainerStop(t.Context(), id, client.ContainerStopOptions{})
	engines.Must(t, err)
}

func (m *morgue) signalIt(name string) func(*testing.T, string) {
	return func(t *testing.T, id string) {
		_, err := m.client.ContainerKill(t.Context(), id, client.ContainerKillOptions{Signal: name})
		engines.Must(t, err)
	}
}

// TestDeaths_Crowds are the crowds that other exporters miscount.
func TestDeaths_Crowds(t *testing.T) {
	m := newMorgue(t, func(*agent.Options) {})
	t.Run("50 that last 20 ms", func(t *testing.T) {
		const n = 50
		for i := range n {
			m.run(fmt.Sprintf("flash-%d", i), true, nil, "/coroner", "leak", "--block", "32M", "--max", "200M")
		}
		for i := range n {
			m.wait(t, fmt.Sprintf("flash-%d", i), 1, func(d *death.Death) error {
				if d.Cause != death.OOMContainerLimit || d.Subject != death.SubjectContainer || d.OOMKills() != 1 {
					return fmt.Errorf("%s %s, %d OOM kills", d.Subject, d.Cause, d.OOMKills())
				}
				return nil
			})
		}
	})
	t.Run("100 children, one after the other", func(t *testing.T) {
		m.run("children", false, nil, "/bin/sh", "-c", "i=0; while [ $i -lt 100 ]; do /coroner leak --block 32M --max 200M; i=$((i+1)); done; sleep 600")
		m.wait(t, "children", 100, func(d *death.Death) error {
			if d.Cause != death.OOMContainerLimit || d.Subject != death.SubjectProcess || d.OOMKills() != 1 {
				return fmt.Errorf("%s %s, %d OOM kills", d.Subject, d.Cause, d.OOMKills())
			}
			return nil
		})
	})
	t.Run("50 at the same time", func(t *testing.T) {
		const n = 50
		for i := range n {
			m.run(fmt.Sprintf("par-%d", i), false, nil, "/bin/sh", "-c", "sleep 5; /coroner leak --block 8M --max 200M; sleep 600")
		}
		for i := range n {
			m.wait(t, fmt.Sprintf("par-%d", i), 1, func(d *death.Death) error {
				if d.Cause != death.OOMContainerLimit || d.Subject != death.SubjectProcess || d.OOMKills() != 1 {
					return fmt.Errorf("%s %s, %d OOM kills", d.Subject, d.Cause, d.OOMKills())
				}
				return nil
			})
		}
	})
	t.Run("a parent's limit", func(t *testing.T) {
		parent := oomtest.New(t).Cgroup("parent", oomtest.Limit(64<<20))
		in := container.Resources{CgroupParent: parent.Path}
		quiet := []string{m.runWith("quiet-1", false, nil, in, "/bin/sleep", "600"), m.runWith("quiet-2", false, nil, in, "/bin/sleep", "600")}
		loud := m.runWith("loud", false, nil, in, "/bin/sh", "-c", "i=0; while [ $i -lt 5 ]; do /coroner leak --block 8M --max 400M; i=$((i+1)); done; sleep 600")
		m.wait(t, "loud", 5, func(d *death.Death) error {
			if d.Cause != death.OOMAncestorLimit || d.Subject != death.SubjectProcess || d.OOM.OOMMemcg != parent.Path || d.Container.ID != loud {
				return fmt.Errorf("%s %s at %s", d.Subject, d.Cause, d.OOM.OOMMemcg)
			}
			return nil
		})
		m.wait(t, "quiet-1", 0, nil)
		m.wait(t, "quiet-2", 0, nil)
		for _, id := range append(quiet, loud) {
			m.remove(t, id)
		}
	})
	st, err := m.agent.Client.Status(t.Context())
	engines.Must(t, err)
	if n := st.UnattributedOOMKills; n == nil || *n != 0 {
		t.Errorf("unattributed OOM kills: %v", n)
	}
}

func (m *morgue) remove(t *testing.T, id string) {
	t.Helper()
	_, err := m.client.ContainerRemove(t.Context(), id, client.ContainerRemoveOptions{Force: true})
	engines.Must(t, err)
}

// TestDeaths_EngineRestarts: what the kernel tells while the engine is away is
// told, and once it is back it has its names and nothing twice.
func TestDeaths_EngineRestarts(t *testing.T) {
	m := newMorgue(t, func(*agent.Options) {})
	id := m.run("away", false, nil, "/bin/sleep", "600")
	pid := m.pid(t, id)
	m.daemon.Stop()
	engines.Must(t, syscall.Kill(pid, syscall.SIGKILL))
	m.wait(t, "away", 1, func(d *death.Death) error {
		if d.Cause != death.Killed {
			return fmt.Errorf("%s while the engine is away", d.Cause)
		}
		return nil
	})
	m.daemon.Start()
	m.wait(t, "away", 1, func(d *death.Death) error {
		if d.Exit == nil || d.Exit.ReportedReason == "" {
			return fmt.Errorf("the engine's word is missing: %+v", d.Exit)
		}
		return nil
	})
}

// TestDeaths_WhileNoAgentRan: what ends while no agent runs, with the kernel
// told of nothing, is told by the next one, once, as recovered.
func TestDeaths_WhileNoAgentRan(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deaths.db")
	kept := func(o *agent.Options) { o.History.Path = path }
	m := newMorgue(t, kept)
	m.run("before", false, nil, "/bin/sh", "-c", "exit 2")
	m.wait(t, "before", 1, func(d *death.Death) error { return wants(d, death.Error, false) })
	lives := m.run("lives", false, nil, "/bin/sleep", "600")
	m.agent.Stop()
	id := m.run("meanwhile", false, nil, "/bin/sh", "-c", "exit 3")
	engines.Poll(t, "its end", func() bool { return m.exitCode(t, id) == 3 })
	m.agent = rig.Start(t, func(o *agent.Options) {
		o.Source.DockerHosts = []string{"unix://" + m.socket()}
		kept(o)
	})
	m.agent.Began = time.Now().Add(-time.Minute)
	m.wait(t, "meanwhile", 1, func(d *death.Death) error { return wants(d, death.Error, true) })
	m.wait(t, "before", 1, func(d *death.Death) error { return wants(d, death.Error, false) })
	m.wait(t, "lives", 0, nil)
	engines.Must(t, syscall.Kill(m.pid(t, lives), syscall.SIGKILL))
	m.wait(t, "lives", 1, func(d *death.Death) error { return wants(d, death.Killed, false) })
}

func wants(d *death.Death, cause death.Cause, recovered bool) error {
	if d.Cause != cause || d.Recovered != recovered {
		return fmt.Errorf("%s, recovered %v; want %s, %v", d.Cause, d.Recovered, cause, recovered)
	}
	return nil
}
