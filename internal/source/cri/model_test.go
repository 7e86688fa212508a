// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/coroner-dev/coroner/internal/signal"
)

// world is a runtime made of chance: containers come, run, end and go, events
// come late or never, lists and statuses are as old as they may be, and the
// connection ends and comes back.
type world struct {
	rnd    *rand.Rand
	now    time.Time
	first  time.Time // when it was first listened to
	alive  time.Time
	events bool
	tb     *table
	n      int

	boxes map[string]*runtimeapi.ContainerStatus
	gone  map[string]bool
	codes map[string]int32 // of all that ended
	ended map[string]time.Time

	stream []*runtimeapi.ContainerEventResponse
	list   *flight
	asked  []flight
	jobs   []job

	seen  map[string]int
	left  map[string]int
	exits map[string][]told
}

// flight is a question whose answer is on its way: it was looked up at a time
// of chance after it was asked.
type flight struct {
	job    job
	seq    uint64
	at     time.Time
	rows   []*runtimeapi.Container
	status *runtimeapi.ContainerStatus
	looked bool
	fails  bool
}

type told struct {
	at time.Time
	e  signal.ContainerExit
}

func newWorld(seed uint64, events bool) *world {
	w := &world{
		rnd: rand.New(rand.NewPCG(seed, 1)), now: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC), events: events, tb: newTable(), //nolint:gosec // a model's chance
		boxes: map[string]*runtimeapi.ContainerStatus{}, gone: map[string]bool{}, codes: map[string]int32{}, ended: map[string]time.Time{},
		seen: map[string]int{}, left: map[string]int{}, exits: map[string][]told{},
	}
	w.tb.lost = func(int, string) {}
	w.tb.want = func(j job) { w.jobs = append(w.jobs, j) }
	w.tb.tell = func(at time.Time, _ bool, b signal.Body) {
		switch b := b.(type) {
		case signal.ContainerSeen:
			if w.left[b.Container.ID] > 0 {
				panic("seen after it was gone: " + b.Container.ID)
			}
			if len(w.exits[b.Container.ID]) > 0 && b.State == "running" {
				panic("runs after its end: " + b.Container.ID)
			}
			w.seen[b.Container.ID]++
		case signal.ContainerGone:
			w.left[b.ID]++
		case signal.ContainerExit:
			w.exits[b.ID] = append(w.exits[b.ID], told{at, b})
		}
	}
	for range 5 {
		w.live()
	}
	w.first, w.alive = w.now, w.now
	w.connect()
	return w
}

func (w *world) chance(percent int) bool { return w.rnd.IntN(100) < percent }

func (w *world) pick(ok func(c *runtimeapi.ContainerStatus) bool) string {
	var ids []string
	for i := range w.n {
		id := fmt.Sprint("c", i)
		if c := w.boxes[id]; c != nil && ok(c) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return ""
	}
	return ids[w.rnd.IntN(len(ids))]
}

// live lets one thing happen.
func (w *world) live() {
	switch w.rnd.IntN(4) {
	case 0:
		id := fmt.Sprint("c", w.n)
		w.n++
		w.boxes[id] = &runtimeapi.ContainerStatus{Id: id}
		w.tell(id, evCreated)
	case 1:
		if id := w.pick(func(c *runtimeapi.ContainerStatus) bool { return stateOf(c.GetState()) == created }); id != "" {
			w.boxes[id].State = runtimeapi.ContainerState_CONTAINER_RUNNING
			w.tell(id, evStarted)
		}
	case 2:
		if id := w.pick(func(c *runtimeapi.ContainerStatus) bool { return stateOf(c.GetState()) == running }); id != "" {
			c := w.boxes[id]
			c.State, c.ExitCode, c.Reason, c.FinishedAt = runtimeapi.ContainerState_CONTAINER_EXITED, int32(w.rnd.IntN(200)), "Error", w.now.UnixNano() //nolint:gosec // small
			w.codes[id], w.ended[id] = c.GetExitCode(), w.now
			w.tell(id, evStopped)
		}
	case 3:
		if id := w.pick(func(c *runtimeapi.ContainerStatus) bool { return stateOf(c.GetState()) == exited }); id != "" && w.chance(30) {
			delete(w.boxes, id)
			w.gone[id] = true
			w.tell(id, evDeleted)
		}
	}
}

// tell puts an event into the stream, mostly.
func (w *world) tell(id string, kind runtimeapi.ContainerEventType) {
	if !w.events || w.first.IsZero() || w.chance(10) {
		return
	}
	e := &runtimeapi.ContainerEventResponse{ContainerId: id, ContainerEventType: kind}
	if c := w.boxes[id]; c != nil && w.chance(80) {
		e.ContainersStatuses = append(e.ContainersStatuses, proto.CloneOf(c))
	}
	w.stream = append(w.stream, e)
}

func (w *world) connect() {
	w.stream, w.list, w.asked, w.jobs = nil, nil, nil, nil
	w.tb.connect(reader{}, w.alive, w.now)
}

// look gives a question the answer of now.
func (w *world) look(f *flight, list bool) {
	f.looked = true
	if !list {
		if c := w.boxes[f.job.id]; c != nil {
			f.status = proto.CloneOf(c)
		}
		return
	}
	for i := range w.n {
		if c := w.boxes[fmt.Sprint("c", i)]; c != nil {
			f.rows = append(f.rows, &runtimeapi.Container{Id: c.GetId(), State: c.GetState()})
		}
	}
}

// hear lets one answer or event come in, or one question go out.
func (w *world) hear() {
	w.tb.due(w.now)
	switch w.rnd.IntN(8) {
	case 0, 1:
		if len(w.stream) > 0 {
			w.tb.event(w.stream[0], w.now)
			w.stream = w.stream[1:]
		}
	case 2:
		if w.list == nil {
			w.list = &flight{seq: w.tb.seq, at: w.now}
		} else if !w.list.looked {
			w.look(w.list, true)
		}
	case 3:
		if w.list != nil && w.list.looked {
			w.tb.merge(listing{containers: w.list.rows, asked: w.list.seq}, w.now)
			w.alive, w.list = w.list.at.Add(-overlap), nil
		}
	case 4:
		if len(w.jobs) > 0 {
			w.asked = append(w.asked, flight{job: w.jobs[0], fails: w.chance(5)})
			w.jobs = w.jobs[1:]
		}
	case 5:
		if len(w.asked) > 0 {
			if f := &w.asked[w.rnd.IntN(len(w.asked))]; !f.looked {
				w.look(f, false)
			}
		}
	default:
		if len(w.asked) > 0 {
			if i := w.rnd.IntN(len(w.asked)); w.asked[i].looked {
				w.answer(w.asked[i])
				w.asked = append(w.asked[:i], w.asked[i+1:]...)
			}
		}
	}
}

func (w *world) answer(f flight) {
	if f.fails || f.status == nil {
		w.tb.unanswered(f.job, !f.fails, w.now)
		return
	}
	w.tb.answered(answer{job: f.job, container: f.status}, w.now)
}

// rest lets all answers come in, and what they lead to.
func (w *world) rest() {
	w.connect()
	for range 10 {
		w.now = w.now.Add(5 * time.Second)
		f := &flight{seq: w.tb.seq}
		w.look(f, true)
		w.tb.merge(listing{containers: f.rows, asked: f.seq}, w.now)
		w.tb.due(w.now)
		for len(w.jobs) > 0 {
			f := flight{job: w.jobs[0]}
			w.jobs = w.jobs[1:]
			w.look(&f, false)
			w.answer(f)
		}
	}
}

// check compares what was told with what was.
func (w *world) check(t *testing.T, name string) {
	t.Helper()
	for i := range w.n {
		id := fmt.Sprint("c", i)
		if w.left[id] > 1 || w.left[id] > 0 && !w.gone[id] || w.gone[id] && w.seen[id] > 0 && w.left[id] == 0 {
			t.Errorf("%s: %s is gone: %v, told %d times", name, id, w.gone[id], w.left[id])
		}
		c := w.boxes[id]
		if c != nil && w.seen[id] == 0 {
			t.Errorf("%s: %s was not seen", name, id)
		}
		ends := w.exits[id]
		for _, e := range ends {
			if !e.at.Equal(ends[0].at) || w.ended[id].IsZero() || e.at.Before(w.ended[id]) {
				t.Errorf("%s: %s ended at %v, told %v and %v", name, id, w.ended[id], ends[0].at, e.at)
			}
			if e.e.Code != nil && int32(*e.e.Code) != w.codes[id] { //nolint:gosec // small
				t.Errorf("%s: %s ended with %d, told %d", name, id, w.codes[id], *e.e.Code)
			}
		}
		if c != nil && stateOf(c.GetState()) == exited && w.ended[id].After(w.first) {
			if len(ends) == 0 || ends[len(ends)-1].e.Code == nil {
				t.Errorf("%s: %s ended, told %+v", name, id, ends)
			}
		}
	}
}

// TestModel: whatever the order in which a runtime's answers and events come,
// and whatever is lost, each end that can be known is told, none twice with
// different times, and none that was not.
func TestModel(t *testing.T) {
	rounds := uint64(300)
	if testing.Short() {
		rounds = 50
	}
	for seed := range rounds {
		for _, events := range []bool{false, true} {
			w := newWorld(seed, events)
			for range 400 {
				w.now = w.now.Add(time.Duration(w.rnd.IntN(1000)) * time.Millisecond)
				switch {
				case w.chance(1):
					w.connect()
				case w.chance(25):
					w.live()
				default:
					w.hear()
				}
			}
			w.rest()
			w.check(t, fmt.Sprintf("seed %d, events %v", seed, events))
			if t.Failed() {
				return
			}
		}
	}
}
