// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/coroner-dev/coroner/internal/signal"
)

// Engine is one engine, over all connections to it. One goroutine owns it,
// that of its Follower's sessions.
type Engine struct {
	Path string // of its socket
	Log  *slog.Logger

	r *run
	// configured is true where somebody named it: then it is missed when it
	// is not there.
	configured bool
	// user is who runs it, by the number; empty: the machine. A user's engine
	// cannot speak of containers of the machine's own.
	user     string
	changed  chan struct{} // its socket is another one
	follower Follower
	skipped  map[string]int

	status status
	file   os.FileInfo // of its socket, as it was found; nil: it was not there yet
}

// status is how an engine is doing.
type status struct {
	up     bool
	mode   string
	reason string
	absent bool // there is no socket
}

func (r *run) newEngine(path string, configured bool, user string) *Engine {
	e := &Engine{
		Path: path, Log: r.log.With("engine", path), r: r, configured: configured, user: user,
		changed: make(chan struct{}, 1), skipped: map[string]int{}, status: status{reason: "no answer yet"},
	}
	e.follower = r.cfg.New(e)
	return e
}

// Dial connects.
func (e *Engine) Dial(ctx context.Context) (net.Conn, error) { return e.r.cfg.Dial(ctx, e.Path) }

// Foreign tells whether a user runs this engine: what it says of the rest of
// the machine is not to be believed.
func (e *Engine) Foreign() bool { return e.user != "" }

// Reach says in plain words why an engine cannot be connected to.
func (e *Engine) Reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	c, err := e.Dial(ctx)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: needs user 0, or the group of the socket (for the systemd unit: engines.conf)", err)
	case err != nil:
		return err
	}
	return c.Close()
}

// Up says that the engine was asked for all that it has. mode names it; lesser
// says what it does not answer, if anything.
func (e *Engine) Up(mode, lesser string) {
	e.r.report(e, status{up: true, mode: mode, reason: lesser})
}

// Tell gives out one signal.
func (e *Engine) Tell(at time.Time, recovered bool, b signal.Body) {
	if e.Foreign() && e.r.owned(keyOf(b)) {
		e.Skip(1, "words of a user's engine about a container that is not its own")
		return
	}
	e.r.emit(signal.Signal{Time: at, Observed: time.Now().UTC(), Source: e.r.cfg.Source, User: e.user, Recovered: recovered, Body: b})
}

// Key names a container among those of all engines.
func Key(namespace, id string) string {
	if namespace == "" {
		return id
	}
	return namespace + "/" + id
}

func keyOf(b signal.Body) string {
	switch b := b.(type) {
	case signal.ContainerSeen:
		return Key(b.Namespace, b.Container.ID)
	case signal.ContainerGone:
		return Key(b.Namespace, b.ID)
	case signal.ContainerExit:
		return Key(b.Namespace, b.ID)
	case signal.ContainerStop:
		return Key(b.Namespace, b.ID)
	case signal.ContainerOOM:
		return Key(b.Namespace, b.ID)
	}
	return ""
}

// Own notes that a container is this engine's, or is so no more.
func (e *Engine) Own(key string, mine bool) { e.r.own(e, key, mine) }

// Skip counts what is not told.
func (e *Engine) Skip(n int, why string) { e.skipped[why] += n }

// TellSkipped tells how much was skipped since it was last told. Nothing of it
// is evidence of an OOM kill: those are the kernel's.
func (e *Engine) TellSkipped() {
	for why, n := range e.skipped {
		now := time.Now().UTC()
		e.r.emit(signal.Signal{Time: now, Observed: now, Source: e.r.cfg.Source, Body: signal.Lost{
			Count: uint64(max(n, 0)), Other: true, Why: e.Path + ": " + why, //nolint:gosec // never negative
		}})
	}
	clear(e.skipped)
}

// follow keeps connected until ctx ends.
func (e *Engine) follow(ctx context.Context) {
	wait := backoffFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := e.follower.Session(ctx)
		e.TellSkipped()
		if ctx.Err() != nil {
			return
		}
		e.r.report(e, status{reason: err.Error(), absent: errors.Is(err, fs.ErrNotExist)})
		if time.Since(began) > backoffLast {
			wait = backoffFirst
		}
		e.Log.Debug("engine left", "err", err, "retry_in", wait.String())
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
			wait = min(2*wait, backoffLast)
		case <-e.changed:
			wait = backoffFirst
		}
		timer.Stop()
	}
}
