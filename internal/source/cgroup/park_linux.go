// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// parkFrom is how long a wait must be to be left to Go's runtime. It has no
// better grain than a millisecond, but a system call that blocks keeps the
// runtime's own watch awake for ten, and that costs more than all else at rest.
const parkFrom = 20 * time.Millisecond

// park waits for files without a system call that blocks.
type park struct {
	epoll *os.File // of what is waited for
	conn  syscall.RawConn
}

func newPark(fds ...int) (*park, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	for _, its := range fds {
		if err == nil {
			err = unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, its, &unix.EpollEvent{Events: unix.EPOLLIN})
		}
	}
	if err = errors.Join(err, unix.SetNonblock(fd, true)); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	p := &park{epoll: os.NewFile(uintptr(fd), "epoll")}
	if p.conn, err = p.epoll.SyscallConn(); err == nil {
		err = p.epoll.SetReadDeadline(time.Time{}) // which tells whether the runtime can wait for it
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return p, nil
}

// wait is ppoll(2) up to a time.
func (p *park) wait(fds []unix.PollFd, until time.Time) (n int, err error) {
	if err := p.epoll.SetReadDeadline(until); err != nil {
		return 0, err
	}
	waited := p.conn.Read(func(uintptr) bool {
		n, err = unix.Ppoll(fds, &unix.Timespec{}, nil)
		return n != 0
	})
	switch {
	case errors.Is(waited, os.ErrDeadlineExceeded):
		// It does not look again, and not at all where the time was over before.
		return unix.Ppoll(fds, &unix.Timespec{}, nil)
	case waited != nil:
		return 0, waited
	}
	return n, err
}

func (p *park) close() { _ = p.epoll.Close() }
