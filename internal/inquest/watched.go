// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
)

// lastKill is the last OOM kill in a container.
type lastKill struct {
	at     time.Time
	id     string // of its death
	source death.Source
}

// rememberOOM keeps of c, an OOM kill, what an end of its container later needs.
func (q *Inquest) rememberOOM(c *caseFile) {
	t := q.tenantOf(c)
	if !c.oomKilled || t == nil || c.at.Before(t.lastOOM.at) {
		return
	}
	t.lastOOM = lastKill{at: c.at, id: c.id, source: death.SourceCgroup}
	if len(c.evidence) > 0 {
		t.lastOOM.source = c.evidence[0].Source
	}
}

// oomBefore is the OOM kill that was told of the run that c ended, before its
// end; nil: none.
func (q *Inquest) oomBefore(c *caseFile) *lastKill {
	t := q.tenantOf(c)
	if t == nil || c.oomKilled || t.lastOOM.at.IsZero() || !t.lastOOM.at.After(c.ranSince) || t.lastOOM.at.After(c.endTime()) {
		return nil
	}
	return &t.lastOOM
}

// countersSay tells whether the kernel's counters were watched when c ended, and
// show no OOM kill in the run that it ended.
func (q *Inquest) countersSay(c *caseFile) bool {
	watched := q.countedSince
	if !q.up[death.SourceCgroup] || !q.ledger.nodeKnown || c.endTime().Before(watched) || q.oomBefore(c) != nil {
		return false
	}
	if flag := c.words.oomKilled; flag != nil && *flag {
		return false // then they were not watched as it seems
	}
	began := later(c.words.started, c.ranSince)
	if t := q.tenantOf(c); t != nil && t.started.Before(c.endTime()) {
		began = later(began, t.started)
	}
	if !began.Before(watched) {
		return true
	}
	// It ran when the counters were first read: they tell of its whole run.
	for a := range q.ledger.all {
		if a.own.total+a.below.total > 0 && a.isOf(q.dressed(c)) {
			return false
		}
	}
	return true
}

// isOf tells whether a is of the container's cgroup. Docker does not say which
// that is, but it has the container's id.
func (a *account) isOf(c *death.Container) bool {
	return a.path == c.Cgroup || c.ID != "" && strings.Contains(a.path, c.ID) && cgpath.Parse(a.path).ContainerID == c.ID
}

// oomEvidence is an OOM kill in the run that c ended, which may have led to it.
func (q *Inquest) oomEvidence(c *caseFile) []death.Evidence {
	k := q.oomBefore(c)
	if k == nil || !c.ended || c.container == nil {
		return nil
	}
	return []death.Evidence{{
		Time: k.at.UTC(), Source: k.source,
		Text: "the OOM killer had killed in the container, " + c.endTime().Sub(k.at).Round(100*time.Millisecond).String() + " before its end (death " + k.id + ")",
	}}
}
