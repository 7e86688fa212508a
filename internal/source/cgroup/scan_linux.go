// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/signal"
)

// scan brings what is known of n and below in line with the file system: it
// adds what is new, removes what has gone, and reads limits again.
func (l *loop) scan(n *node) {
	if l.ctx.Err() != nil {
		return
	}
	_, leaf, err := stat(l.files.dir(n.path))
	if err != nil {
		switch {
		case !gone(err):
			l.trouble(n.path, err)
		case n == l.tree.root:
			l.rootGone = true
		default:
			l.remove(n)
		}
		return
	}
	l.refresh(n)
	if leaf && len(n.children) == 0 {
		return
	}
	names, err := subdirs(l.files.dir(n.path))
	if err != nil {
		if !gone(err) {
			l.trouble(n.path, err)
		}
		return
	}
	unseen := l.notAmong(n, names)
	for _, name := range names {
		if c, fresh := l.add(n, name); c != nil && !fresh {
			l.scan(c)
		}
	}
	for _, c := range unseen {
		if l.limbo[c.id].node == c {
			delete(l.limbo, c.id)
			l.remove(c)
		}
	}
}

// notAmong sets aside what is below n and has none of these names: one of them
// may be its new one.
func (l *loop) notAmong(n *node, names []string) (unseen []*node) {
	there := make(map[string]bool, len(names))
	for _, name := range names {
		there[name] = true
	}
	for name, c := range n.children {
		if !there[name] {
			l.setAside(c)
			unseen = append(unseen, c)
		}
	}
	return unseen
}

// add makes the cgroup of this name below parent known, with all that is
// below it. fresh is false where it was known.
func (l *loop) add(parent *node, name string) (n *node, fresh bool) {
	if l.ctx.Err() != nil {
		return nil, false
	}
	path := parent.childPath(name)
	dir := l.files.dir(path)
	// Watch first and look after: then no cgroup below can come unseen.
	wd := l.watch(dir)
	id, leaf, err := stat(dir)
	if err != nil {
		if !gone(err) {
			l.trouble(path, err)
		}
		return nil, false
	}
	if old := parent.children[name]; old != nil {
		if old.id == id {
			l.setWatch(old, wd)
			return old, false
		}
		l.remove(old)
	}
	if m, ok := l.limbo[id]; ok {
		l.reattach(m.node, parent, path, wd)
		return m.node, true
	}
	if l.tree.count >= l.opt.MaxCgroups {
		if wd != 0 {
			l.inotify.unwatch(wd)
		}
		l.lesser("full", fmt.Sprintf("more than %d cgroups: the rest is not watched", l.opt.MaxCgroups))
		return nil, false
	}
	n = newNode(parent, path, id)
	l.tree.link(n)
	l.setWatch(n, wd)
	l.enter(n)
	if !leaf {
		l.descend(n)
	}
	return n, true
}

// descend adds all cgroups below a new one.
func (l *loop) descend(n *node) {
	names, err := subdirs(l.files.dir(n.path))
	if err != nil && !gone(err) {
		l.trouble(n.path, err)
	}
	for _, name := range names {
		l.add(n, name)
	}
}

// enter reads what is told of a new cgroup, and tells it.
func (l *loop) enter(n *node) {
	l.learnLocal(n)
	if l.waker != nil && n.parent != nil {
		slot, err := l.waker.register(l.files.dir(n.path))
		if err != nil && !gone(err) {
			l.log.Debug("no wake-ups by eventfd", "cgroup", n.path, "err", err)
		}
		n.slot = int32(slot)
	}
	if l.files.hier.Version == 1 {
		n.file = l.files.keep(n.path, fileOOMControl)
	}
	if l.files.hier.Version == 2 && n.parent == l.tree.root && l.inotify != nil {
		// The directory's watch tells of memory.events only while the kernel
		// holds the file's inode; its own watch makes it hold it. Events of
		// all below reach it.
		_, _ = l.inotify.watch(l.files.dir(n.path)+"/"+fileEvents, unix.IN_MODIFY)
	}
	if l.starting {
		l.baseline(n)
	}
	n.limit, _ = l.files.limit(n.path)
	n.oomGroup = l.files.oomGroup(n.path)
	l.findInit(n)
	l.seen(n)
	if n.wantsInit && n.initPID == 0 {
		l.seek(n)
	}
}

func (l *loop) seen(n *node) {
	l.say(signal.CgroupSeen{
		Level:   signal.Level{Cgroup: l.cgroup(n), LimitBytes: n.limit, OOMGroup: n.oomGroup},
		InitPID: n.initPID,
	})
}

// refresh reads the limit again and tells of a change.
func (l *loop) refresh(n *node) {
	limit, err := l.files.limit(n.path)
	if err != nil {
		return
	}
	group := l.files.oomGroup(n.path)
	if equal(limit, n.limit) && group == n.oomGroup {
		return
	}
	n.limit, n.oomGroup = limit, group
	l.seen(n)
}

func equal(a, b *int64) bool { return a == b || a != nil && b != nil && *a == *b }

// remove forgets a cgroup and all below it.
func (l *loop) remove(n *node) {
	l.tree.unlink(n)
	n.each(func(n *node) {
		l.setWatch(n, 0)
		if l.waker != nil {
			l.waker.release(int(n.slot))
		}
		l.files.release(n.file)
		delete(l.seeks, n)
		l.tree.count--
		l.say(signal.CgroupGone{Cgroup: l.cgroup(n)})
	})
}

// reattach gives a renamed cgroup, and all below it, its new path.
func (l *loop) reattach(n, parent *node, path string, wd int32) {
	delete(l.limbo, n.id)
	old := n.path
	n.each(func(c *node) { c.path = path + strings.TrimPrefix(c.path, old) })
	n.parent = parent
	l.tree.count-- // link counts it again
	l.tree.link(n)
	l.setWatch(n, wd)
	n.each(l.seen)
}

// watch returns 0 where the kernel gives no watch.
func (l *loop) watch(dir string) int32 {
	if l.inotify == nil {
		return 0
	}
	wd, err := l.inotify.watch(dir, dirMask)
	switch {
	case err == nil:
		return wd
	case errors.Is(err, unix.ENOSPC):
		l.unwatched = true
		l.lesser("watches", "inotify watches ran out (fs.inotify.max_user_watches): the tree is read again and again")
	case !gone(err):
		l.unwatched = true
		l.trouble(dir, err)
	}
	return 0
}

// setWatch keeps which cgroup a watch is of.
func (l *loop) setWatch(n *node, wd int32) {
	if n.wd == wd {
		return
	}
	if n.wd != 0 && l.tree.byWD[n.wd] == n {
		delete(l.tree.byWD, n.wd)
	}
	n.wd = wd
	if wd != 0 {
		l.tree.byWD[wd] = n
	}
}
