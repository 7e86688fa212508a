// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package docker runs the docker source against a real Docker that the test
// starts for itself.
package docker

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/signal"
	source "github.com/coroner-dev/coroner/internal/source/docker"
	"github.com/coroner-dev/coroner/test/engines"
)

// TestDocker plays lives of containers on one engine, in order.
func TestDocker(t *testing.T) {
	e := startEngine(t)
	r := engines.Watch(t, source.New(source.Options{Hosts: []string{"unix://" + e.socket()}, Logger: enginetest.Logger(t)}))
	engines.Find(r, "the engine's version", func(_ signal.Signal, st signal.SourceState) bool {
		return st.Up && strings.HasPrefix(st.Mode, "docker ") && st.Mode != "docker "
	})
	for _, part := range []struct {
		name string
		play func(*testing.T, *engine, *engines.Recorder)
	}{
		{"stopped", stopped}, {"flash", flash}, {"forged", forgedLabels}, {"leak", leak}, {"beneath", beneath}, {"while away", whileAway},
	} {
		t.Run(part.name, func(t *testing.T) { part.play(t, e, r) })
	}
	for _, s := range r.All() {
		if l, ok := s.Body.(signal.Lost); ok {
			t.Errorf("lost %+v", l)
		}
	}
}

// stopped is a container that does not end when asked to, with an exec in it.
func stopped(t *testing.T, e *engine, r *engines.Recorder) {
	id := e.run("stopped", false, map[string]string{"com.docker.compose.service": "web"}, "/bin/sleep", "600")
	// Where its start took long it was asked about before: that answer has no state.
	_, seen := engines.Find(r, "its pid", func(_ signal.Signal, s signal.ContainerSeen) bool {
		return s.Container.ID == id && s.PID > 0 && s.State != ""
	})
	if seen.Container.Name != "stopped" || seen.Container.Image != "base:1" || seen.State != "running" || seen.LimitBytes == nil ||
		*seen.LimitBytes != 32<<20 || seen.LogPath == "" || *seen.StopTimeout != 1 || seen.Container.Labels["com.docker.compose.service"] != "web" {
		t.Errorf("seen %+v", seen)
	}
	if want := engines.MemoryCgroup(t, strconv.Itoa(seen.PID)); seen.Container.Cgroup != want {
		t.Errorf("cgroup %q, want %q", seen.Container.Cgroup, want)
	}
	x, err := e.client.ExecCreate(t.Context(), id, client.ExecCreateOptions{Cmd: []string{"/bin/sh", "-c", "exit 7"}})
	engines.Must(t, err)
	_, err = e.client.ExecStart(t.Context(), x.ID, client.ExecStartOptions{Detach: true})
	engines.Must(t, err)
	_, err = e.client.ContainerStop(t.Context(), id, client.ContainerStopOptions{})
	engines.Must(t, err)
	_, exit := engines.Find(r, "its end in full", func(_ signal.Signal, x signal.ContainerExit) bool { return x.ID == id && x.OOMKilled != nil })
	if *exit.Code != 137 || *exit.OOMKilled || exit.PID != seen.PID || !exit.Started.Equal(seen.Started) || !exit.Finished.After(exit.Started) {
		t.Errorf("exit %+v", exit)
	}
	var sent []int
	for _, s := range r.All() {
		switch b := s.Body.(type) {
		case signal.ContainerStop:
			if b.ID == id && b.Action == "kill" {
				sent = append(sent, b.Signal)
			}
		case signal.ContainerExit:
			if b.ID == id && *b.Code == 7 {
				t.Errorf("the end of an exec was told as the container's: %+v", b)
			}
		}
	}
	if len(sent) != 2 || sent[0] != 15 || sent[1] != 9 {
		t.Errorf("signals sent: %v", sent)
	}
	_, err = e.client.ContainerRemove(t.Context(), id, client.ContainerRemoveOptions{})
	engines.Must(t, err)
	engines.Find(r, "its removal", func(_ signal.Signal, g signal.ContainerGone) bool { return g.ID == id })
}

// flash is a container that is gone at once.
func flash(t *testing.T, e *engine, r *engines.Recorder) {
	id := e.run("flash", true, nil, "/bin/sh", "-c", "exit 3")
	_, exit := engines.Find(r, "its end", func(_ signal.Signal, x signal.ContainerExit) bool { return x.ID == id })
	if exit.Code == nil || *exit.Code != 3 {
		t.Errorf("exit %+v", exit)
	}
	engines.Find(r, "its name", func(_ signal.Signal, s signal.ContainerSeen) bool {
		return s.Container.ID == id && s.Container.Name == "flash"
	})
	engines.Find(r, "its removal", func(_ signal.Signal, g signal.ContainerGone) bool { return g.ID == id })
}

// forgedLabels is a container whose labels have names of an event's attributes.
func forgedLabels(t *testing.T, e *engine, r *engines.Recorder) {
	id := e.run("forged", false, map[string]string{"exitCode": "0", "signal": "1", "name": "other"}, "/bin/sh", "-c", "exit 5")
	engines.Find(r, "its end in full", func(_ signal.Signal, x signal.ContainerExit) bool {
		if x.ID == id && x.Code != nil && *x.Code != 5 {
			t.Errorf("a label was taken for an exit code: %+v", x)
		}
		return x.ID == id && x.Code != nil
	})
	engines.Find(r, "its name", func(_ signal.Signal, s signal.ContainerSeen) bool {
		return s.Container.ID == id && s.Container.Name == "forged"
	})
}

// leak is a container that the kernel kills.
func leak(t *testing.T, e *engine, r *engines.Recorder) {
	id := e.run("leak", false, nil, "/bin/sh", "-c", "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done")
	_, exit := engines.Find(r, "its end", func(_ signal.Signal, x signal.ContainerExit) bool { return x.ID == id && x.OOMKilled != nil })
	if exit.Code == nil || *exit.Code != 137 {
		t.Errorf("exit %+v", exit)
	}
	t.Logf("Docker says OOMKilled=%v", *exit.OOMKilled)
}

// whileAway is a container that dies while the engine is away, beside one that
// lives on.
func whileAway(t *testing.T, e *engine, r *engines.Recorder) {
	dies := e.run("dies", false, nil, "/bin/sleep", "600")
	lives := e.run("lives", false, nil, "/bin/sleep", "600")
	_, seen := engines.Find(r, "its pid", func(_ signal.Signal, s signal.ContainerSeen) bool { return s.Container.ID == dies && s.PID > 0 })
	engines.Find(r, "the other's pid", func(_ signal.Signal, s signal.ContainerSeen) bool { return s.Container.ID == lives && s.PID > 0 })
	e.daemon.Stop()
	r.State("down", false)
	killed := time.Now()
	engines.Must(t, syscall.Kill(seen.PID, syscall.SIGKILL))
	e.daemon.Start()
	r.State("up again", true)
	s, exit := engines.Find(r, "its end", func(_ signal.Signal, x signal.ContainerExit) bool { return x.ID == dies })
	if !s.Recovered || exit.PID != seen.PID || exit.Code == nil {
		t.Errorf("exit %+v, recovered %v", exit, s.Recovered)
	}
	t.Logf("told with code %d, %v after the kill", *exit.Code, s.Time.Sub(killed))
	for _, s := range r.All() {
		if x, ok := s.Body.(signal.ContainerExit); ok && x.ID == lives {
			t.Errorf("the one that lives: %+v", x)
		}
	}
}
