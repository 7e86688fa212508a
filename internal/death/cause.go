// SPDX-License-Identifier: Apache-2.0

package death

// Cause is why something died. Its ids are a promise to the outside.
type Cause string

// The causes. Causes, below, says what each means.
const (
	OOMContainerLimit  Cause = "oom_container_limit"
	OOMPodLimit        Cause = "oom_pod_limit"
	OOMNodeAllocatable Cause = "oom_node_allocatable"
	OOMAncestorLimit   Cause = "oom_ancestor_limit"
	OOMNode            Cause = "oom_node"
	OOMCpuset          Cause = "oom_cpuset"
	HeapLimit          Cause = "heap_limit"
	OOMUserspace       Cause = "oom_userspace"
	EvictedMemory      Cause = "evicted_memory"
	EvictedStorage     Cause = "evicted_storage"
	EvictedPIDs        Cause = "evicted_pids"
	Preempted          Cause = "preempted"
	Drained            Cause = "drained"
	NodeShutdown       Cause = "node_shutdown"
	LivenessProbe      Cause = "liveness_probe"
	StartupProbe       Cause = "startup_probe"
	Stopped            Cause = "stopped"
	StopTimeout        Cause = "stop_timeout"
	Killed             Cause = "killed"
	Segfault           Cause = "segfault"
	Abort              Cause = "abort"
	BusError           Cause = "bus_error"
	IllegalInstruction Cause = "illegal_instruction"
	Arithmetic         Cause = "arithmetic"
	BadSystemCall      Cause = "bad_system_call"
	CPUTimeLimit       Cause = "cpu_time_limit"
	FileSizeLimit      Cause = "file_size_limit"
	StartFailed        Cause = "start_failed"
	Completed          Cause = "completed"
	Error              Cause = "error"
	Unknown            Cause = "unknown"
)

// CauseInfo describes one cause for people.
type CauseInfo struct {
	Cause   Cause
	Title   string // a few words, for a page's badge
	Meaning string // one sentence
	OOM     bool   // the kernel's OOM killer did it
}

// Causes lists the causes that this version can find, in the order in which a
// reader wants them. A new cause starts here.
func Causes() []CauseInfo {
	return []CauseInfo{
		{OOMContainerLimit, "container limit", "The container's own memory limit was reached (also when the kernel accounts it at a pod of one container).", true},
		{OOMPodLimit, "pod limit", "The pod's memory limit was reached, the container's own was not.", true},
		{OOMNodeAllocatable, "node allocatable", "The limit of all pods together (kubepods, or a QoS group below it) was reached.", true},
		{OOMAncestorLimit, "ancestor limit", "Another cgroup's limit was reached: a systemd slice or unit, a Docker cgroup parent, a nested node, or a group inside the container.", true},
		{OOMNode, "node out of memory", "The machine itself ran out of memory.", true},
		{OOMCpuset, "NUMA node out of memory", "The memory of the NUMA nodes that the task may use ran out (cpuset or memory policy).", true},
		{HeapLimit, "heap limit", "The language runtime was refused more memory and gave up; the kernel killed nothing.", false},
		{OOMUserspace, "killed by an OOM daemon", "systemd-oomd, oomd, earlyoom or nohang killed it, before the kernel had to.", false},
		{EvictedMemory, "evicted: memory", "The kubelet evicted its pod because the node was short of memory. That is no OOM kill.", false},
		{EvictedStorage, "evicted: storage", "The kubelet evicted its pod because the node was short of disk space or inodes, or the pod used more than it may.", false},
		{EvictedPIDs, "evicted: process ids", "The kubelet evicted its pod because the node was short of process ids.", false},
		{Preempted, "preempted", "Its pod had to make room for one of higher priority.", false},
		{Drained, "drained", "Its pod was evicted through the API (kubectl drain, an autoscaler), or made to go by a taint of the node.", false},
		{NodeShutdown, "node shutdown", "The node was shut down, and the kubelet ended its pods before that.", false},
		{LivenessProbe, "liveness probe", "Its liveness probe failed, and the kubelet stopped it to start it again.", false},
		{StartupProbe, "startup probe", "Its startup probe failed, and the kubelet stopped it to start it again.", false},
		{Stopped, "stopped", "It was asked to stop, and did in time.", false},
		{StopTimeout, "stop timeout", "It was asked to stop, did not, and was killed at the end of its grace period.", false},
		{Killed, "killed", "Somebody who is not the container's runtime sent a fatal signal; the killer is named where it was seen.", false},
		{Segfault, "segfault", "SIGSEGV by its own fault.", false},
		{Abort, "abort", "SIGABRT by its own doing.", false},
		{BusError, "bus error", "SIGBUS by its own fault: a mapped file cut short, or a full tmpfs such as /dev/shm.", false},
		{IllegalInstruction, "illegal instruction", "SIGILL by its own fault.", false},
		{Arithmetic, "arithmetic", "SIGFPE by its own fault.", false},
		{BadSystemCall, "bad system call", "SIGSYS: a system call that its seccomp profile forbids.", false},
		{CPUTimeLimit, "CPU time limit", "SIGXCPU: its limit of processor time was reached.", false},
		{FileSizeLimit, "file size limit", "SIGXFSZ: its limit of file size was reached.", false},
		{StartFailed, "start failed", "It never ran: the command, image, a mount or the runtime failed.", false},
		{Completed, "completed", "It left with exit code 0.", false},
		{Error, "error", "It left with another exit code, by its own will.", false},
		{Unknown, "unknown", "The evidence does not tell; it says what is missing.", false},
	}
}

// Info describes c; an id that this version does not know describes itself.
func (c Cause) Info() CauseInfo {
	for _, i := range Causes() {
		if i.Cause == c {
			return i
		}
	}
	return CauseInfo{Cause: c, Title: string(c), Meaning: "A cause that this version of coroner does not know."}
}

// OOM tells whether the kernel's OOM killer did it.
func (c Cause) OOM() bool { return c.Info().OOM }
