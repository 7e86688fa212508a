// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
	"github.com/coroner-dev/coroner/test/engines"
	"github.com/coroner-dev/coroner/test/rig"
)

// TestDeaths_Escaped (S23): a process that somebody moved out of its
// container's cgroup is told with the container's death, and as the
// container's where the OOM killer takes it by the limit that it lives under.
func TestDeaths_Escaped(t *testing.T) {
	m := newMorgue(t, func(*agent.Options) {})
	tree := oomtest.New(t)
	t.Run("with its container", func(t *testing.T) {
		away := tree.Cgroup("away")
		id := m.run("left", false, nil, "/bin/sh", "-c", "/coroner leak --block 4M --max 16M --survive & wait")
		child := m.child(t, id)
		engines.Must(t, os.WriteFile(filepath.Join(away.Dir, "cgroup.procs"), []byte(strconv.Itoa(child)), 0))
		m.escaped(t, id, 1)
		engines.Must(t, syscall.Kill(m.pid(t, id), syscall.SIGKILL))
		ds := m.wait(t, "left", 1, func(d *death.Death) error {
			want := fmt.Sprintf("1 process of the container lived outside its cgroup, where its limit of 32 MiB does not hold for it: pid %d (coroner) in %s with ", child, away.Path)
			switch {
			case d.Cause != death.Killed || d.Subject != death.SubjectContainer || d.Container.ID != id:
				return fmt.Errorf("%s %s", d.Subject, d.Cause)
			case !says(d, want):
				return fmt.Errorf("no evidence %q", want)
			}
			return nil
		})
		t.Log(rig.Sketch(ds))
	})
	t.Run("by another limit", func(t *testing.T) {
		away := tree.Cgroup("limited", oomtest.Limit(24<<20))
		id := m.run("strays", false, nil, "/bin/sh", "-c", "(while [ ! -e /go ]; do sleep 0.05; done; exec /coroner leak --block 4M --max 400M) & wait; sleep 600")
		child := m.child(t, id)
		engines.Must(t, os.WriteFile(filepath.Join(away.Dir, "cgroup.procs"), []byte(strconv.Itoa(child)), 0))
		engines.Must(t, os.WriteFile(fmt.Sprintf("/proc/%d/root/go", m.pid(t, id)), nil, 0o600))
		ds := m.wait(t, "strays", 1, func(d *death.Death) error {
			switch {
			case d.Cause != death.OOMAncestorLimit || d.Subject != death.SubjectProcess || d.Container.ID != id || d.Container.Name != "strays":
				return fmt.Errorf("%s %s of %+v", d.Subject, d.Cause, d.Container)
			case d.OOM == nil || d.OOM.TaskMemcg != away.Path || d.OOM.OOMMemcg != away.Path || *d.OOM.LimitBytes != 24<<20:
				return fmt.Errorf("OOM %+v", d.OOM)
			case len(d.Processes) != 1 || d.Processes[0].PID != child:
				return fmt.Errorf("processes %+v", d.Processes)
			case !says(d, fmt.Sprintf("pid %d (coroner) was a process of container strays, by its pid namespace; it lived outside the container's cgroup, in %s", child, away.Path)):
				return fmt.Errorf("not told whose it was")
			}
			return nil
		})
		t.Log(rig.Sketch(ds))
		st, err := m.agent.Client.Status(t.Context())
		engines.Must(t, err)
		if n := st.UnattributedOOMKills; n == nil || *n != 0 {
			t.Errorf("unattributed OOM kills: %v", n)
		}
	})
	t.Run("as they begin", func(t *testing.T) {
		away := tree.Cgroup("early", oomtest.Limit(24<<20))
		const many = 10
		for i := range many {
			id := m.run(fmt.Sprintf("early%d", i), false, nil, "/bin/sh", "-c", "(while [ ! -e /go ]; do sleep 0.01; done; exec /coroner leak --block 4M --max 400M) & wait; sleep 600")
			child := m.child(t, id)
			engines.Must(t, os.WriteFile(filepath.Join(away.Dir, "cgroup.procs"), []byte(strconv.Itoa(child)), 0))
			engines.Must(t, os.WriteFile(fmt.Sprintf("/proc/%d/root/go", m.pid(t, id)), nil, 0o600))
		}
		for i := range many {
			m.wait(t, fmt.Sprintf("early%d", i), 1, func(d *death.Death) error {
				if d.Cause != death.OOMAncestorLimit || d.Subject != death.SubjectProcess || !says(d, "was a process of container "+d.Container.Name) {
					return fmt.Errorf("%s %s", d.Subject, d.Cause)
				}
				return nil
			})
		}
	})
}

func says(d *death.Death, text string) bool {
	for _, e := range d.Evidence {
		if strings.Contains(e.Text, text) {
			return true
		}
	}
	return false
}

// child is the one child of a container's first process.
func (m *morgue) child(t *testing.T, id string) (child int) {
	t.Helper()
	rig.Poll(t, func() error {
		pid := m.pid(t, id)
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		if err == nil {
			_, err = fmt.Sscan(string(text), &child)
		}
		return err
	})
	return child
}

// escaped waits until so many processes are told to live outside of a
// container, by the API and the metrics.
func (m *morgue) escaped(t *testing.T, id string, n int) {
	t.Helper()
	rig.Poll(t, func() error {
		res, err := http.Get(m.agent.Base + api.PathContainers + "?container=" + id)
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }()
		var page api.ContainersPage
		if err := json.NewDecoder(res.Body).Decode(&page); err != nil {
			return err
		}
		if len(page.Containers) != 1 || page.Containers[0].EscapedProcesses == nil || *page.Containers[0].EscapedProcesses != n {
			return fmt.Errorf("containers %+v", page.Containers)
		}
		return nil
	})
}
