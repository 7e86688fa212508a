// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
	"github.com/coroner-dev/coroner/test/engines"
	"github.com/coroner-dev/coroner/test/rig"
)

// neverRan: what could not be started is told in the engine's words, of which
// it tells no event, with the code that it has noted.
func neverRan(t *testing.T, m *morgue) {
	for name, c := range map[string]struct {
		command string
		change  func(*container.HostConfig)
	}{
		"start-no-program":  {"nosuchprogram", func(*container.HostConfig) {}},
		"start-not-allowed": {"/etc", func(*container.HostConfig) {}},
		"start-bad-mount":   {"/bin/true", func(h *container.HostConfig) { h.Binds = []string{"/etc:/proc/sys"} }},
		// As for a port that is taken, the engine gives up before there is a process.
		"start-no-device": {"/bin/true", func(h *container.HostConfig) {
			h.Devices = []container.DeviceMapping{{PathOnHost: "/dev/nosuchdevice", PathInContainer: "/dev/it", CgroupPermissions: "r"}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := &container.HostConfig{NetworkMode: "none"}
			c.change(h)
			made, err := m.client.ContainerCreate(t.Context(), client.ContainerCreateOptions{
				Name: name, Config: &container.Config{Image: "base:1", Cmd: []string{c.command}},
				HostConfig: h,
			})
			engines.Must(t, err)
			if _, err = m.client.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{}); err == nil {
				t.Fatal("it could be started")
			}
			noted, err := m.client.ContainerInspect(t.Context(), made.ID, client.ContainerInspectOptions{})
			engines.Must(t, err)
			state := noted.Container.State
			ds := m.wait(t, name, 1, func(d *death.Death) error {
				if d.Cause != death.StartFailed || d.Confidence != death.Certain || d.Subject != death.SubjectContainer {
					return fmt.Errorf("%s %s %s", d.Subject, d.Cause, d.Confidence)
				}
				if d.Exit == nil || d.Exit.Code == nil || *d.Exit.Code != state.ExitCode {
					return fmt.Errorf("exit %+v, want code %d", d.Exit, state.ExitCode)
				}
				if !strings.Contains(d.Summary, death.Printable(state.Error[:min(len(state.Error), 200)])) {
					return fmt.Errorf("it says %q, and the engine %q", d.Summary, state.Error)
				}
				return nil
			})
			t.Log(rig.Sketch(ds))
		})
	}
}

// neverRanRemoved: so is what Docker removes at once, as docker run --rm has it.
// What it tells who starts it is the truth. It has a moment to answer the source,
// too: on a loaded machine it may be over before that asks.
func neverRanRemoved(t *testing.T, m *morgue) {
	for name, c := range map[string]struct {
		command string
		devices []container.DeviceMapping
		code    int
	}{
		"start-no-program-rm": {command: "nosuchprogram", code: 127},
		"start-no-device-rm":  {"/bin/true", []container.DeviceMapping{{PathOnHost: "/dev/nosuchdevice", PathInContainer: "/dev/it", CgroupPermissions: "r"}}, 128},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			for i := range 10 {
				h := &container.HostConfig{NetworkMode: "none", AutoRemove: true, Resources: container.Resources{Devices: c.devices}}
				if err = m.removedUnstarted(t, fmt.Sprint(name, "-", i), c.command, h, c.code); err == nil {
					return
				}
				t.Log(err)
			}
			t.Error(err)
		})
	}
}

func (m *morgue) removedUnstarted(t *testing.T, name, command string, h *container.HostConfig, code int) error {
	t.Helper()
	made, err := m.client.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Name: name, Config: &container.Config{Image: "base:1", Cmd: []string{command}}, HostConfig: h,
	})
	engines.Must(t, err)
	_, failed := m.client.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{})
	if failed == nil {
		t.Fatal("it could be started")
	}
	words := strings.TrimPrefix(failed.Error(), "Error response from daemon: ")
	words = death.Printable(words[:min(len(words), 200)])
	return oomtest.Poll(5*time.Second, func() error {
		ds := m.of(t, name)
		if len(ds) != 1 {
			return fmt.Errorf("%d deaths", len(ds))
		}
		d := &ds[0]
		if d.Cause != death.StartFailed || d.Confidence != death.Certain || d.Exit == nil || d.Exit.Code == nil || *d.Exit.Code != code || !strings.Contains(d.Summary, words) {
			return fmt.Errorf("%s %s, exit %+v, want code %d and %q\n%s", d.Cause, d.Confidence, d.Exit, code, words, rig.Sketch(ds))
		}
		return nil
	})
}
