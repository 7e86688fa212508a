// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// changing are the pods of the cases in which something is changed first.
func changing() []scenario {
	return []scenario{
		{name: "s26-resized", spec: "{" + tolerant + ", restartPolicy: Never, containers: [" + main1("128Mi", "", "await=/go", "leak=0") + "]}"},
		{name: "o-system-oom", spec: "{" + tolerant + ", restartPolicy: Never, containers: [" + main1("128Mi", "", "child=await=/go,leak=0", "wait") + "]}"},
		{name: "m-taint", spec: "{restartPolicy: Never, containers: [" + main1("", "", "wait") + "]}"},
	}
}

// resized: the memory limit of a pod that runs is lowered in place, and the
// container reaches the new one.
func (c *Cluster) resized(t *testing.T) {
	const namespace = "s26-resized"
	cgroup := c.cgroup(t, namespace)
	began := time.Now()
	patch := `{"spec": {"containers": [{"name": "main", "resources": {"limits": {"memory": "64Mi"}, "requests": {"memory": "64Mi"}}}]}}`
	if _, err := c.kubectl("patch", "pod", "p", "-n", namespace, "--subresource", "resize", "--patch", patch); err != nil {
		t.Fatal(err)
	}
	c.until(t, time.Minute, "the kernel's limit", func() error {
		text, err := os.ReadFile(filepath.Join(cgroup, "memory.limit_in_bytes"))
		if err == nil && strings.TrimSpace(string(text)) != fmt.Sprint(64<<20) {
			err = fmt.Errorf("memory.limit_in_bytes is %q", text)
		}
		return err
	})
	first := c.firstOf(t, namespace)
	begin(t, c, namespace)
	c.gone(t, []int{first})
	done := time.Now()
	deaths := c.judged(t, namespace, []want{{"container", "main", "oom_container_limit", 137, "true"}})
	if o := deaths[0].OOM; o == nil || o.LimitBytes != 64<<20 {
		t.Errorf("limit %+v, want 64 MiB", o)
	}
	// It is known by a reading of the cgroup, or by the kill.
	for _, e := range deaths[0].Evidence {
		if strings.Contains(e.Text, "memory limit was changed from 128 MiB to 64 MiB") {
			if e.Time.Before(began.Add(-2*time.Second)) || e.Time.After(done.Add(time.Second)) {
				t.Errorf("the limit was changed between %s and %s, told as of %s", began, done, e.Time)
			}
			return
		}
	}
	t.Errorf("the evidence has no change of the limit: %s", &deaths[0])
}

// tainted: a taint makes the pods go that do not tolerate it.
func (c *Cluster) tainted(t *testing.T) {
	c.running(t, "m-taint")
	if _, err := c.kubectl("taint", "node", node, "maintenance=now:NoExecute"); err != nil {
		t.Fatal(err)
	}
	c.judged(t, "m-taint", []want{{"container", "main", "drained", 0, "true"}})
	c.until(t, time.Minute, "the taint's name", func() error { // which the Node object tells
		deaths, err := c.deaths("m-taint")
		if err == nil && !strings.Contains(deaths[0].Summary, "maintenance=now:NoExecute") {
			err = fmt.Errorf("told %s", &deaths[0])
		}
		return err
	})
	if _, err := c.kubectl("taint", "node", node, "maintenance=now:NoExecute-"); err != nil {
		t.Fatal(err)
	}
}

// systemOOM: a process reaches a limit below its container's, in a cgroup with a
// name so long that the kubelet cannot read the kernel's report. It says that the
// whole node ran out of memory (SystemOOM), which did not happen.
func (c *Cluster) systemOOM(t *testing.T) {
	const namespace = "o-system-oom"
	cgroup := c.cgroup(t, namespace)
	var pids []string
	c.until(t, time.Minute, "both processes", func() error {
		text, err := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
		if pids = strings.Fields(string(text)); err == nil && len(pids) != 2 {
			err = fmt.Errorf("processes %v", pids)
		}
		return err
	})
	nested := filepath.Join(cgroup, strings.Repeat("a", 220), strings.Repeat("b", 220))
	if err := os.MkdirAll(nested, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, w := range [][2]string{{"memory.limit_in_bytes", "32M"}, {"cgroup.procs", pids[1]}} {
		if err := os.WriteFile(filepath.Join(nested, w[0]), []byte(w[1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	begin(t, c, namespace)
	c.until(t, time.Minute, "the kernel's count", func() error { return killedOnce(nested) })
	c.until(t, time.Minute, "the kubelet's SystemOOM", func() error {
		var l struct{ Items []told }
		err := c.get(server+"/api/v1/events?fieldSelector=reason%3DSystemOOM", &l)
		if err == nil && len(l.Items) == 0 {
			err = errors.New("none")
		}
		return err
	})
	c.judged(t, namespace, []want{{"process", "main", "oom_ancestor_limit", -1, ""}})
	c.until(t, 30*time.Second, "that it is held against what the kernel said", func() error {
		var said struct{ Items []told }
		err := c.get(server+"/api/v1/events?fieldSelector=reason%3DSystemOOM", &said)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(said.Items, func(e told) bool { return strings.HasSuffix(e.Message, ", pid: "+pids[1]) }) {
			t.Logf("the kubelet does not name the process %s: %+v", pids[1], said.Items)
			return nil // it reads the kernel's log as well as it can
		}
		deaths, err := c.deaths(namespace)
		if err == nil && !strings.Contains(deaths[0].String(), "event SystemOOM of the node: System OOM encountered, victim process: ") {
			err = fmt.Errorf("told %s", &deaths[0])
		}
		return err
	})
	var l struct{ Items []told }
	if err := c.get(server+"/api/v1/events?fieldSelector=reason%3DNodeOOM", &l); err != nil || len(l.Items) > 0 {
		t.Errorf("told of the node: %+v, %v", l.Items, err)
	}
}
