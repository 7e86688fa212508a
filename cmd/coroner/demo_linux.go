// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/coroner-dev/coroner/internal/host"
)

// demoLimit is the limit of the demonstration's cgroup.
const demoLimit = 32 << 20

// load is a coroner leak that waits in a cgroup of its own.
type load struct {
	cgroup string // as the kernel names it
	dirs   []string
	child  *exec.Cmd
	start  io.WriteCloser
	ended  chan struct{}
}

// prepareLoad makes the cgroup and the waiting process; what it lacks for
// that is errNoRights.
func prepareLoad(roots host.Roots) (*load, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: making a control group needs root (sudo coroner demo)", errNoRights)
	}
	h, err := roots.MemoryHierarchy()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoRights, err)
	}
	id := make([]byte, 32)
	_, _ = rand.Read(id) // never fails (crypto/rand)
	l := &load{ended: make(chan struct{})}
	if err := l.makeCgroup(h, hex.EncodeToString(id)); err != nil {
		l.removeCgroup()
		return nil, fmt.Errorf("%w: %w", errNoRights, err)
	}
	if err := l.begin(); err != nil {
		l.removeCgroup()
		return nil, fmt.Errorf("%w: %w", errNoRights, err)
	}
	return l, nil
}

func (l *load) makeCgroup(h host.Hierarchy, id string) error {
	parent := "/coroner-demo-" + strconv.Itoa(os.Getpid())
	l.cgroup = parent + "/" + id
	if h.Version == 2 {
		if err := enableMemory(h.Dir("/")); err != nil {
			return err
		}
	}
	for _, path := range []string{parent, l.cgroup} {
		if err := os.Mkdir(h.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
		l.dirs = append(l.dirs, h.Dir(path))
		if h.Version == 2 && path == parent {
			if err := enableMemory(h.Dir(path)); err != nil {
				return err
			}
		}
	}
	file := "memory.limit_in_bytes"
	if h.Version == 2 {
		file = "memory.max"
		// Without swap the limit is reached at once; older kernels and
		// kernels without swap do not have the file.
		_ = os.WriteFile(filepath.Join(h.Dir(l.cgroup), "memory.swap.max"), []byte("0"), 0)
	}
	if err := os.WriteFile(filepath.Join(h.Dir(l.cgroup), file), []byte(strconv.Itoa(demoLimit)), 0); err != nil {
		return fmt.Errorf("set limit: %w", err)
	}
	return nil
}

func enableMemory(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
		return fmt.Errorf("switch on the memory controller: %w", err)
	}
	return nil
}

// begin starts the leak, which waits for a byte, and puts it into the cgroup.
func (l *load) begin() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	l.child = exec.Command(self, "leak", "--wait", "--block", "1M")
	l.child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if l.start, err = l.child.StdinPipe(); err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	if err := l.child.Start(); err != nil {
		return fmt.Errorf("start coroner leak in a pid namespace: %w", err)
	}
	go func() {
		_ = l.child.Wait() // it is meant to be killed
		close(l.ended)
	}()
	procs := filepath.Join(l.dirs[len(l.dirs)-1], "cgroup.procs")
	if err := os.WriteFile(procs, []byte(strconv.Itoa(l.pid())), 0); err != nil {
		l.end()
		return fmt.Errorf("move coroner leak into its cgroup: %w", err)
	}
	return nil
}

func (l *load) pid() int { return l.child.Process.Pid }

// release lets the leak grow.
func (l *load) release() error {
	if _, err := l.start.Write([]byte("\n")); err != nil {
		return fmt.Errorf("start the leak: %w", err)
	}
	return l.start.Close()
}

func (l *load) end() {
	_ = l.child.Process.Kill() // dead already, when all went well
	<-l.ended
}

func (l *load) cleanUp(say func(string, ...any)) {
	l.end()
	if left := l.removeCgroup(); left != "" {
		say("left behind: %s", left)
	}
}

// removeCgroup removes the directories, innermost first; a cgroup is busy for
// a moment after its last process has died.
func (l *load) removeCgroup() (left string) {
	for i := len(l.dirs) - 1; i >= 0; i-- {
		if !removed(l.dirs[i]) {
			return l.dirs[i]
		}
	}
	return ""
}

// removed tries for two seconds.
func removed(dir string) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 400 {
		if err := syscall.Rmdir(dir); err == nil || errors.Is(err, syscall.ENOENT) {
			return true
		}
		<-tick.C
	}
	return false
}
