// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
)

// TestConfigz asks a played API server: as one that may not, and as one that
// may.
func TestConfigz(t *testing.T) {
	answer := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path != "/api/v1/nodes/n1/proxy/configz" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		if answer == "" {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","message":"no","code":403}`))
			return
		}
		_, _ = w.Write([]byte(answer))
	}))
	defer server.Close()
	s := New(Options{Node: "n1"})
	if _, err := s.Configz(t.Context()); err == nil {
		t.Error("before Run there is an answer")
	}
	c, err := newClient(&rest.Config{Host: server.URL}, &clock{changed: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	s.asks.Store(c)
	if got, err := s.Configz(t.Context()); err != nil || got.Body != nil || !strings.Contains(got.Refused, "the service account may not") {
		t.Errorf("without the right: %+v, %v", got, err)
	}
	answer = `{"kubeletconfig":{}}`
	if got, err := s.Configz(t.Context()); err != nil || string(got.Body) != answer || got.Refused != "" {
		t.Errorf("with the right: %+v, %v", got, err)
	}
	answer = strings.Repeat(" ", maxConfigz+1)
	if got, err := s.Configz(t.Context()); err == nil || got.Body != nil {
		t.Errorf("an answer without end: %d bytes, %v", len(got.Body), err)
	}
	server.Close()
	if got, err := s.Configz(t.Context()); err == nil || got.Refused != "" {
		t.Errorf("without a server: %+v, %v", got, err)
	}
}
