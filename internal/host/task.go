// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
)

// TaskIDs are the ids that /proc/PID/status gives of a process.
type TaskIDs struct {
	// Parent is its parent; 0: none that the reader's pid namespace knows.
	Parent int
	// Own has one id per pid namespace, from the outermost to its own; none
	// where the kernel does not say (before Linux 4.1).
	Own []int
}

// First tells whether it is the first process of a pid namespace other than
// the initial one. Not only a container's first process is: a namespace can
// be made inside a container, too.
func (t TaskIDs) First() bool { return len(t.Own) > 1 && t.Own[len(t.Own)-1] == 1 }

// TaskIDs reads the ids of a process. The error is that of the file, for
// example of a process that has gone.
func (r Roots) TaskIDs(pid int) (TaskIDs, error) {
	b, err := readFile(r.ProcPath(strconv.Itoa(pid), "status"), maxSmallFile)
	if err != nil {
		return TaskIDs{}, err
	}
	var t TaskIDs
	parent, err := idLine(string(b), "PPid")
	if err == nil {
		t.Own, err = idLine(string(b), "NSpid")
	}
	if err != nil {
		return TaskIDs{}, fmt.Errorf("parse status of pid %d: %w", pid, err)
	}
	if len(parent) > 0 {
		t.Parent = parent[0]
	}
	return t, nil
}

// idLine returns the ids of a line, none where there is no line.
func idLine(status, key string) ([]int, error) {
	line, ok := statusLine(status, key)
	if !ok {
		return nil, nil
	}
	var ids []int
	for _, f := range strings.Fields(line) {
		id, err := strconv.ParseUint(f, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("line %s: %q", key, clip(line))
		}
		ids = append(ids, int(id))
	}
	return ids, nil
}

// statusLine returns the value of a line "Key:\tvalue". Name, the only line
// that a process can shape, is escaped by the kernel, so no line can be forged.
func statusLine(status, key string) (string, bool) {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(v), true
		}
	}
	return "", false
}

// Held returns the anonymous and shared memory that a process has mapped
// (RssAnon and RssShmem of /proc/PID/status, since Linux 4.5).
func (r Roots) Held(pid int) (int64, error) {
	b, err := readFile(r.ProcPath(strconv.Itoa(pid), "status"), maxSmallFile)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, key := range [2]string{"RssAnon", "RssShmem"} {
		line, _ := statusLine(string(b), key)
		kb, err := strconv.ParseUint(strings.TrimSuffix(line, " kB"), 10, 52)
		if err != nil {
			return 0, fmt.Errorf("parse status of pid %d: line %s: %q", pid, key, clip(line))
		}
		sum += int64(kb) << 10
	}
	return sum, nil
}

// userHZ is how many ticks a second procfs counts in on every architecture that
// Go knows (USER_HZ in include/asm-generic/param.h).
const userHZ = 100

// Started returns when a process began, by the clock of BoottimeClock, to the
// hundredth of a second.
func (r Roots) Started(pid int) (time.Duration, error) {
	b, err := readFile(r.ProcPath(strconv.Itoa(pid), "stat"), maxSmallFile)
	if err != nil {
		return 0, err
	}
	ticks, ok := statField(b, statStartTime)
	if !ok || ticks > math.MaxInt64/uint64(time.Second/userHZ) {
		return 0, fmt.Errorf("parse stat of pid %d: no start time in %q", pid, clip(string(b)))
	}
	return time.Duration(ticks) * (time.Second / userHZ), nil
}

// initialPIDNS is the inode number of the first pid namespace of every kernel
// since 3.8 (PROC_PID_INIT_INO).
const initialPIDNS = 0xEFFFFFFC

// KernelPIDs tells whether the processes of this procfs have the ids by which
// the kernel's events name them. In a pid namespace of its own, as a container
// has it where nobody says otherwise, an id is another process's here.
func (r Roots) KernelPIDs() bool {
	target, err := os.Readlink(r.ProcPath("self", "ns", "pid"))
	if err != nil {
		return true // a kernel without such links has no such namespaces to tell of
	}
	if ns, err := parseNSLink(target); err != nil || ns == initialPIDNS {
		return err == nil
	}
	// The host's procfs shows a process by one id for each namespace.
	b, err := readFile(r.ProcPath("self", "status"), maxSmallFile)
	if err != nil {
		return false
	}
	ids, err := idLine(string(b), "NSpid")
	return err == nil && len(ids) > 1
}

// PIDNS returns the inode number of a process's pid namespace
// (/proc/PID/ns/pid, since Linux 3.8).
func (r Roots) PIDNS(pid int) (uint64, error) {
	target, err := os.Readlink(r.ProcPath(strconv.Itoa(pid), "ns", "pid"))
	if err != nil {
		return 0, err
	}
	n, err := parseNSLink(target)
	if err != nil {
		return 0, fmt.Errorf("pid namespace of pid %d: %w", pid, err)
	}
	return n, nil
}

var errNSLink = errors.New("not of the form pid:[NUMBER]")

func parseNSLink(target string) (uint64, error) {
	s, ok := strings.CutPrefix(target, "pid:[")
	if s, ok2 := strings.CutSuffix(s, "]"); ok && ok2 {
		if n, err := strconv.ParseUint(s, 10, 64); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("link %q: %w", clip(target), errNSLink)
}
