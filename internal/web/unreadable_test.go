// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/history"
)

// damagedStore has one death, which cannot be read.
type damagedStore struct{ keeper }

func (damagedStore) Get(context.Context, string) (death.Death, error) {
	return death.Death{}, &history.UnreadableError{ID: "d-1\x1b[31m", Err: json.Unmarshal([]byte("X"), new(int))}
}

func TestDeath_Unreadable(t *testing.T) {
	s := newSite(t, func(o *Options) { o.Store = damagedStore{o.Store.(keeper)} })
	w := s.get(api.PathDeaths + "/d-1")
	var told api.Error
	if err := json.Unmarshal(w.Body.Bytes(), &told); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	if w.Code != http.StatusInternalServerError || !strings.Contains(told.Error, "d-1") || !strings.Contains(told.Error, "damaged") {
		t.Errorf("%d %q, want 500 and that it is damaged", w.Code, told.Error)
	}
	w = s.get("/deaths/d-1")
	if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "cannot be read") || strings.Contains(w.Body.String(), "\x1b") {
		t.Errorf("page: %d %s", w.Code, w.Body)
	}
}
