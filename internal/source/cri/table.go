// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"maps"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/signal"
)

// box is what is remembered of one container. It lives once: one that is
// started again has another id.
type box struct {
	pod   string // its sandbox
	state string // as it was told last
	// asked is true while its status is being asked for, looked when it was
	// told; tries counts those that failed.
	asked, looked bool
	tries         int

	pid int
	// since is the table's, of one that had ended when the first list of a
	// connection showed it: it may have ended before that.
	since time.Time
	// ended is true when its end was told, or was before anybody listened.
	ended bool
	at    time.Time            // which time its end was told with
	exit  signal.ContainerExit // and what
	// recovered is whether it was told as one that nobody saw.
	recovered bool
	// seq is the table's count as it was last told of by an event.
	seq uint64
}

// home is what is remembered of one pod's sandbox.
type home struct {
	pod           pod
	state         string
	asked, looked bool
	tries         int
	seq           uint64
}

// job is one container or sandbox whose status is to be asked for.
type job struct {
	id      string
	sandbox bool
	verbose bool
}

// table is what is known of one runtime's containers. It outlives connections,
// does no I/O and reads no clock.
type table struct {
	rd    reader
	boxes map[string]*box
	homes map[string]*home

	// began is when this connection was made; since is up to when all that
	// ended was known before it.
	began, since time.Time
	listed       bool // by this connection
	// seq counts events. gone are those that were removed lately: what a list
	// or an event says of them is older.
	seq  uint64
	gone map[string]left
	// again are ends to be asked about once more.
	again []again
	over  map[string]int // what each list has too much of, as it was told

	tell func(at time.Time, recovered bool, b signal.Body)
	lost func(n int, why string)
	want func(j job)
}

// left is one that was removed.
type left struct {
	seq uint64 // the event that said so; 0: a list did
	at  time.Time
	box *box // nil: a sandbox, or not known
}

// again is an end whose reason can come late: containerd hears of an end and
// of an OOM kill in either order.
type again struct {
	id string
	at time.Time
}

const (
	// settled is when a runtime has said of an end what it will.
	settled = 1500 * time.Millisecond
	// overlap is how long before a list was asked for an end can be that is not
	// in it yet.
	overlap = time.Second
	// late is how long after a removal events can come of what was before.
	late = time.Minute
)

// What a table is short of.
const (
	whyBounds = "too many containers or pods to remember"
	whyNoID   = "rows of a list with no container id"
	whyLabels = "labels that are too long or too many, cut or left out"
	whyInfo   = "statuses whose details are not understood"
	whyStatus = "containers whose status was not to be had"
)

func newTable() *table {
	return &table{boxes: map[string]*box{}, homes: map[string]*home{}, gone: map[string]left{}, over: map[string]int{}}
}

// connect begins another connection. Answers to what the last one was asked
// for do not come any more.
func (t *table) connect(rd reader, since, began time.Time) {
	t.rd, t.since, t.began, t.listed = rd, since, began, false
	for id, b := range t.boxes {
		if b.asked && b.ended { // how that settled was asked, or is not known yet
			t.again = append(t.again, again{id, began})
		}
		b.asked, b.tries = false, 0
	}
	for _, h := range t.homes {
		h.asked, h.tries = false, 0
	}
}

// missed tells whether a time lies before this connection.
func (t *table) missed(at time.Time) bool { return at.Before(t.began) }

// merge takes a list of all containers and pods, and tells whether it had news.
func (t *table) merge(l listing, now time.Time) (news bool) {
	m := merging{pods: make(map[string]bool, len(l.pods)), rows: make(map[string]bool, len(l.containers))}
	for _, p := range l.pods {
		id := p.GetId()
		if m.takes(t, m.pods, id, l.asked, t.homes[id] != nil, len(t.homes)) {
			news = t.home(id, podState(p.GetState()), l.asked, now, p) || news
		}
	}
	for _, c := range l.containers {
		id := c.GetId()
		if m.takes(t, m.rows, id, l.asked, t.boxes[id] != nil, len(t.boxes)) {
			news = t.row(c, l.asked, now) || news
		}
	}
	t.more(whyNoID, m.bad)
	t.more(whyBounds, m.over)
	news = t.sweep(m.rows, m.pods, l.asked, now) || news
	maps.DeleteFunc(t.gone, func(_ string, g left) bool { return g.seq <= l.asked && now.Sub(g.at) > late })
	t.listed = true
	return news
}

// merging is what a list had.
type merging struct {
	pods, rows map[string]bool
	bad, over  int
}

// takes tells whether a row is taken, and notes it in seen.
func (m *merging) takes(t *table, seen map[string]bool, id string, asked uint64, known bool, held int) bool {
	switch {
	case !engines.ValidID(id):
		m.bad++
	case seen[id] || t.removed(id, asked):
	case !known && held >= maxContainers:
		m.over++
	default:
		seen[id] = true
		return true
	}
	return false
}

// removed tells whether an event removed it since a list was asked for.
func (t *table) removed(id string, asked uint64) bool {
	g, ok := t.gone[id]
	return ok && g.seq > asked
}

// more tells of what each list has too much of, as it grows.
func (t *table) more(why string, n int) {
	if n > t.over[why] {
		t.lost(n-t.over[why], why)
	}
	t.over[why] = n
}

// sweep takes leave of what is in no list any more.
func (t *table) sweep(rows, pods map[string]bool, asked uint64, now time.Time) (news bool) {
	for id, b := range t.boxes {
		if !rows[id] && b.seq <= asked {
			t.drop(id, 0, now)
			news = true
		}
	}
	for id, h := range t.homes {
		if !pods[id] && h.seq <= asked {
			t.drop(id, 0, now)
			news = true
		}
	}
	return news
}

// source is what both a list and a status say of a pod's sandbox.
type source interface {
	GetMetadata() *runtimeapi.PodSandboxMetadata
	GetLabels() map[string]string
}

// home takes a pod's sandbox, and tells whether it is news.
func (t *table) home(id, state string, asked uint64, now time.Time, s source) (news bool) {
	h := t.homes[id]
	if h == nil {
		h = &home{pod: t.rd.pod(s.GetMetadata(), s.GetLabels()), state: state}
		t.homes[id] = h
		t.cut(h.pod.lost)
		t.tell(now, false, t.rd.sandbox(id, state, h.pod))
		news = true
	} else if h.state != state && h.seq <= asked {
		h.state = state
		t.tell(now, false, t.rd.sandbox(id, state, h.pod))
		news = true
	}
	if state == running && !h.looked && !h.asked && h.tries < maxTries {
		h.asked = true
		t.want(job{id: id, sandbox: true, verbose: true})
	}
	return news
}

func (t *table) cut(n int) {
	if n > 0 {
		t.lost(n, whyLabels)
	}
}

// podOf is the pod of a sandbox, empty where that is not known.
func (t *table) podOf(id string) pod {
	if h := t.homes[id]; h != nil {
		return h.pod
	}
	return pod{}
}

// row takes a row of a list, and tells whether it is news.
func (t *table) row(c *runtimeapi.Container, asked uint64, now time.Time) (news bool) {
	state := stateOf(c.GetState())
	b := t.boxes[c.GetId()]
	switch {
	case b == nil:
		b, news = t.meet(c, c.GetPodSandboxId(), now), true
		if state == exited && !t.listed {
			b.since = t.since
		}
	case b.ended || b.seq > asked:
		return false // the list is older
	case state != "" && state != b.state:
		news = true
		if state != exited {
			t.tell(now, false, t.change(c.GetId(), state))
		}
		b.state, b.tries = state, 0
	}
	t.look(c.GetId(), b)
	return news
}

// meet takes a container that was not known.
func (t *table) meet(c named, sandbox string, now time.Time) *box {
	b := &box{pod: sandbox, state: stateOf(c.GetState())}
	t.boxes[c.GetId()] = b
	if t.homes[sandbox] == nil && engines.ValidID(sandbox) { // gone since, or not listed yet
		t.tell(now, false, t.rd.sandbox(sandbox, "", pod{}))
	}
	if seen, lost, err := t.rd.name(c, t.podOf(sandbox)); err == nil {
		t.cut(lost)
		t.tell(now, false, seen)
	}
	return b
}

// change is a container of which nothing but the state is new.
func (t *table) change(id, state string) signal.ContainerSeen {
	seen := signal.ContainerSeen{Namespace: t.rd.namespace, State: state}
	seen.Container.ID, seen.Container.Runtime = id, t.rd.runtime
	return seen
}

// look asks for a container's status once while it runs, and once when it has
// ended.
func (t *table) look(id string, b *box) {
	runs := b.state == running && !b.looked
	ends := b.state == exited && !b.ended
	if b.asked || b.tries >= maxTries || !runs && !ends {
		return
	}
	b.asked = true
	t.want(job{id: id, verbose: !b.looked})
}

// drop takes leave of a container or a sandbox. seq is the event that says so,
// 0: a list does.
func (t *table) drop(id string, seq uint64, now time.Time) {
	b, known := t.boxes[id], t.boxes[id] != nil || t.homes[id] != nil
	if b != nil && b.state == exited && !b.ended {
		// It ended, and was removed before it was asked about.
		t.end(id, b, t.rd.bareExit(id), now)
	}
	delete(t.boxes, id)
	delete(t.homes, id)
	if len(t.gone) < maxContainers {
		t.gone[id] = left{seq: seq, at: now, box: b}
	}
	if known {
		t.tell(now, t.missed(now), signal.ContainerGone{ID: id, Runtime: t.rd.runtime, Namespace: t.rd.namespace})
	}
}
