// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// release is coroner as installed by helm's own command: the image of "make
// image", the chart, and nothing that a user would not have.
type release struct {
	*Cluster
	helm  string
	image string // its tar
	pod   string // the agent's
}

const home = "coroner" // of the release, and its namespace

// TestInstall installs the chart into a real cluster, has containers die under
// the eyes of the agent's pod, and takes it away again.
func TestInstall(t *testing.T) {
	c := start(t, settings{allocatable: 1500})
	r := &release{Cluster: c, helm: c.path("helm"), image: c.path("coroner.tar")}
	r.make(t)
	must(t, "ctr", "-a", c.Socket(), "-n", "k8s.io", "images", "import", r.image)
	if err := os.Mkdir(c.path("plugins"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(c.built.coroner, filepath.Join(c.path("plugins"), "kubectl-coroner")); err != nil {
		t.Fatal(err)
	}
	t.Run("manifests", r.manifests)
	r.do(t, "install", home, "../../deploy/helm/coroner", "--create-namespace")
	t.Cleanup(func() {
		if t.Failed() {
			out, err := c.kubectl("logs", "-n", home, "-l", "app.kubernetes.io/name=coroner", "--tail=100")
			t.Logf("the agent: %s %v", out, err)
		}
	})
	t.Run("rights", r.rights)
	t.Run("deaths", r.deaths)
	t.Run("node-map", r.mapped)
	t.Run("service", r.scraped)
	t.Run("outlives", r.outlives)
	t.Run("forbidden", r.forbidden)
	t.Run("more", r.more)
	t.Run("uninstall", r.uninstalled)
}

// make builds helm, at the version of test/chart and with its flags, so that
// what is built for the one serves the other, and the image.
func (r *release) make(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"-C", "../chart", "build", "-o", r.helm, "helm.sh/helm/v3/cmd/helm"},
		{"-C", "../..", "run", "./deploy/image", "-binary", r.built.coroner, "-to", r.image},
	} {
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// do runs helm, waits until the agent is ready, and remembers its pod. There is
// no kube-proxy here: the API is not at its service's address.
func (r *release) do(t *testing.T, args ...string) {
	t.Helper()
	args = append(args, "--wait", "--timeout=2m", "--set=history.hostPath="+r.path("history"),
		"--set=extraEnv[0].name=KUBERNETES_SERVICE_HOST", "--set=extraEnv[0].value="+address,
		"--set=extraEnv[1].name=KUBERNETES_SERVICE_PORT", "--set-string=extraEnv[1].value=6443")
	began := time.Now()
	out, err := r.run(args...)
	if err != nil {
		pods, _ := r.kubectl("describe", "pods", "-n", home)
		t.Fatalf("%v\n%s", err, pods)
	}
	t.Logf("helm %s: %s\n%s", args[0], time.Since(began), out)
	r.until(t, 2*time.Minute, "one pod of the agent's", func() error {
		names, err := r.kubectl("get", "pods", "-n", home, "-l", "app.kubernetes.io/name=coroner", "-o", "jsonpath={.items[*].metadata.name}")
		r.pod = names
		if err == nil && len(strings.Fields(names)) != 1 {
			err = fmt.Errorf("pods %q", names)
		}
		return err
	})
	r.until(t, time.Minute, "all that is switched on to be up", r.up)
}

func (r *release) run(args ...string) (string, error) {
	all := r.inside(append([]string{"env", "HOME=" + r.path("home"), "KUBECONFIG=" + r.Kubeconfig, r.helm, "--namespace=" + home}, args...)...)
	return output(all[0], all[1:]...)
}

// ask is an answer of the agent's, through the API server's proxy to its pod.
func (r *release) ask(path string, to any) error {
	out, err := r.kubectl("get", "--raw", "/api/v1/namespaces/"+home+"/pods/http:"+r.pod+":3001/proxy"+path)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), to)
}

type sourceStatus struct {
	Name, Mode, Reason string
	Enabled, Up        bool
}

func (r *release) sources() (all []sourceStatus, err error) {
	var st struct {
		Node    string
		Sources []sourceStatus
		History struct{ Path, Error string }
	}
	if err := r.ask("/api/v1/status", &st); err != nil {
		return nil, err
	}
	if st.Node != node {
		return nil, fmt.Errorf("node %q", st.Node)
	}
	return st.Sources, nil
}

// up tells what is switched on and not up, or lacks something.
func (r *release) up() error {
	all, err := r.sources()
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Name == "tracepoint" && strings.HasPrefix(s.Reason, "oom_kill_process cannot be traced") {
			s.Reason = "" // the kernel has no fentry; whoever may do anything is told the same
		}
		if s.Enabled && (!s.Up || s.Reason != "") {
			err = errors.Join(err, fmt.Errorf("source %+v", s))
		}
	}
	return err
}

// manifests are what the API takes, admission included.
func (r *release) manifests(t *testing.T) {
	text, err := os.ReadFile("../../deploy/kubernetes/coroner.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// A namespace that is not there has no objects, dry or not.
	_, rest, _ := strings.Cut(string(text), "kind: ServiceAccount")
	r.write(t, "coroner.yaml", strings.ReplaceAll("apiVersion: v1\nkind: ServiceAccount"+rest, "namespace: coroner", "namespace: default"))
	out, err := r.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", r.path("coroner.yaml"))
	if n := strings.Count(out, "created (server dry run)"); err != nil || n != 5 {
		t.Errorf("%d objects of 5: %v\n%s", n, err, out)
	}
}

// rights are the process' own, as the kernel has them.
func (r *release) rights(t *testing.T) {
	all, err := r.sources()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range all {
		if s.Enabled {
			got[s.Name] = s.Mode
		}
	}
	t.Logf("%+v", all)
	if len(got) != 4 || got["tracepoint"] != "bpf" || got["kube"] != "api" || got["kmsg"] != "syslog" {
		t.Errorf("sources that are on: %v", got)
	}
	qos, err := r.kubectl("get", "pod", r.pod, "-n", home, "-o", "jsonpath={.status.qosClass} {.spec.priority}")
	if err != nil || qos != "Guaranteed 2000001000" {
		t.Errorf("%q %v", qos, err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.pid(t)))
	if err != nil {
		t.Fatal(err)
	}
	const bpfPerfmonSyslog = "000000c400000000"
	want := map[string]string{
		"CapInh": "0000000000000000", "CapPrm": bpfPerfmonSyslog, "CapEff": bpfPerfmonSyslog, "CapBnd": bpfPerfmonSyslog, "CapAmb": "0000000000000000",
		"NoNewPrivs": "1", "Seccomp": "2",
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		if w, ok := want[name]; ok && strings.TrimSpace(value) != w {
			t.Errorf("%s: %s, want %s", name, strings.TrimSpace(value), w)
		}
	}
}

// pid is the agent's, on the node.
func (r *release) pid(t *testing.T) int {
	t.Helper()
	return r.process(t, home, r.pod, "coroner")
}

// process is that of a pod's that is called so, on the node.
func (r *release) process(t *testing.T, namespace, pod, comm string) (pid int) {
	t.Helper()
	r.until(t, time.Minute, comm+" in "+namespace+"/"+pod, func() error {
		uid, err := r.kubectl("get", "pod", pod, "-n", namespace, "-o", "jsonpath={.metadata.uid}")
		if err != nil {
			return err
		}
		files, _ := filepath.Glob("/sys/fs/cgroup/memory/kubepods/pod" + uid + "/*/cgroup.procs")
		more, _ := filepath.Glob("/sys/fs/cgroup/memory/kubepods/*/pod" + uid + "/*/cgroup.procs")
		for _, f := range append(files, more...) {
			text, _ := os.ReadFile(f)
			for _, p := range strings.Fields(string(text)) {
				if is, _ := os.ReadFile("/proc/" + p + "/comm"); string(is) == comm+"\n" {
					pid, err = strconv.Atoi(p)
					return err
				}
			}
		}
		return fmt.Errorf("none in %v", append(files, more...))
	})
	return pid
}

// told is the first death in a namespace once nothing changes any more, asked
// for as a user of the cluster does.
func (r *release) told(t *testing.T, namespace string) *death {
	t.Helper()
	var last string
	var since time.Time
	var a answer
	r.until(t, 90*time.Second, "the death in "+namespace, func() error {
		out, err := r.asLaptop("admin", "list", "-n", namespace, "-o", "json", "--limit", "0")
		if err != nil {
			return err
		}
		if out != last {
			last, since = out, time.Now()
		}
		a = answer{}
		if err := json.Unmarshal([]byte(out), &a); err != nil {
			return err
		}
		if a.By.Who != "agents" || len(a.Deaths) == 0 || time.Since(since) < 3*time.Second {
			return fmt.Errorf("%d deaths so far, by %+v", len(a.Deaths), a.By)
		}
		return nil
	})
	d := &a.Deaths[len(a.Deaths)-1] // what is started again dies again
	if d.Container.Pod.Name != "p" {
		t.Errorf("pod %q", d.Container.Pod.Name)
	}
	t.Log(d)
	return d
}

// end is one way for a pod to die, and what is to be told of it.
type end struct {
	name, spec string
	want       want
}

func ends(names ...string) (chosen []end) {
	never := func(container string) string {
		return "{restartPolicy: Never, terminationGracePeriodSeconds: 3, containers: [" + container + "]}"
	}
	for _, e := range []end{
		{"oom", never(main1("64Mi", "", "leak=0")), want{"container", "main", "oom_container_limit", 137, "true"}},
		{"oom-child", never(main1("64Mi", "", "child=leak=0", "wait")), want{"process", "main", "oom_container_limit", -1, ""}},
		{"sigkill", never(main1("", "", "wait")), want{"container", "main", "killed", 137, "true"}},
		{"liveness", "{terminationGracePeriodSeconds: 3, containers: [" +
			main1("", `, livenessProbe: {exec: {command: ["/load", "test=/absent"]}, periodSeconds: 1, failureThreshold: 2}`, "deaf") + "]}",
			want{"container", "main", "liveness_probe", 137, "true"}},
		{"heap-limit", never(main1("64Mi", "", "sleep=1s", "say=java.lang.OutOfMemoryError: Java heap space", "exit=1")), want{"container", "main", "heap_limit", 1, "true"}},
	} {
		if slices.Contains(names, e.name) {
			chosen = append(chosen, e)
		}
	}
	return chosen
}

// judge has pods die, in namespaces that begin with prefix.
func (r *release) judge(t *testing.T, prefix string, names ...string) map[string]*death {
	t.Helper()
	out := map[string]*death{}
	chosen := ends(names...)
	for _, e := range chosen {
		r.apply(t, pod(prefix+e.name, "p", e.spec))
	}
	for _, e := range chosen {
		if e.name == "sigkill" {
			if err := syscall.Kill(r.process(t, prefix+e.name, "p", "load"), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		d := r.told(t, prefix+e.name)
		if got := (want{}).of(d); got != e.want {
			t.Errorf("%s: told %v, want %v", e.name, got, e.want)
		}
		out[e.name] = d
	}
	return out
}

// deaths of each right: the tracepoint's, the pod's log, the API's events.
func (r *release) deaths(t *testing.T) {
	all := r.judge(t, "", "oom", "oom-child", "sigkill", "liveness", "heap-limit")
	kmsg := false
	for _, e := range all["oom"].Evidence {
		kmsg = kmsg || e.Source == "kmsg"
	}
	if d := all["oom"]; !kmsg || d.Confidence != "certain" {
		t.Errorf("told without the kernel's log: %v", d)
	}
	if k := all["sigkill"].Killer; k == nil || k.PID != os.Getpid() {
		t.Errorf("killed by %+v, not by %d", k, os.Getpid())
	}
	var got []told
	r.until(t, time.Minute, "the events", func() (err error) {
		if got, err = r.events("oom"); err == nil && len(got) != 1 {
			err = fmt.Errorf("%d events", len(got))
		}
		return err
	})
	if e := got[0]; e.Reason != "OOMKilled" || e.Source.Host != node || e.Message != all["oom"].Summary {
		t.Errorf("event %+v", e)
	}
	out, err := r.asLaptop("admin", "why", "oom/p", "-o", "json")
	if err != nil || !strings.Contains(out, "oom_container_limit") || !strings.Contains(out, home+"/"+r.pod) {
		t.Errorf("coroner why: %v\n%s", err, out)
	}
	r.until(t, time.Minute, "what kubectl describe shows of a pod whose status has nothing of it", func() error {
		out, err := r.kubectl("describe", "pod", "p", "-n", "oom-child")
		if err == nil && (!strings.Contains(out, "OOMKilled") || !strings.Contains(out, "coroner")) {
			err = errors.New(out)
		}
		return err
	})
}

// mapped: the node's map, with the pods in the order of their eviction.
func (r *release) mapped(t *testing.T) {
	all, err := r.asLaptop("admin", "node", node)
	if err != nil || !strings.HasPrefix(all, "memory of "+node) {
		t.Errorf("the node's map: %v", err)
	}
	var m struct {
		Pods []struct{ Namespace, Name string }
	}
	if err := r.ask("/api/v1/node", &m); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(m.Pods, func(p struct{ Namespace, Name string }) bool { return p.Name == r.pod }) {
		t.Errorf("the agent's own pod is not among %v", m.Pods)
	}
}

// scraped: the metrics through the Service, which the API server finds by its
// endpoints.
func (r *release) scraped(t *testing.T) {
	out, err := r.kubectl("get", "--raw", "/api/v1/namespaces/"+home+"/services/"+home+":http/proxy/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`coroner_oom_kills_total{`, `namespace="oom"`, "coroner_unattributed_oom_kills_total 0\n",
		`coroner_source_up{source="tracepoint"} 1`, `coroner_source_up{source="kube"} 1`, `coroner_source_up{source="cgroup"} 1`, `coroner_source_up{source="kmsg"} 1`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
	if strings.Contains(out, `coroner_source_up{source="docker"}`) {
		t.Error("a source that is off is shown as down")
	}
	r.until(t, time.Minute, "no container without a name: a pod's own has none", func() error {
		var a struct {
			Containers []struct{ ID, Name, Cgroup string }
		}
		if err := r.ask("/api/v1/containers", &a); err != nil {
			return err
		}
		n := 0
		for _, c := range a.Containers {
			if !strings.HasPrefix(c.Cgroup, "/kubepods/") {
				continue // another engine's on this machine
			}
			if n++; c.Name == "" {
				return fmt.Errorf("of %d, %s", len(a.Containers), c.ID)
			}
		}
		if n == 0 {
			return errors.New("none at all")
		}
		return nil
	})
}

// outlives: the node's pods use up what they may have, and the agent's is not
// the one that goes.
func (r *release) outlives(t *testing.T) {
	before := r.pid(t)
	r.apply(t, pod("s6", "p", "{restartPolicy: Never, containers: ["+main1("", "", "fast=0")+"]}"))
	if d := r.told(t, "s6"); d.Cause != "oom_node_allocatable" {
		t.Errorf("told %v", d)
	}
	restarts, err := r.kubectl("get", "pod", r.pod, "-n", home, "-o", "jsonpath={.status.containerStatuses[0].restartCount}")
	if err != nil || restarts != "0" || r.pid(t) != before {
		t.Errorf("restarts %s %v, pid %d, was %d", restarts, err, r.pid(t), before)
	}
	r.cost(t)
}

// cost is what the agent took of its limits so far, by the kernel's count.
func (r *release) cost(t *testing.T) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", r.pid(t)))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		for controller, file := range map[string]string{"memory": "memory.max_usage_in_bytes", "cpu": "cpu.stat"} {
			if slices.Contains(strings.Split(f[1], ","), controller) {
				files, _ := filepath.Glob("/sys/fs/cgroup/*" + controller + "*" + f[2] + "/" + file)
				for _, path := range files {
					b, _ := os.ReadFile(path)
					t.Logf("%s: %s", file, strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", ", "))
				}
			}
		}
	}
}

// forbidden: no right was missing.
func (r *release) forbidden(t *testing.T) {
	out, err := r.kubectl("logs", "-n", home, r.pod)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		t.Log(strings.TrimSpace(line))
		// What escapes needs is not among what the chart gives.
		denied := strings.Contains(line, "permission denied") && !strings.Contains(line, "component=escapes")
		if denied || strings.Contains(line, "forbidden") || strings.Contains(line, "level=error") {
			t.Errorf("the agent's log: %s", line)
		}
	}
}

// more is what a user can choose: the node's processes.
func (r *release) more(t *testing.T) {
	if out, err := r.asLaptop("admin", "node", node); err != nil || strings.Contains(out, "OOM-killed first") {
		t.Errorf("the map tells an order of processes that are not seen: %v\n%s", err, out)
	}
	r.do(t, "upgrade", home, "../../deploy/helm/coroner", "--set=hostPID=true")
	r.judge(t, "m-", "oom")
	r.until(t, time.Minute, "whom the kernel would kill first", func() error {
		out, err := r.asLaptop("admin", "node", node)
		if err == nil && !strings.Contains(out, "OOM-killed first, if the machine ran out of memory") {
			err = errors.New(out)
		}
		return err
	})
}

// uninstalled: nothing is left but the deaths.
func (r *release) uninstalled(t *testing.T) {
	if out, err := r.run("uninstall", home, "--wait"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, kind := range []string{"clusterroles", "clusterrolebindings", "daemonsets,services,serviceaccounts"} {
		out, err := r.kubectl("get", kind, "-A", "-l", "app.kubernetes.io/name=coroner", "-o", "name")
		if err != nil || out != "" {
			t.Errorf("left: %q %v", out, err)
		}
	}
	if _, err := os.Stat(filepath.Join(r.path("history"), "deaths.db")); err != nil {
		t.Error(err)
	}
}
