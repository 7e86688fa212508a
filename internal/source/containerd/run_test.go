// SPDX-License-Identifier: Apache-2.0

//go:build unix

package containerd

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// listenAt serves a fake engine at a real socket.
func listenAt(t *testing.T, f *fake, path string) {
	t.Helper()
	enginetest.Serve(t, enginetest.Listen(t, path), f.server, f.server.Stop)
}

// processes makes a procfs in which each process lives in a cgroup, and a
// memory hierarchy.
func processes(t *testing.T, root string, live map[int]string) host.Roots {
	t.Helper()
	r := host.Roots{Root: root, Proc: filepath.Join(root, "proc"), Cgroup: filepath.Join(root, "cgroup")}
	enginetest.Write(t, filepath.Join(r.Cgroup, "cgroup.controllers"), "memory\n")
	for pid, cgroup := range live {
		dir := filepath.Join(r.Proc, strconv.Itoa(pid))
		enginetest.Write(t, filepath.Join(dir, "cgroup"), "0::"+cgroup+"\n")
		enginetest.Write(t, filepath.Join(dir, "stat"), strconv.Itoa(pid)+" (x) S 1 7 7 0 -1 0 0")
	}
	return r
}

// TestRun_FindsEngines: none at first, then Docker's, and a user's own, which
// may not speak of the other's containers, nor of cgroups that are no user's.
func TestRun_FindsEngines(t *testing.T) {
	root := enginetest.ShortTemp(t)
	roots := processes(t, root, map[int]string{
		11: "/nested/default/a/inner", 12: "/user.slice/user-1000.slice/default/b/x", 13: "/system.slice/ssh.service",
	})
	r := follow(t, nil, Options{Roots: roots, Hosts: []string{}})
	r.Until(t, "none", func(said []signal.Signal) bool {
		st := enginetest.LastState(said)
		return !st.Up && strings.HasPrefix(st.Reason, "no engine found at "+root+"/run/containerd/containerd.sock, ") &&
			strings.HasSuffix(st.Reason, root+"/run/user/*/docker/containerd/containerd.sock")
	})
	own, users := newFake(t), newFake(t)
	own.runs("default", "a", 11)
	users.runs("default", "a", 666)
	users.runs("default", "b", 12)
	users.runs("default", "c", 13)
	users.boxes["default/c"].Spec = specOf("/system.slice/ssh.service", 0)
	listenAt(t, own, filepath.Join(root, "run/docker/containerd/containerd.sock"))
	if err := os.Mkdir(filepath.Join(root, "var"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../run", filepath.Join(root, "var/run")); err != nil {
		t.Fatal(err)
	}
	r.Until(t, "Docker's containerd", func(said []signal.Signal) bool {
		return enginetest.LastState(said) == signal.SourceState{Up: true, Mode: "containerd 1.6.20"} && len(enginetest.Of[signal.ContainerSeen](said)) == 2
	})
	listenAt(t, users, filepath.Join(root, "run/user/1000/containerd/containerd.sock"))
	r.Until(t, "the user's engine", func(said []signal.Signal) bool {
		return enginetest.LastState(said).Mode == "2 engines" && len(enginetest.Of[signal.ContainerSeen](said)) == 6
	})
	cgroups := map[string]string{}
	for _, s := range enginetest.Of[signal.ContainerSeen](r.Taken()) {
		cgroups[s.Container.ID] += s.Container.Cgroup
		if s.Container.ID == "a" && s.PID == 666 {
			t.Errorf("a user's engine spoke of another engine's container: %+v", s)
		}
	}
	want := map[string]string{"a": "/nested/default/a", "b": "/user.slice/user-1000.slice/default/b", "c": ""}
	if diff := cmp.Diff(want, cgroups); diff != "" {
		t.Errorf("cgroups (-want +got):\n%s", diff)
	}
}

func TestRun_NotASocket(t *testing.T) {
	var said []signal.Signal
	err := New(Options{Hosts: []string{"tcp://127.0.0.1:1"}}).Run(t.Context(), func(s signal.Signal) { said = append(said, s) })
	if err == nil || len(said) != 1 || enginetest.LastState(said).Reason != err.Error() {
		t.Errorf("%v, said %+v", err, said)
	}
}
