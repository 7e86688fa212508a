// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cri

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/test/engines"
)

const (
	baseImage  = "localhost/base:1"
	pauseImage = "localhost/pause:1"
)

// engine is a containerd of the test's own, with its CRI plugin: its state and
// its sockets lie in a folder that goes with the test.
type engine struct {
	t      *testing.T
	dir    string
	parent string // of the cgroups that it makes
	daemon *engines.Daemon
	conn   *grpc.ClientConn
	cri    runtimeapi.RuntimeServiceClient
	made   []string        // pods
	gone   map[string]bool // those of them that were removed
}

func startEngine(t *testing.T) *engine {
	t.Helper()
	engines.Need(t, "containerd, runc", "containerd", "ctr", "runc")
	e := &engine{t: t, gone: map[string]bool{}, parent: fmt.Sprintf("/coroner-cri-%d", os.Getpid())}
	t.Cleanup(func() { removeCgroups(t, e.parent) })
	e.dir = engines.Dir(t)
	engines.Must(t, os.WriteFile(e.path("config.toml"), []byte(e.config()), 0o600))
	var err error
	e.conn, err = grpc.NewClient("unix://"+e.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(enginetest.NewRawCodec())))
	engines.Must(t, err)
	e.cri = runtimeapi.NewRuntimeServiceClient(e.conn)
	e.daemon = &engines.Daemon{
		T: t, Log: e.path("log"), Command: []string{"containerd", "--config", e.path("config.toml")},
		Answers: func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_, err := e.cri.Version(ctx, &runtimeapi.VersionRequest{})
			return err == nil
		},
	}
	e.daemon.Start()
	t.Cleanup(func() {
		e.removeAll()
		_ = e.conn.Close()
		e.daemon.Stop()
	})
	e.importImages()
	return e
}

func (e *engine) path(name string) string { return filepath.Join(e.dir, name) }
func (e *engine) socket() string          { return e.path("c.sock") }

// config is containerd's. Not every machine lets it lower oom_score_adj.
func (e *engine) config() string {
	return strings.ReplaceAll(`version = 2
root = "DIR/root"
state = "DIR/state"
[grpc]
  address = "DIR/c.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "DIR/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "`+pauseImage+`"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "DIR/cni"
    conf_dir = "DIR/cni.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
`, "DIR", e.dir)
}

func (e *engine) removeAll() {
	for _, id := range e.made {
		if !e.gone[id] {
			e.removeLeft(id)
		}
	}
}

// removeLeft takes away a pod of which something may be left.
func (e *engine) removeLeft(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), engines.Patience)
	defer cancel()
	if _, err := e.cri.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil && status.Code(err) != codes.NotFound {
		e.t.Error(err)
	}
	if _, err := e.cri.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		e.t.Error(err)
	}
}

// importImages makes two images of busybox alone, and waits until the runtime
// knows them.
func (e *engine) importImages() {
	e.t.Helper()
	for name, command := range map[string][]string{baseImage: {"/bin/sleep", "3600"}, pauseImage: {"/bin/pause"}} {
		config := map[string]any{"Cmd": command, "Env": []string{"PATH=/bin"}}
		engines.Must(e.t, os.WriteFile(e.path("image.tar"), engines.Image(e.t, config, name), 0o600))
		out, err := exec.Command("ctr", "--address", e.socket(), "--namespace", "k8s.io", "images", "import", e.path("image.tar")).CombinedOutput()
		if err != nil {
			e.t.Fatalf("import %s: %v: %s", name, err, out)
		}
	}
	images := runtimeapi.NewImageServiceClient(e.conn)
	for _, name := range []string{baseImage, pauseImage} {
		engines.Poll(e.t, name, func() bool {
			a, err := images.ImageStatus(e.t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
			return err == nil && a.GetImage() != nil
		})
	}
}

// pod is one that the test made.
type pod struct {
	e      *engine
	id     string
	config *runtimeapi.PodSandboxConfig
	limit  int64    // of memory of each container
	binds  []string // PATH:PATH:ro, into each container
}

// namespaces are the host's network, which needs no plugin for networks, and
// processes of each container's own.
func namespaces() *runtimeapi.NamespaceOption {
	return &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER}
}

// pod makes a pod.
func (e *engine) pod(name string, labels, annotations map[string]string) *pod {
	e.t.Helper()
	uid := fmt.Sprintf("28fcb1a0-a45c-44e7-b9bf-%012x", len(e.made))
	p := &pod{e: e, limit: 32 << 20, config: &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "shop", Uid: uid}, Labels: labels, Annotations: annotations,
		LogDirectory: e.path("pods/" + name),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    e.parent + "/kubepods/burstable/pod" + uid,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: namespaces()},
		},
	}}
	engines.Must(e.t, os.MkdirAll(p.config.GetLogDirectory(), 0o755))
	a, err := e.cri.RunPodSandbox(e.t.Context(), &runtimeapi.RunPodSandboxRequest{Config: p.config})
	engines.Must(e.t, err)
	p.id = a.GetPodSandboxId()
	e.made = append(e.made, p.id)
	return p
}

// labels are what the kubelet gives each container.
func (p *pod) labels(name string) map[string]string {
	m := p.config.GetMetadata()
	return map[string]string{
		"io.kubernetes.container.name": name, "io.kubernetes.pod.name": m.GetName(),
		"io.kubernetes.pod.namespace": m.GetNamespace(), "io.kubernetes.pod.uid": m.GetUid(),
	}
}

// create makes a container; run starts it, too.
func (p *pod) create(name string, attempt uint32, command ...string) string {
	p.e.t.Helper()
	var mounts []*runtimeapi.Mount
	for _, b := range p.binds {
		at, _, _ := strings.Cut(b, ":")
		mounts = append(mounts, &runtimeapi.Mount{HostPath: at, ContainerPath: at, Readonly: true})
	}
	a, err := p.e.cri.CreateContainer(p.e.t.Context(), &runtimeapi.CreateContainerRequest{
		PodSandboxId: p.id, SandboxConfig: p.config,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name, Attempt: attempt}, Image: &runtimeapi.ImageSpec{Image: baseImage},
			Command: command, Mounts: mounts, LogPath: fmt.Sprintf("%s.%d.log", name, attempt), Labels: p.labels(name),
			Annotations: map[string]string{"io.kubernetes.pod.terminationGracePeriod": "7"},
			Linux: &runtimeapi.LinuxContainerConfig{
				Resources:       &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: p.limit},
				SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: namespaces()},
			},
		},
	})
	engines.Must(p.e.t, err)
	return a.GetContainerId()
}

func (p *pod) run(name string, attempt uint32, command ...string) string {
	p.e.t.Helper()
	id := p.create(name, attempt, command...)
	_, err := p.e.cri.StartContainer(p.e.t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id})
	engines.Must(p.e.t, err)
	return id
}

// cgroup is where a container must be, as the test asked for.
func (p *pod) cgroup(id string) string { return p.config.GetLinux().GetCgroupParent() + "/" + id }

// removePod takes a pod away as the kubelet does.
func (e *engine) removePod(t *testing.T, p *pod) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), engines.Patience)
	defer cancel()
	_, err := e.cri.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.id})
	engines.Must(t, err)
	_, err = e.cri.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.id})
	engines.Must(t, err)
	e.gone[p.id] = true
}

// pid is the first process of a cgroup, as the kernel says.
func (p *pod) pid(id string) (pid int) {
	p.e.t.Helper()
	for _, root := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		text, err := os.ReadFile(filepath.Join(root, p.cgroup(id), "cgroup.procs"))
		if err != nil {
			continue
		}
		if _, err := fmt.Sscan(string(text), &pid); err != nil {
			p.e.t.Fatalf("processes of %s: %q", p.cgroup(id), text)
		}
		return pid
	}
	p.e.t.Fatalf("no cgroup %s", p.cgroup(id))
	return 0
}

// status is what the runtime itself says.
func (e *engine) status(id string) *runtimeapi.ContainerStatus {
	e.t.Helper()
	a, err := e.cri.ContainerStatus(e.t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id})
	engines.Must(e.t, err)
	return a.GetStatus()
}

// removeCgroups takes away the groups of pods, which the runtime leaves to
// whoever named them.
func removeCgroups(t *testing.T, parent string) {
	roots, err := filepath.Glob("/sys/fs/cgroup/*")
	if err != nil {
		t.Error(err)
	}
	for _, root := range append(roots, "/sys/fs/cgroup") {
		var dirs []string
		_ = filepath.WalkDir(filepath.Join(root, parent), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) {
			if err := syscall.Rmdir(dir); err != nil {
				t.Errorf("remove %s: %v", dir, err)
			}
		}
	}
}
