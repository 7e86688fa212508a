// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"

	"github.com/coroner-dev/coroner/internal/signal"
)

// world is an engine made of chance: containers come, run, end and go, the
// connection ends and comes back, and a list is as old as it may be.
type world struct {
	rnd *rand.Rand
	now time.Time
	tb  *table

	boxes map[string]*modelBox
	runs  []*modelRun
	gone  map[string]int // removals that were heard, of those that had been told

	connected bool
	alive     time.Time
	// Events on their way: containerd's own, and those of shims, which can be
	// later.
	queue, shims []func()

	exits   map[int][]told1 // by pid
	left    map[string]int  // removals told
	removed map[string]int  // how often it was, in truth
	seen    map[string]bool // told, and not told to be gone
}

type modelBox struct {
	key  string
	task *modelRun
}

type modelRun struct {
	key          string
	pid, code    int
	heard, ended bool // an event of it came; it ended
}

type told1 struct {
	at   time.Time
	code *int
}

func newWorld(seed uint64) *world {
	w := &world{
		rnd: rand.New(rand.NewPCG(seed, 1)), now: start, tb: newTable(), boxes: map[string]*modelBox{}, gone: map[string]int{}, //nolint:gosec // a model's chance
		exits: map[int][]told1{}, left: map[string]int{}, seen: map[string]bool{}, removed: map[string]int{},
	}
	w.tb.lost = func(n int, why string) { panic(fmt.Sprint(n, why)) }
	w.tb.own = func(string, bool) {}
	w.tb.want = func(job) bool { return false }
	w.tb.tell = func(at time.Time, _ bool, b signal.Body) {
		switch b := b.(type) {
		case signal.ContainerExit:
			w.exits[b.PID] = append(w.exits[b.PID], told1{at, b.Code})
		case signal.ContainerSeen:
			w.seen[b.Container.ID] = true
		case signal.ContainerGone:
			w.left[b.ID]++
			if !w.seen[b.ID] {
				panic("gone, and nobody saw it")
			}
			w.seen[b.ID] = false
		}
	}
	return w
}

// send has an event arrive, at once or soon; while nobody is connected it is
// lost.
func (w *world) send(h happening, r *modelRun) {
	if !w.connected {
		return
	}
	h.namespace, h.at = "n", w.now
	take := func() {
		seen := w.seen[h.id]
		w.tb.event(h, nil, w.now)
		switch {
		case r != nil && h.action != taskDeleted:
			r.heard = true
		case h.action == containerDeleted && seen:
			w.gone[h.id]++
		}
	}
	switch h.action {
	case containerCreated, containerDeleted:
		w.queue = append(w.queue, take)
	default:
		w.shims = append(w.shims, take)
	}
	if w.rnd.IntN(3) > 0 {
		w.deliver(&w.queue)
	}
	if w.rnd.IntN(3) > 0 {
		w.deliver(&w.shims)
	}
}

func (w *world) arrive() {
	w.deliver(&w.queue)
	w.deliver(&w.shims)
}

func (w *world) deliver(events *[]func()) {
	if events == &w.shims {
		w.deliver(&w.queue)
	}
	for _, e := range *events {
		e()
	}
	*events = nil
}

// step lets one thing happen.
func (w *world) step() {
	w.now = w.now.Add(time.Duration(1+w.rnd.IntN(400)) * time.Millisecond)
	id := fmt.Sprint("c", w.rnd.IntN(4))
	b := w.boxes[id]
	switch {
	case b == nil:
		w.boxes[id] = &modelBox{key: id}
		w.send(happening{id: id, action: containerCreated}, nil)
	case b.task == nil && w.rnd.IntN(3) == 0:
		delete(w.boxes, id)
		w.removed[id]++
		w.send(happening{id: id, action: containerDeleted}, nil)
	case b.task == nil:
		b.task = &modelRun{key: id, pid: 100 + len(w.runs), code: w.rnd.IntN(256)}
		w.runs = append(w.runs, b.task)
		w.send(happening{id: id, action: taskCreated, pid: b.task.pid}, b.task)
		w.send(happening{id: id, action: taskStarted, pid: b.task.pid}, b.task)
	case !b.task.ended && w.rnd.IntN(2) == 0:
		w.end(b)
	case b.task.ended:
		r := b.task
		b.task = nil
		w.send(happening{id: id, action: taskDeleted, pid: r.pid, code: &r.code, finished: w.now}, r)
	}
}

func (w *world) end(b *modelBox) {
	r := b.task
	r.ended = true
	h := happening{id: b.key, action: taskExited, pid: r.pid, code: &r.code, finished: w.now}
	w.send(h, r)
	if w.rnd.IntN(4) == 0 {
		w.send(h, r) // a shim that sends again
	}
}

// list is one as the source makes it: the tasks first, then the containers,
// while more happens.
func (w *world) list() {
	w.tb.listing()
	tasks := map[string]*taskState{}
	for id, b := range w.boxes {
		if r := b.task; r != nil {
			s := &taskState{state: "running", pid: r.pid}
			if r.ended {
				*s = taskState{state: "exited", stopped: true, pid: r.pid, code: &r.code, finished: w.now}
			}
			tasks[id] = s
		}
	}
	w.some(2)
	var rows []found
	for id := range w.boxes {
		d, err := reader{}.describe("n", &containersapi.Container{ID: id})
		if err != nil {
			panic(err)
		}
		rows = append(rows, found{described: d, task: tasks[id]})
	}
	w.some(2)
	for _, f := range rows {
		w.tb.row(f, w.now)
	}
	w.some(1)
	w.tb.listedAll(true, w.now)
}

func (w *world) some(n int) {
	for range w.rnd.IntN(n + 1) {
		w.step()
	}
}

func (w *world) connect() {
	w.connected = true
	since := w.alive
	if !since.IsZero() {
		since = since.Add(-overlap)
	}
	w.tb.connect(since, w.now)
	w.list()
	w.arrive()
}

func (w *world) disconnect() {
	w.queue, w.shims, w.connected, w.alive = nil, nil, false, w.now
	w.tb.disconnect()
}

// TestModel: in whatever order things happen and are heard, an end that could
// be known is told once, and again only to add its code; never that of a
// container that runs; and a removal once.
func TestModel(t *testing.T) {
	for seed := range uint64(3000) {
		w := newWorld(seed)
		w.some(6)
		w.connect()
		for range 3 {
			w.some(30)
			w.arrive()
			w.list()
			w.arrive()
			if w.rnd.IntN(2) == 0 {
				w.disconnect()
				w.some(10)
				w.connect()
			}
		}
		w.some(20)
		w.arrive()
		w.list()
		w.arrive()
		w.list()
		w.arrive()
		w.now = w.now.Add(time.Minute)
		w.tb.sweep(w.now)
		w.check(t, seed)
		if t.Failed() {
			return
		}
	}
}

func (w *world) check(t *testing.T, seed uint64) {
	t.Helper()
	first := map[int]bool{}
	for _, r := range w.runs {
		x := w.exits[r.pid]
		first[r.pid] = true
		switch {
		case !r.ended && len(x) > 0:
			t.Errorf("seed %d: pid %d of %s runs, and its end was told", seed, r.pid, r.key)
		case len(x) > 2, len(x) == 2 && (x[0].code != nil || x[1].code == nil || !x[0].at.Equal(x[1].at)):
			t.Errorf("seed %d: end of pid %d of %s told as %+v", seed, r.pid, r.key, x)
		case r.ended && r.heard && len(x) == 0:
			t.Errorf("seed %d: end of pid %d of %s was not told", seed, r.pid, r.key)
		}
		for _, e := range x {
			if e.code != nil && *e.code != r.code {
				t.Errorf("seed %d: pid %d ended with %d, told %d", seed, r.pid, r.code, *e.code)
			}
		}
	}
	for pid := range w.exits {
		if !first[pid] {
			t.Errorf("seed %d: end of pid %d, which never was", seed, pid)
		}
	}
	for key, n := range w.left {
		if n > w.removed[key] {
			t.Errorf("seed %d: %s was removed %d times, told %d", seed, key, w.removed[key], n)
		}
	}
	for key, n := range w.gone {
		if w.left[key] < n {
			t.Errorf("seed %d: %s was removed %d times, told %d", seed, key, n, w.left[key])
		}
	}
}
