// SPDX-License-Identifier: Apache-2.0

// Package engines is what sources that ask container engines have in common:
// finding their sockets, keeping connected, saying how that goes, and bounds of
// the text that is taken from them. What an engine is asked, and what its
// answers mean, is the source's.
//
// One goroutine for each engine asks its Follower for one session after the
// other, with backoff. That one engine hangs or lies costs the others nothing.
package engines

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Dialer connects to the socket at a path.
type Dialer func(ctx context.Context, path string) (net.Conn, error)

// Follower follows one engine. What it knows outlives its sessions.
type Follower interface {
	// Session is one connection. It returns why that ended, and leaves nothing
	// running.
	Session(ctx context.Context) error
}

// Config says which engines there are.
type Config struct {
	Source death.Source
	// Hosts are the sockets that somebody named, as unix:///run/docker.sock or
	// as a path. Empty: those at Own and Users.
	Hosts []string
	// Own are where the machine's engines have their sockets, Users patterns of
	// where users have their own.
	Own, Users []string
	// Logger is told of engines that come and go.
	Logger *slog.Logger
	// Dial is nil for unix sockets; a test's engine needs none.
	Dial Dialer
	// New makes the Follower of an engine.
	New func(e *Engine) Follower
}

const (
	lookInterval = 5 * time.Second  // for sockets that come later
	quiet        = 3 * time.Second  // until something is said of engines that do not answer
	dialLimit    = 10 * time.Second // of connecting
	backoffFirst = time.Second
	backoffLast  = 30 * time.Second
	maxEngines   = 16 // with those of users
)

// Run looks for engines and follows them until ctx ends. That there is none is
// no failure: it says so, and keeps looking.
func Run(ctx context.Context, cfg Config, emit func(signal.Signal)) error {
	if cfg.Dial == nil {
		cfg.Dial = dialUnix
	}
	r := &run{
		cfg: cfg, log: cfg.Logger.With("component", string(cfg.Source)), out: emit, owners: map[string]*Engine{},
	}
	if err := r.configure(); err != nil {
		r.say(signal.SourceState{Reason: err.Error()})
		return err
	}
	var group sync.WaitGroup
	defer group.Wait()
	start := func(e *Engine) { group.Go(func() { e.follow(ctx) }) }
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
	cfg Config
	log *slog.Logger

	// emits keeps one signal after the other, whichever engine tells it.
	emits sync.Mutex
	out   func(signal.Signal)

	mu      sync.Mutex
	engines []*Engine
	owners  map[string]*Engine // containers of engines that are not foreign

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
	for _, h := range r.cfg.Hosts {
		path := strings.TrimPrefix(h, "unix://")
		if !filepath.IsAbs(path) || strings.Contains(path, "://") {
			return fmt.Errorf("engine %.200q: not a unix socket, as unix:///run/docker.sock", h)
		}
		e := r.newEngine(filepath.Clean(path), true, "")
		e.file, _ = socketAt(e.Path)
		r.engines = append(r.engines, e)
	}
	return nil
}

// look finds sockets that are new, or made anew.
func (r *run) look(start func(*Engine)) {
	if len(r.cfg.Hosts) > 0 {
		for _, e := range r.engines {
			r.found(e.Path, "", start)
		}
		return
	}
	for _, p := range r.cfg.Own {
		r.found(p, "", start)
	}
	for _, pattern := range r.cfg.Users {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			continue // the roots have characters that mean something to it
		}
		for _, p := range paths {
			r.found(p, userOf(pattern, p), start)
		}
	}
}

// found takes a path where a socket may be. One socket by several names is
// one engine.
func (r *run) found(path, user string, start func(*Engine)) {
	info, ok := socketAt(path)
	if !ok {
		return
	}
	for _, e := range r.engines {
		if e.Path != path {
			if e.file != nil && os.SameFile(e.file, info) {
				return
			}
			continue
		}
		if e.file == nil || !os.SameFile(e.file, info) {
			select {
			case e.changed <- struct{}{}:
			default:
			}
		}
		e.file = info
		return
	}
	if user != "" && len(r.engines) >= maxEngines {
		return
	}
	e := r.newEngine(path, false, user)
	e.file = info
	r.mu.Lock()
	r.engines = append(r.engines, e)
	r.mu.Unlock()
	start(e)
}

func socketAt(path string) (os.FileInfo, bool) {
	info, err := os.Stat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return nil, false
	}
	return info, true
}

// unknownUser is no user's number.
const unknownUser = "unknown"

// userOf is whose a socket is, of which the pattern has one element that is the
// user's number: the folder is made by the system (pam_systemd(8)).
func userOf(pattern, path string) string {
	p, f := strings.Split(pattern, "/"), strings.Split(path, "/")
	if i := slices.Index(p, "*"); i >= 0 && len(p) == len(f) {
		if _, err := strconv.ParseUint(f[i], 10, 32); err == nil {
			return f[i]
		}
	}
	return unknownUser
}

// own notes whose a container is.
func (r *run) own(e *Engine, key string, mine bool) {
	if e.Foreign() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case mine:
		r.owners[key] = e
	case r.owners[key] == e:
		delete(r.owners, key)
	}
}

// owned tells whether a container is of one of the machine's own engines.
func (r *run) owned(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owners[key] != nil
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
func (r *run) report(e *Engine, st status) {
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
	r.emit(signal.Signal{Time: now, Observed: now, Source: r.cfg.Source, Body: st})
}

// MaxReason bounds what is said of engines that do not answer.
const MaxReason = 1024

// state sums up all engines.
func (r *run) state() signal.SourceState {
	var st signal.SourceState
	var reasons []string
	up := 0
	for _, e := range r.engines {
		if e.status.up {
			up++
			st.Mode = e.status.mode
		}
		if e.status.reason != "" && (e.configured || !e.status.absent) {
			reasons = append(reasons, e.Path+": "+e.status.reason)
		}
	}
	st.Up = up > 0
	if up > 1 {
		st.Mode = fmt.Sprintf("%d engines", up)
	}
	if up == 0 && len(reasons) == 0 {
		places := append(append([]string(nil), r.cfg.Own...), r.cfg.Users...)
		st.Absent = true
		reasons = append(reasons, "no engine found at "+strings.Join(places, ", "))
	}
	st.Reason = Cut(strings.Join(reasons, "; "), MaxReason)
	return st
}

func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialLimit}
	return d.DialContext(ctx, "unix", path)
}
