// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// places bound how many requests are worked on at once. Those that wait for a
// place get it address by address, in turn, and no address has all of them: so
// a client that asks much keeps nobody out who asks from elsewhere. Within an
// address each connection may have one request that waits, first come, first
// served.
type places struct {
	n, most int // worked on and waiting, at most

	mu    sync.Mutex
	busy  int
	held  map[string]int      // places by address
	line  map[string][]*guest // who waits, by address
	turn  []string            // the addresses of line, the next one first
	total int                 // of line
	here  map[string]bool     // connections in line
}

// guest is a request that waits. It hears once: whether it got a place.
type guest struct {
	from, conn string
	called     chan bool
}

func newPlaces(n, waiting int) *places {
	return &places{n: n, most: waiting, held: map[string]int{}, line: map[string][]*guest{}, here: map[string]bool{}}
}

// origin is whose share a connection takes: its address, or the network of 64
// bits of which a host with IPv6 may have all addresses.
func origin(remote string) string {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	a := ap.Addr().Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}

// free tells whether an address may have one more place now.
func (p *places) free(from string) bool {
	return p.busy < p.n && p.held[from] < max(1, p.n-1)
}

// enter waits for a place, and tells whether there was one.
func (p *places) enter(ctx context.Context, remote string) bool {
	g := &guest{from: origin(remote), conn: remote, called: make(chan bool, 1)}
	p.mu.Lock()
	if p.free(g.from) {
		p.take(g.from)
		p.mu.Unlock()
		return true
	}
	if p.here[g.conn] || p.total >= p.most && !p.makeRoom(g.from) {
		p.mu.Unlock()
		return false
	}
	if len(p.line[g.from]) == 0 {
		p.turn = append(p.turn, g.from)
	}
	p.line[g.from] = append(p.line[g.from], g)
	p.here[g.conn] = true
	p.total++
	p.mu.Unlock()

	patience := time.NewTimer(maxWait)
	defer patience.Stop()
	select {
	case ok := <-g.called:
		return ok
	case <-patience.C:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case ok := <-g.called: // just now
		return ok
	default:
		p.drop(g)
		return false
	}
}

func (p *places) take(from string) {
	p.busy++
	p.held[from]++
}

// drop takes a request out of the line.
func (p *places) drop(g *guest) {
	l := p.line[g.from]
	i := slices.Index(l, g)
	if i < 0 {
		return
	}
	p.total--
	delete(p.here, g.conn)
	if l = slices.Delete(l, i, i+1); len(l) > 0 {
		p.line[g.from] = l
		return
	}
	delete(p.line, g.from)
	p.turn = slices.DeleteFunc(p.turn, func(a string) bool { return a == g.from })
}

// makeRoom sends the last one of the address away that has the most in line,
// if that is more than this one would have.
func (p *places) makeRoom(from string) bool {
	most := from
	for a, l := range p.line {
		if len(l) > len(p.line[most]) {
			most = a
		}
	}
	l := p.line[most]
	if len(l) <= len(p.line[from])+1 {
		return false
	}
	last := l[len(l)-1]
	p.drop(last)
	last.called <- false
	return true
}

// leave gives the place back after a request that took so long.
func (p *places) leave(remote string, took time.Duration) {
	if took < time.Millisecond {
		p.vacate(origin(remote))
		return
	}
	time.AfterFunc(min(took, maxRest), func() { p.vacate(origin(remote)) })
}

// vacate frees a place, and calls those whose turn it is.
func (p *places) vacate(from string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy--
	if p.held[from]--; p.held[from] == 0 {
		delete(p.held, from)
	}
	for {
		i := slices.IndexFunc(p.turn, p.free)
		if i < 0 {
			return
		}
		next := p.turn[i]
		g := p.line[next][0]
		p.turn = append(slices.Delete(p.turn, i, i+1), next)
		p.drop(g)
		p.take(next)
		g.called <- true
	}
}
