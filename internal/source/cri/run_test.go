// SPDX-License-Identifier: Apache-2.0

//go:build unix

package cri

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// listenAt serves a fake runtime at a real socket until the test or stop ends it.
func listenAt(t *testing.T, f *fake, path string) (stop func()) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{engines.NewCodec()}))
	runtimeapi.RegisterRuntimeServiceServer(s, f)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	stop = func() { s.Stop(); <-done }
	t.Cleanup(stop)
	return stop
}

// until waits for something to be said.
func (r *recorder) until(t *testing.T, what string, ok func(said []signal.Signal) bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		r.mu.Lock()
		said := r.said[:len(r.said):len(r.said)]
		r.mu.Unlock()
		if ok(said) {
			return
		}
		if time.Now().After(deadline) {
			for _, s := range said {
				t.Logf("said %T %+v", s.Body, s.Body)
			}
			t.Fatalf("waited for %s", what)
		}
		<-tick.C
	}
}

// shortTemp is a folder whose paths fit into a socket's address.
func shortTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "c")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestRun_FindsRuntimes: none at first, then one that comes later, goes and
// comes again.
func TestRun_FindsRuntimes(t *testing.T) {
	root := shortTemp(t)
	r := follow(t, nil, Options{Roots: host.Roots{Root: root}, Endpoints: []string{}})
	r.until(t, "none", func(said []signal.Signal) bool {
		st := lastState(said)
		return !st.Up && strings.HasPrefix(st.Reason, "no engine found at "+root+"/run/containerd/containerd.sock, ") &&
			strings.HasSuffix(st.Reason, root+"/run/cri-dockerd.sock")
	})
	f := newFake(t)
	f.podRuns("p", "web")
	f.runs("a", "p", 11)
	stop := listenAt(t, f, filepath.Join(root, "run/k3s/containerd/containerd.sock"))
	r.until(t, "the runtime", func(said []signal.Signal) bool {
		return lastState(said).Up && len(of[signal.ContainerSeen](said)) == 4
	})
	stop()
	r.until(t, "its absence", func(said []signal.Signal) bool { return !lastState(said).Up })
	f.ended("a", 137, "OOMKilled")
	listenAt(t, f, filepath.Join(root, "run/k3s/containerd/containerd.sock"))
	r.until(t, "the end", func(said []signal.Signal) bool {
		e := of[signal.ContainerExit](said)
		return lastState(said).Up && len(e) == 1 && *e[0].Code == 137 && e[0].PID == 11
	})
}

func TestRun_NotASocket(t *testing.T) {
	for _, h := range []string{"tcp://127.0.0.1:3735", "crio.sock", "unix://crio.sock"} {
		var said []signal.Signal
		err := New(Options{Endpoints: []string{h}}).Run(t.Context(), func(s signal.Signal) { said = append(said, s) })
		if err == nil || len(said) != 1 || lastState(said).Reason != err.Error() {
			t.Errorf("%s: %v, said %+v", h, err, said)
		}
	}
}

// TestCgroup_OfTheProcess: where a container's first process lives says more
// than what its runtime was asked for, when it is that process.
func TestCgroup_OfTheProcess(t *testing.T) {
	dir := t.TempDir()
	proc, sys := filepath.Join(dir, "proc"), filepath.Join(dir, "sys")
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(sys, "fs/cgroup/cgroup.controllers"), "cpu memory\n")
	write(filepath.Join(sys, "fs/cgroup/made/x/cgroup.procs"), "")
	write(filepath.Join(proc, "7/cgroup"), "0::/node/pods/x/init.scope\n")
	write(filepath.Join(proc, "8/cgroup"), "0::/user.slice\n")
	write(filepath.Join(proc, "9/cgroup"), "0::/../other\n")
	for _, pid := range []string{"7", "8", "9"} {
		write(filepath.Join(proc, pid, "stat"), pid+" (x) S 1 7 7 0 -1 4194304 0 0\n")
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
