// SPDX-License-Identifier: Apache-2.0

// Package verdict judges: facts in, one cause with its confidence, a sentence
// and advice out. It is pure. Its rules are one ordered table (Rules); the
// first that fits speaks.
package verdict

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
)

// Basis says how the facts about the OOM kill came to be known.
type Basis int

// The bases, from the weakest.
const (
	// BasisNone: whose limit it was is not known.
	BasisNone Basis = iota
	// BasisInferred: from usage and limits of the cgroups around the victim,
	// or from the OOM counters of cgroup v2.
	BasisInferred
	// BasisKernel: the kernel named the limit's cgroup and the constraint.
	BasisKernel
)

// Facts is all that a rule may look at. The zero value of a field means that
// it is not known.
type Facts struct {
	// Owner of the dead processes.
	Container *death.Container
	Unit      string
	// PodCgroup and TaskMemcg are paths; ContainerCgroup is in Container.
	PodCgroup string
	TaskMemcg string

	// OOM is true when the kernel's OOM killer did it.
	OOM   bool
	Basis Basis
	// Constraint and OOMMemcg are the kernel's tokens; under BasisInferred
	// OOMMemcg is what was inferred.
	Constraint string
	OOMMemcg   string
	// OOMLevel says what kind of cgroup OOMMemcg is.
	OOMLevel cgpath.Level
	// SaidMemcg and SaidGlobal are the first words of the kill line.
	SaidMemcg, SaidGlobal bool
	// Manual: asked for by hand (sysrq f).
	Manual bool
	// Group: memory.oom.group took more than the victim.
	Group bool
	// CountedOnly: a counter rose, and nothing else saw the kill.
	CountedOnly bool

	// UsageBytes and LimitBytes are of OOMMemcg, at the kill.
	UsageBytes, LimitBytes *int64
	// MemswLimitBytes is set when it was the limit of memory and swap together
	// that was reached (v1), and not that of memory; UsageBytes is then known.
	MemswLimitBytes *int64
	// Of the container's own cgroup, and of the pod's.
	ContainerUsage, ContainerLimit, PodLimit *int64
	// ContainerUnlimited: it is known to have no limit of its own.
	ContainerUnlimited bool

	Processes []death.Process
	Trigger   *death.Trigger
	// Stray: Container is the victim's by its pid namespace alone; it lived
	// outside the container's cgroup. Escaped counts the container's processes
	// that live outside.
	Stray   bool
	Escaped int
	// Ended: the container ended with this. LivesOn: it is known that it did not.
	Ended, LivesOn bool
	// Tasks is the kernel's task table, PageSize the size of its pages.
	Tasks []death.Task

	// Killer sent a SIGKILL; KillerIsRuntime when it is a container runtime
	// at work for somebody else.
	Killer          *death.Killer
	KillerIsRuntime bool
	// OOMDaemon is the program that killed before the machine ran out of memory.
	OOMDaemon string
	// DaemonObeyed: it asked to end by SIGTERM, and what it asked left by itself.
	DaemonObeyed bool
	// DaemonWhy is why, in its own words, DaemonLogged who wrote that to the
	// journal.
	DaemonWhy    string
	DaemonLogged *death.Killer

	// Exit is how the container's first process ended, FromKernel whether the
	// kernel told it: an engine's code of 128 and more can be the process's own.
	Exit       *death.Exit
	FromKernel bool
	First      string // the first process's name
	// MemorySwap is what memory and swap together were limited to as the
	// container was made or changed; -1: not at all, nil: not known.
	MemorySwap *int64
	Program    string // what it was started as, in an engine's words
	// Engine is what speaks of the container's end: docker, containerd, cri.
	Engine death.Source
	// Fault is why it never ran, in the engine's words; NeverRan is true then.
	Fault    string
	NeverRan bool
	// InRuntime: its first process still bore the runtime's name when it left.
	InRuntime bool
	// OOMKilled is the engine's flag.
	OOMKilled *bool
	Stop      *Stop
	// PodReason and PodMessage are Kubernetes' own words for why the pod ended.
	PodReason, PodMessage string
	// PodNeverRan: it is the pod that is told of, of which no container ran.
	PodNeverRan bool
	// Disruption and Deletion say that the pod was made to go, Probe that the
	// kubelet stopped the container; nil: not known.
	Disruption *Disruption
	Deletion   *Deletion
	Probe      *Probe
	// Deadline is until when Kubernetes lets the pod run; zero: it may as long as it
	// likes. Replaced is why the kubelet stopped the container to make it anew; "":
	// it did not say so.
	Deadline time.Time
	Replaced string
	// Stopping: the kubelet said that it stops the container, and not why.
	Stopping bool
	// EvictedAt is when the kubelet decided to; zero: not known. PodGrace is how
	// long a container may take to stop.
	EvictedAt time.Time
	PodGrace  time.Duration
	// TaintedAt is when a controller said that a taint of the node makes the pod
	// go; zero: none did. Taints are those with NoExecute that the node had then.
	TaintedAt time.Time
	Taints    []string
	// NodeShutdownAt is since when the kubelet says that the node is shut down;
	// zero: it does not.
	NodeShutdownAt time.Time
	// Asked is another signal that an engine was asked to send, soon before the
	// end.
	Asked *Asked
	// EndedAt is when the container ended.
	EndedAt time.Time
	// LogLines are the last lines that the container wrote, oldest first, where
	// LogRead is true.
	LogLines []LogLine
	LogRead  bool
	// PeakBytes is the most memory that the container is known to have held in
	// the run that ended.
	PeakBytes *int64
	// RequestBytes is the memory that Kubernetes promised the container.
	RequestBytes *int64
	// ShmBytes is what of its memory was in tmpfs and shared memory when it was
	// last looked at, ShmSize how large its own /dev/shm may grow.
	ShmBytes, ShmSize *int64
	// LeakPerSecond is how many bytes the container's memory grew by in each
	// second of LeakedFor up to the end, where that has the shape of a leak.
	LeakPerSecond float64
	LeakedFor     time.Duration
	// Sent are signals other than SIGKILL that reached the first process before
	// it ended, in their order.
	Sent []Sent
	// Unasked: the engine tells what it is asked to do with the container, and
	// told of nothing that its end may be due to.
	Unasked bool
	// Changes are what became another before the death, oldest first.
	Changes []Change
	// Counted: the kernel's counters are watched, so that an OOM kill in the
	// container would be known by now. Waited: what another source has to say
	// would have come.
	Counted, Waited bool
}

// Stop is what an engine was asked to do with the container, in the run that
// ended.
type Stop struct {
	// Engine is who was asked.
	Engine death.Source
	// At is when it last sent the signal that asks to stop; zero: it did not.
	At time.Time
	// Signal is what that sent; 0: not told.
	Signal int
	// KilledAt is when it sent SIGKILL; zero: it did not.
	KilledAt time.Time
	// Confirmed: the engine says that a stop is done. A signal alone is one that
	// somebody may have asked for, too.
	Confirmed bool
	// Restart is true where it was to start again.
	Restart bool
	// Done is true where the engine told no request but that it is done, as
	// podman does: At and KilledAt are not before the end then.
	Done bool
	// Grace is how many seconds a stop waits before SIGKILL; nil: not known.
	Grace *int64
	// End is when the container ended.
	End time.Time
}

// Asked is a signal that an engine was asked to send.
type Asked struct {
	Engine death.Source
	Signal int
	// Before is how long before the end.
	Before time.Duration
}

// Sent is a signal that somebody sent to a container's first process.
type Sent struct {
	death.Killer
	// ByRuntime: the sender is named like a container runtime, and in none.
	ByRuntime bool
	// Before is how long before the end.
	Before time.Duration
	// Ignored: the process had no handler for it, and did not get it.
	Ignored bool
}

// Verdict is what a rule says.
type Verdict struct {
	Rule       string
	Cause      death.Cause
	Confidence death.Confidence
	Summary    string
	Advice     []string
	// Killer is who told the container to end, where it was no SIGKILL.
	Killer *death.Killer
	// AsksLog: a rule would look at the container's last lines, which nobody
	// has read yet.
	AsksLog bool
	// AsksDaemon: nobody was seen who sent the SIGKILL. It may have been a program
	// that frees memory, which leaves words of its own.
	AsksDaemon bool
	// Claim is the line of the log that it rests on; nil: on none.
	Claim *LogLine
}

// overhead is how much a pod's pause process and the kernel's per-CPU
// batching may put between a container's usage and its pod's: 4 MiB, or a
// sixty-fourth of the limit where that is more.
func overhead(limit int64) int64 {
	return max(4<<20, limit/64)
}

// fillsPod tells whether the container alone filled its pod up to limit. The
// kernel then accounts the container's limit at the pod, whose counter fails
// first because of the pause process.
func (f *Facts) fillsPod() bool {
	if f.LimitBytes == nil {
		return false
	}
	used := f.ContainerUsage
	if used == nil {
		if n := f.held(); n > 0 {
			used = &n
		}
	}
	return used != nil && *used >= *f.LimitBytes-max(overhead(*f.LimitBytes), *f.LimitBytes/10)
}

// limitsEqual tells whether container and pod are known to have one limit.
func (f *Facts) limitsEqual() bool {
	pod := f.podLimit()
	return f.ContainerLimit != nil && pod != nil && *f.ContainerLimit == *pod
}

func (f *Facts) podLimit() *int64 {
	if f.PodLimit != nil {
		return f.PodLimit
	}
	if f.OOMMemcg == f.PodCgroup {
		return f.LimitBytes
	}
	return nil
}

// belowOwnLimit tells whether the container is known to have had room under
// a limit of its own, or to have none.
func (f *Facts) belowOwnLimit() bool {
	if f.ContainerUnlimited {
		return true
	}
	pod := f.podLimit()
	switch {
	case f.ContainerLimit == nil:
		return f.ContainerUsage != nil && pod != nil && *f.ContainerUsage < *pod-max(overhead(*pod), *pod/10)
	case f.ContainerUsage != nil:
		return *f.ContainerUsage < *f.ContainerLimit-overhead(*f.ContainerLimit)
	}
	return pod != nil && *f.ContainerLimit != *pod
}

// held adds up what the dead processes kept in memory.
func (f *Facts) held() int64 {
	var sum int64
	for _, p := range f.Processes {
		if p.Fate == death.FateSharer {
			continue // the same memory as the victim's
		}
		sum += heldBy(p)
	}
	return sum
}

// heldBy is what p alone kept in memory: mapped files (the program itself,
// libraries) are others' too, and often charged elsewhere.
func heldBy(p death.Process) int64 {
	var sum int64
	for _, n := range []*int64{p.AnonRSSBytes, p.ShmemRSSBytes} {
		if n != nil {
			sum += *n
		}
	}
	return sum
}
