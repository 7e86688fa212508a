// SPDX-License-Identifier: Apache-2.0

// Package oomreport understands what the kernel's OOM killer writes into the
// kernel's log (mm/oom_kill.c, mm/memcontrol.c; Linux 2.6.32 to 7.x): who was
// killed, whose limit was reached, and the figures around it. It reads
// records, not bytes; package kernlog takes the framing off.
//
// A report is one invocation of the OOM killer. Its context (trigger, usage,
// statistics, task table, summary line) is rate limited by the kernel, its
// "Killed process" lines are not. So a kill is given out at its own line, and
// context is put to it only where the log proves that they belong together.
// What the log does not settle is absent.
//
// Names of processes and cgroups are chosen by workloads. They are held to
// the kernel's own rules (a name has 15 bytes, the summary's pid stands last,
// the victim lives below the limit) and never decide where a field ends.
package oomreport

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// Event is a *Kill, a *Group or a *Note. It is not changed after it was given
// out.
type Event interface{ event() }

// Origin says which record an event comes from.
type Origin struct {
	Seq      uint64
	HasSeq   bool
	Stamp    time.Duration // since boot, by printk's clock
	HasStamp bool
	Time     time.Time // wall time of the framing; zero: none
}

// Witness is the line that a Kill rests on.
type Witness int

// The witnesses of a kill.
const (
	// FromKilled is the "Killed process" line itself.
	FromKilled Witness = iota
	// FromSummary is the oom-kill: line, when no kill line followed.
	FromSummary
	// FromReaper is an oom_reaper line about a process of a report whose
	// kill line is missing.
	FromReaper
)

// Kill is one process that the OOM killer killed.
type Kill struct {
	Origin
	// ReportID numbers the invocations of the OOM killer that a Parser saw,
	// from 1: kills of one invocation share it.
	ReportID uint64
	// Report is the context as it stood at the kill; nil when there is none
	// that is proven to be this kill's. Kills of one report may share it.
	Report *Report
	From   Witness

	// PID is as printed: of a thread of the victim that still had its memory,
	// in the initial pid namespace. Where the summary names the process, PID is
	// that and TID the thread of the line.
	PID, TID int
	// Comm is up to 15 arbitrary bytes; empty when the log is ambiguous.
	Comm string
	UID  *int64

	TotalVMBytes, AnonRSSBytes, FileRSSBytes, ShmemRSSBytes, PgtablesBytes *int64
	OOMScoreAdj                                                            *int
	// TaskMemcg is the cgroup of this process, where the log names it.
	TaskMemcg string
	// Memcg and Global are what the first words of the line say.
	Memcg, Global bool
	// Group is true for a process that died only because of memory.oom.group.
	Group bool
	// Again is true when the report had named this very process before.
	Again bool
	// Text is the line without its framing, bounded.
	Text string
}

// Group is the line "Tasks in CGROUP are going to be killed due to
// memory.oom.group set" (since 4.19).
type Group struct {
	Origin
	ReportID uint64
	// Cgroup is empty when the kernel cut the path.
	Cgroup string
}

// NoteKind tells Notes apart.
type NoteKind int

// The kinds of Note.
const (
	// NoteUnkillable is "Out of memory and no killable processes...".
	NoteUnkillable NoteKind = iota
	// NoteAlreadyExiting is "OOM victim N (c) is already exiting".
	NoteAlreadyExiting
	// NoteSuppressed is "oom_kill_process: N callbacks suppressed".
	NoteSuppressed
	// NoteReaped is "oom_reaper: reaped process N (c)".
	NoteReaped
	// NoteSharer is "Kill process N (c) sharing same memory" (before 4.6):
	// a process without a kill line of its own.
	NoteSharer
)

// Note is a line that is no kill but bears on one.
type Note struct {
	Origin
	// ReportID is 0 where the line belongs to no report.
	ReportID uint64
	Kind     NoteKind
	PID      int
	Comm     string
	// Count is how many reports the kernel suppressed.
	Count int
	Text  string
}

func (*Kill) event()  {}
func (*Group) event() {}
func (*Note) event()  {}

// Report is the context of one invocation, named by the kernel's own tokens.
type Report struct {
	ID uint64
	// TriggerPID and TriggerComm are of the thread that asked for memory.
	TriggerPID  int
	TriggerComm string
	// GFPMask is as printed, "0xcc0(GFP_KERNEL)".
	GFPMask string
	// Order is of the allocation; -1: asked for by hand (sysrq f).
	Order *int
	// OOMScoreAdj is the trigger's.
	OOMScoreAdj *int

	Constraint, Nodemask string
	// Cpuset is the trigger's: the name of the cgroup, not its path.
	Cpuset, MemsAllowed string
	// OOMMemcg is the cgroup whose limit was reached, TaskMemcg that of the
	// process with VictimPID.
	OOMMemcg, TaskMemcg string
	// GlobalOOM is the token global_oom.
	GlobalOOM bool
	// PathCut is true when the kernel had cut a path, which is left out then.
	PathCut bool
	// VictimPID is the summary's; 0: there was none, or it lost its end.
	VictimPID int

	// Memory, MemorySwap (v1), Swap (v2) and Kmem (v1) are of OOMMemcg.
	Memory, MemorySwap, Swap, Kmem *Usage
	// MemoryStat is OOMMemcg's memory.stat in bytes; counters that are no
	// sizes are left out. The one-line form of before 5.2 has a line for each
	// cgroup below; total_NAME is their sum then.
	MemoryStat map[string]int64
	Tasks      []death.Task
}

// Usage is one line "memory: usage NkB, limit NkB, failcnt N".
type Usage struct {
	UsageBytes *int64
	LimitBytes *int64 // nil: no limit
	Failcnt    *int64
}

// Dropped counts what a Parser left out to stay within its bounds.
type Dropped struct {
	Tasks uint64 // rows of task tables
	Stats uint64 // counters of memory statistics
	Names uint64 // killed pids that a report could not remember
	Text  uint64 // pieces of lines
}

// The bounds of what a Parser holds: about 6 MiB at worst.
const (
	maxReports = 8    // reports kept open
	maxTasks   = 4096 // rows of one table; four times what fits the default log buffer
	maxStats   = 256  // counters of one report
	maxNamed   = 4096 // killed pids of one report
	maxHeld    = 8192 // bytes of one line put together: two paths of PATH_MAX
	maxPieces  = 32
	maxText    = 1024 // bytes of a line that an event keeps
	maxComm    = 63   // TASK_COMM_LEN is 16; leave room for a kernel with more
	maxBoot    = 64
	taskComm   = 15
)
