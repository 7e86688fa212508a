// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

const (
	// maxRequests is how many requests are worked on at once; each may hold a
	// part of an answer, or a page of a thousand deaths. maxScrapes is that for
	// the metrics, which have places of their own: they answer whatever else
	// is asked. An address has all of them but one, at most.
	maxRequests = 4
	maxScrapes  = 3
	// So many more may wait for a place, and so long: what takes longer is
	// told to come again. Each connection may wait for the metrics.
	maxWaiting        = 64
	maxWaitingScrapes = 2048
	maxWait           = 5 * time.Second
	// maxRest is how long a place stays empty after a request, at most; else
	// as long as the request took. So requests that take all they can get take
	// half of it.
	maxRest = 100 * time.Millisecond
	// maxTime is how long a request may take, its answer's way to the client
	// included. Streams have times of their own.
	maxTime = 20 * time.Second
)

// limits are what the requests of one handler share.
type limits struct {
	places  *places
	most    int // bytes of an answer that are held back
	backlog *backlog
}

// limited serves within the bounds of number, time and memory.
func (l limits) limited(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !l.places.enter(r.Context(), r.RemoteAddr) {
			busy(w, fmt.Sprintf("%d requests are worked on, which is the most there may be", l.places.n))
			return
		}
		a := newAnswer(w, l.most, time.Now().Add(maxTime), l.backlog)
		l.make(a, r, next)
		a.finish(origin(r.RemoteAddr))
	}
}

// make lets the handler make the answer, in a place.
func (l limits) make(a *answer, r *http.Request, next http.HandlerFunc) {
	began := time.Now()
	defer func() { l.places.leave(r.RemoteAddr, time.Since(began)) }()
	ctx, cancel := context.WithDeadline(r.Context(), a.until)
	defer cancel()
	next(a, r.WithContext(ctx))
}

// busy tells a client to come again.
func busy(w http.ResponseWriter, why string) {
	w.Header().Set("Retry-After", "5")
	writeError(w, http.StatusServiceUnavailable, why+": try again later")
}
