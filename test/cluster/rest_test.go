// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	restPods = 110
	restNode = "node-2"
)

// rests is an agent on a node with 110 pods where nothing dies: its memory, its
// processor time, and what it asks the API for. The pods are objects of the API,
// with cgroups and processes, and no kubelet has started them.
func (c *Cluster) rests(t *testing.T) {
	c.apply(t, "apiVersion: v1\nkind: Node\nmetadata: {name: "+restNode+"}\n")
	var pods strings.Builder
	for i := range restPods {
		pods.WriteString(restPod(i))
	}
	c.apply(t, "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: rest}\n"+pods.String())
	c.settle(t)
	p := c.run(t, "agent-at-rest", c.built.coroner, "agent", "--source.kube.kubeconfig", c.path(atRest+".kubeconfig"), "--node.name", restNode, "--web.listen-address", "127.0.0.1:3002",
		"--history.path", c.path("rest.db"), "--no-source.docker", "--no-source.containerd", "--no-source.cri")
	defer func() { c.named(p.name).end(t) }()
	c.until(t, time.Minute, "the pods' names", func() error {
		var l struct {
			Containers []struct {
				Name string
				Pod  struct{ Namespace string }
			}
		}
		if err := c.get("http://127.0.0.1:3002/api/v1/containers?namespace=rest", &l); err != nil {
			return err
		}
		n := 0
		for _, k := range l.Containers {
			if k.Name == "main" {
				n++
			}
		}
		if n != restPods {
			return fmt.Errorf("%d of %d containers have their names", n, len(l.Containers))
		}
		return nil
	})
	var started []string
	var still time.Time // since when it has asked for nothing else
	c.until(t, time.Minute, "the last question of its start", func() error {
		if now := c.asked(t); len(now) != len(started) {
			started, still = now, time.Now()
		}
		if !slices.Contains(started, "get /api/v1/nodes/"+restNode+"/proxy/configz") || time.Since(still) < 5*time.Second {
			return fmt.Errorf("asked %v", started)
		}
		return nil
	})
	<-time.After(15 * time.Second) // until what the start took is given back
	before, from := cpu(t, p.cmd.Process.Pid), time.Now()
	<-time.After(30 * time.Second)
	share := 100 * (cpu(t, p.cmd.Process.Pid) - before).Seconds() / time.Since(from).Seconds()
	rss, anon := memory(t, p.cmd.Process.Pid, "VmRSS:"), memory(t, p.cmd.Process.Pid, "RssAnon:")
	since := c.asked(t)[len(started):]
	t.Logf("%d pods at rest: %d KiB resident, %d of them anonymous, %.2f %% of a core; asked at the start %v, since %v", restPods, rss, anon, share, started, since)
	// Of its own text as much is resident as the kernel maps at once.
	if rss > 64<<10 || anon > 24<<10 {
		t.Errorf("%d KiB resident, %d of them anonymous", rss, anon)
	}
	if share > 5 {
		t.Errorf("%.2f %% of a core", share)
	}
	if len(since) > 0 {
		t.Errorf("at rest it asked for %v", since)
	}
	// Each is listed once, and watched; before, a watch that lists is tried.
	for _, want := range []string{"watch /api/v1/pods", "watch /api/v1/nodes"} {
		if !slices.Contains(started, want) {
			t.Errorf("no %s: %v", want, started)
		}
	}
	if len(started) > 10 {
		t.Errorf("%d requests to begin with: %v", len(started), started)
	}
}

// restPod is a pod of the second node.
func restPod(i int) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata:
  name: web-7d9f8b6c5d-%05d
  namespace: rest
  labels: {app.kubernetes.io/name: web, app.kubernetes.io/instance: web-%d, app.kubernetes.io/version: "1.2.3", pod-template-hash: 7d9f8b6c5d}
  annotations: {prometheus.io/scrape: "true", prometheus.io/port: "8080", checksum/config: "%064d"}
spec:
  nodeName: %s
  containers:
  - {name: main, image: "registry.example/shop/web:1.2.3", args: [serve, "--port=8080"], env: [{name: A, value: b}, {name: LOG_LEVEL, value: info}],
     resources: {limits: {memory: 128Mi}, requests: {memory: 64Mi, cpu: 1m}}, livenessProbe: {httpGet: {path: /healthz, port: 8080}}}
`, i, i, i, restNode)
}

// settle gives the pods of the second node a status each, cgroups, and in them a
// process: what a kubelet would.
func (c *Cluster) settle(t *testing.T) {
	t.Helper()
	var l struct{ Items []podStatus }
	if err := c.get(server+"/api/v1/namespaces/rest/pods", &l); err != nil {
		t.Fatal(err)
	}
	if len(l.Items) != restPods {
		t.Fatalf("%d pods", len(l.Items))
	}
	root := fmt.Sprintf("/sys/fs/cgroup/memory/coroner-rest-%d", os.Getpid())
	t.Cleanup(func() {
		for p := c.named("sleeper"); p != nil; p = c.named("sleeper") {
			p.end(t)
		}
		removeCgroups(root)
	})
	for i, p := range l.Items {
		id := fmt.Sprintf("%064x", 0xabc000+i)
		dir := filepath.Join(root, "kubepods/burstable/pod"+p.Metadata.UID, id)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		one := c.run(t, "sleeper", c.built.load, "wait")
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, one.cmd.Process.Pid), 0o644); err != nil {
			t.Fatal(err)
		}
		status := fmt.Sprintf(`{"status": {"phase": "Running", "startTime": %q, "qosClass": "Burstable", "containerStatuses": [{"name": "main", "ready": true, "restartCount": 0,
"image": "registry.example/shop/web:1.2.3", "imageID": "registry.example/shop/web@sha256:%064d", "containerID": "containerd://%s", "started": true, "state": {"running": {"startedAt": %q}}}]}}`,
			time.Now().UTC().Format(time.RFC3339), i, id, time.Now().UTC().Format(time.RFC3339))
		if err := c.patch(server+"/api/v1/namespaces/rest/pods/"+p.Metadata.Name+"/status", status); err != nil {
			t.Fatal(err)
		}
	}
}

// asked is what the agent of the second node has asked the API for.
func (c *Cluster) asked(t *testing.T) (requests []string) {
	t.Helper()
	text, err := os.ReadFile(c.path("audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasSuffix(line, "\n") { // else it is being written
			requests = append(requests, auditLine(t, line))
		}
	}
	return requests
}

// auditLine is one request, as the API server wrote it down.
func auditLine(t *testing.T, line string) string {
	t.Helper()
	var e struct {
		Verb       string
		RequestURI string
	}
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		t.Fatal(err)
	}
	uri, _, _ := strings.Cut(e.RequestURI, "?")
	return e.Verb + " " + uri
}

// cpu is the processor time of a process.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	ticks := 0
	for _, s := range f[11:13] { // utime, stime: fields 14 and 15
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// memory is a figure of a process, in KiB.
func memory(t *testing.T, pid int, name string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), name)
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
