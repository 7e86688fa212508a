// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync"
	"time"

	"github.com/coroner-dev/coroner/internal/history"
)

// figuresPatience is how long a status waits for the history's figures.
const figuresPatience = time.Second

// figures are the history's, as it last gave them: whoever asks for a status
// does not wait for a disk that hangs.
type figures struct {
	asked sync.WaitGroup
	mu    sync.Mutex
	last  history.Stats
	fresh chan struct{} // closed with an answer; nil: nobody asks
}

// get asks, unless somebody does already, and takes what there is in time.
func (f *figures) get(store interface {
	Stats(context.Context) (history.Stats, error)
}) history.Stats {
	f.mu.Lock()
	fresh := f.fresh
	if fresh == nil {
		fresh = make(chan struct{})
		f.fresh = fresh
		f.asked.Go(func() {
			st, err := store.Stats(context.Background())
			f.mu.Lock()
			defer f.mu.Unlock()
			if err == nil {
				f.last = st
			}
			f.fresh = nil
			close(fresh)
		})
	}
	f.mu.Unlock()
	late := time.NewTimer(figuresPatience)
	defer late.Stop()
	select {
	case <-fresh:
	case <-late.C:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}
