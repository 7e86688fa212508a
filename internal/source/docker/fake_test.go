// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// fake is an engine that plays what a test tells it. Its connections are
// pipes, so that a test can run in a bubble of synctest.
type fake struct {
	t  *testing.T
	mu sync.Mutex

	version string
	podman  bool
	boxes   map[string]*container.InspectResponse
	past    []events.Message // given again to who asks for old ones
	late    time.Duration    // from the head of a stream to its first event
	streams map[chan any]bool
	asked   []string // paths
	busy    int      // inspects at once
	most    int

	down     bool                           // refuses connections
	dialErr  error                          // and says so
	serve    func(path string) http.Handler // nil, or in place of the usual answer
	server   *http.Server
	accepted chan net.Conn
	closed   chan struct{}
	conns    map[net.Conn]bool
}

func newFake(t *testing.T) *fake {
	f := &fake{
		t: t, version: "20.10.24", boxes: map[string]*container.InspectResponse{}, streams: map[chan any]bool{},
		accepted: make(chan net.Conn), closed: make(chan struct{}), conns: map[net.Conn]bool{},
	}
	f.server = &http.Server{Handler: f}
	done := make(chan struct{})
	go func() { defer close(done); _ = f.server.Serve(f) }()
	t.Cleanup(func() {
		f.cutOff()
		_ = f.server.Close()
		<-done
	})
	return f
}

// Accept, Close and Addr make a fake its own listener.
func (f *fake) Accept() (net.Conn, error) {
	select {
	case c := <-f.accepted:
		return c, nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

func (f *fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.closed:
	default:
		close(f.closed)
	}
	return nil
}

func (f *fake) Addr() net.Addr { return &net.UnixAddr{Name: "fake", Net: "unix"} }

func (f *fake) dial(ctx context.Context, _ string) (net.Conn, error) {
	f.mu.Lock()
	down, err := f.down, f.dialErr
	f.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case down:
		return nil, fmt.Errorf("dial unix: connection refused")
	}
	ours, theirs := net.Pipe()
	f.mu.Lock()
	f.conns[theirs] = true
	f.mu.Unlock()
	select {
	case f.accepted <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

// cutOff ends all connections, as an engine's crash does.
func (f *fake) cutOff() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		_ = c.Close()
	}
	clear(f.conns)
}

func (f *fake) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if strings.HasPrefix(path, "/v1.") {
		path = path[strings.Index(path[1:], "/")+1:]
	}
	f.mu.Lock()
	f.asked = append(f.asked, path)
	serve := f.serve
	f.mu.Unlock()
	if serve != nil {
		if h := serve(path); h != nil {
			h.ServeHTTP(w, r)
			return
		}
	}
	switch {
	case path == "/_ping":
		w.Header().Set("Api-Version", "1.41")
	case path == "/version":
		name := "Engine"
		if f.podman {
			name = "Podman Engine"
		}
		f.answer(w, map[string]any{"Version": f.version, "ApiVersion": "1.41", "Components": []map[string]any{{"Name": name}}})
	case path == "/events":
		f.stream(w, r)
	case path == "/containers/json":
		f.answer(w, f.list())
	case strings.HasPrefix(path, "/containers/"):
		f.inspect(w, strings.TrimSuffix(strings.TrimPrefix(path, "/containers/"), "/json"))
	default:
		http.NotFound(w, r)
	}
}

func (f *fake) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func (f *fake) list() []container.Summary {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []container.Summary{}
	for id, c := range f.boxes {
		out = append(out, container.Summary{ID: id, Names: []string{c.Name}, Image: c.Config.Image, Labels: c.Config.Labels, State: c.State.Status})
	}
	return out
}

func (f *fake) inspect(w http.ResponseWriter, id string) {
	f.mu.Lock()
	f.busy++
	f.most = max(f.most, f.busy)
	var c container.InspectResponse
	known := f.boxes[id] != nil
	if known {
		c = *f.boxes[id]
		state := *c.State
		c.State = &state
	}
	f.mu.Unlock()
	defer f.change(func() { f.busy-- })
	if !known {
		w.WriteHeader(http.StatusNotFound)
		f.answer(w, map[string]string{"message": "No such container: " + id})
		return
	}
	f.answer(w, c)
}

func (f *fake) stream(w http.ResponseWriter, r *http.Request) {
	flush := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	_ = flush.Flush()
	<-time.After(f.late)
	c := make(chan any, 4096)
	f.mu.Lock()
	f.streams[c] = true
	past := slices.Clone(f.past)
	f.mu.Unlock()
	defer f.change(func() { delete(f.streams, c) })
	if s := r.URL.Query().Get("since"); s != "" {
		since, err := strconv.ParseFloat(s, 64)
		if err != nil {
			f.t.Errorf("since %q", s)
		}
		for _, m := range past {
			if float64(m.TimeNano)/1e9 >= since-1e-6 {
				_ = json.NewEncoder(w).Encode(m)
			}
		}
		_ = flush.Flush()
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case v := <-c:
			var err error
			switch v := v.(type) {
			case []byte:
				_, err = w.Write(v)
			default:
				err = json.NewEncoder(w).Encode(v)
			}
			if err != nil || flush.Flush() != nil {
				return
			}
		}
	}
}

// send gives all streams what they are to carry, a message or raw bytes.
func (f *fake) send(v any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.streams {
		c <- v
	}
}

// event sends an event as Docker does, labels and attributes in one map.
func (f *fake) event(action, id string, attrs map[string]string) events.Message {
	m := f.message(action, id, attrs)
	f.change(func() { f.past = append(f.past, m) })
	f.send(m)
	return m
}

func (f *fake) message(action, id string, attrs map[string]string) events.Message {
	all := map[string]string{"name": "name-" + id, "image": "image"}
	for k, v := range attrs {
		all[k] = v
	}
	now := time.Now()
	return events.Message{
		Type: "container", Action: events.Action(action), Actor: events.Actor{ID: id, Attributes: all},
		Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano(),
	}
}

// runs puts a running container into the engine.
func (f *fake) runs(id string, pid int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.boxes[id] = &container.InspectResponse{
		ID: id, Name: "/name-" + id, LogPath: "/log/" + id,
		State:      &container.State{Status: "running", Running: true, Pid: pid, StartedAt: stamp(), FinishedAt: "0001-01-01T00:00:00Z"},
		Config:     &container.Config{Image: "image", StopSignal: "SIGQUIT"},
		HostConfig: &container.HostConfig{Resources: container.Resources{Memory: 32 << 20}},
	}
}

// ended changes the state of a container as an end does.
func (f *fake) ended(id string, code int, oom bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.boxes[id].State
	s.Status, s.Running, s.Pid, s.ExitCode, s.OOMKilled, s.FinishedAt = "exited", false, 0, code, oom, stamp()
}

func stamp() string { return time.Now().UTC().Format(time.RFC3339Nano) }

// recorder keeps what a source says.
type recorder struct {
	mu   sync.Mutex
	said []signal.Signal
	stop func()
}

// follow runs a source over a fake until the test ends.
func follow(t *testing.T, f *fake, opt Options) *recorder {
	t.Helper()
	if opt.Hosts == nil {
		opt.Hosts = []string{"unix:///fake.sock"}
	}
	if f != nil {
		opt.dial = f.dial
	}
	opt.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, cancel := context.WithCancel(t.Context())
	r := &recorder{}
	done := make(chan error, 1)
	go func() { done <- New(opt).Run(ctx, r.take) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *recorder) take(s signal.Signal) {
	if s.Source != death.SourceDocker || s.Time.IsZero() || s.Observed.IsZero() {
		panic(fmt.Sprintf("head of %+v", s))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, s)
}

// taken gives what was said since it was last called.
func (r *recorder) taken() []signal.Signal {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.said
	r.said = nil
	return out
}

// of picks the bodies of one kind.
func of[B signal.Body](said []signal.Signal) []B {
	var out []B
	for _, s := range said {
		if b, ok := s.Body.(B); ok {
			out = append(out, b)
		}
	}
	return out
}
