// SPDX-License-Identifier: Apache-2.0

//go:build linux

package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/test/engines"
)

// engine is a Docker with a network and a /run and /var/lib of its own, so that
// what it runs finds sockets, folders and ports where the README has them.
type engine struct {
	t      *testing.T
	pid    int
	client *client.Client
}

// apart is what an engine does before it becomes one. Its folder has "lib".
const apart = `set -e
export PATH="$PROGRAMS:$PATH"
busybox mount --make-rprivate /
busybox mount -t tmpfs tmpfs /run
busybox mount -o bind lib /var/lib
busybox ip link set lo up
exec "$DOCKERD" --config-file "$PWD/none.json" --iptables=false --ip6tables=false`

func startEngine(t *testing.T, dockerd string) *engine {
	t.Helper()
	dir := engines.Dir(t)
	must(t, os.MkdirAll(filepath.Join(dir, "lib", "docker"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "none.json"), []byte("{}"), 0o600))
	log, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	defer log.Close()
	c := exec.Command("busybox", "sh", "-c", apart)
	c.Dir, c.Stdout, c.Stderr = dir, log, log
	c.Env = append(os.Environ(), "DOCKERD="+dockerd, "PROGRAMS="+filepath.Dir(dockerd))
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
	must(t, c.Start())
	e := &engine{t: t, pid: c.Process.Pid}
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
	})
	e.client, err = client.New(client.WithHost(fmt.Sprintf("unix:///proc/%d/root/run/docker.sock", e.pid)))
	must(t, err)
	engines.Poll(t, "Docker", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := e.client.Ping(ctx, client.PingOptions{})
		if err != nil && syscall.Kill(e.pid, 0) != nil {
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("Docker ended: %s", text[max(0, len(text)-4096):])
		}
		return err == nil
	})
	t.Cleanup(func() {
		e.removeAll()
		_ = e.client.Close()
	})
	return e
}

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

// inside runs a program as somebody on the engine's machine would.
func (e *engine) inside(args ...string) (string, error) {
	c := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(e.pid), "-m", "-n"}, args...)...)
	var complaints bytes.Buffer
	c.Stderr = &complaints
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, &complaints)
	}
	return strings.TrimSpace(string(out)), nil
}

// docker runs the client: the one of the engine's machine, whichever comes
// first in PATH.
func (e *engine) docker(args ...string) string {
	e.t.Helper()
	out, err := e.inside(append([]string{"/usr/bin/docker"}, args...)...)
	must(e.t, err)
	return out
}

// load takes the image of the program, and one of busybox for others.
func (e *engine) load(tar string) {
	e.t.Helper()
	e.docker("load", "-i", tar)
	res, err := e.client.ImageImport(e.t.Context(), client.ImageImportSource{Source: bytes.NewReader(engines.Layer(e.t)), SourceName: "-"},
		"base:1", client.ImageImportOptions{})
	must(e.t, err)
	_, err = io.Copy(io.Discard, res)
	must(e.t, errors.Join(err, res.Close()))
}

// mainPID is a container's first process, 0 where it does not run.
func (e *engine) mainPID(name string) int {
	e.t.Helper()
	c, err := e.client.ContainerInspect(e.t.Context(), name, client.ContainerInspectOptions{})
	must(e.t, err)
	return c.Container.State.Pid
}

// ask is a client of what serves on port 3001 where a process lives.
func ask(t *testing.T, pid int) *api.Client {
	t.Helper()
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		return dialAt(ctx, pid, network, address)
	}
	c, err := api.NewClient("127.0.0.1:3001", &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}})
	must(t, err)
	return c
}

// dialAt connects from the network namespace of a process.
func dialAt(ctx context.Context, pid int, network, address string) (net.Conn, error) {
	type answer struct {
		conn net.Conn
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		runtime.LockOSThread() // and never let go: nobody else is to have this thread
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			done <- answer{err: err}
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- answer{err: err}
			return
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, address)
		done <- answer{conn, err}
	}()
	a := <-done
	return a.conn, a.err
}
