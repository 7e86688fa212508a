// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/host"
)

// maxKept bounds the files that are kept open, three for each cgroup: a
// reading of an open memory.stat takes 3.5 us and of a number 0.4, with open
// and close 2.4 us more each (Linux 6.18, cgroup v1).
const maxKept = 3072

// files reads the memory files of cgroups. It is for one goroutine.
type files struct {
	hier  host.Hierarchy
	names names
	nkept int
	most  int // files that may be kept open
	// stalls tells of cgroups that begin to wait for memory; nil: nothing does.
	stalls *triggers
	buf    [16 << 10]byte
}

// names are the files of a version, "" where it has none.
type names struct{ usage, peak, limit, kernel, pressure string }

func openFiles(roots host.Roots) (*files, error) {
	hier, err := roots.MemoryHierarchy()
	if err != nil {
		return nil, err
	}
	f := &files{hier: hier, names: names{
		usage: "memory.current", peak: "memory.peak", limit: "memory.max", pressure: "memory.pressure",
	}}
	if hier.Version == 1 {
		f.names = names{
			usage: "memory.usage_in_bytes", peak: "memory.max_usage_in_bytes", limit: "memory.limit_in_bytes",
			kernel: "memory.kmem.usage_in_bytes",
		}
	}
	if limit, err := host.OpenFiles(); err == nil {
		f.most = keepable(limit)
	}
	return f, nil
}

// keepable is how many files may be kept open where the process may have so
// many: a quarter, for the counters' files and the network need theirs.
func keepable(limit uint64) int { return int(min(limit/4, maxKept)) }

func (f *files) keepNone() { f.most = 0 }

// listen has hit told, from another goroutine, of cgroups that begin to wait
// for memory, where the kernel tells that.
func (f *files) listen(hit func(fd int)) (err error) {
	f.stalls, err = newTriggers(f.hier.Mount, hit)
	return err
}

func (f *files) listening() bool { return f.stalls != nil }

// deaf ends that. The triggers were taken back before.
func (f *files) deaf() {
	if f.stalls != nil {
		f.stalls.end()
		f.stalls = nil
	}
}

// trigger has the kernel tell of one cgroup; -1 where there are as many as may
// be.
func (f *files) trigger(path string) (fd int, err error) {
	if f.stalls.set >= maxTriggers || f.nkept >= f.most {
		return -1, nil
	}
	if fd, err = f.stalls.add(f.hier.Dir(path)); err == nil {
		f.nkept++
	}
	return fd, err
}

func (f *files) untrigger(fd int) {
	f.stalls.remove(fd)
	f.nkept--
}

// handle is the open files of a cgroup; a file that is not open is -1.
type handle struct {
	usage, stat, peak int
	id                uint64 // of the cgroup
}

var errNotThatOne = fmt.Errorf("another cgroup has its name: %w", unix.ENOENT)

// open opens the files of a cgroup. Where its id is known and another cgroup
// has its name by now, the error is one of gone. kept tells whether the handle
// may be kept.
func (f *files) open(path string, id uint64) (h handle, kept bool, err error) {
	h = handle{usage: -1, stat: -1, peak: -1}
	dir, err := retry(func() (int, error) {
		return unix.Open(f.hier.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return h, false, err
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return h, false, err
	}
	if id != 0 && st.Ino != id {
		return h, false, errNotThatOne
	}
	h.id = st.Ino
	at := func(name string) (int, error) {
		return retry(func() (int, error) { return unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	}
	if h.usage, err = at(f.names.usage); err != nil {
		return h, false, fmt.Errorf("open %s: %w", f.names.usage, err)
	}
	if h.stat, err = at("memory.stat"); err != nil {
		f.close(&h, false)
		return h, false, fmt.Errorf("open memory.stat: %w", err)
	}
	if h.peak, err = at(f.names.peak); err != nil {
		h.peak = -1 // cgroup v2 before Linux 5.19 has none
	}
	if f.nkept+3 <= f.most {
		f.nkept += 3
		return h, true, nil
	}
	return h, false, nil
}

func (f *files) close(h *handle, kept bool) {
	for _, fd := range []*int{&h.usage, &h.stat, &h.peak} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
		}
		*fd = -1
	}
	if kept {
		f.nkept -= 3
	}
}

// read takes what is wanted each second. Where neither usage nor peak moved
// since r, it leaves the rest of r as it is, unless all is asked for.
func (f *files) read(h handle, r *reading, all bool) error {
	now := reading{}
	var err error
	if now.usage, err = f.number(h.usage); err != nil {
		return fmt.Errorf("%s: %w", f.names.usage, err)
	}
	if h.peak >= 0 {
		if now.peak, err = f.number(h.peak); err != nil {
			return fmt.Errorf("%s: %w", f.names.peak, err)
		}
	}
	if !all && now.usage == r.usage && now.peak == r.peak {
		return nil
	}
	b, err := f.pread(h.stat)
	if err != nil {
		return fmt.Errorf("read memory.stat: %w", err)
	}
	whole, err := now.parse(b, f.hier.Version)
	if err != nil {
		return fmt.Errorf("parse memory.stat: %w", err)
	}
	if !whole && len(b) == len(f.buf) {
		return fmt.Errorf("read memory.stat: longer than %d bytes", len(f.buf))
	}
	*r = now
	return nil
}

func (f *files) number(fd int) (int64, error) {
	b, err := f.pread(fd)
	if err != nil {
		return 0, err
	}
	return parseNumber(trimmed(b))
}

// readSlow reads by path; what cannot be read stays as it was. Its caller reads
// the kept files afterwards: had the cgroup gone meanwhile, that fails.
func (f *files) readSlow(path string, s *slow) {
	dir := f.hier.Dir(path) + "/"
	if b, err := f.readFile(dir + f.names.limit); err == nil {
		if v, err := parseLimit(b); err == nil {
			s.limit = v
		}
	}
	if f.names.kernel != "" {
		if b, err := f.readFile(dir + f.names.kernel); err == nil {
			if v, err := parseNumber(trimmed(b)); err == nil {
				s.kernel, s.kernelKnown = v, true
			}
		}
	}
	if f.names.pressure != "" {
		if b, err := f.readFile(dir + f.names.pressure); err == nil {
			s.pressure, s.pressureKnown = parsePressure(b)
		}
	}
}

func (f *files) readFile(path string) ([]byte, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return f.pread(fd)
}

func (f *files) pread(fd int) ([]byte, error) {
	for {
		n, err := unix.Pread(fd, f.buf[:], 0)
		if !errors.Is(err, unix.EINTR) {
			return f.buf[:max(0, n)], err
		}
	}
}

// gone tells the errors of a cgroup that was removed.
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

// ended tells the error of a file of a process that has ended.
func ended(err error) bool { return errors.Is(err, unix.ESRCH) }
