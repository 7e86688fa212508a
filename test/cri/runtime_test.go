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
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// busybox is what the containers run: one static program.
const busybox = "/bin/busybox"

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
	cmd    *exec.Cmd
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
	if os.Getuid() != 0 {
		t.Skip("containerd needs user 0")
	}
	for _, name := range []string{"containerd", "ctr", "runc"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed (Debian: containerd, runc)", name)
		}
	}
	if _, err := os.Stat(busybox); err != nil {
		t.Skip("no static busybox (Debian: busybox-static)")
	}
	dir, err := os.MkdirTemp("", "cd")
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{t: t, dir: dir, parent: fmt.Sprintf("/coroner-cri-%d", os.Getpid())}
	t.Cleanup(func() {
		unmountBelow(t, dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		removeCgroups(t, e.parent)
	})
	must(t, os.WriteFile(e.path("config.toml"), []byte(e.config()), 0o600))
	e.conn, err = grpc.NewClient("unix://"+e.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{})))
	must(t, err)
	e.cri = runtimeapi.NewRuntimeServiceClient(e.conn)
	e.start()
	t.Cleanup(func() {
		e.removeAll()
		_ = e.conn.Close()
		e.stop()
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

// start starts the daemon, and waits until it answers.
func (e *engine) start() {
	e.t.Helper()
	log, err := os.OpenFile(e.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(e.t, err)
	defer log.Close()
	e.cmd = exec.Command("containerd", "--config", e.path("config.toml"))
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	must(e.t, e.cmd.Start())
	poll(e.t, "the runtime", func() bool {
		ctx, cancel := context.WithTimeout(e.t.Context(), time.Second)
		defer cancel()
		_, err := e.cri.Version(ctx, &runtimeapi.VersionRequest{})
		if err != nil && e.cmd.Process.Signal(syscall.Signal(0)) != nil {
			text, _ := os.ReadFile(log.Name())
			e.t.Skipf("containerd does not run here: %s", text)
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
		e.t.Error("containerd does not end")
		_ = e.cmd.Process.Kill()
		<-done
	}
}

func (e *engine) removeAll() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, id := range e.made {
		if _, err := e.cri.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
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
	must(e.t, os.WriteFile(e.path("images.tar"), archive(e.t), 0o600))
	out, err := exec.Command("ctr", "--address", e.socket(), "--namespace", "k8s.io", "images", "import", e.path("images.tar")).CombinedOutput()
	if err != nil {
		e.t.Fatalf("import: %v: %s", err, out)
	}
	images := runtimeapi.NewImageServiceClient(e.conn)
	for _, name := range []string{baseImage, pauseImage} {
		poll(e.t, name, func() bool {
			a, err := images.ImageStatus(e.t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
			return err == nil && a.GetImage() != nil
		})
	}
}

// archive is what docker save makes.
func archive(t *testing.T) []byte {
	t.Helper()
	program, err := os.ReadFile(busybox)
	must(t, err)
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	file(t, w, "bin/busybox", program)
	for _, name := range []string{"sh", "sleep", "true"} {
		must(t, w.WriteHeader(&tar.Header{Name: "bin/" + name, Linkname: "busybox", Typeflag: tar.TypeSymlink}))
	}
	must(t, w.Close())
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{"Cmd": []string{"/bin/sleep", "3600"}, "Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes()))}},
	})
	must(t, err)
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{baseImage, pauseImage}, "Layers": []string{"layer.tar"}}})
	must(t, err)
	var out bytes.Buffer
	w = tar.NewWriter(&out)
	file(t, w, "manifest.json", manifest)
	file(t, w, "config.json", config)
	file(t, w, "layer.tar", layer.Bytes())
	must(t, w.Close())
	return out.Bytes()
}

func file(t *testing.T, w *tar.Writer, name string, text []byte) {
	t.Helper()
	must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text)), Typeflag: tar.TypeReg}))
	_, err := w.Write(text)
	must(t, err)
}

// pod is one that the test made.
type pod struct {
	e      *engine
	id     string
	config *runtimeapi.PodSandboxConfig
}

// pod makes a pod on the host's network, which needs no plugin for networks.
func (e *engine) pod(name string, labels, annotations map[string]string) *pod {
	e.t.Helper()
	uid := fmt.Sprintf("28fcb1a0-a45c-44e7-b9bf-%012x", len(e.made))
	p := &pod{e: e, config: &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "shop", Uid: uid}, Labels: labels, Annotations: annotations,
		LogDirectory: e.path("pods/" + name),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: e.parent + "/kubepods/burstable/pod" + uid,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{
				Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER,
			}},
		},
	}}
	must(e.t, os.MkdirAll(p.config.GetLogDirectory(), 0o755))
	a, err := e.cri.RunPodSandbox(e.t.Context(), &runtimeapi.RunPodSandboxRequest{Config: p.config})
	must(e.t, err)
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
			Linux:       &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 << 20}},
		},
	})
	must(p.e.t, err)
	return a.GetContainerId()
}

func (p *pod) run(name string, attempt uint32, command ...string) string {
	p.e.t.Helper()
	id := p.create(name, attempt, command...)
	_, err := p.e.cri.StartContainer(p.e.t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id})
	must(p.e.t, err)
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
	must(e.t, err)
	return a.GetStatus()
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

// unmountBelow takes away what the runtime left mounted.
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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
