// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// forkAndPause makes a process that does nothing but wait for its end. It is
// a copy of the calling thread alone, so it may not run any Go code.
//
//go:nosplit
//go:norace
func forkAndPause() (int, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	for errno == 0 && pid == 0 {
		syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
	return int(pid), errno
}

// forkAndKill is one SIGKILL that ends a process: the most that a process can
// make the source tell.
func forkAndKill(t testing.TB) {
	pid, errno := forkAndPause()
	if errno != 0 {
		t.Errorf("fork: %v", errno)
		return
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("kill: %v", err)
	}
	for {
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != syscall.EINTR {
			return
		}
	}
}

// gated counts what a source tells that nobody reads until gate is closed.
type gated struct {
	gate, up chan struct{}
	self     int

	mu                   sync.Mutex
	told                 int // SIGKILLs of this process for others
	lost, lostOther      uint64
	kernelKilled, marked map[int]bool
}

func newGated() *gated {
	return &gated{
		gate: make(chan struct{}), up: make(chan struct{}), self: os.Getpid(),
		kernelKilled: map[int]bool{}, marked: map[int]bool{},
	}
}

func (g *gated) emit(s signal.Signal) {
	if st, ok := s.Body.(signal.SourceState); ok {
		if st.Up {
			close(g.up)
			<-g.gate
		}
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch b := s.Body.(type) {
	case signal.Kill:
		switch {
		case b.Code == signal.CodeKernel:
			g.kernelKilled[b.Target.PID] = true
		case b.Sender.PID == g.self || b.Sender.PID == 0 && b.Sender.TID != 0:
			g.told++
		}
	case signal.MarkVictim:
		g.marked[b.Victim.PID] = true
	case signal.Lost:
		if b.Other {
			g.lostOther += b.Count
		} else {
			g.lost += b.Count
		}
	}
}

// TestRun_CountsWhatItLoses lets nobody read while more SIGKILLs end processes
// than either buffer holds, and OOM kills come last: what was told and what
// was lost make the whole, and of the OOM killer's nothing is lost.
func TestRun_CountsWhatItLoses(t *testing.T) {
	sent, victims := 4200, 8
	if testing.Short() { // an emulated machine takes too long to fill a buffer
		sent, victims = 300, 3
	}
	for _, mode := range []string{ModeBPF, ModeTracefs} {
		t.Run(mode, func(t *testing.T) {
			needRoot(t)
			tree := newTree(t)
			g := newGated()
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- New(Options{Mode: mode}).Run(ctx, g.emit) }()
			<-g.up
			for range sent {
				forkAndKill(t)
			}
			var pids []int
			for i := range victims {
				leaf := tree.child("victim"+strconv.Itoa(i), limit)
				t.Cleanup(leaf.remove)
				p := start(t, leaf, "leak", "victim", nil)
				p.word()
				if sig := p.end(); sig != syscall.SIGKILL {
					t.Fatalf("load ended by %v", sig)
				}
				pids = append(pids, p.pid())
			}
			close(g.gate)
			whole := func() bool {
				g.mu.Lock()
				defer g.mu.Unlock()
				for _, pid := range pids {
					if !g.marked[pid] && g.lost == 0 {
						return false
					}
				}
				return g.told+int(g.lostOther) >= sent
			}
			poll(t, "all is told or counted as lost", whole)
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			g.mu.Lock()
			defer g.mu.Unlock()
			// Others on this machine may kill, too.
			if sum := g.told + int(g.lostOther); sum > sent+100 || g.lostOther == 0 && !testing.Short() || g.lost != 0 {
				t.Errorf("told %d, lost %d of others and %d besides, want %d, some of them lost, and 0", g.told, g.lostOther, g.lost, sent)
			}
			for _, pid := range pids {
				if !g.kernelKilled[pid] || !g.marked[pid] {
					t.Errorf("OOM victim %d: told killed %v, marked %v", pid, g.kernelKilled[pid], g.marked[pid])
				}
			}
			t.Logf("told %d, lost %d of others", g.told, g.lostOther)
		})
	}
}

// TestRun_SignalsThatSayNothing: loops of kill(2) as fast as the machine
// goes make no record at all, and hide no OOM kill.
func TestRun_SignalsThatSayNothing(t *testing.T) {
	eachMode(t, func(t *testing.T, w *watch, tree group) {
		stay := tree.child("corpse", 0)
		t.Cleanup(stay.remove)
		// Dead and not reaped: it takes any number of signals.
		corpse := start(t, stay, "exit3", "corpse", nil)
		corpse.word()
		poll(t, "the corpse is dead", func() bool {
			b, _ := os.ReadFile("/proc/" + strconv.Itoa(corpse.pid()) + "/stat")
			return len(b) > 0 && !host.Alive(b)
		})
		storm := newStorm(corpse.pid())
		leaf := tree.child("victim", limit)
		t.Cleanup(leaf.remove)
		p := start(t, leaf, "leak", "victim", nil)
		began := time.Now()
		poll(t, "the storm is a storm", func() bool { return storm.sent.Load() > 200_000 })
		p.word()
		p.end()
		w.mark(p.pid())
		took := time.Since(began)
		sent := storm.stop()
		told := 0
		for _, s := range w.all() {
			switch b := s.Body.(type) {
			case signal.Kill:
				if b.Target.TID == corpse.pid() {
					told++
				}
			case signal.Lost:
				t.Errorf("lost %+v", b)
			}
		}
		if told > 2 { // older kernels take the first for the process and the first for its thread
			t.Errorf("%d signals to a dead process were told, want 2 at most", told)
		}
		t.Logf("%d signals in %s: %.0f a second", sent, took, float64(sent)/took.Seconds())
		corpse.end()
	})
}

// storm is threads that signal as fast as they can.
type storm struct {
	sent atomic.Int64
	quit atomic.Bool
	all  sync.WaitGroup
}

func newStorm(corpse int) *storm {
	s := &storm{}
	self := syscall.Getpid()
	for _, send := range []func() error{
		func() error { return syscall.Kill(corpse, syscall.SIGKILL) },
		func() error { return syscall.Kill(corpse, syscall.SIGTERM) },
		func() error { return unix.Tgkill(corpse, corpse, syscall.SIGKILL) },
		func() error { return unix.Tgkill(self, self, 0) },
		func() error { return syscall.Kill(self, syscall.SIGURG) }, // the runtime does not mind
	} {
		s.all.Go(func() {
			runtime.LockOSThread()
			for !s.quit.Load() {
				if send() == nil {
					s.sent.Add(1)
				}
			}
		})
	}
	return s
}

func (s *storm) stop() int64 {
	s.quit.Store(true)
	s.all.Wait()
	return s.sent.Load()
}
