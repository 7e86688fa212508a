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
	// systemOOMFirst is how long after a kill they are asked for, systemOOMAgain how
	// long after that once more: a kubelet that is busy writes events late.
	systemOOMFirst = 2 * time.Second
	systemOOMAgain = 10 * time.Second
	// systemOOMFor is how much later than a kill the kubelet may say so.
	systemOOMFor = time.Minute
	// systemOOMCases is from how many open cases of now on it is not asked: they stay
	// open for the answer, and there is room for so many.
	systemOOMCases = 512
	// systemOOMFails is how often it is asked anew for a kill where the answer is none.
	systemOOMFails = 5
)

// systemWord is what the kubelet made of an OOM kill on the node.
type systemWord struct {
	asked time.Time // last
	tries int       // that were answered, or may still be
	fails int
	until time.Time // the case stays open
	event *signal.PodEvent
}

// stay keeps the case open until there may be an answer to the next question.
func (w *systemWord) stay(now time.Time) { w.until = now.Add(systemOOMAgain + systemOOMEach + wantFor) }

// asksSystemOOM tells whether anybody is asked what the kubelet made of kills.
func (q *Inquest) asksSystemOOM() bool {
	return q.up[death.SourceKube] && q.opts.Node != "" && q.ofNow <= systemOOMCases
}

// ofSystemOOM tells whether c is one that is asked for.
func (q *Inquest) ofSystemOOM(c *caseFile) bool {
	return c.oomKilled && !c.recovered && c.system.event == nil && q.podOf(c) != nil
}

// dueSystemOOM tells whether it is time to ask for c.
func (q *Inquest) dueSystemOOM(c *caseFile) bool {
	switch w := &c.system; w.tries {
	case 0:
		return q.now.Sub(c.observed) >= systemOOMFirst && q.ofSystemOOM(c)
	case 1:
		return q.now.Sub(w.asked) >= systemOOMAgain && q.ofSystemOOM(c)
	}
	return false
}

// awaitsSystemOOM tells whether it is still to be asked for c: the turn of one
// that was killed just after another was asked for comes late.
func (q *Inquest) awaitsSystemOOM(c *caseFile) bool {
	const turn = systemOOMFirst + systemOOMEach + time.Second // the last is a tick's
	return c.system.tries == 0 && q.now.Sub(c.observed) < turn && q.asksSystemOOM() && q.ofSystemOOM(c)
}

// wantSystemOOM asks twice for each OOM kill in a pod what the kubelet made of it
// on the node.
func (q *Inquest) wantSystemOOM() {
	q.ofNow = 0
	for _, c := range q.cases {
		if !c.recovered && c.prior == nil { // an agent that starts may find thousands in the kernel's log, and in its own
			q.ofNow++
		}
	}
	if !q.asksSystemOOM() || q.now.Sub(q.systemAsked) < systemOOMEach || len(q.wants) >= maxWants {
		return
	}
	asked := false
	for _, c := range q.cases {
		if q.dueSystemOOM(c) {
			asked = true
			c.system.tries++
			c.system.asked = q.now
			c.system.stay(q.now)
		}
	}
	if asked {
		q.systemAsked = q.now
		q.wants = append(q.wants, Want{Kind: WantNodeEvents, Source: death.SourceKube, Pod: death.Pod{Namespace: nodeEvents, UID: q.opts.Node}, At: q.now})
	}
}

// systemOOM takes the answer. Who may not read them is told so of pods.
func (q *Inquest) systemOOM(b signal.PodEvents) {
	for _, c := range q.cases {
		w := &c.system
		if !w.asked.Equal(b.At) || w.event != nil {
			continue
		}
		if b.Error != "" && w.fails < systemOOMFails { // the API is away, or too much is asked at once
			w.fails++
			w.tries--
			w.stay(q.now)
			continue
		}
		for i := range b.Events {
			if e := &b.Events[i]; e.Reason == "SystemOOM" && c.killedAs(e) {
				w.event = e
				q.touchNames(c)
				break
			}
		}
		if w.event != nil || w.tries > 1 {
			w.until = time.Time{}
		}
	}
}

// killedAs tells whether the kubelet speaks of one of c's dead.
func (c *caseFile) killedAs(e *signal.PodEvent) bool {
	pid, ok := kubelet.SystemOOM(e.Message)
	late := e.Last.Sub(c.at) // the first may stand for others
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
	e := c.system.event
	if e == nil {
		return nil
	}
	text := "event SystemOOM of the node: " + death.Printable(kubelet.Own(e.Message))
	switch cause {
	case death.OOMNode, death.OOMCpuset:
	case death.OOMContainerLimit, death.OOMPodLimit, death.OOMNodeAllocatable, death.OOMAncestorLimit:
		text += "; that is not so: a limit was reached, and the machine had memory left"
	}
	return []death.Evidence{{Time: e.Last.UTC(), Source: death.SourceKube, Text: text}}
}
