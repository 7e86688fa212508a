// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cgroup

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// patience is how long a test waits for what must come, on an emulated machine
// that shares a processor, too.
const patience = 30 * time.Second

// recorder runs a Source and keeps what it says.
type recorder struct {
	t       *testing.T
	mu      sync.Mutex
	said    []signal.Body
	changed chan struct{}
	cancel  context.CancelFunc
	done    chan error
}

func record(t *testing.T, opt Options) *recorder {
	t.Helper()
	opt.Logger = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, cancel := context.WithCancel(context.Background())
	r := &recorder{t: t, changed: make(chan struct{}, 1), cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- New(opt).Run(ctx, r.take) }()
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *recorder) take(s signal.Signal) {
	if s.Source != death.SourceCgroup || s.Time.IsZero() || s.Observed.IsZero() || s.Recovered {
		r.t.Errorf("head of %+v", s)
	}
	r.mu.Lock()
	r.said = append(r.said, s.Body)
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// stop ends Run and returns how long that took.
func (r *recorder) stop() time.Duration {
	start := time.Now()
	r.cancel()
	if err, open := <-r.done; open {
		close(r.done)
		if err != nil {
			r.t.Errorf("Run: %v", err)
		}
	}
	return time.Since(start)
}

func (r *recorder) all() []signal.Body {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]signal.Body(nil), r.said...)
}

// until waits for a state of all that was said.
func (r *recorder) until(what string, ok func(said []signal.Body) bool) {
	r.t.Helper()
	deadline := time.After(patience)
	for {
		if ok(r.all()) {
			return
		}
		select {
		case <-r.changed:
		case err := <-r.done:
			close(r.done)
			r.t.Fatalf("waiting for %s: Run ended: %v", what, err)
		case <-deadline:
			for _, b := range r.all() {
				r.t.Logf("said: %T %+v", b, b)
			}
			r.t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

func (r *recorder) untilUp() {
	r.t.Helper()
	r.until("SourceState up", func(said []signal.Body) bool {
		for _, b := range said {
			if s, ok := b.(signal.SourceState); ok && s.Up {
				return true
			}
		}
		return false
	})
}

// sum adds the counters of the cgroup with this path.
func sum(said []signal.Body, path string) (c signal.CgroupCounters) {
	for _, b := range said {
		if m, ok := b.(signal.CgroupCounters); ok && m.Path == path {
			c.Cgroup = m.Cgroup
			c.OOMKill += m.OOMKill
			c.OOMKillBelow += m.OOMKillBelow
			c.OOM += m.OOM
			c.OOMGroupKill += m.OOMGroupKill
			c.Chain = m.Chain
		}
	}
	return c
}

// known is the last thing said of the cgroup with this path; nil: not there.
func known(said []signal.Body, path string) (seen *signal.CgroupSeen) {
	for _, b := range said {
		switch m := b.(type) {
		case signal.CgroupSeen:
			if m.Path == path {
				seen = &m
			}
		case signal.CgroupGone:
			if m.Path == path {
				seen = nil
			}
		}
	}
	return seen
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", strings.TrimSpace(string(b)))
	return len(b), nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ci() bool { return os.Getenv("CORONER_CI") == "1" }
