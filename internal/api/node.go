// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// PathNode gives the node's memory map.
const PathNode = "/api/v1/node"

// NodeMap is a node's memory: what there is, who may have how much of it, who
// has it, and who goes first when it ends.
type NodeMap struct {
	Node string    `json:"node"`
	Time time.Time `json:"time"`
	// GrowthSeconds is the time over which all growth here was seen; absent:
	// it was not watched yet.
	GrowthSeconds float64 `json:"growth_seconds,omitempty"`
	// Memory has the figures by their kind (NodeKinds).
	Memory map[string]NodeFigure `json:"memory"`
	// Thresholds are the kubelet's for memory.available.
	Thresholds []EvictionThreshold `json:"eviction_thresholds,omitempty"`
	// Groups are the cgroups outside of pods that hold most, the largest first.
	Groups []NodeGroup `json:"groups"`
	// Pods are in the order in which the kubelet would evict them, where that is
	// known, else the largest first.
	Pods []NodePod `json:"pods,omitempty"`
	// OOMOrder is whom the kernel would kill first if the machine ran out of
	// memory, PodsOOMOrder if the limit of all pods together were reached.
	OOMOrder     []OOMCandidate `json:"oom_order,omitempty"`
	PodsOOMOrder []OOMCandidate `json:"pods_oom_order,omitempty"`
	Overcommit   *Overcommit    `json:"overcommit,omitempty"`
	// Gives are the lines that can be reached, the nearest first.
	Gives []NodeGives `json:"gives,omitempty"`
	// Tools say what other programs show for the same memory.
	Tools  []ToolFigure `json:"tools"`
	Advice []string     `json:"advice,omitempty"`
	// Notes say what is not known, and why.
	Notes []string `json:"notes,omitempty"`
}

// Nodes are the maps of several nodes; the command line makes them one document.
type Nodes struct {
	Nodes []NodeMap   `json:"nodes"`
	By    *AnsweredBy `json:"by,omitempty"`
}

// NodeFigure is one figure of the map.
type NodeFigure struct {
	Bytes int64 `json:"bytes"`
	// GrowthBytes is what was added in GrowthSeconds.
	GrowthBytes *int64 `json:"growth_bytes,omitempty"`
	// Computed: it is a setting of Kubernetes, which did not tell it; it follows
	// from other figures, as From says.
	Computed bool   `json:"computed,omitempty"`
	From     string `json:"from"`
}

// EvictionThreshold is where the kubelet begins to evict.
type EvictionThreshold struct {
	// Kind is hard or soft.
	Kind string `json:"kind"`
	// Setting is what was configured: "100Mi" or "5%"; absent where it was not read.
	Setting      string  `json:"setting,omitempty"`
	Bytes        int64   `json:"bytes"`
	GraceSeconds float64 `json:"grace_seconds,omitempty"`
	Computed     bool    `json:"computed,omitempty"`
}

// NodeGroup is a cgroup outside of pods.
type NodeGroup struct {
	// Kind is container, unit, guest, slice (what is left in one beside its
	// units), root (processes in no cgroup) or cgroup.
	Kind string `json:"kind"`
	// Name is the container's or the unit's.
	Name            string `json:"name"`
	Cgroup          string `json:"cgroup"`
	WorkingSetBytes int64  `json:"working_set_bytes"`
	UsageBytes      int64  `json:"usage_bytes"`
	LimitBytes      *int64 `json:"limit_bytes,omitempty"`
	GrowthBytes     *int64 `json:"growth_bytes,omitempty"`
}

// NodePod is a pod that has a cgroup on the node.
type NodePod struct {
	death.Pod
	Cgroup          string `json:"cgroup"`
	WorkingSetBytes int64  `json:"working_set_bytes"`
	GrowthBytes     *int64 `json:"growth_bytes,omitempty"`
	// RequestBytes and LimitBytes are the sums over its containers that live;
	// the limit is absent where one of them has none.
	RequestBytes *int64 `json:"request_bytes,omitempty"`
	LimitBytes   *int64 `json:"limit_bytes,omitempty"`
	// OverRequestBytes is the working set less the request.
	OverRequestBytes *int64 `json:"over_request_bytes,omitempty"`
	Priority         *int32 `json:"priority,omitempty"`
	// Critical: the kubelet does not evict it.
	Critical bool `json:"critical,omitempty"`
	// EvictionRank is 1 for the pod that is evicted first; absent: it is not
	// evicted, or the order is not known.
	EvictionRank int `json:"eviction_rank,omitempty"`
}

// OOMCandidate is a process as the kernel's OOM killer weighs it.
type OOMCandidate struct {
	PID  int    `json:"pid"`
	Comm string `json:"comm"`
	// PointsBytes is its badness: memory, and what oom_score_adj adds or takes.
	PointsBytes int64 `json:"points_bytes"`
	// OOMScore is the same as /proc/PID/oom_score shows it.
	OOMScore        int    `json:"oom_score"`
	OOMScoreAdj     int    `json:"oom_score_adj"`
	RSSBytes        int64  `json:"rss_bytes"`
	SwapBytes       int64  `json:"swap_bytes"`
	PageTablesBytes int64  `json:"pgtables_bytes"`
	Cgroup          string `json:"cgroup,omitempty"`
	// Container and Pod are whose it is, Unit where it is nobody's.
	Container string     `json:"container,omitempty"`
	Pod       *death.Pod `json:"pod,omitempty"`
	Unit      string     `json:"unit,omitempty"`
}

// Overcommit is what was promised beyond what there is.
type Overcommit struct {
	// LimitsBytes is the sum of all limits, Unlimited how many containers have
	// none, RequestsBytes the sum of all requests.
	LimitsBytes   int64 `json:"limits_bytes"`
	RequestsBytes int64 `json:"requests_bytes"`
	Containers    int   `json:"containers"`
	Unlimited     int   `json:"unlimited"`
	// Ratio is limits over allocatable; absent where allocatable is not known.
	Ratio float64 `json:"ratio,omitempty"`
	// Summary says what would give if all took what they may.
	Summary string `json:"summary"`
}

// NodeGives is a line that use can reach, and what then happens.
type NodeGives struct {
	// What is eviction_soft, eviction_hard, eviction_allocatable (of all pods
	// together), pods_limit or node.
	What string `json:"what"`
	// LeftBytes is how far it is.
	LeftBytes int64 `json:"left_bytes"`
	// ETASeconds is when, at the rate of the growth; absent where none is.
	ETASeconds *float64 `json:"eta_seconds,omitempty"`
	Then       string   `json:"then"`
}

// ToolFigure is what a program shows.
type ToolFigure struct {
	Tool  string `json:"tool"`
	Bytes int64  `json:"bytes"`
	// Percent is what it shows beside, of what Of says.
	Percent *float64 `json:"percent,omitempty"`
	Of      string   `json:"of,omitempty"`
	Why     string   `json:"why"`
}

// NodeKind is a kind of figure in a NodeMap.
type NodeKind struct {
	ID, Title, Meaning string
}

// NodeKinds lists the kinds in the order in which they are shown.
func NodeKinds() []NodeKind {
	return []NodeKind{
		{"capacity", "capacity", "all memory that the kernel manages"},
		{"kube_reserved", "kube-reserved", "set aside for the kubelet and the runtime"},
		{"system_reserved", "system-reserved", "set aside for the system's own daemons"},
		{"reserved", "reserved", "set aside from pods: kube-reserved and system-reserved together"},
		{"eviction_soft", "evicts, soft", "the kubelet evicts when less is available for the grace period"},
		{"eviction_hard", "evicts, hard", "the kubelet evicts at once when less is available"},
		{"allocatable", "allocatable", "what the scheduler may promise to pods"},
		{"pods_limit", "limit of all pods", "the kernel kills in a pod when all together reach it"},
		{"pods_working_set", "pods", "what all pods hold and cannot be dropped at once"},
		{"pods_guaranteed_working_set", "- Guaranteed", "of these, pods of QoS class Guaranteed"},
		{"pods_burstable_working_set", "- Burstable", "of these, pods of QoS class Burstable"},
		{"pods_besteffort_working_set", "- BestEffort", "of these, pods of QoS class BestEffort"},
		{"containers_working_set", "containers", "what containers outside of pods hold"},
		{"units_working_set", "units outside", "what units, daemons and sessions hold, and processes in no cgroup"},
		{"hugepages", "huge pages", "set aside as huge pages, used or not"},
		{"unaccounted", "unaccounted", "what no cgroup has: the kernel and its drivers"},
		{"reclaimable", "page cache", "file pages not used lately and kernel caches, which the kernel drops when it needs room"},
		{"free", "free", "used by nobody"},
		{"available", "available", "what could be had without swapping, as the kernel estimates it"},
		{"kubelet_working_set", "kubelet's use", "what the kubelet takes for used"},
		{"kubelet_available", "kubelet's available", "what the kubelet compares with its thresholds"},
		{"swap_capacity", "swap", "all swap"},
		{"swap_free", "swap, free", "swap that nobody uses"},
		{"kernel_slab", "kernel: slab", "kernel objects that cannot be dropped, those of cgroups too"},
		{"kernel_page_tables", "kernel: page tables", "page tables of all processes"},
		{"kernel_stacks", "kernel: stacks", "stacks of all threads"},
		{"kernel_percpu", "kernel: per CPU", "memory that the kernel has once for each CPU"},
		{"kernel_vmalloc", "kernel: vmalloc", "memory that the kernel and its modules mapped for themselves"},
	}
}

// Node returns the memory map of the agent's node.
func (c *Client) Node(ctx context.Context) (NodeMap, error) {
	var m NodeMap
	err := c.get(ctx, PathNode, nil, &m)
	return m, err
}
