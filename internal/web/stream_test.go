// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

// serve puts the site on loopback.
func (s *site) serve() *httptest.Server {
	s.t.Helper()
	srv := httptest.NewUnstartedServer(s)
	srv.Config.RegisterOnShutdown(s.broker.Close)
	srv.Start()
	s.t.Cleanup(func() {
		s.broker.Close()
		srv.Close()
	})
	return srv
}

// cutter breaks every connection after some bytes.
type cutter struct {
	net.Listener
	after int
}

func (c cutter) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	return &cutConn{Conn: conn, left: c.after}, err
}

type cutConn struct {
	net.Conn
	left int
}

func (c *cutConn) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		_ = c.Close()
		return 0, errors.New("cut")
	}
	return c.Conn.Write(p)
}

// TestStream_NoGapAndNothingTwice follows while several writers publish and
// the connections keep breaking.
func TestStream_NoGapAndNothingTwice(t *testing.T) {
	const writers, each = 4, 60
	s := newSite(t, nil)
	srv := httptest.NewUnstartedServer(s)
	srv.Listener = cutter{srv.Listener, 6000} // about 20 deaths
	srv.Start()
	t.Cleanup(func() {
		s.broker.Close()
		srv.Close()
	})
	before := s.get("/").Body.String()
	start := cutOut(t, before, "last_event_id=", `"`)

	client, err := api.NewClient(srv.URL, srv.Client())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	retries := 0
	client.OnRetry = func(error, time.Duration) { retries++ }

	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for n := range each {
				d := many(1)[0]
				d.ID = fmt.Sprintf("w%d-%d", w, n)
				s.put(d)
			}
		})
	}
	seen := map[string]int{}
	last := int64(0)
	err = client.Stream(ctx, api.Query{}, start, func(id string, d death.Death) error {
		seq, err := strconv.ParseInt(id, 10, 64)
		if err != nil || seq <= last {
			return fmt.Errorf("id %q after %d", id, last)
		}
		last = seq
		seen[d.ID]++
		if len(seen) == writers*each {
			return io.EOF
		}
		return nil
	})
	writing.Wait()
	if !errors.Is(err, io.EOF) {
		t.Fatalf("Stream: %v, with %d deaths of %d", err, len(seen), writers*each)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times", id, n)
		}
	}
	if retries == 0 {
		t.Error("no connection broke: the test proves nothing")
	}
}

func cutOut(t *testing.T, s, before, after string) string {
	t.Helper()
	_, s, ok := strings.Cut(s, before)
	if !ok {
		t.Fatalf("no %q", before)
	}
	s, _, _ = strings.Cut(s, after)
	return s
}

// events reads n events of a stream as "id name data".
func events(t *testing.T, url, lastID string, n int) (got []string, ids []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Last-Event-ID", lastID)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || ct != "text/event-stream" {
		t.Fatalf("%d %q", resp.StatusCode, ct)
	}
	sc := bufio.NewScanner(resp.Body)
	sc.Buffer(nil, 1<<20)
	for len(got) < n && sc.Scan() {
		switch name, value, _ := strings.Cut(sc.Text(), ": "); name {
		case "id":
			ids = append(ids, value)
		case "data":
			got = append(got, cutOut(t, value, `"id":"`, `"`))
		}
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	return got, ids
}

func TestStream_FiltersAndResumes(t *testing.T) {
	s := newSite(t, nil)
	url := s.serve().URL + api.PathStream
	s.put(many(10)...)
	all, ids := events(t, url, "0", 10)
	if len(all) != 10 || all[0] != "many-0000" || all[9] != "many-0009" {
		t.Fatalf("from the beginning: %q", all)
	}
	// ids[0] is the mark at the start.
	rest, _ := events(t, url, ids[7], 3)
	if diff := cmp.Diff([]string{"many-0007", "many-0008", "many-0009"}, rest); diff != "" {
		t.Errorf("resumed (-want +got):\n%s", diff)
	}
	odd, _ := events(t, url+"?container=c1", "0", 5)
	if diff := cmp.Diff([]string{"many-0001", "many-0003", "many-0005", "many-0007", "many-0009"}, odd); diff != "" {
		t.Errorf("filtered (-want +got):\n%s", diff)
	}
	again, _ := events(t, url, "9007199254740991", 10)
	if len(again) != 10 {
		t.Errorf("after an id of a history that is gone: %q", again)
	}
	amended := many(10)[4]
	amended.Revision, amended.Summary = 2, "more is known"
	s.put(amended)
	news, _ := events(t, url, ids[10], 1)
	if diff := cmp.Diff([]string{"many-0004"}, news); diff != "" {
		t.Errorf("amended (-want +got):\n%s", diff)
	}
}

func TestStream_AtMostSoMany(t *testing.T) {
	s := newSite(t, nil)
	srv := s.serve()
	var open []*http.Response
	for range maxStreams {
		resp, err := http.Get(srv.URL + api.PathStream)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(err, resp)
		}
		open = append(open, resp)
	}
	resp, err := http.Get(srv.URL + api.PathStream)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(string(body), "64 streams") {
		t.Errorf("one more: %d %s", resp.StatusCode, body)
	}
	for _, r := range open {
		_ = r.Body.Close()
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		resp, err := http.Get(srv.URL + api.PathStream)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("closed streams still count")
		}
	}
}

func TestStream_EndsWithTheServer(t *testing.T) {
	s := newSite(t, nil)
	srv := s.serve()
	resp, err := http.Get(srv.URL + api.PathStream)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := srv.Config.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// endless is a store whose every read finds one large death more.
type endless struct {
	Store
	mu    sync.Mutex
	after int64
	size  int
}

func (e *endless) Since(_ context.Context, _ api.Query, after int64) ([]Entry, int64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.size == 0 || after > 1<<40 {
		return nil, 7, nil
	}
	e.after = after
	return []Entry{{after + 1, death.Death{ID: "x", Summary: strings.Repeat("x", e.size)}}}, after + 1, nil
}

// pipeListener hands out one connection.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.conns) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{} }

// inBubble serves h to one connection, in synctest's time.
func inBubble(t *testing.T, h http.Handler) net.Conn {
	t.Helper()
	l := &pipeListener{conns: make(chan net.Conn, 1)}
	// The timeouts that the package comment asks for must not end streams.
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	ours, theirs := net.Pipe()
	l.conns <- theirs
	t.Cleanup(func() {
		_ = ours.Close()
		_ = srv.Close()
		<-done
	})
	if _, err := io.WriteString(ours, "GET "+api.PathStream+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return ours
}

func TestStream_HeartbeatCarriesThePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, err := New(Options{Store: &endless{}, Broker: NewBroker()})
		if err != nil {
			t.Fatal(err)
		}
		conn := inBubble(t, h)
		start := time.Now()
		sc := bufio.NewScanner(conn)
		var beats []time.Duration
		for len(beats) < 12 && sc.Scan() {
			if sc.Text() == "id: 7" {
				beats = append(beats, time.Since(start))
			}
		}
		var want []time.Duration
		for n := range 12 {
			want = append(want, time.Duration(n)*heartbeat)
		}
		if diff := cmp.Diff(want, beats); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestStream_SlowClientIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &endless{size: 1 << 16}
		ended := make(chan time.Duration, 1)
		h, err := New(Options{Store: store, Broker: NewBroker()})
		if err != nil {
			t.Fatal(err)
		}
		conn := inBubble(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			start := time.Now()
			h.ServeHTTP(w, r)
			ended <- time.Since(start)
		}))
		if _, err := io.ReadFull(conn, make([]byte, 100)); err != nil { // then it reads no more
			t.Fatal(err)
		}
		if took := <-ended; took != patience {
			t.Errorf("dropped after %v, want %v", took, patience)
		}
		if store.after > 3 {
			t.Errorf("%d batches were read for a client that took none", store.after)
		}
	})
}
