// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"math"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/signal"
)

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
