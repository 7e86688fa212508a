// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
)

const (
	// maxStreams is how many streams may be open; each holds a connection, a
	// goroutine and at most one batch.
	maxStreams = 64
	// heartbeat keeps proxies from closing a quiet stream.
	heartbeat = 15 * time.Second
	// patience is how long a client may take for one batch. A slower one is
	// dropped, and resumes where it was.
	patience = 10 * time.Second
	// batch is how many deaths are read at once for a stream or a list.
	batch = 16
	// lastIDParameter is for EventSource, which cannot send a header at first.
	lastIDParameter = "last_event_id"
)

// Broker tells the open streams that there is something new. What it is they
// read from the store, each at its own pace: so a stream needs no buffer, has
// no gap and nothing twice, however slow it is. A Broker is safe for
// concurrent use.
type Broker struct {
	mu      sync.Mutex
	changed chan struct{}
	done    chan struct{}
	closed  bool
}

// NewBroker returns a Broker.
func NewBroker() *Broker {
	return &Broker{changed: make(chan struct{}), done: make(chan struct{})}
}

// Publish says that the store has deaths which it did not have before, or
// amendments. It never blocks.
func (b *Broker) Publish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.changed)
	b.changed = make(chan struct{})
}

// Subscribe returns a channel that the next Publish closes. Subscribe first,
// then read the store, then wait: nothing is missed.
func (b *Broker) Subscribe() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// Close ends all streams, for the server's shutdown.
func (b *Broker) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		close(b.done)
	}
}

// stream serves GET /api/v1/deaths/stream as server-sent events. The id of an
// event is the store's sequence number.
func (h *handler) stream(w http.ResponseWriter, r *http.Request) {
	q, lastID, err := h.streamQuery(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	select {
	case h.streams <- struct{}{}:
		defer func() { <-h.streams }()
	default:
		busy(w, fmt.Sprintf("%d streams are open, which is the most there may be", maxStreams))
		return
	}
	after, err := h.startOf(r.Context(), q, lastID)
	if err != nil {
		code, text := h.failed(r, err)
		writeError(w, code, text)
		return
	}
	head := w.Header()
	head.Set("Content-Type", "text/event-stream")
	head.Set("Cache-Control", "no-store")
	head.Set("X-Accel-Buffering", "no") // nginx would hold events back
	if err := h.follow(r.Context(), &eventWriter{w: w, rc: http.NewResponseController(w)}, q, after); err != nil && r.Context().Err() == nil {
		h.log.Debug("stream ended", "err", err)
	}
}

// streamQuery reads a stream's filters and where it is to go on from; -1 is
// the present.
func (h *handler) streamQuery(r *http.Request) (api.Query, int64, error) {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return api.Query{}, 0, fmt.Errorf("the address's parameters: %w", err)
	}
	id := r.Header.Get("Last-Event-ID")
	if id == "" {
		id = v.Get(lastIDParameter)
	}
	v.Del(lastIDParameter)
	for _, name := range []string{"since", "until", "limit", "cursor"} {
		if v.Get(name) != "" {
			return api.Query{}, 0, fmt.Errorf("%s: a stream has none; it begins now, or after the Last-Event-ID", name)
		}
	}
	q, err := api.ParseQuery(v, h.Now())
	if err != nil {
		return api.Query{}, 0, err
	}
	q.Limit = batch
	if id == "" {
		return q, -1, nil
	}
	after, err := strconv.ParseInt(id, 10, 64)
	if err != nil || after < 0 {
		return api.Query{}, 0, fmt.Errorf("Last-Event-ID: %q is none of ours: want the id of an event", id)
	}
	return q, after, nil
}

// startOf returns the sequence number after which a stream begins. An id from
// the future is of a history that is gone: all of this one is new then.
func (h *handler) startOf(ctx context.Context, q api.Query, after int64) (int64, error) {
	_, newest, err := h.Store.Since(ctx, q, math.MaxInt64)
	switch {
	case err != nil:
		return 0, err
	case after < 0:
		return newest, nil
	case after > newest:
		return 0, nil
	}
	return after, nil
}

// follow writes what the store has after a sequence number, and goes on as
// more comes, until the client or the program leaves.
func (h *handler) follow(ctx context.Context, w *eventWriter, q api.Query, after int64) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	if err := w.mark(after); err != nil {
		return err
	}
	for {
		changed := h.Broker.Subscribe()
		for {
			entries, upTo, err := h.Store.Since(ctx, q, after)
			if err != nil {
				return err
			}
			after = upTo
			if len(entries) == 0 {
				break
			}
			if err := w.events(entries); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-h.Broker.done:
			return nil
		case <-changed:
		case <-beat.C:
			if err := w.mark(after); err != nil {
				return err
			}
		}
	}
}

// eventWriter writes server-sent events, each batch within patience.
type eventWriter struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	buf bytes.Buffer
}

// mark tells the client how far it has come, by an id without an event: after
// a break it then resumes here, although its filter let nothing through. It
// is the heartbeat too.
func (w *eventWriter) mark(seq int64) error {
	fmt.Fprintf(&w.buf, ": alive\nid: %d\n\n", seq)
	return w.flush()
}

func (w *eventWriter) events(entries []Entry) error {
	for i := range entries {
		data, err := json.Marshal(&entries[i].Death)
		if err != nil {
			return fmt.Errorf("encode death %q: %w", entries[i].Death.ID, err)
		}
		fmt.Fprintf(&w.buf, "id: %d\nevent: %s\ndata: %s\n\n", entries[i].Seq, api.EventDeath, data)
	}
	return w.flush()
}

func (w *eventWriter) flush() error {
	if err := w.rc.SetWriteDeadline(time.Now().Add(patience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := w.buf.WriteTo(w.w); err != nil {
		return err
	}
	if w.buf.Cap() > 1<<20 {
		w.buf = bytes.Buffer{} // a large batch is not kept
	}
	return w.rc.Flush()
}
