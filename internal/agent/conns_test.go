// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
)

// TestConns_TheQuietOnesGo: over the bound those go that have been quiet for
// longest; those that are served and those that have just come stay.
func TestConns_TheQuietOnesGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConns(3, 5)
		var all []*ended
		open := func() context.Context {
			server, client := net.Pipe()
			_ = client.Close()
			e := &ended{Conn: server}
			all = append(all, e)
			ctx := c.opened(t.Context(), e)
			c.changed(e, http.StateNew)
			return ctx
		}
		want := func(step string, gone ...bool) {
			t.Helper()
			for i, g := range gone {
				if all[i].closed != g {
					t.Errorf("%s: connection %d closed %v, want %v", step, i, !g, g)
				}
			}
		}
		served := make(chan struct{})
		first := open()
		h := c.serving(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-served }))
		go h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(first, http.MethodGet, "/", nil))
		synctest.Wait()
		for range 4 {
			open()
		}
		want("all are young", false, false, false, false, false)
		open()
		want("one more than there may be", false, true, false, false, false, false)
		pause(t.Context(), 2*newsAge)
		c.changed(all[2], http.StateActive)
		open()
		want("the others are old", false, true, false, true, true, true, false)
		c.changed(all[2], http.StateClosed)
		close(served)
		synctest.Wait()
		pause(t.Context(), 2*newsAge)
		open()
		open()
		want("the first is served no longer", true, true, false, true, true, true, false, false, false)
		if n := len(c.known); n != 3 || c.order.Len() != 3 {
			t.Errorf("%d connections are known, %d in order, want 3", n, c.order.Len())
		}
	})
}

// ended is a connection that knows whether it was closed.
type ended struct {
	net.Conn
	closed bool
}

func (e *ended) Close() error {
	e.closed = true
	return e.Conn.Close()
}

func TestConnBounds(t *testing.T) {
	for files, want := range map[uint64][2]int{1 << 60: {maxQuiet, maxConns}, 524288: {maxQuiet, maxConns}, 4096: {512, 1024}, 1024: {128, 256}, 0: {0, 0}} {
		if quiet, most := connBounds(files); quiet != want[0] || most != want[1] {
			t.Errorf("%d files: %d quiet, %d in all, want %v", files, quiet, most, want)
		}
	}
}
