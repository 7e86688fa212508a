// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// ContainerSeen says that an engine has this container, or what changed of
// it. What is absent is not known, or did not change: lay it over what was
// told before.
type ContainerSeen struct {
	// Container is named as the engine names it. Its labels are claims of
	// whoever made it.
	Container death.Container `json:"container"`
	// Namespace is containerd's: there an id is one only within its namespace.
	Namespace string `json:"namespace,omitempty"`
	// Sandbox is true for the container that only holds a pod's namespaces.
	Sandbox bool `json:"sandbox,omitempty"`
	// PID is the first process of the run that began at Started.
	PID int `json:"pid,omitempty"`
	// Program is what its first process is started as: the last part of the
	// path. It may become another program by itself.
	Program string `json:"program,omitempty"`
	// State is created, running, paused, restarting, removing, exited or dead.
	State   string    `json:"state,omitempty"`
	Started time.Time `json:"started,omitzero"`
	// ExitCode is how its last run ended, of one that does not run.
	ExitCode *int `json:"exit_code,omitempty"`
	// LimitBytes is the memory limit that was asked for; nil: none, or not known.
	LimitBytes *int64 `json:"limit_bytes,omitempty"`
	// MemorySwapBytes is the limit of memory and swap together that was asked
	// for; -1: none, nil: not known.
	MemorySwapBytes *int64 `json:"memory_swap_bytes,omitempty"`
	// RequestBytes is the memory that it was promised; nil: none, or not known.
	RequestBytes *int64 `json:"request_bytes,omitempty"`
	// ShmSizeBytes is how large its own /dev/shm may grow; nil: it has none, or
	// not known.
	ShmSizeBytes *int64 `json:"shm_size_bytes,omitempty"`
	// LogPath is the engine's file of what the container writes.
	LogPath string `json:"log_path,omitempty"`
	// StopSignal is what a stop sends first, StopTimeout how many seconds it
	// then waits before SIGKILL.
	StopSignal  int    `json:"stop_signal,omitempty"`
	StopTimeout *int64 `json:"stop_timeout,omitempty"`
	// RestartPolicy is Kubernetes' for it: Always, OnFailure or Never.
	RestartPolicy string `json:"restart_policy,omitempty"`
	// Liveness and Startup are the probes for which the kubelet stops it; nil:
	// it has none, or not known.
	Liveness *Probe `json:"liveness_probe,omitempty"`
	Startup  *Probe `json:"startup_probe,omitempty"`
}

// Probe is how the kubelet looks after a container.
type Probe struct {
	// How is what it does: exec, httpGet, tcpSocket or grpc.
	How string `json:"how,omitempty"`
	// Seconds, with the API's own values where the pod leaves them out.
	DelaySeconds   int32 `json:"delay_seconds,omitempty"`
	PeriodSeconds  int32 `json:"period_seconds,omitempty"`
	TimeoutSeconds int32 `json:"timeout_seconds,omitempty"`
	// Failures in a row are one too many.
	Failures int32 `json:"failures,omitempty"`
}

// ContainerGone says that an engine removed a container.
type ContainerGone struct {
	ID        string `json:"id"`
	Runtime   string `json:"runtime,omitempty"`
	Namespace string `json:"namespace,omitempty"`
}

// ContainerExit says that a container's first process ended, in the engine's
// words. One end is told once as the event comes, and again, with the same
// Signal.Time, when the engine said more.
type ContainerExit struct {
	ID        string `json:"id"`
	Runtime   string `json:"runtime,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	// Code is 128 and the signal's number for an end by a signal; a process
	// can give the same number by itself.
	Code *int `json:"code,omitempty"`
	// OOMKilled is the engine's flag. It is missing for real kills, and true
	// for containers that survived one.
	OOMKilled *bool `json:"oom_killed,omitempty"`
	// Reason is the engine's word for the end: "Completed", "Error",
	// "OOMKilled", "StartError". Only the CRI has it.
	Reason string `json:"reason,omitempty"`
	Error  string `json:"error,omitempty"`
	// PID is the first process of that run.
	PID      int       `json:"pid,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
}

// ContainerStop says that somebody asked the engine to stop or signal a
// container.
type ContainerStop struct {
	ID        string `json:"id"`
	Runtime   string `json:"runtime,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	// Signal is what was sent. Only "kill" has it.
	Signal int `json:"signal,omitempty"`
	// Action is the engine's word: "kill" as each signal is sent, also for a
	// stop; "stop" and "restart" when that is done.
	Action string `json:"action"`
}

// ContainerOOM is the engine's own word that a container had an OOM kill. It
// is late or missing at times.
type ContainerOOM struct {
	ID        string `json:"id"`
	Runtime   string `json:"runtime,omitempty"`
	Namespace string `json:"namespace,omitempty"`
}

func (ContainerSeen) kind() string { return "container_seen" }
func (ContainerGone) kind() string { return "container_gone" }
func (ContainerExit) kind() string { return "container_exit" }
func (ContainerStop) kind() string { return "container_stop" }
func (ContainerOOM) kind() string  { return "container_oom" }

// ContainerLog is the end of what a container wrote, read because the inquest
// asked for it (inquest.Want).
type ContainerLog struct {
	ID string `json:"id"`
	// At is the end that was asked about, as the question had it.
	At time.Time `json:"at,omitzero"`
	// Lines are the last ones before the container's end, oldest first.
	Lines []LogLine `json:"lines,omitempty"`
	// Error says why there are none, or fewer.
	Error string `json:"error,omitempty"`
}

// LogLine is one line that a container wrote, cut where it is long.
type LogLine struct {
	Time   time.Time `json:"time,omitzero"`
	Stream string    `json:"stream,omitempty"` // stdout or stderr
	Text   string    `json:"text"`
}

func (ContainerLog) kind() string { return "container_log" }
