// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/coroner-dev/coroner/internal/death"
)

// PathContainers lists the containers that live.
const PathContainers = "/api/v1/containers"

// ContainersPage is the answer to PathContainers, in the order of namespaces,
// pods and names.
type ContainersPage struct {
	// Containers is never null.
	Containers []Container `json:"containers"`
}

// Container is one that lives or, where all were asked for, one that has ended
// or was removed lately.
type Container struct {
	death.Container
	// State is what an engine says: created, running, paused, restarting,
	// removing, exited or dead; empty: not known.
	State string `json:"state,omitempty"`
	// Restarts are its starts after the first, over all ids of a pod's container.
	Restarts int `json:"restarts"`
	// Removed: it is there no more.
	Removed bool `json:"removed,omitempty"`
	// Memory is nil where nothing is known of it.
	Memory *ContainerMemory `json:"memory,omitempty"`
	// EscapedProcesses are of the container and live outside its cgroup; nil:
	// not known.
	EscapedProcesses *int `json:"escaped_processes,omitempty"`
}

// ContainerMemory is what a container holds now.
type ContainerMemory struct {
	WorkingSetBytes int64    `json:"working_set_bytes"`
	UsageBytes      int64    `json:"usage_bytes"`
	LimitBytes      *int64   `json:"limit_bytes,omitempty"`
	PeakBytes       *int64   `json:"peak_bytes,omitempty"`
	AnonBytes       *int64   `json:"anon_bytes,omitempty"`
	FileBytes       *int64   `json:"file_bytes,omitempty"`
	ShmemBytes      *int64   `json:"shmem_bytes,omitempty"`
	KernelBytes     *int64   `json:"kernel_bytes,omitempty"`
	LimitETASeconds *float64 `json:"limit_eta_seconds,omitempty"`
	// Samples are [unix seconds, working set, usage], oldest first; only of a
	// container that was asked for by its id.
	Samples [][3]int64 `json:"samples,omitempty"`
}

// ContainersQuery selects containers. Empty fields select all.
type ContainersQuery struct {
	Namespace, Pod string
	// Container is a name, an id or its first digits.
	Container string
	// All selects also those that do not live: as docker ps -a does.
	All bool
}

// ParseContainersQuery reads a query from an address's parameters.
func ParseContainersQuery(v url.Values) (ContainersQuery, error) {
	known := []string{"namespace", "pod", "container", "all"}
	for name := range v {
		if !slices.Contains(known, name) {
			return ContainersQuery{}, fmt.Errorf("%q is no parameter: want one of %s", name, strings.Join(known, ", "))
		}
	}
	q := ContainersQuery{Namespace: v.Get("namespace"), Pod: v.Get("pod"), Container: v.Get("container")}
	if all := v.Get("all"); all != "" {
		var err error
		if q.All, err = strconv.ParseBool(all); err != nil {
			return ContainersQuery{}, fmt.Errorf("all=%q: want true or false", all)
		}
	}
	return q, nil
}

// Matches tells whether q selects c by its names.
func (q ContainersQuery) Matches(c *death.Container) bool {
	pod := death.Pod{}
	if c.Pod != nil {
		pod = *c.Pod
	}
	id := len(q.Container) >= 6 && strings.HasPrefix(c.ID, q.Container)
	return (q.Namespace == "" || pod.Namespace == q.Namespace) && (q.Pod == "" || pod.Name == q.Pod || pod.UID == q.Pod) &&
		(q.Container == "" || c.Name == q.Container || c.ID == q.Container || id)
}
