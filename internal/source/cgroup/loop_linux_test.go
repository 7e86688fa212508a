// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/signal"
)

func TestBudget(t *testing.T) {
	now := time.Unix(0, 0)
	var s schedule
	s.begin(now, 1, time.Second, time.Second)
	taken := 0
	for s.budget.take(now) {
		taken++
	}
	if taken != budgetMost {
		t.Errorf("saved up: got %d, want %d", taken, budgetMost)
	}
	taken = 0
	for range 1000 {
		now = now.Add(time.Millisecond)
		if s.budget.take(now) {
			taken++
		}
	}
	if taken != 100 {
		t.Errorf("in a second: got %d, want 100", taken)
	}
	for range 10 {
		now = now.Add(time.Hour)
		s.budget.take(now)
	}
	if s.budget.saved > budgetMost*budgetGap {
		t.Errorf("saved %v, want at most %v", s.budget.saved, budgetMost*budgetGap)
	}
}

func TestSchedule_LooksAfterAWakeUp(t *testing.T) {
	start := time.Unix(100, 0)
	var s schedule
	s.begin(start, 1, time.Hour, time.Hour)
	s.woken(start)
	var looks []time.Duration
	for now := start; now.Before(start.Add(time.Second)); now = now.Add(100 * time.Microsecond) {
		if s.lookDue(now) {
			looks = append(looks, now.Sub(start))
		}
	}
	const ms = time.Millisecond
	want := []time.Duration{0, 1 * ms, 2 * ms, 3 * ms, 4 * ms, 5 * ms, 6 * ms, 7 * ms, 8 * ms, 9 * ms, 10 * ms, 11 * ms, 12 * ms, 22 * ms, 32 * ms, 42 * ms, 52 * ms}
	if diff := cmp.Diff(want, looks); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestSchedule_LooksAfterAWakeUpOfV2(t *testing.T) {
	start := time.Unix(100, 0)
	var s schedule
	s.begin(start, 2, time.Hour, time.Hour)
	s.woken(start)
	var looks []time.Duration
	for now := start; now.Before(start.Add(time.Second)); now = now.Add(time.Millisecond) {
		if s.lookDue(now) {
			looks = append(looks, now.Sub(start))
		}
	}
	if diff := cmp.Diff([]time.Duration{0, budgetGap}, looks); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if !s.countWanted || !s.countAt.Equal(start.Add(quietGap)) {
		t.Errorf("count wanted %v in %v, want in %v: a limit may be reached without a kill", s.countWanted, s.countAt.Sub(start), quietGap)
	}
	s.wantCount(start.Add(2 * quietGap))
	if !s.countAt.Equal(start.Add(quietGap)) {
		t.Error("a later wish put off the earlier one")
	}
	s.countFrom = start.Add(time.Minute)
	s.countWanted = false
	if s.wantCount(start); !s.countAt.Equal(s.countFrom) {
		t.Error("counted more often than the duty allows")
	}
}

func TestSchedule_StormOfWakeUps(t *testing.T) {
	now := time.Unix(100, 0)
	var s schedule
	s.begin(now, 1, time.Hour, time.Hour)
	looks := 0
	for range 100_000 { // ten seconds
		now = now.Add(100 * time.Microsecond)
		s.woken(now)
		if s.lookDue(now) {
			looks++
		}
	}
	if most := budgetMost + 1000; looks > most || looks < 1000 {
		t.Errorf("got %d looks in 10 s, want 1000 to %d", looks, most)
	}
}

func TestSchedule_CountAsksTheBudget(t *testing.T) {
	now := time.Unix(100, 0)
	s := schedule{poll: now.Add(time.Hour), scan: now.Add(time.Hour), countWanted: true, budget: budget{last: now}}
	if s.countDue(now) {
		t.Error("counted without budget")
	}
	if got := s.next(); !got.Equal(now.Add(budgetGap)) {
		t.Errorf("next after %v, want %v", got.Sub(now), budgetGap)
	}
	if !s.countDue(now.Add(budgetGap)) {
		t.Error("did not count when the budget allowed")
	}
}

func TestRun_QueueOverflows(t *testing.T) {
	f := newFixture(t)
	f.make("/a", "max")
	hold, release := make(chan struct{}), make(chan struct{})
	opt := f.options()
	r := &recorder{t: t, changed: make(chan struct{}, 1), done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	t.Cleanup(func() { r.stop() })
	go func() {
		r.done <- New(opt).Run(ctx, func(s signal.Signal) {
			if seen, ok := s.Body.(signal.CgroupSeen); ok && seen.Path == "/hold" {
				close(hold)
				<-release
			}
			r.take(s)
		})
	}()
	r.untilUp()
	f.make("/hold", "max")
	<-hold
	limit := 16384
	if b, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events"); err == nil {
		_, _ = fmt.Sscan(string(b), &limit)
	}
	if limit > 100_000 {
		close(release)
		t.Skipf("max_queued_events is %d", limit)
	}
	for i := range limit/2 + 100 {
		dir := f.path(fmt.Sprintf("/x%d", i))
		must(t, os.Mkdir(dir, 0o755))
		must(t, os.Remove(dir))
	}
	f.make("/b", "max") // its event is lost
	close(release)
	r.until("the tree after the overflow", func(said []signal.Body) bool { return known(said, "/b") != nil })
	lost := 0
	for _, b := range r.all() {
		if _, ok := b.(signal.Lost); ok {
			lost++
		}
	}
	if lost != 1 {
		t.Errorf("said Lost %d times, want once", lost)
	}
}

// A waker's eventfds are shared, and the room of removed cgroups is used again.
func TestWaker_Slots(t *testing.T) {
	w, err := newWaker()
	must(t, err)
	defer w.close()
	for i := range maxEventfds * cgroupsPerEventfd {
		slot, err := w.slot()
		must(t, err)
		if slot != i/cgroupsPerEventfd {
			t.Fatalf("cgroup %d: slot %d", i, slot)
		}
		w.used[slot]++
	}
	if slot, err := w.slot(); slot != -1 || err != nil {
		t.Errorf("full: got %d, %v, want -1", slot, err)
	}
	w.release(5)
	if slot, err := w.slot(); slot != 5 || err != nil {
		t.Errorf("after a release: got %d, %v, want 5", slot, err)
	}
	w.release(-1)
}

func TestSeek_GivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		l := &loop{ctx: context.Background(), opt: f.options(), now: time.Now(), seeks: map[*node]attempt{}, emit: func(signal.Signal) { t.Error("said something") }}
		l.files.hier.Mount = f.path("/")
		n := newNode(nil, "/docker/"+cid, 1)
		if !n.wantsInit {
			t.Fatal("a container's cgroup wants no first process")
		}
		l.seek(n)
		start := time.Now()
		for len(l.seeks) > 0 {
			time.Sleep(100 * time.Millisecond) // the bubble's clock, no real wait
			l.now = time.Now()
			l.seekDue()
		}
		if d := time.Since(start); d < 10*time.Second || d > time.Minute {
			t.Errorf("gave up after %v", d)
		}
	})
}

// TestRun_RenamedInTwoReadings: the kernel tells of the old name and of the new
// one apart. What was counted before is not counted again.
func TestRun_RenamedInTwoReadings(t *testing.T) {
	for _, tc := range []struct {
		name   string
		rename func(l *loop, from, to func())
		gone   bool
	}{
		{"the new name is read later", func(l *loop, from, to func()) {
			from()
			l.now = l.now.Add(renameTakes - 1)
			l.forgetMissing()
			to()
		}, false},
		{"the tree is read first", func(l *loop, from, to func()) { l.scan(l.tree.root); from(); to() }, false},
		{"no new name", func(l *loop, from, _ func()) {
			from()
			l.now = l.now.Add(renameTakes)
			l.forgetMissing()
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t)
			f.make("/a", "max")
			f.events("/a", counters{0, 3, 0}, counters{0, 3, 0})
			r := &recorder{t: t, changed: make(chan struct{}, 1)}
			l := newLoop(t.Context(), New(f.options()).opt, r.take)
			l.opt.noInotify = true
			must(t, l.open())
			t.Cleanup(l.close)
			must(t, l.start())
			l.setWatch(l.tree.root, 1) // as if the kernel had given one
			id := known(r.all(), "/a").ID
			must(t, os.Rename(f.path("/a"), f.path("/z")))
			notice := func(mask uint32, name string) func() {
				return func() { l.notice(notice{wd: 1, mask: mask | unix.IN_ISDIR, name: []byte(name)}) }
			}
			tc.rename(l, notice(unix.IN_MOVED_FROM, "a"), notice(unix.IN_MOVED_TO, "z"))
			f.events("/z", counters{0, 4, 0}, counters{0, 4, 0})
			l.count()
			gone := slices.ContainsFunc(r.all(), func(b signal.Body) bool { g, ok := b.(signal.CgroupGone); return ok && g.ID == id })
			if gone != tc.gone {
				t.Errorf("told that the cgroup has gone: %v, want %v", gone, tc.gone)
			}
			if tc.gone {
				return
			}
			if s := known(r.all(), "/z"); s == nil || s.ID != id {
				t.Errorf("under its new name: %+v, want id %d", s, id)
			}
			if got := sum(r.all(), "/z").OOMKill; got != 1 {
				t.Errorf("got %d kills, want 1: a new name is no new cgroup", got)
			}
		})
	}
}

// TestRun_MemoryComesOn: where the memory controller is switched on just as it is
// looked whether the kernel counts for each cgroup apart, it does: the files of a
// controller come at once.
func TestRun_MemoryComesOn(t *testing.T) {
	f := newFixture(t)
	f.make("/a", "max")
	must(t, os.Remove(f.path("/a/memory.events.local")))
	must(t, os.Remove(f.path("/a/memory.events")))
	must(t, unix.Mkfifo(f.path("/a/memory.events"), 0o600)) // who reads it waits
	l := newLoop(t.Context(), New(f.options()).opt, func(signal.Signal) {})
	l.opt.noInotify = true
	must(t, l.open())
	t.Cleanup(l.close)
	done := make(chan struct{})
	go func() { defer close(done); l.learnLocal(newNode(&node{path: "/"}, "/a", 1)) }()
	events, err := os.OpenFile(f.path("/a/memory.events"), os.O_WRONLY, 0)
	must(t, err)
	must(t, os.WriteFile(f.path("/a/memory.events.local"), []byte("oom_kill 0\n"), 0o600))
	_, err = events.WriteString("oom_kill 0\n")
	must(t, errors.Join(err, events.Close()))
	<-done
	if !l.localKnown || l.files.hier.LocalEvents {
		t.Errorf("known %v, memory.events counts the cgroup alone %v", l.localKnown, l.files.hier.LocalEvents)
	}
}
