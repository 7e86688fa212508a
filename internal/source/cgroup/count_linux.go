// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"github.com/coroner-dev/coroner/internal/signal"
)

// hierarchical tells whether memory.events counts the subtree.
func (l *loop) hierarchical() bool {
	return l.files.hier.Version == 2 && !l.files.hier.LocalEvents
}

// ownFile is the file that counts a cgroup alone.
func (l *loop) ownFile() string {
	switch {
	case l.files.hier.Version == 1:
		return fileOOMControl
	case l.files.hier.LocalEvents:
		return fileEvents
	}
	return fileEventsLocal
}

// learnLocal: a kernel without memory.events.local (before 5.3) counts in
// memory.events for the cgroup alone, as with memory_localevents; but for
// 5.2, which cannot be told apart.
func (l *loop) learnLocal(n *node) {
	if l.localKnown || l.files.hier.Version != 2 || n == l.tree.root {
		return
	}
	_, err := l.files.read(n.path, fileEventsLocal)
	if _, err2 := l.files.read(n.path, fileEvents); err2 != nil {
		return // no memory controller here, or gone
	}
	if gone(err) { // it may have come with the other just now
		_, err = l.files.read(n.path, fileEventsLocal)
	}
	l.localKnown = true
	if gone(err) {
		l.files.hier.LocalEvents = true
	}
}

// baseline takes what was counted before this source ran. A cgroup that comes
// later starts from nothing.
func (l *loop) baseline(n *node) {
	if n == l.tree.root && l.files.hier.Version == 2 {
		return // the v2 root has no counters
	}
	var err error
	if l.hierarchical() {
		if n.below, err = l.files.counters(n.path, fileEvents); err != nil && !gone(err) {
			l.trouble(n.path, err)
		}
	}
	if n.own, err = l.files.counters(n.path, l.ownFile()); err != nil && !gone(err) {
		l.trouble(n.path, err)
	}
}

// count reads the counters and tells what moved; found is how many kills that
// explains.
func (l *loop) count() (found uint64) {
	clear(l.levels)
	if !l.hierarchical() {
		l.tree.root.each(func(n *node) { found += l.countOwn(n) })
		return found
	}
	for _, n := range l.tree.root.children {
		found += l.countBranch(n)
	}
	return found
}

// countOwn reads one cgroup where each counts for itself.
func (l *loop) countOwn(n *node) uint64 {
	if l.ctx.Err() != nil || n == l.tree.root && l.files.hier.Version == 2 {
		return 0
	}
	d := l.moved(n, l.ownFile(), &n.own)
	l.tell(n, d, 0)
	return d.kill
}

// countBranch reads a cgroup, and those below it only if its sum moved.
func (l *loop) countBranch(n *node) uint64 {
	if l.ctx.Err() != nil {
		return 0
	}
	below := l.moved(n, fileEvents, &n.below)
	if below == (counters{}) {
		return 0
	}
	own := l.moved(n, fileEventsLocal, &n.own)
	for _, c := range n.children {
		l.countBranch(c)
	}
	l.tell(n, own, below.kill)
	return below.kill
}

// moved reads a file of counters and returns what was added since.
func (l *loop) moved(n *node, file string, last *counters) counters {
	var c counters
	var err error
	if n.file >= 0 {
		c, err = l.files.kept(n.file)
	} else {
		c, err = l.files.counters(n.path, file)
	}
	if err != nil {
		if !gone(err) {
			l.trouble(n.path, err)
		}
		return counters{}
	}
	d, ok := c.moved(*last)
	if !ok {
		if id, _, err := stat(l.files.dir(n.path)); err != nil || id != n.id {
			// Another cgroup has the name by now: the scan will tell.
			l.scanSoon = true
			return counters{}
		}
		d = c // the controller was off and on again, and counts anew
	}
	*last = c
	return d
}

func (l *loop) tell(n *node, own counters, belowKills uint64) {
	if own == (counters{}) && belowKills == 0 {
		return
	}
	l.say(signal.CgroupCounters{
		Cgroup:  l.cgroup(n),
		OOMKill: own.kill, OOMKillBelow: belowKills, OOM: own.oom, OOMGroupKill: own.groupKill,
		OOMKillTotal: n.own.kill, OOMKillBelowTotal: n.below.kill,
		Since: l.sched.lastBegan.UTC(),
		Chain: l.chain(n),
	})
}

// stand tells where the counters of a cgroup stand when the source begins.
func (l *loop) stand(n *node) {
	if n.own.kill == 0 && n.below.kill == 0 {
		return
	}
	l.say(signal.CgroupCounters{
		Cgroup: l.cgroup(n), OOMKillTotal: n.own.kill, OOMKillBelowTotal: n.below.kill, Chain: l.chain(n),
	})
}

// chain is n and its ancestors, innermost first. Each is read once in one
// count.
func (l *loop) chain(n *node) []signal.Level {
	var chain []signal.Level
	for ; n != nil; n = n.parent {
		level, ok := l.levels[n]
		if !ok {
			l.refresh(n)
			usage, _ := l.files.usage(n.path)
			level = signal.Level{Cgroup: l.cgroup(n), LimitBytes: n.limit, UsageBytes: usage, OOMGroup: n.oomGroup}
			l.levels[n] = level
		}
		chain = append(chain, level)
	}
	return chain
}
