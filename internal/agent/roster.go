// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"strings"
	"sync"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

const (
	// keepRemoved is how long a removed container is still shown.
	keepRemoved = 5 * time.Minute
	// maxRemoved bounds the removed containers that are kept.
	maxRemoved = 10_000
	// keepUnclaimed is how long a count of an earlier run waits for its
	// container: engines can come late.
	keepUnclaimed = time.Hour
)

// roster lists the containers that are there, for metrics: those whose cgroup
// lives, and those that an engine has; and those that were removed lately. It
// counts their restarts.
type roster struct {
	now func() time.Time

	mu      sync.Mutex
	byKey   map[string]*living
	byPath  map[string]string // keys by cgroup
	graves  []grave           // oldest first
	stories map[string]*story
	changed map[string]bool   // stories that are not kept as they are
	before  map[string]ending // of earlier runs, by id
	began   time.Time
}

func newRoster() *roster {
	return &roster{
		now: time.Now, began: time.Now(), byKey: map[string]*living{}, byPath: map[string]string{},
		stories: map[string]*story{}, changed: map[string]bool{}, before: map[string]ending{},
	}
}

// living is one container that is there, or was until lately.
type living struct {
	death.Container
	key            string
	cgroup, engine bool      // who has it
	gone           time.Time // when nobody had it any more; zero: somebody has
	restarts       int       // as they were then
	end            ending
	state          string // as an engine says
	stateAt        time.Time
	storyName      string
	story          *story
	lives          map[death.Source]*life
}

// grave is a container that was removed. It may have come back.
type grave struct {
	key string
	at  time.Time
}

// feed takes what a signal says of a container. c is that container with its
// names, nil: there is none to show; key is a name that no other has.
func (r *roster) feed(s signal.Signal, c *death.Container, key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch b := s.Body.(type) {
	case signal.CgroupSeen:
		if l := r.take(c, key); l != nil {
			l.cgroup = true
		}
	case signal.CgroupGone:
		if l := r.byKey[r.byPath[b.Path]]; l != nil {
			l.cgroup = false
			r.leave(l)
		}
	case signal.ContainerSeen:
		r.seen(s, b, c, key)
	case signal.PodSeen:
		r.unlist(b.Pod.UID)
	case signal.Exit: // of one that only held a pod's namespaces
		r.forget(key)
	case signal.ContainerExit:
		if l := r.byKey[key]; l != nil {
			if !s.Time.Before(r.began) {
				l.life(s.Source).exit(s.Time, b.Started)
			}
			l.ended(b.Code, s.Time)
			l.stopped(s.Time)
		}
	case signal.ContainerGone:
		if l := r.byKey[key]; l != nil && c == nil {
			l.engine = false
			r.leave(l)
		}
	}
}

// seen takes what an engine says of a container.
func (r *roster) seen(s signal.Signal, b signal.ContainerSeen, c *death.Container, key string) {
	if b.Sandbox {
		r.forget(key) // its cgroup may have been seen before
	}
	l := r.take(c, key)
	if l == nil {
		return
	}
	l.engine = true
	l.say(s.Time, b.State)
	if !s.Time.Before(r.began) { // else an event of before, which an earlier run counted
		r.told(l, s, b)
	}
}

// unlist forgets of a pod, whose containers are told of from now on, those that
// nobody ever named: their cgroups were seen before it was.
func (r *roster) unlist(uid string) {
	for key, l := range r.byKey {
		if l.Pod != nil && l.Pod.UID == uid && l.Name == "" && !l.engine && l.gone.IsZero() {
			r.forget(key)
		}
	}
}

// take notes a container and its names.
func (r *roster) take(c *death.Container, key string) *living {
	if c == nil || key == "" {
		return nil
	}
	l := r.byKey[key]
	if l == nil {
		l = &living{key: key, lives: map[death.Source]*life{}, end: r.before[c.ID]}
		r.byKey[key] = l
	}
	l.gone = time.Time{}
	cgroup, imageID := cmp.Or(c.Cgroup, l.Cgroup), cmp.Or(c.ImageID, l.ImageID)
	if cgroup != l.Cgroup && r.byPath[l.Cgroup] == key {
		delete(r.byPath, l.Cgroup)
	}
	l.Container = *c
	l.Cgroup, l.ImageID = cgroup, imageID
	if cgroup != "" {
		r.byPath[cgroup] = key
	}
	r.join(l)
	return l
}

// join puts a container into the story that its names tell.
func (r *roster) join(l *living) {
	name, pod := storyOf(&l.Container, l.key)
	if l.story != nil && l.storyName == name {
		return
	}
	r.part(l)
	s := r.stories[name]
	if s == nil {
		s = &story{}
		r.stories[name] = s
	}
	s.pod = pod
	s.members++
	l.story, l.storyName = s, name
	for src, x := range l.lives {
		s.begin(src, x.count)
	}
	r.note(l)
}

// part takes a container out of its story, which ends with its last one.
func (r *roster) part(l *living) {
	if l.story == nil {
		return
	}
	if l.story.members--; l.story.members <= 0 {
		r.end(l.storyName, l.story)
	}
	l.story = nil
}

// end forgets a story.
func (r *roster) end(name string, s *story) {
	delete(r.stories, name)
	if delete(r.changed, name); s.kept {
		r.changed[name] = true
	}
}

// told takes what an engine says of a container's runs.
func (r *roster) told(l *living, s signal.Signal, b signal.ContainerSeen) {
	if b.Container.ImageID != "" {
		l.ImageID = b.Container.ImageID
	}
	if l.life(s.Source).seen(s.Time, b) && !l.story.earlier(s.Source, &b.Container) {
		l.story.begin(s.Source, 1)
	}
	news, missed := l.story.ran(s.Source, b.Started, r.began)
	if news {
		r.changed[l.storyName] = true
	}
	if n := b.Container.RestartCount; n != nil && b.State != "" && b.State != stateCreated {
		count := *n
		if b.State == stateRestarting {
			count-- // the one that it waits for
		}
		if l.story.floor(s.Source, count, missed) && l.story.Restarts > 0 {
			r.changed[l.storyName] = true
		}
	}
	if b.ExitCode != nil {
		l.takeEnd(ending{*b.ExitCode, s.Time, true})
	}
	r.note(l)
}

// note marks a story that is to be kept.
func (r *roster) note(l *living) {
	if l.story.Restarts != l.story.saved {
		r.changed[l.storyName] = true
	}
}

// abandoned takes those that no engine speaks for any more.
func (r *roster) abandoned(keys []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, key := range keys {
		if l := r.byKey[key]; l != nil {
			l.engine = false
			r.leave(l)
		}
	}
}

// leave notes that one that had a container has it no more.
func (r *roster) leave(l *living) {
	if l.cgroup || l.engine || !l.gone.IsZero() {
		return
	}
	l.gone, l.restarts = r.now(), l.story.Restarts
	if r.byPath[l.Cgroup] == l.key {
		delete(r.byPath, l.Cgroup)
	}
	r.graves = append(r.graves, grave{l.key, l.gone})
	r.expire()
}

// expire forgets what was removed long ago.
func (r *roster) expire() {
	now := r.now()
	n := 0
	for n < len(r.graves) && (now.Sub(r.graves[n].at) >= keepRemoved || len(r.graves)-n > maxRemoved) {
		if l := r.byKey[r.graves[n].key]; l != nil && l.gone.Equal(r.graves[n].at) {
			r.forget(l.key)
		}
		n++
	}
	if n > 0 {
		r.graves = append(r.graves[:0:0], r.graves[n:]...)
	}
	if !r.began.IsZero() && now.Sub(r.began) >= keepUnclaimed {
		r.began, r.before = time.Time{}, map[string]ending{}
		for name, s := range r.stories {
			if s.members == 0 {
				r.end(name, s)
			}
		}
	}
}

func (r *roster) forget(key string) {
	if l := r.byKey[key]; l != nil {
		r.part(l)
		if r.byPath[l.Cgroup] == key {
			delete(r.byPath, l.Cgroup)
		}
		delete(r.byKey, key)
	}
}

// died takes deaths: where no engine tells how a container ended, they do.
func (r *roster) died(deaths []death.Death, key func(*death.Container) string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range deaths {
		d := &deaths[i]
		if d.Container == nil {
			continue
		}
		if l := r.byKey[key(d.Container)]; l != nil {
			if code, ok := endOf(d); ok {
				l.takeEnd(ending{code, d.Time, d.Recovered})
			}
		}
	}
}

// goOn takes up what earlier runs counted, and how containers ended then.
func (r *roster) goOn(state map[string]string, known []death.Death) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, text := range state {
		if name, ok := strings.CutPrefix(name, stateRestarts); ok && text != "" {
			if s := storyFrom(text); s != nil {
				r.stories[name] = s
			}
		}
	}
	for i := range known {
		d := &known[i]
		if code, ok := endOf(d); ok && d.Container != nil {
			if e := (ending{code, d.Time, true}); e.better(r.before[d.Container.ID]) {
				r.before[d.Container.ID] = e
			}
		}
	}
}

// takeChanges is what the history is to keep of the stories.
func (r *roster) takeChanges() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.expire(); len(r.changed) == 0 {
		return nil
	}
	out := make(map[string]string, len(r.changed))
	for name := range r.changed {
		text := ""
		if s := r.stories[name]; s != nil {
			text, s.saved, s.kept = s.text(), s.Restarts, true
		}
		out[stateRestarts+name] = text
	}
	clear(r.changed)
	return out
}

// list is what metrics show.
func (r *roster) list() []metrics.Container {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expire()
	out := make([]metrics.Container, 0, len(r.byKey))
	for _, l := range r.byKey {
		out = append(out, l.show())
	}
	return out
}

// show is one as it is shown.
func (l *living) show() metrics.Container {
	c := metrics.Container{Container: l.Container, Restarts: l.story.Restarts, ExitCode: l.end.code}
	if c.Removed = !l.gone.IsZero(); c.Removed {
		c.Restarts = l.restarts
	}
	l.story.shown = true
	return c
}

func (l *living) life(src death.Source) *life {
	x := l.lives[src]
	if x == nil {
		x = &life{}
		l.lives[src] = x
	}
	return x
}

func (l *living) ended(code *int, at time.Time) {
	if code != nil {
		l.takeEnd(ending{*code, at, false})
	}
}

func (l *living) takeEnd(e ending) {
	if e.better(l.end) {
		l.end = e
	}
}
