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

// ProbeCgroup finds the memory hierarchy and reads one counter file of it.
func (r Roots) ProbeCgroup() Probe {
	p := Probe{Name: ProbeCgroup}
	h, err := r.MemoryHierarchy()
	switch {
	case errors.Is(err, ErrNoMemoryHierarchy):
		p.Status, p.Detail, p.Remedy = No, err.Error(), "mount the host's /sys/fs/cgroup, read-only, and name it with --path.cgroupfs"
		return p
	case err != nil:
		p.Status, p.Detail = Unknown, err.Error()
		return p
	}
	where := h.String() + " at " + h.Mount
	switch known, err := counts(h); {
	case err != nil && errors.Is(err, fs.ErrNotExist):
		p.Status, p.Detail = Unknown, where+": there is no cgroup to read yet"
	case errors.Is(err, fs.ErrPermission):
		p.Status, p.Detail, p.Remedy = No, where+": "+err.Error(), "run as user 0 or with CAP_DAC_READ_SEARCH"
	case err != nil:
		p.Status, p.Detail = Unknown, where+": "+err.Error()
	case !known:
		p.Status, p.Detail = No, where+": the counter files have no oom_kill; Linux 4.13 and later have it"
	default:
		p.Status, p.Detail = Yes, where
	}
	if p.Status == Yes && h.Part() {
		p.Detail += ", but only a part of the cgroups: in a container, pass the host's in (--cgroupns host --volume /sys/fs/cgroup:/sys/fs/cgroup:ro)"
	}
	return p
}

// counts reads the first counter file: on v1 the root has one, on v2 only
// cgroups below it.
func counts(h Hierarchy) (bool, error) {
	if h.Version == 1 {
		return hasCounter(filepath.Join(h.Mount, "memory.oom_control"))
	}
	entries, err := os.ReadDir(h.Mount)
	if err != nil {
		return false, err
	}
	last := fmt.Errorf("memory.events: %w", fs.ErrNotExist)
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		known, err := hasCounter(filepath.Join(h.Mount, e.Name(), "memory.events"))
		if err == nil {
			return known, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			last = err
		}
	}
	return false, last
}

func hasCounter(path string) (bool, error) {
	b, err := readFile(path, maxSmallFile)
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "oom_kill ") {
			return true, nil
		}
	}
	return false, nil
}
