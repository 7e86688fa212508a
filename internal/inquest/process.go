// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"slices"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// process is one of the dead, and who has told of it.
type process struct {
	death.Process
	owner    *caseFile
	tid      int
	alias    int // another thread by which the log named it
	mm       uint64
	pidns    uint64
	at       time.Time // when it was killed, by the first to tell
	seen     time.Time // when we knew
	marked   bool      // mark_victim named it
	killSeen bool      // the SIGKILL that goes with it was seen
	reported bool      // the kernel's log named it
	left     bool      // its exit was told
	killers  []int     // threads in which the kernel killed it, of one that is no victim
	restored bool      // known from before a restart
	doubled  bool      // the kernel counted it twice
	unplaced bool      // a group's member, of one of several containers
	nameless bool      // it is not known that it is the one that died here
	alike    string    // the name that all have that may be the one
}

// maxKillers bounds the threads that are remembered to have killed one process.
const maxKillers = 8

// killedIn notes that the kernel killed p in a thread.
func (p *process) killedIn(t signal.Task) {
	if id := or(t.TID, t.PID); id != 0 && len(p.killers) < maxKillers && !slices.Contains(p.killers, id) {
		p.killers = append(p.killers, id)
	}
}

// chosenIn tells whether the OOM killer, called by a thread, killed p before it
// marked it. Who was dying already it marks alone, which is no kill.
func (p *process) chosenIn(t signal.Task) bool {
	id := or(t.TID, t.PID)
	return slices.Contains(p.killers, id) || id == 0 && len(p.killers) > 0
}

// known is what may be said of p: nothing of one of several, of whom it is not
// known which died here, but the name that they share.
func (p *process) known() death.Process {
	if p.nameless {
		return death.Process{Comm: p.alike, Fate: p.Fate}
	}
	return p.Process
}

// deadIndex finds the dead by the ids that sources give: the thread group's
// or a thread's. The newest owner of a reused id wins.
type deadIndex struct {
	ttl   time.Duration
	byPID map[int]*process
	gone  []*process // of cases let go, oldest first: known only to double nothing
}

// maxKnown bounds the processes known after their cases were let go.
const maxKnown = 16384

func newDeadIndex(ttl time.Duration) deadIndex {
	return deadIndex{ttl: ttl, byPID: map[int]*process{}}
}

func (x *deadIndex) put(p *process) {
	for _, id := range [2]int{p.PID, p.tid} {
		if id != 0 {
			x.byPID[id] = p
		}
	}
}

// alias lets p be found by another of its threads.
func (x *deadIndex) alias(p *process, tid int) {
	if tid != 0 && x.byPID[tid] == nil {
		x.byPID[tid] = p
		p.alias = tid
	}
}

func (x *deadIndex) find(ids ...int) *process {
	for _, id := range ids {
		if p := x.byPID[id]; id != 0 && p != nil {
			return p
		}
	}
	return nil
}

func (x *deadIndex) letGo(p *process) {
	p.owner = nil
	x.gone = append(x.gone, p)
}

func (x *deadIndex) expire(now time.Time) {
	n := 0
	for n < len(x.gone) && (now.Sub(x.gone[n].seen) > x.ttl || len(x.gone)-n > maxKnown) {
		p := x.gone[n]
		n++
		for _, id := range [3]int{p.PID, p.tid, p.alias} {
			if x.byPID[id] == p {
				delete(x.byPID, id)
			}
		}
	}
	if n > 0 {
		x.gone = append(x.gone[:0:0], x.gone[n:]...)
	}
}

// pidKey is what makes the id of a death together with its time.
func pidKey(t signal.Task) string { return "pid " + itoa(or(t.PID, t.TID)) }

// figures takes the kernel's sizes over.
func (p *process) figures(f signal.Figures) {
	fill(&p.TotalVMBytes, f.TotalVMBytes)
	fill(&p.AnonRSSBytes, f.AnonRSSBytes)
	fill(&p.FileRSSBytes, f.FileRSSBytes)
	fill(&p.ShmemRSSBytes, f.ShmemRSSBytes)
	fill(&p.PgtablesBytes, f.PgtablesBytes)
	fill(&p.OOMScoreAdj, f.OOMScoreAdj)
}

// sameFigures tells whether f are the very sizes that the kernel gave for p.
func (p *process) sameFigures(f signal.Figures) bool {
	eq := func(a, b *int64) bool { return a != nil && b != nil && *a == *b }
	return eq(p.TotalVMBytes, f.TotalVMBytes) && eq(p.AnonRSSBytes, f.AnonRSSBytes) && eq(p.FileRSSBytes, f.FileRSSBytes)
}

// merge adds what another source knows of the process. The log prints the id
// of whichever thread still had the memory; a tracepoint tells the process.
func (p *process) merge(t signal.Task, f signal.Figures, tracepoint bool) {
	switch {
	case t.PID == 0 || t.PID == p.PID:
	case p.PID == 0:
		p.PID = t.PID
	case tracepoint:
		p.tid, p.PID = or(p.tid, p.PID), t.PID
	default:
		p.tid = or(p.tid, t.PID)
	}
	p.tid = or(p.tid, t.TID)
	if p.Comm == "" {
		p.Comm = t.Comm
	}
	fill(&p.UID, t.UID)
	fill(&p.Init, t.Init)
	if p.mm == 0 {
		p.mm = t.MM
	}
	if p.pidns == 0 {
		p.pidns = t.PIDNS
	}
	p.figures(f)
}

func fill[T any](dst **T, v *T) {
	if *dst == nil {
		*dst = v
	}
}

func or(a, b int) int {
	if a != 0 {
		return a
	}
	return b
}
