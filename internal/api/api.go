// SPDX-License-Identifier: Apache-2.0

// Package api holds the wire types of coroner's HTTP API and a client for it.
// It is the one place that agent, hub, command line and tests share, so that
// a field has one name. Deaths travel as package death writes them. It knows
// neither how deaths are kept nor how they are found.
package api

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// The paths of the API, below the route prefix.
const (
	PathDeaths = "/api/v1/deaths"
	PathStream = "/api/v1/deaths/stream"
	PathStatus = "/api/v1/status"
)

// EventDeath is the name of the stream's events.
const EventDeath = "death"

// DeathsPage is the answer to a listing: newest first.
type DeathsPage struct {
	// Deaths is never null.
	Deaths []death.Death `json:"deaths"`
	// Next is the cursor of the page that follows; absent on the last one.
	Next string `json:"next,omitempty"`
	// By says who answered; the command line adds it, which may ask several.
	By *AnsweredBy `json:"by,omitempty"`
}

// AnsweredBy says who told deaths to the command line.
type AnsweredBy struct {
	Who Who `json:"who"`
	// Address is the agent's or hub's own, Context the kubeconfig's context of
	// the cluster that was asked.
	Address string `json:"address,omitempty"`
	Context string `json:"context,omitempty"`
	// Agents are those that told what was found, each as NAMESPACE/POD; Failed those
	// that did not answer, and why.
	Agents []string `json:"agents,omitempty"`
	Failed []string `json:"failed,omitempty"`
	// Reason is why no agent answered, Remedy what to do about it, and Lacks what
	// one would have added.
	Reason string `json:"reason,omitempty"`
	Remedy string `json:"remedy,omitempty"`
	Lacks  string `json:"lacks,omitempty"`
}

// Who is a kind of answerer.
type Who string

// The kinds of answerers.
const (
	WhoAgent      Who = "agent"      // one agent or hub, by its address
	WhoAgents     Who = "agents"     // a cluster's agents, through its API server
	WhoKubernetes Who = "kubernetes" // the Kubernetes API alone
)

// Error is the body of every answer that is not a success.
type Error struct {
	Error string `json:"error"`
}

// Status says how the agent or hub is doing.
type Status struct {
	Version string `json:"version"`
	Node    string `json:"node"`
	Kernel  string `json:"kernel,omitempty"`
	// Started is when this process began to watch.
	Started time.Time      `json:"started,omitzero"`
	Sources []SourceStatus `json:"sources"`
	History HistoryStatus  `json:"history"`
	// NodeOOMKills is what the kernel itself counted; nil: it does not say.
	NodeOOMKills *uint64 `json:"node_oom_kills,omitempty"`
	// UnattributedOOMKills counts the kernel's kills without a death. It must
	// stay 0; nil: not known, for want of the kernel's count.
	UnattributedOOMKills *uint64 `json:"unattributed_oom_kills,omitempty"`
	// Roster is what engines told in vain of containers.
	Roster RosterStatus `json:"roster"`
	// Audit is what else the comparison with the kernel's counters showed since
	// the start; nil: nothing is compared.
	Audit *Audit `json:"audit,omitempty"`
}

// RosterStatus counts what engines told and nobody keeps.
type RosterStatus struct {
	// NoRoom is of containers beyond those that there is room for: their deaths
	// go without names.
	NoRoom uint64 `json:"no_room"`
	// Disbelieved is what engines that users run told of others' containers.
	Disbelieved uint64 `json:"disbelieved"`
}

// Audit is how the deaths that were told stand to what the kernel counted.
type Audit struct {
	// CountedOnly are deaths of which nothing but a counter told.
	CountedOnly uint64 `json:"counted_only"`
	// CountedTwice are kills that the kernel counted twice, as it does with the
	// first victim of a group. They are told once.
	CountedTwice uint64 `json:"counted_twice"`
	// AlreadyDying are victims of the OOM killer that were dying before: it
	// killed nobody, and no death is told.
	AlreadyDying uint64 `json:"already_dying"`
	// Late is evidence for deaths that were settled, and which changes nothing.
	Late uint64 `json:"late"`
	// Open are deaths for which evidence may still come, SettledEarly those for
	// which no room was left to wait for it.
	Open         int    `json:"open"`
	SettledEarly uint64 `json:"settled_early"`
}

// SourceStatus says how one source is doing.
type SourceStatus struct {
	Name death.Source `json:"name"`
	// Enabled is false when a flag switched the source off.
	Enabled bool `json:"enabled"`
	Up      bool `json:"up"`
	// Absent: it is not up, for there is nothing that it could watch.
	Absent bool `json:"absent,omitempty"`
	// Mode is how it reads: "bpf", "tracefs", "v1", "v2".
	Mode string `json:"mode,omitempty"`
	// Reason says why it is down or lesser.
	Reason string `json:"reason,omitempty"`
	// Since is when it last came up or went down.
	Since  time.Time `json:"since,omitzero"`
	Events uint64    `json:"events"`
	Lost   uint64    `json:"lost"`
	// LostOOMEvidence are those of Lost that may have told of an OOM kill; the
	// others were signals that processes sent each other.
	LostOOMEvidence uint64 `json:"lost_oom_evidence"`
	// Rejected are records that others than the kernel wrote to its log. They
	// are not believed, whatever they say.
	Rejected uint64 `json:"rejected,omitempty"`
	Errors   uint64 `json:"errors"`
}

// HistoryStatus says how the history is doing.
type HistoryStatus struct {
	// Path is the file, or ":memory:".
	Path   string `json:"path"`
	Deaths int64  `json:"deaths"`
	// Bytes is the size of the pages in use; MaxBytes the limit, absent when
	// there is none.
	Bytes    int64 `json:"bytes"`
	MaxBytes int64 `json:"max_bytes,omitempty"`
	// RetentionSeconds is how long deaths are kept; absent: for ever.
	RetentionSeconds float64 `json:"retention_seconds,omitempty"`
	// Oldest and Newest are the times of the first and last death kept.
	Oldest *time.Time `json:"oldest,omitempty"`
	Newest *time.Time `json:"newest,omitempty"`
	// Notice says what happened to the file, such as a damaged one that was set
	// aside, and how many deaths in it were found unreadable.
	Notice string `json:"notice,omitempty"`
	// Error is why deaths are not being kept at the moment, or not there.
	Error string `json:"error,omitempty"`
	// Waiting deaths are not kept yet; Dropped ones, and amendments of deaths,
	// never will be, for want of room while the history did not take them.
	Waiting int    `json:"waiting"`
	Dropped uint64 `json:"dropped"`
}
