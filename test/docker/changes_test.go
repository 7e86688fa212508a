// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/test/engines"
	"github.com/coroner-dev/coroner/test/rig"
)

// onSignal leaks as often as the first process gets SIGUSR1.
const onSignal = `trap "/coroner leak --block 8M --max 200M" USR1; while :; do sleep 0.05; done`

// changed (S26): a limit that was lowered and a deploy are in the evidence of
// the death that follows, with what was before and how long before.
func changed(t *testing.T, m *morgue) {
	t.Run("s26-docker-update", func(t *testing.T) {
		id := m.runWith("s26-update", false, nil, container.Resources{Memory: 64 << 20}, "/bin/sh", "-c", onSignal)
		m.running(t, id)
		before := time.Now()
		_, err := m.client.ContainerUpdate(t.Context(), id, client.ContainerUpdateOptions{Resources: &container.Resources{Memory: 32 << 20, MemorySwap: 64 << 20}})
		engines.Must(t, err)
		m.dies(t, id, "s26-update", before, time.Now(), death.SourceDocker, "the memory limit was changed from 64 MiB to 32 MiB, ")
	})
	t.Run("s26-cgroup-file", func(t *testing.T) {
		id := m.runWith("s26-file", false, nil, container.Resources{Memory: 64 << 20}, "/bin/sh", "-c", onSignal)
		m.running(t, id)
		rig.Poll(t, func() error { // until the recorder has read the limit
			res, err := http.Get(m.agent.Base + api.PathContainers + "?container=s26-file")
			if err != nil {
				return err
			}
			defer res.Body.Close()
			var page api.ContainersPage
			if err := json.NewDecoder(res.Body).Decode(&page); err != nil {
				return err
			}
			if c := page.Containers; len(c) != 1 || c[0].Memory == nil || c[0].Memory.LimitBytes == nil || *c[0].Memory.LimitBytes != 64<<20 {
				return fmt.Errorf("containers %+v", c)
			}
			return nil
		})
		h, err := host.Roots{}.MemoryHierarchy()
		engines.Must(t, err)
		file := map[int]string{1: "memory.limit_in_bytes", 2: "memory.max"}[h.Version]
		engines.Must(t, os.WriteFile(filepath.Join(h.Dir(engines.MemoryCgroup(t, strconv.Itoa(m.pid(t, id)))), file), []byte("33554432"), 0))
		m.dies(t, id, "s26-file", time.Time{}, time.Now(), death.SourceCgroup, "the memory limit was changed from 64 MiB to 32 MiB, ")
	})
	t.Run("s26-deploy", func(t *testing.T) {
		old := m.runWith("s26-web", false, nil, container.Resources{Memory: 64 << 20}, "/bin/sh", "-c", onSignal)
		m.running(t, old)
		m.remove(t, old)
		m.wait(t, "s26-web", 1, func(*death.Death) error { return nil })
		m.build("base:2", coroner(t))
		before := time.Now()
		id := m.runImage("base:2", "s26-web", false, nil, container.Resources{Memory: 32 << 20}, "/bin/sh", "-c", onSignal)
		after := time.Now()
		m.running(t, id)
		m.dies(t, id, id, before, after, death.SourceDocker, "deployed ")
		for _, d := range m.of(t, id) {
			if text := rig.Sketch([]death.Death{d}); !strings.Contains(text, "in place of container "+old[:12]+": image base:1 before, base:2 since; memory limit 64 MiB before, 32 MiB since") {
				t.Errorf("evidence:\n%s", text)
			}
		}
	})
}

// dies has the container's child OOM-killed, and looks for the evidence of what
// was changed between two times.
func (m *morgue) dies(t *testing.T, id, name string, from, to time.Time, source death.Source, text string) {
	t.Helper()
	engines.Must(t, syscall.Kill(m.pid(t, id), syscall.SIGUSR1))
	m.wait(t, name, 1, func(d *death.Death) error {
		if d.Cause != death.OOMContainerLimit || d.Subject != death.SubjectProcess {
			return fmt.Errorf("%s %s", d.Subject, d.Cause)
		}
		for _, e := range d.Evidence {
			if e.Source != source || !strings.HasPrefix(e.Text, text) {
				continue
			}
			if !strings.HasSuffix(strings.Split(e.Text+",", ", in place")[0], "before") && !strings.HasSuffix(e.Text, "before") {
				return fmt.Errorf("not how long before: %s", e.Text)
			}
			if source == death.SourceDocker && (e.Time.Before(from.Add(-time.Millisecond)) || e.Time.After(to.Add(time.Millisecond))) {
				return fmt.Errorf("dated %s, want from %s to %s", e.Time, from, to)
			}
			return nil
		}
		return errors.New("no evidence of the change")
	})
}
