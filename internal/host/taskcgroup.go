// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"io"
	"iter"
	"os"
	"strconv"
	"strings"
)

// flagExiting is PF_EXITING (include/linux/sched.h): on v1 such a task shows
// the root as its cgroup, wherever it lived.
const flagExiting = 0x4

// maxTaskFile bounds what is read of a file of a task: cgroup has a path of a
// page for each hierarchy at most.
const maxTaskFile = 64 << 10

// TaskCgroup returns the memory cgroup of a task as the kernel prints it, in a
// hierarchy of this version; empty where that is not known.
func (r Roots) TaskCgroup(tid, version int) string {
	dir := strconv.Itoa(tid)
	// The cgroup first: it is the first thing that a dying task loses.
	b, stat := r.taskFile(dir, "cgroup"), r.taskFile(dir, "stat")
	path := parseTaskCgroup(b, version)
	if path == "/" && version == 1 && !Alive(stat) {
		return ""
	}
	return path
}

// taskFile returns the start of a file of a task, nothing where it cannot: a
// task that is gone is no news here.
func (r Roots) taskFile(dir, name string) []byte {
	f, err := os.Open(r.ProcPath(dir, name))
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTaskFile))
	if err != nil {
		return nil
	}
	return b
}

// parseTaskCgroup finds the memory cgroup in /proc/PID/cgroup, lines of
// HIERARCHY:CONTROLLERS:PATH (cgroups(7)); empty: it is not there.
func parseTaskCgroup(b []byte, version int) string {
	for line := range WholeLines(b) {
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			continue
		}
		switch {
		case version == 1 && hasOption(f[1], "memory"):
			return f[2]
		case version == 2 && f[0] == "0" && f[1] == "":
			return strings.TrimSuffix(f[2], " (deleted)") // a removed cgroup
		}
	}
	return ""
}

// BelowRoot tells whether a path of TaskCgroup starts at the hierarchy's root.
// One above the reader's own cgroup namespace does not: it serves only to be
// compared.
func BelowRoot(path string) bool {
	return path != "" && path != "/.." && !strings.HasPrefix(path, "/../")
}

// WholeLines gives the lines that have an end, without it: the last of what
// was read can be cut, and would say something else.
func WholeLines(b []byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range bytes.Lines(b) {
			whole, ok := bytes.CutSuffix(line, []byte{'\n'})
			if ok && !yield(string(whole)) {
				return
			}
		}
	}
}

// Fields of /proc/PID/stat, counted after the name from 0: the n-th is number
// n+3 of proc(5) (fs/proc/array.c, do_task_stat).
const (
	statFlags     = 6
	statStartTime = 19
)

// statField returns a field of /proc/PID/stat after the name.
func statField(stat []byte, n int) (uint64, bool) {
	// comm stands in parentheses and can hold any byte: go from the last one.
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, false
	}
	f := bytes.Fields(stat[i+1:])
	if len(f) <= n {
		return 0, false
	}
	v, err := strconv.ParseUint(string(f[n]), 10, 64)
	return v, err == nil
}

// Alive tells from the text of /proc/PID/stat that a task has not begun to exit.
func Alive(stat []byte) bool {
	flags, ok := statField(stat, statFlags)
	return ok && flags&flagExiting == 0
}
