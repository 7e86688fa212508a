// SPDX-License-Identifier: Apache-2.0

package oomtest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a load with all its processes, in a cgroup.
type Process struct {
	// PID is the first process, in the initial pid namespace.
	PID int
	// All are all processes of the load, the first one first.
	All []Proc

	cg    *Cgroup
	child *child
	done  chan struct{}
}

// Proc is what is true of one process, as the test itself found it.
type Proc struct {
	PID  int
	Comm string
	// Cgroup is the path below the memory hierarchy's root.
	Cgroup string
	// Init says that it is the first process of a pid namespace of its own.
	Init  bool
	pidfd int
}

// End is how a process ended.
type End struct {
	Signal syscall.Signal // 0: it exited by itself
	Code   int
}

// Start starts a load in the cgroup. It takes no memory before Go.
func (c *Cgroup) Start(l Load) *Process {
	t := c.tree.t
	t.Helper()
	p, err := c.start(l)
	if err != nil {
		t.Fatalf("start load in %s: %v", c.Path, err)
	}
	return p
}

// Run starts a load, lets it go and waits for its end.
func (c *Cgroup) Run(l Load) (*Process, End) {
	c.tree.t.Helper()
	p := c.Start(l)
	p.Go()
	return p, p.Wait()
}

func (c *Cgroup) start(l Load) (*Process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	before := pids(c.Dir)
	ch, err := startChild(l, r)
	_ = r.Close()
	if err != nil {
		_ = w.Close()
		return nil, err
	}
	p := &Process{PID: ch.cmd.Process.Pid, cg: c, child: ch, done: make(chan struct{})}
	c.tree.t.Cleanup(func() {
		_ = w.Close() // the lifeline
		_ = ch.cmd.Process.Kill()
		<-p.done
		for _, q := range p.All {
			_ = unix.Close(q.pidfd)
		}
	})
	placed := write(filepath.Join(c.Dir, "cgroup.procs"), strconv.Itoa(p.PID))
	if placed == nil {
		placed = ch.place()
	}
	go func() {
		defer close(p.done)
		_ = ch.cmd.Wait() // Wait tells its state
	}()
	if placed != nil {
		return nil, placed
	}
	return p, p.list(before, l.processes())
}

// list fills All with the processes that were not there before.
func (p *Process) list(before []int, want int) error {
	var found []int
	err := Poll(patience, func() error {
		found = slices.DeleteFunc(pids(p.cg.Dir), func(pid int) bool { return slices.Contains(before, pid) })
		if len(found) < want {
			return fmt.Errorf("%d of %d processes", len(found), want)
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(found, func(a, b int) int {
		if a == p.PID || b == p.PID {
			return map[bool]int{true: -1, false: 1}[a == p.PID]
		}
		return a - b
	})
	for _, pid := range found {
		q := Proc{PID: pid, Cgroup: p.cg.Path}
		if q.pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			return fmt.Errorf("pidfd of %d: %w", pid, err)
		}
		p.All = append(p.All, q)
		if err := p.All[len(p.All)-1].describe(); err != nil {
			return err
		}
	}
	return nil
}

func (q *Proc) describe() error {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", q.PID))
	if err != nil {
		return err
	}
	q.Comm = string(bytes.TrimSuffix(comm, []byte{'\n'}))
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", q.PID))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "NSpid:"); ok {
			ids := strings.Fields(v)
			q.Init = len(ids) > 1 && ids[len(ids)-1] == "1"
		}
	}
	return nil
}

// Go lets the load take its memory.
func (p *Process) Go() {
	p.cg.tree.t.Helper()
	if err := p.child.release(); err != nil {
		p.cg.tree.t.Fatalf("release load %d: %v", p.PID, err)
	}
}

// Wait waits for the end of the first process.
func (p *Process) Wait() End {
	p.cg.tree.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.cg.tree.t.Fatalf("load %d in %s lives on after %s", p.PID, p.cg.Path, patience)
	}
	ws, _ := p.child.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return End{Signal: ws.Signal()}
	}
	return End{Code: ws.ExitStatus()}
}

// Kill sends the first process a signal, as somebody who is not the kernel.
func (p *Process) Kill(s syscall.Signal) {
	p.cg.tree.t.Helper()
	if err := p.child.cmd.Process.Signal(s); err != nil {
		p.cg.tree.t.Fatal(err)
	}
}

// Ended waits for the end of a process, at most so long, and tells whether it
// has ended.
func (q *Proc) Ended(limit time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(q.pidfd), Events: unix.POLLIN}}
	deadline := time.Now().Add(limit)
	for {
		left := max(0, time.Until(deadline))
		n, err := unix.Poll(fds, int(left.Milliseconds()))
		if err != unix.EINTR || left == 0 {
			return n > 0
		}
	}
}
