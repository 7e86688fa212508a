// SPDX-License-Identifier: Apache-2.0

// Package inquest turns signals into deaths: it joins what the sources say of
// one death, in whatever order they say it, and has the verdict rules judge.
//
// An Inquest is a plain value with one owner. It does no I/O, starts no
// goroutine and reads no clock: time comes with the signals and with Tick, so
// the same signals and ticks always give the same deaths.
//
// A death is given out as soon as it is certain that there is one, and again
// with a higher revision when later evidence says more.
package inquest

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Options set up an Inquest. Zero values take the defaults.
type Options struct {
	// Node is told with each death; BootID makes their ids unique.
	Node   string
	BootID string
	// Settle is how long a case stays open for late evidence; 5 s.
	Settle time.Duration
	// Patience is how long a counter's rise waits for a source that can name
	// the process, before it becomes a death of its own; 2 s.
	Patience time.Duration
	// TombstoneTTL is how long a removed cgroup, and a death's processes,
	// stay known; 10 min.
	TombstoneTTL time.Duration
	// MaxCases bounds the cases held in memory; 4096. Beyond it the oldest
	// are settled early.
	MaxCases int
}

func (o *Options) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&o.Settle, 5*time.Second)
	set(&o.Patience, 2*time.Second)
	set(&o.TombstoneTTL, 10*time.Minute)
	if o.MaxCases <= 0 {
		o.MaxCases = 4096
	}
}

// Stats is what the inquest knows of its own completeness.
type Stats struct {
	// NodeOOMKills is what the kernel counted (vmstat) since the start,
	// NodeTotal what it counted since boot; 0: not heard of.
	NodeOOMKills, NodeTotal uint64
	// Unattributed are kernel kills for which no death could be written.
	Unattributed uint64
	// OpenCases are in memory; EarlySettled were let go because of MaxCases.
	OpenCases    int
	EarlySettled uint64
	// AlreadyDying counts victims of mark_victim that were dying before: no kills.
	AlreadyDying uint64
	// CountedOnly are deaths that a counter alone told of.
	CountedOnly uint64
	// CountedTwice are kills that the kernel counted twice.
	CountedTwice uint64
	// NoRoom counts what engines told of containers beyond those that there is
	// room for, Disbelieved what users' engines told of others' containers.
	NoRoom, Disbelieved uint64
	// Late counts evidence for deaths already let go; it doubles nothing.
	Late uint64
}

// Inquest owns all open cases.
type Inquest struct {
	opts      Options
	now       time.Time
	first     time.Time // when it began
	cleaned   time.Time
	roster    roster
	tenants   tenants
	pods      pods
	node      node
	cases     []*caseFile // open, oldest first
	dead      deadIndex
	kernel    kernelKills
	ledger    ledger
	series    series
	held      []heldReport
	heldEnds  []heldEnd
	homeless  []signal.Signal // of first processes in nobody's cgroup, so far
	unread    []signal.Signal // of the log, until the counters are known
	told      []toldKill      // before this run
	toldSince time.Time       // all deaths since then are known; zero: none
	// countedSince is since when the counters are watched without a gap.
	countedSince time.Time
	// wordSince is since when the API of Kubernetes answers.
	wordSince time.Time
	lag       lag
	logSeq    uint64 // the newest record of the kernel's log taken
	dirty     []*caseFile
	wants     []Want
	// systemAsked is when the node's events were asked for last.
	ofNow       int // open cases that are not recovered, at the last tick
	systemAsked time.Time
	abandoned   []string             // containers that nobody speaks for
	curves      map[string]time.Time // when a container's curve was told last
	escapes     escapes
	up          map[death.Source]bool
	mode        map[death.Source]string
	ids         map[string]time.Time
	reports     map[uint64]*caseFile // last case of each kernel report
	stats       Stats
}

// New returns an Inquest without cases.
func New(o Options) *Inquest {
	o.defaults()
	return &Inquest{
		opts:    o,
		roster:  newRoster(o.TombstoneTTL),
		tenants: newTenants(o.TombstoneTTL),
		pods:    newPods(o.TombstoneTTL),
		dead:    newDeadIndex(o.TombstoneTTL),
		kernel:  newKernelKills(),
		ledger:  newLedger(),
		series:  newSeries(),
		escapes: escapes{},
		up:      map[death.Source]bool{},
		mode:    map[death.Source]string{},
		curves:  map[string]time.Time{},
		ids:     map[string]time.Time{},
		reports: map[uint64]*caseFile{},
	}
}

// Feed takes one signal.
func (q *Inquest) Feed(s signal.Signal) {
	q.advance(s.Observed)
	q.lag.heard(s, q.now)
	if q.tooEarly(s) {
		return
	}
	q.take(s)
}

// take is Feed at the right time.
func (q *Inquest) take(s signal.Signal) {
	switch b := s.Body.(type) {
	case signal.MarkVictim:
		q.learnFirst(&b.Victim)
		q.markVictim(s, b)
		q.releaseHeld(b.Victim)
	case signal.OOMInvocation:
		q.invoked(s, b)
	case signal.Kill:
		q.learnFirst(&b.Target)
		q.kill(s, b)
		q.releaseHeld(b.Target)
	case signal.Exit:
		q.learnFirst(&b.Task)
		q.exit(s, b)
	case signal.ReportedKill:
		q.logSeq = max(q.logSeq, b.Seq)
		q.reportedKill(s, b)
	case signal.ReportedGroup:
		q.logSeq = max(q.logSeq, b.Seq)
		q.reportedGroup(s, b)
	case signal.ReportedNote:
		q.logSeq = max(q.logSeq, b.Seq)
		q.reportedNote(s, b)
	case signal.CgroupSeen:
		q.cgroupSeen(b)
	case signal.CgroupGone:
		q.cgroupGone(s, b)
	case signal.CgroupCounters:
		q.cgroupCounters(s, b)
	case signal.NodeCounters:
		q.nodeCounters(b)
	case signal.SourceState:
		q.sourceState(s.Source, b)
	default:
		q.takeEngine(s)
	}
}

// takeEngine takes what a container engine says, or what was looked up.
func (q *Inquest) takeEngine(s signal.Signal) {
	if !q.Believes(s) {
		q.stats.Disbelieved++
		return
	}
	switch b := s.Body.(type) {
	case signal.ContainerSeen:
		q.containerSeen(s, b)
	case signal.ContainerGone:
		q.tenants.gone(s.Source, b, q.now)
	case signal.ContainerExit:
		q.containerExit(s, b)
	case signal.ContainerStop:
		q.containerStop(s, b)
	case signal.ContainerOOM:
		q.containerOOM(s, b)
	case signal.MemoryHistory:
		q.memoryHistory(s, b)
	case signal.ContainerLog:
		q.containerLog(s, b)
	case signal.ProcessesEscaped:
		q.processesEscaped(s, b)
	case signal.PIDNamespace:
		q.pidNamespace(s, b)
	case signal.OOMDaemonWord:
		q.daemonWord(b)
	default:
		q.takeKube(s)
	}
}

// takeKube takes what Kubernetes says.
func (q *Inquest) takeKube(s signal.Signal) {
	switch b := s.Body.(type) {
	case signal.PodSeen:
		q.podSeen(s, b)
	case signal.PodGone:
		q.pods.gone(b.UID, q.now)
	case signal.PodEvents:
		q.podEvents(s, b)
	case signal.NodeSeen:
		q.nodeSeen(s, b)
	}
}

// Tick says that it is now so late: what was waited for is decided, what has
// settled is let go. Call it at least each second.
func (q *Inquest) Tick(now time.Time) {
	q.advance(now)
	q.readUnread()
	q.decideHeld()
	q.releaseEnds(nil)
	q.expireHomeless()
	q.audit()
	q.kernel.expire(q.now)
	q.roster.expire(q.now)
	q.abandon()
	q.tenants.expire(q.now)
	q.pods.expire(q.now)
	q.recheck()
	q.wantMemory()
	q.wantEvents()
	q.wantSystemOOM()
	q.dead.expire(q.now)
	q.settle()
	if q.now.Sub(q.cleaned) > idsFor {
		q.cleaned = q.now
		q.expireIDs()
		q.escapes.expire(q.now, q.opts.TombstoneTTL)
	}
}

// Take returns the deaths made or amended since it was last called, each
// once, in the order in which they were opened.
func (q *Inquest) Take() []death.Death {
	q.foldLate()
	var out []death.Death
	held := q.dirty[:0]
	for _, c := range q.dirty {
		if q.waiting(c) {
			held = append(held, c)
			continue
		}
		c.dirty = false
		if d, changed := q.build(c); changed {
			out = append(out, d)
		}
	}
	clear(q.dirty[len(held):])
	q.dirty = held
	return out
}

// Close decides what still waits, for a source that has come to its end.
func (q *Inquest) Close() []death.Death {
	q.Tick(q.now.Add(q.opts.Settle + q.opts.Patience + time.Second))
	return q.Take()
}

// Stats returns the inquest's figures about itself.
func (q *Inquest) Stats() Stats {
	st := q.stats
	st.OpenCases = len(q.cases)
	st.CountedTwice = q.ledger.twice
	st.NoRoom = q.tenants.full
	return st
}

func (q *Inquest) sourceState(src death.Source, b signal.SourceState) {
	if src == death.SourceCgroup && b.Up && !q.up[src] {
		q.countedSince = q.now
	}
	away := q.kubeAway()
	q.up[src], q.mode[src] = b.Up, b.Mode
	if away && !q.kubeAway() {
		q.wordSince = q.now
	}
	q.tenants.heardOf(src, b.Up, q.now)
	if src == death.SourceTracepoint && !b.Up {
		q.lag = lag{}
	}
	if src == death.SourceCgroup && b.Up {
		q.ledger.flat = b.Mode == "v1"
		q.ledger.begin(q.now)
		q.readUnread()
	}
}

func (q *Inquest) advance(t time.Time) {
	if t.After(q.now) {
		q.now = t
	}
	if q.first.IsZero() {
		q.first = q.now
	}
}

// touch marks c for the next Take.
func (q *Inquest) touch(c *caseFile) {
	c.touched = q.now
	if !c.dirty {
		c.dirty = true
		q.dirty = append(q.dirty, c)
	}
}

// settle lets go of cases that nothing was added to for a while.
func (q *Inquest) settle() {
	keep := q.cases[:0]
	for i, c := range q.cases {
		tooMany := len(q.cases)-i+len(keep) > q.opts.MaxCases
		settled := q.now.Sub(c.touched) > q.opts.Settle && q.now.After(c.keepUntil) && !c.awaited(q.now) && q.now.After(c.system.until)
		if q.waiting(c) || settled && (q.awaitsWord(c) || q.awaitsEngine(c) || q.awaitsSystemOOM(c)) {
			settled = false
		}
		if (settled || tooMany) && !c.dirty {
			if !settled {
				q.stats.EarlySettled++
			}
			q.forget(c)
			continue
		}
		keep = append(keep, c)
	}
	clear(q.cases[len(keep):])
	q.cases = keep
}

// recheck has cases judged again for which what was waited for did not come.
func (q *Inquest) recheck() {
	for _, c := range q.cases {
		if !c.recheck.IsZero() && !q.now.Before(c.recheck) {
			c.recheck, c.waited = time.Time{}, true
			q.touchNames(c)
		}
	}
}

// lostFor is how long a kill that nobody could place waits for a counter.
const lostFor = time.Minute

func (q *Inquest) forget(c *caseFile) {
	q.rememberEnd(c)
	if c.decided && !c.weighed && c.taskMemcg == "" && len(q.ledger.orphans) < maxKnown {
		q.ledger.orphans = append(q.ledger.orphans, c.killed())
	}
	for _, p := range c.procs {
		q.dead.letGo(p)
	}
	if c.hasReport && q.reports[c.report] == c {
		delete(q.reports, c.report)
	}
}

// idsFor is how long an id that was given out is not given again: longer than
// any grain of time that goes into it.
const idsFor = time.Minute

func (q *Inquest) expireIDs() {
	for id, at := range q.ids {
		if q.now.Sub(at) > idsFor {
			delete(q.ids, id)
		}
	}
}
