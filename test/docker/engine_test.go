// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docker

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/coroner-dev/coroner/test/engines"
)

// engine is a Docker of the test's own: its state, its socket and its
// containerd lie in a folder that goes with the test.
type engine struct {
	t      *testing.T
	dir    string
	daemon *engines.Daemon
	client *client.Client
	grace  int // seconds in which containers that are made now must stop
}

func startEngine(t *testing.T) *engine {
	t.Helper()
	engines.Need(t, "docker.io, containerd, runc", "dockerd", "containerd", "runc")
	e := &engine{t: t, dir: engines.Dir(t), grace: 1}
	var err error
	e.client, err = client.New(client.WithHost("unix://" + e.socket()))
	engines.Must(t, err)
	engines.Must(t, os.WriteFile(filepath.Join(e.dir, "none.json"), []byte("{}"), 0o600))
	e.daemon = &engines.Daemon{
		T: t, Log: filepath.Join(e.dir, "log"),
		Command: []string{
			"dockerd", "--data-root", filepath.Join(e.dir, "data"), "--exec-root", filepath.Join(e.dir, "exec"),
			"--pidfile", filepath.Join(e.dir, "pid"), "-H", "unix://" + e.socket(), "--config-file", filepath.Join(e.dir, "none.json"),
			"--iptables=false", "--ip6tables=false", "--bridge=none", "--live-restore",
		},
		Answers: func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := e.client.Ping(ctx, client.PingOptions{})
			return err == nil
		},
	}
	e.daemon.Start()
	t.Cleanup(func() {
		e.removeAll()
		_ = e.client.Close()
		e.daemon.Stop()
	})
	e.importImage()
	return e
}

func (e *engine) socket() string { return filepath.Join(e.dir, "d.sock") }

func (e *engine) removeAll() {
	within := func(do func(context.Context) error) {
		ctx, cancel := context.WithTimeout(context.Background(), engines.Patience)
		defer cancel()
		if err := do(ctx); err != nil {
			e.t.Error(err)
		}
	}
	var list client.ContainerListResult
	within(func(ctx context.Context) (err error) {
		list, err = e.client.ContainerList(ctx, client.ContainerListOptions{All: true})
		return err
	})
	for _, c := range list.Items { // there may be many
		within(func(ctx context.Context) error {
			_, err := e.client.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true})
			return err
		})
	}
}

// importImage makes an image of busybox alone.
func (e *engine) importImage() { e.addProgram() }

// addProgram makes the image anew, of busybox and these programs.
func (e *engine) addProgram(programs ...string) { e.build("base:1", programs...) }

func (e *engine) build(image string, programs ...string) {
	e.t.Helper()
	layer := bytes.NewReader(engines.Layer(e.t, programs...))
	res, err := e.client.ImageImport(e.t.Context(), client.ImageImportSource{Source: layer, SourceName: "-"}, image, client.ImageImportOptions{})
	engines.Must(e.t, err)
	_, err = io.Copy(io.Discard, res)
	engines.Must(e.t, err)
	engines.Must(e.t, res.Close())
}

// run starts a container and gives its id.
func (e *engine) run(name string, remove bool, labels map[string]string, command ...string) string {
	e.t.Helper()
	return e.runWith(name, remove, labels, container.Resources{Memory: 32 << 20}, command...)
}

// runWith starts a container with limits of its own.
func (e *engine) runWith(name string, remove bool, labels map[string]string, limits container.Resources, command ...string) string {
	e.t.Helper()
	return e.runImage("base:1", name, remove, labels, limits, command...)
}

func (e *engine) runImage(image, name string, remove bool, labels map[string]string, limits container.Resources, command ...string) string {
	e.t.Helper()
	made, err := e.client.ContainerCreate(e.t.Context(), client.ContainerCreateOptions{
		Name:   name,
		Config: &container.Config{Image: image, Cmd: command, Labels: labels, StopTimeout: new(e.grace)},
		HostConfig: &container.HostConfig{
			NetworkMode: "none", AutoRemove: remove, ShmSize: 8 << 20, Resources: limits,
		},
	})
	engines.Must(e.t, err)
	_, err = e.client.ContainerStart(e.t.Context(), made.ID, client.ContainerStartOptions{})
	engines.Must(e.t, err)
	return made.ID
}
