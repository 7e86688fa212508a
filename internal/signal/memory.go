// SPDX-License-Identifier: Apache-2.0

package signal

import "time"

// MemoryHistory is the memory of one cgroup as it was recorded up to
// Signal.Time, or up to its end.
type MemoryHistory struct {
	Cgroup
	// LimitBytes is the cgroup's own limit as it was read last; nil: none, or
	// not known.
	LimitBytes *int64 `json:"limit_bytes,omitempty"`
	// PeakBytes is the most that the kernel saw in use, or the most that was
	// sampled where PeakSampled.
	PeakBytes *int64 `json:"peak_bytes,omitempty"`
	// PeakSampled is true where the kernel keeps no peak (cgroup v2 before
	// Linux 5.19): what was used between two samples is not in it.
	PeakSampled bool `json:"peak_sampled,omitempty"`
	// First is when recording began. What was before is not known; later
	// samples may have been dropped for their age.
	First time.Time `json:"first,omitzero"`
	// Samples are unix seconds, working set and usage, oldest first: one each
	// ten seconds for an hour, then one each second for the last two minutes,
	// each the highest of its time.
	Samples [][3]int64 `json:"samples,omitempty"`
	// Last is the last reading; nil: there was none.
	Last *MemoryReading `json:"last,omitempty"`
	// ShmemBytes is the most shared memory of the last seconds: what an end sets
	// free can be gone at the last reading. nil: not known.
	ShmemBytes *int64 `json:"shmem_bytes,omitempty"`
	// Limits are what the cgroup's own limit was read to be, one after the
	// other, the last few.
	Limits []LimitReading `json:"limits,omitempty"`
}

// LimitReading is a limit that was read to be the same from First to Last.
type LimitReading struct {
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Bytes is nil where there was none.
	Bytes *int64 `json:"bytes,omitempty"`
}

// MemoryReading is what one reading of a cgroup's memory files said, with all
// cgroups below it.
type MemoryReading struct {
	Time            time.Time `json:"time,omitzero"`
	WorkingSetBytes int64     `json:"working_set_bytes"`
	UsageBytes      int64     `json:"usage_bytes"`
	// File has Shmem in it, as the kernel counts.
	AnonBytes  *int64 `json:"anon_bytes,omitempty"`
	FileBytes  *int64 `json:"file_bytes,omitempty"`
	ShmemBytes *int64 `json:"shmem_bytes,omitempty"`
	// KernelBytes is up to 30 seconds older than the rest on cgroup v1.
	KernelBytes *int64 `json:"kernel_bytes,omitempty"`
	// SomeAvg10 is the share of the last ten seconds, in percent, in which a
	// task waited for memory (memory.pressure, cgroup v2); up to 30 seconds
	// older than the rest.
	SomeAvg10 *float64 `json:"some_avg10,omitempty"`
}

func (MemoryHistory) kind() string { return "memory_history" }
