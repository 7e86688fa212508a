// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/host"
)

// files reads the files of cgroups into one buffer. It is for one goroutine,
// and what it returns is good until the next read.
type files struct {
	hier  host.Hierarchy
	nkept int
	most  int // files that may be kept open
	buf   [16 << 10]byte
}

// names of the files of a version.
func (f *files) limitFile() string {
	if f.hier.Version == 1 {
		return "memory.limit_in_bytes"
	}
	return "memory.max"
}

func (f *files) usageFile() string {
	if f.hier.Version == 1 {
		return "memory.usage_in_bytes"
	}
	return "memory.current"
}

const (
	fileOOMControl  = "memory.oom_control"
	fileEvents      = "memory.events"
	fileEventsLocal = "memory.events.local"
	fileOOMGroup    = "memory.oom.group"
	fileProcs       = "cgroup.procs"
)

// dir is the directory of a cgroup by its path below the mount.
func (f *files) dir(rel string) string {
	if rel == "/" {
		return f.hier.Mount
	}
	return f.hier.Mount + rel
}

// read reads the start of a file, at most the buffer's size: only cgroup.procs
// can be longer.
func (f *files) read(rel, name string) ([]byte, error) {
	path := f.dir(rel) + "/" + name
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	n, err := retry(func() (int, error) { return unix.Read(fd, f.buf[:]) })
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return f.buf[:n], nil
}

// maxProcs bounds the processes of a cgroup that are listed.
const maxProcs = 1 << 16

var errTooMany = errors.New("too many processes")

// procs lists the processes of a cgroup: all, for a part would not tell who is
// outside of it.
func (f *files) procs(rel string) ([]int, error) {
	path := f.dir(rel) + "/" + fileProcs
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var pids []int
	for rest := 0; ; {
		n, err := retry(func() (int, error) { return unix.Read(fd, f.buf[rest:]) })
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return pids, nil
		}
		var left []byte
		pids, left = appendPIDs(pids, f.buf[:rest+n])
		if len(pids) > maxProcs || len(left) == len(f.buf) {
			return nil, &fs.PathError{Op: "read", Path: path, Err: errTooMany}
		}
		rest = copy(f.buf[:], left)
	}
}

func (f *files) counters(rel, name string) (counters, error) {
	b, err := f.read(rel, name)
	if err != nil {
		return counters{}, err
	}
	c, err := parseCounters(b)
	if err != nil {
		return counters{}, fmt.Errorf("parse %s of %.200q: %w", name, rel, err)
	}
	return c, nil
}

// maxKept bounds the files that are kept open. Only v1 keeps them, for there
// all counters are read at once: a read takes 0.4 us, with open and close 3.5.
const maxKept = 2048

// keepable is how many files may be kept open where the process may have so
// many: a quarter, for the history and the network need some too.
func keepable(limit uint64) int { return int(min(limit/4, maxKept)) }

// keep opens a file to be read by kept; -1 where that is not to be had.
func (f *files) keep(rel, name string) int32 {
	if f.nkept >= f.most {
		return -1
	}
	fd, err := retry(func() (int, error) {
		return unix.Open(f.dir(rel)+"/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1
	}
	f.nkept++
	return int32(fd)
}

func (f *files) release(fd int32) {
	if fd >= 0 {
		_ = unix.Close(int(fd))
		f.nkept--
	}
}

// kept reads counters from an open file.
func (f *files) kept(fd int32) (counters, error) {
	n, err := retry(func() (int, error) { return unix.Pread(int(fd), f.buf[:], 0) })
	if err != nil {
		return counters{}, err
	}
	return parseCounters(f.buf[:n])
}

// limit returns nil where there is none; the v2 root has no such file.
func (f *files) limit(rel string) (*int64, error) { return f.size(rel, f.limitFile()) }

func (f *files) usage(rel string) (*int64, error) { return f.size(rel, f.usageFile()) }

func (f *files) size(rel, name string) (*int64, error) {
	b, err := f.read(rel, name)
	if err != nil {
		return nil, err
	}
	v, err := parseLimit(b)
	if err != nil {
		return nil, fmt.Errorf("parse %s of %.200q: %w", name, rel, err)
	}
	return v, nil
}

// oomGroup is false where the kernel has no such file (before 4.19, and v1).
func (f *files) oomGroup(rel string) bool {
	if f.hier.Version != 2 {
		return false
	}
	b, err := f.read(rel, fileOOMGroup)
	return err == nil && strings.HasPrefix(string(b), "1")
}

// gone tells the errors of a cgroup that was removed between two steps.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOTDIR)
}

func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
