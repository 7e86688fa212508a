// SPDX-License-Identifier: Apache-2.0

// Package host is the only way to the kernel's files: where they are mounted,
// what this kernel offers, and the few values that several packages read from
// procfs, sysfs and cgroupfs. Every path goes through Roots, so that an agent
// in a container finds the host's files, and a test its own. It knows no
// container and no cgroup by name. Works on Linux 3.10 and later; elsewhere it
// compiles and finds nothing.
package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// ErrNotSupported is what an error wraps when the kernel does not offer a
// thing; the error's text names the kernel that does.
var ErrNotSupported = errors.New("not offered by this kernel")

// Roots says where the host's file systems are seen. The zero value means the
// usual places.
type Roots struct {
	// Proc is where procfs is mounted; empty: /proc.
	Proc string
	// Sys is where sysfs is mounted; empty: /sys.
	Sys string
	// Cgroup is where the control groups are mounted; empty: fs/cgroup below Sys.
	Cgroup string
	// Root is where the host's root directory is seen; empty: /.
	Root string
}

// maxSmallFile bounds the files that hold one value or a page of lines.
const maxSmallFile = 1 << 20

// ProcPath returns the path of a file of procfs.
func (r Roots) ProcPath(elem ...string) string { return join(r.Proc, "/proc", elem) }

// SysPath returns the path of a file of sysfs.
func (r Roots) SysPath(elem ...string) string { return join(r.Sys, "/sys", elem) }

// RootPath returns the path of a file of the host.
func (r Roots) RootPath(elem ...string) string { return join(r.Root, "/", elem) }

// CgroupPath returns the path of a file below the directory where control
// groups are mounted. MemoryHierarchy says where the memory controller is.
func (r Roots) CgroupPath(elem ...string) string {
	return join(r.Cgroup, r.SysPath("fs", "cgroup"), elem)
}

// Devkmsg returns the path of the kernel's log device.
func (r Roots) Devkmsg() string { return r.RootPath("dev", "kmsg") }

// BootID returns the id that the kernel drew at boot
// (/proc/sys/kernel/random/boot_id).
func (r Roots) BootID() (string, error) { return readWord(r.ProcPath("sys/kernel/random/boot_id")) }

// KernelRelease returns what uname -r prints (/proc/sys/kernel/osrelease).
func (r Roots) KernelRelease() (string, error) { return readWord(r.ProcPath("sys/kernel/osrelease")) }

// Hostname returns the host's name. The kernel's own answer is that of the
// reader's UTS namespace, so a Root other than / is asked first: the name is
// then that of its /etc/hostname.
func (r Roots) Hostname() (string, error) {
	if r.Root != "" && filepath.Clean(r.Root) != "/" {
		if name, err := readWord(r.RootPath("etc/hostname")); err == nil && name != "" {
			return name, nil
		}
	}
	if name, err := readWord(r.ProcPath("sys/kernel/hostname")); err == nil && name != "" {
		return name, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("host name: %w", err)
	}
	return name, nil
}

func join(root, usual string, elem []string) string {
	if root == "" {
		root = usual
	}
	return filepath.Join(append([]string{root}, elem...)...)
}

func readWord(path string) (string, error) {
	b, err := readFile(path, maxSmallFile)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

// ReadFile reads a small file of the kernel's whole, as readFile does.
func ReadFile(path string) ([]byte, error) { return readFile(path, maxSmallFile) }

// readFile reads a whole file whose size the kernel does not tell. A file
// larger than limit is an error, never cut.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := openPlain(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var small [4096]byte // most are, and of many processes they are read in a row
	n := 0
	for n < len(small) && err == nil {
		var more int
		more, err = f.Read(small[n:])
		n += more
	}
	b := bytes.Clone(small[:n])
	if err == nil {
		var rest []byte
		rest, err = io.ReadAll(io.LimitReader(f, limit+1-int64(n)))
		b = append(b, rest...)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read %s: larger than %d bytes", path, limit)
	}
	return b, nil
}
