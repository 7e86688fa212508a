// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
)

// TestSaid: the same trouble has the same words each time that a watch begins,
// and client-go still sees what it is.
func TestSaid(t *testing.T) {
	for _, timeout := range []string{"300", "599"} {
		const at = "https://10.0.0.1:6443/api/v1/pods?watch=true&timeoutSeconds="
		err := said("watch pods", &url.Error{Op: "Get", URL: at + timeout, Err: syscall.ECONNREFUSED})
		if got, want := err.Error(), "watch pods: 10.0.0.1:6443: connection refused"; got != want || !utilnet.IsConnectionRefused(err) {
			t.Errorf("%q, want %q", got, want)
		}
		if err := said("watch pods", &url.Error{Op: "Get", URL: at + timeout, Err: io.EOF}); !utilnet.IsProbableEOF(err) {
			t.Errorf("%v is no end of a connection", err)
		}
	}
	if got := said("list pods", &url.Error{URL: "://", Err: errors.New("x")}).Error(); got != "list pods: the API: x" {
		t.Errorf("got %q", got)
	}
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no"))
	if err := said("list pods", forbidden); !apierrors.IsForbidden(err) {
		t.Errorf("%v", err)
	}
}

// TestEvents_Pages: who may write events can make each as large as an object of
// the API may be, so that few are asked for at once; and no more than there is use for.
func TestEvents_Pages(t *testing.T) {
	for there, want := range map[int][]string{7: {"0"}, 45: {"0", "20", "40"}, 1000: {"0", "20", "40", "60", "80", "100", "120", "140", "160", "180"}} {
		var from []string
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			at, _ := strconv.Atoi(q.Get("continue"))
			from = append(from, strconv.Itoa(at))
			limit, _ := strconv.Atoi(q.Get("limit"))
			if limit < 1 || limit > 20 || q.Get("fieldSelector") != "involvedObject.uid="+string(podUID) {
				t.Errorf("asked %s", r.URL)
			}
			var l corev1.EventList
			for ; at < there && len(l.Items) < limit; at++ {
				l.Items = append(l.Items, corev1.Event{Reason: fmt.Sprint(at)})
			}
			if at < there {
				l.Continue = strconv.Itoa(at)
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(l)
		}))
		c, err := newClient(&rest.Config{Host: srv.URL}, &clock{changed: func() {}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.events(t.Context(), "shop", string(podUID))
		srv.Close()
		if err != nil || len(got) != min(there, maxEvents) || got[len(got)-1].Reason != fmt.Sprint(len(got)-1) {
			t.Errorf("of %d: %d events, %v", there, len(got), err)
		}
		if !slices.Equal(from, want) {
			t.Errorf("of %d: asked from %q, want %q", there, from, want)
		}
	}
}

// TestEvents_OneAtATime: many pods that die at once are asked about in turn; what
// the answers hold does not add up.
func TestEvents_OneAtATime(t *testing.T) {
	var at, most atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := at.Add(1)
		defer at.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(corev1.EventList{Items: []corev1.Event{{Message: strings.Repeat("x", 1<<20)}}})
	}))
	defer srv.Close()
	c, err := newClient(&rest.Config{Host: srv.URL, QPS: -1}, &clock{changed: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if got, err := c.events(t.Context(), "shop", string(podUID)); err != nil || len(got) != 1 {
				t.Errorf("%d events, %v", len(got), err)
			}
		})
	}
	all.Wait()
	if most.Load() != 1 {
		t.Errorf("%d were asked about at once", most.Load())
	}
}
