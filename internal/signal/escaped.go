// SPDX-License-Identifier: Apache-2.0

package signal

import "time"

// ProcessesEscaped says which processes are in a container, by its pid
// namespace, and live outside its cgroup, so that its limits do not hold for
// them. It is said of a container again each time that all are looked at, until
// it has none any more (Count 0) or has ended.
type ProcessesEscaped struct {
	// Cgroup is the container's own.
	Cgroup
	// PIDNS is the inode number of its pid namespace.
	PIDNS uint64 `json:"pidns,omitempty"`
	Count int    `json:"count"`
	// HeldBytes is what those of them hold of which it is known.
	HeldBytes int64 `json:"held_bytes,omitempty"`
	// Examples are up to five of them.
	Examples []EscapedProcess `json:"examples,omitempty"`
}

// EscapedProcess is a process outside the cgroup of its container. Its name is
// of its own choice.
type EscapedProcess struct {
	PID    int    `json:"pid"`
	Comm   string `json:"comm,omitempty"`
	Cgroup string `json:"cgroup"`
	// HeldBytes is anonymous and shared memory; nil: not known.
	HeldBytes *int64 `json:"held_bytes,omitempty"`
}

// PIDNamespace says which container a pid namespace is of: the one whose first
// process is its first.
type PIDNamespace struct {
	PIDNS uint64 `json:"pidns"`
	// Cgroup is the container's own; zero: no container's.
	Cgroup Cgroup `json:"cgroup,omitzero"`
	// Since is when that first process began: the number may have been another
	// namespace's before. Zero: not known.
	Since time.Time `json:"since,omitzero"`
}

func (ProcessesEscaped) kind() string { return "processes_escaped" }
func (PIDNamespace) kind() string     { return "pid_namespace" }
