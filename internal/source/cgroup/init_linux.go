// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"slices"
	"time"
)

// A container's first process is the first of a pid namespace, and its parent,
// the runtime's, is outside of the cgroup; that of a namespace made inside the
// container has its parent in it. It is there only some time after its cgroup:
// a runtime moves its own process in first, which then makes the namespace.

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
	pids, err := l.files.procs(n.path)
	if err != nil {
		return
	}
	depth := 0
	for _, pid := range pids[:min(len(pids), maxInitCandidates)] {
		t, err := l.opt.Roots.TaskIDs(pid)
		if err != nil || !t.First() || t.Parent == 0 || slices.Contains(pids, t.Parent) {
			continue
		}
		if depth == 0 || len(t.Own) < depth {
			n.initPID, depth = pid, len(t.Own)
		}
	}
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
