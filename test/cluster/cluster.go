// SPDX-License-Identifier: Apache-2.0

// Package cluster runs coroner in a real Kubernetes of one node: etcd,
// kube-apiserver, kube-controller-manager, kube-scheduler, kubelet and
// containerd, in a network namespace of their own. It is a module of its own,
// so that coroner does not depend on Kubernetes.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	address = "10.99.0.1" // of the node: a loopback address is not taken for one
	server  = "https://" + address + ":6443"
	node    = "node-1"

	loadImage  = "local.test/load:1"
	pauseImage = "local.test/pause:1"

	atRest = "coroner-at-rest" // the user that the second node's agent is
)

// Cluster is a running cluster.
type Cluster struct {
	dir   string // of keys, logs and state
	built built
	netns string
	procs []*process // in the order of their start
	http  *http.Client

	mu    sync.Mutex
	wants map[string][]want // what was told right, by namespace

	// Kubeconfig is the administrator's.
	Kubeconfig string
}

// process is one program of the cluster.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan error
	log  string
}

// settings are what tests choose.
type settings struct {
	allocatable int64 // MiB that pods may have together
	evictBelow  string
}

// start brings a cluster up; t's end takes it down.
func start(t *testing.T, s settings) *Cluster {
	t.Helper()
	require(t)
	c := &Cluster{built: build(t), dir: t.TempDir(), wants: map[string][]want{}, netns: fmt.Sprintf("coroner-%d", os.Getpid())}
	c.kernelFlags(t)
	t.Cleanup(func() { c.stop(t) })
	c.namespace(t)
	c.keys(t)
	c.Kubeconfig = c.path("admin.kubeconfig")
	c.run(t, "etcd", "etcd", "--data-dir", c.path("etcd"), "--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379",
		"--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380", "--initial-cluster", "default=http://127.0.0.1:2380")
	c.containerd(t)
	if err := c.clients(); err != nil {
		t.Fatal(err)
	}
	c.apiserver(t)
	program := c.built.kubernetes
	c.run(t, "controllers", program, "kube-controller-manager", "--kubeconfig="+c.path("kcm.kubeconfig"), "--service-account-private-key-file="+c.path("sa.key"),
		"--root-ca-file="+c.path("ca.crt"), "--use-service-account-credentials=true", "--leader-elect=false", "--bind-address=127.0.0.1", "--cert-dir="+c.path("kcm"))
	c.run(t, "scheduler", program, "kube-scheduler", "--kubeconfig="+c.path("scheduler.kubeconfig"), "--leader-elect=false", "--bind-address=127.0.0.1", "--cert-dir="+c.path("scheduler"))
	c.kubelet(t, s)
	c.until(t, 2*time.Minute, "the node", func() error {
		out, err := c.kubectl("get", "node", node, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		if err == nil && out != "True" {
			err = fmt.Errorf("Ready is %q", out)
		}
		return err
	})
	c.until(t, time.Minute, "the default service account", func() error { _, err := c.kubectl("get", "serviceaccount", "default"); return err })
	return c
}

// apiserver runs the API server, which writes down what the agent of the second
// node asks for.
func (c *Cluster) apiserver(t *testing.T) {
	t.Helper()
	c.write(t, "audit.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [ResponseStarted, ResponseComplete]\nrules:\n- {level: Metadata, users: ["+atRest+"]}\n- {level: None}\n")
	c.run(t, "apiserver", c.built.kubernetes, "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--secure-port=6443", "--bind-address="+address, "--advertise-address="+address,
		"--tls-cert-file="+c.path("apiserver.crt"), "--tls-private-key-file="+c.path("apiserver.key"), "--client-ca-file="+c.path("ca.crt"), "--cert-dir="+c.path("apiserver"),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+c.path("sa.key"), "--service-account-signing-key-file="+c.path("sa.key"),
		"--authorization-mode=Node,RBAC", "--kubelet-client-certificate="+c.path("kubelet-client.crt"), "--kubelet-client-key="+c.path("kubelet-client.key"),
		"--kubelet-certificate-authority="+c.path("ca.crt"), "--kubelet-preferred-address-types=InternalIP", "--service-cluster-ip-range=10.98.0.0/24", "--allow-privileged=true",
		"--audit-policy-file="+c.path("audit.yaml"), "--audit-log-path="+c.path("audit.log"))
	c.ready(t)
}

// ready waits for the API server.
func (c *Cluster) ready(t *testing.T) {
	t.Helper()
	c.until(t, 2*time.Minute, "the API server", func() error {
		body, err := c.open(t.Context(), server+"/readyz")
		if err == nil {
			err = body.Close()
		}
		return err
	})
}

// kernelFlags puts back at the end what the kubelet sets for the whole machine.
func (c *Cluster) kernelFlags(t *testing.T) {
	t.Helper()
	for _, name := range []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"} {
		path := "/proc/sys/" + name
		was, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.WriteFile(path, was, 0o644); err != nil {
				t.Error(err)
			}
		})
	}
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }

// namespace makes the network namespace, with the node's address on its
// loopback device.
func (c *Cluster) namespace(t *testing.T) {
	t.Helper()
	must(t, "ip", "netns", "add", c.netns)
	must(t, c.inside("ip", "link", "set", "lo", "up")...)
	must(t, c.inside("ip", "address", "add", address+"/32", "dev", "lo")...)
}

// inside is a command in the network namespace. ip netns exec would mount /sys
// anew and hide the cgroups.
func (c *Cluster) inside(args ...string) []string {
	return append([]string{"nsenter", "--net=/run/netns/" + c.netns, "--"}, args...)
}

func (c *Cluster) keys(t *testing.T) {
	t.Helper()
	a, err := newAuthority(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(a.serviceAccounts(),
		a.issue("apiserver", "kube-apiserver", nil, []string{address, "10.98.0.1", "kubernetes.default.svc", "kubernetes.default"}),
		a.issue("kubelet", node, nil, []string{address, node}),
		a.issue("kubelet-client", "kube-apiserver-kubelet-client", []string{"system:masters"}, nil))
	for name, who := range map[string][2]string{
		"admin": {"kubernetes-admin", "system:masters"}, "kcm": {"system:kube-controller-manager", ""},
		"coroner": {"coroner", ""}, atRest: {atRest, ""}, "scheduler": {"system:kube-scheduler", ""}, "node": {"system:node:" + node, "system:nodes"},
	} {
		var groups []string
		if who[1] != "" {
			groups = []string{who[1]}
		}
		err = errors.Join(err, a.issue(name, who[0], groups, nil), a.kubeconfig(name, server))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// containerd runs one of its own, and gives it the images.
func (c *Cluster) containerd(t *testing.T) {
	t.Helper()
	c.write(t, "containerd.toml", fmt.Sprintf(`version = 2
root = %q
state = %q
[grpc]
address = %q
[ttrpc]
address = %q
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = %q
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = %q
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
`, c.path("containerd"), c.path("containerd-state"), c.Socket(), c.path("containerd.ttrpc"), pauseImage, c.path("cni")))
	if err := os.MkdirAll(c.path("cni"), 0o755); err != nil {
		t.Fatal(err)
	}
	c.write(t, "cni/10-bridge.conflist", `{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false,
 "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.97.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "`+c.path("ipam")+`"}}]}`)
	c.run(t, "containerd", "containerd", "--config", c.path("containerd.toml"))
	c.until(t, time.Minute, "containerd", func() error { _, err := output("ctr", "-a", c.Socket(), "version"); return err })
	for name, files := range map[string]map[string]string{loadImage: {"load": c.built.load}, pauseImage: {"pause": c.built.load}} {
		archive := c.path("image.tar")
		for at := range files {
			if err := image(archive, name, []string{"/" + at}, files); err != nil {
				t.Fatal(err)
			}
		}
		must(t, "ctr", "-a", c.Socket(), "-n", "k8s.io", "images", "import", archive)
	}
}

// Socket is containerd's.
func (c *Cluster) Socket() string { return c.path("containerd.sock") }

// reconfigure runs the kubelet anew with other settings.
func (c *Cluster) reconfigure(t *testing.T, s settings) {
	t.Helper()
	c.named("kubelet").end(t)
	c.kubelet(t, s)
	c.until(t, time.Minute, "the kubelet", func() error {
		_, err := c.kubectl("get", "--raw", "/api/v1/nodes/"+node+"/proxy/healthz")
		return err
	})
}

// available is what the kubelet takes for free, in MiB.
func (c *Cluster) available(t *testing.T) int64 {
	t.Helper()
	var summary struct {
		Node struct {
			Memory struct {
				AvailableBytes int64 `json:"availableBytes"`
			} `json:"memory"`
		} `json:"node"`
	}
	c.until(t, time.Minute, "the kubelet's figures", func() error {
		out, err := c.kubectl("get", "--raw", "/api/v1/nodes/"+node+"/proxy/stats/summary")
		if err == nil {
			err = json.Unmarshal([]byte(out), &summary)
		}
		if err == nil && summary.Node.Memory.AvailableBytes == 0 {
			err = errors.New("no figure yet")
		}
		return err
	})
	return summary.Node.Memory.AvailableBytes >> 20
}

func (c *Cluster) kubelet(t *testing.T, s settings) {
	t.Helper()
	reserved := ""
	if s.allocatable > 0 {
		total := memTotal(t) >> 20
		reserved = fmt.Sprintf("systemReserved: {memory: %dMi}\n", total-s.allocatable)
	}
	evict := s.evictBelow
	if evict == "" {
		evict = "100Mi"
	}
	c.write(t, "kubelet.yaml", fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://%s
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %s}}
authorization: {mode: Webhook}
tlsCertFile: %s
tlsPrivateKeyFile: %s
readOnlyPort: 10255
clusterDNS: ["10.98.0.10"]
evictionHard: {memory.available: %q}
evictionPressureTransitionPeriod: 30s
%s`, c.Socket(), c.path("ca.crt"), c.path("kubelet.crt"), c.path("kubelet.key"), evict, reserved))
	c.run(t, "kubelet", c.built.kubernetes, "kubelet", "--config="+c.path("kubelet.yaml"), "--kubeconfig="+c.path("node.kubeconfig"), "--node-ip="+address,
		"--hostname-override="+node, "--root-dir="+c.path("kubelet"), "--cert-dir="+c.path("kubelet-certs"), "--containerd="+c.Socket(), "--v=2")
}

// write makes a file of the cluster's.
func (c *Cluster) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(c.path(name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// run starts a program in the network namespace.
func (c *Cluster) run(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{name: name, done: make(chan error, 1), log: c.path(name + ".log")}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	args = c.inside(args...)
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	c.procs = append(c.procs, p)
	return p
}

// named is a running program of the cluster, taken off the list of those to end.
func (c *Cluster) named(name string) *process {
	for i, p := range c.procs {
		if p.name == name {
			c.procs = append(c.procs[:i], c.procs[i+1:]...)
			return p
		}
	}
	return nil
}

// end stops a program, by SIGKILL if need be.
func (p *process) end(t *testing.T) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return
	case <-time.After(10 * time.Second):
	}
	t.Logf("%s did not end, and is killed", p.name)
	_ = p.cmd.Process.Kill()
	<-p.done
}

// kill ends a program as a power cut would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop takes all down: the kubelet first, then what it started, then the rest.
func (c *Cluster) stop(t *testing.T) {
	if t.Failed() {
		c.logs(t)
	}
	for _, name := range []string{"kubelet", "agent"} {
		if p := c.named(name); p != nil {
			p.end(t)
		}
	}
	c.tasks(t)
	for i := len(c.procs) - 1; i >= 0; i-- {
		c.procs[i].kill() // nothing of it is kept
	}
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	c.unmount(t)
	_, _ = output("ip", "netns", "delete", c.netns)
	c.cgroups()
}

// tasks ends and removes all containers.
func (c *Cluster) tasks(t *testing.T) {
	ctr := func(args ...string) string {
		out, err := output("ctr", append([]string{"-a", c.Socket(), "-n", "k8s.io"}, args...)...)
		if err != nil && !strings.Contains(err.Error(), "not found") { // a killed one goes by itself
			t.Logf("ctr %v: %v", args, err)
		}
		return out
	}
	for _, id := range strings.Fields(ctr("tasks", "ls", "-q")) {
		ctr("tasks", "kill", "-s", "SIGKILL", "-a", id)
		ctr("tasks", "delete", "-f", id)
	}
	for _, id := range strings.Fields(ctr("containers", "ls", "-q")) {
		ctr("containers", "delete", id)
	}
}

// unmount takes away what containerd and the kubelet mounted below the
// cluster's folder, the network namespaces of pods among it.
func (c *Cluster) unmount(t *testing.T) {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Log(err)
		return
	}
	lines := strings.Split(string(text), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		f := strings.Fields(lines[i])
		if len(f) < 2 {
			continue
		}
		if strings.HasPrefix(f[1], c.dir+"/") {
			_ = syscall.Unmount(f[1], syscall.MNT_DETACH)
		}
	}
}

// cgroups removes what the kubelet made.
func (c *Cluster) cgroups() {
	roots, _ := filepath.Glob("/sys/fs/cgroup/*/kubepods")
	for _, root := range append(roots, "/sys/fs/cgroup/kubepods") {
		removeCgroups(root)
	}
}

// removeCgroups removes a tree of them, from the inside out.
func removeCgroups(root string) {
	var dirs []string
	_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0; i-- {
		_ = os.Remove(dirs[i])
	}
}

// logs shows the end of each program's log.
func (c *Cluster) logs(t *testing.T) {
	for _, p := range c.procs {
		text, _ := os.ReadFile(p.log)
		if len(text) > 3000 {
			text = text[len(text)-3000:]
		}
		t.Logf("== %s\n%s", p.name, text)
	}
}

// kubectl asks the cluster as its administrator.
func (c *Cluster) kubectl(args ...string) (string, error) {
	all := c.inside(append([]string{c.built.kubernetes, "kubectl", "--kubeconfig", c.Kubeconfig}, args...)...)
	return output(all[0], all[1:]...)
}

// apply makes objects of a manifest.
func (c *Cluster) apply(t *testing.T, manifest string) {
	t.Helper()
	all := c.inside(c.built.kubernetes, "kubectl", "--kubeconfig", c.Kubeconfig, "apply", "-f", "-")
	cmd := exec.Command(all[0], all[1:]...)
	cmd.Stdin = strings.NewReader(manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
}

// until polls until what is there, or fails.
func (c *Cluster) until(t *testing.T, limit time.Duration, what string, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s, %s: %v", what, limit, err)
		case <-tick.C:
		}
	}
}

func output(name string, args ...string) (string, error) {
	var stderr strings.Builder
	cmd := exec.Command(name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), err
}

func must(t *testing.T, args ...string) {
	t.Helper()
	if _, err := output(args[0], args[1:]...); err != nil {
		t.Fatal(err)
	}
}

// memTotal is the machine's memory in bytes.
func memTotal(t *testing.T) int64 {
	t.Helper()
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	return int64(info.Totalram) * int64(info.Unit)
}
