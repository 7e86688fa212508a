// SPDX-License-Identifier: Apache-2.0

//go:build linux

package system

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
)

// usage is the CPU time of this process or thread.
func usage(t *testing.T, who int) time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(who, &r); err != nil {
		t.Error(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// heap is what this process holds after a collection.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func descriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// churn makes and removes cgroups, each of them nested, and is told to stop.
type churn struct {
	done chan struct{}
	all  sync.WaitGroup
	made int
	cpu  time.Duration // of the thread that does it
}

func startChurn(t *testing.T, dir string, perSecond, depth int) *churn {
	c := &churn{done: make(chan struct{})}
	c.all.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		began, before := time.Now(), usage(t, unix.RUSAGE_THREAD)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-c.done:
				c.cpu = usage(t, unix.RUSAGE_THREAD) - before
				return
			case <-tick.C:
			}
			for due := int(time.Since(began).Seconds() * float64(perSecond)); c.made < due; c.made += depth {
				if err := nest(dir, fmt.Sprintf("%s%d", oomtest.ContainerID("churn")[:40], c.made), depth); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	return c
}

func nest(dir, name string, depth int) error {
	for i := range depth {
		dir = filepath.Join(dir, name)
		if i > 0 {
			dir += fmt.Sprint(i)
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	for range depth {
		if err := syscall.Rmdir(dir); err != nil {
			return err
		}
		dir = filepath.Dir(dir)
	}
	return nil
}

func (c *churn) stop() {
	close(c.done)
	c.all.Wait()
}

// TestHostile_CgroupsComeAndGo: a thousand cgroups come and go each second,
// and kills in others are told as ever.
func TestHostile_CgroupsComeAndGo(t *testing.T) {
	duration, kills := 3*time.Second, 2
	if long() {
		duration, kills = 20*time.Second, 12
	}
	for _, depth := range []int{1, 8} {
		t.Run(fmt.Sprint("depth ", depth), func(t *testing.T) {
			r := start(t, everything)
			before := nodeKills(t)
			tree := oomtest.New(t)
			yard := tree.Cgroup("docker")
			memory, cpu, began := heap(), usage(t, unix.RUSAGE_SELF), time.Now()
			rate := 1000
			if testing.Short() { // an emulated machine
				rate = 100
			}
			c := startChurn(t, yard.Dir, rate, depth)
			for i := range kills {
				waitFor(t, time.Until(began.Add(duration*time.Duration(i+1)/time.Duration(kills+1))))
				box := tree.Cgroup("docker/"+oomtest.ContainerID(fmt.Sprint("stays", depth, i)), oomtest.Limit(48*mib))
				p, _ := box.Run(oomtest.Load{Comm: []byte("stays")})
				if i%2 == 1 {
					box.Remove()
				}
				r.one(box.Path, func(d *death.Death) error {
					return all(is("cause", d.Cause, death.OOMContainerLimit), is("pids", fmt.Sprint(pidsOf(d, death.FateVictim)), fmt.Sprint([]int{p.PID})))
				})
			}
			waitFor(t, time.Until(began.Add(duration)))
			c.stop()
			took := time.Since(began)
			agent := usage(t, unix.RUSAGE_SELF) - cpu - c.cpu
			t.Logf("%d cgroups came and went in %s; the agent (and this test's client) took %.1f %% of a core, memory grew by %d KiB",
				c.made, took.Round(time.Millisecond), 100*agent.Seconds()/took.Seconds(), (heap()-memory)>>10)
			if limit := 0.6; !testing.Short() && agent.Seconds()/took.Seconds() > limit {
				t.Errorf("the agent took %s of CPU in %s", agent, took)
			}
			if grown := heap() - memory; grown > 64<<20 {
				t.Errorf("memory grew by %d bytes", grown)
			}
			r.balanced(before)
		})
	}
}

func waitFor(t *testing.T, d time.Duration) {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// crowd makes n cgroups below dir, a hundred in each of those in between, and
// removes them with the test.
func crowd(t *testing.T, dir string, n int) {
	t.Helper()
	var made []string
	t.Cleanup(func() {
		for i := len(made) - 1; i >= 0; i-- {
			if err := syscall.Rmdir(made[i]); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("remove %s: %v", made[i], err)
				return
			}
		}
	})
	mkdir := func(path string) {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		made = append(made, path)
	}
	free := available(t)
	parent := ""
	for i := 0; len(made) < n; i++ {
		if i%100 == 0 {
			parent = filepath.Join(dir, fmt.Sprint("group", i/100))
			mkdir(parent)
			if left := available(t); left < 5<<30 && !testing.Short() {
				t.Fatalf("%d cgroups took %d MiB: too little memory is left", len(made), (free-left)>>20)
			}
		}
		mkdir(filepath.Join(parent, oomtest.ContainerID(fmt.Sprint("crowd", i))))
	}
	t.Logf("%d cgroups took the kernel %d MiB", len(made), (free-available(t))>>20)
}

// available is MemAvailable.
func available(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	t.Fatal("no MemAvailable")
	return 0
}

// TestHostile_ManyCgroups: the agent starts, rests and finds a kill among
// more cgroups than any machine has.
func TestHostile_ManyCgroups(t *testing.T) {
	n := 10_000
	switch {
	case testing.Short(): // an emulated machine
		n = 500
	case long():
		n = 60_000 // the kernel has ids for 65,535 memory cgroups (MEM_CGROUP_ID_MAX)
	}
	oomtest.Require(t, oomtest.RealKills)
	tree := oomtest.New(t)
	yard := tree.Cgroup("docker")
	crowd(t, yard.Dir, n)
	memory, files := heap(), descriptors(t)
	began := time.Now()
	r := start(t, everything)
	up := time.Since(began)
	grown, opened := heap()-memory, descriptors(t)-files

	waitFor(t, 2*time.Second)
	cpu, rest := usage(t, unix.RUSAGE_SELF), time.Now()
	waitFor(t, 5*time.Second)
	atRest := (usage(t, unix.RUSAGE_SELF) - cpu).Seconds() / time.Since(rest).Seconds()

	box := tree.Cgroup("docker/"+oomtest.ContainerID("the one"), oomtest.Limit(48*mib))
	began = time.Now()
	p, _ := box.Run(oomtest.Load{Comm: []byte("the one")})
	r.one(box.Path, func(d *death.Death) error {
		return all(is("cause", d.Cause, death.OOMContainerLimit), is("pids", fmt.Sprint(pidsOf(d, death.FateVictim)), fmt.Sprint([]int{p.PID})))
	})
	t.Logf("%d cgroups: up after %s, %d MiB, %d descriptors, %.1f %% of a core at rest, a kill told within %s",
		n, up.Round(time.Millisecond), grown>>20, opened, 100*atRest, time.Since(began).Round(time.Millisecond))
	if !testing.Short() && up > 10*time.Second+time.Duration(n)*200*time.Microsecond {
		t.Errorf("up only after %s", up)
	}
	if most := int64(32<<20) + int64(n)*3000; grown > most {
		t.Errorf("holds %d bytes, want at most %d", grown, most)
	}
	if opened > 2300+3100 { // the counters', and the recorder's
		t.Errorf("%d descriptors", opened)
	}
	if atRest > 0.2 && !testing.Short() {
		t.Errorf("%.1f %% of a core at rest", 100*atRest)
	}
}

// TestHostile_Signals: loops of kill(2), and processes that are made to be
// killed as fast as the machine makes them, hide no OOM kill.
func TestHostile_Signals(t *testing.T) {
	duration, kills := 4*time.Second, 3
	if long() {
		duration, kills = time.Minute, 20
	}
	for _, mode := range []string{"bpf", "tracefs"} {
		t.Run(mode, func(t *testing.T) {
			r := start(t, func(o *agent.Options) { o.Source.TracepointMode = mode })
			before := nodeKills(t)
			tree := oomtest.New(t)
			corpse := deadChild(t)
			s := startSignals(t, corpse)
			cpu, began := usage(t, unix.RUSAGE_SELF), time.Now()
			for i := range kills {
				waitFor(t, time.Until(began.Add(duration*time.Duration(i+1)/time.Duration(kills+1))))
				box := tree.Cgroup("docker/"+oomtest.ContainerID(fmt.Sprint("drowned", mode, i)), oomtest.Limit(48*mib))
				p, _ := box.Run(oomtest.Load{Comm: []byte("drowned")})
				r.poll(func() error { return placed(r, []*oomtest.Cgroup{box}, []*oomtest.Process{p}, mode == "tracefs") })
			}
			waitFor(t, time.Until(began.Add(duration)))
			took := time.Since(began)
			s.stop()
			agent := usage(t, unix.RUSAGE_SELF) - cpu - s.cpu
			t.Logf("%.0f signals and %.0f killed processes a second; the agent (and this test's client) took %.1f %% of a core",
				float64(s.signals.Load())/took.Seconds(), float64(s.killed.Load())/took.Seconds(), 100*agent.Seconds()/took.Seconds())
			if n, _ := r.metric(`coroner_source_lost_oom_evidence_total{source="tracepoint"}`); n != 0 {
				t.Errorf("%v signals lost that may tell of an OOM kill", n)
			}
			r.balanced(before)
		})
	}
}

// deadChild is a process that has ended and is not reaped: it takes any
// number of signals.
func deadChild(t *testing.T) int {
	t.Helper()
	c := exec.Command("/proc/self/exe", "-test.run=^$")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Wait() })
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, c.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	return c.Process.Pid
}

// signals are threads that signal as fast as they can.
type signals struct {
	quit            atomic.Bool
	all             sync.WaitGroup
	signals, killed atomic.Int64
	mu              sync.Mutex
	cpu             time.Duration
}

func startSignals(t *testing.T, corpse int) *signals {
	s := &signals{}
	loop := func(count *atomic.Int64, send func() error) {
		s.all.Go(func() {
			runtime.LockOSThread()
			before := usage(t, unix.RUSAGE_THREAD)
			for !s.quit.Load() {
				if err := send(); err != nil {
					t.Error(err)
					return
				}
				count.Add(1)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.cpu += usage(t, unix.RUSAGE_THREAD) - before
		})
	}
	loop(&s.signals, func() error { return unix.Kill(corpse, unix.SIGKILL) })
	loop(&s.signals, func() error { return unix.Tgkill(corpse, corpse, unix.SIGKILL) })
	loop(&s.signals, func() error { return unix.Kill(corpse, unix.SIGTERM) })
	loop(&s.signals, func() error { return unix.Kill(corpse, 0) })
	loop(&s.killed, forkAndKill)
	return s
}

func (s *signals) stop() {
	s.quit.Store(true)
	s.all.Wait()
}

// forkAndKill makes a process, kills and reaps it.
func forkAndKill() error {
	pid, errno := forkAndPause()
	if errno != 0 {
		return errno
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return err
	}
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// forkAndPause makes a process that waits for its end. It is a copy of the
// calling thread alone, so it may not run any Go code.
//
//go:nosplit
//go:norace
func forkAndPause() (int, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	for errno == 0 && pid == 0 {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
	return int(pid), errno
}
