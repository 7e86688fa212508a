// SPDX-License-Identifier: Apache-2.0

package web

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

func TestContainersJSON(t *testing.T) {
	asked := api.ContainersQuery{}
	s := newSite(t, func(o *Options) {
		o.Containers = func(q api.ContainersQuery) []api.Container {
			asked = q
			if q.Pod != "" {
				return nil
			}
			return []api.Container{{Container: death.Container{ID: "4f1c", Name: hostile}, Restarts: 2, Memory: &api.ContainerMemory{WorkingSetBytes: 5, UsageBytes: 7}}}
		}
	})
	var page api.ContainersPage
	w := s.get(api.PathContainers + "?container=web&namespace=shop")
	if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
		t.Fatal(err)
	}
	if want := (api.ContainersQuery{Namespace: "shop", Container: "web"}); asked != want || len(page.Containers) != 1 || page.Containers[0].Name != strings.ToValidUTF8(hostile, "\ufffd") || page.Containers[0].Memory.UsageBytes != 7 {
		t.Errorf("asked for %+v, got %s", asked, w.Body)
	}
	if got := s.get(api.PathContainers + "?pod=x").Body.String(); got != "{\"containers\":[]}\n" {
		t.Errorf("none: %s", got)
	}
	for path, code := range map[string]int{"?nam=x": http.StatusBadRequest, "?a=%zz": http.StatusBadRequest} {
		if got := s.get(api.PathContainers + path).Code; got != code {
			t.Errorf("%s: %d, want %d", path, got, code)
		}
	}
	if got := newSite(t, nil).get(api.PathContainers).Code; got != http.StatusNotFound {
		t.Errorf("where nobody knows containers: %d", got)
	}
}
