// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/signal"
)

const (
	// minDrainGap is the least time between two takings of what the kernel
	// has to tell, minCountGap that between two counts.
	minDrainGap = 2 * time.Millisecond
	minCountGap = time.Millisecond
	// dutyShare bounds a count or a scan to one part in so many of the time.
	dutyShare = 10
	// quietGap is the least time between two counts that the machine's own
	// count did not ask for.
	quietGap = time.Second

	// After a wake-up the machine's count is read each lookGap for denseFor,
	// then each budgetGap for lookFor: the kernel wakes before it kills, and a
	// v1 cgroup that is removed takes its counter along.
	lookGap  = time.Millisecond
	denseFor = 12 * time.Millisecond
	lookFor  = 50 * time.Millisecond

	// Wake-ups cause one read each budgetGap, no more; what was not used is
	// saved up to budgetMost, for the first kills of a series.
	budgetGap  = 10 * time.Millisecond
	budgetMost = 200
)

// budget bounds what a storm of wake-ups costs.
type budget struct {
	saved time.Duration // in units of budgetGap
	last  time.Time
}

func (b *budget) take(now time.Time) bool {
	b.saved = min(b.saved+now.Sub(b.last), budgetMost*budgetGap)
	b.last = now
	if b.saved < budgetGap {
		return false
	}
	b.saved -= budgetGap
	return true
}

// schedule says what is due.
type schedule struct {
	poll  time.Time // the machine's count
	scan  time.Time // the tree
	drain time.Time // not before

	wake   time.Time // the last wake-up
	look   time.Time // the next look at the machine's count for it; zero: none
	budget budget

	countWanted bool
	countAt     time.Time
	countFrom   time.Time // not before
	lastCount   time.Time
	// owed is how many kills of the machine's count no cgroup explained yet.
	owed  uint64
	tries int
}

func (s *schedule) begin(now time.Time, poll, scan time.Duration) {
	s.poll, s.scan, s.lastCount = now.Add(poll), now.Add(scan), now
	s.budget = budget{saved: budgetMost * budgetGap, last: now}
}

// next is when something is due.
func (s *schedule) next() time.Time {
	next := s.poll
	if s.scan.Before(next) {
		next = s.scan
	}
	if !s.look.IsZero() && s.look.Before(next) {
		next = s.look
	}
	if s.countWanted && s.countAt.Before(next) {
		next = s.countAt
	}
	return next
}

func (s *schedule) woken(now time.Time) {
	s.wake, s.look = now, now
}

// lookDue tells whether a look for a wake-up is due, and sets the next.
func (s *schedule) lookDue(now time.Time) bool {
	if s.look.IsZero() || now.Before(s.look) {
		return false
	}
	since := now.Sub(s.wake)
	switch {
	case !s.budget.take(now):
		s.look = now.Add(budgetGap)
		return false
	case since < denseFor:
		s.look = now.Add(lookGap)
	case since < lookFor:
		s.look = now.Add(budgetGap)
	default:
		s.look = time.Time{}
		// A limit can be reached without a kill: v2 counts that too.
		s.countWanted = s.countWanted || now.Sub(s.lastCount) >= quietGap
	}
	return true
}

// countDue tells whether the counters are to be read now.
func (s *schedule) countDue(now time.Time) bool {
	if !s.countWanted || now.Before(s.countAt) {
		return false
	}
	if !s.budget.take(now) {
		s.countAt = now.Add(budgetGap)
		return false
	}
	return true
}

// wait sleeps until something is due or the kernel or ctx has something to
// tell, and takes what the kernel tells.
func (l *loop) wait() error {
	l.now = time.Now()
	fds := [3]unix.PollFd{{Fd: int32(l.cancel), Events: unix.POLLIN}, {Fd: -1, Events: unix.POLLIN}, {Fd: -1, Events: unix.POLLIN}}
	until := l.sched.next()
	if l.now.Before(l.sched.drain) {
		if l.sched.drain.Before(until) {
			until = l.sched.drain
		}
	} else {
		if l.inotify != nil {
			fds[1].Fd = int32(l.inotify.fd)
		}
		if l.waker != nil {
			fds[2].Fd = int32(l.waker.epfd)
		}
	}
	timeout := unix.NsecToTimespec(max(0, until.Sub(l.now)).Nanoseconds())
	n, err := unix.Ppoll(fds[:], &timeout, nil)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("poll: %w", err)
	}
	l.now = time.Now()
	if n <= 0 || fds[0].Revents != 0 {
		return nil
	}
	l.sched.drain = l.now.Add(minDrainGap)
	l.wakerFired = fds[2].Revents != 0
	return l.drain()
}

// work does what is due.
func (l *loop) work() {
	s := &l.sched
	if l.woke {
		l.woke = false
		s.woken(l.now)
	}
	look := s.lookDue(l.now)
	if !l.now.Before(s.poll) {
		s.poll = l.now.Add(l.opt.PollInterval)
		l.seekDue()
		look = true
	}
	if look {
		l.look()
	}
	if s.countDue(l.now) {
		l.countNow()
	}
	if l.scanSoon || !l.now.Before(s.scan) {
		l.scanNow()
	}
}

// look reads the machine's count, which asks for a count when it moved.
func (l *loop) look() {
	if l.vmstat == nil {
		// Nothing says whether a count is worth it.
		idle := l.now.Sub(l.sched.lastCount) >= l.opt.RescanInterval
		l.sched.countWanted = l.sched.countWanted || !l.sched.look.IsZero() || idle
		return
	}
	total, ok := l.readTotal()
	if !ok || total == l.total {
		return
	}
	added := total - l.total
	if total < l.total {
		added = 0 // another machine's procfs, by a mount
	}
	l.total = total
	l.say(signal.NodeCounters{OOMKill: added, Total: total})
	l.sched.owed += added
	l.sched.tries = 0
	l.sched.countWanted, l.sched.countAt = true, l.sched.countFrom
}

// countNow reads the counters. The kernel counts for the machine before it
// counts for the cgroup, so what is missing is looked for twice more.
func (l *loop) countNow() {
	s := &l.sched
	s.countWanted = false
	found := l.count()
	end := time.Now()
	s.lastCount = end
	s.countFrom = end.Add(max(minCountGap, dutyShare*end.Sub(l.now)))
	s.countAt = s.countFrom
	s.owed -= min(s.owed, found)
	switch {
	case s.owed == 0:
	case s.tries < 2:
		s.tries++
		s.countWanted = true
		s.countAt = s.countFrom.Add(time.Duration(s.tries) * budgetGap)
	default:
		// Not in any cgroup that is left, or in the root.
		s.owed = 0
	}
}

// scanNow reads the tree again: often where the kernel does not tell of its
// changes, else to be sure.
func (l *loop) scanNow() {
	l.scanSoon = false
	l.scan(l.tree.root)
	end := time.Now()
	l.sched.scan = end.Add(max(l.scanInterval(), dutyShare*end.Sub(l.now)))
	l.sched.countWanted = l.sched.countWanted || !l.unwatched
}

func (l *loop) scanInterval() time.Duration {
	if l.unwatched {
		return l.opt.RescanInterval
	}
	return l.opt.AuditInterval
}
