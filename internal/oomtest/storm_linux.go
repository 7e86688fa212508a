// SPDX-License-Identifier: Apache-2.0

package oomtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Storm makes many OOM kills, in all its cgroups at the same time.
type Storm struct {
	boxes []*Cgroup
	kills int
	book  []uint32
	cmd   *exec.Cmd
	done  chan struct{}
	t     testing.TB
}

// StormBytes is the limit that a storm's cgroups should have: little, so that
// it is soon reached.
const StormBytes = 4 << 20

const stormVariable = "CORONER_OOMTEST_STORM"

// stormSpec is what the process that makes the storm is told.
type stormSpec struct {
	Book  string
	Dirs  []string
	Kills int
	Pause time.Duration
}

// The book is shared memory: the storm writes it, the test reads it.
const (
	bookStop   = 0 // not 0: make no more kills
	bookHeader = 1
	// Of each cgroup: a word that is 1 when its kills are over, then a pid for
	// each kill, with notKilled where the process ended otherwise.
	notKilled = 1 << 31
)

// StartStorm kills a process in each of boxes, kills times, with a pause
// between two in one cgroup. It ends with the test at the latest.
func StartStorm(t testing.TB, boxes []*Cgroup, kills int, pause time.Duration) *Storm {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "storm")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	words := bookHeader + len(boxes)*(1+kills)
	book, err := mapBook(f, words)
	if err != nil {
		t.Fatal(err)
	}
	spec := stormSpec{Book: f.Name(), Kills: kills, Pause: pause}
	for _, b := range boxes {
		spec.Dirs = append(spec.Dirs, b.Dir)
	}
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	s := &Storm{boxes: boxes, kills: kills, book: book, done: make(chan struct{}), t: t}
	s.cmd = exec.Command("/proc/self/exe")
	s.cmd.Env = []string{stormVariable + "=" + string(text)}
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.done)
		_ = s.cmd.Wait() // the book tells
	}()
	t.Cleanup(func() {
		s.Stop()
		_ = unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(&book[0])), 4*words))
	})
	return s
}

func mapBook(f *os.File, words int) ([]uint32, error) {
	if err := f.Truncate(int64(4 * words)); err != nil {
		return nil, err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, 4*words, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*uint32)(unsafe.Pointer(&b[0])), words), nil
}

// Wait waits until all kills are over.
func (s *Storm) Wait() { <-s.done }

// Stop lets the storm make no more kills, and waits.
func (s *Storm) Stop() {
	atomic.StoreUint32(&s.book[bookStop], 1)
	<-s.done
}

func (s *Storm) of(box int) []uint32 {
	from := bookHeader + box*(1+s.kills)
	return s.book[from : from+1+s.kills]
}

// Over tells whether all kills in a cgroup are over, so that it can be removed.
func (s *Storm) Over(box int) bool { return atomic.LoadUint32(&s.of(box)[0]) != 0 }

// PIDs are the processes that were OOM-killed in a cgroup until now, in order.
func (s *Storm) PIDs(box int) []int {
	var out []int
	for i := range s.kills {
		if pid := atomic.LoadUint32(&s.of(box)[1+i]); pid != 0 && pid&notKilled == 0 {
			out = append(out, int(pid))
		}
	}
	return out
}

// runStorm is the main of the process that makes a storm.
func runStorm(text string) error {
	var spec stormSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	f, err := os.OpenFile(spec.Book, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	book, err := mapBook(f, bookHeader+len(spec.Dirs)*(1+spec.Kills))
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(-1, 0, 4*StormBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	_ = unix.Madvise(mem, unix.MADV_NOHUGEPAGE)
	s := forker{
		mem: mem, stop: &book[bookStop], parent: uintptr(os.Getpid()), zero: '0',
		pause: unix.NsecToTimespec(spec.Pause.Nanoseconds()),
		most:  [4]byte{'1', '0', '0', '0'},
	}
	cwd := unix.AT_FDCWD
	s.cwd = uintptr(cwd)
	copy(s.adj[:], "/proc/self/oom_score_adj")
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the subreaper: %w", err)
	}
	var forkers []uintptr
	for i, dir := range spec.Dirs {
		procs, err := os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		s.procs = procs.Fd()
		from := bookHeader + i*(1+spec.Kills)
		s.book = book[from : from+1+spec.Kills]
		pid, errno := s.fork()
		_ = procs.Close()
		if errno != 0 {
			return fmt.Errorf("fork: %w", errno)
		}
		forkers = append(forkers, pid)
	}
	return reap(book, forkers, spec.Kills)
}

// reap waits for all. A forker can be killed itself, for what it forked last
// may hold its memory still when it wants some for the next; its child is then
// this process's.
func reap(book []uint32, forkers []uintptr, kills int) error {
	for {
		var end unix.WaitStatus
		pid, err := unix.Wait4(-1, &end, 0, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			// What a forker reaped and did not live to note was killed too: it
			// can end in no other way.
			for i := bookHeader; i < len(book); i++ {
				book[i] &^= notKilled
			}
			return nil
		case err != nil:
			return fmt.Errorf("wait: %w", err)
		}
		killed := end.Signaled() && end.Signal() == syscall.SIGKILL
		i := slices.Index(forkers, uintptr(pid))
		if i < 0 {
			if at := slices.Index(book, uint32(pid)|notKilled); killed && at >= bookHeader {
				atomic.StoreUint32(&book[at], uint32(pid))
			}
			continue
		}
		its := book[bookHeader+i*(1+kills):][:1+kills]
		if at := slices.Index(its[1:], 0); killed && at >= 0 {
			atomic.StoreUint32(&its[1+at], uint32(pid))
		}
		atomic.StoreUint32(&its[0], 1)
	}
}

// forker is what one forker needs. A forker, and what it forks, is a copy of a
// Go process without Go's threads: it may make system calls and touch memory,
// and nothing else.
type forker struct {
	mem    []byte
	book   []uint32
	stop   *uint32
	procs  uintptr
	parent uintptr
	pause  unix.Timespec
	status uint32
	zero   byte
	most   [4]byte
	adj    [32]byte // a path, and 0
	cwd    uintptr
}

// fork makes the forker of one cgroup, and returns in the parent alone.
//
//go:norace
//go:nocheckptr
//go:nosplit
func (s *forker) fork() (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0)
	if ppid, _, _ := syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0); ppid != s.parent {
		s.exit()
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, s.procs, uintptr(unsafe.Pointer(&s.zero)), 1); errno != 0 {
		s.exit()
	}
	for i := 1; i < len(s.book) && *s.stop == 0; i++ {
		pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		switch {
		case errno != 0: // no memory left for it, as yet
			i--
			continue
		case pid == 0:
			// Its parent can be killed before it notes this.
			own, _, _ := syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
			s.book[i] = uint32(own) | notKilled // until it is known
			// The forker, which is as large, must not be the victim.
			fd, _, _ := syscall.RawSyscall6(syscall.SYS_OPENAT, s.cwd, uintptr(unsafe.Pointer(&s.adj[0])), syscall.O_WRONLY, 0, 0, 0)
			_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&s.most)), 4)
			for at := 0; at < len(s.mem); at += 4096 {
				s.mem[at] = 1
			}
			s.exit()
		}
		s.status = 0
		_, _, _ = syscall.RawSyscall6(syscall.SYS_WAIT4, pid, uintptr(unsafe.Pointer(&s.status)), 0, 0, 0, 0)
		if s.status&0x7f != uint32(syscall.SIGKILL) {
			continue // by the child's own word
		}
		s.book[i] = uint32(pid)
		if s.pause.Sec != 0 || s.pause.Nsec != 0 {
			_, _, _ = syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&s.pause)), 0, 0)
		}
	}
	s.exit()
	return 0, 0
}

//go:norace
//go:nosplit
func (s *forker) exit() {
	for {
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
