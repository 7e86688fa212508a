// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/signal"
)

func TestRun_GroupKill(t *testing.T) {
	if h := findHierarchy(t); h.version != 2 {
		t.Skip("memory.oom.group is of cgroup v2, this machine has memory on v1")
	}
	eachMode(t, func(t *testing.T, w *watch, tree group) {
		leaf := tree.child("group", limit)
		t.Cleanup(leaf.remove)
		leaf.set(filepath.Join(leaf.dir(), "memory.oom.group"), "1")
		greedy := start(t, leaf, "leak", "greedy", nil)
		modest := start(t, leaf, "wait", "modest", nil)
		greedy.word()
		greedy.end()
		modest.end()
		for _, pid := range []int{greedy.pid(), modest.pid()} {
			m, _, _ := w.mark(pid)
			if w.state.Mode == ModeBPF && (len(m.Chain) == 0 || !m.Chain[0].OOMGroup || m.Chain[0].Path != leaf.path || m.Chain[1].OOMGroup) {
				t.Errorf("chain = %+v, want oom_group on %s alone", m.Chain, leaf.path)
			}
		}
		// A process is marked again only by another of its threads.
		threads := make(map[int]int)
		for _, s := range w.all() {
			m, ok := s.Body.(signal.MarkVictim)
			if !ok {
				continue
			}
			threads[m.Victim.TID]++
			if pid := m.Victim.PID; m.Victim.Cgroup.Path == leaf.path && pid != greedy.pid() && pid != modest.pid() {
				t.Errorf("mark of %d, want %d and %d", pid, greedy.pid(), modest.pid())
			}
			if threads[m.Victim.TID] > 1 {
				t.Errorf("thread %d was marked %d times, want once", m.Victim.TID, threads[m.Victim.TID])
			}
		}
	})
}

// TestRun_DeepCgroup goes down to the deepest level whose path the kernel's
// programs tell, with long names, and one further.
func TestRun_DeepCgroup(t *testing.T) {
	for name, below := range map[string]int{"deepest": maxLevels - 1, "too deep": maxLevels} {
		t.Run(name, func(t *testing.T) {
			w := newWatch(t, ModeBPF)
			g := newTree(t)
			for i := range below {
				size := int64(0)
				if i == below-1 {
					size = limit
				}
				if i > 0 && g.h.version == 2 {
					g.set(filepath.Join(g.dir(), "cgroup.subtree_control"), "+memory")
				}
				g = g.child(strings.Repeat(string(rune('a'+i)), 220), size)
				t.Cleanup(g.remove)
			}
			p := start(t, g, "leak", "deep", nil)
			p.word()
			p.end()
			m, _, _ := w.mark(p.pid())
			// Behind the limit procfs may know the path; a part of it would be wrong.
			if got := m.Victim.Cgroup.Path; got != g.path && (got != "" || below < maxLevels) {
				t.Errorf("path of %d bytes, want the %d bytes of its own", len(got), len(g.path))
			}
			if len(m.Chain) != maxLevels || m.Chain[0].ID != g.inode() || m.Chain[0].LimitBytes == nil {
				t.Errorf("chain = %d levels from %d, want %d from %d", len(m.Chain), m.Chain[0].ID, maxLevels, g.inode())
			}
			for _, s := range w.all() {
				if l, ok := s.Body.(signal.Lost); ok {
					t.Errorf("lost %+v", l)
				}
			}
		})
	}
}
