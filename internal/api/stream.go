// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/coroner-dev/coroner/internal/death"
)

const (
	// maxEvent bounds one event; a death with the kernel's largest task table is under 2 MiB.
	maxEvent = 16 << 20
	minWait  = 250 * time.Millisecond
	maxWait  = 10 * time.Second
	// silence is how long a stream may say nothing: the server sends a
	// heartbeat each 15 s, so a connection that is dead unseen is found.
	silence = 50 * time.Second
)

var (
	errSilent    = errors.New("the stream fell silent")
	errEventSize = fmt.Errorf("an event of over %d bytes", maxEvent)
)

// callbackError carries an error of the caller's own function through the retries.
type callbackError struct{ err error }

func (e callbackError) Error() string { return e.err.Error() }

// Stream calls fn for each death that q selects and that is new or amended
// after lastID, in the order in which the server learned of them; an empty
// lastID means from now on. It reconnects where it broke off, so that nothing
// is missed and nothing doubled, and returns nil when ctx ends. It returns an
// error when the very first connection cannot be made, when the server
// refuses the query, and when fn returns one. Limit, Cursor, Since or Until in
// q are an error too: a stream has none, it begins now or after lastID.
func (c *Client) Stream(ctx context.Context, q Query, lastID string, fn func(id string, d death.Death) error) error {
	if name := backward(q); name != "" {
		return fmt.Errorf("%s: a stream of deaths has none, because it begins now; list the deaths of before", name)
	}
	wait, connected := minWait, false
	for {
		before := lastID
		opened, err := c.streamOnce(ctx, q, &lastID, fn)
		connected = connected || opened
		var own callbackError
		var status *StatusError
		switch {
		case errors.As(err, &own):
			return own.err
		case ctx.Err() != nil:
			return nil
		case !connected, errors.As(err, &status) && status.Code < 500 && status.Code != http.StatusTooManyRequests:
			return err
		}
		if lastID != before {
			wait = minWait
		}
		if c.OnRetry != nil {
			c.OnRetry(err, wait)
		}
		// Jitter, so that the clients of a restarted server do not come at once.
		timer := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		wait = min(2*wait, maxWait)
	}
}

// backward names what in q is of use only for the deaths of before.
func backward(q Query) string {
	switch {
	case !q.Since.IsZero():
		return "since"
	case !q.Until.IsZero():
		return "until"
	case q.Limit != 0:
		return "limit"
	case q.Cursor != "":
		return "cursor"
	}
	return ""
}

// streamOnce reads one connection to its end and keeps lastID. It tells
// whether the connection was made.
func (c *Client) streamOnce(ctx context.Context, q Query, lastID *string, fn func(string, death.Death) error) (bool, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	header := http.Header{"Accept": {"text/event-stream"}}
	if *lastID != "" {
		header.Set("Last-Event-ID", *lastID)
	}
	resp, err := c.do(ctx, PathStream, q.Values(), header)
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }()
	watchdog := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	err = readEvents(heard{resp.Body, func() { watchdog.Reset(silence) }}, func(e event) error {
		if e.name == EventDeath && e.data != "" {
			var d death.Death
			if err := json.Unmarshal([]byte(e.data), &d); err != nil {
				return fmt.Errorf("event %s: %w", e.id, err)
			}
			if err := fn(e.id, d); err != nil {
				return callbackError{err}
			}
		}
		if e.id == "" {
			return nil
		}
		*lastID = e.id
		if e.name == "" && c.OnMark != nil {
			c.OnMark(e.id)
		}
		return nil
	})
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
		err = cause
	}
	return true, err
}

// heard calls fn whenever something was read, a heartbeat too.
type heard struct {
	io.Reader
	fn func()
}

func (h heard) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	h.fn()
	return n, err
}

// event is one block of an event stream.
type event struct{ id, name, data string }

// readEvents calls fn for each block of a text/event-stream, also for one
// that has an id alone, and returns io.ErrUnexpectedEOF at the stream's end,
// because a stream of deaths has none by itself.
func readEvents(r io.Reader, fn func(event) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 64<<10), maxEvent)
	var e event
	var data []byte // each line with its end
	for sc.Scan() {
		line := strings.TrimRight(sc.Text(), "\r")
		if line == "" {
			e.data = string(bytes.TrimSuffix(data, []byte{'\n'}))
			if e != (event{}) {
				if err := fn(e); err != nil {
					return err
				}
			}
			e, data = event{}, data[:0]
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "id":
			if !strings.ContainsFunc(value, unicode.IsControl) { // else no header can send it back
				e.id = value
			}
		case "event":
			e.name = value
		case "data":
			if len(data)+len(value) >= maxEvent {
				return fmt.Errorf("read the stream: %w", errEventSize)
			}
			data = append(append(data, value...), '\n')
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("read the stream: %w", err)
	}
	return fmt.Errorf("read the stream: %w", io.ErrUnexpectedEOF)
}
