// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docker

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/oomtest"
	"github.com/coroner-dev/coroner/test/engines"
	"github.com/coroner-dev/coroner/test/rig"
)

// row is what the metrics of missing-container-metrics say of one container.
type row struct {
	restarts, ooms, code float64
	labels               map[string]string
}

// rows are those of all containers, by id.
func rows(t *testing.T, base string) map[string]row {
	t.Helper()
	res, err := http.Get(base + "/metrics")
	engines.Must(t, err)
	defer res.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(res.Body)
	engines.Must(t, err)
	out := map[string]row{}
	for name, set := range map[string]func(*row, float64){
		"container_restarts":       func(r *row, v float64) { r.restarts = v },
		"container_ooms":           func(r *row, v float64) { r.ooms = v },
		"container_last_exit_code": func(r *row, v float64) { r.code = v },
	} {
		for _, m := range families[name].GetMetric() {
			labels := map[string]string{}
			for _, p := range m.GetLabel() {
				labels[p.GetName()] = p.GetValue()
			}
			id := labels["container_id"]
			id = id[strings.LastIndex(id, "/")+1:]
			r := out[id]
			set(&r, m.GetCounter().GetValue()+m.GetGauge().GetValue())
			r.labels = labels
			out[id] = r
		}
	}
	return out
}

// TestDropIn holds what the metrics say against what the test did, and against
// what the engine has counted.
func TestDropIn(t *testing.T) {
	t.Run("Docker", func(t *testing.T) { dropIn(t, false) })
	t.Run("Docker and the containerd beneath", func(t *testing.T) { dropIn(t, true) })
}

func dropIn(t *testing.T, beneath bool) {
	history := filepath.Join(t.TempDir(), "deaths.db")
	options := func(e *engine) func(o *agent.Options) {
		return func(o *agent.Options) {
			o.Source.DockerHosts = []string{"unix://" + e.socket()}
			o.History.Path = history
			if o.Source.Containerd = beneath; beneath {
				o.Source.ContainerdHosts = []string{"unix://" + filepath.Join(e.dir, "exec", "containerd", "containerd.sock")}
			}
		}
	}
	oomtest.Require(t, oomtest.RealKills)
	e := startEngine(t)
	e.grace = 30 // what is restarted here obeys, as soon as the machine lets it
	e.addProgram(coroner(t))
	m := &morgue{e, rig.Start(t, options(e))}
	made, err := m.client.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Name: "policy", Config: &container.Config{Image: "base:1", Cmd: []string{"/bin/sh", "-c", "exit 9"}},
		HostConfig: &container.HostConfig{NetworkMode: "none", RestartPolicy: container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3}},
	})
	engines.Must(t, err)
	want := map[string]row{made.ID: {restarts: 3, code: 9}}
	is := func(what string) {
		t.Helper()
		err := oomtest.Poll(rig.Patience, func() error {
			got := rows(t, m.agent.Base)
			for id, w := range want {
				if g := got[id]; g.restarts != w.restarts || g.ooms != w.ooms || g.code != w.code {
					return fmt.Errorf("%s (%.12s): %+v, want %+v", g.labels["name"], id, g, w)
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	engines.Poll(t, "it is known before it starts", func() bool { _, ok := rows(t, m.agent.Base)[made.ID]; return ok })
	_, err = m.client.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{})
	engines.Must(t, err)

	byHand := m.run("by-hand", false, nil, "/bin/sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.05; done")
	for range 3 {
		m.running(t, byHand)
		_, err := m.client.ContainerRestart(t.Context(), byHand, client.ContainerRestartOptions{})
		engines.Must(t, err)
	}
	want[byHand] = row{restarts: 3, code: 4}
	survives := m.run("survives", false, nil, "/bin/sh", "-c", "i=0; while [ $i -lt 10 ]; do /coroner leak --block 32M --max 200M; i=$((i+1)); done; sleep 600")
	want[survives] = row{ooms: 10}
	removed := m.run("removed", true, nil, "/coroner", "leak", "--block", "32M", "--max", "200M")
	want[removed] = row{ooms: 1, code: 137}
	still := m.run("still", false, nil, "/bin/sleep", "600")
	want[still] = row{}
	quick := m.run("quick", false, nil, "/bin/true")
	for range 5 { // as fast as the engine can
		engines.Poll(t, "its end", func() bool { return m.pid(t, quick) == 0 })
		_, err := m.client.ContainerStart(t.Context(), quick, client.ContainerStartOptions{})
		engines.Must(t, err)
	}
	want[quick] = row{restarts: 5}
	is("as it happens")
	c, err := m.client.ContainerInspect(t.Context(), made.ID, client.ContainerInspectOptions{})
	engines.Must(t, err)
	if c.Container.RestartCount != 3 {
		t.Errorf("the engine has counted %d restarts by its policy, want 3", c.Container.RestartCount)
	}
	r := rows(t, m.agent.Base)[byHand]
	for name, v := range map[string]string{
		"container_id": "docker://" + byHand, "container_short_id": byHand[:12], "docker_container_id": byHand,
		"name": "by-hand", "image_id": "docker-pullable://base:1", "pod": "", "namespace": "",
	} {
		if got, ok := r.labels[name]; !ok || got != v || len(r.labels) != 7 {
			t.Errorf("%s = %q, want %q in %v", name, got, v, r.labels)
		}
	}

	// Another agent goes on from there, over what happened meanwhile.
	// A start by hand is no start that the engine counts.
	m.agent.Stop()
	delete(want, removed) // it was gone before this one began
	for _, id := range []string{byHand, quick} {
		_, err = m.client.ContainerRestart(t.Context(), id, client.ContainerRestartOptions{})
		engines.Must(t, err)
	}
	want[byHand], want[quick] = row{restarts: 4, code: 4}, row{restarts: 6}
	m.agent = rig.Start(t, options(e))
	is("after the agent was started again")
	_, err = m.client.ContainerRestart(t.Context(), byHand, client.ContainerRestartOptions{})
	engines.Must(t, err)
	want[byHand] = row{restarts: 5, code: 4}
	is("and goes on")

	// While the engine is away nothing is lost, and nothing counts twice.
	m.daemon.Stop()
	m.daemon.Start()
	m.agent.WaitUp(t)
	is("after the engine was started again")
	_, err = m.client.ContainerRemove(t.Context(), still, client.ContainerRemoveOptions{Force: true})
	engines.Must(t, err)
	want[still] = row{code: 137}
	is("removed")
}
