// SPDX-License-Identifier: Apache-2.0

// Package nodemap says where a node's memory is: what there is, what the
// kubelet sets aside, who holds how much, what no cgroup has, and who goes
// first when it ends. Read takes what the kernel tells (/proc/meminfo, the
// memory cgroups of v1 and v2, /proc/PID/status); Build makes the map of that,
// of what Kubernetes says of the node and its pods, and of earlier figures. Build does
// no I/O. Without Kubernetes it is the same map without its lines.
package nodemap

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
)

// Facts are what the kernel told at one time.
type Facts struct {
	Time    time.Time
	MemInfo host.MemInfo
	// PerCPUFreeBytes are free pages that MemFree does not count; 0: not told.
	PerCPUFreeBytes int64
	// Version is that of the cgroup hierarchy; 0: there is none with memory.
	Version int
	// Part: only a part of the hierarchy is seen, so that nobody can tell what
	// no cgroup has.
	Part bool
	// RootUsageBytes is what the kubelet takes for the node's usage, with page
	// cache; InactiveFileBytes what it subtracts. Nil: not told.
	RootUsageBytes, InactiveFileBytes *int64
	// Groups part the tree: none lies in another, and none in Kubepods.
	Groups []Group
	// Kubepods is the cgroup of all pods; nil: there is none.
	Kubepods *Group
	// Pods are those below Kubepods.
	Pods []Group
	// Unread are cgroups that are there and could not be read, or were too many.
	Unread int

	// Tasks are the processes with memory of their own; TasksWhy is why they
	// are not known.
	Tasks    []Task
	TasksWhy string
}

// Group is one cgroup with all below it.
type Group struct {
	Path string
	Is   cgpath.Path
	// Rest: it is what the cgroups below it, which are others of Facts.Groups, leave of it.
	Rest       bool
	UsageBytes int64
	// WorkingSetBytes is usage less inactive_file, as the kubelet has it.
	WorkingSetBytes int64
	// FileBytes is page cache without shared memory, HeldBytes anonymous and
	// shared memory.
	FileBytes, HeldBytes int64
	// SlabBytes are kernel objects that can be dropped; on v1 all kernel
	// memory, of which they are a part.
	SlabBytes int64
	// LimitBytes is nil where there is none.
	LimitBytes *int64
}

// Task is one process.
type Task struct {
	PID int
	host.TaskMemory
	Cgroup string
}

// Pod is what Kubernetes says of a pod of the node, as far as it is known.
type Pod struct {
	death.Pod
	Priority *int32
	// RequestBytes is what the scheduler takes for its request; nil: none, or
	// not known.
	RequestBytes *int64
	// Told: Kubernetes itself told of it, so that what is missing is none.
	Told       bool
	Containers []Container
}

// Container is one that lives, of a pod or not.
type Container struct {
	ID, Name, Cgroup         string
	RequestBytes, LimitBytes *int64
}

// NodeFacts are what Kubernetes says of the node. A nil figure is not known.
type NodeFacts struct {
	// CapacityBytes and AllocatableBytes are of the Node object's status.
	CapacityBytes, AllocatableBytes *int64
	// Kubelet is the kubelet's own configuration; nil: KubeletWhy says why it
	// is not known.
	Kubelet    *KubeletConfig
	KubeletWhy string
}

// Input is what a map is made of.
type Input struct {
	Node  string
	Facts Facts
	// Pods and Containers are those that engines and Kubernetes told of;
	// Containers those in no pod.
	Pods       []Pod
	Containers []Container
	// Kubernetes is nil where nobody told of the node.
	Kubernetes *NodeFacts
	// Before are the figures of an earlier time; zero: there are none.
	Before Sample
	// LeastHistory is how far back they must be to conclude from; 0: a minute.
	LeastHistory time.Duration
}
