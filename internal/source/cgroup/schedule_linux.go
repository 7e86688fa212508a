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
	// minCountGap is the least time between two counts, and minDrainGap that
	// between two looks at what the kernel has to tell: a storm of wake-ups
	// costs no more than this.
	minCountGap = 10 * time.Millisecond
	minDrainGap = 2 * time.Millisecond
	// quietGap is the least time between two counts that the machine's own
	// count did not ask for.
	quietGap = time.Second
	// dutyShare bounds a count or a scan to one part in so many of the time.
	dutyShare = 10
)

// looks is when the machine's count is read after a wake-up: the kernel wakes
// before it kills.
func looks() [5]time.Duration {
	return [...]time.Duration{0, 2 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond}
}

// schedule says what is due.
type schedule struct {
	poll  time.Time // the machine's count
	scan  time.Time // the tree
	drain time.Time // not before
	// series is when the present series of looks began, look the next one.
	series  time.Time
	look    int
	looking bool

	countWanted bool
	countAt     time.Time // not before
	lastCount   time.Time
	// owed is how many kills of the machine's count no cgroup explained yet.
	owed  uint64
	tries int
}

func (s *schedule) begin(now time.Time, opt Options) {
	s.poll, s.scan = now.Add(opt.PollInterval), now.Add(opt.RescanInterval)
	s.lastCount = now
}

// next is when something is due.
func (s *schedule) next() time.Time {
	next := s.poll
	if s.scan.Before(next) {
		next = s.scan
	}
	if s.looking {
		if at := s.series.Add(looks()[s.look]); at.Before(next) {
			next = at
		}
	}
	if s.countWanted && s.countAt.Before(next) {
		next = s.countAt
	}
	return next
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
		if !s.looking {
			s.looking, s.look, s.series = true, 0, l.now
		}
	}
	due := !l.now.Before(s.poll)
	if due {
		s.poll = l.now.Add(l.opt.PollInterval)
		l.seekDue()
	}
	if s.looking && !l.now.Before(s.series.Add(looks()[s.look])) {
		due = true
		if s.look++; s.look == len(looks()) {
			s.looking = false
			// A limit can be reached without a kill: v2 counts that too.
			s.countWanted = s.countWanted || l.now.Sub(s.lastCount) >= quietGap
		}
	}
	if due {
		l.look()
	}
	if s.countWanted && !l.now.Before(s.countAt) {
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
		l.sched.countWanted = l.sched.countWanted || l.sched.looking || idle
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
	l.sched.countWanted = true
}

// countNow reads the counters. The kernel counts for the machine before it
// counts for the cgroup, so what is missing is looked for twice more.
func (l *loop) countNow() {
	s := &l.sched
	s.countWanted = false
	found := l.count()
	end := time.Now()
	s.lastCount = end
	s.countAt = end.Add(max(minCountGap, dutyShare*end.Sub(l.now)))
	s.owed -= min(s.owed, found)
	switch {
	case s.owed == 0:
	case s.tries < 2:
		s.tries++
		s.countWanted = true
		s.countAt = s.countAt.Add(time.Duration(s.tries) * minCountGap)
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
	wait := l.opt.AuditInterval
	if l.unwatched {
		wait = l.opt.RescanInterval
	} else {
		l.sched.countWanted = true
	}
	l.sched.scan = end.Add(max(wait, dutyShare*end.Sub(l.now)))
}
