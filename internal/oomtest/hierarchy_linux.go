// SPDX-License-Identifier: Apache-2.0

package oomtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// hierarchy is where the memory controller is mounted.
type hierarchy struct {
	version int
	mount   string
}

// find reads /proc/self/mountinfo (proc(5)). The memory controller is either on
// a v1 hierarchy or, else, on the unified one.
func find() (hierarchy, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return hierarchy{}, err
	}
	var unified string
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		switch {
		case right[0] == "cgroup" && slices.Contains(strings.Split(right[2], ","), "memory"):
			return hierarchy{1, left[4]}, nil
		case right[0] == "cgroup2":
			unified = left[4]
		}
	}
	controllers, err := os.ReadFile(filepath.Join(unified, "cgroup.controllers"))
	if unified == "" || err != nil || !slices.Contains(strings.Fields(string(controllers)), "memory") {
		return hierarchy{}, errors.New("no memory controller is mounted")
	}
	return hierarchy{2, unified}, nil
}

// probe makes and removes a cgroup; it says why that is not possible.
func (h hierarchy) probe() string {
	dir := filepath.Join(h.mount, fmt.Sprintf("%sprobe-%d", prefix, os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err.Error()
	}
	if err := os.Remove(dir); err != nil {
		return err.Error()
	}
	return ""
}

// NodeOOMKills is the machine's own count (oom_kill of /proc/vmstat).
func NodeOOMKills() (uint64, error) { return counter("/proc/vmstat", "oom_kill") }

// counter reads the number after a word at the start of a line.
func counter(path, word string) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, word+" "); ok {
			return strconv.ParseUint(strings.TrimSpace(v), 10, 64)
		}
	}
	return 0, fmt.Errorf("%s: no %s", path, word)
}
