// SPDX-License-Identifier: Apache-2.0

package oomtest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Load says what a process does with memory.
type Load struct {
	// Comm is its name, at most 15 bytes, any but 0.
	Comm []byte `json:"comm,omitempty"`
	// Bytes is how much it touches before it stays idle: 0 is all that it can
	// get, negative is none.
	Bytes int64 `json:"bytes,omitempty"`
	// Rate is bytes per second; 0 is as fast as it can.
	Rate int64 `json:"rate,omitempty"`
	// Shared takes shared memory (shmem) instead of private.
	Shared bool `json:"shared,omitempty"`
	// OOMScoreAdj is written to oom_score_adj; nil leaves it.
	OOMScoreAdj *int `json:"oom_score_adj,omitempty"`
	// NewPIDNS makes it the first process of a pid namespace.
	NewPIDNS bool `json:"new_pidns,omitempty"`
	// Children are further processes, which it starts.
	Children []Load `json:"children,omitempty"`
	// Sharers are processes that share its memory, as after vfork.
	Sharers int `json:"sharers,omitempty"`
	// Takers are further threads that take as much at the same time.
	Takers int `json:"takers,omitempty"`
	// ExitCode makes it exit so when a child has ended; nil lives on.
	ExitCode *int `json:"exit_code,omitempty"`
}

// Idle is a Load that takes no memory.
const Idle = -1

const (
	loadVariable = "CORONER_OOMTEST_LOAD"
	lifelineFD   = 3
	chunk        = 1 << 20
)

// Main runs the tests, or the load when this process is one.
func Main(m *testing.M) {
	for variable, run := range map[string]func(string) error{loadVariable: runLoad, stormVariable: runStorm} {
		spec, ok := os.LookupEnv(variable)
		if !ok {
			continue
		}
		if err := run(spec); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runLoad is a load's main: it waits on standard input for a byte that says
// its cgroup is right, starts its children, answers, waits for a byte that
// says go, passes that on, and takes memory.
func runLoad(spec string) error {
	var l Load
	if err := json.Unmarshal([]byte(spec), &l); err != nil {
		return err
	}
	// A stop of the world would wait for ever for a thread with a sharer.
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(2 + l.Sharers + l.Takers)
	lifeline := os.NewFile(lifelineFD, "lifeline")
	go func() { // ends the process when the test is gone
		_, _ = lifeline.Read(make([]byte, 1))
		os.Exit(0)
	}()
	children, ended, err := l.prepare(lifeline)
	if err != nil {
		return err
	}
	if err := say(os.Stdout); err != nil {
		return err
	}
	if err := await(os.Stdin); err != nil {
		return err
	}
	for _, c := range children {
		if err := c.release(); err != nil {
			return err
		}
	}
	taken := make(chan error)
	for range l.Takers {
		go func() { taken <- l.take() }()
	}
	if err := l.take(); err != nil {
		return err
	}
	for range l.Takers {
		if err := <-taken; err != nil {
			return err
		}
	}
	if l.ExitCode != nil {
		<-ended
		os.Exit(*l.ExitCode)
	}
	select {}
}

// prepare waits to be placed and starts all processes that belong to the load.
func (l *Load) prepare(lifeline *os.File) (children []*child, ended chan error, err error) {
	if err := await(os.Stdin); err != nil {
		return nil, nil, err
	}
	if err := l.dress(); err != nil {
		return nil, nil, err
	}
	ended = make(chan error, len(l.Children))
	for _, cl := range l.Children {
		c, err := startChild(cl, lifeline)
		if err != nil {
			return nil, nil, err
		}
		if err := c.place(); err != nil {
			return nil, nil, err
		}
		go func() { ended <- c.cmd.Wait() }()
		children = append(children, c)
	}
	for range l.Sharers {
		share()
	}
	return children, ended, nil
}

// processes counts the processes of a load.
func (l *Load) processes() int {
	n := 1 + l.Sharers
	for i := range l.Children {
		n += l.Children[i].processes()
	}
	return n
}

// dress gives the process its name and its score.
func (l *Load) dress() error {
	if l.OOMScoreAdj != nil {
		if err := write("/proc/self/oom_score_adj", strconv.Itoa(*l.OOMScoreAdj)); err != nil {
			return err
		}
	}
	if len(l.Comm) == 0 {
		return nil
	}
	// Each thread has a name of its own; which one asks for memory is up to
	// the scheduler.
	threads, err := filepath.Glob("/proc/self/task/*/comm")
	if err != nil {
		return err
	}
	for _, t := range threads {
		if err := os.WriteFile(t, l.Comm, 0); err != nil {
			return err
		}
	}
	return nil
}

// take maps and touches memory.
func (l *Load) take() error {
	flags := syscall.MAP_ANON | syscall.MAP_PRIVATE
	if l.Shared {
		flags = syscall.MAP_ANON | syscall.MAP_SHARED
	}
	var pause time.Duration
	if l.Rate > 0 {
		pause = time.Duration(float64(time.Second) * chunk / float64(l.Rate))
	}
	for taken := int64(0); l.Bytes == 0 || taken < l.Bytes; taken += chunk {
		b, err := syscall.Mmap(-1, 0, chunk, syscall.PROT_READ|syscall.PROT_WRITE, flags)
		if err != nil {
			return err
		}
		touch(b)
		time.Sleep(pause)
	}
	return nil
}

// touch writes to each page. The race detector would take memory of its own.
//
//go:norace
func touch(b []byte) {
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
}

// share makes a process that shares this one's memory, as vfork does. It
// sleeps until it is killed. The calling thread stands still as long, so it is
// spent; that is also why the two can use one stack.
func share() {
	go func() {
		runtime.LockOSThread()
		errno := cloneAndSleep()
		fmt.Fprintln(os.Stderr, "load: clone:", errno)
		os.Exit(3)
	}()
}

//go:norace
//go:nosplit
func cloneAndSleep() syscall.Errno {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE,
		syscall.CLONE_VM|syscall.CLONE_VFORK|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	for errno == 0 && pid == 0 {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
	return errno
}
