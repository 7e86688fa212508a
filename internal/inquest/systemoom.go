// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/kubelet"
	"github.com/coroner-dev/coroner/internal/signal"
)

// The kubelet writes SystemOOM of its node where it takes an OOM kill for one of
// the whole machine, also where it only could not read the kernel's report (that
// of a cgroup with a long name). Events of nodes are in this namespace.
const (
	nodeEvents = "default"
	// systemOOMEach is how long the node's events are not asked for again: in a
	// storm one answer is for many kills.
	systemOOMEach = 5 * time.Second
	// systemOOMFor is how much later than a kill the kubelet may say so.
	systemOOMFor = time.Minute
)

// wantSystemOOM asks once for each OOM kill in a pod what the kubelet made of it
// on the node.
func (q *Inquest) wantSystemOOM() {
	if !q.up[death.SourceKube] || q.opts.Node == "" || q.now.Sub(q.systemAsked) < systemOOMEach || len(q.wants) >= maxWants {
		return
	}
	asked := false
	for _, c := range q.cases {
		if c.systemAsked.IsZero() && c.oomKilled && !c.recovered && q.now.Sub(c.observed) >= askEventsAfter && q.podOf(c) != nil {
			c.systemAsked, asked = q.now, true
			c.keepUntil = later(c.keepUntil, q.now.Add(wantFor))
		}
	}
	if asked {
		q.systemAsked = q.now
		q.wants = append(q.wants, Want{Kind: WantEvents, Source: death.SourceKube, Pod: death.Pod{Namespace: nodeEvents, UID: q.opts.Node}, At: q.now})
	}
}

// systemOOM takes the answer. Who may not read them is told so of pods.
func (q *Inquest) systemOOM(b signal.PodEvents) {
	for _, c := range q.cases {
		if !c.systemAsked.Equal(b.At) || c.systemOOM != nil {
			continue
		}
		for i := range b.Events {
			if e := &b.Events[i]; e.Reason == "SystemOOM" && c.killedAs(e) {
				c.systemOOM = e
				q.touchNames(c)
				break
			}
		}
	}
}

// killedAs tells whether the kubelet speaks of one of c's dead.
func (c *caseFile) killedAs(e *signal.PodEvent) bool {
	pid, ok := kubelet.SystemOOM(e.Message)
	late := e.First.Sub(c.at)
	if !ok || late < -eventGrain || late > systemOOMFor {
		return false
	}
	for _, p := range c.procs {
		if p.PID == pid && p.Fate.ByOOMKiller() {
			return true
		}
	}
	return false
}

// systemEvidence holds the kubelet's word against the cause.
func (c *caseFile) systemEvidence(cause death.Cause) []death.Evidence {
	e := c.systemOOM
	if e == nil {
		return nil
	}
	text := "event SystemOOM of the node: " + death.Printable(e.Message)
	switch cause {
	case death.OOMNode, death.OOMCpuset:
	case death.OOMContainerLimit, death.OOMPodLimit, death.OOMNodeAllocatable, death.OOMAncestorLimit:
		text += "; that is not so: a limit was reached, and the machine had memory left"
	}
	return []death.Evidence{{Time: e.First.UTC(), Source: death.SourceKube, Text: text}}
}
