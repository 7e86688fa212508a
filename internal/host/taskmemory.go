// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// TaskMemory is what the kernel weighs of a process when it chooses whom to
// kill (oom_badness in mm/oom_kill.c).
type TaskMemory struct {
	Comm string
	// RSSBytes is VmRSS, SwapBytes VmSwap, PageTablesBytes VmPTE.
	RSSBytes, SwapBytes, PageTablesBytes int64
	OOMScoreAdj                          int
}

// TaskMemory reads it from /proc/PID. It is false for one without memory of its
// own: a kernel thread, or a process that has ended.
func (r Roots) TaskMemory(pid int) (TaskMemory, bool, error) {
	dir := strconv.Itoa(pid)
	b, err := readFile(r.ProcPath(dir, "status"), maxSmallFile)
	if err != nil {
		return TaskMemory{}, false, err
	}
	t, ok, err := parseTaskMemory(string(b))
	if err != nil || !ok {
		return TaskMemory{}, false, err
	}
	s, err := readWord(r.ProcPath(dir, "oom_score_adj"))
	if err != nil {
		return TaskMemory{}, false, err
	}
	adj, err := strconv.ParseInt(s, 10, 16)
	if err != nil {
		return TaskMemory{}, false, fmt.Errorf("parse oom_score_adj of pid %d: %q", pid, clip(s))
	}
	t.OOMScoreAdj = int(adj)
	return t, true, nil
}

func parseTaskMemory(status string) (TaskMemory, bool, error) {
	if _, ok := statusLine(status, "VmRSS"); !ok {
		return TaskMemory{}, false, nil
	}
	var t TaskMemory
	for _, f := range []struct {
		key string
		to  *int64
	}{{"VmRSS", &t.RSSBytes}, {"VmSwap", &t.SwapBytes}, {"VmPTE", &t.PageTablesBytes}} {
		line, ok := statusLine(status, f.key)
		if !ok {
			continue // VmSwap without CONFIG_SWAP
		}
		kb, err := strconv.ParseUint(strings.TrimSuffix(line, " kB"), 10, 52)
		if err != nil {
			return TaskMemory{}, false, fmt.Errorf("parse status: line %s: %q", f.key, clip(line))
		}
		*f.to = int64(kb) << 10
	}
	t.Comm, _ = statusLine(status, "Name")
	return t, true, nil
}

// PIDs lists the processes of this procfs.
func (r Roots) PIDs() ([]int, error) {
	f, err := os.Open(r.ProcPath())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", f.Name(), err)
	}
	var pids []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
