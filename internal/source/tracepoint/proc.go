// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

const sigKill = 9

// procfs looks up tasks that an event names only by an id. A task can be gone
// by then, or be past telling: what is not sure stays absent.
type procfs struct {
	roots   host.Roots
	version int  // of the memory hierarchy; 0: there is none
	blind   bool // its ids are not those of the kernel's events
}

func newProcfs(r host.Roots) procfs {
	p := procfs{roots: r, blind: !r.KernelPIDs()}
	if h, err := r.MemoryHierarchy(); err == nil {
		p.version = h.Version
	}
	return p
}

// lookup returns what procfs says of the task with this thread id.
func (p procfs) lookup(tid int) signal.Task {
	t := signal.Task{TID: tid}
	if p.blind {
		return t
	}
	dir := strconv.Itoa(tid)
	// The cgroup first: it is the first thing that a dying task loses.
	cgroup := p.roots.TaskCgroup(tid, p.version)
	if host.BelowRoot(cgroup) {
		t.Cgroup.Path = cgroup
	}
	parent, first := parseStatus(p.read(dir, "status"), &t)
	if first {
		t.Init = p.otherCgroup(cgroup, parent)
	}
	if comm := p.read(dir, "comm"); len(comm) > 0 { // else it has gone since its status was read
		t.Comm = strings.TrimSuffix(string(comm), "\n")
	}
	if ns, err := p.roots.PIDNS(tid); err == nil {
		t.PIDNS = ns
	}
	return t
}

// otherCgroup tells whether a process's parent lives in another memory cgroup
// than it does; nil: not known.
func (p procfs) otherCgroup(own string, parent int) *bool {
	if own == "" || parent == 0 {
		return nil
	}
	theirs := p.roots.TaskCgroup(parent, p.version)
	if theirs == "" {
		return nil
	}
	other := own != theirs
	return &other
}

// read returns the start of a file of a task, nothing where it cannot: a task
// that is gone is no news here.
func (p procfs) read(dir, name string) []byte {
	f, err := os.Open(p.roots.ProcPath(dir, name))
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return nil
	}
	return b
}

// threads returns the ids of a process's threads, most of them at most.
func (p procfs) threads(pid, most int) []int {
	if p.blind {
		return nil
	}
	f, err := os.Open(p.roots.ProcPath(strconv.Itoa(pid), "task"))
	if err != nil {
		return nil
	}
	defer f.Close()
	names, err := f.Readdirnames(most)
	if err != nil {
		return nil
	}
	var tids []int
	for _, n := range names {
		if tid, err := strconv.Atoi(n); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids
}

// parseStatus takes Name, Tgid, Uid and NSpid from /proc/PID/status. A process can
// shape no line of it: the kernel escapes its name. For the first process of a
// pid namespace it leaves Init to the caller, who has to look at the parent.
func parseStatus(b []byte, t *signal.Task) (parent int, first bool) {
	var ids []string
	for line := range host.WholeLines(b) {
		key, value, _ := strings.Cut(line, ":")
		if key == "Name" {
			t.Comm = strings.NewReplacer(`\n`, "\n", `\\`, `\`).Replace(strings.TrimPrefix(value, "\t"))
			continue
		}
		f := strings.Fields(value)
		if len(f) == 0 {
			continue
		}
		switch key {
		case "Tgid":
			t.PID = parsePID(f[0])
		case "Uid":
			if n, err := strconv.ParseUint(f[0], 10, 32); err == nil {
				uid := int64(n)
				t.UID = &uid
			}
		case "PPid":
			parent = parsePID(f[0])
		case "NSpid":
			ids = f
		}
	}
	return parent, firstByNSpid(ids, t)
}

// parsePID gives 0, which no process has, for what is no id.
func parsePID(s string) int {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0
	}
	return int(n)
}

// firstByNSpid tells whether a process is the first of a pid namespace below
// the initial one; where it is not, Init is false.
func firstByNSpid(ids []string, t *signal.Task) bool {
	// NSpid is of the thread: that of another than the first says nothing.
	if len(ids) == 0 || t.PID != 0 && t.TID != 0 && t.PID != t.TID {
		return false
	}
	first := len(ids) > 1 && ids[len(ids)-1] == "1"
	if !first {
		t.Init = new(bool)
	}
	return first
}
