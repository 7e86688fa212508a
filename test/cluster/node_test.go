// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// nodeMap is what is looked at of the node's memory map.
type nodeMap struct {
	Memory map[string]struct {
		Bytes    int64
		Computed bool
	}
	Thresholds []struct {
		Kind, Setting string
		Bytes         int64
	} `json:"eviction_thresholds"`
	Pods []struct {
		Namespace, Name string
		WorkingSet      int64 `json:"working_set_bytes"`
		Rank            int   `json:"eviction_rank"`
	}
	Tools []struct {
		Tool string
		Why  string
	}
	Notes []string
}

// node asks the agent.
func (c *Cluster) node() (m nodeMap, err error) {
	all := c.inside(c.built.coroner, "node", node, "--server", agentURL, "-o", "json")
	out, err := output(all[0], all[1:]...)
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal([]byte(out), &m)
}

// mappedAlone holds the map against what the API says.
func (c *Cluster) mappedAlone(t *testing.T) {
	text, err := c.kubectl("get", "node", node, "-o", "jsonpath={.status.allocatable.memory}")
	if err != nil {
		t.Fatal(err)
	}
	kib, err := strconv.ParseInt(strings.TrimSuffix(text, "Ki"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	var m nodeMap
	c.until(t, time.Minute, "the figures of the Node object", func() (err error) {
		if m, err = c.node(); err == nil && m.Memory["allocatable"].Bytes != kib<<10 {
			err = fmt.Errorf("allocatable %+v, want %d KiB; %q", m.Memory["allocatable"], kib, m.Notes)
		}
		return err
	})
	if got := m.Memory["capacity"].Bytes; got != memTotal(t) {
		t.Errorf("capacity %d, want %d", got, memTotal(t))
	}
	// It may not ask the kubelet, and computes what the kubelet was started with.
	if f := m.Memory["eviction_hard"]; f.Bytes != 100<<20 || !f.Computed || !strings.Contains(strings.Join(m.Notes, "\n"), "may not") {
		t.Errorf("eviction_hard %+v, want 100 MiB, computed; notes %q", f, m.Notes)
	}
	c.apply(t, kubeletRights)
}

// mappedByKubelet holds it against the kubelet's word. The agent was started
// anew since it may ask: before, it would ask again after a minute.
func (c *Cluster) mappedByKubelet(t *testing.T) {
	var m nodeMap
	c.until(t, 2*time.Minute, "the kubelet's own word", func() (err error) {
		if m, err = c.node(); err == nil && (len(m.Thresholds) != 1 || m.Thresholds[0].Setting != "100Mi" || m.Memory["eviction_hard"].Computed) {
			err = fmt.Errorf("thresholds %+v, notes %q", m.Thresholds, m.Notes)
		}
		return err
	})
	// Its figures are up to 20 s old, and the machine goes on.
	c.until(t, 3*time.Minute, "what the kubelet has for available", func() error {
		theirs := c.available(t)
		m, err := c.node()
		if err != nil {
			return err
		}
		if d := m.Memory["kubelet_available"].Bytes>>20 - theirs; d < -128 || d > 128 {
			return fmt.Errorf("the kubelet says %d MiB, the map %d MiB", theirs, m.Memory["kubelet_available"].Bytes>>20)
		}
		return nil
	})
	shown := ""
	for _, tool := range m.Tools {
		shown += tool.Tool + "\n"
	}
	if !strings.Contains(shown, "kubectl top node\n") || len(m.Pods) == 0 || m.Pods[0].Rank == 0 {
		t.Errorf("tools %q, pods %+v", shown, m.Pods)
	}
}

// firstToGo is the pod that the kubelet would evict first, once it is one of
// this namespace that holds 128 MiB.
func (c *Cluster) firstToGo(t *testing.T, namespace string) {
	t.Helper()
	c.until(t, time.Minute, "the first in the eviction order", func() error {
		m, err := c.node()
		if err != nil {
			return err
		}
		if len(m.Pods) == 0 || m.Pods[0].Rank != 1 || m.Pods[0].Namespace != namespace || m.Pods[0].WorkingSet < 128<<20 {
			return fmt.Errorf("it begins with %+v", m.Pods[:min(2, len(m.Pods))])
		}
		return nil
	})
}

const kubeletRights = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: coroner-kubelet}
rules:
- {apiGroups: [""], resources: [nodes/proxy], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: coroner-kubelet}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: coroner-kubelet}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: coroner}]
`
