// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cri

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

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
	made   []string // pods, to be removed
}

// invalidUTF8 goes out as bytes that are none.
const invalidUTF8 = "INVALID8"

// codec sends text that is no UTF-8, as a kubelet may that was given such.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	b, err := proto.Marshal(v.(proto.Message))
	return mem.BufferSlice{mem.SliceBuffer(bytes.ReplaceAll(b, []byte(invalidUTF8), []byte("\xff\xfe\xff\xfe\xff\xfe\xff\xfe")))}, err
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	return proto.Unmarshal(data.Materialize(), v.(proto.Message))
}

func startEngine(t *testing.T) *engine {
	t.Helper()
	engines.Need(t, "containerd, runc", "containerd", "ctr", "runc")
	e := &engine{t: t, parent: fmt.Sprintf("/coroner-cri-%d", os.Getpid())}
	t.Cleanup(func() { removeCgroups(t, e.parent) })
	e.dir = engines.Dir(t)
	engines.Must(t, os.WriteFile(e.path("config.toml"), []byte(e.config()), 0o600))
	var err error
	e.conn, err = grpc.NewClient("unix://"+e.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{})))
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
	ctx, cancel := context.WithTimeout(context.Background(), engines.Patience)
	defer cancel()
	for _, id := range e.made {
		if _, err := e.cri.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil && status.Code(err) != codes.NotFound {
			e.t.Error(err)
		}
		if _, err := e.cri.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
			e.t.Error(err)
		}
	}
}

// importImages makes two images of busybox alone, and waits until the runtime
// knows them.
func (e *engine) importImages() {
	e.t.Helper()
	engines.Must(e.t, os.WriteFile(e.path("images.tar"), archive(e.t), 0o600))
	out, err := exec.Command("ctr", "--address", e.socket(), "--namespace", "k8s.io", "images", "import", e.path("images.tar")).CombinedOutput()
	if err != nil {
		e.t.Fatalf("import: %v: %s", err, out)
	}
	images := runtimeapi.NewImageServiceClient(e.conn)
	for _, name := range []string{baseImage, pauseImage} {
		engines.Poll(e.t, name, func() bool {
			a, err := images.ImageStatus(e.t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
			return err == nil && a.GetImage() != nil
		})
	}
}

// archive is what docker save makes.
func archive(t *testing.T) []byte {
	t.Helper()
	layer := engines.Layer(t)
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{"Cmd": []string{"/bin/sleep", "3600"}, "Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	engines.Must(t, err)
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{baseImage, pauseImage}, "Layers": []string{"layer.tar"}}})
	engines.Must(t, err)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	file(t, w, "manifest.json", manifest)
	file(t, w, "config.json", config)
	file(t, w, "layer.tar", layer)
	engines.Must(t, w.Close())
	return out.Bytes()
}

func file(t *testing.T, w *tar.Writer, name string, text []byte) {
	t.Helper()
	engines.Must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text)), Typeflag: tar.TypeReg}))
	_, err := w.Write(text)
	engines.Must(t, err)
}

// pod is one that the test made.
type pod struct {
	e      *engine
	id     string
	config *runtimeapi.PodSandboxConfig
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
	p := &pod{e: e, config: &runtimeapi.PodSandboxConfig{
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

// create makes a container; run starts it, too.
func (p *pod) create(name string, attempt uint32, command ...string) string {
	p.e.t.Helper()
	a, err := p.e.cri.CreateContainer(p.e.t.Context(), &runtimeapi.CreateContainerRequest{
		PodSandboxId: p.id, SandboxConfig: p.config,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name, Attempt: attempt}, Image: &runtimeapi.ImageSpec{Image: baseImage},
			Command: command, LogPath: fmt.Sprintf("%s.%d.log", name, attempt), Labels: map[string]string{"io.kubernetes.container.name": name},
			Annotations: map[string]string{"io.kubernetes.pod.terminationGracePeriod": "7"},
			Linux: &runtimeapi.LinuxContainerConfig{
				Resources:       &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 << 20},
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

// pid is the one process of a cgroup, as the kernel says.
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
