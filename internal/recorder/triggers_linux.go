// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// maxTriggers bounds the cgroups whose waiting for memory the kernel tells: it
// has a thread of its own for each.
const maxTriggers = 128

// stalls are what the kernel is to tell of, the first that it takes: that tasks
// waited for memory for 150 ms of a second, or of two. Who has not
// CAP_SYS_RESOURCE may ask for multiples of two seconds only
// (kernel/sched/psi.c, psi_trigger_create).
func stalls() [2]string { return [2]string{"some 150000 1000000", "some 150000 2000000"} }

var errNoV2 = errors.New("no cgroup v2")

// triggers are the kernel's word that a cgroup begins to wait for memory: on
// cgroup v2 with pressure stall information (since Linux 5.2), where this
// process may write memory.pressure. A trigger lasts as long as its file is
// open, and changes nothing for the cgroup.
type triggers struct {
	hit         func(fd int)
	epoll, stop int
	work        sync.WaitGroup
	set         int
}

// newTriggers begins to listen. Nothing is ever written but where the kernel
// has its cgroups.
func newTriggers(mount string, hit func(fd int)) (*triggers, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(mount, &fs); err != nil {
		return nil, fmt.Errorf("statfs %s: %w", mount, err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil, errNoV2
	}
	t := &triggers{hit: hit, stop: -1}
	var err error
	if t.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if t.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err == nil {
		err = t.listen(t.stop, unix.EPOLLIN)
	}
	if err != nil {
		t.end()
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	// An epoll within that of Go's runtime would not do: to ask a trigger
	// whether it fired takes that back.
	t.work.Go(t.run)
	return t, nil
}

func (t *triggers) listen(fd int, to uint32) error {
	return unix.EpollCtl(t.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: to, Fd: int32(fd)})
}

func (t *triggers) run() {
	var fired [16]unix.EpollEvent
	for {
		n, err := retry(func() (int, error) { return unix.EpollWait(t.epoll, fired[:], -1) })
		if err != nil {
			return // it cannot fail
		}
		for _, ev := range fired[:n] {
			fd := int(ev.Fd)
			switch {
			case fd == t.stop:
				return
			case ev.Events&unix.EPOLLERR != 0: // its cgroup has gone
				_ = unix.EpollCtl(t.epoll, unix.EPOLL_CTL_DEL, fd, nil)
			default:
				t.hit(fd)
			}
		}
	}
}

// add sets a trigger for the cgroup in dir, and returns its file.
func (t *triggers) add(dir string) (int, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(dir+"/memory.pressure", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1, fmt.Errorf("open memory.pressure: %w", err)
	}
	for _, s := range stalls() {
		if _, err = retry(func() (int, error) { return unix.Write(fd, append([]byte(s), 0)) }); !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	if err == nil {
		err = t.listen(fd, unix.EPOLLPRI)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("write memory.pressure: %w", err)
	}
	t.set++
	return fd, nil
}

// remove takes a trigger back.
func (t *triggers) remove(fd int) {
	_ = unix.Close(fd)
	t.set--
}

// end returns when nothing is told any more.
func (t *triggers) end() {
	if t.stop >= 0 {
		_, _ = unix.Write(t.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		t.work.Wait()
		_ = unix.Close(t.stop)
	}
	_ = unix.Close(t.epoll)
}
