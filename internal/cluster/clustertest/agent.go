// SPDX-License-Identifier: Apache-2.0

package clustertest

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/history"
	"github.com/coroner-dev/coroner/internal/web"
)

// Agent is the handler of a real agent, with a history of its own.
type Agent struct {
	http.Handler
	// Map is the memory map of its node; it is not changed once it is asked.
	Map api.NodeMap

	t      testing.TB
	store  keeper
	broker *web.Broker
}

// NewAgent makes one that knows of deaths.
func NewAgent(t testing.TB, node string, deaths ...death.Death) *Agent {
	s, err := history.Open(context.Background(), ":memory:", history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	a := &Agent{t: t, store: keeper{s}, broker: web.NewBroker(), Map: api.NodeMap{Node: node}}
	a.Handler, err = web.New(web.Options{
		Store: a.store, Broker: a.broker, Version: "test",
		Status: func(context.Context) api.Status { return api.Status{Version: "test", Node: node} },
		Node:   func(context.Context) (api.NodeMap, error) { return a.Map, nil },
		Ready:  func() (bool, []api.SourceStatus) { return true, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	a.Put(deaths...)
	return a
}

// Put is deaths that the agent comes to know of.
func (a *Agent) Put(deaths ...death.Death) {
	if _, err := a.store.Put(context.Background(), deaths, nil); err != nil {
		a.t.Error(err)
	}
	a.broker.Publish()
}

// keeper is a history as the API's handlers want it.
type keeper struct{ *history.Store }

// List is web.Store's.
func (k keeper) List(ctx context.Context, q api.Query) (web.Page, error) {
	p, err := k.Store.List(ctx, history.Query(q))
	return web.Page(p), err
}

// Get is web.Store's.
func (k keeper) Get(ctx context.Context, id string) (death.Death, error) {
	d, err := k.Store.Get(ctx, id)
	if errors.Is(err, history.ErrNotFound) {
		err = api.ErrNotFound
	}
	return d, err
}

// Since is web.Store's.
func (k keeper) Since(ctx context.Context, q api.Query, after int64) ([]web.Entry, int64, error) {
	kept, upTo, err := k.Store.Since(ctx, history.Query(q), after)
	entries := make([]web.Entry, len(kept))
	for i, e := range kept {
		entries[i] = web.Entry(e)
	}
	return entries, upTo, err
}
