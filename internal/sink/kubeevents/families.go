// SPDX-License-Identifier: Apache-2.0

package kubeevents

import (
	"slices"

	"github.com/coroner-dev/coroner/internal/death"
)

// The reasons of events: one for each family of causes.
const (
	// ReasonOOMKilled is for what an OOM killer took, the kernel's or a
	// daemon's; also where the container lives on.
	ReasonOOMKilled = "OOMKilled"
	// ReasonContainerDied is for each other end that nobody asked for.
	ReasonContainerDied = "ContainerDied"
	// ReasonNodeOOM is on the node, when the machine itself ran out of memory.
	ReasonNodeOOM = "NodeOOM"
)

// Family is the causes that have one reason.
type Family struct {
	// Reason is the event's; empty: such a death has no event.
	Reason string
	Causes []death.Cause
	// Why says what they have in common.
	Why string
}

// Families tells which causes have an event on the pod. Each cause is in one
// of them.
func Families() []Family {
	return []Family{
		{ReasonOOMKilled, []death.Cause{
			death.OOMContainerLimit, death.OOMPodLimit, death.OOMNodeAllocatable, death.OOMAncestorLimit, death.OOMNode, death.OOMCpuset, death.OOMUserspace,
		}, "an OOM killer took a process"},
		{ReasonContainerDied, []death.Cause{
			death.HeapLimit, death.EvictedMemory, death.EvictedStorage, death.EvictedPIDs, death.LivenessProbe, death.StartupProbe,
			death.Killed, death.Segfault, death.Abort, death.BusError, death.IllegalInstruction, death.Arithmetic, death.BadSystemCall,
			death.CPUTimeLimit, death.FileSizeLimit, death.StartFailed, death.Error, death.Unknown,
		}, "it ended, and nobody had asked for that"},
		{"", []death.Cause{
			death.Completed, death.Stopped, death.StopTimeout, death.Drained, death.Preempted, death.NodeShutdown,
		}, "it ended well, or its pod was made to go"},
	}
}

// reasonOf is the reason of a pod's event; empty: there is none. A cause of a
// later version is told: somebody died of it.
func reasonOf(c death.Cause) string {
	for _, f := range Families() {
		if slices.Contains(f.Causes, c) {
			return f.Reason
		}
	}
	return ReasonContainerDied
}
