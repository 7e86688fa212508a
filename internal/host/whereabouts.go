// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// ErrWhereabouts is wrapped where procfs does not tell where a process lives:
// it is about to end, or lives above what the reader can see.
var ErrWhereabouts = errors.New("its cgroup is not told")

// Whereabouts returns the memory cgroup of a process as a path below the
// hierarchy's mount, and why it does not know it.
func (r Roots) Whereabouts(pid int, h Hierarchy) (string, error) {
	dir := strconv.Itoa(pid)
	b, err := readFile(r.ProcPath(dir, "cgroup"), maxSmallFile)
	if err != nil {
		return "", err
	}
	at, ok := ownCgroup(string(b), h.Version)
	if ok {
		at, ok = belowMount(strings.TrimSuffix(at, " (deleted)"), h.Root)
	}
	if !ok {
		return "", fmt.Errorf("pid %d: %w", pid, ErrWhereabouts)
	}
	if at != "/" {
		return at, nil
	}
	// Read last, it tells of a process that began to end meanwhile too.
	stat, err := readFile(r.ProcPath(dir, "stat"), maxSmallFile)
	if err != nil {
		return "", err
	}
	if !Alive(stat) {
		return "", fmt.Errorf("pid %d: %w", pid, ErrWhereabouts)
	}
	return at, nil
}

// Comm returns the name of a process, which can hold any byte but 0.
func (r Roots) Comm(pid int) (string, error) {
	b, err := readFile(r.ProcPath(strconv.Itoa(pid), "comm"), maxSmallFile)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(b), "\n"), nil
}

// EachPID gives the ids of all processes, part by part: pause is called after
// each part, and ends it by returning false. Those that begin meanwhile may be
// missing.
func (r Roots) EachPID(part int, each func(pid int), pause func() bool) error {
	d, err := os.Open(r.ProcPath())
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(part)
		for _, name := range names {
			if pid, bad := strconv.ParseUint(name, 10, 31); bad == nil {
				each(int(pid))
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !pause() {
			return nil
		}
	}
}
