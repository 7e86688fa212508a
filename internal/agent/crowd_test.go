// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/history"
)

// rude is a client that keeps its connection busy until ctx ends.
type rude func(ctx context.Context, c net.Conn)

// say writes and never reads, and comes again after a while.
func say(text string) rude {
	return func(ctx context.Context, c net.Conn) {
		_, _ = io.WriteString(c, text)
		pause(ctx, 2*time.Second)
	}
}

func request(path, more string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + more + "\r\n"
}

// drip writes a byte now and then.
func drip(text string) rude {
	return func(ctx context.Context, c net.Conn) {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for i := range len(text) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if _, err := c.Write([]byte{text[i]}); err != nil {
				return
			}
		}
		<-ctx.Done()
	}
}

// again asks for ever on one connection, and reads.
func again(path string) rude {
	return func(ctx context.Context, c net.Conn) {
		for r := bufio.NewReader(c); ctx.Err() == nil; {
			if _, err := io.WriteString(c, request(path, "")); err != nil {
				return
			}
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				return
			}
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if err != nil {
				return
			}
		}
	}
}

func rudeClients() []rude {
	return []rude{
		say(""),
		say("GET / HT"),
		drip("GET /api/v1/deaths HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 4096)),
		say(request("/", "X: "+strings.Repeat("x", 64<<10))),
		say(request("/?q="+strings.Repeat("x", 60<<10), "")),
		say(request("/api/v1/deaths?limit=1000", "")),
		say(strings.Repeat(request("/?limit=1000", ""), 10)),
		say(strings.Repeat(request("/api/v1/deaths?limit=1000", ""), 50)),
		say(strings.Repeat(request("/metrics", ""), 50)),
		say(request("/", "Content-Length: 100000\r\n")),
		drip("POST /api/v1/deaths HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("y", 4096)),
		say(request(api.PathStream, "")),
		say(request(api.PathStream+"?last_event_id=0", "")),
		again(api.PathStream),
		again("/-/healthy"),
		again("/api/v1/deaths?limit=10"),
	}
}

// bigHistory writes deaths with long tables.
func bigHistory(t *testing.T, s *history.Store, n int) {
	t.Helper()
	ds := make([]death.Death, n)
	for i := range ds {
		at := time.Now().Add(-time.Duration(i) * time.Minute).UTC()
		ds[i] = death.Death{
			ID: fmt.Sprintf("big-%d", i), Revision: 1, Time: at, ObservedAt: at, Node: "n1", Subject: death.SubjectProcess,
			Cause: death.OOMNode, Confidence: death.Certain, Summary: strings.Repeat("long ", 1600),
		}
	}
	if _, err := s.Put(t.Context(), ds, nil); err != nil {
		t.Fatal(err)
	}
}

// TestServer_Crowd: a thousand clients that say nothing, say it slowly, never
// read or never stop: probes and metrics answer, memory and goroutines stay
// bounded, and all of it ends with them.
func TestServer_Crowd(t *testing.T) {
	clients, duration := 1000, 8*time.Second
	if os.Getenv("CORONER_LONG") == "1" {
		duration = 2 * time.Minute
	}
	a, base := running(t, idle(t))
	bigHistory(t, a.store, 1000)
	address := a.Addresses()[0].String()
	quietMem, quietRoutines := memory(), runtime.NumGoroutine()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	var opened atomic.Int64
	kinds := rudeClients()
	for i := range clients {
		all.Go(func() {
			for ctx.Err() == nil { // who is thrown out comes again
				c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
				if err != nil {
					pause(ctx, 50*time.Millisecond)
					continue
				}
				opened.Add(1)
				hangUp := context.AfterFunc(ctx, func() { _ = c.Close() })
				kinds[i%len(kinds)](ctx, c)
				hangUp()
				_ = c.Close()
				pause(ctx, 50*time.Millisecond)
			}
		})
	}
	mostMem, mostRoutines, slowest := uint64(0), 0, time.Duration(0)
	for end := time.Now().Add(duration); time.Now().Before(end); pause(ctx, 100*time.Millisecond) {
		for _, path := range []string{"/-/healthy", "/metrics"} {
			began, had := time.Now(), busy(t)
			if got := fresh(t, base+path); got != http.StatusOK {
				t.Errorf("%s in the crowd: %d, want 200", path, got)
			}
			// The crowd, which is in this process, takes all processors: what it had
			// not of them while somebody waited, others on the machine had.
			slowest = max(slowest, min(time.Since(began), busy(t)-had))
		}
		mostMem, mostRoutines = max(mostMem, memory()), max(mostRoutines, runtime.NumGoroutine())
	}
	cancel()
	all.Wait()
	t.Logf("%d connections; slowest probe or scrape %s; memory from %d to %d MiB, goroutines from %d to %d, the clients' own among them",
		opened.Load(), slowest, quietMem>>20, mostMem>>20, quietRoutines, mostRoutines)
	if slowest > 5*time.Second {
		t.Errorf("a probe or scrape took %s", slowest)
	}
	// Each client of the test is three goroutines itself.
	if bound := quietRoutines + 3*clients + 3*maxConns; mostRoutines > bound {
		t.Errorf("%d goroutines, want at most %d", mostRoutines, bound)
	}
	for deadline := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > quietRoutines+10; pause(t.Context(), 50*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are left, there were %d", runtime.NumGoroutine(), quietRoutines)
		}
	}
}

// memory is what this process holds and uses.
func memory() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// fresh asks on a connection of its own.
func fresh(t *testing.T, url string) int {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := client.Get(url)
	if err != nil {
		t.Error(err)
		return 0
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}
