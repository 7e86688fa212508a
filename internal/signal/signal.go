// SPDX-License-Identifier: Apache-2.0

// Package signal says what a source can tell, as plain values. A source turns
// the outside into signals; the inquest takes them in order and knows nothing
// else of the world. The same signals always give the same deaths, so a file
// of them (see Writer) replays an incident.
package signal

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// Signal is one thing that a source saw.
type Signal struct {
	// Time is when it happened, by the kernel's clock, as UTC wall time.
	// Clocks of different sources differ by milliseconds: join by what the
	// signal names, and use Time only to tell apart.
	Time time.Time
	// Observed is when the source took it.
	Observed time.Time
	// Source is who says it.
	Source death.Source
	// User is whose engine says it, by the number; empty: the machine's own, or
	// no engine. It can say what it likes, of others' containers too.
	User string
	// Recovered is true when it happened before this agent ran.
	Recovered bool
	// Body is what happened.
	Body Body
}

// Body is one of the types of this package that Kinds lists.
type Body interface{ kind() string }

// Cgroup names a control group of the memory hierarchy: by the inode number
// of its directory, which is the kernel's kernfs id on v1 and v2, by its path
// below the hierarchy's root, or by both. Zero values are not known.
type Cgroup struct {
	ID   uint64 `json:"id,omitempty"`
	Path string `json:"path,omitempty"`
}

// Level is one cgroup on the way from a task's own up to the root, with its
// memory counters at the moment of the event.
type Level struct {
	Cgroup
	// LimitBytes is memory.max (v2) or memory.limit_in_bytes (v1); nil: no limit.
	LimitBytes *int64 `json:"limit_bytes,omitempty"`
	UsageBytes *int64 `json:"usage_bytes,omitempty"`
	// OOMGroup is memory.oom.group (v2 only).
	OOMGroup bool `json:"oom_group,omitempty"`
}

// Task is a process as a source saw it at the moment of the event.
type Task struct {
	// PID is the thread group id, TID the thread, in the initial pid namespace.
	PID  int    `json:"pid,omitempty"`
	TID  int    `json:"tid,omitempty"`
	Comm string `json:"comm,omitempty"`
	UID  *int64 `json:"uid,omitempty"`
	// Cgroup is the task's memory cgroup.
	Cgroup Cgroup `json:"cgroup,omitzero"`
	// Init tells whether it is a container's first process: the first of a pid
	// namespace other than the initial one, whose parent lives in another
	// memory cgroup. That of a namespace made inside a container has its parent
	// in its own cgroup. nil: not known.
	Init *bool `json:"init,omitempty"`
	// PIDNS is the inode number of its pid namespace.
	PIDNS uint64 `json:"pidns,omitempty"`
	// MM tells tasks apart that share memory: equal and not 0 means shared.
	// It is a number of the source's own making, no kernel address.
	MM uint64 `json:"mm,omitempty"`
}

// Figures are the sizes that the kernel gives with a kill.
type Figures struct {
	TotalVMBytes  *int64 `json:"total_vm_bytes,omitempty"`
	AnonRSSBytes  *int64 `json:"anon_rss_bytes,omitempty"`
	FileRSSBytes  *int64 `json:"file_rss_bytes,omitempty"`
	ShmemRSSBytes *int64 `json:"shmem_rss_bytes,omitempty"`
	PgtablesBytes *int64 `json:"pgtables_bytes,omitempty"`
	OOMScoreAdj   *int   `json:"oom_score_adj,omitempty"`
}

// MarkVictim is the tracepoint oom:mark_victim: the kernel chose this task,
// or found that it is dying already. It comes once per thread that is marked,
// which is one for most processes.
type MarkVictim struct {
	Victim Task `json:"victim"`
	// Trigger is the current task: who asked for memory.
	Trigger Task    `json:"trigger"`
	Figures Figures `json:"figures"`
	// Chain is the victim's memory cgroup and its ancestors, innermost
	// first, where the source can read them.
	Chain []Level `json:"chain,omitempty"`
}

// OOMInvocation is one entry of oom_kill_process, before the kill: whose
// limit, and under which constraint. Only where the kernel lets it be traced.
type OOMInvocation struct {
	Constraint string `json:"constraint"` // CONSTRAINT_MEMCG, ...
	// OOMMemcg is the cgroup whose limit was reached; zero: machine-wide.
	OOMMemcg Cgroup `json:"oom_memcg,omitzero"`
	Chosen   Task   `json:"chosen"`
	Trigger  Task   `json:"trigger"`
}

// Kill is a signal that can end a process, as the tracepoint
// signal:signal_generate shows it: SIGKILL for any process, and for the first
// process of a container (Task.Init) each other one whose default action ends it.
// A first process does not get what it has no handler for, so what it does get it
// answers as it likes: only SIGKILL and a fault (IsFault) end it for sure.
type Kill struct {
	Target Task `json:"target"`
	// Sender is the current task. It sent the signal where Code is 0 or below,
	// but for timers (SI_TIMER, -2), which fire in the context of any task; else
	// it is no sender by will: the kernel acts in its context. Nothing in it that
	// a process chooses, as Comm, says who it is; PIDNS does.
	Sender Task `json:"sender"`
	Signal int  `json:"signal"`
	// Code is si_code as the kernel gives it: 0 by kill(2), or by the kernel for
	// what the task itself did (SIGPIPE, SIGXFSZ) or for its parent's end; -6 by
	// tgkill(2); other negative ones are the sender's choice; CodeKernel, and
	// other positive ones, the kernel's own. A task can give any code to a signal
	// for itself: where Sender and Target are one, CodeKernel stands only for what
	// it cannot forge, and a fault that it only claims is not told (in mode
	// tracefs it is).
	Code int `json:"code"`
	// Result is 0 when delivered (include/trace/events/signal.h). Of signals
	// other than SIGKILL only those are told that are, and, in mode bpf, those from
	// outside its pid namespace that a first process has no handler for: ResultIgnored.
	Result int `json:"result"`
}

// ResultIgnored is TRACE_SIGNAL_IGNORED: the kernel dropped the signal.
const ResultIgnored = 1

// CodeKernel is SI_KERNEL (include/uapi/asm-generic/siginfo.h): the kernel sent it.
const CodeKernel = 128

// InitialPIDNS is the Task.PIDNS of the initial pid namespace
// (PROC_PID_INIT_INO of include/linux/proc_ns.h), where the host's own processes
// live, container runtimes among them. A process of a container is there only if
// the container was given the host's pid namespace.
const InitialPIDNS = 0xEFFFFFFC

// IsFault tells whether the kernel forced the signal on a task for what it did
// itself, such as a wrong access to memory.
func (k Kill) IsFault() bool {
	return k.Code > 0 && k.Sender.TID != 0 && k.Sender.TID == k.Target.TID && faults[k.Signal]
}

// faults are the signals that tell a task what it did wrong, by their numbers in
// include/uapi/asm-generic/signal.h: SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS.
var faults = map[int]bool{4: true, 5: true, 7: true, 8: true, 11: true, 31: true}

// Exit is the end of a process (sched:sched_process_exit of its last thread).
type Exit struct {
	Task Task `json:"task"`
	// Code is what it gave to exit, Signal what ended it; one of them is nil.
	Code   *int `json:"code,omitempty"`
	Signal *int `json:"signal,omitempty"`
}

// ReportedKill is a "Killed process" line of the kernel's log, with what the
// report around it said. What the log does not settle is absent.
type ReportedKill struct {
	// Seq is the record's place in the log of the boot BootID: its sequence
	// number in /dev/kmsg, or a number made of its stamp.
	Seq    uint64 `json:"seq,omitempty"`
	BootID string `json:"boot_id,omitempty"`
	// Report numbers the reports of one reader: kills of one invocation share it.
	Report uint64 `json:"report"`
	// PID is as printed: it can be the id of a thread of the victim.
	Victim  Task    `json:"victim"`
	Figures Figures `json:"figures"`
	// Memcg and Global say what the first words of the line say: "Memory
	// cgroup out of memory" or "Out of memory". Both false: not said.
	Memcg  bool `json:"memcg,omitempty"`
	Global bool `json:"global,omitempty"`
	// OOM is the report's context; nil when the kernel left it out (rate
	// limit) or it was lost.
	OOM *death.OOM `json:"oom,omitempty"`
	// Again is true when this report had named this pid before.
	Again bool `json:"again,omitempty"`
	// Summary is true where no kill line followed the report's summary, which
	// names the process.
	Summary bool `json:"summary,omitempty"`
	// Text is the line, for the evidence.
	Text string `json:"text,omitempty"`
}

// ReportedGroup is the line "Tasks in CGROUP are going to be killed due to
// memory.oom.group set": it belongs to the kill before it and those after it.
type ReportedGroup struct {
	Seq    uint64 `json:"seq,omitempty"`
	Report uint64 `json:"report"`
	Cgroup Cgroup `json:"cgroup"`
}

// ReportedNote is a line of the kernel's log that is no kill but bears on
// one: no killable process, a victim already exiting, suppressed reports.
type ReportedNote struct {
	Seq    uint64 `json:"seq,omitempty"`
	Report uint64 `json:"report,omitempty"`
	Kind   string `json:"note"` // one of the Note constants
	PID    int    `json:"pid,omitempty"`
	Count  int    `json:"count,omitempty"`
	Text   string `json:"text,omitempty"`
}

// The kinds of ReportedNote.
const (
	NoteUnkillable     = "unkillable"      // "Out of memory and no killable processes..."
	NoteAlreadyExiting = "already_exiting" // "OOM victim N (c) is already exiting"
	NoteSuppressed     = "suppressed"      // "oom_kill_process: N callbacks suppressed"
	NoteReaped         = "reaped"          // "oom_reaper: reaped process N (c)"
	NoteSharer         = "sharer"          // "Kill process N (c) sharing same memory" (before 4.6)
)

// CgroupSeen says that a cgroup is there, or that its limit or first process
// became known.
type CgroupSeen struct {
	Level
	// InitPID is the process that lives in it for which Task.Init is true.
	InitPID int `json:"init_pid,omitempty"`
}

// CgroupGone says that a cgroup was removed.
type CgroupGone struct {
	Cgroup
}

// CgroupCounters says that a cgroup's OOM counters moved. Counts are what was
// added since they were last read, never wake-ups.
type CgroupCounters struct {
	Cgroup
	// OOMKill counts processes killed in this very cgroup: oom_kill of
	// memory.events.local (v2) or memory.oom_control (v1).
	OOMKill uint64 `json:"oom_kill,omitempty"`
	// OOMKillBelow counts those of the whole subtree (memory.events, v2 only).
	OOMKillBelow uint64 `json:"oom_kill_below,omitempty"`
	// Since is when these counters were read before: what was added happened
	// since then. Zero: not said.
	Since time.Time `json:"since,omitzero"`
	// OOMKillTotal and OOMKillBelowTotal are what these two stand at; 0: not
	// said. A source tells each counter that is not 0 when it begins, with
	// nothing added.
	OOMKillTotal      uint64 `json:"oom_kill_total,omitempty"`
	OOMKillBelowTotal uint64 `json:"oom_kill_below_total,omitempty"`
	// OOM counts how often this cgroup's own limit made an allocation fail
	// (memory.events.local, v2 only). It is no count of kills.
	OOM uint64 `json:"oom,omitempty"`
	// OOMGroupKill counts whole-cgroup kills (memory.events.local, since 5.17).
	OOMGroupKill uint64 `json:"oom_group_kill,omitempty"`
	// Chain is this cgroup and its ancestors, innermost first, read right
	// after the counters.
	Chain []Level `json:"chain,omitempty"`
}

// NodeCounters says that the machine's own count of OOM kills moved
// (oom_kill of /proc/vmstat, since 4.13).
type NodeCounters struct {
	OOMKill uint64 `json:"oom_kill"` // added since last read
	Total   uint64 `json:"total"`    // since boot
	// Counted is a time up to which all kills are in the cgroups' counters
	// that were told before this signal. Zero: not said.
	Counted time.Time `json:"counted,omitzero"`
}

// SourceState says that a source came up, changed its mode or went down.
type SourceState struct {
	Up bool `json:"up"`
	// Absent: it is not up, and nothing is there that it could watch.
	Absent bool `json:"absent,omitempty"`
	// Mode is how it reads: "bpf", "tracefs", "v1", "v2".
	Mode string `json:"mode,omitempty"`
	// Reason says why it is down or lesser.
	Reason string `json:"reason,omitempty"`
}

// Lost says that a source knows of Count signals that it could not take.
type Lost struct {
	Count uint64 `json:"count"`
	// Other is true when none of them can be evidence of an OOM kill: signals
	// that processes send each other are dropped first.
	Other bool   `json:"other,omitempty"`
	Why   string `json:"why"`
}

func (MarkVictim) kind() string     { return "mark_victim" }
func (OOMInvocation) kind() string  { return "oom_invocation" }
func (Kill) kind() string           { return "kill" }
func (Exit) kind() string           { return "exit" }
func (ReportedKill) kind() string   { return "reported_kill" }
func (ReportedGroup) kind() string  { return "reported_group" }
func (ReportedNote) kind() string   { return "reported_note" }
func (CgroupSeen) kind() string     { return "cgroup_seen" }
func (CgroupGone) kind() string     { return "cgroup_gone" }
func (CgroupCounters) kind() string { return "cgroup_counters" }
func (NodeCounters) kind() string   { return "node_counters" }
func (SourceState) kind() string    { return "source_state" }
func (Lost) kind() string           { return "lost" }
