// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestSource_Cgroup: a container's own cgroup is told by its first process,
// and not by a process that is none of its.
func TestSource_Cgroup(t *testing.T) {
	proc := t.TempDir()
	for pid, cgroup := range map[string]string{"12": "/docker/mine/inner", "13": "/docker/other"} {
		for name, text := range map[string]string{"cgroup": "5:memory:" + cgroup + "\n0::" + cgroup + "\n", "stat": pid + " (x) S 1 7 7 0 -1 0 0"} {
			path := filepath.Join(proc, pid, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
	cgroups := t.TempDir()
	if err := os.WriteFile(filepath.Join(cgroups, "cgroup.controllers"), []byte("memory\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("mine", 12)
		f.runs("moved", 13)
		r := follow(t, f, Options{Roots: host.Roots{Proc: proc, Cgroup: cgroups}})
		enginetest.Settle()
		got := map[string]string{}
		for _, s := range enginetest.Of[signal.ContainerSeen](r.Taken()) {
			got[s.Container.ID] += s.Container.Cgroup
		}
		if diff := cmp.Diff(map[string]string{"mine": "/docker/mine", "moved": ""}, got); diff != "" {
			t.Errorf("cgroups (-want +got):\n%s", diff)
		}
	})
}
