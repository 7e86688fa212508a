// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/parse/cgpath"
	"github.com/coroner-dev/coroner/internal/signal"
)

// node is one cgroup.
type node struct {
	path     string // below the mount: "/" or "/a/b"
	id       uint64 // inode number of the directory: the kernel's kernfs id
	parent   *node
	children map[string]*node
	wd       int32 // inotify watch; 0: none
	slot     int32 // eventfd on v1; -1: none
	file     int32 // memory.oom_control kept open on v1; -1: none

	below counters // memory.events where it counts the subtree
	own   counters // memory.events.local or memory.oom_control

	limit    *int64
	oomGroup bool
	initPID  int
	// wantsInit is true for a place where a container's first process lives.
	wantsInit bool
}

// missing is a cgroup whose name has gone; a rename may have given it another.
type missing struct {
	node  *node
	since time.Time
}

func (n *node) name() string { return n.path[strings.LastIndexByte(n.path, '/')+1:] }

func (n *node) childPath(name string) string {
	if n.path == "/" {
		return "/" + name
	}
	return n.path + "/" + name
}

// tree is all cgroups that are known.
type tree struct {
	root  *node
	byWD  map[int32]*node
	count int
}

func newNode(parent *node, path string, id uint64) *node {
	n := &node{path: path, id: id, parent: parent, slot: -1, file: -1}
	switch cgpath.Parse(path).Level {
	case cgpath.Container, cgpath.Inside, cgpath.Guest:
		n.wantsInit = true
	}
	return n
}

func (t *tree) link(n *node) {
	t.count++
	if n.parent == nil {
		t.root = n
		return
	}
	if n.parent.children == nil {
		n.parent.children = map[string]*node{}
	}
	n.parent.children[n.name()] = n
}

// unlink takes n from its parent; what is below stays on it.
func (t *tree) unlink(n *node) {
	if n.parent != nil && n.parent.children[n.name()] == n {
		delete(n.parent.children, n.name())
	}
}

// each visits n and all below it, those below first.
func (n *node) each(visit func(*node)) {
	for _, c := range n.children {
		c.each(visit)
	}
	visit(n)
}

// hostPath is the path as the kernel prints it, which starts above a mount of
// a part of the hierarchy.
func (l *loop) hostPath(n *node) string {
	switch root := l.files.hier.Root; {
	case root == "" || root == "/" || strings.Contains(root, ".."):
		return n.path
	case n.path == "/":
		return root
	default:
		return root + n.path
	}
}

func (l *loop) cgroup(n *node) signal.Cgroup { return signal.Cgroup{ID: n.id, Path: l.hostPath(n)} }

// stat returns the inode number of a cgroup's directory and whether it may
// have cgroups below it.
func stat(dir string) (id uint64, leaf bool, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return 0, false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return 0, false, unix.ENOTDIR
	}
	// kernfs counts directories below in the links, beside its own two.
	return st.Ino, st.Nlink == 2, nil
}

// subdirs lists the cgroups right below a directory.
func subdirs(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
