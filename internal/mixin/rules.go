// SPDX-License-Identifier: Apache-2.0

// Package mixin is what coroner brings along for those who watch it with
// Prometheus and Grafana: alerting rules and dashboards over the metrics of
// internal/sink/metrics. It makes text and does no I/O.
package mixin

import (
	"fmt"
	"maps"
	"regexp"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v2"
)

//go:generate go test -run ^TestGenerated_IsWhatTheCommandPrints$ -update .

// DefaultRunbooks is where the runbooks' pages are.
const DefaultRunbooks = "https://github.com/coroner-dev/coroner/blob/main/docs/runbooks"

// DefaultJob is the job that Prometheus scrapes the agents as.
const DefaultJob = "coroner"

// Options set up the rules; zero values take the defaults.
type Options struct {
	// Job is the scrape job of the agents. A PodMonitor or ServiceMonitor of
	// that name, in any namespace, is meant as well.
	Job string
	// Runbooks is the address below which each alert has its page, NAME.md.
	Runbooks string
	// Labels are those of the PrometheusRule, by which an operator selects it.
	Labels map[string]string
	// Hurry makes all times so many times shorter, for tests that cannot wait
	// an hour.
	Hurry int
}

func (o Options) pace(d time.Duration) time.Duration { return d / time.Duration(max(1, o.Hurry)) }

func (o Options) jobName() string {
	if o.Job == "" {
		return DefaultJob
	}
	return o.Job
}

// job selects the agents' targets.
func (o Options) job() string {
	return fmt.Sprintf(`job=~%q`, "(.+/)?"+regexp.QuoteMeta(o.jobName()))
}

// The forms that Prometheus and its operator read.
type (
	file struct {
		Groups []group `yaml:"groups"`
	}
	group struct {
		Name  string `yaml:"name"`
		Rules []rule `yaml:"rules"`
	}
	rule struct {
		Alert       string         `yaml:"alert"`
		Expr        string         `yaml:"expr"`
		For         model.Duration `yaml:"for,omitempty"`
		Labels      ruleLabels     `yaml:"labels"`
		Annotations annotations    `yaml:"annotations"`
	}
	ruleLabels struct {
		Severity severity `yaml:"severity"`
	}
	annotations struct {
		Summary     string `yaml:"summary"`
		Description string `yaml:"description"`
		RunbookURL  string `yaml:"runbook_url"`
	}
	resource struct {
		APIVersion string   `yaml:"apiVersion"`
		Kind       string   `yaml:"kind"`
		Metadata   metadata `yaml:"metadata"`
		Spec       file     `yaml:"spec"`
	}
	metadata struct {
		Name   string            `yaml:"name"`
		Labels map[string]string `yaml:"labels"`
	}
)

const heading = "# SPDX-License-Identifier: Apache-2.0\n# Made by \"coroner rules\" of coroner. Each alert has a page in docs/runbooks.\n"

// Rules is a rule file of Prometheus'.
func Rules(o Options) ([]byte, error) { return document(groups(o)) }

// PrometheusRule is the same as a resource of the Prometheus operator's.
func PrometheusRule(o Options) ([]byte, error) {
	labels := map[string]string{"app.kubernetes.io/name": "coroner", "app.kubernetes.io/component": "alerts"}
	maps.Copy(labels, o.Labels)
	return document(resource{"monitoring.coreos.com/v1", "PrometheusRule", metadata{"coroner", labels}, groups(o)})
}

func document(v any) ([]byte, error) {
	text, err := yaml.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("rules as YAML: %w", err)
	}
	return append([]byte(heading), text...), nil
}

func groups(o Options) file {
	return file{[]group{
		{"coroner-deaths", rulesOf(o, deathAlerts(o))},
		{"coroner-agent", rulesOf(o, agentAlerts(o))},
	}}
}

func rulesOf(o Options, alerts []alert) []rule {
	base := o.Runbooks
	if base == "" {
		base = DefaultRunbooks
	}
	var out []rule
	for _, a := range alerts {
		out = append(out, rule{
			Alert: a.name, Expr: a.expr, For: model.Duration(o.pace(a.hold)), Labels: ruleLabels{a.severity},
			Annotations: annotations{a.summary, a.description, base + "/" + a.name + ".md"},
		})
	}
	return out
}
