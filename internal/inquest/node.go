// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"slices"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest/verdict"
	"github.com/coroner-dev/coroner/internal/parse/kubelet"
	"github.com/coroner-dev/coroner/internal/signal"
)

// maxSpells bounds what is remembered of a node's past: spells of a condition
// and taints together.
const maxSpells = 64

// writtenAfter is how much later than the kubelet decides it writes that into
// the node's conditions (nodeStatusUpdateFrequency, 10 s), and some.
const writtenAfter = 15 * time.Second

// spell is a time in which the node had a condition that tells of trouble, or a
// taint.
type spell struct {
	condition signal.NodeCondition // "": it is a taint
	taint     signal.Taint
	since     time.Time
	until     time.Time // zero: it lasts
}

// node is what Kubernetes tells of the node that the agent runs on, oldest first.
type node struct{ spells []spell }

// troubled tells whether a condition is one that somebody should know of.
func troubled(c signal.NodeCondition) bool {
	if c.Type == "Ready" {
		return c.Status != "True"
	}
	return c.Status == "True"
}

// see takes the node as it is now.
func (n *node) see(b signal.NodeSeen, now time.Time) {
	for i := range n.spells {
		if s := &n.spells[i]; s.until.IsZero() && !s.lastsIn(b) {
			s.until = s.ended(b, now)
		}
	}
	for _, c := range b.Conditions {
		if troubled(c) {
			n.begin(spell{condition: c, since: orNow(c.Since, now)})
		}
	}
	for _, t := range b.Taints {
		n.begin(spell{taint: t, since: orNow(t.Added, now)})
	}
}

func orNow(t, now time.Time) time.Time {
	if t.IsZero() || t.After(now) {
		return now
	}
	return t
}

// begin adds a spell, if it is not known to last.
func (n *node) begin(s spell) {
	for i := range n.spells {
		if o := &n.spells[i]; o.until.IsZero() && o.condition.Type == s.condition.Type && sameTaint(o.taint, s.taint) {
			o.condition = s.condition // its words may change meanwhile
			return
		}
	}
	if len(n.spells) == maxSpells {
		n.spells = slices.Delete(n.spells, 0, 1)
	}
	n.spells = append(n.spells, s)
}

func sameTaint(a, b signal.Taint) bool {
	return a.Key == b.Key && a.Value == b.Value && a.Effect == b.Effect
}

// lastsIn tells whether the node still has what s tells of.
func (s *spell) lastsIn(b signal.NodeSeen) bool {
	if s.condition.Type == "" {
		return slices.ContainsFunc(b.Taints, func(t signal.Taint) bool { return sameTaint(t, s.taint) })
	}
	return slices.ContainsFunc(b.Conditions, func(c signal.NodeCondition) bool {
		return c.Type == s.condition.Type && c.Status == s.condition.Status && troubled(c)
	})
}

// ended is when s came to its end: a condition says it itself.
func (s *spell) ended(b signal.NodeSeen, now time.Time) time.Time {
	for _, c := range b.Conditions {
		if c.Type == s.condition.Type && !c.Since.Before(s.since) {
			return orNow(c.Since, now)
		}
	}
	return now
}

// at tells whether s was so at a time, of which it may have been told later.
func (s *spell) at(t time.Time, later time.Duration) bool {
	return !s.since.After(t.Add(later)) && (s.until.IsZero() || !s.until.Before(t.Add(-eventGrain)))
}

// text is s in words.
func (s *spell) text() string {
	if s.condition.Type == "" {
		return "the node has the taint " + death.Printable(s.taint.String())
	}
	t := "the node's condition " + death.Printable(s.condition.Type) + " is " + death.Printable(s.condition.Status)
	if r := s.condition.Reason; r != "" {
		t += " (" + death.Printable(r) + ")"
	}
	if m := s.condition.Message; m != "" {
		t += ": " + death.Printable(m)
	}
	return t
}

// pressures are the node's conditions for what evictions are for.
var pressures = map[death.Cause]string{
	death.EvictedMemory: "MemoryPressure", death.EvictedStorage: "DiskPressure", death.EvictedPIDs: "PIDPressure",
}

// nodeSeen takes what Kubernetes says of the node.
func (q *Inquest) nodeSeen(s signal.Signal, b signal.NodeSeen) {
	q.node.see(b, s.Observed)
	for _, c := range q.cases {
		if c.pod != nil || c.ended || c.oomKilled {
			q.touchNames(c)
		}
	}
}

// nodeFacts says what the node was like at the end of c.
func (q *Inquest) nodeFacts(c *caseFile, f *verdict.Facts) {
	if c.container == nil || q.podOf(c) == nil {
		return
	}
	for i := range q.node.spells {
		s := &q.node.spells[i]
		switch {
		case s.condition.Type == "Ready" && kubelet.NodeShutdown(s.condition.Message) && s.at(c.endTime(), eventGrain):
			f.NodeShutdownAt = s.since
		case s.taint.Effect == noExecute && s.at(c.endTime(), eventGrain):
			f.Taints = append(f.Taints, s.taint.String())
		}
	}
}

const noExecute = "NoExecute"

// nodeEvidence is what the node was like where that bears on a death with this
// cause.
func (q *Inquest) nodeEvidence(c *caseFile, cause death.Cause) []death.Evidence {
	var out []death.Evidence
	for i := range q.node.spells {
		if s := &q.node.spells[i]; s.bears(c, cause) {
			out = append(out, death.Evidence{Time: s.since.UTC(), Source: death.SourceKube, Text: s.text()})
		}
	}
	return out
}

// bears tells whether s has to do with the death.
func (s *spell) bears(c *caseFile, cause death.Cause) bool {
	end := c.at
	if c.ended || c.pod != nil {
		end = c.endTime()
	}
	switch s.condition.Type {
	case "":
		return cause == death.Drained && s.taint.Effect == noExecute && s.at(end, eventGrain)
	case "Ready":
		return (cause == death.NodeShutdown || kubelet.NodeShutdown(s.condition.Message)) && s.at(end, eventGrain)
	case pressures[cause]:
		return s.at(end, writtenAfter)
	case "MemoryPressure":
		return (c.oomKilled || c.daemon != "" || strings.HasPrefix(string(cause), "oom_")) && s.at(end, eventGrain)
	}
	return false
}
