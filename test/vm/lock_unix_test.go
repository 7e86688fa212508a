// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package main

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func TestLock_OneAtATime(t *testing.T) {
	what := filepath.Join(t.TempDir(), "cache", "disks")
	var held sync.Mutex
	var group sync.WaitGroup
	for range 5 {
		group.Go(func() {
			unlock, err := lock(t.Context(), what)
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			if !held.TryLock() {
				t.Error("held twice")
				return
			}
			<-time.After(5 * time.Millisecond)
			held.Unlock()
		})
	}
	group.Wait()

	unlock, err := lock(t.Context(), what)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, what); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for one that is held: %v, want it to end with its context", err)
	}
}
