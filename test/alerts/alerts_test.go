// SPDX-License-Identifier: Apache-2.0

//go:build linux

package alerts

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/oomtest"
	agentrig "github.com/coroner-dev/coroner/test/rig"
)

const mib = int64(1 << 20)

// container is a cgroup that the agent takes for a container, as nobody knows
// it: the kernel's log still tells of earlier runs of this test.
func container(tree *oomtest.Tree, name string) (box *oomtest.Cgroup, id string) {
	id = oomtest.ContainerID(name + tree.Root)
	return tree.Cgroup("docker/"+id, oomtest.Limit(48*mib)), id[:12]
}

// kill has processes of a container OOM-killed, while its first one lives.
func kill(t *testing.T, box *oomtest.Cgroup, n int) {
	t.Helper()
	for range n {
		box.Run(oomtest.Load{Comm: []byte("worker")})
	}
	if got := box.OOMKills(); got != uint64(n) {
		t.Fatalf("the kernel counted %d kills, want %d", got, n)
	}
}

func live(box *oomtest.Cgroup) {
	box.Start(oomtest.Load{Comm: []byte("first"), NewPIDNS: true, Bytes: oomtest.Idle}).Go()
}

// TestAlerts has a real Prometheus and Alertmanager watch an agent while the
// kernel kills: each alert comes once, with the right labels, and goes.
func TestAlerts(t *testing.T) {
	oomtest.Require(t, oomtest.RealKills)
	a := agentrig.Start(t, func(o *agent.Options) {
		o.Source.Docker, o.Source.Containerd, o.Source.CRI, o.Source.Kube = false, false, false, false
	})
	w := start(t, a.Base)
	tree := oomtest.New(t)

	// Three containers that Prometheus knows before anything happens.
	quiet, quietID := container(tree, "quiet")
	child, childID := container(tree, "child")
	often, oftenID := container(tree, "often")
	for _, box := range []*oomtest.Cgroup{quiet, child, often} {
		live(box)
	}
	agentrig.Poll(t, func() error {
		known, err := w.ask(fmt.Sprintf(`count(coroner_oom_kills_total{cause="oom_container_limit", container=~"%s|%s|%s"} == 0)`, quietID, childID, oftenID))
		if err == nil && (len(known) != 1 || known[0] != "3") {
			err = fmt.Errorf("Prometheus knows %v of 3 containers at 0", known)
		}
		return err
	})

	kill(t, child, 1)
	gone := between(t, a, w, tree)
	kill(t, often, 5)

	oom := func(id string) map[string]string {
		return map[string]string{"container": id, "cause": "oom_container_limit", "severity": "warning"}
	}
	absent := map[string]string{"job": "other/coroner", "instance": w.lateAt, "severity": "warning"}
	w.until(1, "firing", "CoronerAgentAbsent", absent)
	w.late.up.Store(true)
	for id, words := range map[string]string{
		childID: ": oom_container_limit. Processes taken so far: 1. Its memory limit is 48MiB. \"coroner why " + childID + "\" says why.",
		gone:    ": oom_container_limit. Processes taken so far: 1.",
	} {
		n := w.until(1, "firing", "CoronerOOMKill", oom(id))[0]
		if !strings.Contains(n.Annotations["description"], words) || !strings.HasSuffix(n.Annotations["runbook_url"], "/CoronerOOMKill.md") {
			t.Errorf("words of %s: %v", id, n.Annotations)
		}
		w.until(1, "resolved", "CoronerOOMKill", oom(id))
		w.until(1, "firing", "CoronerOOMKill", oom(id))
	}
	repeated := w.until(1, "firing", "CoronerOOMKillsRepeated", map[string]string{"container": oftenID, "severity": "critical"})[0]
	if want := "took 5 processes of " + oftenID; !strings.Contains(repeated.Annotations["description"], want) {
		t.Errorf("words %q, want %q in them", repeated.Annotations["description"], want)
	}
	if got := w.desk.of("firing", map[string]string{"container": quietID}); len(got) > 0 {
		t.Errorf("nobody died in %s: %v", quietID, got)
	}
	for _, name := range []string{"CoronerNodeOutOfMemory", "CoronerBlind", "CoronerSourceDown", "CoronerUnattributedOOMKill", "CoronerAgentAbsent"} {
		if got := w.desk.of("firing", map[string]string{"alertname": name, "job": "coroner"}); len(got) > 0 {
			t.Errorf("there is no reason for %v", got)
		}
	}
	w.answered()
	w.until(1, "resolved", "CoronerAgentAbsent", absent)
	w.until(1, "firing", "CoronerAgentAbsent", absent)
}

// between is S28: a container is made, OOM-killed and removed between two
// scrapes. Prometheus sees it for the first time when it is gone.
func between(t *testing.T, a *agentrig.Agent, w *watch, tree *oomtest.Tree) (id string) {
	t.Helper()
	w.window.set(true)
	uid := oomtest.PodUID("short" + tree.Root)
	full := oomtest.ContainerID("short" + tree.Root)
	id = full[:12]
	box := tree.Cgroup(oomtest.CgroupfsContainer(oomtest.CgroupfsPod("burstable", uid), full), oomtest.Limit(48*mib))
	box.Run(oomtest.Load{Comm: []byte("short"), NewPIDNS: true})
	if got := box.OOMKills(); got != 1 {
		t.Fatalf("the kernel counted %d kills, want 1", got)
	}
	box.Remove()
	agentrig.Poll(t, func() error {
		for d, err := range a.Client.All(t.Context(), api.Query{Container: full}) {
			if err != nil || d.Subject == "container" {
				return err
			}
		}
		return errors.New("no death of the short container")
	})
	if seen, err := w.ask(`count_over_time(coroner_oom_kills_total{container="` + id + `"}[5m])`); err != nil || len(seen) > 0 {
		t.Fatalf("Prometheus has %v of it, %v", seen, err)
	}
	w.window.set(false)
	agentrig.Poll(t, func() error {
		first, err := w.ask(fmt.Sprintf(`min_over_time(coroner_oom_kills_total{container="%s",pod="%s",cause="oom_container_limit"}[5m])`, id, uid))
		if err == nil && (len(first) != 1 || first[0] != "1") {
			err = fmt.Errorf("Prometheus first saw %v, want 1", first)
		}
		return err
	})
	return id
}

// answered has Prometheus say whether it can evaluate all rules, words and all,
// and answer what the dashboards ask: an expression that parses may still fail
// on the series that there are.
func (w *watch) answered() {
	w.t.Helper()
	body, err := get(w.t, w.prom+"/api/v1/rules")
	if err != nil {
		w.t.Fatal(err)
	}
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		w.t.Fatal(err)
	}
	rules := 0
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			rules++
			if r.Health != "ok" {
				w.t.Errorf("rule %s is %s: %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if rules < 10 {
		w.t.Errorf("%d rules", rules)
	}
	for _, n := range w.desk.of("firing", nil) {
		for _, words := range n.Annotations {
			if strings.Contains(words, "error") || strings.Contains(words, "<") {
				w.t.Errorf("words of %s: %s", n.Labels["alertname"], words)
			}
		}
	}
	// What is asked of who died, and of the agent; nobody here is near a limit.
	empty := map[string]bool{
		"overview: Reach their memory limit": true, "overview: Near their memory limit": true, "overview: Processes outside their container's limit": true,
		"overview: Signals lost, and failures of sources": true, "container: Reaches its limit in": true, "container: Time until the limit, at the rate of then": true,
		"container: Processes outside its limit": true,
	}
	for _, p := range panels(w.t) {
		values, err := w.ask(p.expr)
		if err != nil {
			w.t.Errorf("%s: %v", p.where, err)
		}
		if len(values) == 0 && !empty[p.where] {
			w.t.Errorf("%s shows nothing: %s", p.where, p.expr)
		}
	}
}
