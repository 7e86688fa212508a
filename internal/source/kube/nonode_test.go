// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/coroner-dev/coroner/internal/signal"
)

const bookmark = `{"type":"BOOKMARK","object":{"kind":"Node","apiVersion":"v1","metadata":{"resourceVersion":"1","annotations":{"k8s.io/initial-events-end":"true"}}}}`

// TestRun_NoSuchNode: a name that is no node's has no pods, and that looks like a
// node where nothing runs. It is said, whichever way the API tells it, until there
// is such a node.
func TestRun_NoSuchNode(t *testing.T) {
	for name, lists := range map[string]bool{"watched from the beginning": false, "listed, then watched": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			come := make(chan string, 1)
			a := &api{version: 1}
			a.failing(func(w http.ResponseWriter, r *http.Request) bool {
				q := r.URL.Query()
				first := q.Get("sendInitialEvents") == "true"
				switch {
				case first && lists:
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(http.StatusUnprocessableEntity)
					_, _ = fmt.Fprintln(w, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"sendInitialEvents is forbidden","reason":"Invalid","code":422}`)
					return true
				case r.URL.Path != "/api/v1/nodes":
					return false
				}
				w.Header().Set("Content-Type", "application/json")
				if q.Get("watch") == "" {
					_ = json.NewEncoder(w).Encode(corev1.NodeList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}})
					return true
				}
				if first {
					_, _ = fmt.Fprintln(w, bookmark)
				}
				for {
					w.(http.Flusher).Flush()
					select {
					case line := <-come:
						_, _ = fmt.Fprintln(w, line)
					case <-r.Context().Done():
						return true
					}
				}
			})
			_, l := follow(t, a)
			l.until(t, "that there is no such node", isUp(true, "the API has no node n1"))
			come <- node2json("ADDED", aNode(t))
			l.until(t, "the node", func(b signal.Body) bool { _, ok := b.(signal.NodeSeen); return ok })
			l.mu.Lock()
			defer l.mu.Unlock()
			var last signal.SourceState
			for _, s := range l.said {
				if st, ok := s.Body.(signal.SourceState); ok {
					last = st
				}
			}
			if !last.Up || last.Reason != "" {
				t.Errorf("with the node it is %+v", last)
			}
		})
	}
}
