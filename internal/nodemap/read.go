// SPDX-License-Identifier: Apache-2.0

package nodemap

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
)

// How much of a tree is read: a node has some hundred cgroups that matter here.
const (
	maxGroups = 4096
	maxDepth  = 12
	maxTasks  = 32768
	// leastRest is what a slice must hold beside its units to be told of.
	leastRest = 1 << 20
)

// Read takes what the kernel tells of memory. Without Tasks, which are a
// matter of their own: ReadTasks.
func Read(roots host.Roots) (Facts, error) {
	f := Facts{Time: time.Now().UTC()}
	h, err := roots.MemoryHierarchy()
	if err != nil && !errors.Is(err, host.ErrNoMemoryHierarchy) {
		return Facts{}, err
	}
	if err == nil {
		f.Version, f.Part = h.Version, h.Part()
		w := walk{hier: h, facts: &f}
		if !f.Part {
			w.root()
		}
		w.visit("/", 0)
	}
	// Last: what the cgroups took meanwhile is then in both.
	if f.MemInfo, err = roots.MemInfo(); err != nil {
		return Facts{}, err
	}
	f.PerCPUFreeBytes, _ = roots.PerCPUFree() // without it they are unaccounted
	return f, nil
}

// ReadTasks adds the processes to f.
func (f *Facts) ReadTasks(roots host.Roots) {
	if !roots.KernelPIDs() {
		f.TasksWhy = "the processes are seen from a pid namespace of its own, which shows only some of them"
		return
	}
	pids, err := roots.PIDs()
	if err != nil {
		f.TasksWhy = err.Error()
		return
	}
	if len(pids) > maxTasks {
		f.TasksWhy = fmt.Sprintf("%d processes are more than the %d that are looked at", len(pids), maxTasks)
		return
	}
	for _, pid := range pids {
		m, ok, err := roots.TaskMemory(pid)
		if err != nil || !ok {
			continue // it ended meanwhile, or is the kernel's
		}
		f.Tasks = append(f.Tasks, Task{PID: pid, TaskMemory: m, Cgroup: roots.TaskCgroup(pid, f.Version)})
	}
}

// walk reads a tree of cgroups.
type walk struct {
	hier  host.Hierarchy
	facts *Facts
	n     int
}

// root reads what the kubelet takes for the node's own figures: on v1 usage of
// the root, which is its anonymous memory and its page cache; on v2 the
// same two of memory.stat (libcontainer, cgroups/fs2/memory.go).
func (w *walk) root() {
	stat, err := w.stat("/")
	if err != nil || stat.inactiveFile == nil {
		return
	}
	var usage int64
	if w.hier.Version == 1 {
		if usage, err = w.number("/", "memory.usage_in_bytes"); err != nil {
			return
		}
	} else {
		usage = stat.anon + stat.file
	}
	w.facts.RootUsageBytes, w.facts.InactiveFileBytes = &usage, stat.inactiveFile
}

// visit parts what is below a cgroup, and returns what its parts hold together.
func (w *walk) visit(at string, depth int) (sum Group) {
	for _, name := range w.below(at) {
		p := path.Join(at, name)
		is := cgpath.Parse(p)
		var g Group
		switch {
		case is.Level == cgpath.Kubepods && w.facts.Kubepods == nil:
			g = w.kubepods(p, is)
		case depth < maxDepth && (is.Level == cgpath.Slice || is.Level == cgpath.Other && w.holds(p, 2)):
			g = w.inner(p, is, depth)
		default:
			var ok bool
			if g, ok = w.read(p, is); ok {
				w.facts.Groups = append(w.facts.Groups, g)
			}
		}
		sum = sum.plus(g, 1)
	}
	return sum
}

// inner goes into a cgroup that holds others which matter.
func (w *walk) inner(p string, is cgpath.Path, depth int) Group {
	g, ok := w.read(p, is)
	parts := w.visit(p, depth+1)
	if !ok {
		return parts
	}
	if rest := g.plus(parts, -1); rest.WorkingSetBytes >= leastRest || rest.UsageBytes >= leastRest {
		rest.Rest = true
		w.facts.Groups = append(w.facts.Groups, rest)
	}
	return g
}

// plus adds times b's figures, which may be a little later than g's: nothing
// gets below 0.
func (g Group) plus(b Group, times int64) Group {
	for _, f := range []struct {
		a *int64
		b int64
	}{
		{&g.UsageBytes, b.UsageBytes}, {&g.WorkingSetBytes, b.WorkingSetBytes}, {&g.FileBytes, b.FileBytes},
		{&g.HeldBytes, b.HeldBytes}, {&g.SlabBytes, b.SlabBytes},
	} {
		*f.a = max(0, *f.a+times*f.b)
	}
	return g
}

func (w *walk) kubepods(p string, is cgpath.Path) Group {
	g, ok := w.read(p, is)
	if !ok {
		return Group{}
	}
	w.facts.Kubepods = &g
	w.pods(p)
	return g
}

// pods reads the pods of kubepods or of a QoS class.
func (w *walk) pods(at string) {
	for _, name := range w.below(at) {
		p := path.Join(at, name)
		switch is := cgpath.Parse(p); is.Level {
		case cgpath.QoS:
			w.pods(p)
		case cgpath.Pod:
			if g, ok := w.read(p, is); ok {
				w.facts.Pods = append(w.facts.Pods, g)
			}
		}
	}
}

// holds tells whether somebody who has a name lives at most so far below.
func (w *walk) holds(p string, far int) bool {
	for _, name := range w.below(p) {
		q := path.Join(p, name)
		switch cgpath.Parse(q).Level {
		case cgpath.Container, cgpath.Pod, cgpath.Kubepods, cgpath.Monitor, cgpath.Guest, cgpath.Unit:
			return true
		}
		if far > 1 && w.holds(q, far-1) {
			return true
		}
	}
	return false
}

// below lists the cgroups right below one, in order.
func (w *walk) below(p string) []string {
	entries, err := os.ReadDir(w.hier.Dir(p))
	if err != nil {
		return nil // gone
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out
}

// read takes the figures of one cgroup. One without the memory controller has
// none: what it holds is counted further up.
func (w *walk) read(p string, is cgpath.Path) (Group, bool) {
	if w.n++; w.n > maxGroups {
		w.facts.Unread++
		return Group{}, false
	}
	g := Group{Path: p, Is: is}
	usage, limit := "memory.current", "memory.max"
	if w.hier.Version == 1 {
		usage, limit = "memory.usage_in_bytes", "memory.limit_in_bytes"
	}
	var err error
	if g.UsageBytes, err = w.number(p, usage); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			w.facts.Unread++
		}
		return Group{}, false
	}
	stat, err := w.stat(p)
	if err != nil {
		w.facts.Unread++
		return Group{}, false
	}
	g.WorkingSetBytes = g.UsageBytes
	if stat.inactiveFile != nil {
		g.WorkingSetBytes = max(0, g.UsageBytes-*stat.inactiveFile)
	}
	g.FileBytes = max(0, stat.file-stat.shmem)
	g.HeldBytes = stat.anon + stat.shmem
	g.SlabBytes = stat.slabReclaimable
	if w.hier.Version == 1 {
		g.SlabBytes, _ = w.number(p, "memory.kmem.usage_in_bytes") // gone from kernels without it: 0 says no more than it knows
	}
	if n, err := w.number(p, limit); err == nil && n < noLimit {
		g.LimitBytes = &n
	}
	return g, true
}

// noLimit is the least limit of v1 that is none, and what stands for v2's.
const noLimit = 1 << 62

func (w *walk) number(p, name string) (int64, error) {
	b, err := host.ReadFile(filepath.Join(w.hier.Dir(p), name))
	if err != nil {
		return 0, err
	}
	s := strings.TrimSpace(string(b))
	if s == "max" {
		return noLimit, nil
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("parse %s: %w", name, err)
	}
	return int64(n), nil
}

func (w *walk) stat(p string) (stat, error) {
	b, err := host.ReadFile(filepath.Join(w.hier.Dir(p), "memory.stat"))
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(b), w.hier.Version)
}

// stat is what is needed of memory.stat, by the names of v2; what was not told
// is 0.
type stat struct {
	anon, file, shmem, slabReclaimable int64
	inactiveFile                       *int64
}

// parseStat reads memory.stat. Lines that are cut or of no interest are skipped.
func parseStat(text string, version int) (s stat, err error) {
	var inactive int64
	for line := range strings.Lines(text) {
		line, whole := strings.CutSuffix(line, "\n")
		if !whole {
			break
		}
		key, value, _ := strings.Cut(line, " ")
		if version == 1 {
			key = ofV1(key)
		}
		var to *int64
		switch key {
		case "anon":
			to = &s.anon
		case "file":
			to = &s.file
		case "shmem":
			to = &s.shmem
		case "inactive_file":
			to, s.inactiveFile = &inactive, &inactive
		case "slab_reclaimable":
			to = &s.slabReclaimable
		default:
			continue
		}
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil {
			return stat{}, fmt.Errorf("parse memory.stat: %s: %w", key, err)
		}
		*to = int64(n)
	}
	return s, nil
}

// ofV1 is v2's name for a line of v1 that counts what is below as well; "": it is
// of no interest.
func ofV1(key string) string {
	switch key {
	case "total_rss":
		return "anon"
	case "total_cache":
		return "file"
	case "total_shmem":
		return "shmem"
	case "total_inactive_file":
		return "inactive_file"
	}
	return ""
}

// bySize puts the largest first, and those of one size in the order of names.
func bySize(gs []Group) {
	slices.SortFunc(gs, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.WorkingSetBytes, a.WorkingSetBytes), cmp.Compare(a.Path, b.Path))
	})
}
