// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

// maxWatched bounds the agents that are followed.
const maxWatched = 256

// told is what a stream brought, or why it ended.
type told struct {
	agent *agent
	id    string
	death death.Death
	mark  bool // there is no death, but where the stream stands
	err   error
	ended bool
}

// watcher follows all agents. Its loop owns it.
type watcher struct {
	c       *Cluster
	q       api.Query
	from    chan told
	live    map[string]bool   // agents that are followed
	lastID  map[string]string // where the stream of each node stood, for the agent that comes after
	said    map[string]string // what was last said of an agent's trouble
	crowded bool
	held    bool // streams have held for a while
	wg      sync.WaitGroup
}

// Stream calls fn for each death that agents come to know of from now on, until
// ctx ends. Agents that come later are followed too. It fails where none can be
// followed at first, and when fn does.
func (c *Cluster) Stream(ctx context.Context, q api.Query, fn func(death.Death) error) error {
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{c: c, q: q, from: make(chan told), live: map[string]bool{}, lastID: map[string]string{}, said: map[string]string{}}
	defer w.wg.Wait()
	defer cancel()
	if err := w.look(ctx); err != nil {
		return err
	}
	again := time.NewTicker(c.lookIn)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			w.held = true
			if err := w.look(ctx); err != nil && ctx.Err() == nil {
				w.trouble("", err)
			}
		case t := <-w.from:
			if err := w.take(t, fn); err != nil {
				return err
			}
		}
	}
}

// take takes what a stream brought. It fails where none holds at first, and when
// fn does.
func (w *watcher) take(t told, fn func(death.Death) error) error {
	switch {
	case t.err == nil:
		if len(w.lastID) > maxListed {
			clear(w.lastID)
		}
		w.lastID[t.agent.node] = t.id
		if t.mark {
			return nil
		}
		w.held = true
		return fn(t.death)
	case t.ended:
		delete(w.live, t.agent.key())
		if !w.held && len(w.live) == 0 {
			return t.err
		}
	}
	w.trouble(t.agent.key(), t.err)
	return nil
}

func (a *agent) key() string { return a.namespace + "/" + a.pod }

// trouble says what is amiss with an agent, where that is news.
func (w *watcher) trouble(who string, err error) {
	if len(w.said) > maxListed {
		clear(w.said)
	}
	if w.said[who] != err.Error() {
		w.said[who] = err.Error()
		w.c.trouble(err)
	}
}

// look begins to follow the agents that are not followed yet.
func (w *watcher) look(ctx context.Context) error {
	agents, err := w.c.agentsFor(ctx, w.q)
	if err != nil {
		return err
	}
	for _, a := range agents {
		if w.live[a.key()] {
			continue
		}
		if len(w.live) >= maxWatched {
			if !w.crowded {
				w.crowded = true
				w.c.trouble(fmt.Errorf("%d agents of %d are followed, which is the most there may be", maxWatched, len(agents)))
			}
			break
		}
		w.live[a.key()] = true
		lastID := w.lastID[a.node] // of the loop's: not read beside it
		w.wg.Go(func() { w.follow(ctx, a, lastID) })
	}
	return nil
}

// follow brings what one agent says, until it leaves or ctx ends.
func (w *watcher) follow(ctx context.Context, a *agent, lastID string) {
	tell := func(t told) error {
		select {
		case w.from <- t:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	cl := w.c.client(a)
	cl.OnMark = func(id string) { _ = tell(told{agent: a, id: id, mark: true}) }
	cl.OnRetry = func(err error, _ time.Duration) {
		_ = tell(told{agent: a, err: fmt.Errorf("%w; trying again", w.c.refusal(a, err))})
	}
	err := cl.Stream(ctx, w.q, lastID, func(id string, d death.Death) error {
		return tell(told{agent: a, id: id, death: d})
	})
	if err != nil {
		_ = tell(told{agent: a, err: w.c.refusal(a, err), ended: true})
	}
}
