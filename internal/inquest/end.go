// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"strconv"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
	"github.com/coroner-dev/coroner/internal/signal"
)

// endSkew is how far apart two sources may place one end of a container: an
// engine under load tells it late.
const endSkew = 30 * time.Second

// firstProcess is a container's first process, as the tracepoint knows it.
type firstProcess struct {
	pid  int
	comm string
	uid  *int64
}

// words are what engines say of a container's end.
type words struct {
	code      *int
	oomKilled *bool
	fault     string // why it never ran, or the engine's own error
	reason    string // in one word, as the CRI has it
	started   time.Time
	finished  time.Time
	told      bool // by an engine, whatever it said
}

// exit takes the end of a process: how a container's first process ended, or
// that a victim outside containers is gone.
func (q *Inquest) exit(s signal.Signal, b signal.Exit) {
	first := b.Task.Init != nil && *b.Task.Init
	if p := q.dead.find(b.Task.PID); p != nil && q.near(p, s) {
		p.left = true
	}
	if first {
		q.namespaceEnds(s, b.Task)
	}
	c := q.caseOfExit(s, b, first)
	if c == nil && first {
		if q.holdsFirst(s, b.Task) {
			return
		}
		c = q.openOwnEnd(s, b)
	}
	if c == nil && !first {
		q.endedForDaemon(s, b)
		return
	}
	if c == nil || c.told(s.Source) || (!first && c.container != nil) {
		return
	}
	q.exited(c, s, b, first)
	q.touch(c)
}

func (q *Inquest) exited(c *caseFile, s signal.Signal, b signal.Exit, first bool) {
	if c.exit == nil {
		c.exit = &death.Exit{}
	}
	c.exit.Signal = b.Signal
	switch {
	case c.words.code == nil || b.Code == nil && b.Signal == nil:
		c.exit.Code = b.Code
	case inRuntime(b.Task.Comm): // its code is none of the container's
	case b.Code != nil:
		c.exit.Code = b.Code // the kernel's own word; for a signal it has no code
	}
	if !first || c.container == nil {
		return
	}
	c.said(s)
	c.first = firstProcess{b.Task.PID, b.Task.Comm, b.Task.UID}
	told := toldByDaemon(q.kernel.sentTo[b.Task.PID], s, b)
	q.takeSent(c, b.Task.PID)
	q.endsRun(c, s.Time)
	if told != nil && c.killer == nil && !c.oomKilled {
		q.obeys(c, s, b, told)
		return
	}
	switch {
	case b.Signal != nil:
		c.note(s, firstEnded+"%d (%s), "+endedBySignal+"%d", b.Task.PID, death.Printable(b.Task.Comm), *b.Signal)
	case b.Code != nil:
		c.note(s, firstEnded+"%d (%s), "+leftWithCode+"%d", b.Task.PID, death.Printable(b.Task.Comm), *b.Code)
	}
}

// caseOfExit finds the case whose victim ended, or that explains why a
// container's first process did.
func (q *Inquest) caseOfExit(s signal.Signal, b signal.Exit, first bool) *caseFile {
	if p := q.dead.find(b.Task.PID); p != nil && p.owner != nil && p.exited(b) {
		if c := p.owner; c.container == nil || first || !c.initKnown() {
			return c
		}
	}
	if !first {
		return nil
	}
	path := q.roster.path(b.Task.Cgroup)
	var best nearest
	for i := len(q.cases) - 1; i >= 0 && path != ""; i-- {
		c := q.cases[i]
		if c.told(death.SourceTracepoint) || !q.livesAt(c, path) || q.outlived(c, s) {
			continue
		}
		if c.enginesEnd(b.Task.PID) || q.leadsTo(c, s, b) {
			best.look(c, s.Time.Sub(c.endTime()).Abs())
		}
	}
	return best.c
}

// ofAnother tells whether c is of a run of its container of which another than
// pid was the first process.
func (c *caseFile) ofAnother(pid int) bool {
	first := c.initPID()
	return first != 0 && pid != 0 && first != pid
}

// livedAt tells whether path is the cgroup of c's container, or below it.
func (c *caseFile) livedAt(path string) bool {
	if c.container == nil {
		return false
	}
	if c.container.Cgroup == "" { // nobody has told it yet
		return c.container.ID != "" && cgpath.Parse(path).ContainerID == c.container.ID
	}
	return cgpath.Within(c.container.Cgroup, path)
}

// endToldBy finds the end that engines told of, and that a SIGKILL to the
// container's first process, told later, explains.
func (q *Inquest) endToldBy(s signal.Signal, t signal.Task) *caseFile {
	path := q.roster.path(t.Cgroup)
	var best nearest
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		if c.container == nil || c.killer != nil || c.oomKilled || !c.enginesEnd(t.PID) || !q.closeTo(c, s) || q.outlived(c, s) {
			continue
		}
		if x := c.exit; x != nil && x.Code != nil && *x.Code != 128+sigkill && !inRuntime(t.Comm) {
			continue
		}
		if c.first.pid == t.PID || c.sameOwner(path) || q.livesAt(c, path) {
			best.look(c, s.Time.Sub(c.endTime()).Abs())
		}
	}
	return best.c
}

// enginesEnd tells whether c is an end that engines alone told of so far, and
// that may be that of pid.
func (c *caseFile) enginesEnd(pid int) bool {
	return c.words.told && len(c.procs) == 0 && (c.first.pid == 0 || c.first.pid == pid)
}

// leadsTo tells whether a first process left just now because of c.
func (q *Inquest) leadsTo(c *caseFile, s signal.Signal, b signal.Exit) bool {
	return q.closeTo(c, s) && !c.ofAnother(b.Task.PID) && c.mayEnd(b.Code)
}

// closeTo tells whether s follows closely on c: it came soon after, or tells late
// what happened then.
func (q *Inquest) closeTo(c *caseFile, s signal.Signal) bool {
	return q.now.Sub(c.touched) <= oneBreath || s.Time.Sub(c.endTime()).Abs() <= oneBreath
}

// mayEnd tells whether a first process that left with this code, nil for a
// signal, did so because of c. One that ends well was not made to.
func (c *caseFile) mayEnd(code *int) bool {
	return c.ended || !c.initKnown() || code == nil || *code != 0
}

func (p *process) exited(b signal.Exit) bool {
	return b.Task.Comm == "" || p.Comm == "" || b.Task.Comm == p.Comm || p.PID == b.Task.PID
}

// openOwnEnd opens the death of a container whose first process ended, and
// nothing else was seen.
func (q *Inquest) openOwnEnd(s signal.Signal, b signal.Exit) *caseFile {
	path := q.roster.path(b.Task.Cgroup)
	owner, _, _, _ := q.owner(path)
	if owner == nil || q.isSandbox(owner, b.Task.Comm) || q.endWasTold(q.tenants.of(owner), s, signal.ContainerExit{PID: b.Task.PID, Code: exitCode(b.Code, b.Signal)}) {
		return nil
	}
	c := q.open(s, pidKey(b.Task))
	q.place(c, b.Task.Cgroup)
	return c
}

// isSandbox tells whether c only holds a pod's namespaces. Where no engine has
// said so, the name of its program does.
func (q *Inquest) isSandbox(c *death.Container, comm string) bool {
	if t := q.tenants.of(c); t != nil && (t.sandbox || t.Name != "") {
		return t.sandbox
	}
	return c.Pod != nil && comm == "pause"
}

// containerExit takes the end of a container in an engine's words.
func (q *Inquest) containerExit(s signal.Signal, b signal.ContainerExit) {
	t := q.tenants.tenant(s.User, b.Namespace, b.ID)
	if t == nil || t.sandbox || q.holdsEnd(t, s, b) {
		return
	}
	q.endedByEngine(t, s, b)
}

// endedByEngine takes the end of t in an engine's words.
func (q *Inquest) endedByEngine(t *tenant, s signal.Signal, b signal.ContainerExit) {
	c := q.caseOfEngine(t, s, b)
	if c == nil {
		if q.endWasTold(t, s, b) {
			return
		}
		c = q.openEngineEnd(t, s, b)
	}
	again := c.told(s.Source)
	c.said(s)
	c.ended = true
	if c.first.pid == 0 {
		c.first.pid = b.PID
	}
	q.endsRun(c, s.Time)
	if c.words.take(b) || !again {
		c.noteEngine(s, engineText(b))
	}
	c.engineCode(b.Code)
	if !c.oomKilled && (c.killer == nil || c.killerRuntime) {
		c.recheck = q.now.Add(q.opts.Patience + oneBreath/4)
	}
	q.touch(c)
}

// engineCode takes an exit code from an engine, unless the kernel has told it.
func (c *caseFile) engineCode(code *int) {
	if c.exit == nil {
		c.exit = &death.Exit{}
	}
	if code != nil && (c.exit.Code == nil || !c.told(death.SourceTracepoint) || c.inRuntime()) {
		c.exit.Code = code
	}
}

// take adds what b says, and tells whether any of it is new.
func (w *words) take(b signal.ContainerExit) bool {
	was := *w
	w.told = true
	if b.Code != nil {
		w.code = b.Code
	}
	if b.OOMKilled != nil {
		w.oomKilled = b.OOMKilled
	}
	if b.Error != "" {
		w.fault = b.Error
	}
	if b.Reason != "" {
		w.reason = b.Reason
	}
	if !b.Started.IsZero() {
		w.started = b.Started
	}
	if !b.Finished.IsZero() {
		w.finished = b.Finished
	}
	return !equal(was.code, w.code) || !equal(was.oomKilled, w.oomKilled) || was.fault != w.fault || was.reason != w.reason
}

// noteEngine notes what an engine says of the end. What it says later holds
// what it said before.
func (c *caseFile) noteEngine(s signal.Signal, text string) {
	i, before := c.engineLine[s.Source]
	if before {
		c.evidence[i].Text = text
		return
	}
	c.note(s, "%s", text)
	if i = len(c.evidence) - 1; i >= 0 && c.evidence[i].Text == text {
		c.lineOf(s.Source, i)
	}
}

// lineOf notes which line of the evidence is an engine's.
func (c *caseFile) lineOf(src death.Source, i int) {
	if c.engineLine == nil {
		c.engineLine = map[death.Source]int{}
	}
	c.engineLine[src] = i
}

func equal[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

// What the evidence says of an end. A later run reads from it who has told.
const (
	firstEnded    = "sched:sched_process_exit: the container's first process, pid "
	endedBySignal = "ended by signal "
	leftWithCode  = "left with exit code "
	engineEnded   = "the container ended"
	withCode      = " with exit code "
	withFlag      = " OOMKilled is "
	withReason    = " reason "
)

func engineText(b signal.ContainerExit) string {
	t := engineEnded
	if b.Code != nil {
		t += withCode + itoa(*b.Code)
	}
	if b.OOMKilled != nil {
		t += "," + withFlag + strconv.FormatBool(*b.OOMKilled)
	}
	if b.Reason != "" {
		t += "," + withReason + death.Printable(b.Reason)
	}
	if b.Error != "" {
		t += ": " + death.Printable(b.Error)
	}
	return t
}

// caseOfEngine finds the case that tells of the end of which an engine speaks.
func (q *Inquest) caseOfEngine(t *tenant, s signal.Signal, b signal.ContainerExit) *caseFile {
	var oldest *caseFile // engines tell ends in their order
	for _, c := range q.cases {
		if q.tenantOf(c) != t {
			continue
		}
		switch q.isEndOf(c, s, b) {
		case itsEnd:
			return c
		case mayBeItsEnd:
			if oldest == nil || c.endTime().Before(oldest.endTime()) { // it may have been opened later
				oldest = c
			}
		}
	}
	if oldest != nil {
		return oldest
	}
	return q.killBefore(t, s, b)
}

// isEndOf tells whether c is the end of which s speaks.
func (q *Inquest) isEndOf(c *caseFile, s signal.Signal, b signal.ContainerExit) match {
	m := q.matches(c.asEnd(), s, b)
	if m == mayBeItsEnd && !c.ended {
		return anotherEnd
	}
	return m
}

// killBefore finds the OOM kill that the end explains of which an engine speaks:
// of several the last before it.
func (q *Inquest) killBefore(t *tenant, s signal.Signal, b signal.ContainerExit) *caseFile {
	var best nearest
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		if q.tenantOf(c) == t && c.killedJustBefore(s, b.Code) && (c.prior == nil || !b.Started.After(c.lastAt)) {
			best.look(c, s.Time.Sub(c.lastAt))
		}
	}
	return best.c
}

// nearest is the case of least time between a kill and the end that it made. A
// kill that is told to be later is so by the skew of clocks alone.
type nearest struct {
	c   *caseFile
	gap time.Duration
}

func (n *nearest) look(c *caseFile, gap time.Duration) {
	if gap < -afterEnd {
		gap = oneBreath - gap
	}
	if gap = gap.Abs(); n.c == nil || gap < n.gap {
		n.c, n.gap = c, gap
	}
}

// killedJustBefore tells whether the container, whose end with code s tells,
// ended because of the OOM kill of c.
func (c *caseFile) killedJustBefore(s signal.Signal, code *int) bool {
	if !c.oomKilled || c.ended || s.Time.Sub(c.lastAt).Abs() > oneBreath {
		return false
	}
	return code == nil || *code != 0
}

// initPID is the pid of the container's first process where c knows it.
func (c *caseFile) initPID() int {
	for _, p := range c.procs {
		if p.Init != nil && *p.Init && p.PID != 0 {
			return p.PID
		}
	}
	return c.first.pid
}

func (c *caseFile) endTime() time.Time {
	switch {
	case !c.endedAt.IsZero():
		return c.endedAt
	case !c.lastAt.IsZero():
		return c.lastAt
	}
	return c.at
}

// openEngineEnd opens a death of which an engine alone has told.
func (q *Inquest) openEngineEnd(t *tenant, s signal.Signal, b signal.ContainerExit) *caseFile {
	key := "container " + t.ID
	if b.PID != 0 {
		key = pidKey(signal.Task{PID: b.PID})
	}
	c := q.open(s, key)
	path := t.Cgroup
	if claimed := q.roster.claims[t.ID].cgroup; claimed != "" {
		path = claimed
	}
	if path != "" {
		q.place(c, signal.Cgroup{Path: path})
	}
	if q.tenantOf(c) != t {
		c.tenant = t
		c.container, c.unit = &death.Container{ID: t.ID, Runtime: t.Runtime}, ""
	}
	return c
}

// endsRun notes when a run of the container ended, and since when it ran.
func (q *Inquest) endsRun(c *caseFile, at time.Time) {
	c.ended = true
	if c.endedAt.IsZero() {
		c.endedAt = at
	}
	if t := q.tenantOf(c); t != nil && !c.runKnown {
		c.ranSince, c.runKnown = t.lastEnd, true
		if t.lastEnd.Before(c.endedAt) {
			t.lastEnd = c.endedAt
		}
	}
}

// said notes that a source told of the container's end.
func (c *caseFile) said(s signal.Signal) {
	if c.by == nil {
		c.by = map[death.Source]time.Time{}
	}
	if _, again := c.by[s.Source]; !again {
		c.by[s.Source] = s.Time
	}
}

func (c *caseFile) told(by death.Source) bool {
	_, told := c.by[by]
	return told
}

// outOfMemory is an engine's own word of an OOM kill, in the evidence.
const outOfMemory = "the engine says that the container ran out of memory"

// containerOOM takes an engine's own word of an OOM kill: evidence, no more.
func (q *Inquest) containerOOM(s signal.Signal, b signal.ContainerOOM) {
	t := q.tenants.byKey[tenantKey(b.Namespace, b.ID)]
	var its *caseFile
	for i := len(q.cases) - 1; i >= 0 && t != nil; i-- {
		c := q.cases[i]
		apart := s.Time.Sub(c.endTime()).Abs()
		if q.tenantOf(c) == t && apart <= endSkew && !q.outlived(c, s) && (its == nil || apart < s.Time.Sub(its.endTime()).Abs()) {
			its = c
		}
	}
	if its != nil {
		its.note(s, outOfMemory)
		q.touchNames(its)
	} else if t != nil {
		t.oomWord = &s
	}
}

// takeOOMWord takes what an engine said of c before c was known. It says so when it
// tells the end, or late: what it said well before that was late, of an earlier one.
func (q *Inquest) takeOOMWord(c *caseFile) {
	t := q.tenantOf(c)
	if t == nil || t.oomWord == nil || c.prior != nil || q.outlived(c, *t.oomWord) {
		return
	}
	if late := t.oomWord.Time.Sub(c.endTime()); late < -oneBreath || late > endSkew {
		return
	}
	c.note(*t.oomWord, outOfMemory)
	t.oomWord = nil
}

// endAwaiting finds the end of a container, told of already, that an OOM kill
// there at the time of s explains: of several the first after it.
func (q *Inquest) endAwaiting(s signal.Signal, path string, pid int) *caseFile {
	if path == "" {
		return nil
	}
	var best nearest
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		if !c.awaitsKill(path) || q.outlived(c, s) {
			continue
		}
		first := c.initPID()
		if first != 0 && pid != 0 && first == pid && q.nearEnd(c, s) {
			return c
		}
		gap := c.endTime().Sub(s.Time)
		if gap < -c.endGrain() || gap > oneBreath || !c.failed() || c.prior != nil && first != 0 {
			continue
		}
		best.look(c, gap)
	}
	return best.c
}

// endGrain is how much earlier than a kill the end may be told that it brought:
// Kubernetes tells whole seconds.
func (c *caseFile) endGrain() time.Duration {
	if len(c.by) == 1 && c.told(death.SourceKube) {
		return afterEnd + time.Second
	}
	return afterEnd
}

// awaitsKill tells whether c is an end of the container at path that an OOM kill
// may explain.
func (c *caseFile) awaitsKill(path string) bool {
	return !c.oomKilled && c.ended && c.killer == nil && c.container != nil && c.sameOwner(path)
}

// endCounted finds the end of a container, told of already, that a rise of its
// counter of OOM kills explains.
func (q *Inquest) endCounted(path string, r rise) *caseFile {
	since := r.since
	if since.IsZero() {
		since = r.at.Add(-riseAfter)
	}
	for _, c := range q.cases {
		if c.oomKilled || !c.ended || c.killer != nil || !c.sameOwner(path) || !c.failed() {
			continue
		}
		if at := c.endTime(); !at.Before(since.Add(-slack)) && !at.After(r.at.Add(oneBreath)) {
			return c
		}
	}
	return nil
}

func (q *Inquest) nearEnd(c *caseFile, s signal.Signal) bool {
	return s.Time.Sub(c.endTime()).Abs() <= samePID
}

// failed tells whether the container did not end well.
func (c *caseFile) failed() bool {
	x := c.exit
	return x == nil || x.Signal != nil || x.Code == nil || *x.Code != 0
}

// explainedByOOM makes c, an end told of already, that of an OOM kill.
func (q *Inquest) explainedByOOM(c *caseFile, s signal.Signal) {
	c.oomKilled = true
	c.oom.Events = 1
	c.unbooked = !q.ledger.books(s)
	c.recheck = time.Time{}
}
