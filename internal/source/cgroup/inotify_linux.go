// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// dirMask is what a directory of a cgroup is watched for: cgroups that come,
// go and are renamed (v1), and writes to its files. Writes are how limits and
// first processes become known; the kernel reports its own changes of
// memory.events and cgroup.events the same way.
const dirMask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_DELETE_SELF | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
	unix.IN_MODIFY | unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW

// inotify is one instance (inotify(7)); its user may have 128, and a limited
// number of watches.
type inotify struct {
	fd   int
	most int // watches, for tests; 0: as many as the kernel gives
	last int32
	buf  [64 << 10]byte
}

// notice is one event. The name is good until the next drain.
type notice struct {
	wd   int32
	mask uint32
	name []byte
}

func newInotify() (*inotify, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &inotify{fd: fd}, nil
}

func (in *inotify) close() { _ = unix.Close(in.fd) }

func (in *inotify) watch(path string, mask uint32) (int32, error) {
	if in.most > 0 && int(in.last) >= in.most {
		return 0, unix.ENOSPC
	}
	wd, err := retry(func() (int, error) { return unix.InotifyAddWatch(in.fd, path, mask) })
	in.last = max(in.last, int32(wd))
	return int32(wd), err
}

func (in *inotify) unwatch(wd int32) { _, _ = unix.InotifyRmWatch(in.fd, uint32(wd)) }

// drain hands over what has queued up: one buffer full, about a thousand
// events; more is false when nothing was left.
func (in *inotify) drain(take func(notice)) (more bool, err error) {
	n, err := retry(func() (int, error) { return unix.Read(in.fd, in.buf[:]) })
	if errors.Is(err, unix.EAGAIN) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	parseNotices(in.buf[:n], take)
	return n > len(in.buf)/2, nil
}

// parseNotices understands struct inotify_event: wd, mask, cookie, len, and
// len bytes of a name padded with NULs.
func parseNotices(b []byte, take func(notice)) {
	for len(b) >= unix.SizeofInotifyEvent {
		n := notice{
			wd:   int32(binary.NativeEndian.Uint32(b)),
			mask: binary.NativeEndian.Uint32(b[4:]),
		}
		size := uint64(binary.NativeEndian.Uint32(b[12:]))
		b = b[unix.SizeofInotifyEvent:]
		if size > uint64(len(b)) {
			return
		}
		n.name, _, _ = bytes.Cut(b[:size], []byte{0})
		b = b[size:]
		take(n)
	}
}
