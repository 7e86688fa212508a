// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"slices"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest/verdict"
	"github.com/coroner-dev/coroner/internal/signal"
)

// containerStop takes that an engine was asked to signal or stop a container.
func (q *Inquest) containerStop(s signal.Signal, b signal.ContainerStop) {
	t := q.tenants.tenant(s.User, b.Namespace, b.ID)
	if t == nil {
		return
	}
	a := ask{ContainerStop: b, source: s.Source, at: s.Time, done: s.Time}
	if b.Action == actionRestart {
		a.done = t.stoppedFor(a)
	}
	t.asks = append(t.asks, a)
	for _, c := range q.cases {
		if q.tenantOf(c) == t && slices.Contains(q.asksOf(c), a) {
			q.touch(c)
		}
	}
	if n := len(t.asks) - maxAsks; n > 0 {
		q.keepAsks(t, t.asks[:n])
		t.asks = slices.Delete(t.asks, 0, n)
	}
}

// keepAsks leaves requests that are dropped to the ends that are due to them: a
// case may be judged again for as long as it is open.
func (q *Inquest) keepAsks(t *tenant, dropped []ask) {
	for _, c := range q.cases {
		if q.tenantOf(c) != t {
			continue
		}
		its := q.asksOf(c)
		for _, a := range dropped {
			if slices.Contains(its, a) && len(c.asks) < 2*maxAsks {
				c.asks = append(c.asks, a)
			}
		}
	}
}

// afterAsk is how much later than an end the signal that it is due to may be
// told, where the same engine has not told the end, and how much earlier
// podman may tell that a stop is done.
const afterAsk = 2 * time.Second

// asksOf are the requests that were made in the run that c ended, or that were
// done by its end.
func (q *Inquest) asksOf(c *caseFile) []ask {
	if c.container == nil || !c.ended {
		return nil
	}
	t := q.tenantOf(c)
	if t == nil || len(c.asks)+len(t.asks) == 0 {
		return nil
	}
	var sent, done []ask
	ends := q.endsOf(t)
	for _, a := range slices.Concat(c.asks, t.asks) {
		switch {
		case a.Action == actionKill && c.inRun(a, ends):
			sent = append(sent, a)
		case a.Action == actionRestart && t.ofPodman(a):
			if c.inRun(a, ends) && c.ranAt(a.at, t, ends) {
				done = append(done, a)
			}
		case a.Action != actionKill && c.doneBy(a, ends) && c.stoppedBy(t, a, sent):
			done = append(done, a)
		}
	}
	return append(sent, done...)
}

// stoppedBy tells whether a stop or a restart that is done stopped the run that
// c ended, in which the engine sent these signals. Docker sends one for each,
// and says the same of a container that had ended by itself and waited to be
// started again. podman tells of none.
func (c *caseFile) stoppedBy(t *tenant, a ask, sent []ask) bool {
	if t.ofPodman(a) {
		return true
	}
	end := c.endTime()
	if told, known := c.by[a.source]; known {
		end = told
	}
	atOnce := a.done.Sub(end) <= afterAsk
	for _, b := range sent {
		if b.Signal == sigkill || atOnce && t.stopsBy(b.Signal) {
			return true
		}
	}
	return atOnce && c.killerRuntime // what was sent may have been before the agent began
}

// ofPodman tells whether podman was asked.
func (t *tenant) ofPodman(a ask) bool {
	return a.Runtime == podman || a.Runtime == "" && t.Runtime == podman
}

// ranAt tells whether the container is known to have run already at a time
// before its end. podman tells of a restart when it begins to stop the
// container, and says the same when its restart policy starts one that ended.
func (c *caseFile) ranAt(at time.Time, t *tenant, ends []end) bool {
	var since time.Time
	for _, e := range ends {
		if e.at.Before(c.endTime()) {
			since = later(since, e.at.Add(notedLate))
		}
	}
	began := func(started time.Time) {
		if started.After(since) && !started.After(c.endTime().Add(notedLate)) {
			c.began = later(c.began, started)
		}
	}
	began(c.words.started)
	for _, r := range t.runs {
		began(r.started)
	}
	return !c.began.IsZero() && !c.began.After(at)
}

// inRun tells whether a was asked in the run that c ended: c is the first end
// that it can have come before.
func (c *caseFile) inRun(a ask, ends []end) bool {
	if a.at.After(askedUntil(c.asEnd(), a.source)) {
		return false
	}
	for _, e := range ends {
		if e.at.Before(c.endTime()) && !a.at.After(askedUntil(e, a.source)) {
			return false
		}
	}
	return true
}

// askedUntil is up to when an engine can have told of what it was asked in the
// run that e ended. It tells that before the end, by which the kernel may be
// quicker, and so may be the time that its answer has for the end.
func askedUntil(e end, by death.Source) time.Time {
	if at, told := e.by[by]; told && !at.Equal(e.finished) {
		return at
	}
	return e.at.Add(afterAsk)
}

// endsOf are the ends of a container that were told, also those that were let go.
func (q *Inquest) endsOf(t *tenant) []end {
	out := slices.Clone(t.ends)
	for _, c := range q.cases {
		if c.ended && q.tenantOf(c) == t {
			out = append(out, c.asEnd())
		}
	}
	return out
}

// doneBy tells whether the end of c is the one by which a stop or a restart was
// done: the last before it.
func (c *caseFile) doneBy(a ask, ends []end) bool {
	at, end := a.done, c.endTime()
	if told := c.by[a.source]; !told.IsZero() && told.Before(end) {
		end = told
	}
	if at.Before(end) {
		return end.Sub(at) <= afterAsk && at.Sub(c.ranSince) > afterAsk
	}
	return at.Sub(end) <= endSkew && !c.endedAgain(at, ends)
}

// stoppedFor is when the stop of a restart was done: the next run may have ended
// before the whole is.
func (t *tenant) stoppedFor(restart ask) time.Time {
	at := restart.at
	for _, b := range t.asks {
		if b.Action == actionStop && b.source == restart.source && !b.at.After(restart.at) && restart.at.Sub(b.at) <= endSkew {
			at = b.at
		}
	}
	return at
}

// endedAgain tells whether the container ended once more after c, until at.
func (c *caseFile) endedAgain(at time.Time, ends []end) bool {
	return slices.ContainsFunc(ends, func(e end) bool { return e.at.After(c.endTime()) && !e.at.After(at) })
}

// requests are asksOf, each with its signal: podman (4.3) names none, and says that
// it was asked once it has sent it, so it is what its runtime was seen to send then.
func (q *Inquest) requests(c *caseFile) []ask {
	asks := q.asksOf(c)
	for i, a := range asks {
		if a.Action == actionKill && a.Signal == 0 && q.tenantOf(c).ofPodman(a) {
			asks[i].Signal = q.sentThen(c, a.at)
		}
	}
	return asks
}

// sentThen is the signal that a runtime sent to the first process at a time, by
// the kernel's word; 0: none was seen.
func (q *Inquest) sentThen(c *caseFile, at time.Time) int {
	n, least := 0, oneBreath/2
	look := func(sig int, sent time.Time) {
		if d := at.Sub(sent).Abs(); d < least {
			n, least = sig, d
		}
	}
	for _, x := range c.sent {
		if q.isRuntime(q.killerOf(x.b), x.b.Sender) {
			look(x.b.Signal, x.s.Time)
		}
	}
	for _, p := range c.procs {
		if c.killerRuntime && p.Fate == death.FateSignalled {
			look(sigkill, p.at)
		}
	}
	return n
}

// stopOf sums up what engines were asked to do in the run that c ended; nil:
// nothing.
func (q *Inquest) stopOf(c *caseFile) *verdict.Stop {
	asks := q.requests(c)
	if len(asks) == 0 {
		return nil
	}
	t := q.tenantOf(c)
	s := &verdict.Stop{Grace: t.grace, End: c.endTime()}
	restart := false
	for _, a := range asks {
		switch {
		case a.Action == actionRestart:
			restart = true
			if t.ofPodman(a) { // which tells no more
				s.Engine, s.Confirmed = a.source, true
			}
		case a.Action != actionKill:
			s.Engine, s.Confirmed = a.source, true
		case a.Signal == sigkill:
			if s.KilledAt.IsZero() {
				s.Engine, s.KilledAt = a.source, a.at
			}
		case a.Signal == 0 || t.stopsBy(a.Signal):
			if s.KilledAt.IsZero() {
				s.Engine, s.At, s.Signal = a.source, a.at, a.Signal
			}
		}
	}
	if s.Engine == "" {
		return nil // other signals, such as SIGHUP to read a configuration
	}
	s.Restart = restart
	s.Confirmed = s.Confirmed || restart && !s.At.IsZero()
	return onlyDone(s)
}

// onlyDone makes of a stop that was told when it was done, and in no other way,
// one that asked then, and killed then if SIGKILL ended the container.
func onlyDone(s *verdict.Stop) *verdict.Stop {
	if s.Confirmed && s.At.IsZero() && s.KilledAt.IsZero() {
		s.At, s.KilledAt, s.Done = s.End, s.End, true
	}
	return s
}

// askedOf is the last signal but SIGKILL that an engine was asked to send
// before the container ended; nil: none.
func (q *Inquest) askedOf(c *caseFile) *verdict.Asked {
	var last *verdict.Asked
	for _, a := range q.requests(c) {
		before := max(c.endTime().Sub(a.at), 0)
		if a.Action == actionKill && a.Signal != 0 && a.Signal != sigkill && before <= verdict.SoonAfter {
			last = &verdict.Asked{Engine: a.source, Signal: a.Signal, Before: before}
		}
	}
	return last
}

// unasked tells whether the engine tells what it is asked to do with the
// container, and told of nothing that its end may be due to. podman tells of a
// stop that is done only at times (4.3: if it notes the end before its monitor
// does), and of no other request.
func (q *Inquest) unasked(c *caseFile, f *verdict.Facts) bool {
	if !c.told(death.SourceDocker) || !q.up[death.SourceDocker] || q.dressed(c).Runtime == podman {
		return false
	}
	return !f.Stop.Matters() && f.Asked == nil
}

// The actions of ContainerStop.
const (
	actionKill    = "kill"
	actionStop    = "stop"
	actionRestart = "restart"
)

// stopsBy tells whether a stop sends this signal.
func (t *tenant) stopsBy(n int) bool {
	if t.stopWith != 0 {
		return n == t.stopWith || n == sigterm
	}
	return n == sigterm
}

// askEvidence puts what engines were asked into the evidence.
func (q *Inquest) askEvidence(c *caseFile) []death.Evidence {
	var out []death.Evidence
	for _, a := range q.requests(c) {
		text := "the engine was asked to " + death.Printable(a.Action) + " the container"
		switch {
		case a.Action == actionKill && a.Signal != 0:
			text = "the engine sent " + verdict.SignalName(a.Signal) + " to the container, as it was asked"
		case a.Action != actionKill:
			text = "the engine says: " + death.Printable(a.Action) + " done, as it was asked"
		}
		out = append(out, death.Evidence{Time: a.at.UTC(), Source: a.source, Text: text})
	}
	return out
}
