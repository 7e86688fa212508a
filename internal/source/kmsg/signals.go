// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/oomreport"
	"github.com/coroner-dev/coroner/internal/signal"
)

// bodyOf says an event of the parser in the words that the inquest knows.
func bodyOf(e oomreport.Event, bootID string) signal.Body {
	switch e := e.(type) {
	case *oomreport.Kill:
		return signal.ReportedKill{
			Seq: e.Seq, BootID: bootID, Report: e.ReportID,
			Victim: signal.Task{PID: e.PID, TID: e.TID, Comm: e.Comm, UID: e.UID, Cgroup: signal.Cgroup{Path: e.TaskMemcg}},
			Figures: signal.Figures{
				TotalVMBytes: e.TotalVMBytes, AnonRSSBytes: e.AnonRSSBytes, FileRSSBytes: e.FileRSSBytes,
				ShmemRSSBytes: e.ShmemRSSBytes, PgtablesBytes: e.PgtablesBytes, OOMScoreAdj: e.OOMScoreAdj,
			},
			Memcg: e.Memcg, Global: e.Global, OOM: oomOf(e), Again: e.Again, Summary: e.From == oomreport.FromSummary, Text: e.Text,
		}
	case *oomreport.Group:
		return signal.ReportedGroup{Seq: e.Seq, Report: e.ReportID, Cgroup: signal.Cgroup{Path: e.Cgroup}}
	case *oomreport.Note:
		return signal.ReportedNote{
			Seq: e.Seq, Report: e.ReportID, Kind: noteKind(e.Kind), PID: e.PID, Count: e.Count, Text: e.Text,
		}
	}
	return nil
}

func noteKind(k oomreport.NoteKind) string {
	switch k {
	case oomreport.NoteUnkillable:
		return signal.NoteUnkillable
	case oomreport.NoteAlreadyExiting:
		return signal.NoteAlreadyExiting
	case oomreport.NoteSuppressed:
		return signal.NoteSuppressed
	case oomreport.NoteSharer:
		return signal.NoteSharer
	}
	return signal.NoteReaped
}

// oomOf takes over the report around a kill. A cpuset's name is no cgroup
// path, so the trigger's cgroup stays unknown.
func oomOf(k *oomreport.Kill) *death.OOM {
	r := k.Report
	if r == nil {
		return nil
	}
	o := &death.OOM{
		Constraint: r.Constraint, OOMMemcg: r.OOMMemcg, TaskMemcg: k.TaskMemcg,
		GroupKill: k.Group, MemoryStat: r.MemoryStat, Tasks: r.Tasks,
		Order: r.Order, GFPMask: r.GFPMask,
	}
	if r.TriggerPID != 0 || r.TriggerComm != "" {
		o.Trigger = &death.Trigger{PID: r.TriggerPID, Comm: r.TriggerComm}
	}
	if r.Memory != nil {
		o.UsageBytes, o.LimitBytes = r.Memory.UsageBytes, r.Memory.LimitBytes
	}
	if r.Swap != nil {
		o.SwapUsageBytes, o.SwapLimitBytes = r.Swap.UsageBytes, r.Swap.LimitBytes
	}
	if r.MemorySwap != nil {
		o.MemswUsageBytes, o.MemswLimitBytes = r.MemorySwap.UsageBytes, r.MemorySwap.LimitBytes
	}
	return o
}
