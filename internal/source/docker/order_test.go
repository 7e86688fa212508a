// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestSource_StateBeforeEvent: of a container that is started again and ends
// at once, the answer that it has ended can come before the event of its end.
// That is another end than the one before, however short the run.
func TestSource_StateBeforeEvent(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("a", 12)
		r := follow(t, f, Options{})
		enginetest.Settle()
		f.ended("a", 1, false)
		f.event("die", "a", map[string]string{"exitCode": "1"})
		enginetest.Settle()
		r.Taken()

		f.runs("a", 13)
		f.ended("a", 2, false)
		f.event("start", "a", nil)
		enginetest.Settle()
		died := f.event("die", "a", map[string]string{"exitCode": "2"})
		enginetest.Settle()
		code, n := 0, 0
		for _, s := range r.Taken() {
			if e, ok := s.Body.(signal.ContainerExit); ok {
				n++
				code = *e.Code
				if !s.Time.Equal(time.Unix(0, died.TimeNano)) {
					t.Errorf("ended at %v, want that of the event", s.Time)
				}
			}
		}
		if n != 2 || code != 2 { // as the event came, and in full
			t.Errorf("%d exits, the last with code %d", n, code)
		}
	})
}
