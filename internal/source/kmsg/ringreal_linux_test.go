// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/oomtest"
	"github.com/coroner-dev/coroner/internal/signal"
)

// logged is what a source has told, while it goes on.
type logged struct {
	mu    sync.Mutex
	kills map[int]int // by pid: how often
	limit map[int]string
	comm  map[int]string
	lost  uint64
	mode  string
}

func (l *logged) take(s signal.Signal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch b := s.Body.(type) {
	case signal.SourceState:
		l.mode = b.Mode
	case signal.Lost:
		l.lost += b.Count
	case signal.ReportedKill:
		if !b.Again {
			l.kills[b.Victim.PID]++
			l.comm[b.Victim.PID] = b.Victim.Comm
		}
		if b.OOM != nil {
			l.limit[b.Victim.PID] = b.OOM.OOMMemcg
		}
	}
}

// look gives f the present state.
func (l *logged) look(f func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return f()
}

// With CAP_SYSLOG alone and no device: a real kill with whose limit it was and
// a name with a line end in it, and a storm, of which each kill is told once.
func TestRing_Real(t *testing.T) {
	oomtest.Require(t, oomtest.RealKills)
	s := New(Options{Path: filepath.Join(t.TempDir(), "kmsg"), Syslog: true, Roots: host.Roots{}})
	l := &logged{kills: map[int]int{}, limit: map[int]string{}, comm: map[int]string{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		if err := host.WithCapabilities(host.CapSyslog, func() { done <- s.Run(ctx, l.take) }); err != nil {
			done <- err
		}
	}()
	until(t, l, func() error {
		if l.mode != "syslog" {
			return fmt.Errorf("mode %q", l.mode)
		}
		return nil
	})
	const forged = 4194303
	forge(t, forged)
	tree := oomtest.New(t)
	box := tree.Cgroup("box", oomtest.Limit(32<<20))
	p, _ := box.Run(oomtest.Load{Comm: []byte("a),b=c\n,d")})
	boxes := []*oomtest.Cgroup{tree.Cgroup("s0", oomtest.Limit(8<<20)), tree.Cgroup("s1", oomtest.Limit(8<<20))}
	storm := oomtest.StartStorm(t, boxes, 100, 5*time.Millisecond)
	storm.Wait()
	want := []int{p.PID}
	for i := range boxes {
		want = append(want, storm.PIDs(i)...)
	}
	if len(want) < 150 {
		t.Fatalf("the storm killed %d", len(want))
	}
	until(t, l, func() error {
		for _, pid := range want {
			if l.kills[pid] == 0 {
				return fmt.Errorf("%d was killed, and is not told", pid)
			}
		}
		return nil
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, pid := range want {
		if l.kills[pid] != 1 {
			t.Errorf("%d is told %d times", pid, l.kills[pid])
		}
	}
	if l.kills[forged] > 0 {
		t.Error("a forged line was believed")
	}
	if l.lost > 0 {
		t.Errorf("%d lost", l.lost)
	}
	if got, ok := l.limit[p.PID]; ok && got != box.Path { // the rate limit may have taken it
		t.Errorf("a limit of %q, want %q", got, box.Path)
	}
	if got := l.comm[p.PID]; got != "a),b=c\n,d" {
		t.Errorf("its name is %q", got)
	}
	t.Logf("%d kills, of %d whose limit it was", len(want), len(l.limit))
}

func until(t *testing.T, l *logged, f func() error) {
	t.Helper()
	if err := oomtest.Poll(20*time.Second, func() error { return l.look(f) }); err != nil {
		t.Fatal(err)
	}
}

// What the source costs at rest, for docs/benchmarks.md.
func BenchmarkRing_Rest(b *testing.B) {
	log, err := openRing()
	if err != nil {
		b.Skip(err)
	}
	f := make([]byte, ringFirst)
	for b.Loop() {
		if _, err := log.ReadAll(f); err != nil {
			b.Fatal(err)
		}
	}
}
