// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cri

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
	"github.com/coroner-dev/coroner/test/engines"
	"github.com/coroner-dev/coroner/test/rig"
)

// leakShell is a shell that takes more memory than it may have.
const leakShell = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done"

// morgue is a runtime with an agent that watches it and the kernel.
type morgue struct {
	*engine
	agent *rig.Agent
}

// TestDeaths plays the ways in which containers of pods end, once for an agent
// that asks the CRI alone and once for one that asks containerd too.
func TestDeaths(t *testing.T) {
	oomtest.Require(t, oomtest.RealKills)
	e := startEngine(t)
	// The kernel tells whose limit it was ten times in five seconds, for the
	// whole machine: who was here before may have had them.
	<-time.After(6 * time.Second)
	for _, both := range []bool{false, true} {
		name := map[bool]string{false: "cri", true: "cri and containerd"}[both]
		t.Run(name, func(t *testing.T) {
			m := &morgue{e, rig.Start(t, func(o *agent.Options) {
				o.Source.CRIEndpoints, o.Source.ContainerdHosts = []string{"unix://" + e.socket()}, []string{"unix://" + e.socket()}
				o.Source.Docker, o.Source.Containerd = false, both
			})}
			m.play(t, map[bool]string{false: "a-", true: "b-"}[both])
			t.Run("s21-flash", func(t *testing.T) { m.flashes(t, both) })
		})
	}
}

// dies is one way to end, and what must be told of it.
type dies struct {
	name       string
	command    []string
	then       func(*testing.T, *pod, string)
	cause      death.Cause
	confidence death.Confidence
	code       int32
	lives      bool
}

func (m *morgue) play(t *testing.T, prefix string) {
	sh := func(script string) []string { return []string{"/bin/sh", "-c", script} }
	person := func(t *testing.T, p *pod, id string) { engines.Must(t, syscall.Kill(p.pid(id), syscall.SIGKILL)) }
	for _, tc := range []dies{
		{name: "s1-oom", command: sh(leakShell), cause: death.OOMContainerLimit, confidence: death.Certain, code: 137},
		{name: "s2-child", command: sh("sh -c '" + leakShell + "'; sleep 600"), cause: death.OOMContainerLimit, confidence: death.Certain, lives: true},
		{name: "s3-follows", command: sh("sh -c '" + leakShell + "'; exit 7"), cause: death.OOMContainerLimit, confidence: death.Certain, code: 7},
		{name: "s10-person", command: []string{"/bin/sleep", "600"}, then: person, cause: death.Killed, confidence: death.Certain, code: 137},
		{name: "s11-in-time", command: sh("trap 'exit 5' TERM; while :; do sleep 0.05; done"), then: m.stop(30), cause: death.Stopped, confidence: death.Probable, code: 5},
		{name: "s11-too-late", command: sh("trap : TERM; while :; do sleep 0.05; done"), then: m.stop(1), cause: death.StopTimeout, confidence: death.Probable, code: 137},
	} {
		t.Run(tc.name, func(t *testing.T) { m.one(t, prefix+tc.name, tc) })
	}
	t.Run("s9-python", func(t *testing.T) { m.heap(t, prefix+"s9-python") })
	st, err := m.agent.Client.Status(t.Context())
	engines.Must(t, err)
	if n := st.UnattributedOOMKills; n == nil || *n != 0 {
		t.Errorf("unattributed OOM kills: %v", n)
	}
}

// one plays one way to end, in a pod of its own.
func (m *morgue) one(t *testing.T, name string, tc dies) {
	p := m.pod(name, nil, nil)
	id := p.run(tc.name, 0, tc.command...)
	if tc.then != nil {
		asleep(t, p, id)
		tc.then(t, p, id)
	}
	if !tc.lives {
		defer m.removePod(t, p)
	}
	subject := map[bool]death.Subject{true: death.SubjectProcess, false: death.SubjectContainer}[tc.lives]
	d := m.only(t, name, func(d *death.Death) error {
		c := d.Container
		switch {
		case d.Subject != subject || d.Cause != tc.cause || d.Confidence != tc.confidence:
			return fmt.Errorf("%s %s %s, want %s %s %s", d.Subject, d.Cause, d.Confidence, subject, tc.cause, tc.confidence)
		case c.ID != id || c.Name != tc.name || c.Image != baseImage || c.Runtime != "containerd" || c.Pod == nil ||
			c.Pod.Namespace != "shop" || c.Pod.Name != name || c.Pod.UID != p.config.GetMetadata().GetUid() || c.Cgroup != p.cgroup(id):
			return fmt.Errorf("container %+v, pod %+v", c, c.Pod)
		case !tc.lives && (d.Exit == nil || d.Exit.Code == nil || int32(*d.Exit.Code) != tc.code):
			return fmt.Errorf("exit %+v, want code %d", d.Exit, tc.code)
		case !tc.lives && m.status(id).GetExitCode() != tc.code:
			return fmt.Errorf("the runtime says %v", m.status(id))
		}
		return nil
	})
	if tc.name == "s10-person" && (d.Killer == nil || d.Killer.PID != os.Getpid()) {
		t.Errorf("killer %+v, want pid %d", d.Killer, os.Getpid())
	}
}

// flashes are containers that end at once, with their pods removed at once. Who
// follows events knows each of them. The CRI of this runtime has only lists,
// and one of them must come in time.
func (m *morgue) flashes(t *testing.T, events bool) {
	const n = 5
	named := 0
	for i := range n {
		name := fmt.Sprintf("flash-%v-%d", events, i)
		p := m.pod(name, nil, nil)
		id := p.run("web", 0, "/bin/sh", "-c", "exit 3")
		engines.Poll(t, "its end", func() bool { return m.status(id).GetState() == runtimeapi.ContainerState_CONTAINER_EXITED })
		m.removePod(t, p)
		told := func() (ds []death.Death, err error) {
			page, err := m.agent.Client.Deaths(t.Context(), api.Query{Namespace: "shop", Pod: name})
			if ds = page.Deaths; err == nil && len(ds) == 0 {
				err = errors.New("none yet")
			}
			return ds, err
		}
		limit := rig.Patience
		if !events {
			limit = 3 * time.Second // told by then, or not named
		}
		if oomtest.Poll(limit, func() error { _, err := told(); return err }) != nil {
			continue
		}
		named++
		rig.Poll(t, func() error {
			ds, err := told()
			if err != nil {
				return err
			}
			d := &ds[0]
			if d.Container.ID != id || d.Container.Name != "web" || d.Cause != death.Error || d.Exit == nil || d.Exit.Code == nil || *d.Exit.Code != 3 || len(ds) != 1 {
				return errors.New(rig.Sketch(ds))
			}
			return nil
		})
	}
	t.Logf("%d of %d have their names", named, n)
	if named == 0 || events && named != n {
		t.Errorf("%d of %d have their names", named, n)
	}
	m.noSandboxes(t)
}

// heap is a runtime that reaches what it may have: its line is in a log file of
// the CRI's form.
func (m *morgue) heap(t *testing.T, name string) {
	rt := engines.NeedRuntimes(t)
	for _, run := range rt.HeapRuns() {
		if run.Name != "python" {
			continue
		}
		p := m.pod(name, nil, nil)
		p.limit, p.binds = 256<<20, rt.Binds
		p.run("python", 0, run.Command...)
		m.only(t, name, func(d *death.Death) error { return engines.IsHeapLimit(d, run, p.limit) })
		m.removePod(t, p)
	}
}

// only waits until the one death in a pod satisfies want.
func (m *morgue) only(t *testing.T, pod string, want func(*death.Death) error) death.Death {
	t.Helper()
	var ds []death.Death
	if err := oomtest.Poll(rig.Patience, func() error {
		page, err := m.agent.Client.Deaths(t.Context(), api.Query{Namespace: "shop", Pod: pod})
		if err != nil {
			return err
		}
		if ds = page.Deaths; len(ds) != 1 {
			return fmt.Errorf("%d deaths in %s", len(ds), pod)
		}
		return want(&ds[0])
	}); err != nil {
		t.Fatalf("%v\n%s", err, rig.Sketch(ds))
	}
	return ds[0]
}

// stop asks a container to end within so many seconds. Who obeys does so as soon
// as the machine lets it.
func (m *morgue) stop(grace int64) func(*testing.T, *pod, string) {
	return func(t *testing.T, _ *pod, id string) {
		_, err := m.cri.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: grace})
		engines.Must(t, err)
	}
}

// noSandboxes: what only holds a pod's namespaces is counted nowhere, neither
// alive nor once it has ended; of a pod that no list had, the name of its
// program tells.
func (m *morgue) noSandboxes(t *testing.T) {
	t.Helper()
	sandboxes := map[string]bool{}
	for _, id := range m.made {
		sandboxes[id] = true
	}
	for _, path := range []string{"/metrics", "/api/v1/containers?all=true"} {
		text := m.get(t, path)
		for id := range sandboxes {
			if strings.Contains(text, id) {
				t.Errorf("%s tells of a pod's own container %s", path, id)
			}
		}
	}
	for d, err := range m.agent.Client.All(t.Context(), api.Query{Since: m.agent.Began}) {
		engines.Must(t, err)
		if d.Container != nil && sandboxes[d.Container.ID] {
			t.Errorf("the death of a pod's own container: %s", d.Summary)
		}
	}
}

func (m *morgue) get(t *testing.T, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.agent.Base+path, nil)
	engines.Must(t, err)
	var c http.Client
	res, err := c.Do(req)
	engines.Must(t, err)
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	engines.Must(t, err)
	if res.StatusCode != http.StatusOK || len(text) == 0 {
		t.Fatalf("%s: %s", path, res.Status)
	}
	return string(text)
}

// asleep waits until a container's program sleeps, or waits for one that does.
func asleep(t *testing.T, p *pod, id string) {
	t.Helper()
	rig.Poll(t, func() error {
		pid := p.pid(id)
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
