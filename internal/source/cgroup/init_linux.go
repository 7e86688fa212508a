// SPDX-License-Identifier: Apache-2.0

package cgroup

import "time"

// A container's first process is known by its pid namespace, but it is there
// only some time after its cgroup: a runtime moves its own process in first,
// which then makes the namespace.

const (
	maxInitCandidates = 64   // processes of a cgroup that are looked at
	maxSeeks          = 4096 // cgroups that are looked at again
	maxSeekAttempts   = 8    // 0.1 s, 0.2 s, ... 12.8 s after the last sign
)

type attempt struct {
	n   int
	due time.Time
}

// findInit looks once.
func (l *loop) findInit(n *node) {
	if !n.wantsInit || n.initPID != 0 {
		return
	}
	b, err := l.files.read(n.path, fileProcs)
	if err != nil {
		return
	}
	left := maxInitCandidates
	parsePIDs(b, func(pid int) bool {
		if init, _, err := l.opt.Roots.TaskInit(pid); err == nil && init {
			n.initPID = pid
		}
		left--
		return n.initPID == 0 && left > 0
	})
}

// seek makes the loop look again, ever later.
func (l *loop) seek(n *node) {
	if _, ok := l.seeks[n]; ok || len(l.seeks) < maxSeeks {
		l.seeks[n] = attempt{due: l.now.Add(100 * time.Millisecond)}
	}
}

// seekDue looks at all whose time has come.
func (l *loop) seekDue() {
	for n, a := range l.seeks {
		if l.now.Before(a.due) {
			continue
		}
		l.findInit(n)
		a.n++
		switch {
		case n.initPID != 0:
			delete(l.seeks, n)
			l.seen(n)
		case a.n == maxSeekAttempts:
			delete(l.seeks, n)
		default:
			a.due = l.now.Add(100 * time.Millisecond << a.n)
			l.seeks[n] = a
		}
	}
}
