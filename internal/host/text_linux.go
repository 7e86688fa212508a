// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LockText keeps what is read of this program's file from now on in memory
// (mlock2, since Linux 4.4), lets go of what was read before, and returns how
// many bytes it can be at most. A machine that runs out of memory drops the
// text of programs first, and a program then waits for its own instructions to
// be read again. It takes a limit of locked memory that is large enough, or
// CAP_IPC_LOCK. Called again, it keeps nothing of what only a start needs.
func LockText() (int64, error) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, err
	}
	b, err := readFile("/proc/self/maps", maxSmallFile)
	if err != nil {
		return 0, err
	}
	text := fileMappings(string(b), exe)
	// What is not as in the file, such as relocations and breakpoints, would be
	// lost: without smaps nothing is let go.
	smaps, _ := readFile("/proc/self/smaps", maxSmallFile)
	pristine := pristineMappings(string(smaps))
	for _, m := range text {
		if !pristine[m[0]] {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MUNLOCK, m[0], m[1]-m[0], 0); errno != 0 {
			return 0, fmt.Errorf("munlock: %w", errno)
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m[0], m[1]-m[0], unix.MADV_DONTNEED); errno != 0 {
			return 0, fmt.Errorf("madvise: %w", errno)
		}
	}
	var sum int64
	for _, m := range text {
		if _, _, errno := unix.Syscall(unix.SYS_MLOCK2, m[0], m[1]-m[0], unix.MLOCK_ONFAULT); errno != 0 {
			return sum, fmt.Errorf("mlock2: %w", errno)
		}
		sum += int64(m[1] - m[0])
	}
	return sum, nil
}

// fileMappings finds the mappings of a file that nobody writes to, lines of
// FROM-TO MODE OFFSET DEVICE INODE PATH (proc_pid_maps(5)).
func fileMappings(maps, path string) [][2]uintptr {
	var out [][2]uintptr
	for line := range strings.Lines(maps) {
		f := strings.Fields(line)
		if len(f) < 6 || f[5] != path || len(f[1]) < 2 || f[1][1] == 'w' {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		a, err1 := strconv.ParseUint(from, 16, strconv.IntSize)
		b, err2 := strconv.ParseUint(to, 16, strconv.IntSize)
		if err1 == nil && err2 == nil && a < b {
			out = append(out, [2]uintptr{uintptr(a), uintptr(b)})
		}
	}
	return out
}

// pristineMappings finds where mappings begin that have no page of their own,
// unlike their file's (proc_pid_smaps(5)).
func pristineMappings(smaps string) map[uintptr]bool {
	out := map[uintptr]bool{}
	var at uintptr
	for line := range strings.Lines(smaps) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		if from, _, ok := strings.Cut(f[0], "-"); ok {
			n, err := strconv.ParseUint(from, 16, strconv.IntSize)
			if at = uintptr(n); err != nil {
				at = 0
			}
		} else if f[0] == "Anonymous:" && f[1] == "0" && at != 0 {
			out[at] = true
		}
	}
	return out
}
