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
	// has to tell, quietDrainGap after one that told of no cgroup that came or
	// went; minCountGap is that between two counts.
	minDrainGap   = 2 * time.Millisecond
	quietDrainGap = 20 * time.Millisecond
	minCountGap   = time.Millisecond
	// dutyShare bounds a count or a scan to one part in so many of the time.
	// It goes by the clock: where the agent hardly gets to run, maxCountGap is
	// the most that a count waits for it.
	dutyShare   = 10
	maxCountGap = 2 * time.Second
	// quietGap is the least time between two counts that the machine's own
	// count did not ask for.
	quietGap = time.Second

	// After a wake-up the machine's count is read. On v1 that is not enough:
	// the kernel wakes before it kills, and a cgroup that is removed takes its
	// counter along. So it is read each lookGap for denseFor, then each
	// budgetGap for lookFor. On v2 the kernel wakes again after the kill.
	lookGap  = time.Millisecond
	denseFor = 12 * time.Millisecond
	lookFor  = 50 * time.Millisecond

	// renameTakes is how long a cgroup may have no name.
	renameTakes = 100 * time.Millisecond

	// countedFor is how long after a count it is told that there is no more.
	countedFor = 15 * time.Second

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
	poll time.Time // the machine's count
	scan time.Time // the tree
	// Not before these inotify and the eventfds are asked.
	drain, drainWaker time.Time

	version int
	wake    time.Time // the last wake-up
	look    time.Time // the next look at the machine's count for it; zero: none
	budget  budget

	countWanted bool
	countAt     time.Time
	countFrom   time.Time // the duty allows no count before
	lastBegan   time.Time // when the last count began
	lastCount   time.Time // when it ended
	// owed is how many kills of the machine's count no cgroup explained yet.
	owed  uint64
	tries int
}

func (s *schedule) begin(now time.Time, version int, poll, scan time.Duration) {
	s.version = version
	s.poll, s.scan, s.lastCount, s.lastBegan = nextPoll(now, poll), now.Add(scan), now, now
	s.budget = budget{saved: budgetMost * budgetGap, last: now}
}

// nextPoll is the next whole interval of the clock. What else the agent does
// each so often begins there too: each waking of a program costs more than
// most of what it does then.
func nextPoll(now time.Time, interval time.Duration) time.Time {
	return now.Add(interval - time.Duration(now.UnixNano())%interval)
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
	s.wake = now
	if s.look.IsZero() || s.version == 1 {
		s.look = now
	}
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
	case since < denseFor && s.version == 1:
		s.look = now.Add(lookGap)
	case since < lookFor && s.version == 1, since < budgetGap:
		s.look = now.Add(budgetGap)
	default:
		s.look = time.Time{}
		if s.version == 2 { // it counts limits reached without a kill too
			s.wantCount(s.lastCount.Add(quietGap))
		}
	}
	return true
}

// wantCount asks for a count at that time, or earlier where one is wanted
// already.
func (s *schedule) wantCount(at time.Time) {
	if at.Before(s.countFrom) {
		at = s.countFrom
	}
	if !s.countWanted || at.Before(s.countAt) {
		s.countWanted, s.countAt = true, at
	}
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
	until, asked := l.sched.next(), true
	ask := func(fd *unix.PollFd, its int, from time.Time) {
		if !l.now.Before(from) {
			fd.Fd = int32(its)
			return
		}
		asked = false
		if from.Before(until) {
			until = from
		}
	}
	if l.inotify != nil {
		ask(&fds[1], l.inotify.fd, l.sched.drain)
	}
	if l.waker != nil {
		ask(&fds[2], l.waker.epfd, l.sched.drainWaker)
	}
	n, err := l.poll(fds[:], until, asked)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("poll: %w", err)
	}
	l.now = time.Now()
	if err == nil && fds[1].Fd >= 0 && fds[1].Revents == 0 {
		l.forgetMissing()
	}
	if n <= 0 || fds[0].Revents != 0 {
		return nil
	}
	if fds[2].Revents != 0 {
		l.sched.drainWaker = l.now.Add(minDrainGap)
		l.waker.drain()
		l.woke = true
	}
	if fds[1].Revents == 0 {
		return nil
	}
	l.treeMoved = false
	err = l.drain()
	l.sched.drain = l.now.Add(quietDrainGap)
	if l.treeMoved {
		l.sched.drain = l.now.Add(minDrainGap)
	}
	return err
}

// poll waits for the files. Where not all are asked, those that are not may be
// ready all the time.
func (l *loop) poll(fds []unix.PollFd, until time.Time, all bool) (int, error) {
	left := until.Sub(l.now)
	if all && left >= parkFrom && l.park != nil {
		return l.park.wait(fds, until)
	}
	timeout := unix.NsecToTimespec(max(0, left).Nanoseconds())
	return unix.Ppoll(fds, &timeout, nil)
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
		s.poll = nextPoll(l.now, l.opt.PollInterval)
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
		at := l.sched.lastCount.Add(l.opt.RescanInterval)
		if !l.sched.look.IsZero() {
			at = l.now
		}
		l.sched.wantCount(at)
		return
	}
	total, ok := l.readTotal()
	if !ok || total == l.total {
		if ok && !l.sched.countWanted && l.now.Sub(l.sched.lastCount) < countedFor {
			l.say(signal.NodeCounters{Total: total, Counted: l.now.UTC()}) // nothing to count
		}
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
	l.sched.wantCount(l.now)
}

// countNow reads the counters. The kernel counts for the machine before it
// counts for the cgroup, so what is missing is looked for twice more.
func (l *loop) countNow() {
	s := &l.sched
	s.countWanted = false
	var found uint64
	began := time.Now()
	took := l.timed(func() { found = l.count() })
	s.lastBegan, s.lastCount = began, time.Now()
	if l.vmstat != nil && l.ctx.Err() == nil { // else not all was read
		l.say(signal.NodeCounters{Total: l.total, Counted: began.UTC()})
	}
	s.countFrom = s.lastCount.Add(min(max(minCountGap, dutyShare*took), maxCountGap))
	s.owed -= min(s.owed, found)
	switch {
	case s.owed == 0:
	case s.tries < 2:
		s.tries++
		s.wantCount(s.countFrom.Add(time.Duration(s.tries) * budgetGap))
	default:
		// Not in any cgroup that is left, or in the root.
		s.owed = 0
	}
}

// scanNow reads the tree again: often where the kernel does not tell of its
// changes, else to be sure.
func (l *loop) scanNow() {
	l.scanSoon = false
	took := l.timed(func() { l.scan(l.tree.root) })
	end := time.Now()
	l.sched.scan = end.Add(max(l.scanInterval(), dutyShare*took))
	if !l.unwatched {
		l.sched.wantCount(end)
	}
}

// timed returns how long do took, without what emit waited: that is no work.
func (l *loop) timed(do func()) time.Duration {
	start, emitting := time.Now(), l.emitting
	do()
	return time.Since(start) - (l.emitting - emitting)
}

func (l *loop) scanInterval() time.Duration {
	if l.unwatched {
		return l.opt.RescanInterval
	}
	return l.opt.AuditInterval
}
