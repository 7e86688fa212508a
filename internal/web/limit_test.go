// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

// stuckStore answers no list before it is let go.
type stuckStore struct {
	Store
	asked chan struct{}
	gate  chan struct{}
}

func (s stuckStore) List(ctx context.Context, _ api.Query) (Page, error) {
	s.asked <- struct{}{}
	select {
	case <-s.gate:
		return Page{}, nil
	case <-ctx.Done():
		return Page{}, ctx.Err()
	}
}

// TestRequests_BoundedInNumber: while all places are taken, the rest is told
// to come again, and metrics and probes answer.
func TestRequests_BoundedInNumber(t *testing.T) {
	stuck := stuckStore{asked: make(chan struct{}, maxRequests+maxWaiting), gate: make(chan struct{})}
	s := newSite(t, func(o *Options) { stuck.Store, o.Store = o.Store, stuck })
	srv := s.serve()
	var all sync.WaitGroup
	var served, refused atomic.Int64
	ask := func() {
		resp, err := http.Get(srv.URL + api.PathDeaths)
		if err != nil {
			t.Error(err)
			return
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		switch {
		case resp.StatusCode == http.StatusOK:
			served.Add(1)
		case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "5" && strings.Contains(string(body), "try again later"):
			refused.Add(1)
		default:
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
	for range maxRequests - 1 {
		all.Go(ask)
	}
	for range maxRequests - 1 {
		<-stuck.asked
	}
	const more = 2*maxWaiting + 1 // one place is not for one address alone
	for range more {
		all.Go(ask)
	}
	// All that have no place in the line are refused while the others wait.
	for deadline := time.Now().Add(20 * time.Second); refused.Load() < more-maxWaiting; {
		if time.Now().After(deadline) {
			t.Fatalf("%d refused, want %d", refused.Load(), more-maxWaiting)
		}
		for path, want := range map[string]string{"/metrics": "metrics here", "/-/healthy": "healthy", "/-/ready": "ready"} {
			began := time.Now()
			resp, err := http.Get(srv.URL + path)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if !strings.Contains(string(body), want) || time.Since(began) > 3*time.Second {
				t.Errorf("%s after %s: %s", path, time.Since(began), body)
			}
		}
	}
	close(stuck.gate)
	all.Wait()
	if served.Load()+refused.Load() != maxRequests-1+more || served.Load() < maxRequests-1 {
		t.Errorf("served %d, refused %d of %d", served.Load(), refused.Load(), maxRequests-1+more)
	}
}

// TestRequests_BoundedInTime: a question that takes too long is given up.
func TestRequests_BoundedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var took time.Duration
		limits{newPlaces(1, 1), maxSmall, &backlog{}}.limited(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			took = time.Since(began)
		})(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
		if took != maxTime {
			t.Errorf("given up after %s, want %s", took, maxTime)
		}
	})
}

func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const one = "192.0.2.1:1"
		p := newPlaces(1, 1)
		if !p.enter(t.Context(), one) {
			t.Fatal("no place in an empty room")
		}
		began := time.Now()
		if p.enter(t.Context(), one) || time.Since(began) != maxWait {
			t.Errorf("a place after %s, want none after %s", time.Since(began), maxWait)
		}
		p.leave(one, 40*time.Millisecond)
		began = time.Now()
		if !p.enter(t.Context(), one) || time.Since(began) != 40*time.Millisecond {
			t.Errorf("a place after %s, want one after a rest of 40 ms", time.Since(began))
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if p.enter(gone, one) {
			t.Error("a place for somebody who has gone")
		}
		p.leave(one, time.Hour)
		began = time.Now()
		if !p.enter(t.Context(), one) || time.Since(began) != maxRest {
			t.Errorf("a place after %s, want one after %s", time.Since(began), maxRest)
		}
		p.leave(one, 0)
		synctest.Wait()
		if p.busy+p.total+len(p.held)+len(p.line)+len(p.turn)+len(p.here) != 0 {
			t.Errorf("%d work and %d wait in the end", p.busy, p.total)
		}
	})
}

// TestPlaces_EachAddressInTurn: a crowd from one address keeps nobody from
// another out, neither of the places nor of the line.
func TestPlaces_EachAddressInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces(2, 8)
		var served []string
		var refused atomic.Int64
		ask := func(remote string) {
			go func() {
				if !p.enter(t.Context(), remote) {
					refused.Add(1)
					return
				}
				served = append(served, remote) // one at a time: see below
			}()
			synctest.Wait()
		}
		for i := range 12 {
			ask(fmt.Sprintf("[2001:db8::%x]:1", i))
		}
		if len(served) != 1 || refused.Load() != 3 {
			t.Fatalf("%d served, %d refused, want 1 and 3: a place is left for others, and 8 wait", len(served), refused.Load())
		}
		ask("[2001:db8::1]:1")
		if refused.Load() != 4 {
			t.Error("a connection waits twice")
		}
		ask("192.0.2.1:1")
		if len(served) != 2 {
			t.Fatal("no place for another address")
		}
		ask("192.0.2.2:1")
		ask("192.0.2.2:2")
		if refused.Load() != 6 {
			t.Errorf("%d refused, want 6: the crowd made room", refused.Load())
		}
		for i, want := range []string{"192.0.2.2:1", "192.0.2.2:2", "[2001:db8::1]:1", "[2001:db8::2]:1"} {
			p.leave([]string{"192.0.2.1:1", "192.0.2.2:1", "[2001:db8::]:1", "[2001:db8::1]:1"}[i], 0)
			synctest.Wait()
			if len(served) != 3+i || served[2+i] != want {
				t.Fatalf("%v were served, want %s next", served, want)
			}
		}
		p.leave("192.0.2.2:2", 0)
		for len(served) < 10 {
			p.leave("[2001:db8::]:1", 0)
			synctest.Wait()
		}
		p.leave("[2001:db8::]:1", 0)
		if p.busy+p.total+len(p.held)+len(p.line)+len(p.turn)+len(p.here) != 0 {
			t.Errorf("%d work and %d wait in the end", p.busy, p.total)
		}
	})
}

// TestRequests_TakeNoBody: what a client sends is not read.
func TestRequests_TakeNoBody(t *testing.T) {
	s := newSite(t, nil)
	s.put(death.Death{ID: "a", Node: "n", Time: noon, ObservedAt: noon, Subject: death.SubjectProcess, Cause: death.Killed, Confidence: death.Certain, Revision: 1})
	srv := s.serve()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// The head promises a body that never comes.
	if _, err := io.WriteString(conn, "GET "+api.PathDeaths+" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nsome"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK || !resp.Close {
		t.Errorf("status %d, closes %v: want an answer, and the connection's end", resp.StatusCode, resp.Close)
	}
}
