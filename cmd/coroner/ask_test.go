// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

// TestNamesakes: where containers of two namespaces have one name, it is said.
func TestNamesakes(t *testing.T) {
	of := func(namespace string) death.Death {
		return death.Death{Container: &death.Container{ID: "same", Name: "same", Namespace: namespace}}
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"deaths": []death.Death{of("n1"), of("n2"), of("n2"), of("n3"), of("")}})
	}))
	defer srv.Close()
	cl, err := api.NewClient(srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		target, namespace string
		want              []string
	}{
		{"same", "n1", []string{"n2/same", "n3/same"}},
		{"same", "", nil},
		{"n1/same", "n1", nil},
	} {
		d := of(tc.namespace)
		if got := namesakes(t.Context(), cl, tc.target, &d); !slices.Equal(got, tc.want) {
			t.Errorf("%s in %q: %q, want %q", tc.target, tc.namespace, got, tc.want)
		}
	}
}

func TestSiblings(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	of := func(uid, name string, cause death.Cause, minutes int) death.Death {
		return death.Death{Cause: cause, Time: at.Add(time.Duration(minutes) * time.Minute), Container: &death.Container{Name: name, Pod: &death.Pod{UID: uid}}}
	}
	all := []death.Death{
		of("p", "setup", death.Completed, 9), of("p", "app", death.OOMContainerLimit, 8), of("q", "web", death.Error, 7), of("p", "setup", death.Error, 6),
		of("p", "app", death.Error, 5), of("p", "\x1b[31m", death.Killed, 4), {Cause: death.OOMNode},
	}
	if got, want := siblings(all[0].Container, all[1:]), `app (oom_container_limit, 2026-11-22 03:08:00), \x1b[31m (killed, 2026-11-22 03:04:00)`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, c := range []*death.Container{nil, {Name: "setup"}} {
		if got := siblings(c, all[1:]); got != "" {
			t.Errorf("in no pod: %q", got)
		}
	}
}

func TestOfPod(t *testing.T) {
	for _, tc := range []struct{ target, container, want string }{
		{"cart-1", "", "cart-1"}, {"unit/x", "", "unit/x"},
		{"cart-1", "web", "pod/cart-1/web"}, {"shop/cart-1", "web", "shop/cart-1/web"}, {"pod/cart-1", "web", "pod/cart-1/web"},
		{"shop/cart-1/web", "web", ""}, {"unit/x", "web", ""}, {"container/x", "web", ""},
	} {
		if got, err := ofPod(tc.target, tc.container); got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%s -c %q: %q, %v; want %q", tc.target, tc.container, got, err, tc.want)
		}
	}
}
