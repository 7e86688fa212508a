// SPDX-License-Identifier: Apache-2.0

//go:build linux

package image

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
)

// fact is one thing that an agent does, or tells, and how.
type fact struct{ what, how string }

// trial is one agent in a container, and what was done under its eyes.
type trial struct {
	*engine
	client  *api.Client
	began   time.Time
	oom     string // ids of containers
	killed  string
	heap    string
	lives   string
	comment string // of how the sources are
}

const (
	agentName = "coroner"
	jvm       = `echo 'Exception in thread "main" java.lang.OutOfMemoryError: Java heap space' >&2; exit 1`
)

// begin waits until an agent that was started has settled, and then has
// containers end: by their limit, by a signal of the test, and by themselves.
func (e *engine) begin(t *testing.T) *trial {
	t.Helper()
	tr := &trial{engine: e, began: time.Now()}
	pid := e.mainPID(agentName)
	if pid == 0 {
		t.Fatalf("the agent ended: %s", e.logs())
	}
	tr.client = ask(t, pid)
	settled := func() error {
		st, err := tr.status(t)
		if err != nil {
			return err
		}
		for _, s := range st.Sources {
			if s.Enabled && !s.Up && !s.Absent && (s.Reason == "" || s.Reason == "starting") {
				return fmt.Errorf("source %s has not said how it is", s.Name)
			}
		}
		return nil
	}
	if err := oomtest.Poll(patience, settled); err != nil {
		t.Fatalf("%v\n%s", err, e.logs())
	}
	tr.oom = e.container(t, "leaks", "coroner", "coroner", "leak", "--block", "8M", "--max", "200M")
	tr.killed = e.container(t, "sleeps", "base:1", "/bin/sleep", "600")
	tr.heap = e.container(t, "refused", "base:1", "/bin/sh", "-c", jvm)
	tr.lives = e.container(t, "lives", "base:1", "/bin/sleep", "600")
	// Its engine's word of it may take a moment to be asked for.
	pid = e.mainPID(tr.killed)
	time.AfterFunc(300*time.Millisecond, func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	return tr
}

// logs are the agent's.
func (e *engine) logs() string {
	out, err := e.inside("sh", "-c", "/usr/bin/docker logs "+agentName+" 2>&1")
	if err != nil {
		return err.Error()
	}
	return out
}

// container starts a container and gives its id.
func (e *engine) container(t *testing.T, name, image string, command ...string) string {
	t.Helper()
	c, err := e.client.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Name:       name,
		Config:     &container.Config{Image: image, Entrypoint: command},
		HostConfig: &container.HostConfig{NetworkMode: "none", Resources: container.Resources{Memory: 32 << 20}},
	})
	must(t, err)
	_, err = e.client.ContainerStart(t.Context(), c.ID, client.ContainerStartOptions{})
	must(t, err)
	return c.ID
}

func (tr *trial) status(t *testing.T) (api.Status, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return tr.client.Status(ctx)
}

// end removes the agent and all else.
func (tr *trial) end() { tr.removeAll() }

// facts are how it went so far.
func (tr *trial) facts(t *testing.T) ([]fact, error) {
	st, err := tr.status(t)
	if err != nil {
		return nil, err
	}
	var out []fact
	tell := func(what, how string) { out = append(out, fact{what, how}) }
	tr.comment = ""
	for _, s := range st.Sources {
		if s.Name == death.SourceContainerd || s.Name == death.SourceCRI || s.Name == death.SourceKube {
			continue // Docker's machine has none
		}
		tell(string(s.Name), state(s))
		if s.Reason != "" {
			tr.comment += fmt.Sprintf("%s: %s\n", s.Name, s.Reason)
		}
	}
	byID := map[string]*death.Death{}
	for d, err := range tr.client.All(t.Context(), api.Query{Since: tr.began.Add(-time.Second)}) {
		if err != nil {
			return nil, err
		}
		if d.Container != nil && byID[d.Container.ID] == nil {
			byID[d.Container.ID] = &d
		}
	}
	oom, killed, heap := byID[tr.oom], byID[tr.killed], byID[tr.heap]
	tell("OOM kill", verdict(oom))
	limit, name, breakdown := "not told", "not told", "not told"
	if oom != nil {
		if oom.OOM != nil && oom.OOM.LimitBytes != nil {
			limit = fmt.Sprint(*oom.OOM.LimitBytes>>20, " MiB")
		}
		if oom.OOM != nil && len(oom.OOM.MemoryStat) > 0 {
			breakdown = "told"
		}
		if oom.Container.Name != "" {
			name = oom.Container.Name
		}
	}
	tell("its container's name", name)
	tell("its limit", limit)
	tell("its breakdown", breakdown)
	tell("SIGKILL", verdict(killed)+sender(killed))
	tell("end for want of heap", verdict(heap))
	own := "not known"
	if strings.Contains(tr.logs(), "memory limit of the cgroup is kept") {
		own = "kept"
	}
	tell("the agent's own memory limit", own)
	memory := "not known"
	if lives := tr.living(t); lives != nil && lives.Memory != nil {
		memory = "recorded"
	}
	tell("memory of containers", memory)
	tell("node", map[bool]string{true: "the host's name", false: "another name"}[st.Node == hostname(t)])
	tell("port 3001", tr.port(t))
	tell("history", tr.history(t, st))
	return out, nil
}

func state(s api.SourceStatus) string {
	switch {
	case s.Absent:
		return "none found"
	case !s.Up:
		return "down"
	case s.Name == death.SourceTracepoint:
		return "up, " + s.Mode
	case s.Name == death.SourceCgroup && s.Reason != "":
		return "up, sees a part"
	}
	return "up"
}

func verdict(d *death.Death) string {
	if d == nil {
		return "not told"
	}
	return fmt.Sprintf("`%s`, %s", d.Cause, d.Confidence)
}

func sender(d *death.Death) string {
	switch {
	case d == nil:
		return ""
	case d.Killer == nil:
		return ", nobody knows by whom"
	case d.Killer.PID != os.Getpid():
		return fmt.Sprintf(", by pid %d", d.Killer.PID)
	}
	return ", its sender named"
}

func hostname(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	must(t, err)
	return name
}

// port tells whether the engine's machine serves what the agent does.
func (tr *trial) port(t *testing.T) string {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := ask(t, tr.pid).Status(ctx); err != nil {
		return "nobody answers"
	}
	return "served"
}

// history tells what becomes of the deaths when the container is removed.
func (tr *trial) history(t *testing.T, st api.Status) string {
	t.Helper()
	if st.History.Error != "" || st.History.Path == ":memory:" {
		return "in memory"
	}
	c, err := tr.engine.client.ContainerInspect(t.Context(), agentName, client.ContainerInspectOptions{})
	must(t, err)
	for _, m := range c.Container.Mounts {
		if m.Destination == "/var/lib/coroner" && m.Name == "coroner" {
			return "kept"
		}
	}
	return "removed with the container"
}

// living is what the agent says of the container that lives; nil: nothing.
func (tr *trial) living(t *testing.T) *api.Container {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, tr.client.Address()+api.PathContainers+"?container="+tr.lives, nil)
	must(t, err)
	res, err := tr.client.HTTP.Do(r)
	must(t, err)
	defer res.Body.Close()
	var list api.ContainersPage
	must(t, json.NewDecoder(res.Body).Decode(&list))
	if len(list.Containers) == 0 {
		return nil
	}
	return &list.Containers[0]
}

// patience is how long facts may take on a busy machine.
const patience = 30 * time.Second

// wait waits until the facts are those, or stay as they are for long enough.
func (tr *trial) wait(t *testing.T, want []fact) []fact {
	t.Helper()
	var got []fact
	_ = oomtest.Poll(patience, func() error {
		now, err := tr.facts(t)
		if err != nil {
			return err
		}
		if got = now; !slices.Equal(got, want) {
			return fmt.Errorf("not so yet")
		}
		return nil
	})
	if got == nil {
		t.Fatalf("the agent does not answer: %s", tr.logs())
	}
	return got
}

// told lists facts that others have not.
func told(got, others []fact) string {
	var out []string
	for _, f := range got {
		if !slices.Contains(others, f) {
			out = append(out, f.what+": "+f.how)
		}
	}
	return strings.Join(out, "; ")
}
