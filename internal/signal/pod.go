// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// PodSeen says what the Kubernetes API has of a pod. What is absent is not
// known, or did not change: lay it over what was told before.
type PodSeen struct {
	Pod death.Pod `json:"pod"`
	// Phase is Pending, Running, Succeeded, Failed or Unknown. Reason and
	// Message are the status' own: "Evicted" and what the kubelet said of it.
	Phase   string `json:"phase,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// Priority orders evictions and preemptions.
	Priority *int32 `json:"priority,omitempty"`
	// RequestBytes is the memory that the pod was promised, as the scheduler
	// counts it: of its containers, its largest init container, and overhead. nil: none, or not known.
	RequestBytes *int64 `json:"request_bytes,omitempty"`
	// Disruption is why the pod is made to go; nil: nobody has said so.
	Disruption *Disruption `json:"disruption,omitempty"`
	// Deletion is that somebody asked for its deletion; nil: nobody has.
	Deletion *Deletion `json:"deletion,omitempty"`
	// Deadline is until when it may run (activeDeadlineSeconds); zero: as long as
	// it likes, or not known.
	Deadline time.Time `json:"deadline,omitzero"`
	// NeverRan tells that none of its containers was ever started, of a pod
	// that has ended.
	NeverRan bool `json:"never_ran,omitempty"`
	// Failed is when such a pod ended; zero: not known.
	Failed time.Time `json:"failed,omitzero"`
}

// Disruption is the condition DisruptionTarget of a pod (Kubernetes 1.26; KEP
// 3329).
type Disruption struct {
	// Reason is PreemptionByScheduler, DeletionByTaintManager,
	// EvictionByEvictionAPI, DeletionByPodGC or TerminationByKubelet.
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
	// At is when the condition was set, in whole seconds.
	At time.Time `json:"at,omitzero"`
}

// Deletion is a request to delete a pod.
type Deletion struct {
	// At is when it was asked for, in whole seconds: metadata.deletionTimestamp
	// less the grace period. A pod's last update, with no grace period left, is
	// no new request.
	At time.Time `json:"at,omitzero"`
	// GraceSeconds is how long its containers have to end.
	GraceSeconds int64 `json:"grace_seconds"`
}

// PodGone says that the API has a pod no more.
type PodGone struct {
	UID string `json:"uid"`
}

// PodEvents are the events that the API keeps of a pod, read because the
// inquest asked for them (inquest.Want). Events are best effort: that one is
// missing says nothing.
type PodEvents struct {
	UID string `json:"uid"`
	// At is the end that was asked about, as the question had it.
	At     time.Time  `json:"at,omitzero"`
	Events []PodEvent `json:"events,omitempty"`
	// Error says why there are none, or fewer.
	Error string `json:"error,omitempty"`
}

// PodEvent is one event of a pod. Equal ones are one, with a count.
type PodEvent struct {
	// Reason is "Killing", "Unhealthy", "Evicted", "Preempted", ...
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
	// Container is whose it is; "": the pod's.
	Container string `json:"container,omitempty"`
	// First and Last are in whole seconds, mostly.
	First time.Time `json:"first,omitzero"`
	Last  time.Time `json:"last,omitzero"`
	Count int       `json:"count,omitempty"`
	// By is the component that says so: kubelet, default-scheduler, ...
	By string `json:"by,omitempty"`
}

func (PodSeen) kind() string   { return "pod_seen" }
func (PodGone) kind() string   { return "pod_gone" }
func (PodEvents) kind() string { return "pod_events" }
