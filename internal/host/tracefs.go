// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Tracefs is where the kernel's tracing files are, or can be.
type Tracefs struct {
	// Path is the directory; it is mounted there, or can be.
	Path string
	// Mounted is true when the files are there already.
	Mounted bool
}

// Tracefs finds where tracefs is mounted or can be mounted (mount -t tracefs,
// since Linux 4.1). Where the kernel has none, and under lockdown
// confidentiality, the error wraps ErrNotSupported.
func (r Roots) Tracefs() (Tracefs, error) {
	if r.Sys == "" {
		ms, err := r.mounts()
		if err != nil {
			return Tracefs{}, err
		}
		if m := pick(ms, func(m mount) bool { return m.fstype == "tracefs" }); m != nil {
			return Tracefs{Path: m.point, Mounted: true}, nil
		}
	}
	// The directory's own files say more than the mount table: debugfs
	// mounts tracefs below itself at the first touch.
	for _, dir := range []string{r.SysPath("kernel/tracing"), r.SysPath("kernel/debug/tracing")} {
		if _, err := os.Stat(dir + "/events"); err == nil {
			return Tracefs{Path: dir, Mounted: true}, nil
		}
	}
	point := r.SysPath("kernel/tracing")
	if _, err := os.Stat(point); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return Tracefs{}, fmt.Errorf("tracefs: %w; Linux 4.1 and later have it, unless locked down", ErrNotSupported)
		}
		return Tracefs{}, err
	}
	return Tracefs{Path: point}, nil
}
