// SPDX-License-Identifier: Apache-2.0

package signal

import "time"

// NodeSeen says what the Kubernetes API has of the node that the agent runs
// on. It is told whole: what is absent is not there.
type NodeSeen struct {
	Name string `json:"name"`
	// Capacity is what the machine has, Allocatable what pods may have of it.
	Capacity    NodeResources `json:"capacity,omitzero"`
	Allocatable NodeResources `json:"allocatable,omitzero"`
	// Conditions are Ready, MemoryPressure, DiskPressure and PIDPressure.
	Conditions []NodeCondition `json:"conditions,omitempty"`
	Taints     []Taint         `json:"taints,omitempty"`
}

// NodeResources are amounts of what a node has; nil: not said.
type NodeResources struct {
	MemoryBytes  *int64 `json:"memory_bytes,omitempty"`
	StorageBytes *int64 `json:"storage_bytes,omitempty"` // ephemeral-storage
	MilliCPU     *int64 `json:"milli_cpu,omitempty"`
	Pods         *int64 `json:"pods,omitempty"`
}

// NodeCondition is one condition of a node.
type NodeCondition struct {
	Type string `json:"type"`
	// Status is True, False or Unknown.
	Status  string `json:"status"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// Since is when Status became so, in whole seconds. The kubelet sets it when
	// it next writes the node's status, up to 10 s later.
	Since time.Time `json:"since,omitzero"`
}

// Taint keeps pods off a node, or with the effect NoExecute makes them go.
type Taint struct {
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"`
	Effect string `json:"effect,omitempty"`
	// Added is when it was set, of taints NoExecute mostly.
	Added time.Time `json:"added,omitzero"`
}

// String is the taint as kubectl writes it.
func (t Taint) String() string {
	s := t.Key
	if t.Value != "" {
		s += "=" + t.Value
	}
	if t.Effect != "" {
		s += ":" + t.Effect
	}
	return s
}

func (NodeSeen) kind() string { return "node_seen" }
