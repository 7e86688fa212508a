// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Run looks for engines and follows them until ctx ends. That there is none is
// no failure: it says so, and keeps looking.
func (s *Source) Run(ctx context.Context, emit func(signal.Signal)) error {
	r := &run{
		opt: s.opt, log: s.opt.Logger.With("component", string(death.SourceDocker)), out: emit,
		labels: selectionOf(s.opt.Labels), owners: map[string]*engine{},
	}
	if err := r.configure(); err != nil {
		r.say(signal.SourceState{Reason: err.Error()})
		return err
	}
	var group sync.WaitGroup
	defer group.Wait()
	start := func(e *engine) { group.Go(func() { e.follow(ctx) }) }
	for _, e := range r.engines {
		start(e)
	}
	r.look(start)
	r.begin()
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	patience := time.NewTimer(quiet)
	defer patience.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			r.look(start)
		case <-patience.C:
			r.speak()
		}
	}
}

// run is one Run.
type run struct {
	opt    Options
	log    *slog.Logger
	labels selection

	// emits keeps one signal after the other, whichever engine tells it.
	emits sync.Mutex
	out   func(signal.Signal)

	mu      sync.Mutex
	engines []*engine
	owners  map[string]*engine // containers of engines that are not foreign

	speaks sync.Mutex
	said   *signal.SourceState
}

func (r *run) emit(s signal.Signal) {
	r.emits.Lock()
	defer r.emits.Unlock()
	r.out(s)
}

// configure takes the engines that somebody named.
func (r *run) configure() error {
	for _, h := range r.opt.Hosts {
		path := strings.TrimPrefix(h, "unix://")
		if !filepath.IsAbs(path) || strings.Contains(path, "://") {
			return fmt.Errorf("engine %.200q: not a unix socket, as unix:///run/docker.sock", h)
		}
		r.engines = append(r.engines, r.newEngine(filepath.Clean(path), true, false))
	}
	return nil
}

// places are where engines have their sockets: the machine's, then those of
// users' own.
func places(roots host.Roots) (own, users []string) {
	for _, p := range []string{"var/run/docker.sock", "run/docker.sock", "run/podman/podman.sock"} {
		own = append(own, roots.RootPath(p))
	}
	for _, p := range []string{"run/user/*/docker.sock", "run/user/*/podman/podman.sock"} {
		users = append(users, roots.RootPath(p))
	}
	return own, users
}

// look finds sockets that are new, or made anew.
func (r *run) look(start func(*engine)) {
	if len(r.opt.Hosts) > 0 {
		for _, e := range r.engines {
			r.found(e.path, false, start)
		}
		return
	}
	own, users := places(r.opt.Roots)
	for _, p := range own {
		r.found(p, false, start)
	}
	for _, pattern := range users {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			continue // the roots have characters that mean something to it
		}
		for _, p := range paths {
			r.found(p, true, start)
		}
	}
}

// found takes a path where a socket may be. One socket by several names is
// one engine.
func (r *run) found(path string, foreign bool, start func(*engine)) {
	info, err := os.Stat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return
	}
	for _, e := range r.engines {
		if e.path != path {
			if e.file != nil && os.SameFile(e.file, info) {
				return
			}
			continue
		}
		if e.file != nil && !os.SameFile(e.file, info) {
			select {
			case e.changed <- struct{}{}:
			default:
			}
		}
		e.file = info
		return
	}
	if len(r.engines) >= maxEngines {
		return
	}
	e := r.newEngine(path, false, foreign)
	e.file = info
	r.mu.Lock()
	r.engines = append(r.engines, e)
	r.mu.Unlock()
	start(e)
}

// own notes whose a container is.
func (r *run) own(e *engine, id string, mine bool) {
	if e.foreign {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case mine:
		r.owners[id] = e
	case r.owners[id] == e:
		delete(r.owners, id)
	}
}

// owned tells whether a container is of one of the machine's own engines.
func (r *run) owned(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owners[id] != nil
}

// begin says at once that there is nothing, if so.
func (r *run) begin() {
	r.mu.Lock()
	n := len(r.engines)
	r.mu.Unlock()
	if n == 0 {
		r.speak()
	}
}

// report notes how an engine is doing.
func (r *run) report(e *engine, st status) {
	r.mu.Lock()
	e.status = st
	r.mu.Unlock()
	r.speak()
}

// speak says how the source is doing, where that is news.
func (r *run) speak() {
	r.speaks.Lock()
	defer r.speaks.Unlock()
	r.mu.Lock()
	st := r.state()
	r.mu.Unlock()
	if r.said == nil || *r.said != st {
		r.said = &st
		r.say(st)
	}
}

func (r *run) say(st signal.SourceState) {
	now := time.Now().UTC()
	r.emit(signal.Signal{Time: now, Observed: now, Source: death.SourceDocker, Body: st})
}

// maxReason bounds what is said of engines that do not answer.
const maxReason = 1024

// state sums up all engines.
func (r *run) state() signal.SourceState {
	var st signal.SourceState
	var reasons []string
	up := 0
	for _, e := range r.engines {
		switch {
		case e.status.up:
			up++
			st.Mode = e.status.who.String()
		case e.configured || !e.status.absent:
			reasons = append(reasons, e.path+": "+e.status.reason)
		}
	}
	st.Up = up > 0
	if up > 1 {
		st.Mode = fmt.Sprintf("%d engines", up)
	}
	if up == 0 && len(reasons) == 0 {
		own, users := places(r.opt.Roots)
		st.Absent = true
		reasons = append(reasons, "no engine found at "+strings.Join(append(own, users...), ", "))
	}
	st.Reason = cut(strings.Join(reasons, "; "), maxReason)
	return st
}
