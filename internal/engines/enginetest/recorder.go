// SPDX-License-Identifier: Apache-2.0

package enginetest

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Recorder keeps what a source says.
type Recorder struct {
	// Stop ends the source, as the test's end does.
	Stop func()

	mu   sync.Mutex
	said []signal.Signal
}

// Follow runs a source until the test ends.
func Follow(t testing.TB, source death.Source, run func(context.Context, func(signal.Signal)) error) *Recorder {
	ctx, cancel := context.WithCancel(t.Context())
	r := &Recorder{}
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, func(s signal.Signal) {
			if s.Source != source || s.Time.IsZero() || s.Observed.IsZero() {
				t.Errorf("head of %+v", s)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.said = append(r.said, s)
		})
	}()
	r.Stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.Stop)
	return r
}

// Taken gives what was said since it was last called.
func (r *Recorder) Taken() []signal.Signal {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.said
	r.said = nil
	return out
}

// All gives what was said and not taken.
func (r *Recorder) All() []signal.Signal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.said)
}

// Until waits for something to be said, in real time.
func (r *Recorder) Until(t testing.TB, what string, ok func(said []signal.Signal) bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		said := r.All()
		if ok(said) {
			return
		}
		if time.Now().After(deadline) {
			for _, s := range said {
				t.Logf("said %T %+v", s.Body, s.Body)
			}
			t.Fatalf("waited for %s", what)
		}
		<-tick.C
	}
}

// Of picks the bodies of one kind.
func Of[B signal.Body](said []signal.Signal) []B {
	var out []B
	for _, s := range said {
		if b, ok := s.Body.(B); ok {
			out = append(out, b)
		}
	}
	return out
}

// LastState is how the source said that it was doing, last.
func LastState(said []signal.Signal) (st signal.SourceState) {
	for _, s := range Of[signal.SourceState](said) {
		st = s
	}
	return st
}

// Logger writes into the test's output.
func Logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Pass lets time pass in a bubble of synctest, until nothing moves.
func Pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// Settle waits until nothing moves; a little time passes first.
func Settle() { Pass(100 * time.Millisecond) }
