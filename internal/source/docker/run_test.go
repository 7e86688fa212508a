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

	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// listenAt serves a fake engine at a real socket.
func listenAt(t *testing.T, f *fake, path string) {
	t.Helper()
	s := &http.Server{Handler: f}
	enginetest.Serve(t, enginetest.Listen(t, path), s, func() { _ = s.Close() })
}

// TestRun_FindsEngines: none at first, then one that comes later, by whichever
// of its names, and a user's own.
func TestRun_FindsEngines(t *testing.T) {
	root := enginetest.ShortTemp(t)
	r := follow(t, nil, Options{Roots: host.Roots{Root: root}, Hosts: []string{}})
	r.Until(t, "none", func(said []signal.Signal) bool {
		st := enginetest.LastState(said)
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
	r.Until(t, "the machine's engine", func(said []signal.Signal) bool {
		return enginetest.LastState(said) == signal.SourceState{Up: true, Mode: "docker 20.10.24"} && len(enginetest.Of[signal.ContainerSeen](said)) == 2
	})
	listenAt(t, users, filepath.Join(root, "run/user/1000/podman/podman.sock"))
	r.Until(t, "the user's engine", func(said []signal.Signal) bool {
		return enginetest.LastState(said).Mode == "2 engines" && len(enginetest.Of[signal.ContainerSeen](said)) == 4
	})
	for _, s := range enginetest.Of[signal.ContainerSeen](r.Taken()) {
		if s.Container.ID == "a" && (s.PID == 666 || s.Container.Runtime != "docker") {
			t.Errorf("a user's engine spoke of another engine's container: %+v", s)
		}
	}
}

func TestRun_NotASocket(t *testing.T) {
	for _, h := range []string{"tcp://127.0.0.1:2375", "docker.sock", "ssh://host", "unix://docker.sock", "unix://unix:///a"} {
		var said []signal.Signal
		err := New(Options{Hosts: []string{h}}).Run(t.Context(), func(s signal.Signal) { said = append(said, s) })
		if err == nil || len(said) != 1 || enginetest.LastState(said).Reason != err.Error() {
			t.Errorf("%s: %v, said %+v", h, err, said)
		}
	}
}

// TestRun_SocketWithoutEngine: a file left behind is said to be one.
func TestRun_SocketWithoutEngine(t *testing.T) {
	path := filepath.Join(enginetest.ShortTemp(t), "d.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	r := follow(t, nil, Options{Hosts: []string{path}})
	r.Until(t, "a refusal", func(said []signal.Signal) bool {
		st := enginetest.LastState(said)
		return !st.Up && strings.Contains(st.Reason, path) && strings.Contains(st.Reason, "refused")
	})
	// An engine that comes is found without waiting out the backoff.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	listenAt(t, newFake(t), path)
	r.Until(t, "the engine", func(said []signal.Signal) bool { return enginetest.LastState(said).Up })
}
