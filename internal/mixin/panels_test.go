// SPDX-License-Identifier: Apache-2.0

package mixin

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

// TestPanels_FitWhatTheyShow: each panel asks the chosen data source, by
// variables that there are; its legend has labels that its answer has, and its
// unit is that of its metrics.
func TestPanels_FitWhatTheyShow(t *testing.T) {
	for _, d := range []dashboard{overview(), container()} {
		for _, problem := range misfits(t, d) {
			t.Errorf("%s: %s", d.UID, problem)
		}
	}
}

// TestPanels_WrongOnesAreSeen: the check above finds what it is for.
func TestPanels_WrongOnesAreSeen(t *testing.T) {
	for want, p := range map[string]panel{
		"legend {{pod}}":              graph("x", "short", query{"sum by (source) (" + metrics.SourceEvents + ")", "{{pod}}"}),
		"legend {{le}}":               graph("x", "s", query{"histogram_quantile(0.5, sum by (le, source) (rate(" + metrics.Detection + "_bucket[1h])))", "{{le}}"}),
		"legend {{cause}}":            graph("x", "bytes", query{metrics.MemoryUsage, "{{cause}}"}),
		"$cluster is no variable":     graph("x", "bytes", query{metrics.MemoryUsage + `{instance=~"$cluster"}`, "{{pod}}"}),
		`unit "short", want "bytes"`:  graph("x", "short", query{metrics.MemoryUsage, "{{pod}}"}),
		`unit "s", want "short"`:      number("x", "s", 0, metrics.Unattributed),
		`unit "short", want "dateT`:   table("x", "short", "died", metrics.LastDeath+" * 1000"),
		`seconds, Grafana takes mill`: table("x", "dateTimeFromNow", "died", metrics.LastDeath),
	} {
		d := empty("x", "x", "x", chosen("instance", metrics.BuildInfo))
		d.row(4, p)
		if got := misfits(t, d); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("found %q, want one with %q", got, want)
		}
	}
	fixed := graph("x", "bytes", query{metrics.MemoryUsage, ""})
	fixed.Datasource.UID = "P1809F7CD0C75ACF3"
	d := dashboard{Panels: []panel{fixed}}
	if got := misfits(t, d); len(got) != 2 || !strings.Contains(got[0], "no variable datasource") || !strings.Contains(got[1], "asks P1809F7CD0C75ACF3") {
		t.Errorf("found %q", got)
	}
}

func misfits(t *testing.T, d dashboard) (problems []string) {
	t.Helper()
	known := []string{"__range", "__range_s", "__interval", "__interval_ms", "__rate_interval"} // Grafana's own
	of := map[string]string{}
	for _, v := range d.Templating.List {
		known = append(known, v.Name)
		of[v.Name] = v.Type + " " + v.Query
		for _, name := range variables(v.Query) {
			if !slices.Contains(known, name) {
				problems = append(problems, fmt.Sprintf("variable %s: $%s comes later, or never", v.Name, name))
			}
		}
		if v.Type == "query" && (v.Datasource == nil || *v.Datasource != source()) {
			problems = append(problems, fmt.Sprintf("variable %s asks %+v", v.Name, v.Datasource))
		}
	}
	if of["datasource"] != "datasource prometheus" {
		problems = append(problems, "no variable datasource of Prometheus")
	}
	for _, p := range d.Panels {
		if p.Datasource != source() {
			problems = append(problems, p.Title+" asks "+p.Datasource.UID)
		}
		for _, q := range p.Targets {
			for _, problem := range misfit(t, p, q, known) {
				problems = append(problems, p.Title+": "+problem+", in "+q.Expr)
			}
		}
	}
	return problems
}

func misfit(t *testing.T, p panel, q target, known []string) (problems []string) {
	t.Helper()
	for _, name := range variables(q.Expr) {
		if !slices.Contains(known, name) {
			problems = append(problems, "$"+name+" is no variable")
		}
	}
	labels := answered(t, q.Expr)
	for _, m := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(q.LegendFormat, -1) {
		if !slices.Contains(labels, m[1]) {
			problems = append(problems, "legend "+m[0]+": the answer has "+strings.Join(labels, ", "))
		}
	}
	unit := p.FieldConfig.Defaults.Unit
	for _, o := range p.FieldConfig.Overrides {
		unit, _ = o.Properties[0].Value.(string)
	}
	if want := unitOf(q.Expr); unit != want {
		problems = append(problems, fmt.Sprintf("unit %q, want %q", unit, want))
	} else if want == "dateTimeFromNow" && !strings.HasSuffix(q.Expr, " * 1000") {
		problems = append(problems, "a time in seconds, Grafana takes milliseconds")
	}
	return problems
}

// variables are those that an expression, or a query for values, names.
func variables(expr string) (out []string) {
	for _, m := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(expr, -1) {
		out = append(out, m[1])
	}
	return out
}

// answered are the labels of an answer: what it is summed up by, else those of
// the metrics in it.
func answered(t *testing.T, expr string) []string {
	t.Helper()
	if m := regexp.MustCompile(`\w+ by \(([^)]*)\)`).FindStringSubmatch(expr); m != nil {
		labels := strings.Split(m[1], ", ")
		if strings.HasPrefix(expr, "histogram_quantile(") {
			labels = slices.DeleteFunc(labels, func(l string) bool { return l == "le" })
		}
		return labels
	}
	table := labelsOf(t)
	names, _ := inspect(expr, table)
	var out []string
	for _, n := range names {
		out = append(out, table[n]...)
	}
	return out
}

// unitOf is the unit, of those that Grafana has, of what an expression answers.
func unitOf(expr string) string {
	only := func(name string) bool { return uses(expr, name) && !strings.Contains(expr, "offset") } // there it picks, and is not shown
	switch {
	case only(metrics.LastDeath):
		return "dateTimeFromNow"
	case uses(expr, metrics.MemoryLimitETA), uses(expr, metrics.Detection+"_bucket"):
		return "s"
	case uses(expr, metrics.MemoryWorkingSet) && strings.Contains(expr, " / "):
		return "percentunit"
	case strings.Contains(expr, "_bytes"):
		return "bytes"
	case uses(expr, metrics.SourceUp) && !strings.Contains(expr, "count("):
		return "bool"
	}
	return "short"
}

// TestVariables: each is of the labels of its metric, in an order in which the
// later ones narrow by the earlier.
func TestVariables(t *testing.T) {
	var got []string
	for _, v := range container().Templating.List[1:] {
		got = append(got, v.Name+": "+strings.Join(variables(v.Query), " "))
	}
	if diff := cmp.Diff([]string{"instance: ", "namespace: instance", "pod: instance namespace", "container: instance namespace pod"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
