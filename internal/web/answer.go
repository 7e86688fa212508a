// SPDX-License-Identifier: Apache-2.0

package web

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// maxScrape is how many bytes of an answer are held back until it is whole
	// and its place is given back; maxSmall is that for pages and the API.
	// Larger ones are written while they are made, and keep their place.
	maxScrape = 8 << 20
	maxSmall  = 256 << 10
	// maxBacklog is how many bytes of whole answers may wait for their readers.
	maxBacklog = 32 << 20
	// piece is what a client has to take within maxStall.
	piece    = 16 << 10
	maxStall = 3 * time.Second
)

// answer holds back what a handler writes, up to a bound.
type answer struct {
	w       http.ResponseWriter
	most    int
	until   time.Time // when all of it has to be with the client
	backlog *backlog
	// extend sets the deadline of the next piece.
	extend func(time.Time) error

	code   int
	held   parts
	direct bool // nothing is held back any more
}

// parts are bytes that are held, without copying them when they become more.
type parts struct {
	all  [][]byte
	size int // what they hold
	room int // what they could
}

// Parts are as large as all before together, within bounds. The largest are
// used again.
const (
	leastPart = 2 << 10
	mostPart  = 32 << 10
)

func (h *parts) write(p []byte, spare *sync.Pool) {
	h.size += len(p)
	for len(p) > 0 {
		last := len(h.all) - 1
		if last < 0 || len(h.all[last]) == cap(h.all[last]) {
			part := newPart(max(h.room, leastPart), spare)
			h.all, h.room = append(h.all, part), h.room+cap(part)
			last++
		}
		part := h.all[last]
		n := min(len(p), cap(part)-len(part))
		h.all[last], p = append(part, p[:n]...), p[n:]
	}
}

func newPart(size int, spare *sync.Pool) []byte {
	if size < mostPart {
		return make([]byte, 0, size)
	}
	if used, ok := spare.Get().(*[mostPart]byte); ok {
		return used[:0]
	}
	return make([]byte, 0, mostPart)
}

// giveBack lets others use the parts, which nobody may look at any more.
func (h *parts) giveBack(spare *sync.Pool) {
	for _, part := range h.all {
		if cap(part) == mostPart {
			spare.Put((*[mostPart]byte)(part[:mostPart]))
		}
	}
	*h = parts{}
}

func newAnswer(w http.ResponseWriter, most int, until time.Time, b *backlog) *answer {
	return &answer{w: w, most: most, until: until, backlog: b, extend: http.NewResponseController(w).SetWriteDeadline}
}

// Header is that of the answer in the end.
func (a *answer) Header() http.Header { return a.w.Header() }

// WriteHeader keeps the status for later.
func (a *answer) WriteHeader(code int) {
	if a.code == 0 {
		a.code = code
	}
}

// Write holds p back, if there is room.
func (a *answer) Write(p []byte) (int, error) {
	if a.direct {
		return a.push(p)
	}
	a.WriteHeader(http.StatusOK)
	if a.held.size+len(p) <= a.most {
		a.held.write(p, &a.backlog.spare)
		return len(p), nil
	}
	a.direct = true
	a.head()
	if err := a.pushAll(); err != nil {
		return 0, err
	}
	return a.push(p)
}

// head writes the status, unless it goes without saying.
func (a *answer) head() {
	if a.code != 0 && a.code != http.StatusOK {
		a.w.WriteHeader(a.code)
	}
}

// push writes piece by piece.
func (a *answer) push(p []byte) (int, error) {
	done := 0
	for part := range slices.Chunk(p, piece) {
		if err := a.hurry(); err != nil {
			return done, err
		}
		n, err := a.w.Write(part)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// pushAll writes what is held, and holds it no more. Where that fails the server
// may still look at it.
func (a *answer) pushAll() error {
	for _, part := range a.held.all {
		if _, err := a.push(part); err != nil {
			a.held = parts{}
			return err
		}
	}
	a.held.giveBack(&a.backlog.spare)
	return nil
}

// hurry gives the client a while more.
func (a *answer) hurry() error {
	deadline := time.Now().Add(maxStall)
	if a.until.Before(deadline) {
		deadline = a.until
	}
	if err := a.extend(deadline); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// finish writes what was held back. Who does not take it loses the connection.
func (a *answer) finish(from string) {
	if b := a.backlog; a.held.size > 0 {
		rc := http.NewResponseController(a.w)
		w := &waiting{from: from, size: a.held.room, end: func() { _ = rc.SetWriteDeadline(time.Now()) }}
		a.extend = func(t time.Time) error { return b.extend(w, func() error { return rc.SetWriteDeadline(t) }) }
		b.add(w)
		defer b.remove(w)
		a.w.Header().Set("Content-Length", strconv.Itoa(a.held.size))
	}
	if !a.direct {
		a.head()
	}
	err := a.pushAll()
	if err == nil {
		err = a.hurry()
	}
	if err == nil {
		err = http.NewResponseController(a.w).Flush()
	}
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		panic(http.ErrAbortHandler)
	}
}

// backlog bounds the bytes of whole answers that wait for their readers. Where
// there are too many, the oldest answer of the address that has the most of
// them ends, with its connection.
type backlog struct {
	most  int
	spare sync.Pool // of *[mostPart]byte

	mu   sync.Mutex
	held int
	line []*waiting // the oldest first
}

type waiting struct {
	from string
	size int
	end  func()
	out  bool
}

func (b *backlog) add(w *waiting) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.line = append(b.line, w)
	b.held += w.size
	for b.held > b.most {
		by, most := map[string]int{}, ""
		for _, o := range b.line {
			if by[o.from] += o.size; by[o.from] > by[most] {
				most = o.from
			}
		}
		i := slices.IndexFunc(b.line, func(o *waiting) bool { return o.from == most })
		last := b.line[i]
		b.drop(last)
		last.end()
	}
}

func (b *backlog) remove(w *waiting) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(w)
}

func (b *backlog) drop(w *waiting) {
	if !w.out {
		w.out = true
		b.held -= w.size
		b.line = slices.DeleteFunc(b.line, func(o *waiting) bool { return o == w })
	}
}

// extend does what an answer wants that still may wait.
func (b *backlog) extend(w *waiting, do func() error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w.out {
		return http.ErrHandlerTimeout
	}
	return do()
}
