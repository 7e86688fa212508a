// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package podman runs the docker source and a whole agent against a real
// podman, by its Docker API.
package podman

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/coroner-dev/coroner/test/engines"
)

// engine is a podman with a state of its own, which goes with the test.
type engine struct {
	t      *testing.T
	dir    string
	user   int // who runs it; 0: the machine
	daemon *engines.Daemon
	client *client.Client
}

func startEngine(t *testing.T, user int, programs ...string) *engine {
	t.Helper()
	engines.Need(t, "podman, runc", "podman", "conmon", "runc", "setpriv")
	e := &engine{t: t, dir: engines.Dir(t), user: user}
	engines.Must(t, os.MkdirAll(filepath.Dir(e.socket()), 0o700))
	for dir := filepath.Dir(e.socket()); strings.HasPrefix(dir, e.dir); dir = filepath.Dir(dir) {
		engines.Must(t, os.Chown(dir, user, user))
	}
	var err error
	e.client, err = client.New(client.WithHost("unix://" + e.socket()))
	engines.Must(t, err)
	// podman would raise limits, which not every machine lets it.
	const conf = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n[engine]\nno_pivot_root = false\n"
	engines.Must(t, os.WriteFile(e.conf(), []byte(conf), 0o644))
	t.Setenv("CONTAINERS_CONF", e.conf())
	e.daemon = &engines.Daemon{
		T: t, Log: filepath.Join(e.dir, "log"), Command: e.command("system", "service", "--time=0", "unix://"+e.socket()),
		Answers: func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := e.client.Ping(ctx, client.PingOptions{})
			return err == nil
		},
	}
	e.podmanIn(engines.Layer(t, programs...), "import", "-", "base:1")
	e.daemon.Start()
	t.Cleanup(func() {
		_ = e.client.Close()
		e.daemon.Stop()
		e.removeAll()
		if user != 0 {
			e.podman("system", "migrate") // ends the process that holds its namespaces
		}
		engines.Poll(t, "the end of what tidies up after containers", e.alone)
	})
	return e
}

func (e *engine) conf() string { return filepath.Join(e.dir, "containers.conf") }

// socket is where the engine of a user has its own, below a root of the test's.
func (e *engine) socket() string {
	return filepath.Join(e.dir, "run/user", strconv.Itoa(e.user), "podman/podman.sock")
}

func (e *engine) command(args ...string) []string {
	in := func(name string) string { return filepath.Join(e.dir, name) }
	id := strconv.Itoa(e.user)
	return append([]string{
		"setpriv", "--reuid", id, "--regid", id, "--clear-groups", "env", "HOME=" + e.dir, "XDG_RUNTIME_DIR=" + filepath.Dir(filepath.Dir(e.socket())),
		"podman", "--root", in("root"), "--runroot", in("run"), "--tmpdir", in("tmp"), "--storage-driver", "vfs",
		// Its own runtime, crun, refuses a machine with both versions of cgroups.
		"--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "runc",
	}, args...)
}

// alone tells whether none of its processes is left: monitors start some that
// write to its folder after a container has gone.
func (e *engine) alone() bool {
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	engines.Must(e.t, err)
	for _, path := range all {
		if text, err := os.ReadFile(path); err == nil && bytes.Contains(text, []byte(e.dir)) {
			return false
		}
	}
	return true
}

// podman runs a command, and gives its output.
func (e *engine) podman(args ...string) string {
	e.t.Helper()
	return e.podmanIn(nil, args...)
}

func (e *engine) podmanIn(in []byte, args ...string) string {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), engines.Patience)
	defer cancel()
	command := e.command(args...)
	c := exec.CommandContext(ctx, command[0], command[1:]...) //nolint:gosec // the test's own
	var out, trouble bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(in), &out, &trouble
	c.WaitDelay = time.Second // a monitor may keep what it was given open
	if err := c.Run(); err != nil {
		e.t.Fatalf("podman %s: %v\n%s", strings.Join(args, " "), err, trouble.String())
	}
	return strings.TrimSpace(out.String())
}

func (e *engine) removeAll() {
	e.podman("rm", "--all", "--force", "--time", "0")
}

// run starts a container and gives its id.
func (e *engine) run(name string, flags []string, command ...string) string {
	e.t.Helper()
	args := append([]string{"run", "--detach", "--name", name, "--network", "none", "--memory", "32m", "--stop-timeout", "1"}, flags...)
	return e.podman(append(append(args, "localhost/base:1"), command...)...)
}

func (e *engine) pid(id string) int {
	e.t.Helper()
	pid, err := strconv.Atoi(e.podman("inspect", "--format", "{{.State.Pid}}", id))
	engines.Must(e.t, err)
	return pid
}
