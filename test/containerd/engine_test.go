// SPDX-License-Identifier: Apache-2.0

//go:build linux

package containerd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/test/engines"
)

const image = "docker.io/library/base:1"

// engine is a containerd of the test's own: its root, its state and its socket
// lie in a folder that goes with the test, its containers in two namespaces.
type engine struct {
	t      *testing.T
	dir    string
	daemon *engines.Daemon
	spaces [2]string
}

func startEngine(t *testing.T) *engine {
	t.Helper()
	engines.Need(t, "containerd, runc", "containerd", "ctr", "runc")
	e := &engine{t: t, dir: engines.Dir(t)}
	for i := range e.spaces {
		e.spaces[i] = fmt.Sprintf("coroner-test-%d-%d", os.Getpid(), i)
	}
	config := filepath.Join(e.dir, "config.toml")
	engines.Must(t, os.WriteFile(config, fmt.Appendf(nil, `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = %q
`, filepath.Join(e.dir, "root"), filepath.Join(e.dir, "state"), e.socket()), 0o600))
	e.daemon = &engines.Daemon{
		T: t, Log: filepath.Join(e.dir, "log"), Command: []string{"containerd", "--config", config},
		Answers: func() bool { return e.command("version").Run() == nil },
	}
	e.daemon.Start()
	t.Cleanup(func() {
		for _, space := range e.spaces {
			e.removeAll(space)
		}
		e.daemon.Stop()
	})
	archive := filepath.Join(e.dir, "image.tar")
	claims := map[string]string{ // to be a pod's
		"io.cri-containerd.kind": "sandbox", "io.kubernetes.pod.name": "kube-apiserver", "com.docker.compose.service": "web",
	}
	engines.Must(t, os.WriteFile(archive, engines.Image(t, map[string]any{"Labels": claims}, image), 0o600))
	for _, space := range e.spaces {
		e.ctr(space, "images", "import", archive)
	}
	return e
}

func (e *engine) socket() string { return filepath.Join(e.dir, "c.sock") }

func (e *engine) command(args ...string) *exec.Cmd {
	return exec.Command("ctr", append([]string{"--address", e.socket(), "--connect-timeout", "2s", "--timeout", "30s"}, args...)...)
}

// ctr runs one command, which must do.
func (e *engine) ctr(space string, args ...string) string {
	e.t.Helper()
	out, err := e.command(append([]string{"-n", space}, args...)...).CombinedOutput()
	if err != nil {
		e.t.Fatalf("ctr %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// run starts a container with a limit of 32 MiB.
func (e *engine) run(space, id string, flags []string, command ...string) {
	e.t.Helper()
	args := append([]string{"run", "--null-io", "--memory-limit", strconv.Itoa(32 << 20)}, flags...)
	e.ctr(space, append(append(args, image, id), command...)...)
}

// remove takes a container away.
func (e *engine) remove(space, id string) {
	e.t.Helper()
	e.ctr(space, "task", "rm", "--force", id)
	e.ctr(space, "container", "rm", id)
}

func (e *engine) removeAll(space string) {
	out, err := e.command("-n", space, "container", "ls", "-q").Output()
	if err != nil {
		e.t.Error(err)
	}
	for _, id := range strings.Fields(string(out)) {
		_ = e.command("-n", space, "task", "rm", "--force", id).Run() // it may have none
		if text, err := e.command("-n", space, "container", "rm", id).CombinedOutput(); err != nil {
			e.t.Errorf("remove %s: %v: %s", id, err, text)
		}
	}
	// The runtime leaves the namespace's own cgroup.
	for _, pattern := range []string{"/sys/fs/cgroup/*/" + space, "/sys/fs/cgroup/" + space} {
		left, _ := filepath.Glob(pattern)
		for _, dir := range left {
			_ = os.Remove(dir)
		}
	}
}
