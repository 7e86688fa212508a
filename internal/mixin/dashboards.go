// SPDX-License-Identifier: Apache-2.0

package mixin

import (
	"fmt"
	"strings"

	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

// Dashboards are the names that Dashboard knows, the first one first.
func Dashboards() []string { return []string{"overview", "container"} }

// Dashboard is a dashboard as JSON, as Grafana imports and provisions it.
func Dashboard(name string) ([]byte, error) {
	var d dashboard
	switch name {
	case "overview":
		d = overview()
	case "container":
		d = container()
	default:
		return nil, fmt.Errorf("no dashboard %q: %s", name, strings.Join(Dashboards(), ", "))
	}
	return d.json()
}

func empty(name, title, description string, variables ...variable) dashboard {
	return dashboard{
		UID: "coroner-" + name, Title: title, Description: description, Tags: []string{"coroner"},
		SchemaVersion: 39, Editable: true, Refresh: "1m", Time: span{"now-24h", "now"},
		Links: []link{{Title: "coroner", Type: "dashboards", Tags: []string{"coroner"}, KeepTime: true, IncludeVars: true}},
		Templating: templating{append([]variable{
			{Name: "datasource", Label: "data source", Type: "datasource", Query: "prometheus"},
		}, variables...)},
		Panels: []panel{},
	}
}

// What Grafana fills in: the time range and the width of a bar.
const (
	theRange, rangeSeconds = "$__range", "$__range_s"
	bar, barSeconds        = "$__interval", "($__interval_ms / 1000)"
)

func overview() dashboard {
	where := `{instance=~"$instance", namespace=~"$namespace"}`
	agent := `{instance=~"$instance"}`
	d := empty("overview", "coroner: who died", "Deaths by cause, who is near a memory limit, and whether the agents see all.",
		chosen("instance", metrics.BuildInfo), chosen("namespace", metrics.OOMKills+`{instance=~"$instance"}`))
	d.row(4,
		number("OOM kills", "short", 1, "sum("+shown(metrics.OOMKills, where, theRange, rangeSeconds)+") or vector(0)"),
		number("Ends of containers", "short", 0, "sum("+shown(metrics.Terminations, where, theRange, rangeSeconds)+") or vector(0)"),
		number("OOM kills not explained", "short", 1, "sum("+metrics.Unattributed+agent+")"),
		number("Sources down", "short", 1, "count("+metrics.SourceUp+agent+" == 0) or vector(0)"),
	)
	d.row(8,
		bars("Ends of containers by cause", query{"sum by (cause) (" + shown(metrics.Terminations, where, bar, barSeconds) + ") > 0", "{{cause}}"}),
		bars("OOM kills by cause", query{"sum by (cause) (" + shown(metrics.OOMKills, where, bar, barSeconds) + ") > 0", "{{cause}}"}),
	)
	d.row(9,
		table("OOM kills by workload", "short", "OOM kills",
			"topk(20, sum by (namespace, pod, container, cause) ("+shown(metrics.OOMKills, where, theRange, rangeSeconds)+") > 0)"),
		table("Latest deaths", "dateTimeFromNow", "died",
			"topk(20, max by (instance, namespace, pod, container, cause) ("+metrics.LastDeath+where+")) * 1000"),
	)
	d.row(9,
		listed("Reach their memory limit", "s", "in",
			"bottomk(20, "+metrics.MemoryLimitETA+where+")", false),
		table("Near their memory limit", "percentunit", "of the limit",
			"topk(20, "+metrics.MemoryWorkingSet+where+" / "+metrics.MemoryLimit+where+" > 0.8)"),
		table("Processes outside their container's limit", "short", "processes",
			"topk(20, "+metrics.EscapedProcesses+where+" > 0)"),
	)
	d.row(8,
		table("Sources", "bool", "up", metrics.SourceUp+agent),
		graph("Signals", "short", query{"sum by (source) (rate(" + metrics.SourceEvents + agent + "[$__rate_interval]))", "{{source}}"}),
		bars("Signals lost, and failures of sources",
			query{"sum by (source) (increase(" + metrics.SourceLost + agent + "[$__rate_interval])) > 0", "{{source}} lost"},
			query{"sum by (source) (increase(" + metrics.SourceErrors + agent + "[$__rate_interval])) > 0", "{{source}} failed"}),
	)
	d.row(8,
		graph("From a kill to its death being visible", "s",
			query{"histogram_quantile(0.5, sum by (le, source) (rate(" + metrics.Detection + "_bucket" + agent + "[$__range])))", "{{source}} half"},
			query{"histogram_quantile(0.99, sum by (le, source) (rate(" + metrics.Detection + "_bucket" + agent + "[$__range])))", "{{source}} 99 %"}),
		graph("OOM kills by the machine's own count", "short", query{metrics.NodeOOMKills + agent, "{{instance}}"}),
		graph("Deaths that wait for the history", "short",
			query{metrics.SinkQueue + agent, "{{instance}} {{sink}} wait"}, query{metrics.SinkDropped + agent, "{{instance}} {{sink}} dropped"}),
	)
	return d
}

func container() dashboard {
	one := `{instance=~"$instance", namespace=~"$namespace", pod=~"$pod", container=~"$container"}`
	d := empty("container", "coroner: one container", "What a container holds, when it reaches its limit, and how it died.",
		chosen("instance", metrics.BuildInfo),
		chosen("namespace", metrics.OOMKills+`{instance=~"$instance"}`),
		chosen("pod", metrics.OOMKills+`{instance=~"$instance", namespace=~"$namespace"}`),
		chosen("container", metrics.OOMKills+`{instance=~"$instance", namespace=~"$namespace", pod=~"$pod"}`))
	d.row(4,
		number("OOM kills", "short", 1, "sum("+shown(metrics.OOMKills, one, theRange, rangeSeconds)+") or vector(0)"),
		number("Ends", "short", 0, "sum("+shown(metrics.Terminations, one, theRange, rangeSeconds)+") or vector(0)"),
		number("Died last", "dateTimeFromNow", 0, "max("+metrics.LastDeath+one+") * 1000"),
		number("Reaches its limit in", "s", 0, "min("+metrics.MemoryLimitETA+one+")"),
		number("Processes outside its limit", "short", 1, "sum("+metrics.EscapedProcesses+one+")"),
		number("Of its limit", "percentunit", 0.9, "max("+metrics.MemoryWorkingSet+one+" / "+metrics.MemoryLimit+one+")"),
	)
	const name = "{{pod}} {{container}} "
	d.row(11, graph("Memory", "bytes",
		query{metrics.MemoryWorkingSet + one, name + "working set"},
		query{metrics.MemoryUsage + one, name + "usage"},
		query{metrics.MemoryPeak + one, name + "peak"},
		query{metrics.MemoryLimit + one, name + "limit"}))
	d.row(8,
		bars("OOM kills", query{"sum by (pod, container, cause) (" + shown(metrics.OOMKills, one, bar, barSeconds) + ") > 0", name + "{{cause}}"}),
		bars("Ends", query{"sum by (pod, container, cause) (" + shown(metrics.Terminations, one, bar, barSeconds) + ") > 0", name + "{{cause}}"}),
	)
	d.row(8,
		graph("Time until the limit, at the rate of then", "s", query{metrics.MemoryLimitETA + one, name}),
		table("Deaths", "dateTimeFromNow", "died", "topk(50, max by (instance, namespace, pod, container, cause) ("+metrics.LastDeath+one+")) * 1000"),
	)
	return d
}
