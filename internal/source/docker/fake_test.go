// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"encoding/json"
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
	"github.com/coroner-dev/coroner/internal/engines/enginetest"
)

// fake is an engine that plays what a test tells it.
type fake struct {
	*enginetest.Socket
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

	serve func(path string) http.Handler // nil, or in place of the usual answer
}

func newFake(t *testing.T) *fake {
	f := &fake{
		Socket: enginetest.NewSocket(), t: t, version: "20.10.24",
		boxes: map[string]*container.InspectResponse{}, streams: map[chan any]bool{},
	}
	s := &http.Server{Handler: f}
	enginetest.Serve(t, f, s, func() { f.CutOff(); _ = s.Close() })
	return f
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

// follow runs a source over a fake until the test ends.
func follow(t *testing.T, f *fake, opt Options) *enginetest.Recorder {
	t.Helper()
	if opt.Hosts == nil {
		opt.Hosts = []string{"unix:///fake.sock"}
	}
	if f != nil {
		opt.dial = f.Dial
	}
	opt.Logger = enginetest.Logger(t)
	return enginetest.Follow(t, death.SourceDocker, New(opt).Run)
}
