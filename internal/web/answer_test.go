// SPDX-License-Identifier: Apache-2.0

package web

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// unread asks and reads nothing, as often as told on each of n connections.
func unread(t *testing.T, address, path string, n, times int) {
	t.Helper()
	for range n {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if err := c.(*net.TCPConn).SetReadBuffer(2048); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n", times)); err != nil {
			t.Fatal(err)
		}
	}
}

// bigMetrics are answers that fit no socket.
func bigMetrics(bytes int, asked *atomic.Int64) func(*Options) {
	return func(o *Options) {
		o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			for range bytes >> 10 {
				_, _ = io.WriteString(w, strings.Repeat("x", 1<<10))
			}
		})
	}
}

// TestScrapes_SlowReadersHoldNoPlace: who does not read an answer keeps nobody
// else from one, and loses the connection.
func TestScrapes_SlowReadersHoldNoPlace(t *testing.T) {
	var asked, open atomic.Int64
	srv := httptest.NewUnstartedServer(newSite(t, bigMetrics(6<<20, &asked)))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	srv.Start()
	defer srv.Close()
	const rude = 12 // more bytes than may wait
	unread(t, srv.Listener.Addr().String(), "/metrics", rude, 4)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(20 * time.Second); asked.Load() < rude || open.Load() > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d asked, %d connections are open although nobody reads", asked.Load(), open.Load())
		}
		began := time.Now()
		resp, err := client.Get(srv.URL + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		n, _ := io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if took := time.Since(began); resp.StatusCode != http.StatusOK || n != 6<<20 || took > 3*time.Second {
			t.Errorf("%d with %d bytes after %s", resp.StatusCode, n, took)
		}
	}
}

// TestAnswers_LargerThanTheBound are whole too.
func TestAnswers_LargerThanTheBound(t *testing.T) {
	var asked atomic.Int64
	srv := newSite(t, bigMetrics(maxScrape+1<<20, &asked)).serve()
	resp, err := http.Get(srv.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if n, err := io.Copy(io.Discard, resp.Body); n != maxScrape+1<<20 || err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%d, %d bytes, %v", resp.StatusCode, n, err)
	}
}

// TestBacklog: the bytes that wait are bounded, and those of the address with
// the most go first.
func TestBacklog(t *testing.T) {
	b := &backlog{most: 100}
	var gone []string
	add := func(name, from string, size int) *waiting {
		w := &waiting{from: from, size: size, end: func() { gone = append(gone, name) }}
		b.add(w)
		return w
	}
	honest := add("honest", "a", 30)
	add("first", "b", 30)
	add("second", "b", 30)
	add("third", "b", 30)
	if fmt.Sprint(gone) != "[first]" || b.held != 90 {
		t.Errorf("%v went, %d bytes are held", gone, b.held)
	}
	b.remove(honest)
	b.remove(honest)
	if b.held != 60 {
		t.Errorf("%d bytes are held, want 60", b.held)
	}
	add("huge", "b", 200)
	if fmt.Sprint(gone) != "[first second third huge]" || b.held != 0 || len(b.line) != 0 {
		t.Errorf("%v went, %d bytes are held", gone, b.held)
	}
}

// TestAnswers_UsedAgain: answers of any size come as they were written, also
// where many are made of what others were made of.
func TestAnswers_UsedAgain(t *testing.T) {
	srv := httptest.NewServer(limits{newPlaces(3, 64), 200 << 10, &backlog{most: maxBacklog}}.limited(func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.FormValue("n"))
		if err != nil {
			t.Error(err)
		}
		for text := strings.Repeat(r.FormValue("of"), n); text != ""; {
			part := text[:min(len(text), 777)]
			if _, err := io.WriteString(w, part); err != nil {
				t.Error(err)
			}
			text = text[len(part):]
		}
	}))
	defer srv.Close()
	var all sync.WaitGroup
	for _, of := range []string{"a", "b", "c"} {
		all.Go(func() {
			for _, n := range []int{0, 1, 2047, 2048, 2049, 4096, 32 << 10, 65535, 65536, 100_000, 200 << 10, 200<<10 + 1, 900_000, 3} {
				resp, err := http.Get(fmt.Sprintf("%s?n=%d&of=%s", srv.URL, n, of))
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(resp.Body)
				if err != nil || string(got) != strings.Repeat(of, n) {
					t.Errorf("%d times %s: got %d bytes, %v", n, of, len(got), err)
				}
				_ = resp.Body.Close()
			}
		})
	}
	all.Wait()
}
