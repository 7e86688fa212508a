// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"bytes"
	"io"
	"iter"
	"os"
	"strconv"
	"strings"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

const sigKill = 9

// flagExiting is PF_EXITING (include/linux/sched.h): on v1 such a task shows
// the root as its cgroup, wherever it lived.
const flagExiting = 0x4

// procfs looks up tasks that an event names only by an id. A task can be gone
// by then, or be past telling: what is not sure stays absent.
type procfs struct {
	roots   host.Roots
	version int // of the memory hierarchy; 0: there is none
}

func newProcfs(r host.Roots) procfs {
	h, err := r.MemoryHierarchy()
	if err != nil {
		return procfs{roots: r}
	}
	return procfs{roots: r, version: h.Version}
}

// lookup returns what procfs says of the task with this thread id.
func (p procfs) lookup(tid int) signal.Task {
	t := signal.Task{TID: tid}
	dir := strconv.Itoa(tid)
	// The cgroup first: it is the first thing that a dying task loses.
	cgroup := p.cgroup(dir)
	if belowRoot(cgroup) {
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

// cgroup returns the memory cgroup of a task as the kernel prints it, empty
// where that is not known.
func (p procfs) cgroup(dir string) string {
	b, stat := p.read(dir, "cgroup"), p.read(dir, "stat")
	path := parseTaskCgroup(b, p.version)
	if path == "/" && p.version == 1 && !alive(stat) {
		return ""
	}
	return path
}

// otherCgroup tells whether a process's parent lives in another memory cgroup
// than it does; nil: not known.
func (p procfs) otherCgroup(own string, parent int) *bool {
	if own == "" || parent == 0 {
		return nil
	}
	theirs := p.cgroup(strconv.Itoa(parent))
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

// parseTaskCgroup finds the memory cgroup in /proc/PID/cgroup, lines of
// HIERARCHY:CONTROLLERS:PATH (cgroups(7)); empty: it is not there.
func parseTaskCgroup(b []byte, version int) string {
	for line := range wholeLines(b) {
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			continue
		}
		switch {
		case version == 1 && hasWord(f[1], "memory"):
			return f[2]
		case version == 2 && f[0] == "0" && f[1] == "":
			return strings.TrimSuffix(f[2], " (deleted)") // a removed cgroup
		}
	}
	return ""
}

// belowRoot tells whether a path starts at the hierarchy's root. One above the
// reader's own cgroup namespace does not: it serves only to be compared.
func belowRoot(path string) bool {
	return path != "" && path != "/.." && !strings.HasPrefix(path, "/../")
}

func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// parseStatus takes Name, Tgid, Uid and NSpid from /proc/PID/status. A process can
// shape no line of it: the kernel escapes its name. For the first process of a
// pid namespace it leaves Init to the caller, who has to look at the parent.
func parseStatus(b []byte, t *signal.Task) (parent int, first bool) {
	var ids []string
	for line := range wholeLines(b) {
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

// wholeLines gives the lines that have an end, without it: the last of what
// was read can be cut, and would say something else.
func wholeLines(b []byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range bytes.Lines(b) {
			whole, ok := bytes.CutSuffix(line, []byte{'\n'})
			if ok && !yield(string(whole)) {
				return
			}
		}
	}
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

// alive tells from /proc/PID/stat that a task has not begun to exit.
func alive(stat []byte) bool {
	// comm stands in parentheses and can hold any byte: go from the last one.
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return false
	}
	f := bytes.Fields(stat[i+1:]) // state ppid pgrp session tty_nr tpgid flags
	if len(f) < 7 {
		return false
	}
	flags, err := strconv.ParseUint(string(f[6]), 10, 64)
	return err == nil && flags&flagExiting == 0
}
