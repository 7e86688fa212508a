// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync"

	"github.com/coroner-dev/coroner/internal/signal"
)

// lookups are what is looked up for the inquest while it goes on, each in a
// goroutine of its own.
type lookups struct {
	emit   func(signal.Signal)
	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{} // bounds what is looked up at once
	work   sync.WaitGroup

	mu    sync.RWMutex // held for reading while an answer is given
	ended bool
}

func newLookups(emit func(signal.Signal), atOnce int) *lookups {
	l := &lookups{emit: emit, slots: make(chan struct{}, atOnce)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// find has f look something up, and gives its answer, if it has one, to the
// inquest. It never waits: false, if too much is looked up already.
func (l *lookups) find(f func(ctx context.Context) *signal.Signal) bool {
	select {
	case l.slots <- struct{}{}:
	default:
		return false
	}
	l.work.Go(func() {
		defer func() { <-l.slots }()
		if s := f(l.ctx); s != nil && l.ctx.Err() == nil {
			l.tell(*s)
		}
	})
	return true
}

func (l *lookups) tell(s signal.Signal) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if !l.ended {
		l.emit(s)
	}
}

// end has no more lookups given. The queue that takes them must still be read.
func (l *lookups) end() {
	l.cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
}

// wait returns when nothing is looked up any more.
func (l *lookups) wait() { l.work.Wait() }
