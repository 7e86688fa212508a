// SPDX-License-Identifier: Apache-2.0

package oomtest

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// prefix opens the name of every cgroup at the top that this package makes.
const prefix = "coroner-test-"

// patience bounds every wait; a TCG machine is slow, and slower where all its
// memory is to be taken.
const patience = 2 * time.Minute

// Tree is a root cgroup of one test, removed with all below it at its end.
type Tree struct {
	// Version is 1 or 2.
	Version int
	// Mount is where the memory hierarchy is mounted.
	Mount string
	// Root is the tree's own path below Mount.
	Root string

	t testing.TB
}

// New makes a tree; it skips the test where there can be no real kills.
func New(t testing.TB) *Tree {
	t.Helper()
	Require(t, RealKills)
	h, err := find()
	if err != nil {
		t.Fatal(err)
	}
	sweep(h)
	dir, err := makeRoot(h.mount)
	if err != nil {
		t.Fatal(err)
	}
	tr := &Tree{Version: h.version, Mount: h.mount, Root: "/" + filepath.Base(dir), t: t}
	t.Cleanup(func() {
		if err := remove(dir); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	if err := tr.ready(dir); err != nil {
		t.Fatal(err)
	}
	return tr
}

// makeRoot makes a cgroup that everybody may read, as all cgroups are, from
// its first moment. Its name was never used before: the kernel's log still
// tells of the tests before this one.
func makeRoot(mount string) (string, error) {
	dir := filepath.Join(mount, fmt.Sprintf("%s%d-%s", prefix, os.Getpid(), strconv.FormatInt(time.Now().UnixNano(), 36)))
	return dir, os.Mkdir(dir, 0o755)
}

// Setting is a file of a cgroup to write, once it is made.
type Setting struct{ v1, v2, value string }

// Limit is memory.max or memory.limit_in_bytes, without swap.
func Limit(n int64) Setting {
	return Setting{"memory.limit_in_bytes", "memory.max", strconv.FormatInt(n, 10)}
}

// Group is memory.oom.group=1: the whole cgroup dies at once. Only on v2.
func Group() Setting { return Setting{"", "memory.oom.group", "1"} }

// Mems restricts the NUMA nodes to take memory from. Only on v2.
func Mems(nodes string) Setting { return Setting{"", "cpuset.mems", nodes} }

// Cgroup is one cgroup of a Tree.
type Cgroup struct {
	// Path is the path below the hierarchy's root, as the kernel prints it.
	Path string
	// Dir is where it is in the file system.
	Dir  string
	tree *Tree
}

// Cgroup makes the cgroup with this path below the tree's root, and its
// parents.
func (tr *Tree) Cgroup(name string, settings ...Setting) *Cgroup {
	tr.t.Helper()
	p := tr.Root
	for _, part := range strings.Split(name, "/") {
		if err := tr.ready(filepath.Join(tr.Mount, p)); err != nil {
			tr.t.Fatal(err)
		}
		p = path.Join(p, part)
		if err := os.Mkdir(filepath.Join(tr.Mount, p), 0o755); err != nil && !os.IsExist(err) {
			tr.t.Fatal(err)
		}
	}
	c := &Cgroup{Path: p, Dir: filepath.Join(tr.Mount, p), tree: tr}
	for _, s := range settings {
		c.Set(s)
	}
	return c
}

// ready makes the cgroup's controllers available to its children.
func (tr *Tree) ready(dir string) error {
	if tr.Version == 1 {
		// Needed before 5.11, refused or ignored since.
		_ = write(filepath.Join(dir, "memory.use_hierarchy"), "1")
		return nil
	}
	for d := dir; ; d = filepath.Dir(d) {
		if d == tr.Mount || d == filepath.Dir(tr.Mount) {
			break
		}
		if err := write(filepath.Join(filepath.Dir(d), "cgroup.subtree_control"), "+memory"); err != nil {
			return err
		}
		_ = write(filepath.Join(filepath.Dir(d), "cgroup.subtree_control"), "+cpuset") // only Mems needs it
	}
	_ = write(filepath.Join(dir, "cgroup.subtree_control"), "+cpuset")
	return write(filepath.Join(dir, "cgroup.subtree_control"), "+memory")
}

// Set changes a setting.
func (c *Cgroup) Set(s Setting) {
	c.tree.t.Helper()
	name := s.v2
	if c.tree.Version == 1 {
		name = s.v1
	}
	if name == "" {
		c.tree.t.Fatalf("cgroup v%d has no such setting: %+v", c.tree.Version, s)
	}
	if err := write(filepath.Join(c.Dir, name), s.value); err != nil {
		c.tree.t.Fatal(err)
	}
	switch name { // no swap, where there is any
	case "memory.limit_in_bytes":
		_ = write(filepath.Join(c.Dir, "memory.memsw.limit_in_bytes"), s.value)
	case "memory.max":
		_ = write(filepath.Join(c.Dir, "memory.swap.max"), "0")
	}
}

// Inode is the number of the cgroup's directory: the kernel's id of it.
func (c *Cgroup) Inode() uint64 {
	c.tree.t.Helper()
	fi, err := os.Stat(c.Dir)
	if err != nil {
		c.tree.t.Fatal(err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		c.tree.t.Fatalf("stat %s: no inode", c.Dir)
	}
	return st.Ino
}

// OOMKills is the kernel's count of processes killed in this very cgroup:
// memory.oom_control since 4.13, memory.events.local since 5.3.
func (c *Cgroup) OOMKills() uint64 {
	c.tree.t.Helper()
	name := "memory.events.local"
	if c.tree.Version == 1 {
		name = "memory.oom_control"
	}
	n, err := counter(filepath.Join(c.Dir, name), "oom_kill")
	if err != nil {
		c.tree.t.Fatal(err)
	}
	return n
}

// Usage is what the cgroup holds now.
func (c *Cgroup) Usage() int64 {
	c.tree.t.Helper()
	name := "memory.current"
	if c.tree.Version == 1 {
		name = "memory.usage_in_bytes"
	}
	b, err := os.ReadFile(filepath.Join(c.Dir, name))
	if err != nil {
		c.tree.t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		c.tree.t.Fatal(err)
	}
	return n
}

// PIDs lists the processes in this very cgroup.
func (c *Cgroup) PIDs() []int { return pids(c.Dir) }

// Remove kills what is left in the cgroup and those below it, and removes them.
func (c *Cgroup) Remove() {
	c.tree.t.Helper()
	if err := remove(c.Dir); err != nil {
		c.tree.t.Fatal(err)
	}
}

func pids(dir string) []int {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var out []int
	for f := range bytes.FieldsSeq(b) {
		if n, err := strconv.Atoi(string(f)); err == nil && n > 0 {
			out = append(out, n)
		}
	}
	return out
}

// remove empties and removes a cgroup and all below it. What is in them was
// started by this package.
func remove(dir string) error {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return Poll(patience, func() error {
		for _, pid := range pids(dir) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err := syscall.Rmdir(dir); err != nil && err != syscall.ENOENT {
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		return nil
	})
}

// sweep removes the trees of test processes that are no more.
func sweep(h hierarchy) {
	dirs, _ := filepath.Glob(filepath.Join(h.mount, prefix+"[0-9]*-*"))
	for _, d := range dirs {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(d), prefix), "-")
		if _, err := os.Stat("/proc/" + pid); os.IsNotExist(err) {
			_ = remove(d)
		}
	}
}

// Poll calls f until it gives nil, and gives its last error after the time.
func Poll(limit time.Duration, f func() error) error {
	deadline := time.Now().Add(limit)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(wait)
	}
}

func write(path, value string) error { return os.WriteFile(path, []byte(value), 0) }
