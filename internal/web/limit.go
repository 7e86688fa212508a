// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

const (
	// maxRequests is how many requests are worked on at once; each may hold an
	// answer of a thousand deaths. maxScrapes is that for the metrics, which
	// have places of their own: they answer whatever else is asked.
	maxRequests = 8
	maxScrapes  = 2
	// So many more may wait for a place, and so long: what takes longer is
	// told to come again.
	maxWaiting        = 64
	maxWaitingScrapes = 256
	maxWait           = 5 * time.Second
	// maxRest is how long a place stays empty after a request, at most; else
	// as long as the request took. So requests that take all they can get take
	// half of it.
	maxRest = 100 * time.Millisecond
	// maxTime is how long a request may take, its answer's way to the client
	// included. Streams have times of their own.
	maxTime = 20 * time.Second
)

// places bound how many requests are worked on at once.
type places struct {
	work chan struct{} // a token for each one that is worked on, or rests
	line chan struct{} // a token for each one that waits
}

func newPlaces(n, waiting int) *places {
	return &places{work: make(chan struct{}, n), line: make(chan struct{}, waiting)}
}

// enter waits for a place, and tells whether there was one.
func (p *places) enter(ctx context.Context) bool {
	select {
	case p.work <- struct{}{}:
		return true
	default:
	}
	select {
	case p.line <- struct{}{}:
		defer func() { <-p.line }()
	default:
		return false
	}
	patience := time.NewTimer(maxWait)
	defer patience.Stop()
	select {
	case p.work <- struct{}{}:
		return true
	case <-patience.C:
	case <-ctx.Done():
	}
	return false
}

// leave gives the place back after a request that took so long.
func (p *places) leave(took time.Duration) {
	if took < time.Millisecond {
		<-p.work
		return
	}
	time.AfterFunc(min(took, maxRest), func() { <-p.work })
}

// limited serves within the bounds of number and time.
func (p *places) limited(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !p.enter(r.Context()) {
			busy(w, fmt.Sprintf("%d requests are worked on, which is the most there may be", cap(p.work)))
			return
		}
		began := time.Now()
		defer func() { p.leave(time.Since(began)) }()
		ctx, cancel := context.WithTimeout(r.Context(), maxTime)
		defer cancel()
		err := http.NewResponseController(w).SetWriteDeadline(began.Add(maxTime))
		if err != nil && !errors.Is(err, http.ErrNotSupported) {
			return // the client has gone
		}
		next(w, r.WithContext(ctx))
	}
}

// busy tells a client to come again.
func busy(w http.ResponseWriter, why string) {
	w.Header().Set("Retry-After", "5")
	writeError(w, http.StatusServiceUnavailable, why+": try again later")
}
