// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// agentPod stands for the agent's pod: the agent itself runs beside the kubelet,
// at the address that a pod of the node's own network has.
const agentPod = `apiVersion: v1
kind: Pod
metadata: {name: coroner, namespace: default, labels: {app.kubernetes.io/name: coroner}}
spec: {hostNetwork: true, terminationGracePeriodSeconds: 0, containers: [{name: coroner, image: "` + loadImage + `", args: [wait]}]}
`

// answer is what coroner why -o json prints.
type answer struct {
	Deaths []death `json:"deaths"`
	By     struct {
		Who    string   `json:"who"`
		Agents []string `json:"agents"`
		Reason string   `json:"reason"`
	} `json:"by"`
}

// asLaptop runs coroner as kubectl's plugin does, as a user of the cluster.
func (c *Cluster) asLaptop(user string, args ...string) (string, error) {
	all := c.inside(append([]string{"env", "PATH=" + c.path("plugins"), "KUBECONFIG=" + c.path(user+".kubeconfig"), c.built.kubernetes, "kubectl", "coroner"}, args...)...)
	return output(all[0], all[1:]...)
}

// fromLaptop asks for a pod that was OOM-killed, through the API server and its
// proxy to a pod, streams included.
func fromLaptop(t *testing.T, c *Cluster) {
	if err := os.Mkdir(c.path("plugins"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(c.built.coroner, filepath.Join(c.path("plugins"), "kubectl-coroner")); err != nil {
		t.Fatal(err)
	}
	c.apply(t, agentPod)
	why := func(user string) (a answer, err error) {
		out, err := c.asLaptop(user, "why", "a-oom-init/p", "-o", "json")
		if err == nil {
			err = json.Unmarshal([]byte(out), &a)
		}
		return a, err
	}
	var a answer
	c.until(t, time.Minute, "the agent through the proxy", func() (err error) {
		if a, err = why("admin"); err == nil && a.By.Who != "agents" {
			err = fmt.Errorf("answered by %+v", a.By)
		}
		return err
	})
	if d := a.Deaths[0]; d.Cause != "oom_container_limit" || d.Confidence != "certain" || len(d.Processes) == 0 || fmt.Sprint(a.By.Agents) != "[default/coroner]" {
		t.Errorf("by the agent: %+v %v", a.By, a.Deaths)
	}
	if out, err := c.asLaptop("admin", "node", node); err != nil || !strings.HasPrefix(out, "memory of "+node) {
		t.Errorf("the node's map: %v\n%.200s", err, out)
	}
	a, err := why("coroner") // who may read pods and events, and no more
	if err != nil {
		t.Fatal(err)
	}
	if d := a.Deaths[0]; d.Cause != "oom_container_limit" || d.Confidence != "possible" || a.By.Who != "kubernetes" || !strings.Contains(a.By.Reason, "pods/proxy") {
		t.Errorf("by the API alone: %+v %v", a.By, a.Deaths)
	}
	t.Run("watch", func(t *testing.T) { watchFromLaptop(t, c) })
}

// watchFromLaptop sees deaths while they happen: the proxy must not hold them back.
func watchFromLaptop(t *testing.T, c *Cluster) {
	p := c.run(t, "watch", c.built.coroner, "watch", "--kubeconfig", c.path("admin.kubeconfig"), "-n", "watched", "-o", "json")
	seen := ""
	for i := 0; i < 20 && seen == ""; i++ { // until the stream is open
		name := fmt.Sprintf("p%d", i)
		c.apply(t, pod("watched", name, "{restartPolicy: Never, containers: ["+main1("", "", "exit=7")+"]}"))
		var ended time.Time
		c.until(t, time.Minute, "the end of "+name, func() error {
			out, err := c.kubectl("get", "pod", name, "-n", "watched", "-o", "jsonpath={.status.phase}")
			if err == nil && out != "Failed" {
				err = fmt.Errorf("phase %q", out)
			}
			ended = time.Now()
			return err
		})
		tick := time.NewTicker(20 * time.Millisecond)
		for now := range tick.C {
			text, err := os.ReadFile(p.log)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), `"name":"`+name+`"`) {
				t.Logf("seen %s after the API called it Failed", now.Sub(ended))
				seen = string(text)
				break
			}
			if now.Sub(ended) > 5*time.Second {
				break
			}
		}
		tick.Stop()
	}
	if !strings.Contains(seen, `"cause":"error"`) {
		t.Errorf("watch never told of it: %s", seen)
	}
}
