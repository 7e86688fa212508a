// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
)

// restoredFor is how long after a restart the deaths from before it can still
// be amended; afterwards they are known only to double nothing.
const restoredFor = 30 * time.Second

// Restore makes deaths that were given out earlier known, oldest first, so
// that late or repeated evidence amends them and doubles nothing. Call it
// before the first signal; now is the time of the restart.
func (q *Inquest) Restore(now time.Time, deaths []death.Death) {
	q.advance(now)
	for i := range deaths {
		q.restore(&deaths[i])
	}
}

func (q *Inquest) restore(d *death.Death) {
	c := &caseFile{
		id: d.ID, revision: d.Revision, at: d.Time, observed: d.ObservedAt, touched: d.ObservedAt,
		prior: d, keepUntil: q.now.Add(restoredFor),
		container: d.Container, unit: d.Unit, killer: d.Killer, exit: d.Exit,
		ended: d.Subject == death.SubjectContainer, recovered: d.Recovered,
		evidence:    d.Evidence,
		memoryAsked: true, memory: d.Memory,
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
	if c.taskMemcg != "" {
		c.podCgroup = cgpath.Parse(c.taskMemcg).PodCgroup
	}
	for _, p := range d.Processes {
		q.add(c, &process{Process: p, at: d.Time, restored: true})
	}
	q.ids[c.id] = q.now
	q.series.place(c, d)
	last := *d
	c.last = &last
	q.cases = append(q.cases, c)
}
