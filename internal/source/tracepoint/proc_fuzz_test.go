// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/signal"
)

// FuzzParseTaskCgroup: a path is what stands in a whole line, and another
// version's line is never taken for it.
func FuzzParseTaskCgroup(f *testing.F) {
	for _, s := range []string{
		"9:name=systemd:/x\n5:memory:/docker/ab:c\n0::/u\n", "3:cpu,memory:/m\n", "0::/a/b (deleted)\n", "0::/../x\n", "0::/cut", "3:name=memory:/m\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got := parseTaskCgroup([]byte(text), 0); got != "" {
			t.Errorf("no hierarchy: %q", got)
		}
		for version := 1; version <= 2; version++ {
			got := parseTaskCgroup([]byte(text), version)
			if got == "" {
				continue
			}
			if got[0] != '/' || strings.Contains(got, "\n") {
				t.Errorf("v%d of %q: %q", version, text, got)
			}
			before, after := "memory", "\n"
			if version == 2 {
				before = "0:"
			}
			if !strings.Contains(text, before) || !strings.Contains(text, ":"+got+after) && !strings.Contains(text, ":"+got+" (deleted)"+after) {
				t.Errorf("v%d: %q does not stand in %q", version, got, text)
			}
		}
		// What the kernel writes of a cgroup comes out whole.
		path := "/" + strings.NewReplacer("\n", "", " (deleted)", "").Replace(text)
		if got := parseTaskCgroup(fmt.Appendf(nil, "1:name=memory:/n\n7:cpu,memory:%s\n0::/u\n", path), 1); got != path {
			t.Errorf("v1: %q, want %q", got, path)
		}
		if got := parseTaskCgroup(fmt.Appendf(nil, "7:memory:/n\n0::%s\n", path), 2); got != strings.TrimSuffix(path, " (deleted)") {
			t.Errorf("v2: %q, want %q", got, path)
		}
	})
}

// FuzzParseStatus: ids are such as the kernel gives, what says that a process
// is the first stands there, and a cut text says no more than the whole.
func FuzzParseStatus(f *testing.F) {
	for _, s := range []string{
		"Name:\tx\nTgid:\t7\nUid:\t1000\t0\t0\t0\nNSpid:\t7\n", "Tgid:\t7\nPPid:\t3\nNSpid:\t7\t1\n", "Tgid:\t7\nPPid:\t3\nNSpid:\t9\t12\n", "Tgid:\t-1\nUid:\t-1\nPPid:\t99999999999\n",
	} {
		f.Add(s, 7, uint(30))
	}
	f.Fuzz(func(t *testing.T, text string, tid int, cut uint) {
		whole := signal.Task{TID: tid}
		parent, first := parseStatus([]byte(text), &whole)
		if whole.PID < 0 || whole.PID > math.MaxInt32 || parent < 0 || parent > math.MaxInt32 || whole.TID != tid {
			t.Errorf("%q: %+v, parent %d", text, whole, parent)
		}
		if u := whole.UID; u != nil && (*u < 0 || *u > math.MaxUint32) {
			t.Errorf("%q: user %d", text, *u)
		}
		if whole.Init != nil && (*whole.Init || first) || first && !strings.Contains(text, "NSpid:") {
			t.Errorf("%q: first %v, %+v", text, first, whole)
		}
		if whole.Comm != "" && !strings.Contains(text, "Name:") || whole.Cgroup != (signal.Cgroup{}) || whole.PIDNS != 0 {
			t.Errorf("%q: %+v", text, whole)
		}
		// A line that is cut is no line.
		at := int(min(cut, uint(len(text))))
		at -= len(text[:at]) - (strings.LastIndexByte(text[:at], '\n') + 1)
		ended, part := signal.Task{TID: tid}, signal.Task{TID: tid}
		parent, first = parseStatus([]byte(text[:at]), &ended)
		if p, fi := parseStatus([]byte(text[:min(cut, uint(len(text)))]), &part); p != parent || fi != first || part.PID != ended.PID || part.Comm != ended.Comm {
			t.Errorf("%q cut at %d: parent %d, first %v, %+v; want %d, %v, %+v", text, cut, p, fi, part, parent, first, ended)
		}
	})
}

// FuzzAlive: whatever a process calls itself, its flags decide.
func FuzzAlive(f *testing.F) {
	f.Add("x", uint32(4194304))
	f.Add("a) S 1 1 1 1 1 0) R", uint32(4194308))
	f.Add("(", uint32(flagExiting))
	f.Fuzz(func(t *testing.T, comm string, flags uint32) {
		_ = alive([]byte(comm)) // a file of anything
		stat := fmt.Appendf(nil, "7 (%s) S 1 7 7 0 -1 %d 0 0\n", comm, flags)
		if got, want := alive(stat), flags&flagExiting == 0; got != want {
			t.Errorf("alive(%q) = %v, want %v", stat, got, want)
		}
		if i := strings.LastIndexByte(string(stat), ')'); alive(stat[:i+5]) {
			t.Errorf("alive(%q), which has no flags", stat[:i+5])
		}
	})
}
