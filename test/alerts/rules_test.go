// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package alerts tests the rules and dashboards in Prometheus itself: in its
// own unit tests, and with a real Prometheus and Alertmanager that watch a
// running agent while processes are really OOM-killed.
package alerts

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/mixin"
	"github.com/coroner-dev/coroner/internal/oomtest"
)

func TestMain(m *testing.M) { oomtest.Main(m) }

// need finds a program of Debian's, or leaves the test out.
func need(t *testing.T, program, debian string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("CORONER_CI") == "1" {
		t.Fatalf("no %s (hint: apt-get install --no-install-recommends %s)", program, debian)
	}
	t.Skipf("no %s (hint: apt-get install --no-install-recommends %s)", program, debian)
	return ""
}

// TestRules_InPrometheusOwnTests plays testdata against the rules that are
// checked in: when each alert fires, with which words, and when it goes.
func TestRules_InPrometheusOwnTests(t *testing.T) {
	promtool := need(t, "promtool", "prometheus")
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests: %v", err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, append([]string{"test", "rules"}, files...)...).CombinedOutput(); err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
	var tests strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		tests.Write(text)
	}
	pages, err := filepath.Glob("../../docs/runbooks/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no runbooks: %v", err)
	}
	for _, p := range pages {
		name := strings.TrimSuffix(filepath.Base(p), ".md")
		for _, part := range []string{"/" + name + ".md", "alertname: " + name + ", eval_time", "alertname: " + name + "\n"} {
			// It fires, and it does not. CoronerOOMKill's silence is read off ALERTS.
			if !strings.Contains(tests.String(), part) && (name != "CoronerOOMKill" || !strings.HasSuffix(part, "eval_time")) {
				t.Errorf("no test of %s has %q", name, part)
			}
		}
	}
}

// panel is an expression of a dashboard, as Grafana sends it.
type panel struct{ where, expr string }

func panels(t *testing.T) []panel {
	t.Helper()
	filled := strings.NewReplacer("$__rate_interval", "4m", "$__interval_ms", "60000", "$__interval", "1m", "$__range_s", "3600", "$__range", "1h",
		"$instance", ".*", "$namespace", ".*", "$pod", ".*", "$container", ".*")
	var out []panel
	for _, name := range mixin.Dashboards() {
		text, err := mixin.Dashboard(name)
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				expr := filled.Replace(q.Expr)
				if strings.Contains(expr, "$") {
					t.Errorf("%s: Grafana fills in what this test does not: %s", name, expr)
				}
				out = append(out, panel{name + ": " + p.Title, expr})
			}
		}
	}
	return out
}

// TestDashboards_AskWhatPrometheusUnderstands: each expression of a panel
// parses. TestAlerts has them answered.
func TestDashboards_AskWhatPrometheusUnderstands(t *testing.T) {
	promtool := need(t, "promtool", "prometheus")
	var b strings.Builder
	b.WriteString("groups:\n- name: panels\n  rules:\n")
	all := panels(t)
	for n, p := range all {
		fmt.Fprintf(&b, "  - {record: 'panel:%d', expr: '%s'}\n", n, p.expr)
	}
	file := filepath.Join(t.TempDir(), "panels.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", file).CombinedOutput(); err != nil || len(all) < 20 {
		t.Errorf("promtool check rules, %d expressions: %v\n%s\n%s", len(all), err, out, b.String())
	}
}
