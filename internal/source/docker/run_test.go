// SPDX-License-Identifier: Apache-2.0

//go:build unix

package docker

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// listenAt serves a fake engine at a real socket.
func listenAt(t *testing.T, f *fake, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: f}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
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
	dir, err := os.MkdirTemp("", "d")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestRun_FindsEngines: none at first, then one that comes later, by whichever
// of its names, and a user's own.
func TestRun_FindsEngines(t *testing.T) {
	root := shortTemp(t)
	r := follow(t, nil, Options{Roots: host.Roots{Root: root}, Hosts: []string{}})
	r.until(t, "none", func(said []signal.Signal) bool {
		st := lastState(said)
		return !st.Up && strings.HasPrefix(st.Reason, "no engine found at "+root+"/var/run/docker.sock, ") &&
			strings.HasSuffix(st.Reason, root+"/run/user/*/podman/podman.sock")
	})
	own, users := newFake(t), newFake(t)
	own.runs("a", 11)
	users.podman, users.version = true, "4.3.1"
	users.runs("b", 12)
	users.runs("a", 666)
	listenAt(t, own, filepath.Join(root, "run/docker.sock"))
	if err := os.Mkdir(filepath.Join(root, "var"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../run", filepath.Join(root, "var/run")); err != nil {
		t.Fatal(err)
	}
	r.until(t, "the machine's engine", func(said []signal.Signal) bool {
		return lastState(said) == signal.SourceState{Up: true, Mode: "docker 20.10.24"} && len(of[signal.ContainerSeen](said)) == 2
	})
	listenAt(t, users, filepath.Join(root, "run/user/1000/podman/podman.sock"))
	r.until(t, "the user's engine", func(said []signal.Signal) bool {
		return lastState(said).Mode == "2 engines" && len(of[signal.ContainerSeen](said)) == 4
	})
	for _, s := range of[signal.ContainerSeen](r.taken()) {
		if s.Container.ID == "a" && (s.PID == 666 || s.Container.Runtime != "docker") {
			t.Errorf("a user's engine spoke of another engine's container: %+v", s)
		}
	}
}

func TestRun_NotASocket(t *testing.T) {
	for _, h := range []string{"tcp://127.0.0.1:2375", "docker.sock", "ssh://host", "unix://docker.sock", "unix://unix:///a"} {
		var said []signal.Signal
		err := New(Options{Hosts: []string{h}}).Run(t.Context(), func(s signal.Signal) { said = append(said, s) })
		if err == nil || len(said) != 1 || lastState(said).Reason != err.Error() {
			t.Errorf("%s: %v, said %+v", h, err, said)
		}
	}
}

// TestRun_SocketWithoutEngine: a file left behind is said to be one.
func TestRun_SocketWithoutEngine(t *testing.T) {
	path := filepath.Join(shortTemp(t), "d.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	r := follow(t, nil, Options{Hosts: []string{path}})
	r.until(t, "a refusal", func(said []signal.Signal) bool {
		st := lastState(said)
		return !st.Up && strings.Contains(st.Reason, path) && strings.Contains(st.Reason, "refused")
	})
	// An engine that comes is found without waiting out the backoff.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	listenAt(t, newFake(t), path)
	r.until(t, "the engine", func(said []signal.Signal) bool { return lastState(said).Up })
}
