// SPDX-License-Identifier: Apache-2.0

package host

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// OOMDAttributes reads what systemd-oomd notes on a cgroup that it kills in
// (cgroup v2): user.oomd_ooms before, user.oomd_kill after it has killed. nil: it
// has not, or the cgroup has gone.
func (r Roots) OOMDAttributes(path string) (ooms, killed *int64) {
	h, err := r.MemoryHierarchy()
	if err != nil || h.Version != 2 || path == "" {
		return nil, nil
	}
	dir := h.Dir(path)
	return attribute(dir, "user.oomd_ooms"), attribute(dir, "user.oomd_kill")
}

// attribute reads an extended attribute that is a number.
func attribute(path, name string) *int64 {
	var b [32]byte
	n, err := unix.Getxattr(path, name, b[:])
	if err != nil || n > len(b) {
		return nil
	}
	v, err := strconv.ParseInt(string(b[:n]), 10, 64)
	if err != nil {
		return nil
	}
	return &v
}
