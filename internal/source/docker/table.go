// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"encoding/json"
	"errors"
	"hash/maphash"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/signal"
)

// box is what is remembered of one container.
type box struct {
	// running is true from its start until its end was told.
	running bool
	started time.Time // of the run that was seen last
	pid     int
	exitAt  time.Time // when its last end was; zero: none was told
	due     bool      // an answer told that, and its event has yet to come
	was     struct {  // the run that ended then
		pid     int
		started time.Time
	}
	forged  bool
	events  uint64 // counts its events, so that an older answer is known as such
	state   string
	named   uint64 // what was told of it by an event or a list
	looked  uint64 // and by an inspect
	failing bool   // it is asked why its start failed
	goneAt  time.Time
	cut     bool // that its labels were cut was told
}

// job is one container to be inspected.
type job struct {
	id string
	// end is when it died, where that is what is asked about; pid and started
	// are of that run, or of the one before a start that is remembered.
	end     time.Time
	pid     int
	started time.Time
	// changed is when an event said that something of it changed.
	changed time.Time
	// again is true where it may have ended while nobody listened, restarted
	// where an engine remembers that it was started then.
	again, restarted bool
	// unstarted is true where it has not run, and its start may have failed;
	// failing where an event says that it has.
	unstarted, failing bool
	// events is what box.events was when it was asked about.
	events uint64
	// cgroup is its own one, as its first process told when it was asked about.
	cgroup string
}

// table is what is known of one engine's containers. It outlives connections,
// does no I/O and reads no clock.
type table struct {
	rd    reader
	boxes map[string]*box
	seed  maphash.Seed

	// began is when this connection was made; since is when the one before it
	// was alive for certain, zero for the first.
	began, since time.Time
	// fresh are those with events since the connection was made: what a list
	// says of them can be older. nil: the list has come.
	fresh  map[string]bool
	recent [256]recent
	next   int

	tell func(at time.Time, recovered bool, b signal.Body)
	lost func(n int, why string)
	want func(j job) bool // whether there is room for it
	own  func(id string, mine bool)
	made func(id string)
}

// recent is an event that was told, so that it is not told twice.
type recent struct {
	id     string
	action events.Action
	at     time.Time
}

const (
	// overlap is how far back an engine is asked again for old events.
	overlap = time.Second
	// sameEnd is how long after an end another one without a start is the
	// same: told by an answer first, and then by its event.
	sameEnd = 5 * time.Second
	// endSlack is how much later than its event an end can be dated.
	endSlack = 50 * time.Millisecond
)

func newTable() *table {
	return &table{boxes: map[string]*box{}, seed: maphash.MakeSeed(), made: func(string) {}}
}

// connect begins another connection.
func (t *table) connect(rd reader, since, began time.Time) {
	t.rd, t.since, t.began = rd, since, began
	for _, b := range t.boxes {
		b.failing = false // what was asked then is not answered
	}
	t.fresh = map[string]bool{}
}

// box finds or makes the box of a container.
func (t *table) box(id string) *box {
	b := t.boxes[id]
	if b == nil {
		b = &box{}
		if len(t.boxes) >= maxContainers {
			t.lost(1, "too many containers to remember")
			return b
		}
		t.boxes[id] = b
		t.own(id, true)
	}
	return b
}

// event takes one event.
func (t *table) event(m events.Message, now time.Time) {
	if m.Type == events.NetworkEventType {
		t.disconnected(m)
		return
	}
	h, err := t.rd.event(m)
	if err != nil {
		if !errors.Is(err, errIgnore) {
			t.lost(1, "events with "+err.Error())
		}
		return
	}
	if h.at.IsZero() || h.at.After(now) {
		h.at = now
	}
	if t.repeated(recent{h.id, h.action, h.at}) {
		return
	}
	if t.fresh != nil {
		t.fresh[h.id] = true
	}
	if h.action == events.ActionDestroy {
		t.destroyed(h.id, h.at)
		return
	}
	b := t.box(h.id)
	b.events++
	b.forged = b.forged || h.forged
	t.name(b, h.seen, h.lost, h.at)
	t.act(b, h, now)
}

// act tells what an event is besides a name.
func (t *table) act(b *box, h happening, now time.Time) {
	recovered := t.before(h.at)
	switch h.action {
	case events.ActionStart:
		if h.precedes(b.exitAt, now) {
			return // of a run whose end an answer has told
		}
		b.due = false // ends and starts come in their order
		j := job{id: h.id}
		if recovered { // an engine that was made anew remembers this, and not the end before it
			j.restarted, j.pid, j.started = true, b.pid, b.started
		}
		b.running, b.started, b.pid = true, time.Time{}, 0
		t.want(j)
	case events.ActionCreate:
		t.made(h.id)
	case events.ActionUpdate, events.ActionRename:
		t.want(job{id: h.id, changed: h.at})
	case events.ActionDie:
		t.died(b, h, now)
	case events.ActionKill, events.ActionStop, events.ActionRestart:
		if b.forged {
			h.signal = 0
		}
		t.tell(h.at, recovered, signal.ContainerStop{ID: h.id, Runtime: t.rd.runtime, Signal: h.signal, Action: string(h.action)})
	case events.ActionOOM:
		t.tell(h.at, recovered, signal.ContainerOOM{ID: h.id, Runtime: t.rd.runtime})
	}
}

// precedes tells whether h is of before a time that was told. A time that is yet
// to come says nothing: the clock was set back.
func (h happening) precedes(at, now time.Time) bool { return h.at.Before(at) && !at.After(now) }

// died takes an end. Answers may have been there before the event: of the end
// itself, or of a later one, or that the container runs again.
func (t *table) died(b *box, h happening, now time.Time) {
	if b.forged {
		h.code = nil
	}
	e := signal.ContainerExit{ID: h.id, Runtime: t.rd.runtime, Code: h.code}
	near := !b.exitAt.IsZero() && !h.at.Before(b.exitAt.Add(-endSlack)) && h.at.Before(b.exitAt.Add(sameEnd))
	switch {
	case near && !b.running:
	case near && b.due && (b.started.IsZero() || h.precedes(b.started, now)): // the answer knew no code of a run before
		b.due = false
		e.PID, e.Started = b.was.pid, b.was.started
		t.tell(b.exitAt, t.before(b.exitAt), e)
	case h.precedes(b.exitAt, now), h.precedes(b.started, now):
		t.tell(h.at, t.before(h.at), e)
		if h.at.After(b.exitAt) {
			b.exitAt, b.due = h.at, false
		}
	default:
		t.want(job{id: h.id, end: h.at, pid: b.pid, started: b.started})
		e.PID, e.Started = b.pid, b.started
		t.tell(h.at, t.before(h.at), e)
		b.ended(h.at)
	}
}

func (b *box) ended(at time.Time) {
	b.was.pid, b.was.started = b.pid, b.started
	b.running, b.exitAt, b.due, b.pid, b.started, b.state = false, at, false, 0, time.Time{}, ""
}

// answered notes the end that an answer told.
func (b *box) answered(at time.Time, e signal.ContainerExit) {
	b.exitAt, b.due = at, true
	b.was.pid, b.was.started = e.PID, e.Started
}

// before tells whether a time lies in a gap between two connections.
func (t *table) before(at time.Time) bool { return !t.since.IsZero() && at.Before(t.began) }

// repeated notes an event and tells whether it was there before.
func (t *table) repeated(r recent) bool {
	for i := range t.recent {
		if t.recent[i] == r {
			return true
		}
	}
	t.recent[t.next] = r
	t.next = (t.next + 1) % len(t.recent)
	return false
}

func (t *table) drop(id string, at time.Time) {
	delete(t.boxes, id)
	t.tell(at, t.before(at), signal.ContainerGone{ID: id, Runtime: t.rd.runtime})
	t.own(id, false)
}

// name tells who a container is and its state, where that is news.
func (t *table) name(b *box, seen signal.ContainerSeen, lost int, at time.Time) {
	state := seen.State
	seen.State = ""
	sum := t.sum(seen)
	if sum == b.named && (state == "" || state == b.state) {
		return
	}
	if lost > 0 && !b.cut {
		b.cut = true
		t.lost(lost, "labels that are too long or too many, cut or left out")
	}
	if state != "" {
		b.state = state
	}
	b.named, seen.State = sum, state
	t.tell(at, t.before(at), seen)
}

func (t *table) sum(seen signal.ContainerSeen) uint64 {
	text, err := json.Marshal(seen)
	if err != nil {
		return 0
	}
	return maphash.Bytes(t.seed, text)
}

// merge takes the list of all containers that was asked for after the events
// had begun.
func (t *table) merge(list []container.Summary, now time.Time) {
	present := make(map[string]bool, len(list))
	bad := 0
	for _, s := range list {
		l, err := t.rd.summary(s)
		if err != nil {
			bad++
			continue
		}
		id := l.seen.Container.ID
		if present[id] {
			continue
		}
		present[id] = true
		if !t.fresh[id] {
			t.row(l, now)
		}
	}
	if bad > 0 {
		t.lost(bad, "rows of a list with no container id")
	}
	for id := range t.boxes {
		if !present[id] && !t.fresh[id] {
			t.drop(id, now)
		}
	}
	t.fresh = nil
}

func (t *table) row(l listed, now time.Time) {
	id := l.seen.Container.ID
	old := t.boxes[id]
	b := t.box(id)
	b.forged = b.forged || l.forged
	if old == nil {
		t.name(b, l.seen, l.lost, now)
	}
	state := container.ContainerState(l.seen.State)
	runs := state == container.StateRunning || state == container.StatePaused
	switch {
	case !t.since.IsZero() && state == container.StateCreated:
		t.want(job{id: id, unstarted: true})
	case !t.since.IsZero():
		t.want(job{id: id, again: true})
	case runs:
		b.running = true
		t.want(job{id: id})
	}
}

// inspected takes the answer to a job.
func (t *table) inspected(j job, c container.InspectResponse, now time.Time) {
	in, err := t.rd.inspect(c)
	if err != nil || in.seen.Container.ID != j.id {
		t.lost(1, "answers about another container")
		return
	}
	b := t.boxes[j.id]
	if b == nil {
		return // removed meanwhile
	}
	in.seen.Container.Cgroup = engines.Cut(j.cgroup, engines.MaxPath)
	b.forged = b.forged || in.forged
	stale := b.events != j.events
	if stale {
		in.seen.State = ""
	}
	if sum := t.sum(in.seen); sum != b.looked {
		b.looked = sum
		at := now
		if !j.changed.IsZero() {
			at = j.changed
		}
		t.tell(at, t.before(at), in.seen)
	}
	switch {
	case !j.end.IsZero():
		t.explain(j, in)
	case j.restarted && in.running:
		t.missedBefore(b, j, in, now)
	case j.again:
		t.missed(b, in, now, stale)
	case j.unstarted && !stale:
		t.neverRan(b, in, now)
	}
	if !stale {
		b.stands(in)
	}
}

// stands takes the state that an answer tells. That it runs no more its end
// tells, which may come later.
func (b *box) stands(in inspected) {
	if in.seen.State == "" {
		return
	}
	b.state = in.seen.State
	if in.running {
		b.running, b.started, b.pid = true, in.seen.Started, in.seen.PID
	}
}

// explain tells an end again, with what the engine has noted of it, unless
// that is of a later run.
func (t *table) explain(j job, in inspected) {
	if in.exit == nil || in.running || in.exit.Finished.After(j.end.Add(endSlack)) {
		return
	}
	in.exit.PID = j.pid
	t.tell(j.end, t.before(j.end), *in.exit)
}

// missed tells an end that happened while nobody listened. Where events came
// since it was asked for, what the container does now is theirs to say.
func (t *table) missed(b *box, in inspected, now time.Time, stale bool) {
	if in.exit == nil || !in.exit.Finished.After(b.exitAt.Add(endSlack)) {
		return
	}
	e := *in.exit
	switch {
	case b.running && in.running:
		// It runs again if this is another run than the one that was seen.
		if b.started.IsZero() || !in.seen.Started.After(b.started) || !e.Finished.After(b.started) {
			return
		}
	case !b.running && !e.Finished.After(t.since):
		return
	}
	if b.running {
		e.PID, e.Started = b.pid, b.started
	}
	at := e.Finished
	if at.After(now) {
		at = now
	}
	t.tell(at, true, e)
	if !stale {
		b.ended(at)
	}
	b.answered(at, e)
}

// missedBefore tells the end before a start that is remembered, if no event did.
func (t *table) missedBefore(b *box, j job, in inspected, now time.Time) {
	if in.exit == nil || !in.exit.Finished.After(b.exitAt.Add(endSlack)) || !in.exit.Finished.After(t.since) {
		return
	}
	e, at := *in.exit, in.exit.Finished
	if at.After(now) {
		at = now
	}
	e.PID, e.Started = j.pid, j.started
	t.tell(at, true, e)
	b.answered(at, e)
}
