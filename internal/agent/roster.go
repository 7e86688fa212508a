// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync"

	"github.com/coroner-dev/coroner/internal/death"
)

// roster lists the containers that are there, for metrics at 0: those whose
// cgroup lives, and those that an engine has.
type roster struct {
	mu     sync.Mutex
	byKey  map[string]*living
	byPath map[string]string // keys by cgroup
}

func newRoster() *roster { return &roster{byKey: map[string]*living{}, byPath: map[string]string{}} }

// living is one container that is there.
type living struct {
	death.Container
	key            string
	cgroup, engine bool // who has it
}

// seen takes a container whose cgroup is there.
func (r *roster) seen(c *death.Container, key string) {
	r.take(c, key, func(l *living) { l.cgroup = true })
}

// told takes a container that an engine has.
func (r *roster) told(c *death.Container, key string) {
	r.take(c, key, func(l *living) { l.engine = true })
}

func (r *roster) take(c *death.Container, key string, mark func(*living)) {
	if c == nil || key == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.byKey[key]
	if l == nil {
		l = &living{key: key}
		r.byKey[key] = l
	}
	if l.Cgroup != c.Cgroup {
		delete(r.byPath, l.Cgroup)
	}
	l.Container = *c
	if c.Cgroup != "" {
		r.byPath[c.Cgroup] = key
	}
	mark(l)
}

// cgroupGone takes that a cgroup was removed.
func (r *roster) cgroupGone(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.byKey[r.byPath[path]]; l != nil {
		l.cgroup = false
		r.drop(l)
	}
}

// removed takes that an engine removed a container.
func (r *roster) removed(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.byKey[key]; l != nil {
		l.engine = false
		r.drop(l)
	}
}

func (r *roster) drop(l *living) {
	if !l.cgroup && !l.engine {
		delete(r.byKey, l.key)
		delete(r.byPath, l.Cgroup)
	}
}

func (r *roster) list() []death.Container {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]death.Container, 0, len(r.byKey))
	for _, l := range r.byKey {
		out = append(out, l.Container)
	}
	return out
}
