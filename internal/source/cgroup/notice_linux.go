// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/signal"
)

// drain takes what inotify has to tell.
func (l *loop) drain() error {
	for more := true; more && l.ctx.Err() == nil; {
		var err error
		if more, err = l.inotify.drain(l.notice); err != nil {
			return err
		}
	}
	if l.overflow {
		l.overflow = false
		const why = "inotify's queue overflowed: at least one change of the tree was lost, cgroups that came and went may be unknown"
		l.log.Warn(why)
		l.say(signal.Lost{Count: 1, Why: why})
		l.scan(l.tree.root)
	}
	return nil
}

func (l *loop) notice(n notice) {
	if n.mask&unix.IN_Q_OVERFLOW != 0 {
		l.overflow = true
		return
	}
	at := l.tree.byWD[n.wd]
	if at == nil {
		// The watch of a memory.events, or of a cgroup that has gone.
		l.woke = l.woke || n.mask&unix.IN_MODIFY != 0
		return
	}
	isDir := n.mask&unix.IN_ISDIR != 0
	l.treeMoved = l.treeMoved || isDir
	switch {
	case n.mask&(unix.IN_IGNORED|unix.IN_UNMOUNT) != 0:
		l.unwatchedNode(at)
	case n.mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0 && isDir:
		l.add(at, string(n.name))
	case n.mask&(unix.IN_DELETE|unix.IN_MOVED_FROM) != 0 && isDir:
		l.left(at.children[string(n.name)], n.mask&unix.IN_MOVED_FROM != 0)
	case n.mask&unix.IN_MODIFY != 0:
		l.written(at, string(n.name))
	}
}

// unwatchedNode: the kernel took the watch back, because the directory has
// gone or because another one has its name already.
func (l *loop) unwatchedNode(n *node) {
	l.setWatch(n, 0)
	id, _, err := stat(l.files.dir(n.path))
	switch {
	case err != nil && n == l.tree.root:
		l.rootGone = true
	case err == nil && id == n.id && n.parent != nil:
		l.add(n.parent, n.name())
	}
}

// left: a name has gone. It may be another's by now.
func (l *loop) left(n *node, moved bool) {
	if n == nil {
		return
	}
	if id, _, err := stat(l.files.dir(n.path)); err == nil && id == n.id {
		return
	}
	if moved {
		l.setAside(n)
		return
	}
	l.remove(n)
}

// setAside keeps what has lost its name, as it may have another.
func (l *loop) setAside(n *node) {
	l.tree.unlink(n)
	l.limbo[n.id] = missing{n, l.now}
}

// forgetMissing, where the kernel has nothing to tell, removes what got no other
// name. It tells of the old name and of the new one apart: one reading may have
// the first alone.
func (l *loop) forgetMissing() {
	for id, m := range l.limbo {
		if l.now.Sub(m.since) >= renameTakes {
			delete(l.limbo, id)
			l.remove(m.node)
		}
	}
}

// written: a file of a cgroup was written, by somebody or by the kernel.
func (l *loop) written(n *node, file string) {
	switch file {
	case fileEvents, fileEventsLocal:
		l.woke = true
	case l.files.limitFile(), fileOOMGroup:
		l.refresh(n)
	case fileProcs, "tasks", "cgroup.events":
		if n.wantsInit && n.initPID == 0 {
			if l.findInit(n); n.initPID != 0 {
				l.seen(n)
				delete(l.seeks, n)
				return
			}
			l.seek(n)
		}
	}
}
