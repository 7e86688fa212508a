// SPDX-License-Identifier: Apache-2.0

// Package death holds the nouns of coroner: what is said of one death, and in
// which words. It knows no kernel, no runtime and no network; everything else
// in the program either makes these values or tells them on.
//
// Sizes are bytes, durations seconds, times UTC. A value that is not known is
// absent: a nil pointer, an empty string, a zero pid; never a made-up zero.
// The JSON form of these types is the one that the HTTP API, the command line
// and the history file share.
package death

import "time"

// Death is one verdict with its evidence: the end of a container, an OOM kill
// that its container survived, or an OOM kill of a process outside any
// container. A Death is a value: it is given out whole, and again with the
// same ID and a higher Revision when later evidence says more.
type Death struct {
	// ID is unique and reproducible: the same signals give the same ID.
	ID string `json:"id"`
	// Revision is 1 at first and rises with each amendment.
	Revision int `json:"revision"`
	// Time is when it died, by the kernel's clock.
	Time time.Time `json:"time,omitzero"`
	// ObservedAt is when coroner first knew.
	ObservedAt time.Time `json:"observed_at,omitzero"`
	// Node is the host's name, or the Kubernetes node's.
	Node string `json:"node,omitempty"`
	// Subject is what died.
	Subject Subject `json:"subject"`
	// Cause is why.
	Cause Cause `json:"cause"`
	// Confidence is how far the evidence carries the cause.
	Confidence Confidence `json:"confidence"`
	// Summary is one plain sentence: who, where, which limit, which numbers.
	Summary string `json:"summary"`
	// Rule is the id of the verdict rule that spoke (docs/causes.md).
	Rule string `json:"rule,omitempty"`

	Container *Container `json:"container,omitempty"`
	// Unit is the systemd unit of a process outside containers.
	Unit      string     `json:"unit,omitempty"`
	Processes []Process  `json:"processes,omitempty"`
	OOM       *OOM       `json:"oom,omitempty"`
	Exit      *Exit      `json:"exit,omitempty"`
	Killer    *Killer    `json:"killer,omitempty"`
	Memory    *Memory    `json:"memory,omitempty"`
	Evidence  []Evidence `json:"evidence,omitempty"`
	// Advice is what to do, most useful first.
	Advice []string `json:"advice,omitempty"`
	Repeat *Repeat  `json:"repeat,omitempty"`
	// Recovered is true when it happened while coroner was not running.
	Recovered bool `json:"recovered,omitempty"`
}

// Subject is what died.
type Subject string

// The subjects of a death.
const (
	SubjectContainer Subject = "container" // a container ended
	SubjectProcess   Subject = "process"   // a process was killed; its container lives, or it had none
	SubjectPod       Subject = "pod"       // a pod was evicted before a container ran
)

// Confidence is how far the evidence carries a cause.
type Confidence string

// The confidences, from the weakest.
const (
	Possible Confidence = "possible" // fits what is known; something that would decide it is missing
	Probable Confidence = "probable" // inferred from figures or from a second-hand source
	Certain  Confidence = "certain"  // the kernel itself said so
)

// Source names where a signal or a piece of evidence comes from.
type Source string

// The sources of evidence.
const (
	SourceKmsg       Source = "kmsg"
	SourceCgroup     Source = "cgroup"
	SourceTracepoint Source = "tracepoint"
	SourceDocker     Source = "docker"
	SourceContainerd Source = "containerd"
	SourceCRI        Source = "cri"
	SourceKube       Source = "kube"
	SourceJournal    Source = "journal"
)

// Container names the container that a death belongs to.
type Container struct {
	ID      string `json:"id,omitempty"`
	Name    string `json:"name,omitempty"`
	Runtime string `json:"runtime,omitempty"` // containerd, docker, cri-o, podman
	// Kind is what a pod's container is if it is none of those that make the
	// pod what it is.
	Kind  Kind   `json:"kind,omitempty"`
	Image string `json:"image,omitempty"`
	// ImageID is the image's own id, as the runtime has it: sha256:...
	ImageID string `json:"image_id,omitempty"`
	// Namespace is containerd's, of a container that it alone names: another
	// one may have the same id there.
	Namespace string `json:"namespace,omitempty"`
	// Cgroup is the container's own cgroup, as a path below the root of the
	// memory hierarchy (v1) or of the unified one (v2).
	Cgroup       string            `json:"cgroup,omitempty"`
	RestartCount *int              `json:"restart_count,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	Pod          *Pod              `json:"pod,omitempty"`
	// Workload is what it belongs to outside Kubernetes.
	Workload *Workload `json:"workload,omitempty"`
}

// Kind is what a container is to its pod.
type Kind string

// The kinds of a pod's containers that are not among its spec.containers.
const (
	KindInit      Kind = "init"      // one after the other, before the pod's own
	KindSidecar   Kind = "sidecar"   // one of those that goes on beside them
	KindEphemeral Kind = "ephemeral" // put into the running pod (kubectl debug)
)

// Pod names the Kubernetes (or podman) pod around a container.
type Pod struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	UID       string `json:"uid,omitempty"`
	QoSClass  string `json:"qos_class,omitempty"` // Guaranteed, Burstable, BestEffort
	Owner     *Owner `json:"owner,omitempty"`
}

// Owner is the workload that a pod belongs to.
type Owner struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Inferred is true where the name of what it owns says so, and its own word
	// was not asked or not to be had.
	Inferred bool `json:"inferred,omitempty"`
}

// Process is one process that the death took.
type Process struct {
	// PID is the thread group id in the initial pid namespace.
	PID  int    `json:"pid,omitempty"`
	Comm string `json:"comm,omitempty"`
	// UID is the user id on the host, also under user namespaces.
	UID           *int64 `json:"uid,omitempty"`
	TotalVMBytes  *int64 `json:"total_vm_bytes,omitempty"`
	AnonRSSBytes  *int64 `json:"anon_rss_bytes,omitempty"`
	FileRSSBytes  *int64 `json:"file_rss_bytes,omitempty"`
	ShmemRSSBytes *int64 `json:"shmem_rss_bytes,omitempty"`
	PgtablesBytes *int64 `json:"pgtables_bytes,omitempty"`
	OOMScoreAdj   *int   `json:"oom_score_adj,omitempty"`
	// Init tells whether it was the container's first process; nil: not known.
	Init *bool `json:"init,omitempty"`
	// Fate is how it came to die with the others.
	Fate Fate `json:"fate,omitempty"`
	// Cgroup is where it lived, where that is not the container's own cgroup.
	Cgroup string `json:"cgroup,omitempty"`
}

// Fate is how a process came to be among the dead.
type Fate string

// The fates of a process.
const (
	FateVictim     Fate = "victim"     // chosen by the OOM killer
	FateGroup      Fate = "group"      // killed with the victim because of memory.oom.group
	FateSharer     Fate = "sharer"     // killed unseen, because it shared the victim's memory (vfork, CLONE_VM)
	FateCollateral Fate = "collateral" // killed with its pid namespace, whose first process had died
	FateSignalled  Fate = "signalled"  // killed by a signal that somebody sent
)

// ByOOMKiller tells whether the kernel counts this process as an OOM kill.
func (f Fate) ByOOMKiller() bool { return f == FateVictim || f == FateGroup }

// OOM is what is known of the kernel's out-of-memory kill. Constraint,
// OOMMemcg and TaskMemcg are the kernel's own tokens (mm/oom_kill.c,
// dump_oom_summary, since 5.0).
type OOM struct {
	Constraint string `json:"constraint,omitempty"` // CONSTRAINT_MEMCG, ...
	// OOMMemcg is the cgroup whose limit was reached; absent for a
	// machine-wide lack of memory.
	OOMMemcg string `json:"oom_memcg,omitempty"`
	// TaskMemcg is the cgroup in which the victim lived.
	TaskMemcg string   `json:"task_memcg,omitempty"`
	Trigger   *Trigger `json:"trigger,omitempty"`
	// GroupKill is true when memory.oom.group took more than the victim.
	GroupKill  bool   `json:"group_kill,omitempty"`
	UsageBytes *int64 `json:"usage_bytes,omitempty"`
	LimitBytes *int64 `json:"limit_bytes,omitempty"`
	// SwapUsageBytes and SwapLimitBytes are of swap alone (cgroup v2),
	// MemswUsageBytes and MemswLimitBytes of memory and swap together (v1).
	SwapUsageBytes  *int64           `json:"swap_usage_bytes,omitempty"`
	SwapLimitBytes  *int64           `json:"swap_limit_bytes,omitempty"`
	MemswUsageBytes *int64           `json:"memsw_usage_bytes,omitempty"`
	MemswLimitBytes *int64           `json:"memsw_limit_bytes,omitempty"`
	MemoryStat      map[string]int64 `json:"memory_stat,omitempty"`
	Tasks           []Task           `json:"tasks,omitempty"`
	// Order and GFPMask are of the allocation that failed. Order -1 is a kill
	// asked for by hand (sysrq f).
	Order   *int   `json:"order,omitempty"`
	GFPMask string `json:"gfp_mask,omitempty"`
	// Events counts the invocations of the OOM killer, Containers the
	// containers that the same invocation took; the processes are counted by
	// the death's Processes. The three are not the same number.
	Events     int `json:"events,omitempty"`
	Containers int `json:"containers,omitempty"`
}

// Trigger is the task that asked for memory when there was none.
type Trigger struct {
	PID    int    `json:"pid,omitempty"` // a thread's id, as the kernel prints it
	Comm   string `json:"comm,omitempty"`
	Cgroup string `json:"cgroup,omitempty"`
}

// Task is one row of the kernel's task table. Sizes are in pages of the
// machine's page size, as the kernel prints them, but for PgtablesBytes.
type Task struct {
	PID           int    `json:"pid"`
	UID           int64  `json:"uid"`
	TGID          int    `json:"tgid"`
	TotalVMPages  int64  `json:"total_vm_pages"`
	RSSPages      int64  `json:"rss_pages"`
	RSSAnonPages  *int64 `json:"rss_anon_pages,omitempty"`
	RSSFilePages  *int64 `json:"rss_file_pages,omitempty"`
	RSSShmemPages *int64 `json:"rss_shmem_pages,omitempty"`
	PgtablesBytes *int64 `json:"pgtables_bytes,omitempty"`
	SwapentsPages *int64 `json:"swapents_pages,omitempty"`
	OOMScoreAdj   *int   `json:"oom_score_adj,omitempty"`
	Name          string `json:"name"`
}

// Exit is how a container's first process ended.
type Exit struct {
	Code   *int `json:"code,omitempty"`
	Signal *int `json:"signal,omitempty"`
	// ReportedReason is what the runtime or the API said.
	ReportedReason string `json:"reported_reason,omitempty"`
	// Agrees tells whether that fits the cause; nil: nothing was reported.
	Agrees *bool `json:"agrees,omitempty"`
}

// Killer is who sent a fatal signal.
type Killer struct {
	PID       int        `json:"pid,omitempty"`
	Comm      string     `json:"comm,omitempty"`
	UID       *int64     `json:"uid,omitempty"`
	Cgroup    string     `json:"cgroup,omitempty"`
	Signal    int        `json:"signal,omitempty"`
	Container *Container `json:"container,omitempty"`
	Unit      string     `json:"unit,omitempty"`
}

// Memory is the container's memory up to its death.
type Memory struct {
	LimitBytes   *int64 `json:"limit_bytes,omitempty"`
	RequestBytes *int64 `json:"request_bytes,omitempty"`
	PeakBytes    *int64 `json:"peak_bytes,omitempty"`
	Pattern      string `json:"pattern,omitempty"` // leak, spike, steady
	// Samples are [unix seconds, working set, usage].
	Samples [][3]float64 `json:"samples,omitempty"`
}

// Evidence is one thing that the verdict rests on.
type Evidence struct {
	Time   time.Time `json:"time,omitzero"`
	Source Source    `json:"source"`
	Text   string    `json:"text"`
}

// Repeat places a death in a series of the same owner and cause.
type Repeat struct {
	Count int       `json:"count"`
	First time.Time `json:"first,omitzero"`
	Last  time.Time `json:"last,omitzero"`
	// PerHour is nil where they are too close together for a rate.
	PerHour *float64 `json:"per_hour,omitempty"`
}

// OOMKills counts the processes of the death that the kernel's OOM killer took.
func (d *Death) OOMKills() int {
	n := 0
	for i := range d.Processes {
		if d.Processes[i].Fate.ByOOMKiller() {
			n++
		}
	}
	return n
}
