// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// MemoryLimit is the smallest memory limit above a process.
type MemoryLimit struct {
	// Bytes is the limit; 0: there is none that can be seen.
	Bytes int64
	// File is the file that sets it.
	File string
}

// OwnMemoryLimit finds the smallest memory limit of this process's own cgroup
// and of those above it: memory.max and memory.high on v2 (at the latter the
// kernel makes a process wait), memory.limit_in_bytes on v1. What is above a
// cgroup namespace or a mount of a part cannot be seen.
func (r Roots) OwnMemoryLimit() (MemoryLimit, error) {
	h, err := r.MemoryHierarchy()
	if err != nil {
		return MemoryLimit{}, err
	}
	own := r.ProcPath("self/cgroup")
	b, err := readFile(own, maxSmallFile)
	if err != nil {
		return MemoryLimit{}, err
	}
	at, ok := ownCgroup(string(b), h.Version)
	if !ok {
		return MemoryLimit{}, fmt.Errorf("parse %s: no memory cgroup of %s", own, h)
	}
	at, ok = belowMount(at, h.Root)
	if !ok {
		return MemoryLimit{}, nil
	}
	names := []string{"memory.max", "memory.high"}
	if h.Version == 1 {
		names = []string{"memory.limit_in_bytes"}
	}
	var least MemoryLimit
	for {
		for _, name := range names {
			file := filepath.Join(h.Dir(at), name)
			n, err := readLimit(file)
			switch {
			case errors.Is(err, fs.ErrNotExist): // the root has none
			case err != nil:
				return MemoryLimit{}, err
			case n > 0 && (least.Bytes == 0 || n < least.Bytes):
				least = MemoryLimit{n, file}
			}
		}
		if at == "/" {
			return least, nil
		}
		at = path.Dir(at)
	}
}

// ownCgroup finds the memory cgroup in /proc/self/cgroup, lines of
// HIERARCHY:CONTROLLERS:PATH (cgroups(7)).
func ownCgroup(text string, version int) (string, bool) {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			continue
		}
		if version == 2 && f[0] == "0" && f[1] == "" || version == 1 && hasOption(f[1], "memory") {
			return f[2], true
		}
	}
	return "", false
}

// belowMount turns a cgroup's path into one below the mount, where the mount
// shows root.
func belowMount(at, root string) (string, bool) {
	if root != "/" && root != "" {
		rest, ok := strings.CutPrefix(at, root)
		if !ok || rest != "" && rest[0] != '/' {
			return "", false
		}
		at = rest
	}
	if at == "/.." || strings.HasPrefix(at, "/../") {
		return "", false // above the reader's cgroup namespace
	}
	return path.Clean("/" + at), true
}

// unlimited is what v1 says of no limit: the largest number of whole pages.
// With pages of 64 KiB it is the smallest, so from there on all are none.
const unlimited = 1<<63 - 1<<16

// readLimit gives 0 for no limit.
func readLimit(file string) (int64, error) {
	s, err := readWord(file)
	if err != nil {
		return 0, err
	}
	n, ok := parseLimit(s)
	if !ok {
		return 0, fmt.Errorf("parse %s: %q", file, clip(s))
	}
	return n, nil
}

func parseLimit(s string) (int64, bool) {
	if s == "max" {
		return 0, true
	}
	n, err := strconv.ParseUint(s, 10, 63)
	switch {
	case err != nil:
		return 0, false
	case n >= unlimited:
		return 0, true
	}
	return int64(n), true
}
