// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/signal"
)

func TestParseTaskCgroup(t *testing.T) {
	const v1 = "9:name=systemd:/x\n5:memory:/docker/ab:c\n4:cpu,cpuacct:/y\n0::/u\n"
	for _, tt := range []struct {
		name, text string
		version    int
		want       string
		ok         bool
	}{
		{"v1", v1, 1, "/docker/ab:c", true},
		{"v1, controllers together", "3:cpu,memory:/m\n", 1, "/m", true},
		{"v1, a name like the controller", "3:name=memory:/m\n", 1, "", false},
		{"v2", v1, 2, "/u", true},
		{"v2, removed", "0::/a/b (deleted)\n", 2, "/a/b", true},
		{"above the namespace", "0::/../x\n", 2, "", false},
		{"just above the namespace", "0::/..\n", 2, "", false},
		{"a name with dots", "0::/..x\n", 2, "/..x", true},
		{"no hierarchy", v1, 0, "", false},
		{"gone", "", 2, "", false},
		{"no cgroup at all", "garbage\n", 2, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parseTaskCgroup([]byte(tt.text), tt.version)
			if got != tt.want || ok != tt.ok {
				t.Errorf("parseTaskCgroup() = %q, %v; want %q, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
}

func TestParseStatus(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		tid        int
		want       signal.Task
	}{
		{"host process", "Name:\tx\nTgid:\t7\nUid:\t1000\t0\t0\t0\nNSpid:\t7\n", 7, signal.Task{PID: 7, TID: 7, UID: ptr(int64(1000)), Init: ptr(false)}},
		{"first of a namespace", "Tgid:\t7\nNSpid:\t7\t1\n", 7, signal.Task{PID: 7, TID: 7, Init: ptr(true)}},
		{"nested", "Tgid:\t7\nNSpid:\t7\t1\t12\n", 7, signal.Task{PID: 7, TID: 7, Init: ptr(false)}},
		{"another thread", "Tgid:\t7\nNSpid:\t9\t3\n", 9, signal.Task{PID: 7, TID: 9}},
		{"gone", "", 7, signal.Task{TID: 7}},
		{"broken", "Tgid:\tx\nUid:\n", 7, signal.Task{TID: 7}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := signal.Task{TID: tt.tid}
			parseStatus([]byte(tt.text), &got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("task (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAlive(t *testing.T) {
	for text, want := range map[string]bool{
		"7 (x) S 1 7 7 0 -1 4194304 0":                true,
		"7 (x) Z 1 7 7 0 -1 4194308 0":                false,
		"7 (a) S 1 1 1 1 1 0) R 1 7 7 0 -1 4194308 0": false,
		"7 (x) S 1 7": false,
		"":            false,
	} {
		if got := alive([]byte(text)); got != want {
			t.Errorf("alive(%q) = %v, want %v", text, got, want)
		}
	}
}
