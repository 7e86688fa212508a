// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// maxPods bounds what is remembered: ten times what a node is made for.
const maxPods = 1100

// home is what is remembered of one pod.
type home struct {
	api      string // its uid in the API; a static pod's cgroup has another
	job      *job
	told     signal.PodSeen
	boxes    map[string]*box // by the container's id
	nameless map[string]bool // containers without an id, by name
	failed   *failure
}

// failure is that a pod ended of which nothing ran.
type failure struct {
	at        time.Time
	recovered bool // no agent ran then
	told      bool // by an earlier run, or it was no news when the agent began
}

// box is what is remembered of one container. Each start of it has a new id.
type box struct {
	told  signal.ContainerSeen // without labels and log
	ended bool
}

// table is what is known of the node's pods. It does no I/O and reads no clock.
type table struct {
	pods  map[string]*home // by the uid that their cgroups have
	owned owners
	began time.Time // what ended before was no news when the agent began
	since time.Time // up to when all that ended was told by an earlier run; zero: nothing was

	tell func(at time.Time, recovered bool, b signal.Body)
	lost func(n int, why string)
}

// What a table is short of.
const (
	whyPods     = "more pods than are remembered"
	whyLabels   = "labels that are too long or too many, or containers of one pod, cut or left out"
	whyNameless = "ends of containers without a runtime's id"
)

func newTable(began, since time.Time) *table {
	return &table{pods: map[string]*home{}, owned: owners{}, began: began, since: since}
}

// see takes a pod as the API, or the kubelet, has it now.
func (t *table) see(d *reading, now time.Time) {
	h := t.home(d, now)
	if h == nil {
		t.lost(1, whyPods)
		return
	}
	if h.told.Pod.UID == "" {
		t.count(d.cut, whyLabels)
	}
	seen := d.seen
	h.job, seen.Pod.UID, seen.Pod.Owner = d.job, t.uidOf(d), t.owned.of(d)
	h.settle(&seen, now)
	recovered := t.failed(h, &seen, now)
	if !samePod(&h.told, &seen) {
		h.told = seen
		t.tell(now, recovered, seen)
	}
	for _, l := range d.lives {
		l.seen.Container.Pod = new(h.told.Pod)
		l.seen.LogPath = logPath(l.seen.Container.Pod, &l.seen.Container)
		t.live(h, l, now)
	}
	t.prune(h, d.lives, now)
	for _, name := range d.nameless {
		if !h.nameless[name] {
			h.nameless[name] = true
			t.lost(1, whyNameless)
		}
	}
}

// failed says of a pod of which nothing ran when that was, and leaves it out where
// it is no news: such pods stay in the API. It returns whether no agent ran then.
func (t *table) failed(h *home, seen *signal.PodSeen, now time.Time) (recovered bool) {
	if !seen.NeverRan {
		return false
	}
	if h.failed == nil {
		at := seen.Failed
		if at.IsZero() || at.After(now) || h.told.Pod.UID != "" && at.Before(t.began) { // the last: it had not failed then
			at = now
		}
		f := &failure{at: at, recovered: at.Before(t.began)}
		f.told = f.recovered && (t.since.IsZero() || at.Before(t.since.Truncate(time.Second)))
		h.failed = f
	}
	seen.Failed, seen.NeverRan = h.failed.at, !h.failed.told
	return h.failed.recovered
}

// home finds or makes the home of a pod; nil: there is no room.
func (t *table) home(d *reading, now time.Time) *home {
	uid := t.uidOf(d)
	h := t.pods[uid]
	if h != nil && h.api != string(d.UID) && ofAPI(uid) {
		t.gone(uid, now) // it went by this pod's uid
		h = nil
	}
	if h == nil {
		if len(t.pods) >= maxPods {
			return nil
		}
		h = &home{boxes: map[string]*box{}, nameless: map[string]bool{}}
		t.pods[uid] = h
	}
	if h.api == "" || d.static != "" {
		h.api = string(d.UID)
	}
	return h
}

// uidOf is the uid that a pod's cgroup has. That of a static pod is what its
// mirror in the API says, and anybody who may make pods can say it: it counts
// where no other pod goes by it.
func (t *table) uidOf(d *reading) string {
	own := string(d.UID)
	if d.static == "" {
		return own
	}
	h := t.pods[d.static]
	if h == nil || h.api == own || h.api == d.static && !ofAPI(d.static) { // the last: as the kubelet told it
		return d.static
	}
	return own
}

// ofAPI tells whether a uid is one that the API gives: the kubelet's have no
// dashes.
func ofAPI(uid string) bool { return len(uid) == 36 && uid[8] == '-' }

// settle lays what is said now over what was told before. Nothing that is told
// is still to come, and the first request to delete a pod counts.
func (h *home) settle(seen *signal.PodSeen, now time.Time) {
	if d := seen.Deletion; d != nil && d.At.After(now) {
		d.At = now
	}
	if h.told.Deletion != nil {
		seen.Deletion = h.told.Deletion
	}
	if d := seen.Disruption; d != nil && d.At.After(now) {
		d.At = now
	}
	if d, was := seen.Disruption, h.told.Disruption; d != nil && was != nil && d.Reason == was.Reason {
		d.At = was.At
	}
}

func (t *table) count(n int, why string) {
	if n > 0 {
		t.lost(n, why)
	}
}

// belongs takes whose a Job is, and tells of its pods again.
func (t *table) belongs(uid string, o *death.Owner, now time.Time) {
	t.owned.add(uid, o)
	for _, h := range t.pods {
		if h.job == nil || h.job.uid != uid || samePtr(h.told.Pod.Owner, o) {
			continue
		}
		h.told.Pod.Owner = o
		t.tell(now, false, h.told)
		for _, b := range h.boxes {
			b.told.Container.Pod = new(h.told.Pod)
			t.tell(now, false, b.told)
		}
	}
}

// live takes one run of a container.
func (t *table) live(h *home, l life, now time.Time) {
	id := l.seen.Container.ID
	b := h.boxes[id]
	if b == nil {
		b = &box{}
		h.boxes[id] = b
	}
	if b.ended && l.exit == nil {
		return // the kubelet can know less than the API did
	}
	if was := b.told.Container.Image; was != "" {
		// What a run was made of stays; where the status has an image's id alone,
		// its name is of what is asked for now.
		l.seen.Container.Image, l.seen.Container.ImageID = was, cmp.Or(b.told.Container.ImageID, l.seen.Container.ImageID)
	}
	// What the API says of the run before the present one leaves out its image
	// and its limit, which were told while it ran.
	if l.complete && !sameContainer(&b.told, &l.seen) || b.told.Container.ID == "" {
		b.told = l.seen
		t.tell(now, false, l.seen)
		b.told.Container.Labels, b.told.LogPath, b.told.Liveness, b.told.Startup = nil, "", nil, nil
	}
	if l.exit == nil || b.ended {
		return
	}
	b.ended = true
	at, recovered := l.exit.Finished, false
	if at.IsZero() {
		at = now
	} else if at.Before(t.began) {
		if t.since.IsZero() || at.Before(t.since.Truncate(time.Second)) {
			return
		}
		recovered = true
	}
	t.tell(at, recovered, *l.exit)
}

// prune takes leave of runs of which the API tells no more: it has the present
// one and the one before.
func (t *table) prune(h *home, lives []life, now time.Time) {
	if len(h.boxes) <= len(lives) {
		return
	}
	here := make(map[string]bool, len(lives))
	for _, l := range lives {
		here[l.seen.Container.ID] = true
	}
	for id := range h.boxes {
		if !here[id] {
			t.leave(h, id, now)
		}
	}
}

// leave says that a run is there no more: nobody else may.
func (t *table) leave(h *home, id string, now time.Time) {
	t.tell(now, false, signal.ContainerGone{ID: id, Runtime: h.boxes[id].told.Container.Runtime})
	delete(h.boxes, id)
}

// gone takes leave of a pod that the API has no more.
func (t *table) gone(uid string, now time.Time) {
	h := t.pods[uid]
	if h == nil {
		return
	}
	delete(t.pods, uid)
	for id := range h.boxes {
		t.leave(h, id, now)
	}
	t.tell(now, false, signal.PodGone{UID: uid})
}

// keep takes leave of all pods but these.
func (t *table) keep(all []*reading, now time.Time) {
	here := make(map[string]bool, 2*len(all))
	for _, d := range all {
		here[string(d.UID)] = true
		if d.static != "" && !ofAPI(d.static) {
			here[d.static] = true // as the kubelet told it
		}
	}
	for uid, h := range t.pods {
		if !here[h.api] {
			t.gone(uid, now)
		}
	}
}

func samePod(a, b *signal.PodSeen) bool {
	x, y := *a, *b
	same := samePtr(x.Pod.Owner, y.Pod.Owner) && samePtr(x.Priority, y.Priority) && samePtr(x.RequestBytes, y.RequestBytes) && samePtr(x.Disruption, y.Disruption) && samePtr(x.Deletion, y.Deletion)
	x.Pod.Owner, x.Priority, x.RequestBytes, x.Disruption, x.Deletion = y.Pod.Owner, y.Priority, y.RequestBytes, y.Disruption, y.Deletion
	return same && x == y
}

func sameContainer(a, b *signal.ContainerSeen) bool {
	c, d := &a.Container, &b.Container
	return c.ID == d.ID && c.Name == d.Name && c.Image == d.Image && samePtr(c.RestartCount, d.RestartCount) && samePtr2(c.Pod, d.Pod) &&
		a.State == b.State && a.Started.Equal(b.Started) && samePtr(a.LimitBytes, b.LimitBytes) && samePtr(a.RequestBytes, b.RequestBytes)
}

func samePtr[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

func samePtr2(a, b *death.Pod) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := *a, *b
	x.Owner, y.Owner = nil, nil
	return x == y && samePtr(a.Owner, b.Owner)
}
