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
	noTotals          bool
	// The widths of the lines that end in what may lack its end.
	adjWidth, memsWidth, taskWidth, sumWidth int
	sumDoubt                                 bool
	stats                                    map[string]int64
	table                                    table

	group string // cgroup of "Tasks in ... are going to be killed"
	isGrp bool
	named []victim
}

// moment is a point on the log's clocks.
type moment struct {
	stamp, wall       time.Duration
	hasStamp, hasWall bool
}

func momentOf(rec *kernlog.Record) moment {
	m := moment{stamp: rec.Stamp, hasStamp: rec.HasStamp, hasWall: !rec.Time.IsZero()}
	if m.hasWall {
		m.wall = time.Duration(rec.Time.UnixNano())
	}
	return m
}

// within tells whether a and b are at most d apart, by printk's clock or else
// by the wall's; when they have no clock in common, they are.
func within(a, b moment, d time.Duration) bool {
	switch {
	case a.hasStamp && b.hasStamp:
		return (b.stamp - a.stamp).Abs() <= d
	case a.hasWall && b.hasWall:
		return (b.wall - a.wall).Abs() <= d
	}
	return true
}

// victim is a process that a report has given out.
type victim struct {
	whose
	pid  int
	comm string // empty: not known
	// witnessed is true once a kill line has told of it.
	witnessed bool
	figures   [5]int64 // of the kill line; -1: it has no such figure
}

// shrankTo tells whether the figures of a kill line can be v's a moment later: as
// large, of which the kernel may have taken some memory.
func (v *victim) shrankTo(kl *killLine) bool {
	now := victimOf(&Kill{
		TotalVMBytes: kl.totalVM, AnonRSSBytes: kl.anon, FileRSSBytes: kl.file, ShmemRSSBytes: kl.shmem, PgtablesBytes: kl.pgtables,
	}).figures
	for i := range now {
		if now[i] > v.figures[i] || (now[i] < 0) != (v.figures[i] < 0) {
			return false
		}
	}
	return now[0] == v.figures[0]
}

func victimOf(k *Kill) victim {
	v := victim{
		whose: whose{k.Memcg, k.Global}, pid: k.PID, comm: k.Comm, witnessed: k.From == FromKilled,
		figures: [5]int64{-1, -1, -1, -1, -1},
	}
	for i, f := range []*int64{k.TotalVMBytes, k.AnonRSSBytes, k.FileRSSBytes, k.ShmemRSSBytes, k.PgtablesBytes} {
		if f != nil {
			v.figures[i] = *f
		}
	}
	return v
}

func originOf(rec *kernlog.Record) Origin {
	return Origin{Seq: rec.Seq, HasSeq: rec.HasSeq, Stamp: rec.Stamp, HasStamp: rec.HasStamp, Time: rec.Time}
}

// reset makes r a new report; its buffers are used again.
func (r *report) reset(id uint64, caller []byte) {
	t, named, stats := r.table, r.named[:0], r.stats
	t.reset()
	clear(stats)
	clear(r.named)
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

// find gives the victim of this pid that the report gave out; nil: none.
func (r *report) find(p int) *victim {
	for i := range r.named {
		if r.named[i].pid == p {
			return &r.named[i]
		}
	}
	return nil
}

// witness notes the kill line of a victim that was known without one.
func (v *victim) witness(k *Kill) {
	if !v.witnessed {
		*v = victimOf(k)
	}
}

// again tells whether a kill line names a victim once more: a group kill does
// it, and a line that stands in a paste twice. Pids come back, so the pid
// alone proves nothing.
func (r *report) again(kl *killLine, now moment) bool {
	v := r.find(kl.pid)
	if v == nil || !within(r.last, now, reportSpan) || v.comm != "" && len(kl.comm) > 0 && v.comm != string(kl.comm) {
		return false
	}
	if !v.witnessed {
		return true // the line that the summary or the reaper stood for
	}
	k := Kill{
		PID: kl.pid, TotalVMBytes: kl.totalVM, AnonRSSBytes: kl.anon, FileRSSBytes: kl.file,
		ShmemRSSBytes: kl.shmem, PgtablesBytes: kl.pgtables,
	}
	return v.whose == kl.whose && (r.isGrp || v.figures == victimOf(&k).figures)
}

func (r *report) name(k *Kill, d *Dropped) {
	if len(r.named) >= maxNamed {
		d.Names++
		return
	}
	r.named = append(r.named, victimOf(k))
}

// settle reads the summary with the victim's name, if there is one to read.
func (r *report) settle(comm string) {
	if len(r.sumLine.text) == 0 {
		return
	}
	if s, _, ok := parseSummary(&r.sumLine, comm, r.statMemcg); ok {
		if r.sumDoubt {
			s.uid = nil
		}
		r.sum = s
	}
	r.sumLine = line{}
	r.snap = nil
}

// recheck leaves out what stood at the end of lines that were cut, as the
// lines after them show.
func (r *report) recheck(w *wrap) {
	if w.cut(r.adjWidth) {
		r.rep.OOMScoreAdj, r.adjWidth, r.snap = nil, 0, nil
	}
	if w.cut(r.memsWidth) {
		r.rep.MemsAllowed, r.memsWidth, r.snap = "", 0, nil
	}
	if w.cut(r.taskWidth) {
		r.taskWidth, r.snap = 0, nil
		r.doubtLimit()
	}
	if w.cut(r.sumWidth) {
		r.sum.uid, r.sumWidth, r.sumDoubt = nil, 0, true
	}
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
		if r.noTotals {
			maps.DeleteFunc(rep.MemoryStat, func(name string, _ int64) bool { return has([]byte(name), "total_") })
		}
	}
	rep.Tasks = r.table.tasks()
	r.snap = &rep
	return r.snap
}

// backwards is how far stamps of one boot may go back: records of several
// processors and doubled blocks of a paste do.
const backwards = time.Minute

// rebooted tells whether rec is of another boot than the record before it.
func (p *Parser) rebooted(rec *kernlog.Record) bool {
	known := len(p.boot) > 0 && len(rec.BootID) > 0
	other := known && p.boot != string(rec.BootID[:min(len(rec.BootID), maxBoot)])
	if len(rec.BootID) > 0 && (other || p.boot == "") {
		p.boot = bounded(rec.BootID, maxBoot)
	}
	if rec.HasStamp {
		// Where the log names its boots, the stamps need not tell.
		other = other || !known && rec.Stamp < p.stamp-backwards
		p.stamp = rec.Stamp
	}
	return other
}
