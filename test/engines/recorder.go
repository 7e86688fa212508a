// SPDX-License-Identifier: Apache-2.0

//go:build linux

package engines

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/coroner-dev/coroner/internal/signal"
)

// Recorder keeps what a source says.
type Recorder struct {
	t    *testing.T
	mu   sync.Mutex
	said []signal.Signal
}

// Source is one of those that ask engines.
type Source interface {
	Run(ctx context.Context, emit func(signal.Signal)) error
}

// Watch runs a source until the test ends, and waits until it is up.
func Watch(t *testing.T, s Source) *Recorder {
	t.Helper()
	r := &Recorder{t: t}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, r.take) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	r.State("up", true)
	return r
}

// Logger writes into the test's output.
func Logger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (r *Recorder) take(s signal.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, s)
}

// All gives what was said so far.
func (r *Recorder) All() []signal.Signal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]signal.Signal(nil), r.said...)
}

// State waits until the source is up or down.
func (r *Recorder) State(what string, up bool) {
	r.t.Helper()
	Poll(r.t, what, func() bool {
		var last *signal.SourceState
		for _, s := range r.All() {
			if st, ok := s.Body.(signal.SourceState); ok {
				last = &st
			}
		}
		return last != nil && last.Up == up
	})
}

// Find waits for a signal of one kind.
func Find[B signal.Body](r *Recorder, what string, ok func(s signal.Signal, b B) bool) (signal.Signal, B) {
	r.t.Helper()
	var sig signal.Signal
	var body B
	Poll(r.t, what, func() bool {
		for _, s := range r.All() {
			if b, is := s.Body.(B); is && ok(s, b) {
				sig, body = s, b
				return true
			}
		}
		return false
	})
	return sig, body
}
