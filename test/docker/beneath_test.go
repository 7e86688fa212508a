// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docker

import (
	"path/filepath"
	"strconv"
	"testing"

	"github.com/moby/moby/client"

	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/signal"
	"github.com/coroner-dev/coroner/internal/source/containerd"
	"github.com/coroner-dev/coroner/test/engines"
)

// beneath is a container as Docker's own containerd tells it: its id, process,
// cgroup, limit and end, and no name, for that is Docker's to tell.
func beneath(t *testing.T, e *engine, r *engines.Recorder) {
	below := engines.Watch(t, containerd.New(containerd.Options{
		Hosts: []string{filepath.Join(e.dir, "exec/containerd/containerd.sock")}, Logger: enginetest.Logger(t),
	}))
	id := e.run("beneath", false, nil, "/bin/sleep", "600")
	_, seen := engines.Find(r, "its pid", func(_ signal.Signal, s signal.ContainerSeen) bool { return s.Container.ID == id && s.PID > 0 })
	_, run := engines.Find(below, "its pid from below", func(_ signal.Signal, s signal.ContainerSeen) bool {
		return s.Container.ID == id && s.PID > 0 && s.State == "running"
	})
	_, described := engines.Find(below, "its cgroup from below", func(_ signal.Signal, s signal.ContainerSeen) bool {
		return s.Container.ID == id && s.Container.Cgroup != ""
	})
	if run.PID != seen.PID || run.Namespace != "moby" {
		t.Errorf("seen %+v, from below %+v", seen, run)
	}
	if c := described.Container; c.Name != "" || c.Runtime != "docker" || c.Cgroup != engines.MemoryCgroup(t, strconv.Itoa(run.PID)) ||
		described.LimitBytes == nil || *described.LimitBytes != 32<<20 {
		t.Errorf("described from below: %+v", described)
	}
	_, err := e.client.ContainerKill(t.Context(), id, client.ContainerKillOptions{Signal: "KILL"})
	engines.Must(t, err)
	s, exit := engines.Find(r, "its end", func(_ signal.Signal, x signal.ContainerExit) bool { return x.ID == id })
	s2, exit2 := engines.Find(below, "its end from below", func(_ signal.Signal, x signal.ContainerExit) bool { return x.ID == id })
	if *exit.Code != 137 || *exit2.Code != 137 || exit2.PID != run.PID {
		t.Errorf("exit %+v, from below %+v", exit, exit2)
	}
	t.Logf("Docker dates the end %v after containerd", s.Time.Sub(s2.Time))
	engines.Find(below, "that it is not run any more", func(_ signal.Signal, g signal.ContainerGone) bool { return g.ID == id && g.Namespace == "moby" })
}
