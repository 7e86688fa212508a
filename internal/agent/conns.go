// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxQuiet is how many connections may be open on which no request is served,
// beside those that had news within newsAge, and maxConns is how many there
// may be in all; each takes some 20 KiB. The requests that are served at once,
// streams and those that wait among them, are far fewer (package web).
const (
	maxQuiet = 512
	maxConns = 2048
	newsAge  = time.Second
	// sendBuffer and receiveBuffer are what the kernel is told to hold of a
	// connection; it takes up to twice as much. untaken is how long it keeps
	// what a client does not take, also after the connection was closed.
	sendBuffer    = 32 << 10
	receiveBuffer = 16 << 10
	untaken       = 5 * time.Second
)

// conns keeps the number of connections bounded. Where there are too many,
// those have to go that have been quiet for longest: a client that holds
// connections and says nothing keeps nobody out, and one that has just come
// has time to say what it wants.
type conns struct {
	quiet, most int

	mu    sync.Mutex
	known map[net.Conn]*list.Element
	order list.List // of *conn, the one whose last news are oldest first
}

type conn struct {
	net.Conn
	news    time.Time
	serving int // requests; more than one with HTTP/2
}

// connKey is where a request's context has its connection.
type connKey struct{}

// connBounds are the two bounds where the process may have so many files open:
// at most a quarter of them are connections, half of these quiet.
func connBounds(files uint64) (quiet, most int) {
	return int(min(files/8, maxQuiet)), int(min(files/4, maxConns))
}

func newConns(quiet, most int) *conns {
	return &conns{quiet: quiet, most: most, known: map[net.Conn]*list.Element{}}
}

// bound makes a server keep to the bound.
func (c *conns) bound(srv *http.Server) {
	srv.ConnContext = c.opened
	srv.ConnState = c.changed
	srv.Handler = c.serving(srv.Handler)
}

func (c *conns) opened(ctx context.Context, nc net.Conn) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	slim(raw(nc))
	opened := c.order.PushBack(&conn{Conn: nc, news: now})
	c.known[nc] = opened
	for e := c.order.Front(); e != nil && c.order.Len() > c.quiet; {
		next := e.Next()
		k, ok := e.Value.(*conn)
		if ok && c.order.Len() <= c.most && now.Sub(k.news) < newsAge {
			break // nor are those behind it older
		}
		if ok && k.serving == 0 {
			c.forget(e)
			abort(raw(k.Conn))
		}
		e = next
	}
	return context.WithValue(ctx, connKey{}, opened)
}

// slim bounds what the kernel holds of a connection. Errors are those of one
// that has ended.
func slim(nc net.Conn) {
	if t, ok := nc.(*net.TCPConn); ok {
		_ = t.SetWriteBuffer(sendBuffer)
		_ = t.SetReadBuffer(receiveBuffer)
		giveUp(t, untaken)
	}
}

// abort closes a connection, and what is on its way to the client is dropped.
func abort(nc net.Conn) {
	if t, ok := nc.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = nc.Close()
}

// raw is the connection below TLS: to close it takes no time.
func raw(nc net.Conn) net.Conn {
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return nc
}

func (c *conns) changed(nc net.Conn, st http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.known[nc]
	switch {
	case e == nil:
	case st == http.StateClosed || st == http.StateHijacked:
		c.forget(e)
	case st != http.StateNew:
		if k, ok := e.Value.(*conn); ok {
			k.news = time.Now()
		}
		c.order.MoveToBack(e)
	}
}

func (c *conns) forget(e *list.Element) {
	if k, ok := c.order.Remove(e).(*conn); ok {
		delete(c.known, k.Conn)
	}
}

func (c *conns) serving(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if e, ok := r.Context().Value(connKey{}).(*list.Element); ok {
			c.serve(e, 1)
			whole := false
			defer func() {
				c.serve(e, -1)
				if k, ok := e.Value.(*conn); ok && !whole && r.ProtoMajor == 1 {
					abort(raw(k.Conn)) // the client did not take its answer
				}
			}()
			next.ServeHTTP(w, r)
			whole = true
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (c *conns) serve(e *list.Element, more int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, ok := e.Value.(*conn); ok {
		k.serving += more
	}
}
