// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Want is a question of the inquest, which itself looks up nothing, to whoever
// runs it. The answer comes as a signal, so that a recording holds it.
type Want struct {
	Kind WantKind
	// Source is the engine that knows of it: the answer is told in its name.
	Source death.Source
	// ContainerID is whose, Cgroup its own cgroup where that is known, LogPath
	// the engine's file of what it wrote.
	ContainerID, Cgroup, LogPath string
	CgroupID                     uint64 // 0: not known
	// PIDNS is a pid namespace's inode number.
	PIDNS uint64
	// Since is when the run that ended began, or a moment before that; zero:
	// not known. At is when it died.
	Since, At time.Time
	// Units are whose words are wanted, of the journal.
	Units []string
	// Pod is whose events are asked for.
	Pod death.Pod
}

// WantKind is what a Want asks for.
type WantKind string

// The kinds of Want, and the signals that answer them.
const (
	WantLog    WantKind = "log"    // signal.ContainerLog
	WantMemory WantKind = "memory" // signal.MemoryHistory
	// WantNamespace asks which container a pid namespace is of.
	WantNamespace WantKind = "pid_namespace" // signal.PIDNamespace
	WantDaemon    WantKind = "daemon"        // signal.OOMDaemonWord
	// WantEvents asks for what Kubernetes noted of a pod.
	WantEvents WantKind = "events" // signal.PodEvents
	// WantNodeEvents asks for what it noted of the node; Pod.UID is its name.
	WantNodeEvents WantKind = "node_events" // signal.PodEvents
)

// maxWants bounds the questions that wait; in a storm the first are asked.
const maxWants = 256

// wantFor is how long a case stays open for an answer.
const wantFor = 10 * time.Second

// TakeWants returns the questions since it was last called.
func (q *Inquest) TakeWants() []Want {
	w := q.wants
	q.wants = nil
	return w
}

// await keeps c open for an answer, or to ask again.
func (c *caseFile) await(answer WantKind, until time.Time) {
	if c.awaits == nil {
		c.awaits = map[WantKind]time.Time{}
	}
	c.awaits[answer] = until
}

// awaited tells whether any answer may still come.
func (c *caseFile) awaited(now time.Time) bool {
	for _, until := range c.awaits {
		if !now.After(until) {
			return true
		}
	}
	return false
}

// wantLog asks once for the last lines of c's container.
func (q *Inquest) wantLog(c *caseFile) {
	if !c.logAsked.IsZero() || c.container == nil || q.answered(c) {
		return
	}
	t := q.tenantOf(c)
	if t == nil || t.logPath == "" || len(q.wants) >= maxWants {
		return // the path may still come
	}
	c.logAsked = c.endTime()
	c.await(WantLog, q.now.Add(wantFor))
	q.wants = append(q.wants, Want{
		Kind: WantLog, Source: t.logFrom, ContainerID: t.ID, Cgroup: t.Cgroup, LogPath: t.logPath,
		Since: t.ranFrom(c), At: c.endTime(),
	})
}

// An engine notes a start once the first process runs, which may have written
// by then. What a run wrote last it reads a little after its end; it starts
// the next one no sooner than 100 ms after that.
const (
	beforeStart = 250 * time.Millisecond
	drained     = 50 * time.Millisecond
)

// ranFrom is a moment between what the run before c wrote and what its own
// did; zero: not known.
func (t *tenant) ranFrom(c *caseFile) time.Time {
	started := c.words.started
	if started.IsZero() && t.started.Before(c.endTime()) {
		started = t.started
	}
	var from time.Time
	if !started.IsZero() {
		from = started.Add(-beforeStart)
	}
	if !c.ranSince.IsZero() && from.Before(c.ranSince.Add(drained)) {
		from = c.ranSince.Add(drained)
	}
	return from
}

// containerLog takes the answer to WantLog.
func (q *Inquest) containerLog(s signal.Signal, b signal.ContainerLog) {
	for _, c := range q.cases {
		if c.container == nil || c.container.ID != b.ID || c.logAsked.IsZero() || !c.logAsked.Equal(b.At) || c.log != nil {
			continue
		}
		c.log, c.logFrom = &b, s.Source
		delete(c.awaits, WantLog)
		if b.Error != "" {
			c.note(s, "what the container wrote last is not known: %s", death.Printable(b.Error))
		}
		q.touch(c)
		return
	}
	q.stats.Late++
}
