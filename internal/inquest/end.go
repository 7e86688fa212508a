// SPDX-License-Identifier: Apache-2.0

package inquest

import (
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
	c := q.caseOfExit(b, first)
	if c == nil && first {
		c = q.openOwnEnd(s, b)
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
	if b.Code != nil || b.Signal == nil || c.words.code == nil {
		c.exit.Code = b.Code // the kernel's own word; for a signal it has no code
	}
	if !first || c.container == nil {
		return
	}
	c.said(s)
	c.first = firstProcess{b.Task.PID, b.Task.Comm, b.Task.UID}
	q.takeSent(c, b.Task.PID)
	q.endsRun(c, s.Time)
	switch {
	case b.Signal != nil:
		c.note(s, "sched:sched_process_exit: the container's first process, pid %d (%s), ended by signal %d", b.Task.PID, death.Printable(b.Task.Comm), *b.Signal)
	case b.Code != nil:
		c.note(s, "sched:sched_process_exit: the container's first process, pid %d (%s), left with exit code %d", b.Task.PID, death.Printable(b.Task.Comm), *b.Code)
	}
}

// caseOfExit finds the case whose victim ended, or that explains why a
// container's first process did.
func (q *Inquest) caseOfExit(b signal.Exit, first bool) *caseFile {
	if p := q.dead.find(b.Task.PID); p != nil && p.owner != nil && p.exited(b) {
		if c := p.owner; c.container == nil || first || !c.initKnown() {
			return c
		}
	}
	if !first {
		return nil
	}
	path := q.roster.path(b.Task.Cgroup)
	for i := len(q.cases) - 1; i >= 0 && path != ""; i-- {
		c := q.cases[i]
		if c.told(death.SourceTracepoint) || !c.livedAt(path) {
			continue
		}
		if c.enginesEnd(b.Task.PID) || q.now.Sub(c.touched) <= oneBreath && c.mayEnd(b.Code) {
			return c
		}
	}
	return nil
}

// livedAt tells whether path is the cgroup of c's container, or below it.
func (c *caseFile) livedAt(path string) bool {
	return c.container != nil && c.container.Cgroup != "" && cgpath.Within(c.container.Cgroup, path)
}

// endToldBy finds the end that engines told of, and that a SIGKILL to the
// container's first process, told later, explains.
func (q *Inquest) endToldBy(t signal.Task) *caseFile {
	path := q.roster.path(t.Cgroup)
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		if c.container == nil || c.killer != nil || c.oomKilled || !c.enginesEnd(t.PID) || q.now.Sub(c.touched) > oneBreath {
			continue
		}
		if x := c.exit; x != nil && x.Code != nil && *x.Code != 128+sigkill {
			continue
		}
		if c.first.pid == t.PID || c.sameOwner(path) {
			return c
		}
	}
	return nil
}

// enginesEnd tells whether c is an end that engines alone told of so far, and
// that may be that of pid.
func (c *caseFile) enginesEnd(pid int) bool {
	return c.words.told && len(c.procs) == 0 && (c.first.pid == 0 || c.first.pid == pid)
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
	if owner == nil || q.isSandbox(owner, b.Task.Comm) || q.endWasTold(q.tenants.of(owner), s) {
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
	t := q.tenants.tenant(b.Namespace, b.ID)
	if t == nil || t.sandbox {
		return
	}
	c := q.caseOfEngine(t, s, b)
	if c == nil {
		if q.endWasTold(t, s) {
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
	if c.exit == nil {
		c.exit = &death.Exit{}
	}
	if b.Code != nil && (c.exit.Code == nil || !c.told(death.SourceTracepoint)) {
		c.exit.Code = b.Code
	}
	if !c.oomKilled && (c.killer == nil || c.killerRuntime) {
		c.recheck = q.now.Add(q.opts.Patience + oneBreath/4)
	}
	q.touch(c)
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
		if c.engineLine == nil {
			c.engineLine = map[death.Source]int{}
		}
		c.engineLine[s.Source] = i
	}
}

func equal[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

func engineText(b signal.ContainerExit) string {
	t := "the container ended"
	if b.Code != nil {
		t += " with exit code " + itoa(*b.Code)
	}
	if b.OOMKilled != nil {
		t += map[bool]string{true: ", OOMKilled is true", false: ", OOMKilled is false"}[*b.OOMKilled]
	}
	if b.Reason != "" {
		t += ", reason " + death.Printable(b.Reason)
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
		switch c.isEndOf(s, b.PID) {
		case itsEnd:
			return c
		case mayBeItsEnd:
			if oldest == nil {
				oldest = c
			}
		}
	}
	if oldest != nil {
		return oldest
	}
	for i := len(q.cases) - 1; i >= 0; i-- {
		if c := q.cases[i]; q.tenantOf(c) == t && c.killedJustBefore(s, b.Code) {
			return c
		}
	}
	return nil
}

// match says how well a case fits what an engine tells.
type match int

const (
	anotherEnd match = iota
	mayBeItsEnd
	itsEnd
)

// isEndOf tells whether c is the end of which s speaks, of the run whose first
// process was pid; 0: not told.
func (c *caseFile) isEndOf(s signal.Signal, pid int) match {
	apart := s.Time.Sub(c.endTime()).Abs()
	if at, said := c.by[s.Source]; said {
		if at.Equal(s.Time) {
			return itsEnd
		}
		return anotherEnd
	}
	if own := c.initPID(); own != 0 && pid != 0 {
		if own == pid && apart <= samePID {
			return itsEnd
		}
		return anotherEnd
	}
	if c.ended && apart <= endSkew {
		return mayBeItsEnd
	}
	return anotherEnd
}

// killedJustBefore tells whether the container, whose end with code s tells,
// ended because of the OOM kill of c.
func (c *caseFile) killedJustBefore(s signal.Signal, code *int) bool {
	if !c.oomKilled || c.ended || s.Time.Sub(c.lastAt).Abs() > oneBreath {
		return false
	}
	if c.initKnown() {
		return code == nil || *code != 0
	}
	return code == nil || *code > 128
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

// rememberEnd keeps the end of a case that is let go.
func (q *Inquest) rememberEnd(c *caseFile) {
	if !c.ended || c.container == nil {
		return
	}
	t := q.tenantOf(c)
	if t == nil {
		return
	}
	if c.by == nil {
		c.by = map[death.Source]time.Time{}
	}
	t.ends = append(t.ends, end{c.endTime(), c.by})
	if len(t.ends) > maxEnds {
		t.ends = append(t.ends[:0:0], t.ends[len(t.ends)-maxEnds:]...)
	}
}

// endWasTold tells whether s speaks of an end whose case was let go.
func (q *Inquest) endWasTold(t *tenant, s signal.Signal) bool {
	if t == nil {
		return false
	}
	for _, e := range t.ends {
		at, said := e.by[s.Source]
		if said && at.Equal(s.Time) || !said && e.at.Sub(s.Time).Abs() <= endSkew {
			e.by[s.Source] = s.Time
			q.stats.Late++
			return true
		}
	}
	return false
}

// containerStop takes that an engine was asked to signal or stop a container.
func (q *Inquest) containerStop(s signal.Signal, b signal.ContainerStop) {
	t := q.tenants.tenant(b.Namespace, b.ID)
	if t == nil {
		return
	}
	t.asked(s.Source, b, s.Time)
	for _, c := range q.cases {
		if q.tenantOf(c) == t && c.ended && s.Time.Sub(c.endTime()).Abs() <= endSkew {
			q.touch(c)
		}
	}
}

// afterAsk is how much later than the end an engine may say that it was asked.
const afterAsk = 2 * time.Second

// asksOf are the requests that were made in the run that c ended.
func (q *Inquest) asksOf(c *caseFile) []ask {
	if c.container == nil || !c.ended {
		return nil
	}
	t := q.tenantOf(c)
	if t == nil {
		return nil
	}
	var out []ask
	for _, a := range t.asks {
		if a.at.After(c.ranSince) && !a.at.After(c.endTime().Add(afterAsk)) {
			out = append(out, a)
		}
	}
	return out
}

// containerOOM takes an engine's own word of an OOM kill: evidence, no more.
func (q *Inquest) containerOOM(s signal.Signal, b signal.ContainerOOM) {
	t := q.tenants.byKey[tenantKey(b.Namespace, b.ID)]
	for i := len(q.cases) - 1; i >= 0 && t != nil; i-- {
		if c := q.cases[i]; q.tenantOf(c) == t && s.Time.Sub(c.endTime()).Abs() <= endSkew {
			c.note(s, "the engine says that the container ran out of memory")
			q.touchNames(c)
			return
		}
	}
}

// endAwaiting finds the end of a container, told of already, that an OOM kill
// there at the time of s explains.
func (q *Inquest) endAwaiting(s signal.Signal, path string, pid int) *caseFile {
	if path == "" {
		return nil
	}
	for i := len(q.cases) - 1; i >= 0; i-- {
		c := q.cases[i]
		if c.oomKilled || !c.ended || c.killer != nil || c.container == nil || !c.sameOwner(path) {
			continue
		}
		if first := c.initPID(); first != 0 && pid != 0 && first == pid && q.nearEnd(c, s) {
			return c
		}
		gap := c.endTime().Sub(s.Time)
		if gap < -afterEnd || gap > oneBreath || !c.failed() {
			continue
		}
		return c
	}
	return nil
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
