// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestSource_UnreadEvents: what an engine told and nobody read yet when its
// connection ended is asked for again, however long it stood there.
func TestSource_UnreadEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		var mu sync.Mutex
		codes := map[string]int{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		s := New(Options{Hosts: []string{"unix:///fake.sock"}, Logger: enginetest.Logger(t), dial: f.Dial})
		go func() {
			done <- s.Run(ctx, func(s signal.Signal) {
				e, ok := s.Body.(signal.ContainerExit)
				if ok && e.ID == "c0" && e.Code != nil && *e.Code == 1 {
					<-time.After(5 * time.Second) // who takes signals has much to do
				}
				mu.Lock()
				defer mu.Unlock()
				if ok && e.Code != nil {
					codes[e.ID]++
				}
			})
		}()
		enginetest.Settle()
		for _, id := range []string{"c0", "c1", "c2", "c3", "c4", "c5"} {
			f.event("die", id, map[string]string{"exitCode": "1"})
			f.event("destroy", id, nil)
		}
		enginetest.Pass(4 * time.Second)
		f.CutOff()
		enginetest.Pass(20 * time.Second)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if len(codes) != 6 {
			t.Errorf("ends told: %v, want six", codes)
		}
		for id, n := range codes {
			if n != 1 {
				t.Errorf("%s was told %d times", id, n)
			}
		}
	})
}
