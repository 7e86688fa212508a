// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/prometheus/client_golang/prometheus"

// Metric is one row of the table from which the descriptors and
// docs/metrics.md are made.
type Metric struct {
	Name string
	// Type is counter, gauge or histogram.
	Type      string
	Labels    []string
	Help      string
	Stability Stability
}

// Stability says how far a metric's name and labels are a promise.
type Stability string

// The degrees of stability.
const (
	Stable       Stability = "stable"       // changes only with a line in CHANGELOG.md
	Experimental Stability = "experimental" // may change in any release
)

// The names of the metrics, as Table lists them.
const (
	oomKills       = "coroner_oom_kills_total"
	terminations   = "coroner_container_terminations_total"
	lastDeath      = "coroner_last_death_timestamp_seconds"
	nodeKills      = "coroner_node_oom_kills_total"
	unattributed   = "coroner_unattributed_oom_kills_total"
	detection      = "coroner_detection_seconds"
	sourceUp       = "coroner_source_up"
	sourceEvents   = "coroner_source_events_total"
	sourceLost     = "coroner_source_lost_total"
	sourceLostOOM  = "coroner_source_lost_oom_evidence_total"
	sourceRejected = "coroner_source_rejected_total"
	sourceErrors   = "coroner_source_errors_total"
	sinkUp         = "coroner_sink_up"
	sinkQueue      = "coroner_sink_queue_length"
	sinkDropped    = "coroner_sink_dropped_total"
	sinkErrors     = "coroner_sink_errors_total"
	foldedDeaths   = "coroner_folded_deaths_total"
	rosterDropped  = "coroner_roster_dropped_total"
	buildInfo      = "coroner_build_info"

	memoryWorkingSet = "coroner_container_memory_working_set_bytes"
	memoryUsage      = "coroner_container_memory_usage_bytes"
	memoryLimit      = "coroner_container_memory_limit_bytes"
	memoryPeak       = "coroner_container_memory_peak_bytes"
	memoryETA        = "coroner_container_memory_limit_eta_seconds"
	escapedProcesses = "coroner_escaped_processes"
	nodeMemory       = "coroner_node_memory_bytes"

	// Those of missing-container-metrics, by its names.
	containerRestarts = "container_restarts"
	containerOOMs     = "container_ooms"
	containerLastExit = "container_last_exit_code"

	typeCounter   = "counter"
	typeGauge     = "gauge"
	typeHistogram = "histogram"
)

// Table lists every metric that coroner itself defines, in the order in which
// the documentation shows them. A new metric starts here.
func Table() []Metric {
	owner := []string{"namespace", "pod", "container", "cause"}
	named := []string{"namespace", "pod", "container"}
	source, sink := []string{"source"}, []string{"sink"}
	container := []string{"container_id", "container_short_id", "docker_container_id", "name", "image_id", "pod", "namespace"}
	return []Metric{
		{oomKills, typeCounter, owner, "Processes that the kernel's OOM killer took. 0 for every container that is known and lives.", Stable},
		{terminations, typeCounter, owner, "Ends of containers. A series begins with the first death of its cause, at 0 where the container survived that.", Stable},
		{containerRestarts, typeCounter, container, "Starts of the container after its first; of a pod's container, over all its ids.", Stable},
		{containerOOMs, typeCounter, container, "Processes of the container that the kernel's OOM killer took.", Stable},
		{containerLastExit, typeGauge, container, "Exit code of the container's last end; 0 until there was one.", Stable},
		{memoryWorkingSet, typeGauge, named, "Memory that the container uses without what could be dropped at once, as the kubelet computes it.", Stable},
		{memoryUsage, typeGauge, named, "Memory that the container uses, page cache and all.", Stable},
		{memoryLimit, typeGauge, named, "The container's own memory limit; absent where it has none.", Stable},
		{memoryPeak, typeGauge, named, "The most memory that the container used so far.", Stable},
		{memoryETA, typeGauge, named, "At the present rate, the time until the container reaches its limit; absent where it does not grow.", Stable},
		{escapedProcesses, typeGauge, named, "Processes of the container that live outside its cgroup, so that its limits do not hold for them; looked for each minute, and some seconds after a container began.", Stable},
		{nodeMemory, typeGauge, []string{"kind"}, "The node's memory map: capacity, free, available, reclaimable (page cache), unaccounted (what no cgroup has: the kernel), units_working_set, containers_working_set, pods_working_set and its parts by QoS class; on a Kubernetes node also pods_limit, allocatable, reserved, eviction_hard, kubelet_working_set and more. coroner node shows and explains them.", Stable},
		{lastDeath, typeGauge, owner, "When the latest death happened, by the kernel's clock.", Stable},
		{nodeKills, typeCounter, nil, "OOM kills that the kernel itself counted (/proc/vmstat) since the agent first ran.", Stable},
		{unattributed, typeCounter, nil, "OOM kills that the kernel counted and for which no death could be written. It must stay 0.", Stable},
		{detection, typeHistogram, source, "From the kernel's own time of a kill to the death being visible, by the source that told it first.", Stable},
		{sourceUp, typeGauge, source, "Whether the source watches (1) or not (0).", Stable},
		{sourceEvents, typeCounter, source, "Signals that the source gave.", Stable},
		{sourceLost, typeCounter, source, "Signals that the source knows it lost.", Stable},
		{sourceLostOOM, typeCounter, source, "Of the signals that the source lost, those that may have told of an OOM kill.", Stable},
		{sourceRejected, typeCounter, source, "Records that others than the kernel wrote to its log. They are not believed, whatever they say.", Experimental},
		{sourceErrors, typeCounter, source, "Failures of the source: records that it could not read, and its own ends.", Stable},
		{sinkUp, typeGauge, sink, "Whether the sink takes deaths (1) or not (0). For the history: whether they are kept in its file; for kubeevents: whether the API took the last event.", Stable},
		{sinkQueue, typeGauge, sink, "Deaths that wait for the sink.", Stable},
		{sinkDropped, typeCounter, sink, "Deaths, and amendments of deaths, that the sink did not tell: there was no room while it took none, or, of kubeevents, the API refused the event or the limit of its rate held it back.", Stable},
		{sinkErrors, typeCounter, sink, "Times that the sink refused.", Stable},
		{foldedDeaths, typeCounter, nil, "Deaths counted under container=\"" + foldedContainer + "\" because there were too many series.", Experimental},
		{rosterDropped, typeCounter, []string{"reason"}, "What engines told of containers and nobody keeps: full, there is no room for more containers, whose deaths go without names; user, an engine that a user runs spoke of others' containers.", Experimental},
		{buildInfo, typeGauge, []string{"version", "revision", "goversion"}, "Always 1; the labels say what runs.", Stable},
	}
}

// detectionBuckets span half a millisecond, which the tracepoints can reach,
// to half a minute, when something is badly wrong.
func detectionBuckets() []float64 {
	return []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30}
}

// descs makes the descriptors of the table's rows, by name.
func descs() map[string]*prometheus.Desc {
	m := make(map[string]*prometheus.Desc)
	for _, r := range Table() {
		m[r.Name] = prometheus.NewDesc(r.Name, r.Help, r.Labels, nil)
	}
	return m
}

// row finds the row of a name that this package defines.
func row(name string) Metric {
	for _, r := range Table() {
		if r.Name == name {
			return r
		}
	}
	return Metric{}
}
