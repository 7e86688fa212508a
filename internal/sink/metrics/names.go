// SPDX-License-Identifier: Apache-2.0

package metrics

// The names of rows of Table for those who write queries over them.
const (
	OOMKills              = oomKills
	Terminations          = terminations
	LastDeath             = lastDeath
	NodeOOMKills          = nodeKills
	Unattributed          = unattributed
	Detection             = detection
	SourceUp              = sourceUp
	SourceEvents          = sourceEvents
	SourceLost            = sourceLost
	SourceLostOOMEvidence = sourceLostOOM
	SourceErrors          = sourceErrors
	SinkUp                = sinkUp
	SinkQueue             = sinkQueue
	SinkDropped           = sinkDropped
	BuildInfo             = buildInfo
	MemoryWorkingSet      = memoryWorkingSet
	MemoryUsage           = memoryUsage
	MemoryLimit           = memoryLimit
	MemoryPeak            = memoryPeak
	MemoryLimitETA        = memoryETA
	EscapedProcesses      = escapedProcesses
)
