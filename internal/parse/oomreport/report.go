// SPDX-License-Identifier: Apache-2.0

package oomreport

import (
	"maps"
	"time"

	"github.com/coroner-dev/coroner/internal/parse/kernlog"
)

// stage is how far a report has come. The kernel writes its parts in this
// order, so an earlier part begins another report.
type stage int

const (
	stageNew stage = iota
	stageInvoked
	stageUsage // task in, usage, statistics
	stageTable
	stageSummary
	stageChosen
)

// report gathers the lines of one invocation.
type report struct {
	id     uint64
	caller string
	stage  stage
	// done is true once its victim's fate is told.
	done bool
	// gap is true when records were lost since its last line.
	gap bool
	// began is true when its trigger or summary line was seen: then the
	// kernel's rate limit did not apply to it.
	began bool
	// context is true when there is something to show.
	context bool

	last    moment // of its latest line
	rep     Report
	snap    *Report // rep as given out; nil after a change
	sum     summary
	sumLine line // a copy; empty once settled
	sumAt   Origin
	taskIn  bool
	chosen  int // pid of "Kill process P ... or sacrifice child"

	hasStats, inStats bool
	statMemcg         string
	stats             map[string]int64
	table             table

	group string // cgroup of "Tasks in ... are going to be killed"
	isGrp bool
	named []int32
}

// moment is a point on the log's own clock.
type moment struct {
	at    time.Duration
	known bool
}

// momentOf takes the stamp, or else the wall time; one log has the same of
// them all through.
func momentOf(rec *kernlog.Record) moment {
	switch {
	case rec.HasStamp:
		return moment{rec.Stamp, true}
	case !rec.Time.IsZero():
		return moment{time.Duration(rec.Time.UnixNano()), true}
	}
	return moment{}
}

// within tells whether b came at most d after a; when a clock is missing, it
// did.
func within(a, b moment, d time.Duration) bool {
	return !a.known || !b.known || b.at-a.at <= d
}

func originOf(rec *kernlog.Record) Origin {
	return Origin{Seq: rec.Seq, HasSeq: rec.HasSeq, Stamp: rec.Stamp, HasStamp: rec.HasStamp, Time: rec.Time}
}

// reset makes r a new report; its buffers are used again.
func (r *report) reset(id uint64, caller []byte) {
	t, named, stats := r.table, r.named[:0], r.stats
	t.reset()
	clear(stats)
	*r = report{id: id, caller: bounded(caller, 32), table: t, named: named, stats: stats}
	r.rep.ID = id
}

// compatible tells whether a record of this caller can belong to r.
func (r *report) compatible(caller []byte) bool {
	return r.caller == "" || len(caller) == 0 || r.caller == string(caller)
}

// touch notes that a line of the report was seen.
func (r *report) touch(rec *kernlog.Record, s stage) {
	r.stage = max(r.stage, s)
	r.last = momentOf(rec)
	r.context = r.context || s < stageChosen
	r.snap = nil
	if s != stageUsage {
		r.inStats = false
	}
}

// hasPid tells whether the report has given this pid out.
func (r *report) hasPid(p int) bool {
	for _, n := range r.named {
		if int(n) == p {
			return true
		}
	}
	return false
}

func (r *report) name(p int, d *Dropped) {
	if len(r.named) >= maxNamed {
		d.Names++
		return
	}
	r.named = append(r.named, int32(p))
}

// settle reads the summary with the victim's name, if there is one to read.
func (r *report) settle(comm string) {
	if len(r.sumLine.text) == 0 {
		return
	}
	if s, _, ok := parseSummary(&r.sumLine, comm, r.statMemcg); ok {
		r.sum = s
	}
	r.sumLine = line{}
	r.snap = nil
}

// snapshot gives the context as it stands; nil when there is none.
func (r *report) snapshot() *Report {
	if !r.context {
		return nil
	}
	if r.snap != nil {
		return r.snap
	}
	s, rep := &r.sum, r.rep
	rep.Constraint, rep.Nodemask = s.constraint, s.nodemask
	if s.constraint != "" {
		rep.Cpuset, rep.MemsAllowed = s.cpuset, s.mems
		rep.OOMMemcg, rep.TaskMemcg = s.oomMemcg, s.taskMemcg
		rep.GlobalOOM, rep.PathCut = s.global, rep.PathCut || s.pathCut
		rep.VictimPID = s.pid
	}
	if len(r.stats) > 0 {
		rep.MemoryStat = maps.Clone(r.stats)
	}
	rep.Tasks = r.table.tasks()
	r.snap = &rep
	return r.snap
}
