// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/url"
	"testing"

	"github.com/coroner-dev/coroner/internal/death"
)

func TestContainersQuery(t *testing.T) {
	web := &death.Container{ID: "4f1c0a9d7e55", Name: "web", Pod: &death.Pod{Namespace: "shop", Name: "cart-1", UID: "u-1"}}
	bare := &death.Container{ID: "77de0a9d7e55", Name: "db"}
	for _, tt := range []struct {
		query     string
		web, bare bool
	}{
		{"", true, true},
		{"namespace=shop", true, false},
		{"namespace=shop&pod=cart-1&container=web", true, false},
		{"pod=u-1", true, false},
		{"container=77de0a", false, true},
		{"container=77de", false, false}, // too short for an id
		{"container=db", false, true},
	} {
		v, err := url.ParseQuery(tt.query)
		if err != nil {
			t.Fatal(err)
		}
		q, err := ParseContainersQuery(v)
		if err != nil || q.Matches(web) != tt.web || q.Matches(bare) != tt.bare {
			t.Errorf("%q: %v, %v, %v", tt.query, q.Matches(web), q.Matches(bare), err)
		}
	}
	for text, want := range map[string]bool{"": false, "true": true, "1": true, "false": false} {
		if q, err := ParseContainersQuery(url.Values{"all": {text}}); err != nil || q.All != want {
			t.Errorf("all=%q: %v, %v", text, q.All, err)
		}
	}
	if _, err := ParseContainersQuery(url.Values{"all": {"maybe"}}); err == nil {
		t.Error("all=maybe selects something")
	}
	if _, err := ParseContainersQuery(url.Values{"nam": {"x"}}); err == nil {
		t.Error("a misspelt parameter selects everything")
	}
}
