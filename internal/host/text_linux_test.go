// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestFileMappings(t *testing.T) {
	const maps = `00400000-00a00000 r-xp 00000000 fe:00 1234 /usr/local/bin/coroner
00a00000-01400000 r--p 00600000 fe:00 1234 /usr/local/bin/coroner
01400000-01500000 rw-p 01000000 fe:00 1234 /usr/local/bin/coroner
c000000000-c000400000 rw-p 00000000 00:00 0
7f0000000000-7f0000008000 rw-s 00000000 fe:00 99 /var/lib/coroner/deaths.db-shm
x-y r--p 0 fe:00 1234 /usr/local/bin/coroner
`
	want := [][2]uintptr{{0x400000, 0xa00000}, {0xa00000, 0x1400000}}
	if diff := cmp.Diff(want, fileMappings(maps, "/usr/local/bin/coroner")); diff != "" {
		t.Error(diff)
	}
}

func TestPristineMappings(t *testing.T) {
	const smaps = `00400000-00a00000 r-xp 00000000 fe:00 1234                               /usr/local/bin/coroner
Size:               6144 kB
Rss:                4000 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00a00000-01400000 r--p 00600000 fe:00 1234                               /usr/local/bin/coroner
Anonymous:             4 kB
x-y r--p 0 fe:00 1234 /usr/local/bin/coroner
Anonymous:             0 kB
`
	if diff := cmp.Diff(map[uintptr]bool{0x400000: true}, pristineMappings(smaps)); diff != "" {
		t.Error(diff)
	}
}

func TestLockText_ThisProgram(t *testing.T) {
	n, err := LockText()
	if err != nil {
		t.Skipf("needs a machine that this one is not: the limit of locked memory is too small: %v", err)
	}
	t.Cleanup(func() { _ = unix.Munlockall() })
	_, _ = fmt.Fprint(io.Discard, string(debug.Stack())) // which reads more of it
	before := resident(t)
	if _, err := LockText(); err != nil {
		t.Fatal(err)
	}
	if after := resident(t); after >= before || after == 0 {
		t.Errorf("%d kB of files are resident, %d kB before they were let go", after, before)
	}
	status, err := readFile("/proc/self/status", maxSmallFile)
	if err != nil {
		t.Fatal(err)
	}
	locked, _ := statusLine(string(status), "VmLck")
	if n == 0 || strings.HasPrefix(locked, "0 ") {
		t.Errorf("%d bytes, VmLck %s", n, locked)
	}
}

// resident is what this process has in memory of files.
func resident(t *testing.T) (kib int) {
	t.Helper()
	status, err := readFile("/proc/self/status", maxSmallFile)
	if err != nil {
		t.Fatal(err)
	}
	line, _ := statusLine(string(status), "RssFile")
	if _, err := fmt.Sscan(line, &kib); err != nil {
		t.Fatal(err)
	}
	return kib
}
