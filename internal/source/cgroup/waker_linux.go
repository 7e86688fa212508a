// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// waker is told by the kernel that a v1 cgroup is out of memory: an eventfd
// is registered with memory.oom_control through cgroup.event_control
// (Documentation/admin-guide/cgroup-v1/memory.rst, section 10). It says that
// something may have happened, never what: it fires before the kill, in each
// cgroup below the limit, and when a cgroup is removed. So cgroups share
// eventfds. Each signal walks all cgroups of its eventfd in the kernel, so
// few share one; and the vmstat poll finds what is left out.
type waker struct {
	epfd int
	fds  []int // eventfds
	used []int // cgroups registered with each
}

const (
	cgroupsPerEventfd = 64
	maxEventfds       = 32
)

func newWaker() (*waker, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &waker{epfd: fd}, nil
}

// close closes the eventfds; the kernel forgets the registrations with them.
func (w *waker) close() {
	for _, fd := range w.fds {
		_ = unix.Close(fd)
	}
	_ = unix.Close(w.epfd)
}

// register makes a cgroup wake the source. It returns the slot to release
// when the cgroup has gone, -1 where it is not registered.
func (w *waker) register(dir string) (slot int, err error) {
	slot, err = w.slot()
	if err != nil || slot < 0 {
		return -1, err
	}
	file, err := unix.Open(dir+"/"+fileOOMControl, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", fileOOMControl, err)
	}
	defer unix.Close(file)
	control, err := unix.Open(dir+"/cgroup.event_control", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open cgroup.event_control: %w", err)
	}
	defer unix.Close(control)
	if _, err := unix.Write(control, fmt.Appendf(nil, "%d %d", w.fds[slot], file)); err != nil {
		return -1, fmt.Errorf("write cgroup.event_control: %w", err)
	}
	w.used[slot]++
	return slot, nil
}

func (w *waker) release(slot int) {
	if slot >= 0 {
		w.used[slot]--
	}
}

// slot finds an eventfd with room, or makes one.
func (w *waker) slot() (int, error) {
	for i := len(w.used) - 1; i >= 0; i-- {
		if w.used[i] < cgroupsPerEventfd {
			return i, nil
		}
	}
	if len(w.fds) == maxEventfds {
		return -1, nil
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("eventfd: %w", err)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if err := unix.EpollCtl(w.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("epoll: %w", err)
	}
	w.fds, w.used = append(w.fds, fd), append(w.used, 0)
	return len(w.fds) - 1, nil
}

// drain resets what fired.
func (w *waker) drain() {
	var evs [maxEventfds]unix.EpollEvent
	n, err := retry(func() (int, error) { return unix.EpollWait(w.epfd, evs[:], 0) })
	if err != nil {
		return
	}
	var count [8]byte
	for _, ev := range evs[:n] {
		_, _ = unix.Read(int(ev.Fd), count[:])
	}
}
