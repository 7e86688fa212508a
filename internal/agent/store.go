// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/history"
	"github.com/coroner-dev/coroner/internal/web"
)

// shelf is the history as the pages read it.
type shelf struct {
	*history.Store
}

// List returns the newest deaths that q selects.
func (s shelf) List(ctx context.Context, q api.Query) (web.Page, error) {
	p, err := s.Store.List(ctx, history.Query(q))
	return web.Page{Deaths: p.Deaths, Next: p.Next, Seq: p.Seq}, err
}

// Get returns one death, or an error that matches api.ErrNotFound.
func (s shelf) Get(ctx context.Context, id string) (death.Death, error) {
	d, err := s.Store.Get(ctx, id)
	if errors.Is(err, history.ErrNotFound) {
		return d, api.ErrNotFound
	}
	return d, err
}

// Since returns what is new or amended after a sequence number.
func (s shelf) Since(ctx context.Context, q api.Query, after int64) ([]web.Entry, int64, error) {
	entries, upTo, err := s.Store.Since(ctx, history.Query(q), after)
	out := make([]web.Entry, len(entries))
	for i, e := range entries {
		out[i] = web.Entry(e)
	}
	return out, upTo, err
}
