// SPDX-License-Identifier: Apache-2.0

package mixin

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v2"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

var update = flag.Bool("update", false, "rewrite what is checked in below deploy")

const (
	deploy   = "../../deploy"
	runbooks = "../../docs/runbooks"
)

// TestGenerated_IsWhatTheCommandPrints: cmd/coroner prints the same.
func TestGenerated_IsWhatTheCommandPrints(t *testing.T) {
	made := map[string]func() ([]byte, error){
		"prometheus/coroner.rules.yaml":  func() ([]byte, error) { return Rules(Options{}) },
		"prometheus/prometheusrule.yaml": func() ([]byte, error) { return PrometheusRule(Options{}) },
		// A chart reads its own folder alone, and follows no link out of it.
		"helm/coroner/files/coroner.rules.yaml": func() ([]byte, error) { return Rules(Options{}) },
	}
	for _, name := range Dashboards() {
		form := func() ([]byte, error) { return Dashboard(name) }
		made["grafana/"+name+".json"] = form
		made["helm/coroner/files/"+name+".json"] = form
	}
	for name, form := range made {
		got, err := form()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(deploy, name)
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (-checked in +made; make generate rewrites it):\n%s", path, diff)
		}
	}
}

// TestPrometheusRule_HasTheSameRules reads both forms as an operator would.
func TestPrometheusRule_HasTheSameRules(t *testing.T) {
	o := Options{Labels: map[string]string{"release": "prometheus"}}
	plain, err := Rules(o)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := PrometheusRule(o)
	if err != nil {
		t.Fatal(err)
	}
	var f, r map[string]any
	if err := yaml.Unmarshal(plain, &f); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(wrapped, &r); err != nil {
		t.Fatal(err)
	}
	spec, _ := r["spec"].(map[any]any)
	if diff := cmp.Diff(f["groups"], spec["groups"]); diff != "" {
		t.Errorf("groups (-file +resource):\n%s", diff)
	}
	meta, _ := r["metadata"].(map[any]any)
	labels, _ := meta["labels"].(map[any]any)
	if r["kind"] != "PrometheusRule" || r["apiVersion"] != "monitoring.coreos.com/v1" || labels["release"] != "prometheus" {
		t.Errorf("resource: %v %v %v", r["apiVersion"], r["kind"], labels)
	}
}

// TestAlerts_HaveAllThatTheyNeed: a severity, words, and a runbook; and no
// runbook is of an alert that is not there.
func TestAlerts_HaveAllThatTheyNeed(t *testing.T) {
	var want []string
	for _, a := range alerts(Options{}) {
		want = append(want, a.name+".md")
		if a.severity != critical && a.severity != warning || a.summary == "" || !strings.HasSuffix(a.description, ".") && !strings.HasSuffix(a.description, "{{ end }}") {
			t.Errorf("%s: severity %q, summary %q, description %q", a.name, a.severity, a.summary, a.description)
		}
	}
	files, err := os.ReadDir(runbooks)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		got = append(got, f.Name())
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s (-alerts +pages):\n%s", runbooks, diff)
	}
	for _, name := range got {
		page, err := os.ReadFile(filepath.Join(runbooks, name))
		if err != nil {
			t.Fatal(err)
		}
		last := -1
		for _, part := range []string{"# " + strings.TrimSuffix(name, ".md"), "## What it means", "## Look at", "## Do", "## Silence it when"} {
			at := strings.Index(string(page), part+"\n")
			if at <= last {
				t.Errorf("%s: no %q, or not in its place", name, part)
			}
			last = at
		}
	}
}

// TestOptions_Hurry: a test that cannot wait gets the same rules, sooner.
func TestOptions_Hurry(t *testing.T) {
	o := Options{Hurry: 60}
	for i, a := range alerts(Options{}) {
		fast := alerts(o)[i]
		if a.name != fast.name || strings.Contains(a.expr, "[") && a.expr == fast.expr {
			t.Errorf("%s: the same expression in a hurry: %s", a.name, fast.expr)
		}
	}
	if got := o.pace(time.Hour); got != time.Minute {
		t.Errorf("pace(1h) = %s, want 1m", got)
	}
}

// TestDashboards_FitTheGrid: no panel lies on another, and each says what it
// shows.
func TestDashboards_FitTheGrid(t *testing.T) {
	uids := map[string]bool{}
	for _, d := range []dashboard{overview(), container()} {
		if uids[d.UID] {
			t.Errorf("two dashboards are %s", d.UID)
		}
		uids[d.UID] = true
		taken := map[[2]int]string{}
		for i, p := range d.Panels {
			if p.ID != i+1 || p.Description == "" || p.GridPos.X+p.GridPos.W > width {
				t.Errorf("%s: %s: id %d at %+v, described as %q", d.UID, p.Title, p.ID, p.GridPos, p.Description)
			}
			for x := range p.GridPos.W {
				for y := range p.GridPos.H {
					at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
					if other := taken[at]; other != "" {
						t.Fatalf("%s: %s lies on %s", d.UID, p.Title, other)
					}
					taken[at] = p.Title
				}
			}
		}
	}
}

func TestCauses_AreKnown(t *testing.T) {
	for _, c := range intended() {
		if !slices.ContainsFunc(death.Causes(), func(i death.CauseInfo) bool { return i.Cause == c }) {
			t.Errorf("no cause %q", c)
		}
	}
}

// TestExpressions_AreOfTheTable: every metric that an expression names is in
// the table, and has the labels that it uses.
func TestExpressions_AreOfTheTable(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range expressions(t) {
		names := check(t, e, labelsOf(t))
		for _, n := range names {
			seen[n] = true
		}
	}
	for _, n := range []string{metrics.OOMKills, metrics.Unattributed, metrics.SourceUp, metrics.MemoryLimitETA, "up"} {
		if !seen[n] {
			t.Errorf("no expression names %s: the test does not see what it must", n)
		}
	}
}

// TestExpressions_WrongOnesAreSeen: the check above finds what it is for.
func TestExpressions_WrongOnesAreSeen(t *testing.T) {
	table := labelsOf(t)
	for _, bad := range []string{
		`sum(coroner_oom_kill_total) > 0`,
		`sum by (reason) (coroner_oom_kills_total)`,
		`coroner_oom_kills_total{name="x"}`,
		`max without (workload) (coroner_source_up)`,
		`container_oom_kills`,
	} {
		if _, problems := inspect(bad, table); len(problems) == 0 {
			t.Errorf("%s: nothing found", bad)
		}
	}
}

// expression is one, and where it stands.
type expression struct{ where, text string }

func expressions(t *testing.T) []expression {
	t.Helper()
	var out []expression
	for _, a := range alerts(Options{}) {
		out = append(out, expression{a.name, a.expr})
		for _, text := range []string{a.summary, a.description} {
			for _, q := range queriesOf(text) {
				out = append(out, expression{a.name + "'s words", q})
			}
		}
	}
	for _, name := range Dashboards() {
		text, err := Dashboard(name)
		if err != nil {
			t.Fatal(err)
		}
		var d dashboard
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				out = append(out, expression{name + ": " + p.Title, q.Expr})
			}
		}
		for _, v := range d.Templating.List {
			if selector, ok := strings.CutPrefix(v.Query, "label_values("); ok {
				metric, label, _ := strings.Cut(strings.TrimSuffix(selector, ")"), ", "+v.Name)
				if label != "" {
					t.Errorf("%s: variable %s asks for another label: %s", name, v.Name, v.Query)
				}
				out = append(out, expression{name + ": $" + v.Name, "max by (" + v.Name + ") (" + metric + ")"})
			}
		}
	}
	return out
}

// queriesOf gives the queries in an annotation's template, without its verbs.
func queriesOf(template string) []string {
	var out []string
	for _, part := range strings.Split(template, `printf "`)[1:] {
		q, _, _ := strings.Cut(part, `" `)
		out = append(out, strings.ReplaceAll(q, "%q", `"x"`))
	}
	return out
}

func labelsOf(t *testing.T) map[string][]string {
	t.Helper()
	// What Prometheus itself gives each target, and says of it.
	target := []string{"job", "instance"}
	known := map[string][]string{"up": target}
	for _, r := range metrics.Table() {
		known[r.Name] = append(slices.Clone(r.Labels), target...)
		if r.Type == "histogram" {
			known[r.Name+"_bucket"] = append(slices.Clone(known[r.Name]), "le")
		}
	}
	return known
}

func check(t *testing.T, e expression, known map[string][]string) []string {
	t.Helper()
	names, problems := inspect(e.text, known)
	for _, p := range problems {
		t.Errorf("%s: %s, in\n%s", e.where, p, e.text)
	}
	if len(names) == 0 {
		t.Errorf("%s names no metric: %s", e.where, e.text)
	}
	return names
}
