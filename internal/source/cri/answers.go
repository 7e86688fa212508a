// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/signal"
)

// answer is what came of a job.
type answer struct {
	job       job
	container *runtimeapi.ContainerStatus
	sandbox   *runtimeapi.PodSandboxStatus
	own       info
	bad       bool // own was not understood
	cgroup    string
	err       error
}

// answered takes a status.
func (t *table) answered(a answer, now time.Time) {
	if a.bad {
		t.lost(1, whyInfo)
	}
	if id := a.job.id; a.job.sandbox && a.sandbox.GetId() != id || !a.job.sandbox && a.container.GetId() != id {
		t.lost(1, "answers about another container")
		t.unanswered(a.job, false, now)
		return
	}
	if a.job.sandbox {
		t.sandboxAnswered(a, now)
	} else {
		t.containerAnswered(a, now)
	}
}

func (t *table) sandboxAnswered(a answer, now time.Time) {
	h := t.homes[a.job.id]
	if h == nil {
		return // removed meanwhile
	}
	h.asked, h.looked = false, true
	seen := t.rd.sandbox(a.job.id, podState(a.sandbox.GetState()), h.pod)
	seen.Container.Cgroup = a.cgroup
	if seen.State == running {
		seen.PID = a.own.pid
	}
	t.tell(now, false, seen)
}

func (t *table) containerAnswered(a answer, now time.Time) {
	b := t.boxes[a.job.id]
	if b == nil {
		return
	}
	b.asked = false
	seen, err := t.rd.status(a.container, a.own, a.cgroup, t.podOf(b.pod))
	if err != nil {
		return // its id is that of the job
	}
	state := seen.State
	if b.state == exited && state != exited {
		seen.State = "" // it answered before its end, which was told already
	}
	if a.job.verbose && !b.looked {
		b.looked = true
		b.pid = seen.PID
		t.tell(now, false, seen)
	}
	switch {
	case state == exited:
		b.state = exited
		t.end(a.job.id, b, t.rd.exit(a.container), now)
	case b.state == exited:
		b.tries++ // it answers otherwise than it lists
	}
}

// unanswered notes that a status was not to be had. gone is true where the
// runtime does not know the container any more: a list will say so.
func (t *table) unanswered(j job, gone bool, now time.Time) {
	if h := t.homes[j.id]; j.sandbox && h != nil {
		h.asked = false
		h.tries++
		t.gaveUp(h.tries)
	}
	b := t.boxes[j.id]
	if j.sandbox || b == nil {
		return
	}
	b.asked = false
	if gone {
		b.tries = maxTries
	} else {
		b.tries++
		t.gaveUp(b.tries)
	}
	switch {
	case b.tries < maxTries && b.ended:
		t.again = append(t.again, again{j.id, now.Add(settled)})
	case b.tries >= maxTries && b.state == exited && !b.ended:
		t.end(j.id, b, t.rd.bareExit(j.id), now)
	}
}

// owes tells whether a container has ended since it was asked about: the next
// list has it asked about again.
func (t *table) owes(id string) bool {
	b := t.boxes[id]
	return b != nil && b.state == exited && !b.ended
}

func (t *table) gaveUp(tries int) {
	if tries == maxTries {
		t.lost(1, whyStatus)
	}
}

// end tells how a container ended: once, and again when the runtime says more.
func (t *table) end(id string, b *box, e signal.ContainerExit, now time.Time) {
	e.PID = b.pid
	if !b.ended {
		at := e.Finished
		if at.IsZero() || at.After(now) {
			at = now
		}
		b.ended, b.at, b.exit, b.recovered = true, at, e, t.missed(at)
		if at.Before(b.since) {
			return
		}
		t.tell(at, b.recovered, e)
		if e.Reason != reasonOOM {
			t.again = append(t.again, again{id, now.Add(settled)})
		}
		return
	}
	if b.at.IsZero() || !says(e, b.exit) {
		return
	}
	b.exit = e
	t.tell(b.at, b.recovered, e)
}

// says tells whether an end has more in it than what was told of it.
func says(e, told signal.ContainerExit) bool {
	return e.Code != nil && (told.Code == nil || *told.Code != *e.Code) || e.Reason != "" && e.Reason != told.Reason || e.Error != "" && e.Error != told.Error
}

// due asks once more about ends that have settled, and tells when the next is.
func (t *table) due(now time.Time) (next time.Time) {
	for len(t.again) > 0 && !t.again[0].at.After(now) {
		id := t.again[0].id
		t.again = t.again[1:]
		switch b := t.boxes[id]; {
		case b == nil:
		case b.asked: // the answer on its way can be older, or none
			t.again = append(t.again, again{id, now.Add(settled)})
		default:
			b.asked = true
			t.want(job{id: id, verbose: !b.looked})
		}
	}
	if len(t.again) == 0 {
		t.again = nil
		return time.Time{}
	}
	return t.again[0].at
}

// event takes one event, and tells whether it speaks of something that only a
// list can tell.
func (t *table) event(e *runtimeapi.ContainerEventResponse, now time.Time) (unclear bool) {
	id := e.GetContainerId()
	if !engines.ValidID(id) {
		t.lost(1, "events with "+errNoID.Error())
		return false
	}
	t.seq++
	kind, p := e.GetContainerEventType(), e.GetPodSandboxStatus()
	if kind == runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT {
		if _, already := t.gone[id]; !already {
			t.drop(strings.Clone(id), t.seq, now)
		}
		return false
	}
	if pid := p.GetId(); engines.ValidID(pid) && (t.homes[pid] != nil || len(t.homes) < maxContainers) {
		if _, gone := t.gone[pid]; !gone {
			t.home(strings.Clone(pid), podState(p.GetState()), t.seq, now, p)
			t.homes[pid].seq = t.seq
		}
	}
	if id == p.GetId() || t.homes[id] != nil {
		return false
	}
	return t.happened(id, kind, e, now)
}

// happened takes an event of a container.
func (t *table) happened(id string, kind runtimeapi.ContainerEventType, e *runtimeapi.ContainerEventResponse, now time.Time) (unclear bool) {
	var s *runtimeapi.ContainerStatus
	for _, c := range e.GetContainersStatuses() {
		if c.GetId() == id {
			s = c
		}
	}
	if g, gone := t.gone[id]; gone {
		if g.box != nil {
			t.stopped(id, g.box, kind, s, now)
		}
		return false
	}
	b := t.boxes[id]
	switch {
	case b == nil && (s == nil || len(t.boxes) >= maxContainers):
		return true
	case b == nil:
		b = t.meet(s, strings.Clone(e.GetPodSandboxStatus().GetId()), now)
	case kind == runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT && b.state == created:
		t.tell(now, false, t.change(id, running))
		b.state, b.tries = running, 0
	}
	b.seq = t.seq
	t.stopped(id, b, kind, s, now)
	t.look(id, b)
	return false
}

// stopped takes the end of a container, where an event has it.
func (t *table) stopped(id string, b *box, kind runtimeapi.ContainerEventType, s *runtimeapi.ContainerStatus, now time.Time) {
	if kind != runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT {
		return
	}
	b.state, b.tries = exited, 0
	if s.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED && s.GetFinishedAt() > 0 {
		t.end(id, b, t.rd.exit(s), now)
	}
}
