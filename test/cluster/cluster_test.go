// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const rights = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: coroner}
rules:
- {apiGroups: [""], resources: [pods], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [events], verbs: [list, create, patch]}
- {apiGroups: [""], resources: [nodes], verbs: [get, list, watch]}
- {apiGroups: [batch], resources: [jobs], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: coroner}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: coroner}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: coroner}
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: ` + atRest + `}
`

// TestCluster_Deaths: each way for a pod to die, in a real cluster, with the
// truth known from what was done to it.
func TestCluster_Deaths(t *testing.T) {
	c := start(t, settings{})
	c.apply(t, rights)
	c.agent(t)
	c.until(t, time.Minute, "the agent", func() error {
		_, err := c.deaths("default")
		return err
	})
	all := scenarios()
	manifest := new(strings.Builder)
	manifest.WriteString(classes)
	for _, s := range append(append(all, mishaps("agent-killed")...), mishaps("api-stopped")...) {
		manifest.WriteString(pod(s.name, "p", s.spec))
	}
	for _, s := range changing() {
		manifest.WriteString(pod(s.name, "p", s.spec))
	}
	manifest.WriteString(owned() + quick())
	c.apply(t, manifest.String())
	for _, s := range all { // also of those that -run leaves out: their events are looked at
		if s.act != nil {
			s.act(t, c, s.name)
		}
	}
	t.Run("deaths", func(t *testing.T) {
		for _, s := range all {
			t.Run(s.name, func(t *testing.T) { c.judged(t, s.name, s.want) })
		}
	})
	t.Run("events", c.described)
	t.Run("node-map", c.mappedAlone)
	t.Run("from-a-laptop", func(t *testing.T) { fromLaptop(t, c) })
	t.Run("agent-killed", c.agentKilled)
	t.Run("node-map-kubelet", c.mappedByKubelet)
	t.Run("api-stopped", c.apiStopped)
	t.Run("latency", c.latency)
	t.Run("s26-resized", c.resized)
	t.Run("o-system-oom", c.systemOOM)
	t.Run("owners", c.owners)
	t.Run("at-rest", c.rests)
	t.Run("m-taint", c.tainted)
	c.evictions(t)
	t.Run("S6-kubepods-limit", func(t *testing.T) {
		c.reconfigure(t, settings{allocatable: 1500})
		c.apply(t, pod("s6", "p", "{restartPolicy: Never, tolerations: [{operator: Exists}], containers: ["+main1("", "", "fast=0")+"]}"))
		c.judged(t, "s6", []want{{"container", "main", "oom_node_allocatable", 137, "true"}})
	})
	t.Run("z-api-away", c.apiAway)
}

// evictions are last but those that the kubelet's settings for them do no harm.
func (c *Cluster) evictions(t *testing.T) {
	// Not of the class BestEffort, which is not let in where memory is short.
	evictable := func(what string) string {
		leaker := strings.Replace(main1("", "", what), "name: main", "name: main, resources: {requests: {memory: 1Mi}}", 1)
		return "{restartPolicy: Never, tolerations: [{operator: Exists}], containers: [" + leaker + "]}"
	}
	t.Run("c-eviction", func(t *testing.T) {
		threshold := c.available(t) - 1500
		if threshold < 6<<10 {
			t.Skipf("needs a machine that this one is not now: %d MiB are free, 7500 are needed", threshold+1500)
		}
		c.reconfigure(t, settings{evictBelow: fmt.Sprintf("%dMi", threshold)})
		c.apply(t, pod("c-eviction", "p", evictable("leak=0")))
		c.firstToGo(t, "c-eviction")
		c.judged(t, "c-eviction", []want{{"container", "main", "evicted_memory", 137, "true"}})
	})
	t.Run("c-eviction-exit0", func(t *testing.T) {
		c.apply(t, pod("c-eviction-exit0", "p", evictable("leakwait=0")))
		c.judged(t, "c-eviction-exit0", []want{{"container", "main", "evicted_memory", 0, "true"}})
	})
}

// judged holds the deaths of a namespace's pod against what was done to it. That
// it stays so, held sees at the end.
func (c *Cluster) judged(t *testing.T, namespace string, wants []want) []death {
	t.Helper()
	defer func() {
		if t.Failed() {
			out, err := c.kubectl("get", "pods", "-n", namespace, "-o", "jsonpath={.items[*].status}")
			t.Logf("the API has %s %v", out, err)
		}
	}()
	var deaths []death
	c.until(t, 2*time.Minute, "deaths in "+namespace, func() (err error) {
		if deaths, err = c.deaths(namespace); err == nil {
			err = right(namespace, deaths, wants)
		}
		if unsaid := withoutWord(wants); err != nil && c.lost(namespace) && right(namespace, deaths, unsaid) == nil {
			t.Log("the kubelet itself lost its end")
			wants, err = unsaid, nil
		}
		return err
	})
	for i := range deaths {
		t.Log(&deaths[i])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wants[namespace] = wants
	return deaths
}

// lost tells whether the kubelet removed a container before it had read how that
// ended, as it can where memory is short.
func (c *Cluster) lost(namespace string) bool {
	p, err := c.pod(namespace)
	if err != nil || len(p.Status.ContainerStatuses) == 0 {
		return false
	}
	ended := p.Status.ContainerStatuses[0].State.Terminated
	return ended != nil && ended.Reason == "ContainerStatusUnknown"
}

// withoutWord is what is told where Kubernetes says nothing of the end: codes of
// programs, but none by which a signal is told.
func withoutWord(wants []want) (out []want) {
	for _, w := range wants {
		if w.agrees = ""; w.code == 137 {
			w.code = -1
		}
		out = append(out, w)
	}
	return out
}

// right compares. What is started again fails again: of that the first counts.
func right(namespace string, deaths []death, wants []want) error {
	again := strings.HasPrefix(namespace, "e-") || strings.HasSuffix(namespace, "-restart")
	var got []want
	text := ""
	for i := range deaths {
		d := &deaths[i]
		text += "\n" + d.String()
		got = append(got, want{}.of(d))
		if d.Container.Pod.Name != "p" {
			return fmt.Errorf("pod %q: %s", d.Container.Pod.Name, d)
		}
	}
	if again && len(got) > len(wants) {
		got = got[:len(wants)]
	}
	if fmt.Sprint(got) != fmt.Sprint(wants) {
		return fmt.Errorf("told %v\nwant %v%s", got, wants, text)
	}
	return nil
}

// held looks once more at what was told right: the agent was started anew since,
// and the API was away.
func (c *Cluster) held(t *testing.T) {
	for namespace, wants := range c.wants {
		deaths, err := c.deaths(namespace)
		if err == nil {
			err = right(namespace, deaths, wants)
		}
		if err != nil {
			t.Errorf("%s: %v", namespace, err)
		}
	}
}
