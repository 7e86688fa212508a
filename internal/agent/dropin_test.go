// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

// record is what a Prometheus that scrapes each minute has of the drop-in
// metrics: values by series, as promtool writes them.
type record map[string][]string

// scrape adds one scrape, with the labels that Prometheus gives: those of the
// agent's own pod, while the container's are moved out of the way.
func (r record) scrape(t *testing.T, m *metrics.Metrics, minute int) {
	t.Helper()
	rec := httptest.NewRecorder()
	m.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(rec.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"container_restarts", "container_ooms", "container_last_exit_code"} {
		for _, x := range families[name].GetMetric() {
			series := name + stored(x.GetLabel())
			for len(r[series]) < minute {
				r[series] = append(r[series], "_")
			}
			r[series] = append(r[series], fmt.Sprint(x.GetCounter().GetValue()+x.GetGauge().GetValue()))
		}
	}
}

// stored are labels as Prometheus keeps them: an empty one is none.
func stored(pairs []*dto.LabelPair) string {
	own := []string{`namespace="monitoring"`, `pod="coroner-7"`}
	for _, p := range pairs {
		name := p.GetName()
		if name == "namespace" || name == "pod" {
			name = "exported_" + name
		}
		if p.GetValue() != "" {
			own = append(own, fmt.Sprintf("%s=%q", name, p.GetValue()))
		}
	}
	slices.Sort(own)
	return "{" + strings.Join(own, ",") + "}"
}

// theater is what happens on the node of TestDropIn_QueriesOfItsUsers.
type theater struct {
	*stage
	m     *metrics.Metrics
	kills int
}

func (x *theater) kill(id string) {
	x.kills++
	d := death.Death{
		ID: fmt.Sprint("d", x.kills), Revision: 1, Time: x.now, Subject: death.SubjectProcess, Cause: death.OOMContainerLimit,
		Container: &death.Container{ID: id}, Processes: []death.Process{{PID: x.kills, Fate: death.FateVictim}},
	}
	x.m.Kept(x.m.Prepare(x.m.Take(&d), false))
}

func cid(c byte) string { return strings.Repeat(string(c), 64) }

// minute plays what happens in one minute: in the pod shop three processes of
// app are killed, and then app itself, which comes again with another id; web,
// in Docker alone, ends with code 3 and is started again; in the pod quiet
// nothing happens.
func (x *theater) minute(n int) {
	shop, next, web, quiet := cid('a'), cid('b'), cid('c'), cid('d')
	attempt := func(id string, count int) signal.ContainerSeen {
		b := state(id, "running")
		b.Container.RestartCount = &count
		return b
	}
	switch n {
	case 0:
		x.name(shop, "containerd", "app", "prod", "shop", "u1")
		x.name(next, "containerd", "app", "prod", "shop", "u1")
		x.name(quiet, "containerd", "app", "prod", "quiet", "u2")
		x.name(web, "docker", "web")
		x.say("cri", attempt(shop, 0), attempt(quiet, 0)).say("docker", state(web, "running"))
	case 5, 7, 9:
		x.kill(shop)
	case 6:
		x.say("docker", exited(web, 3), state(web, "running"))
	case 12:
		x.kill(shop)
		x.say("cri", exited(shop, 137), attempt(next, 1))
	case 13:
		x.say("cri", signal.ContainerGone{ID: shop})
	}
}

// query is one of theirs, with the rows that it must give at a minute.
type query struct {
	minute int
	expr   string
	rows   map[string]float64
}

// queries are the joins that its README promises, by container_id with
// kube_pod_container_info of kube-state-metrics, and the alerts that its chart
// and those who run it have.
func queries() []query {
	labels := func(more string, id byte, runtime, name, pod string) string {
		docker, exported := "not-a-docker-container", fmt.Sprintf(`,exported_namespace="prod",exported_pod=%q`, pod)
		if runtime == "docker" {
			docker, exported = cid(id), ""
		}
		return fmt.Sprintf(`{%scontainer_id="%s://%s",container_short_id="%.12s",docker_container_id=%q%s,name=%q,namespace="monitoring",pod="coroner-7"}`,
			more, runtime, cid(id), cid(id), docker, exported, name)
	}
	shop := `{exported_namespace="prod",exported_pod="shop"}`
	quiet := `{exported_namespace="prod",exported_pod="quiet"}`
	joined := func(id byte, pod, uid string) string {
		return strings.Replace(labels(`container="app",`, id, "containerd", "app", pod), "}", fmt.Sprintf(",uid=%q}", uid), 1)
	}
	return []query{
		{8, `sum(increase(container_ooms[15m])) by (exported_namespace, exported_pod) > 2`, nil},
		{10, `sum(increase(container_ooms[15m])) by (exported_namespace, exported_pod) > 2`, map[string]float64{shop: 3}},
		{10, `max(increase(container_ooms[15m])) by (exported_namespace, exported_pod) > 2`, map[string]float64{shop: 3}},
		{11, `container_ooms * on (container_id) group_left (container, uid) kube_pod_container_info`, map[string]float64{
			joined('a', "shop", "u1"): 3, joined('d', "quiet", "u2"): 0,
		}},
		{14, `sum by (exported_pod, container) (container_ooms * on (container_id) group_left (container) kube_pod_container_info)`, map[string]float64{
			`{container="app",exported_pod="shop"}`: 4, `{container="app",exported_pod="quiet"}`: 0,
		}},
		{8, `container_last_exit_code > 0`, map[string]float64{"container_last_exit_code" + labels("", 'c', "docker", "web", ""): 3}},
		{14, `sum by (container, exported_pod) (container_last_exit_code * on (container_id) group_left (container) kube_pod_container_info) == 137`,
			map[string]float64{`{container="app",exported_pod="shop"}`: 137}},
		{8, `container_restarts{name="web"} - container_restarts{name="web"} offset 5m`, map[string]float64{labels("", 'c', "docker", "web", ""): 1}},
		{15, `sum by (exported_namespace, exported_pod) (increase(container_restarts{exported_pod!=""}[15m]))`, map[string]float64{shop: 1, quiet: 0}},
		{16, `max by (exported_pod) (container_restarts{exported_pod!=""})`, map[string]float64{`{exported_pod="shop"}`: 1, `{exported_pod="quiet"}`: 0}},
		{17, `count by (container_id) (container_ooms{exported_pod="shop"})`, map[string]float64{
			fmt.Sprintf(`{container_id="containerd://%s"}`, cid('a')): 1, fmt.Sprintf(`{container_id="containerd://%s"}`, cid('b')): 1,
		}},
		{19, `count by (container_id) (container_ooms{exported_pod="shop"})`, map[string]float64{
			fmt.Sprintf(`{container_id="containerd://%s"}`, cid('b')): 1,
		}},
	}
}

// TestDropIn_QueriesOfItsUsers plays what users of missing-container-metrics
// ask against what is shown here, in Prometheus' own evaluation.
func TestDropIn_QueriesOfItsUsers(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CORONER_CI") == "1" {
			t.Fatal("no promtool (hint: apt-get install prometheus)")
		}
		t.Skip("no promtool")
	}
	x := &theater{stage: newStage(t)}
	x.m = metrics.New(metrics.Options{Now: func() time.Time { return x.now }, Containers: x.r.list})
	begin, seen := x.now, record{}
	const minutes = 25
	for n := range minutes {
		x.now = begin.Add(time.Duration(n) * time.Minute)
		x.minute(n)
		seen.scrape(t, x.m, n)
	}
	var b strings.Builder
	b.WriteString("rule_files: [rules.yml]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n")
	for series, values := range seen {
		for len(values) < minutes {
			values = append(values, "stale") // it was not in a scrape that came
		}
		fmt.Fprintf(&b, "  - {series: '%s', values: '%s'}\n", series, strings.Join(values, " "))
	}
	for _, info := range []string{`{container_id="containerd://%[1]s",pod="shop",uid="u1"`, `{container_id="containerd://%[2]s",pod="shop",uid="u1"`, `{container_id="containerd://%[3]s",pod="quiet",uid="u2"`} {
		fmt.Fprintf(&b, "  - {series: 'kube_pod_container_info"+info+",container=\"app\",namespace=\"prod\",image=\"i\",image_id=\"i@sha256:1\"}', values: '1x%[4]d'}\n",
			cid('a'), cid('b'), cid('d'), minutes)
	}
	b.WriteString("  promql_expr_test:\n")
	for _, q := range queries() {
		fmt.Fprintf(&b, "  - expr: '%s'\n    eval_time: %dm\n    exp_samples:\n", q.expr, q.minute)
		for row, v := range q.rows {
			fmt.Fprintf(&b, "    - {labels: '%s', value: %g}\n", row, v)
		}
	}
	b.WriteString("  alert_rule_test:\n")
	for minute, fires := range map[int]bool{8: false, 10: true, 13: true, 24: false} {
		fmt.Fprintf(&b, "  - alertname: ContainerOOMObserved\n    eval_time: %dm\n    exp_alerts:\n", minute)
		if fires {
			b.WriteString("    - exp_labels: {severity: warning, exported_namespace: prod, exported_pod: shop}\n")
		}
	}
	dir := t.TempDir()
	rules := "groups: [{name: g, rules: [{alert: ContainerOOMObserved, expr: 'sum(increase(container_ooms[15m])) by (exported_namespace, exported_pod) > 2', labels: {severity: warning}}]}]\n"
	for name, text := range map[string]string{"rules.yml": rules, "test.yml": b.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", filepath.Join(dir, "test.yml")).CombinedOutput(); err != nil {
		t.Errorf("promtool test rules: %v\n%s\n%s", err, out, b.String())
	}
}
