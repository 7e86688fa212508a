// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docker

import (
	"fmt"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/test/engines"
	"github.com/coroner-dev/coroner/test/rig"
)

// roomy is a limit that none of the runtimes reaches by itself.
const roomy = 256 << 20

// TestDeaths_Runtimes (S9): each runtime really reaches what it may have itself,
// in a container that may have more; and what looks like that and is not.
func TestDeaths_Runtimes(t *testing.T) {
	rt := engines.NeedRuntimes(t)
	m := newMorgue(t, func(*agent.Options) {})
	for _, run := range rt.HeapRuns() {
		t.Run(run.Name, func(t *testing.T) { m.heapEnds(t, rt, run.Name, "json-file", run) })
		if run.Name == "node" {
			t.Run("node-local", func(t *testing.T) { m.heapEnds(t, rt, "node-local", "local", run) })
		}
	}
	for _, run := range rt.Counters() {
		t.Run(run.Name, func(t *testing.T) {
			id := m.lend(t, rt, run.Name, "json-file", run.Command)
			want := map[int]death.Cause{0: death.Completed, 134: death.Abort}[run.Code]
			if want == "" {
				want = death.Error
			}
			m.wait(t, run.Name, 1, func(d *death.Death) error {
				if d.Cause != want || d.Exit == nil || d.Exit.Code == nil || *d.Exit.Code != run.Code || m.exitCode(t, id) != run.Code {
					return fmt.Errorf("%s, exit %+v; want %s %d", d.Cause, d.Exit, want, run.Code)
				}
				return nil
			})
		})
	}
	t.Run("overstepped", func(t *testing.T) {
		m.lend(t, rt, "overstepped", "json-file", rt.Overstepped())
		m.wait(t, "overstepped", 1, func(d *death.Death) error {
			if d.Cause != death.OOMContainerLimit || d.OOM == nil || d.OOM.LimitBytes == nil || *d.OOM.LimitBytes != roomy {
				return fmt.Errorf("%s, OOM %+v", d.Cause, d.OOM)
			}
			return nil
		})
	})
}

// heapEnds plays one run and holds its death against what the run did.
func (m *morgue) heapEnds(t *testing.T, rt engines.Runtimes, name, driver string, run engines.HeapRun) {
	id := m.lend(t, rt, name, driver, run.Command)
	ds := m.wait(t, name, 1, func(d *death.Death) error {
		if err := engines.IsHeapLimit(d, run, roomy); err != nil {
			return err
		}
		if code := m.exitCode(t, id); *d.Exit.Code != code {
			return fmt.Errorf("exit code %d, the engine says %d", *d.Exit.Code, code)
		}
		return nil
	})
	t.Logf("%s%s", rig.Sketch(ds), advice(ds))
}

func advice(ds []death.Death) string {
	s := ""
	for _, d := range ds {
		s += "    " + strings.Join(d.Advice, "\n    ") + "\n"
	}
	return s
}

// lend starts a container with this machine's runtimes in it.
func (m *morgue) lend(t *testing.T, rt engines.Runtimes, name, driver string, command []string) string {
	t.Helper()
	made, err := m.client.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Name: name, Config: &container.Config{Image: "base:1", Cmd: command},
		HostConfig: &container.HostConfig{
			NetworkMode: "none", Binds: rt.Binds, Resources: container.Resources{Memory: roomy}, LogConfig: container.LogConfig{Type: driver},
		},
	})
	engines.Must(t, err)
	_, err = m.client.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{})
	engines.Must(t, err)
	return made.ID
}
