// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrNoMemoryHierarchy is wrapped when no mounted cgroup hierarchy has the
// memory controller.
var ErrNoMemoryHierarchy = errors.New("no cgroup hierarchy with the memory controller is mounted")

// Hierarchy is where memory cgroups live.
type Hierarchy struct {
	// Version is 1 or 2.
	Version int
	// Mount is the directory of the root cgroup.
	Mount string
	// Root is the part of the hierarchy that is mounted there: "/" for the
	// whole, a path for a part (a bind mount, or a mount made in another
	// cgroup namespace). Paths that the kernel prints start above it.
	Root string
	// Hybrid is true where version 1 holds memory and a version 2 hierarchy
	// without the memory controller is mounted beside it.
	Hybrid bool
	// LocalEvents is true on version 2 mounted with memory_localevents
	// (since 5.2): memory.events then counts the cgroup alone, not its subtree.
	LocalEvents bool
}

// String names the kind of hierarchy: "v1", "v2" or "hybrid v1".
func (h Hierarchy) String() string {
	switch {
	case h.Version == 1 && h.Hybrid:
		return "hybrid v1"
	case h.Version != 0:
		return fmt.Sprintf("v%d", h.Version)
	}
	return "none"
}

// Dir returns the directory of the cgroup with this path below the root.
func (h Hierarchy) Dir(path string) string { return filepath.Join(h.Mount, path) }

// Part tells whether only a part of the hierarchy is seen here, as in a
// container that was not given the host's. On version 2 the root alone has no
// limit; a part of version 1 is seen by how it is mounted.
func (h Hierarchy) Part() bool {
	if h.Version == 2 {
		_, err := os.Stat(filepath.Join(h.Mount, "memory.max"))
		return err == nil
	}
	return h.Root != "" && h.Root != "/" && !strings.Contains(h.Root, "..") // which is above the reader's own
}

// MemoryHierarchy finds where memory cgroups are mounted. Roots that name
// places are believed: what is there is looked at. Otherwise mountinfo tells.
func (r Roots) MemoryHierarchy() (Hierarchy, error) {
	ms, err := r.mounts()
	if r.Cgroup == "" && r.Sys == "" && err == nil {
		return hierarchyOf(ms, hasMemoryController)
	}
	h, lookErr := lookHierarchy(r.CgroupPath())
	if lookErr != nil {
		return Hierarchy{}, errors.Join(lookErr, err)
	}
	for _, m := range ms {
		if m.point == h.Mount {
			h.Root = m.root
			h.LocalEvents = h.Version == 2 && hasOption(m.super, "memory_localevents")
		}
	}
	return h, nil
}

// hierarchyOf picks from a mount table. A controller can be bound to one
// hierarchy only, so a v1 memory mount settles it. hasMemory tells whether
// the v2 hierarchy at a mount point has the memory controller.
func hierarchyOf(ms []mount, hasMemory func(point string) bool) (Hierarchy, error) {
	v1 := pick(ms, func(m mount) bool { return m.fstype == "cgroup" && hasOption(m.super, "memory") })
	v2 := pick(ms, func(m mount) bool { return m.fstype == "cgroup2" })
	switch {
	case v1 != nil:
		return Hierarchy{Version: 1, Mount: v1.point, Root: v1.root, Hybrid: v2 != nil}, nil
	case v2 == nil:
		return Hierarchy{}, ErrNoMemoryHierarchy
	case !hasMemory(v2.point):
		return Hierarchy{}, fmt.Errorf("cgroup2 at %s without memory: %w", v2.point, ErrNoMemoryHierarchy)
	}
	return Hierarchy{
		Version: 2, Mount: v2.point, Root: v2.root,
		LocalEvents: hasOption(v2.super, "memory_localevents"),
	}, nil
}

// pick prefers a mount of the whole hierarchy to one of a part, and the first
// to later ones. What it returns does not keep the table, which has a mount
// for each container and more, in memory.
func pick(ms []mount, want func(mount) bool) *mount {
	var best *mount
	for i := range ms {
		if want(ms[i]) && (best == nil || ms[i].root == "/") {
			if best = &ms[i]; best.root == "/" {
				break
			}
		}
	}
	if best == nil {
		return nil
	}
	return &mount{
		root: strings.Clone(best.root), point: strings.Clone(best.point), fstype: strings.Clone(best.fstype),
		super: strings.Clone(best.super), options: strings.Clone(best.options),
	}
}

// lookHierarchy tells the kind from the files that each kind has in its root.
func lookHierarchy(dir string) (Hierarchy, error) {
	if hasMemoryController(dir) {
		return Hierarchy{Version: 2, Mount: dir, Root: "/"}, nil
	}
	for _, d := range []string{filepath.Join(dir, "memory"), dir} {
		if exists(filepath.Join(d, "memory.oom_control")) {
			hybrid := exists(filepath.Join(dir, "unified", "cgroup.procs"))
			return Hierarchy{Version: 1, Mount: d, Root: "/", Hybrid: hybrid}, nil
		}
	}
	if _, err := os.Stat(dir); err != nil {
		return Hierarchy{}, err
	}
	return Hierarchy{}, fmt.Errorf("%s: %w", dir, ErrNoMemoryHierarchy)
}

// hasMemoryController reads cgroup.controllers, which only v2 has.
func hasMemoryController(dir string) bool {
	b, err := readFile(filepath.Join(dir, "cgroup.controllers"), maxSmallFile)
	if err != nil {
		return false
	}
	for _, c := range strings.Fields(string(b)) {
		if c == "memory" {
			return true
		}
	}
	return false
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
