// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/coroner-dev/coroner/internal/signal"
	source "github.com/coroner-dev/coroner/internal/source/docker"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// busybox is what the containers run: one static program.
const busybox = "/bin/busybox"

// engine is a Docker of the test's own: its state, its socket and its
// containerd lie in a folder that goes with the test.
type engine struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	client *client.Client
}

func startEngine(t *testing.T) *engine {
	t.Helper()
	if os.Getuid() != 0 {
		lack(t, "Docker needs user 0")
	}
	for _, name := range []string{"dockerd", "containerd", "runc"} {
		if _, err := exec.LookPath(name); err != nil {
			lack(t, name+" is not installed (Debian: docker.io, containerd, runc)")
		}
	}
	if _, err := os.Stat(busybox); err != nil {
		lack(t, "no static busybox (Debian: busybox-static)")
	}
	dir, err := os.MkdirTemp("", "dk")
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{t: t, dir: dir}
	t.Cleanup(func() {
		unmountBelow(t, dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	e.client, err = client.New(client.WithHost("unix://" + e.socket()))
	if err != nil {
		t.Fatal(err)
	}
	e.start()
	t.Cleanup(func() {
		e.removeAll()
		_ = e.client.Close()
		e.stop()
	})
	e.importImage()
	return e
}

// lack leaves the test out; with CORONER_CI=1 the machine has what it needs.
func lack(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CORONER_CI") == "1" {
		t.Fatalf("CORONER_CI=1, but %s", why)
	}
	t.Skip(why)
}

func (e *engine) socket() string { return filepath.Join(e.dir, "d.sock") }

// start starts the daemon, and waits until it answers.
func (e *engine) start() {
	e.t.Helper()
	log, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	defer log.Close()
	e.cmd = exec.Command("dockerd", "--data-root", filepath.Join(e.dir, "data"), "--exec-root", filepath.Join(e.dir, "exec"),
		"--pidfile", filepath.Join(e.dir, "pid"), "-H", "unix://"+e.socket(), "--config-file", filepath.Join(e.dir, "none.json"),
		"--iptables=false", "--ip6tables=false", "--bridge=none", "--live-restore")
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := os.WriteFile(filepath.Join(e.dir, "none.json"), []byte("{}"), 0o600); err != nil {
		e.t.Fatal(err)
	}
	if err := e.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	poll(e.t, "the engine", func() bool {
		ctx, cancel := context.WithTimeout(e.t.Context(), time.Second)
		defer cancel()
		_, err := e.client.Ping(ctx, client.PingOptions{})
		if err != nil && e.cmd.Process.Signal(syscall.Signal(0)) != nil {
			text, _ := os.ReadFile(log.Name())
			lack(e.t, "dockerd does not run here: "+string(text))
		}
		return err == nil
	})
}

// stop ends the daemon; its containers live on.
func (e *engine) stop() {
	e.t.Helper()
	_ = e.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { defer close(done); _ = e.cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(patience):
		e.t.Error("dockerd does not end")
		_ = e.cmd.Process.Kill()
		<-done
	}
}

func (e *engine) removeAll() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	list, err := e.client.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		e.t.Error(err)
	}
	for _, c := range list.Items {
		if _, err := e.client.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true}); err != nil {
			e.t.Error(err)
		}
	}
}

// importImage makes an image of busybox alone.
func (e *engine) importImage() { e.addProgram() }

// addProgram makes the image anew, of busybox and these programs.
func (e *engine) addProgram(programs ...string) {
	e.t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	add := func(name, path string) {
		program, err := os.ReadFile(path)
		must(e.t, err)
		must(e.t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(program)), Typeflag: tar.TypeReg}))
		_, err = w.Write(program)
		must(e.t, err)
	}
	add("bin/busybox", busybox)
	for _, name := range []string{"sh", "sleep", "true"} {
		must(e.t, w.WriteHeader(&tar.Header{Name: "bin/" + name, Linkname: "busybox", Typeflag: tar.TypeSymlink}))
	}
	for _, path := range programs {
		add(filepath.Base(path), path)
	}
	must(e.t, w.Close())
	res, err := e.client.ImageImport(e.t.Context(), client.ImageImportSource{Source: &layer, SourceName: "-"}, "base:1", client.ImageImportOptions{})
	must(e.t, err)
	_, err = io.Copy(io.Discard, res)
	must(e.t, err)
	must(e.t, res.Close())
}

// run starts a container and gives its id.
func (e *engine) run(name string, remove bool, labels map[string]string, command ...string) string {
	e.t.Helper()
	made, err := e.client.ContainerCreate(e.t.Context(), client.ContainerCreateOptions{
		Name:   name,
		Config: &container.Config{Image: "base:1", Cmd: command, Labels: labels, StopTimeout: new(1)},
		HostConfig: &container.HostConfig{
			NetworkMode: "none", AutoRemove: remove, ShmSize: 8 << 20, Resources: container.Resources{Memory: 32 << 20},
		},
	})
	must(e.t, err)
	_, err = e.client.ContainerStart(e.t.Context(), made.ID, client.ContainerStartOptions{})
	must(e.t, err)
	return made.ID
}

// recorder keeps what the source says.
type recorder struct {
	t    *testing.T
	mu   sync.Mutex
	said []signal.Signal
}

func (e *engine) watch() *recorder {
	r := &recorder{t: e.t}
	ctx, cancel := context.WithCancel(context.Background())
	s := source.New(source.Options{
		Hosts:  []string{"unix://" + e.socket()},
		Logger: slog.New(slog.NewTextHandler(e.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, r.take) }()
	e.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			e.t.Errorf("Run: %v", err)
		}
	})
	r.state("up", true)
	return r
}

func (r *recorder) take(s signal.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, s)
}

func (r *recorder) all() []signal.Signal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]signal.Signal(nil), r.said...)
}

// state waits until the source is up or down.
func (r *recorder) state(what string, up bool) {
	r.t.Helper()
	poll(r.t, what, func() bool {
		var last *signal.SourceState
		for _, s := range r.all() {
			if st, ok := s.Body.(signal.SourceState); ok {
				last = &st
			}
		}
		return last != nil && last.Up == up
	})
}

// find waits for a signal of one kind.
func find[B signal.Body](r *recorder, what string, ok func(s signal.Signal, b B) bool) (signal.Signal, B) {
	r.t.Helper()
	var sig signal.Signal
	var body B
	poll(r.t, what, func() bool {
		for _, s := range r.all() {
			if b, is := s.Body.(B); is && ok(s, b) {
				sig, body = s, b
				return true
			}
		}
		return false
	})
	return sig, body
}

func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
		<-tick.C
	}
}

// unmountBelow takes away what the engine left mounted.
func unmountBelow(t *testing.T, dir string) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			_ = syscall.Unmount(f[4], syscall.MNT_DETACH)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
