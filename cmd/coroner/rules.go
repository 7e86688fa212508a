// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/coroner-dev/coroner/internal/mixin"
)

func newRules() *cobra.Command {
	c := &cobra.Command{
		Use:   "rules",
		Short: "Print alerting rules for Prometheus",
		Long: `rules prints alerts on what coroner's metrics tell - OOM kills, evictions, crash
loops, limits that come near - and on agents that do not see all. Each names its
runbook. On Kubernetes the scrape must keep the agent's own labels (honorLabels).`,
		Example: `  coroner rules > /etc/prometheus/rules.d/coroner.yml
  coroner rules --format prometheusrule --label release=prometheus | kubectl apply -n monitoring -f -`,
		Args: exactly(0, "no arguments"),
	}
	var o mixin.Options
	var format string
	c.Flags().StringVar(&format, "format", formatFile, "rules (a rule file) or prometheusrule (a resource of the Prometheus operator)")
	c.Flags().StringVar(&o.Job, "job", mixin.DefaultJob, "the scrape job of the agents, or the name of their PodMonitor or ServiceMonitor")
	c.Flags().StringVar(&o.Runbooks, "runbooks", mixin.DefaultRunbooks, "where the runbooks are; each alert's is NAME.md there")
	c.Flags().StringToStringVar(&o.Labels, "label", nil, "a label of the PrometheusRule, by which the operator selects it (NAME=VALUE)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		form := mixin.Rules
		switch {
		case format == formatResource:
			form = mixin.PrometheusRule
		case format != formatFile:
			return usageError{fmt.Errorf("--format %q: must be %s or %s", format, formatFile, formatResource)}
		case len(o.Labels) > 0:
			return usageError{withHint(fmt.Errorf("--label is for --format %s", formatResource), "a rule file has no labels of its own")}
		}
		if !regexp.MustCompile(`^[\w./-]+$`).MatchString(o.Job) {
			return usageError{fmt.Errorf("--job %q: takes letters, digits and . _ - /", o.Job)}
		}
		text, err := form(o)
		if err != nil {
			return err
		}
		_, err = c.OutOrStdout().Write(text)
		return err
	}
	return c
}

const formatFile, formatResource = "rules", "prometheusrule"

func newDashboard() *cobra.Command {
	return &cobra.Command{
		Use:   "dashboard [overview|container]",
		Short: "Print a dashboard for Grafana",
		Long: `dashboard prints a dashboard as JSON, for Grafana's import or provisioning:
overview, which is the default (who died of what, who is at risk, what the agents
see), or container (one container's memory and deaths).`,
		Example:   `  coroner dashboard container > /var/lib/grafana/dashboards/coroner-container.json`,
		ValidArgs: mixin.Dashboards(),
		RunE: func(c *cobra.Command, args []string) error {
			name := mixin.Dashboards()[0]
			switch len(args) {
			case 0:
			case 1:
				name = args[0]
			default:
				return usageError{withHint(fmt.Errorf("%s takes one dashboard", c.CommandPath()), "%s --help", c.CommandPath())}
			}
			text, err := mixin.Dashboard(name)
			if err != nil {
				return usageError{err}
			}
			_, err = c.OutOrStdout().Write(text)
			return err
		},
	}
}
