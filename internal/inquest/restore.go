// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest/verdict"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
	"github.com/coroner-dev/coroner/internal/signal"
)

// restoredFor is how long after a restart the deaths from before it can still
// be amended; afterwards they are known only to double nothing.
const restoredFor = 30 * time.Second

// answeredFor is within what time of a death all that is asked about it is answered.
const answeredFor = time.Minute

// answered tells whether c is from an earlier run of the agent that had the time
// to hear what it asked about it.
func (q *Inquest) answered(c *caseFile) bool {
	return c.prior != nil && q.first.Sub(c.observed) > answeredFor
}

// Restore makes deaths that were given out earlier known, oldest first, so
// that late or repeated evidence amends them and doubles nothing. Call it
// before the first signal; now is the time of the restart.
func (q *Inquest) Restore(now time.Time, deaths []death.Death) {
	q.advance(now)
	for i := range deaths {
		q.rememberTold(&deaths[i])
		q.restore(&deaths[i])
	}
}

func (q *Inquest) restore(d *death.Death) {
	c := &caseFile{
		id: d.ID, revision: d.Revision, at: d.Time, observed: d.ObservedAt, touched: d.ObservedAt,
		prior: d, keepUntil: q.now.Add(restoredFor),
		container: d.Container, unit: d.Unit, killer: d.Killer, exit: d.Exit,
		ended: d.Subject == death.SubjectContainer, recovered: d.Recovered,
		evidence: slices.Clone(d.Evidence),
		memory:   d.Memory,
		// Where it was, if it is not known, was looked for when it was told.
		decided: true, weighed: true,
	}
	if d.OOM != nil {
		c.oomKilled = true
		c.oom = *d.OOM
		c.group = d.OOM.GroupKill
		c.taskMemcg = d.OOM.TaskMemcg
		c.named = d.Confidence == death.Certain
		c.context = c.named && d.OOM.Trigger != nil && d.OOM.Order != nil
		if t := d.OOM.Trigger; t != nil {
			c.triggerTID = t.PID
		}
	}
	if at := c.container; at != nil && at.Cgroup != "" && !c.ended && c.taskMemcg != "" && !cgpath.Within(at.Cgroup, c.taskMemcg) {
		c.stray, c.container = &stray{of: at}, nil
	}
	if d.Subject == death.SubjectPod && c.container != nil && c.container.Pod != nil {
		c.pod = q.pods.restored(c.container.Pod, q.now)
	}
	if c.taskMemcg != "" {
		c.podCgroup = cgpath.Parse(c.taskMemcg).PodCgroup
	}
	for _, p := range d.Processes {
		q.add(c, &process{Process: p, at: d.Time, restored: true})
	}
	q.restoreEnd(c, d)
	q.ids[c.id] = q.now
	q.series.recall(c, d)
	last := *d
	c.last = &last
	c.restored = verdict.Judge(q.facts(c))
	q.cases = append(q.cases, c)
}

// restoreEnd takes from the evidence who told of the end, and when, what
// engines said of it, and which was its first process: by that it is known when
// another end is told.
func (q *Inquest) restoreEnd(c *caseFile, d *death.Death) {
	if !c.ended || c.container == nil {
		return
	}
	for i, e := range c.evidence {
		told := signal.Signal{Time: e.Time, Source: e.Source}
		if e.Source == death.SourceTracepoint {
			if first, ok := readFirst(e.Text); ok {
				c.said(told)
				c.first, c.endedAt = first, e.Time
			}
			continue
		}
		if x, ok := readEngine(e.Text); ok {
			c.said(told)
			c.words.take(x)
			c.lineOf(e.Source, i)
		}
	}
	for _, at := range c.by {
		if !c.told(death.SourceTracepoint) && (c.endedAt.IsZero() || at.Before(c.endedAt)) {
			c.endedAt = at
		}
	}
	if c.words.fault != "" && d.Cause != death.StartFailed {
		c.words.started = d.Time // it ran, whenever it began
	}
	q.restoreRun(c)
}

// restoreRun goes on from the container's end before c, and keeps that of c for
// the next.
func (q *Inquest) restoreRun(c *caseFile) {
	key := tenantKey(c.container.Namespace, c.container.ID)
	c.ranSince, c.runKnown = q.tenants.lastEnds[key], true
	last := c.endTime()
	for _, at := range c.by {
		last = later(last, at)
	}
	if key != "" && last.After(c.ranSince) {
		q.tenants.lastEnds[key] = last
	}
}

// readFirst reads the tracepoint's line of a first process.
func readFirst(text string) (firstProcess, bool) {
	text, ok := strings.CutPrefix(text, firstEnded)
	pid, rest, named := strings.Cut(text, " (")
	n, err := strconv.Atoi(pid)
	end := max(strings.LastIndex(rest, "), "+endedBySignal), strings.LastIndex(rest, "), "+leftWithCode))
	if !ok || !named || err != nil || end < 0 {
		return firstProcess{}, false
	}
	return firstProcess{pid: n, comm: rest[:end]}, true
}

// readEngine reads what engineText wrote; nobody else's text begins like that.
func readEngine(text string) (signal.ContainerExit, bool) {
	var b signal.ContainerExit
	text, ok := strings.CutPrefix(text, engineEnded)
	if !ok {
		return b, false
	}
	text, b.Error, _ = strings.Cut(text, ": ")
	for _, part := range strings.Split(text, ",") {
		if code, ok := strings.CutPrefix(part, withCode); ok {
			if n, err := strconv.Atoi(code); err == nil {
				b.Code = &n
			}
		} else if flag, ok := strings.CutPrefix(part, withFlag); ok {
			b.OOMKilled = new(flag == "true")
		} else if reason, ok := strings.CutPrefix(part, withReason); ok {
			b.Reason = reason
		}
	}
	return b, true
}
