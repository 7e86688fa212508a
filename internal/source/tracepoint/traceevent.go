// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"encoding/binary"
	"fmt"

	"github.com/coroner-dev/coroner/internal/signal"
)

// traceFormats are the formats of the events that mode tracefs reads.
type traceFormats struct {
	kill, mark format
	order      binary.ByteOrder
}

// newTraceFormats reads the format files of signal_generate and mark_victim.
// The latter has only the thread's id on older kernels; its other fields came
// in 6.9 and, in 2025, in older stable kernels.
func newTraceFormats(kill, mark []byte, order binary.ByteOrder) (traceFormats, error) {
	f := traceFormats{order: order}
	var err error
	if f.kill, err = parseFormat(kill); err == nil {
		err = f.kill.need("common_type", "common_pid", "sig", "code", "comm", "pid", "result")
	}
	if err != nil {
		return f, fmt.Errorf("parse format of signal_generate: %w", err)
	}
	if f.mark, err = parseFormat(mark); err == nil {
		err = f.mark.need("common_type", "common_pid", "pid")
	}
	if err != nil {
		return f, fmt.Errorf("parse format of mark_victim: %w", err)
	}
	return f, nil
}

// decode returns what an event says: a Kill or a MarkVictim whose tasks hold
// only what stands in the event. The body is nil for any other event.
func (f traceFormats) decode(data []byte) (signal.Body, error) {
	id, ok := f.kill.int(data, "common_type", f.order)
	if !ok {
		return nil, fmt.Errorf("event of %d bytes: %w", len(data), errShort)
	}
	switch int(id) {
	case f.kill.id:
		return f.decodeKill(data)
	case f.mark.id:
		return f.decodeMark(data)
	}
	return nil, nil
}

func (f traceFormats) decodeKill(data []byte) (signal.Body, error) {
	var v [5]int64
	for i, name := range [...]string{"sig", "common_pid", "pid", "code", "result"} {
		n, ok := f.kill.int(data, name, f.order)
		if !ok {
			return nil, fmt.Errorf("signal_generate of %d bytes, field %s: %w", len(data), name, errShort)
		}
		v[i] = n
	}
	k := signal.Kill{Signal: int(v[0]), Code: int(v[3]), Result: resultOf(int(v[4]))}
	k.Sender.TID, k.Target.TID = int(v[1]), int(v[2])
	k.Target.Comm, _ = f.kill.string(data, "comm", f.order)
	if k.Code == signal.CodeKernel && k.Signal != sigKill && k.Sender.TID == k.Target.TID && !k.IsFault() {
		k.Code = 0 // the task may have said so itself; timers of its own have this code, too
	}
	return k, nil
}

// loseInfo is TRACE_SIGNAL_LOSE_INFO (include/trace/events/signal.h): the kernel
// had no memory to keep who sent the signal for the target, which gets it all the same.
const loseInfo = 4

func resultOf(v int) int {
	if v == loseInfo {
		return 0
	}
	return v
}

func (f traceFormats) decodeMark(data []byte) (signal.Body, error) {
	pid, ok := f.mark.int(data, "pid", f.order)
	current, ok2 := f.mark.int(data, "common_pid", f.order)
	if !ok || !ok2 {
		return nil, fmt.Errorf("mark_victim of %d bytes: %w", len(data), errShort)
	}
	m := signal.MarkVictim{
		Victim:  signal.Task{TID: int(pid)},
		Trigger: signal.Task{TID: int(current)},
		Figures: signal.Figures{
			TotalVMBytes:  f.kilobytes(data, "total_vm"),
			AnonRSSBytes:  f.kilobytes(data, "anon_rss"),
			FileRSSBytes:  f.kilobytes(data, "file_rss"),
			ShmemRSSBytes: f.kilobytes(data, "shmem_rss"),
			PgtablesBytes: f.kilobytes(data, "pgtables"),
		},
	}
	m.Victim.Comm, _ = f.mark.string(data, "comm", f.order)
	if uid, ok := f.mark.int(data, "uid", f.order); ok {
		m.Victim.UID = &uid
	}
	if adj, ok := f.mark.int(data, "oom_score_adj", f.order); ok {
		v := int(adj)
		m.Figures.OOMScoreAdj = &v
	}
	return m, nil
}

func (f traceFormats) kilobytes(data []byte, name string) *int64 {
	v, ok := f.mark.int(data, name, f.order)
	if !ok || v < 0 || v > 1<<52 {
		return nil
	}
	v <<= 10
	return &v
}

// merge puts what stands in the event into what procfs said of the task
// afterwards, or known, what it said a moment before; the event is right where
// they differ.
func merge(event, looked, known signal.Task) signal.Task {
	if event.Comm != "" && looked.Comm != "" && event.Comm != looked.Comm {
		looked = signal.Task{} // another task by now
	}
	if looked.PID == 0 {
		looked = known
	} else if known.PID == looked.PID {
		if looked.Cgroup.Path == "" {
			looked.Cgroup = known.Cgroup
		}
		if looked.Init == nil {
			looked.Init = known.Init
		}
	}
	looked.TID = event.TID
	if event.Comm != "" {
		looked.Comm = event.Comm
	}
	if event.UID != nil {
		looked.UID = event.UID
	}
	return looked
}

// mergeVictim is merge for the one that dies. Where nothing told the process
// of the thread, the thread's id stands in for it, as in the kernel's report.
func mergeVictim(event, looked, known signal.Task) signal.Task {
	t := merge(event, looked, known)
	if t.PID == 0 {
		t.PID = t.TID
	}
	return t
}
