// SPDX-License-Identifier: Apache-2.0

//go:build linux

package engines

import (
	"context"
	"testing"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Recorder keeps what a source says.
type Recorder struct {
	*enginetest.Recorder
	t *testing.T
}

// Source is one of those that ask engines.
type Source interface {
	Name() death.Source
	Run(ctx context.Context, emit func(signal.Signal)) error
}

// Watch runs a source until the test ends, and waits until it is up.
func Watch(t *testing.T, s Source) *Recorder {
	t.Helper()
	r := &Recorder{enginetest.Follow(t, s.Name(), s.Run), t}
	r.State("up", true)
	return r
}

// State waits until the source is up or down.
func (r *Recorder) State(what string, up bool) {
	r.t.Helper()
	Poll(r.t, what, func() bool {
		states := enginetest.Of[signal.SourceState](r.All())
		return len(states) > 0 && states[len(states)-1].Up == up
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
