// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// fakeRing is a log that a test writes, and a count of kills.
type fakeRing struct {
	mu       sync.Mutex
	size     int // of what is kept
	text     string
	kills    uint64
	noCount  bool
	readings int
	err      error
}

func (f *fakeRing) write(lines ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.text += strings.Join(lines, "\n") + "\n"
	for f.size > 0 && len(f.text) > f.size {
		f.text = f.text[strings.IndexByte(f.text, '\n')+1:]
	}
}

func (f *fakeRing) Size() (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return max(f.size, len(f.text)), f.err
}

// set changes what it is like.
func (f *fakeRing) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// count counts kills.
func (f *fakeRing) count(n uint64) { f.set(func() { f.kills += n }) }

func (f *fakeRing) ReadAll(buf []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readings++
	text := []byte(f.text)
	for len(text) > len(buf) {
		text = text[bytes.IndexByte(text, '\n')+1:]
	}
	return copy(buf, text), f.err
}

func (f *fakeRing) OOMKills() (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.noCount {
		return 0, host.ErrNotSupported
	}
	return f.kills, nil
}

func (f *fakeRing) Close() error { return nil }

// ringOptions are those of a source that has no device, but f.
func (f *fakeRing) options() Options {
	began := time.Now()
	return Options{
		BootID: "b", Syslog: true,
		open:  func(string) (device, error) { return nil, fs.ErrNotExist },
		ring:  func() (ring, error) { return f, nil },
		kills: func() (counter, error) { return f, nil },
		now:   func() time.Time { return boot().Add(100 * time.Second).Add(time.Since(began)) },
		clock: func() (host.BootClock, error) { return host.NewBootClock(boot()), nil },
	}
}

// ringKill is a line as syslog(2) gives it.
func ringKill(sec float64, pid int) string {
	_, text, _ := strings.Cut(killed(0, 0, pid), ";")
	return fmt.Sprintf("<3>[%12.6f] %s", sec, strings.TrimSpace(text))
}

// pass lets time pass, and all that is due then.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// ringRun runs s in a bubble; steps run between its ticks. What it told comes back.
func ringRun(t *testing.T, s *Source, want error, steps ...func()) (got []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, func(s signal.Signal) { got = append(got, brief(s)) }) }()
	synctest.Wait()
	for _, step := range steps {
		step()
		synctest.Wait()
	}
	cancel()
	if err := <-done; !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
	for i := range got {
		got[i] = strings.ReplaceAll(got[i], fmt.Sprint(uint64(stampBit)), "")
	}
	return got
}

func at(sec float64) uint64 { return stampSeq(time.Duration(sec * 1e9)) }

func checkTold(t *testing.T, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("signals (-want +got):\n%s", diff)
	}
}

func ringTold(sec float64, pid int, recovered bool) string {
	return fmt.Sprintf("kill %d seq %d at %s recovered %v", pid, at(sec), time.Duration(sec*1e9), recovered)
}

func TestRing_HistoryThenLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeRing{}
		f.write(ringKill(10, 1), "<6>[   20.000000] eth0: up", ringKill(20, 2))
		s := New(f.options())
		got := ringRun(t, s, nil, func() {
			pass(time.Second)
			f.write(ringKill(100.5, 3), ringKill(100.5, 4), "<27>[  100.500000] Out of memory: Killed process 666 (x) total-vm:4kB, anon-rss:4kB, file-rss:0kB")
			f.count(2)
			pass(time.Second)
		})
		checkTold(t, got, ringTold(10, 1, true), ringTold(20, 2, true), "up true", ringTold(100.5, 3, false), ringTold(100.5, 4, false))
		if s.Foreign() != 1 {
			t.Errorf("%d foreign records", s.Foreign())
		}
	})
}

// Without a kill the log is read every ten seconds; where the kernel does not
// count, each second; and once more after a kill, of which the kernel may
// write later than it counts.
func TestRing_ReadsWhenTheKernelKills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeRing{}
		f.write("<6>[   20.000000] eth0: up")
		reads := func(d time.Duration) (n int) {
			f.set(func() { n = -f.readings })
			pass(d)
			f.set(func() { n += f.readings })
			return n
		}
		ringRun(t, New(f.options()), nil, func() {
			if n := reads(60 * time.Second); n < 5 || n > 7 {
				t.Errorf("%d readings in a quiet minute", n)
			}
			f.count(1)
			if n := reads(5 * time.Second); n != 2 && n != 3 {
				t.Errorf("%d readings after a kill", n)
			}
			f.set(func() { f.noCount = true })
			if n := reads(10 * time.Second); n != 10 {
				t.Errorf("%d readings in 10 s without a count", n)
			}
		})
	})
}

func TestRing_OverrunIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeRing{size: 4000}
		f.write(ringKill(10, 1))
		got := ringRun(t, New(f.options()), nil, func() {
			for i := range 40 {
				f.write(ringKill(100, 100+i))
			}
			f.count(40)
			pass(2 * time.Second)
		})
		if len(got) < 10 || got[2] != "lost 1" || got[len(got)-1] != ringTold(100, 139, false) {
			t.Errorf("got %v", got)
		}
		seen := map[string]bool{}
		for _, s := range got {
			if seen[s] {
				t.Errorf("%s: twice", s)
			}
			seen[s] = true
		}
	})
}

// More than one short reading holds was written since the last.
func TestRing_ALongWayBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeRing{size: 1 << 20}
		f.write(ringKill(10, 1))
		got := ringRun(t, New(f.options()), nil, func() {
			for i := range 1000 {
				f.write(ringKill(100+float64(i)/1e4, 100+i))
			}
			f.count(1000)
			pass(2 * time.Second)
		})
		if len(got) != 1002 || got[2] != ringTold(100, 100, false) {
			t.Errorf("%d signals, %v", len(got), got[:min(5, len(got))])
		}
	})
}

// Nothing is told twice after a restart, whichever way the log was read before.
func TestRing_GoesOnBehindSince(t *testing.T) {
	for name, tt := range map[string]struct {
		since Position
		want  []string
	}{
		"same boot":    {Position{"b", at(20)}, []string{ringTold(30, 3, true), "up true"}},
		"all read":     {Position{"b", at(30)}, []string{"up true"}},
		"another boot": {Position{"a", at(30)}, []string{ringTold(10, 1, true), ringTold(20, 2, true), ringTold(30, 3, true), "up true"}},
		"overrun":      {Position{"b", at(5)}, []string{"lost 1", ringTold(10, 1, true), ringTold(20, 2, true), ringTold(30, 3, true), "up true"}},
		"of a device":  {Position{"b", 501}, []string{ringTold(10, 1, true), ringTold(20, 2, true), ringTold(30, 3, true), "up true"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeRing{}
				f.write(ringKill(10, 1), ringKill(20, 2), ringKill(30, 3))
				o := f.options()
				o.Since = tt.since
				checkTold(t, ringRun(t, New(o), nil), tt.want...)
			})
		})
	}
}

// A device that comes later goes on where syslog(2) stopped, and the other way round.
func TestRing_ThenADevice(t *testing.T) {
	dev := newFake(killed(500, 10, 1), killed(501, 20, 2), killed(502, 30, 3))
	_, out, stop := running(t, Options{BootID: "b", Since: Position{"b", at(20)}}, dev)
	expect(t, out, "kill 3 seq 502 at 30s recovered true", "up true")
	stop()
}

func TestRing_AgainAfterFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeRing{}
		f.write(ringKill(10, 1))
		s := New(f.options())
		broken := errors.New("gone")
		got := ringRun(t, s, broken, func() { f.set(func() { f.err = broken }); pass(11 * time.Second) })
		checkTold(t, got, ringTold(10, 1, true), "up true", "up false")
		f.set(func() { f.err = nil })
		f.write(ringKill(105, 2))
		checkTold(t, ringRun(t, s, nil), ringTold(105, 2, false), "up true")
	})
}

func TestRing_WithoutStamps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeRing{}
		f.write("<6>a", "<6>b", "<3>Out of memory: Killed process 666 (x) total-vm:4kB, anon-rss:4kB, file-rss:0kB")
		checkTold(t, ringRun(t, New(f.options()), errNoStamps), "up false")
	})
}

// After weeks printk's clock is minutes behind: a kill that was counted just
// now did not happen then.
func TestRing_CorrectsTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeRing{}
		f.write("<6>[   20.000000] eth0: up")
		var last signal.Signal
		s := New(f.options())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, func(s signal.Signal) { last = s }) }()
		pass(1500 * time.Millisecond)
		f.write(ringKill(40, 7))
		f.count(1)
		pass(time.Second)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if age := last.Observed.Sub(last.Time); age < 0 || age > ringTick {
			t.Errorf("the kill is %v old", age)
		}
	})
}

// Without leave to read the log, the device's error says what to do.
func TestRing_NotAllowed(t *testing.T) {
	f := &fakeRing{}
	o := f.options()
	o.ring = func() (ring, error) { return nil, fs.ErrPermission }
	err := New(o).Run(t.Context(), func(signal.Signal) {})
	if err == nil || !strings.Contains(err.Error(), "add the capability SYSLOG") {
		t.Errorf("got %v", err)
	}
}
