// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"encoding/json"
	"errors"
	"hash/maphash"
	"slices"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/signal"
)

// box is what is remembered of one container.
type box struct {
	namespace, id string
	// running is true while it has a task whose end was not told.
	running bool
	pid     int
	started time.Time // of this run; zero: not known
	looked  uint64    // what was told of its description
	cgroup  string    // its own one, where a process told it
	over    bool      // that a list found it stopped was told
	named   bool      // it was told by a name
	cut     bool      // that its labels were cut was told
	unread  bool      // that its configuration could not be read was told
	oomAt   time.Time // when its last OOM event was told
	// asked is how many answers about it are due; goneAt is when it was
	// removed, where that is told after them and after its end.
	asked  int
	goneAt time.Time
}

// job is one container to be asked for.
type job struct {
	box *box
	// cgroup is where its first process pid lives, read when it was asked for.
	pid    int
	cgroup string
}

// end is one end that was told.
type end struct {
	key   string
	pid   int
	at    time.Time
	coded bool
}

// fresh is what events told of a container since a list was asked for: what
// the list says can be older.
type fresh struct{ container, task bool }

// table is what is known of one engine's containers. It outlives connections,
// does no I/O and reads no clock.
type table struct {
	boxes map[string]*box
	seed  maphash.Seed

	// began is when this connection was made; since is when the one before it
	// was alive for certain, zero for the first.
	began, since time.Time
	fresh        map[string]fresh
	listed       map[string]bool // by the list under way
	lists        int             // taken over this connection
	ends         [256]end
	next         int
	graves       [256]string // keys of containers that were told to be gone
	grave        int

	tell func(at time.Time, recovered bool, b signal.Body)
	lost func(n int, why string)
	want func(j job) bool
	own  func(key string, mine bool)
}

const (
	// overlap is how much before it was last heard of an engine may have been
	// away already.
	overlap = time.Second
	// sameOOM is how long further OOM events of a container say nothing new:
	// on cgroup v1 hundreds come for one kill.
	sameOOM = time.Second
	// lateEnd is how long the end of a container that was removed is waited for.
	lateEnd = 5 * time.Second
)

func newTable() *table { return &table{boxes: map[string]*box{}, seed: maphash.MakeSeed()} }

// connect begins another connection.
func (t *table) connect(since, began time.Time) {
	t.since, t.began, t.lists = since, began, 0
}

// disconnect ends it: no more answers come.
func (t *table) disconnect() {
	for key, b := range t.boxes {
		b.asked = 0
		if !b.goneAt.IsZero() {
			t.drop(key, b, b.goneAt)
		}
	}
}

// box finds or makes the box of a container.
func (t *table) box(namespace, id string) *box {
	key := engines.Key(namespace, id)
	b := t.boxes[key]
	if b == nil {
		b = &box{namespace: namespace, id: id}
		if len(t.boxes) >= maxContainers {
			t.lost(1, "too many containers to remember")
			return b
		}
		t.boxes[key] = b
		t.own(key, true)
		if i := slices.Index(t.graves[:], key); i >= 0 {
			t.graves[i] = "" // another one of its name
		}
	}
	return b
}

// event takes what came of reading one event.
func (t *table) event(h happening, err error, now time.Time) {
	if err != nil {
		if !errors.Is(err, errIgnore) {
			t.lost(1, "events with "+reason(err))
		}
		return
	}
	if h.at.IsZero() || h.at.After(now) {
		h.at = now
	}
	key := engines.Key(h.namespace, h.id)
	if h.action == containerDeleted {
		t.touch(key, fresh{container: true})
		t.removed(key, h)
		return
	}
	if b := t.boxes[key]; h.action == containerCreated && b != nil && !b.goneAt.IsZero() {
		t.drop(key, b, b.goneAt) // another one of the same name
	}
	b := t.boxOf(key, h)
	if b == nil {
		return
	}
	switch h.action {
	case containerCreated:
		t.touch(key, fresh{container: true})
		seen := b.seen()
		seen.State, seen.Container.Image = "created", h.image
		t.tell(h.at, t.before(h.at), seen)
		t.ask(b)
	case containerUpdated:
		if t.boxes[key] == b {
			t.ask(b)
		}
	default:
		t.task(key, b, h)
	}
}

// boxOf is the box of the container that an event is about. That of one which
// is not known is kept where the event says that it is there. One that is gone
// has no news but its end; nil: none.
func (t *table) boxOf(key string, h happening) *box {
	b := t.boxes[key]
	grave := slices.Index(t.graves[:], key)
	switch {
	case b != nil:
		return b
	case h.action == containerCreated, grave < 0 && (h.action == taskCreated || h.action == taskStarted):
		return t.box(h.namespace, h.id)
	case grave >= 0 && h.action != taskExited && h.action != taskDeleted && h.action != taskOOM:
		return nil
	}
	return &box{namespace: h.namespace, id: h.id, named: true}
}

// reason names what is wrong with events.
func reason(err error) string {
	if errors.Is(err, errEvent) {
		return errEvent.Error()
	}
	return err.Error()
}

// task takes an event of a container's task.
func (t *table) task(key string, b *box, h happening) {
	switch h.action {
	case taskOOM:
		if !h.at.Before(b.oomAt.Add(sameOOM)) {
			b.oomAt = h.at
			t.tell(h.at, t.before(h.at), signal.ContainerOOM{ID: b.id, Runtime: runtime, Namespace: b.namespace})
		}
	case taskPaused, taskResumed:
		seen := b.seen()
		seen.State = map[action]string{taskPaused: "paused", taskResumed: "running"}[h.action]
		t.tell(h.at, t.before(h.at), seen)
	default:
		t.run(key, b, h)
	}
}

// run takes an event of a run's begin or end.
func (t *table) run(key string, b *box, h happening) {
	if t.over(key, b, h) {
		return
	}
	t.touch(key, fresh{task: true})
	switch h.action {
	case taskCreated:
		if b.running && b.pid == h.pid {
			return // a list told more already
		}
		t.begin(key, b, h.pid, h.at)
		seen := b.seen()
		seen.State, seen.PID = "created", h.pid
		t.tell(h.at, t.before(h.at), seen)
	case taskStarted:
		t.begin(key, b, h.pid, h.at)
		b.started = h.at
		seen := b.seen()
		seen.State, seen.PID, seen.Started = "running", h.pid, h.at
		t.tell(h.at, t.before(h.at), seen)
		t.ask(b) // where it lives can be read now
	case taskExited:
		t.exit(key, b, h)
		t.finish(key, b)
	case taskDeleted:
		// An exit comes before it; where that was lost, this one tells it.
		if b.running && b.pid == h.pid {
			t.exit(key, b, h)
			t.finish(key, b)
		}
	}
}

// over tells whether the run that begins by this event has ended since. Of a
// short one containerd tells the start after the end, and with a later time;
// another run of its pid is created first.
func (t *table) over(key string, b *box, h happening) bool {
	e := t.told(key, h.pid)
	switch {
	case e == nil || b.running && b.pid == h.pid:
		return false
	case h.action == taskCreated:
		return !h.at.After(e.at)
	}
	return h.action == taskStarted
}

// begin notes that a container has a task. If another one was not known to
// have ended, it has.
func (t *table) begin(key string, b *box, pid int, at time.Time) {
	if b.running && b.pid != pid && b.pid != 0 {
		t.ended(key, b, signal.ContainerExit{PID: b.pid, Started: b.started}, at, t.away())
	}
	if !b.running || b.pid != pid {
		b.running, b.pid, b.started, b.over = true, pid, time.Time{}, false
		for i := range t.ends {
			if t.ends[i].key == key && (t.ends[i].pid == pid || t.ends[i].pid == 0) {
				t.ends[i] = end{} // its number came back
			}
		}
	}
}

// exit takes an event of an end. It happened when the runtime saw it, which
// is before the event was made.
func (t *table) exit(key string, b *box, h happening) {
	at := h.at
	if f := h.finished; !f.IsZero() && f.Before(at) && at.Sub(f) < time.Minute {
		at = f
	}
	x := signal.ContainerExit{Code: h.code, PID: h.pid, Finished: h.finished}
	if b.pid == h.pid {
		x.Started = b.started
	}
	t.ended(key, b, x, at, t.before(at))
}

// ended tells an end, if it was not told before, or if more is known now.
func (t *table) ended(key string, b *box, x signal.ContainerExit, at time.Time, recovered bool) {
	if b.running && (b.pid == x.PID || b.pid == 0) {
		b.running = false
	}
	if e := t.told(key, x.PID); e != nil {
		if e.coded || x.Code == nil {
			return
		}
		e.coded, at = true, e.at
	} else {
		t.ends[t.next] = end{key: key, pid: x.PID, at: at, coded: x.Code != nil}
		t.next = (t.next + 1) % len(t.ends)
	}
	x.ID, x.Runtime, x.Namespace = b.id, runtime, b.namespace
	t.tell(at, recovered, x)
}

// told finds an end that was told.
func (t *table) told(key string, pid int) *end {
	for i := range t.ends {
		if t.ends[i].key == key && t.ends[i].pid == pid {
			return &t.ends[i]
		}
	}
	return nil
}

// before tells whether a time lies in a gap between two connections.
func (t *table) before(at time.Time) bool { return !t.since.IsZero() && at.Before(t.began) }

// away tells whether what is found now may have happened in such a gap: it is
// found by one of the first two lists.
func (t *table) away() bool { return !t.since.IsZero() && t.lists < 2 }

// touch notes what events say while a list is under way.
func (t *table) touch(key string, f fresh) {
	if t.fresh == nil {
		return
	}
	was := t.fresh[key]
	t.fresh[key] = fresh{was.container || f.container, was.task || f.task}
}

// removed takes the removal of a container. What was asked of it comes first.
func (t *table) removed(key string, h happening) {
	b := t.boxes[key]
	switch {
	case b == nil && len(t.boxes) >= maxContainers:
		t.tell(h.at, t.before(h.at), signal.ContainerGone{ID: h.id, Runtime: runtime, Namespace: h.namespace})
	case b != nil && b.goneAt.IsZero(): // else a list or another event told it already
		b.goneAt = h.at
		t.finish(key, b)
	}
}

// finish tells that a container is gone when all else is told: answers are on
// their way, and shims send events of ends later than containerd its own.
func (t *table) finish(key string, b *box) {
	if !b.goneAt.IsZero() && b.asked <= 0 && !b.running && t.boxes[key] == b {
		t.drop(key, b, b.goneAt)
	}
}

// sweep waits no longer for the ends of containers that were removed.
func (t *table) sweep(now time.Time) {
	for key, b := range t.boxes {
		if !b.goneAt.IsZero() && now.Sub(b.goneAt) > lateEnd {
			t.drop(key, b, b.goneAt)
		}
	}
}

// drop tells that a container is gone, and forgets it. If it ran, it ended.
func (t *table) drop(key string, b *box, at time.Time) {
	if b.running {
		t.ended(key, b, signal.ContainerExit{PID: b.pid, Started: b.started}, at, t.away())
	}
	t.byID(b, at)
	delete(t.boxes, key)
	t.graves[t.grave] = key
	t.grave = (t.grave + 1) % len(t.graves)
	t.tell(at, t.before(at), signal.ContainerGone{ID: b.id, Runtime: runtime, Namespace: b.namespace})
	t.own(key, false)
}

// byID names a container that nobody described by its id.
func (t *table) byID(b *box, at time.Time) {
	if b.named || b.namespace == nsDocker {
		return
	}
	b.named = true
	seen := b.seen()
	seen.Container.Name = b.id
	t.tell(at, t.before(at), seen)
}

// seen begins what is told of a container.
func (b *box) seen() signal.ContainerSeen {
	return signal.ContainerSeen{Namespace: b.namespace, Container: death.Container{ID: b.id, Runtime: runtimeOf(b.namespace)}}
}

// ask has a container asked for.
func (t *table) ask(b *box) {
	if t.want(job{box: b}) {
		b.asked++
	}
}

// answered takes the answer to a job; d is nil where there was none.
func (t *table) answered(j job, d *described, now time.Time) {
	b := j.box
	key := engines.Key(b.namespace, b.id)
	if t.boxes[key] != b {
		return // another one has its name
	}
	b.asked--
	switch {
	case d == nil:
		t.byID(b, now)
	case d.seen.Container.ID != b.id:
		t.lost(1, "answers about another container")
	default:
		t.describe(b, d, j.cgroup, now)
	}
	t.finish(key, b)
}

// describe tells who a container is, where that is news.
func (t *table) describe(b *box, d *described, lives string, now time.Time) {
	seen := d.seen
	seen.Container.Cgroup = d.own(lives)
	switch {
	case lives != "":
		b.cgroup = seen.Container.Cgroup
	case b.cgroup != "":
		seen.Container.Cgroup = b.cgroup // its process knew better than what is configured
	}
	if d.lost > 0 && !b.cut {
		b.cut = true
		t.lost(d.lost, "labels that are too long or too many, cut or left out")
	}
	if d.unread && !b.unread {
		b.unread = true
		t.lost(1, "containers whose configuration cannot be read")
	}
	b.named = b.named || seen.Container.Name != ""
	if sum := t.sum(seen); sum != b.looked {
		b.looked = sum
		t.tell(now, false, seen)
	}
}

func (t *table) sum(seen signal.ContainerSeen) uint64 {
	text, err := json.Marshal(seen)
	if err != nil {
		return 0
	}
	return maphash.Bytes(t.seed, text)
}
