// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pod is a manifest.
func pod(namespace, name, spec string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: %s}\nspec: %s\n", namespace, name, namespace, spec)
}

func main1(limit, more string, args ...string) string {
	if limit != "" {
		limit = fmt.Sprintf(", resources: {limits: {memory: %s, cpu: 50m}, requests: {memory: %s, cpu: 10m}}", limit, limit)
	}
	return fmt.Sprintf(`{name: main, image: "%s", args: ["%s"]%s%s}`, loadImage, strings.Join(args, `", "`), limit, more)
}

// tolerant pods stay where a taint makes others go.
const tolerant = "tolerations: [{operator: Exists}]"

// scenario is one way for a pod to die.
type scenario struct {
	name, spec string
	act        func(t *testing.T, c *Cluster, namespace string) // what is done to it
	want       []want
}

func scenarios() []scenario {
	never := func(containers string) string {
		return "{" + tolerant + ", restartPolicy: Never, terminationGracePeriodSeconds: 3, containers: [" + containers + "]}"
	}
	always := func(containers string) string {
		return "{" + tolerant + ", terminationGracePeriodSeconds: 3, containers: [" + containers + "]}"
	}
	// Who obeys does so as soon as the machine lets it.
	patient := func(spec string) string { return strings.Replace(spec, "terminationGracePeriodSeconds: 3, ", "", 1) }
	return []scenario{
		{"a-oom-init", never(main1("64Mi", "", "leak=0")), nil, []want{{"container", "main", "oom_container_limit", 137, "true"}}},
		{"a-oom-init-restart", always(main1("64Mi", "", "sleep=2s", "leak=0")), nil, []want{{"container", "main", "oom_container_limit", 137, "true"}}},
		{"b-oom-child", never(main1("64Mi", "", "child=leak=0", "wait")), nil, []want{{"process", "main", "oom_container_limit", -1, ""}}},
		{"b-oom-child-then-exit3", never(main1("64Mi", "", "child=leak=0", "sleep=4s", "exit=3")), nil,
			[]want{{"process", "main", "oom_container_limit", -1, ""}, {"container", "main", "error", 3, "false"}}},
		{"d-sigkill", never(main1("", "", "wait")), killFirst, []want{{"container", "main", "killed", 137, "true"}}},
		{"e-liveness", always(main1("", `, livenessProbe: {exec: {command: ["/load", "test=/absent"]}, periodSeconds: 1, failureThreshold: 2}`, "deaf")), nil,
			[]want{{"container", "main", "liveness_probe", 137, "true"}}},
		{"e-startup-exit0", patient(always(main1("", `, startupProbe: {exec: {command: ["/load", "test=/absent"]}, periodSeconds: 1, failureThreshold: 2}`, "wait"))), nil,
			[]want{{"container", "main", "startup_probe", 0, "true"}}},
		{"e-liveness-sidecar", "{" + tolerant + ", initContainers: [" + strings.Replace(main1("", `, restartPolicy: Always, livenessProbe: {exec: {command: ["/load", "test=/absent"]}, periodSeconds: 1, failureThreshold: 2}`, "wait"), "name: main", "name: proxy", 1) +
			"], containers: [" + main1("", "", "wait") + "]}", nil, []want{{"container", "proxy", "liveness_probe", 0, "true"}}},
		{"t-sidecar", patient(withSidecar("wait")), nil, []want{{"container", "main", "completed", 0, "true"}, {"container", "proxy", "stopped", 0, "true"}}},
		{"t-sidecar-deaf", withSidecar("deaf"), nil, []want{{"container", "main", "completed", 0, "true"}, {"container", "proxy", "stop_timeout", 137, "true"}}},
		{"f-segv", never(main1("", "", "sleep=1s", "segv")), nil, []want{{"container", "main", "segfault", 139, "true"}}},
		{"g-completed", never(main1("", "", "sleep=1s")), nil, []want{{"container", "main", "completed", 0, "true"}}},
		{"h-exit", never(main1("", "", "sleep=1s", "exit=7")), nil, []want{{"container", "main", "error", 7, "true"}}},
		{"h-heap-limit", never(main1("64Mi", "", "sleep=1s", "say=java.lang.OutOfMemoryError: Java heap space", "exit=1")), nil, []want{{"container", "main", "heap_limit", 1, "true"}}},
		{"h-oom-exec", never(main1("64Mi", "", "wait")), execLeak, []want{{"process", "main", "oom_container_limit", -1, ""}}},
		{"i-oom-two-containers", never(main1("64Mi", "", "leak=0") + ", " + strings.Replace(main1("64Mi", "", "wait"), "name: main", "name: side", 1)), nil,
			[]want{{"container", "main", "oom_container_limit", 137, "true"}}},
		{"j-delete-stubborn", never(main1("", "", "deaf")), remove, []want{{"container", "main", "stop_timeout", 137, "true"}}},
		{"j-delete", patient(never(main1("", "", "wait"))), remove, []want{{"container", "main", "stopped", 0, "true"}}},
		{"k-oom-initcontainer", `{restartPolicy: Never, initContainers: [` + strings.Replace(main1("64Mi", "", "leak=0"), "name: main", "name: prepare", 1) + `], containers: [` + main1("", "", "wait") + `]}`, nil,
			[]want{{"container", "prepare", "oom_container_limit", 137, "true"}}},
		{"m-api-eviction", patient(never(main1("", "", "wait"))), evict, []want{{"container", "main", "drained", 0, "true"}}},
		{"l-preempted", "{" + tolerant + ", priorityClassName: low, restartPolicy: Never, containers: [" + main1("", port, "wait") + "]}", preempt, []want{{"container", "main", "preempted", 0, "true"}}},
		// The deadline counts from before its sandbox is made, beside those of all others.
		{"p-deadline", strings.Replace(patient(never(main1("", "", "wait"))), "{", "{activeDeadlineSeconds: 15, ", 1), nil, []want{{"container", "main", "stopped", 0, "true"}}},
		{"p-deadline-stubborn", strings.Replace(never(main1("", "", "deaf")), "{", "{activeDeadlineSeconds: 15, ", 1), nil, []want{{"container", "main", "stop_timeout", 137, "true"}}},
		{"q-replaced", patient(always(main1("", "", "wait"))), otherImage, []want{{"container", "main", "stopped", 0, "true"}}},
		{"r-rejected", "{" + tolerant + ", nodeName: " + node + ", containers: [" + strings.Replace(main1("", "", "wait"), "name: main", "name: main, resources: {requests: {memory: 1Ti}}", 1) + "]}", nil,
			[]want{{"pod", "", "start_failed", -1, ""}}},
		{"n-start-failed", never(strings.Replace(main1("", `, command: ["/nothing"]`, ""), `args: [""]`, "args: []", 1)), nil, []want{{"container", "main", "start_failed", 128, "true"}}},
	}
}

// withSidecar is a pod whose own container ends well, and whose sidecar the
// kubelet stops then.
func withSidecar(does string) string {
	return "{" + tolerant + ", restartPolicy: Never, terminationGracePeriodSeconds: 3, initContainers: [" +
		strings.Replace(main1("", ", restartPolicy: Always", does), "name: main", "name: proxy", 1) + "], containers: [" + main1("", "", "sleep=2s") + "]}"
}

// mishaps are what befalls pods while something else is away, each on a word
// of the test's.
func mishaps(prefix string) []scenario {
	never := func(container string) string {
		return "{" + tolerant + ", restartPolicy: Never, terminationGracePeriodSeconds: 3, containers: [" + container + "]}"
	}
	return []scenario{
		{prefix + "-child", never(main1("64Mi", "", "await=/go", "child=leak=0", "wait")), begin, []want{{"process", "main", "oom_container_limit", -1, ""}}},
		{prefix + "-oom", never(main1("64Mi", "", "await=/go", "leak=0")), begin, []want{{"container", "main", "oom_container_limit", 137, "true"}}},
		{prefix + "-sigkill", never(main1("", "", "wait")), killFirst, []want{{"container", "main", "killed", 137, "true"}}},
		{prefix + "-exit", never(main1("", "", "await=/go", "exit=7")), begin, []want{{"container", "main", "error", 7, "true"}}},
	}
}

// begin is the word for a pod that waits for it.
func begin(t *testing.T, c *Cluster, namespace string) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/go", c.firstOf(t, namespace)), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// running waits until the pod's first container runs, and returns its id.
func (c *Cluster) running(t *testing.T, namespace string) (p podStatus, id string) {
	t.Helper()
	c.until(t, time.Minute, "pod in "+namespace, func() (err error) {
		if p, err = c.pod(namespace); err != nil {
			return err
		}
		if p.Status.Phase != "Running" || len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Running == nil {
			return fmt.Errorf("phase %q", p.Status.Phase)
		}
		return nil
	})
	return p, strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
}

// killFirst sends SIGKILL to the container's first process, from the host.
func killFirst(t *testing.T, c *Cluster, namespace string) {
	t.Helper()
	if err := syscall.Kill(c.firstOf(t, namespace), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// cgroup is that of the container of a namespace's pod.
func (c *Cluster) cgroup(t *testing.T, namespace string) string {
	t.Helper()
	p, id := c.running(t, namespace)
	found, _ := filepath.Glob("/sys/fs/cgroup/memory/kubepods/*/pod" + p.Metadata.UID + "/" + id)
	if len(found) != 1 {
		t.Fatalf("cgroups of the container: %v", found)
	}
	return found[0]
}

// firstOf is the first process of the container of a namespace's pod.
func (c *Cluster) firstOf(t *testing.T, namespace string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.cgroup(t, namespace), "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.Fields(string(text))[0])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func remove(t *testing.T, c *Cluster, namespace string) {
	t.Helper()
	c.running(t, namespace)
	if _, err := c.kubectl("delete", "pod", "p", "-n", namespace, "--wait=false"); err != nil {
		t.Fatal(err)
	}
}

func evict(t *testing.T, c *Cluster, namespace string) {
	t.Helper()
	c.running(t, namespace)
	c.write(t, "eviction.json", `{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p", "namespace": "`+namespace+`"}}`)
	if _, err := c.kubectl("create", "--raw", "/api/v1/namespaces/"+namespace+"/pods/p/eviction", "-f", c.path("eviction.json")); err != nil {
		t.Fatal(err)
	}
}

// otherImage gives the container of a pod that runs another image.
func otherImage(t *testing.T, c *Cluster, namespace string) {
	t.Helper()
	c.running(t, namespace)
	if _, err := c.kubectl("set", "image", "pod/p", "main="+pauseImage, "-n", namespace); err != nil {
		t.Fatal(err)
	}
}

// port is one that two pods of a node cannot both have.
const port = ", ports: [{containerPort: 9999, hostPort: 9999}]"

// preempt makes a pod of higher priority that needs the same port.
func preempt(t *testing.T, c *Cluster, namespace string) {
	t.Helper()
	c.running(t, namespace)
	c.apply(t, pod("preemptor", "p", "{"+tolerant+", priorityClassName: high, restartPolicy: Never, containers: ["+main1("", port, "wait")+"]}"))
}

// classes are of priority.
const classes = `---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: low}
value: 10
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 20
`

// execLeak has somebody run a program in the container that needs too much.
func execLeak(t *testing.T, c *Cluster, namespace string) {
	t.Helper()
	c.running(t, namespace)
	if out, err := c.kubectl("exec", "p", "-n", namespace, "--", "/load", "leak=0"); err == nil {
		t.Errorf("%s: the program ended well: %s", namespace, out)
	}
}
