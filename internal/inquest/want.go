// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"time"

	"github.com/coroner-dev/coroner/internal/signal"
)

// Want is a question of the inquest, which itself looks up nothing, to whoever
// runs it. The answer comes as a signal, so that a recording holds it.
type Want struct {
	Kind WantKind
	// ContainerID is whose, Cgroup its own cgroup where that is known, LogPath
	// the engine's file of what it wrote.
	ContainerID, Cgroup, LogPath string
	// At is when it died.
	At time.Time
}

// WantKind is what a Want asks for.
type WantKind string

// The kinds of Want, and the signals that answer them.
const (
	WantLog WantKind = "log" // signal.ContainerLog
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

// wantLog asks once for the last lines of c's container.
func (q *Inquest) wantLog(c *caseFile) {
	if c.logAsked || c.container == nil {
		return
	}
	t := q.tenantOf(c)
	if t == nil || t.logPath == "" || len(q.wants) >= maxWants {
		return // the path may still come
	}
	c.logAsked = true
	c.keepUntil = q.now.Add(wantFor)
	q.wants = append(q.wants, Want{Kind: WantLog, ContainerID: t.ID, Cgroup: t.Cgroup, LogPath: t.logPath, At: c.endTime()})
}

// containerLog takes the answer to WantLog.
func (q *Inquest) containerLog(b signal.ContainerLog) {
	for _, c := range q.cases {
		if c.container == nil || c.container.ID != b.ID || !c.logAsked || c.log != nil {
			continue
		}
		c.log = &b
		c.keepUntil = time.Time{}
		q.touch(c)
		return
	}
	q.stats.Late++
}
