// SPDX-License-Identifier: Apache-2.0

//go:build unix

package cri

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestRun_FindsRuntimes: none at first, then one that comes later, goes and
// comes again.
func TestRun_FindsRuntimes(t *testing.T) {
	root := enginetest.ShortTemp(t)
	r := follow(t, nil, Options{Roots: host.Roots{Root: root}, Endpoints: []string{}})
	r.Until(t, "none", func(said []signal.Signal) bool {
		st := enginetest.LastState(said)
		return !st.Up && strings.HasPrefix(st.Reason, "no engine found at "+root+"/run/containerd/containerd.sock, ") &&
			strings.HasSuffix(st.Reason, root+"/run/cri-dockerd.sock")
	})
	path := filepath.Join(root, "run/k3s/containerd/containerd.sock")
	f := newFake(t)
	f.podRuns("p", "web")
	f.runs("a", "p", 11)
	stop := f.serve(enginetest.Listen(t, path))
	r.Until(t, "the runtime", func(said []signal.Signal) bool {
		return enginetest.LastState(said).Up && len(enginetest.Of[signal.ContainerSeen](said)) == 4
	})
	stop()
	r.Until(t, "its absence", func(said []signal.Signal) bool { return !enginetest.LastState(said).Up })
	f.ended("a", 137, "OOMKilled")
	f.serve(enginetest.Listen(t, path))
	r.Until(t, "the end", func(said []signal.Signal) bool {
		e := enginetest.Of[signal.ContainerExit](said)
		return enginetest.LastState(said).Up && len(e) == 1 && *e[0].Code == 137 && e[0].PID == 11
	})
}

func TestRun_NotASocket(t *testing.T) {
	for _, h := range []string{"tcp://127.0.0.1:3735", "crio.sock", "unix://crio.sock"} {
		var said []signal.Signal
		err := New(Options{Endpoints: []string{h}}).Run(t.Context(), func(s signal.Signal) { said = append(said, s) })
		if err == nil || len(said) != 1 || enginetest.LastState(said).Reason != err.Error() {
			t.Errorf("%s: %v, said %+v", h, err, said)
		}
	}
}

// TestCgroup_OfTheProcess: where a container's first process lives says more
// than what its runtime was asked for, when it is that process.
func TestCgroup_OfTheProcess(t *testing.T) {
	dir := t.TempDir()
	proc, sys := filepath.Join(dir, "proc"), filepath.Join(dir, "sys")
	enginetest.Write(t, filepath.Join(sys, "fs/cgroup/cgroup.controllers"), "cpu memory\n")
	enginetest.Write(t, filepath.Join(sys, "fs/cgroup/made/x/cgroup.procs"), "")
	enginetest.Write(t, filepath.Join(proc, "7/cgroup"), "0::/node/pods/x/init.scope\n")
	enginetest.Write(t, filepath.Join(proc, "8/cgroup"), "0::/user.slice\n")
	enginetest.Write(t, filepath.Join(proc, "9/cgroup"), "0::/../other\n")
	for _, pid := range []string{"7", "8", "9"} {
		enginetest.Write(t, filepath.Join(proc, pid, "stat"), pid+" (x) S 1 7 7 0 -1 4194304 0 0\n")
	}
	roots := host.Roots{Proc: proc, Sys: sys}
	h, err := roots.MemoryHierarchy()
	if err != nil {
		t.Fatal(err)
	}
	s := &session{engine: &engine{roots: roots}, hierarchy: h}
	for _, tt := range []struct {
		name string
		own  info
		runs bool
		want string
	}{
		{"lives deeper, below what the runtime sees", info{pid: 7, cgroup: "/pods/x"}, true, "/node/pods/x"},
		{"lives deeper, and its path was not told", info{pid: 7}, true, "/node/pods/x"},
		{"lives elsewhere, and the path is there", info{pid: 8, cgroup: "/made/x"}, true, "/made/x"},
		{"lives elsewhere, and the path is not there", info{pid: 8, cgroup: "/pods/x"}, true, ""},
		{"is not to be seen from here", info{pid: 9, cgroup: "/made/x"}, true, ""},
		{"is gone, and the path is there", info{pid: 6, cgroup: "/made/x"}, true, "/made/x"},
		{"has ended", info{cgroup: "/pods/x"}, false, "/pods/x"},
		{"nothing is known", info{}, true, ""},
	} {
		if got := s.cgroup("x", tt.own, tt.runs); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
