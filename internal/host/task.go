// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// TaskInit tells whether a process is the first one of a pid namespace other
// than the initial one: NSpid of /proc/PID/status lists one id per namespace,
// from the outermost to its own (since Linux 4.1). known is false where the
// kernel does not say; err is that of the file, for example of a process that
// has gone.
func (r Roots) TaskInit(pid int) (init, known bool, err error) {
	b, err := readFile(r.ProcPath(strconv.Itoa(pid), "status"), maxSmallFile)
	if err != nil {
		return false, false, err
	}
	ids, err := parseNSpid(string(b))
	if err != nil {
		return false, false, fmt.Errorf("parse status of pid %d: %w", pid, err)
	}
	if len(ids) == 0 {
		return false, false, nil
	}
	return len(ids) > 1 && ids[len(ids)-1] == 1, true, nil
}

// parseNSpid returns the ids of the NSpid line, none where there is no line.
func parseNSpid(status string) ([]int, error) {
	line, ok := statusLine(status, "NSpid")
	if !ok {
		return nil, nil
	}
	var ids []int
	for _, f := range strings.Fields(line) {
		id, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("line NSpid: %q", clip(line))
		}
		ids = append(ids, id)
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
