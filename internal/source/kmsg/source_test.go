// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// fakeDevice is a log that a test writes.
type fakeDevice struct {
	mu       sync.Mutex
	queue    []any // string: a record; error: what read returns
	changed  chan struct{}
	deadline chan struct{}
	once     sync.Once
	closed   bool
}

func newFake(queue ...any) *fakeDevice {
	return &fakeDevice{queue: queue, changed: make(chan struct{}, 1), deadline: make(chan struct{})}
}

func (f *fakeDevice) write(queue ...any) {
	f.mu.Lock()
	f.queue = append(f.queue, queue...)
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

func (f *fakeDevice) take() any {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.queue) == 0 {
		return nil
	}
	x := f.queue[0]
	f.queue = f.queue[1:]
	return x
}

func (f *fakeDevice) Read(buf []byte, wait bool) (int, error) {
	for {
		select {
		case <-f.deadline:
			return 0, os.ErrDeadlineExceeded
		default:
		}
		switch x := f.take().(type) {
		case string:
			return copy(buf, x), nil
		case error:
			return 0, x
		}
		if !wait {
			return 0, errNoRecord
		}
		select {
		case <-f.deadline:
		case <-f.changed:
		}
	}
}

func (f *fakeDevice) SetReadDeadline(time.Time) error {
	f.once.Do(func() { close(f.deadline) })
	return nil
}

func (f *fakeDevice) Close() error { f.closed = true; return nil }

// boot is the wall time of stamp 0 in these tests; the agent starts 100 s later.
func boot() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) }

func killed(seq uint64, sec float64, pid int) string {
	return fmt.Sprintf("3,%d,%d,-;Memory cgroup out of memory: Killed process %d (x) total-vm:4kB, anon-rss:4kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:4kB oom_score_adj:0\n", seq, int64(sec*1e6), pid)
}

// running runs a source over dev until the test ends; its signals come out of
// the channel.
func running(t *testing.T, opts Options, dev *fakeDevice) (*Source, chan signal.Signal, func()) {
	t.Helper()
	opts.open = func(string) (device, error) { return dev, nil }
	if opts.now == nil {
		opts.now = func() time.Time { return boot().Add(100 * time.Second) }
	}
	opts.clock = func() (host.BootClock, error) { return host.NewBootClock(boot()), nil }
	s := New(opts)
	out := make(chan signal.Signal, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, func(s signal.Signal) { out <- s }) }()
	stop := sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v, want nil on cancellation", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("Run did not end on cancellation")
		}
		if !dev.closed {
			t.Error("device left open")
		}
	})
	t.Cleanup(stop)
	return s, out, stop
}

func next(t *testing.T, out chan signal.Signal) signal.Signal {
	t.Helper()
	select {
	case s := <-out:
		return s
	case <-time.After(5 * time.Second):
		t.Fatal("no signal within 5 s")
		return signal.Signal{}
	}
}

// brief says what matters of a signal.
func brief(s signal.Signal) string {
	switch b := s.Body.(type) {
	case signal.ReportedKill:
		return fmt.Sprintf("kill %d seq %d at %s recovered %v", b.Victim.PID, b.Seq, s.Time.Sub(boot()), s.Recovered)
	case signal.Lost:
		return fmt.Sprintf("lost %d", b.Count)
	case signal.SourceState:
		return fmt.Sprintf("up %v", b.Up)
	}
	return fmt.Sprintf("%T", s.Body)
}

func expect(t *testing.T, out chan signal.Signal, want ...string) {
	t.Helper()
	var got []string
	for range want {
		got = append(got, brief(next(t, out)))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("signals (-want +got):\n%s", diff)
	}
}

func TestRun_HistoryThenLive(t *testing.T) {
	dev := newFake(killed(500, 10, 1), killed(501, 20, 2))
	s, out, stop := running(t, Options{BootID: "b"}, dev)
	expect(t, out, "kill 1 seq 500 at 10s recovered true", "kill 2 seq 501 at 20s recovered true", "up true")
	dev.write(killed(502, 99.9, 3))
	expect(t, out, "kill 3 seq 502 at 1m39.9s recovered false")
	if s.Name() != death.SourceKmsg {
		t.Errorf("got name %q", s.Name())
	}
	stop()
}

func TestRun_CountsGapsExactly(t *testing.T) {
	dev := newFake(killed(500, 10, 1), killed(501, 11, 2), syscall.EPIPE, killed(700, 12, 3), syscall.EINVAL, killed(702, 13, 4), syscall.EINTR, killed(703, 14, 5))
	_, out, _ := running(t, Options{}, dev)
	expect(t, out, "kill 1 seq 500 at 10s recovered true", "kill 2 seq 501 at 11s recovered true",
		"lost 198", "kill 3 seq 700 at 12s recovered true", "lost 1", "kill 4 seq 702 at 13s recovered true",
		"kill 5 seq 703 at 14s recovered true", "up true")
}

func TestRun_BelievesOnlyFacility0(t *testing.T) {
	forged := func(seq int, prio int) string {
		return fmt.Sprintf("%d,%d,20000000,-;Out of memory: Killed process 666 (x) total-vm:4kB, anon-rss:4kB, file-rss:0kB\n", prio, seq)
	}
	dev := newFake(forged(1, 8+3), forged(2, 3<<3), forged(3, 3<<3|6), killed(4, 30, 7), "garbage", "3,5,1;no flags;\n")
	s, out, _ := running(t, Options{}, dev)
	expect(t, out, "kill 7 seq 4 at 30s recovered true", "up true")
	if got := s.Foreign(); got != 3 {
		t.Errorf("got %d foreign records, want 3", got)
	}
}

func TestRun_GoesOnBehindSince(t *testing.T) {
	log := func() *fakeDevice {
		return newFake(killed(500, 10, 1), killed(501, 20, 2), killed(502, 30, 3))
	}
	for _, tt := range []struct {
		name  string
		since Position
		want  []string
	}{
		{"same boot", Position{"b", 501}, []string{"kill 3 seq 502 at 30s recovered true", "up true"}},
		{"all read", Position{"b", 502}, []string{"up true"}},
		{"another boot", Position{"a", 501}, []string{"kill 1 seq 500 at 10s recovered true", "kill 2 seq 501 at 20s recovered true", "kill 3 seq 502 at 30s recovered true", "up true"}},
		{"overrun since", Position{"b", 400}, []string{"lost 99", "kill 1 seq 500 at 10s recovered true", "kill 2 seq 501 at 20s recovered true", "kill 3 seq 502 at 30s recovered true", "up true"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, out, _ := running(t, Options{BootID: "b", Since: tt.since}, log())
			expect(t, out, tt.want...)
		})
	}
}

// A report can begin before the place where an earlier run stopped.
func TestRun_KeepsContextFromBeforeSince(t *testing.T) {
	dev := newFake(
		"4,1,10000000,-;java invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n",
		"6,2,10000001,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a/b,task=x,pid=9,uid=0\n",
		killed(3, 10.1, 9))
	_, out, _ := running(t, Options{BootID: "b", Since: Position{"b", 2}}, dev)
	s := next(t, out)
	k, ok := s.Body.(signal.ReportedKill)
	if !ok || k.OOM == nil || k.OOM.OOMMemcg != "/a" || k.OOM.TaskMemcg != "/a/b" || k.OOM.Trigger.Comm != "java" || k.BootID != "b" {
		t.Errorf("got %+v", s.Body)
	}
}

func TestRun_AgainAfterFailure(t *testing.T) {
	broken := errors.New("device pulled out")
	first := newFake(killed(1, 10, 1), broken)
	second := newFake(killed(1, 10, 1), killed(2, 20, 2), killed(5, 30, 3))
	devs := []*fakeDevice{first, second}
	s := New(Options{
		now:   func() time.Time { return boot().Add(100 * time.Second) },
		clock: func() (host.BootClock, error) { return host.NewBootClock(boot()), nil },
		open: func(string) (device, error) {
			d := devs[0]
			devs = devs[1:]
			return d, nil
		},
	})
	var got []string
	var reports []uint64
	ctx, cancel := context.WithCancel(t.Context())
	emit := func(s signal.Signal) {
		got = append(got, brief(s))
		if k, ok := s.Body.(signal.ReportedKill); ok {
			reports = append(reports, k.Report)
		}
		if len(got) == 6 {
			cancel()
		}
	}
	if err := s.Run(ctx, emit); !errors.Is(err, broken) {
		t.Fatalf("got %v, want the device's error", err)
	}
	if err := s.Run(ctx, emit); err != nil {
		t.Fatal(err)
	}
	want := []string{"kill 1 seq 1 at 10s recovered true", "up false", "kill 2 seq 2 at 20s recovered true", "lost 2", "kill 3 seq 5 at 30s recovered true", "up true"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("signals (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]uint64{1, 2, 3}, reports); diff != "" {
		t.Errorf("numbers of reports (-want +got):\n%s", diff)
	}
}

func TestRun_EmptyReadIsAnError(t *testing.T) {
	s := New(Options{open: func(string) (device, error) { return newFake(""), nil }})
	if err := s.Run(t.Context(), func(signal.Signal) {}); err == nil {
		t.Error("got no error")
	}
}

func TestRun_SaysWhatIsMissing(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fs.ErrNotExist, "--device /dev/kmsg"},
		{syscall.EPERM, "CAP_SYSLOG"},
		{syscall.EACCES, "dmesg_restrict"},
		{syscall.EIO, "input/output error"},
	} {
		s := New(Options{open: func(path string) (device, error) {
			return nil, &fs.PathError{Op: "open", Path: path, Err: tt.err}
		}})
		var state signal.SourceState
		err := s.Run(t.Context(), func(s signal.Signal) { state = s.Body.(signal.SourceState) })
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "/dev/kmsg") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: got %v, want %q in it", tt.err, err, tt.want)
		}
		if state.Up || state.Reason != err.Error() {
			t.Errorf("%v: got state %+v", tt.err, state)
		}
	}
}

func TestClock_LearnsFromLiveRecords(t *testing.T) {
	c := clock{zero: host.NewBootClock(boot())}
	now := boot().Add(100 * time.Second)
	c.learn(99*time.Second, now, false)
	if got := c.wall(99*time.Second, now); !got.Equal(boot().Add(99 * time.Second)) {
		t.Errorf("a record of the past moved the clock: %v", got.Sub(boot()))
	}
	c.learn(103*time.Second, now, false)
	if got := c.wall(103*time.Second, now); !got.Equal(now) {
		t.Errorf("got %v, want now: no record is from the future", got.Sub(boot()))
	}
	c.learn(95*time.Second, now, true)
	if got := c.wall(95*time.Second, now); !got.Equal(now) {
		t.Errorf("got %v, want now: it was waited for", got.Sub(boot()))
	}
	if got := (&clock{}).wall(time.Second, now); !got.Equal(now) {
		t.Errorf("got %v without a clock, want now", got)
	}
}

// A device that gives nothing but rubbish is given up, with its name.
func TestRun_NotAKernelLog(t *testing.T) {
	rubbish := make([]any, maxMalformed)
	for i := range rubbish {
		rubbish[i] = "\x00\x00\x00"
	}
	dev := newFake(rubbish...)
	s := New(Options{Path: "/dev/other", open: func(string) (device, error) { return dev, nil }})
	var got []signal.Signal
	err := s.Run(t.Context(), func(s signal.Signal) { got = append(got, s) })
	if err == nil || err.Error() != "read /dev/other: not a kernel log" || !dev.closed {
		t.Errorf("got %v (closed: %v), want that the device is no kernel log", err, dev.closed)
	}
	if len(got) != 1 || got[0].Body != (signal.SourceState{Reason: "read /dev/other: not a kernel log"}) {
		t.Errorf("got %+v, want that the source is down", got)
	}
}

// Single malformed records do not end it.
func TestRun_MalformedRecordsBetweenGoodOnes(t *testing.T) {
	var queue []any
	for i := range 3 {
		for range maxMalformed - 1 {
			queue = append(queue, "rubbish")
		}
		queue = append(queue, killed(uint64(i+1), float64(i+1), 50+i))
	}
	_, out, stop := running(t, Options{}, newFake(queue...))
	defer stop()
	for i := range 3 {
		if k, ok := (<-out).Body.(signal.ReportedKill); !ok || k.Victim.PID != 50+i {
			t.Fatalf("signal %d: got %+v", i, k)
		}
	}
}
