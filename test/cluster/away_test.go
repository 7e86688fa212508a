// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// agentKilled: the agent is killed in the middle of what it has to tell, more
// happens without it, and it is started anew.
func (c *Cluster) agentKilled(t *testing.T) {
	all := mishaps("agent-killed")
	for i := range all {
		if strings.HasSuffix(all[i].name, "-sigkill") { // the kernel keeps no word of who sent it
			all[i].want = []want{{"container", "main", "unknown", 137, ""}}
		}
	}
	cgroup := c.cgroup(t, all[0].name)
	pids := c.firsts(t, all)
	all[0].act(t, c, all[0].name)
	c.until(t, time.Minute, "the kernel's count", func() error { return killedOnce(cgroup) })
	c.named("agent").kill()
	for _, s := range all[1:] {
		s.act(t, c, s.name)
	}
	c.gone(t, pids[1:])
	c.agent(t)
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) { c.judged(t, s.name, s.want) })
	}
}

// apiStopped: what happens while the API server is away is told at once, with
// names, and amended by its word when it is back.
func (c *Cluster) apiStopped(t *testing.T) {
	all := mishaps("api-stopped")
	pids := c.firsts(t, all)
	c.named("apiserver").kill()
	first := map[string]death{}
	for i, s := range all {
		if s.name == "api-stopped-sigkill" {
			err := syscall.Kill(pids[i], syscall.SIGKILL)
			if err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/go", pids[i]), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c.gone(t, pids[1:])
	for _, s := range all {
		c.until(t, 30*time.Second, "without the API, "+s.name, func() error {
			deaths, err := c.deaths(s.name)
			if err != nil {
				return err
			}
			if len(deaths) != 1 || deaths[0].Subject != s.want[0].subject || deaths[0].Container.Pod.Name != "p" || deaths[0].Container.Name != "main" {
				return fmt.Errorf("told: %v", deaths)
			}
			first[s.name] = deaths[0]
			return nil
		})
		d := first[s.name]
		t.Log("without the API: ", &d)
		if d.Cause != s.want[0].cause {
			t.Errorf("%s: without the API %s, want %s", s.name, d.Cause, s.want[0].cause)
		}
	}
	c.apiserver(t)
	c.ready(t)
	for _, s := range all {
		for _, d := range c.judged(t, s.name, s.want) {
			if was := first[s.name]; d.ID != was.ID || d.Subject == "container" && d.Revision <= was.Revision {
				t.Errorf("%s was told as %s, revision %d; is %s, revision %d", s.name, was.ID, was.Revision, d.ID, d.Revision)
			}
		}
	}
	for _, s := range all {
		c.until(t, time.Minute, "the event of "+s.name, func() error {
			got, err := c.events(s.name)
			if err == nil && len(got) != 1 {
				err = fmt.Errorf("events %+v", got)
			}
			return err
		})
	}
}

// firsts are the first processes of the scenarios' containers.
func (c *Cluster) firsts(t *testing.T, all []scenario) (pids []int) {
	t.Helper()
	for _, s := range all {
		pids = append(pids, c.firstOf(t, s.name))
	}
	return pids
}

// gone waits until the processes have ended.
func (c *Cluster) gone(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		c.until(t, 30*time.Second, fmt.Sprintf("the end of process %d", pid), func() error {
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				return errors.New("it lives")
			}
			return nil
		})
	}
}

// killedOnce asks the kernel how many OOM kills it has counted in a cgroup.
func killedOnce(cgroup string) error {
	text, err := os.ReadFile(filepath.Join(cgroup, "memory.oom_control"))
	if err == nil && !strings.Contains(string(text), "oom_kill 1\n") {
		err = fmt.Errorf("memory.oom_control: %q", text)
	}
	return err
}

// apiAway is the last case: the API server is stopped, and the agent started anew
// without it. Names come from the kubelet then.
func (c *Cluster) apiAway(t *testing.T) {
	const namespace = "z-api-away"
	c.apply(t, pod(namespace, "p", "{restartPolicy: Never, tolerations: [{operator: Exists}], containers: ["+main1("", "", "wait")+"]}"))
	first := c.firstOf(t, namespace)
	c.named("apiserver").kill()
	c.named("agent").end(t)
	before, err := os.ReadFile(c.path("agent.log"))
	if err != nil {
		t.Fatal(err)
	}
	c.agent(t)
	c.until(t, time.Minute, "pods from the kubelet", func() error {
		text, err := os.ReadFile(c.path("agent.log"))
		if err == nil && !strings.Contains(string(text[len(before):]), "mode=kubelet") {
			err = errors.New("the agent has not said so")
		}
		return err
	})
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.judged(t, namespace, []want{{"container", "main", "killed", -1, ""}})
	t.Run("nothing-lost-nor-twice", c.held)
}
