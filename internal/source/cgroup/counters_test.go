// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseCounters(t *testing.T) {
	tests := []struct {
		name, text string
		want       counters
		wantErr    bool
	}{
		{"memory.events of 6.18", "low 0\nhigh 0\nmax 183\noom 4\noom_kill 3\noom_group_kill 1\nsock_throttled 0\n", counters{4, 3, 1}, false},
		{"memory.events of 5.10", "low 0\nhigh 0\nmax 22\noom 2\noom_kill 1\n", counters{2, 1, 0}, false},
		{"memory.oom_control of 6.18", "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", counters{0, 7, 0}, false},
		{"memory.oom_control before 4.13", "oom_kill_disable 0\nunder_oom 1\n", counters{}, false},
		{"no line end", "oom_kill 7", counters{0, 7, 0}, false},
		{"the largest number", "oom_kill 18446744073709551615\n", counters{0, 1<<64 - 1, 0}, false},
		{"empty", "", counters{}, false},
		{"too large", "oom_kill 18446744073709551616\n", counters{}, true},
		{"negative", "oom 1\noom_kill -1\n", counters{}, true},
		{"no number", "oom_kill\n", counters{}, true},
		{"text", "oom_kill 1 2\n", counters{}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseCounters([]byte(tt.text))
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(counters{})); diff != "" || (err != nil) != tt.wantErr {
				t.Errorf("err %v (-want +got)\n%s", err, diff)
			}
			if err != nil && !errors.Is(err, errNoNumber) {
				t.Errorf("got %v, want errNoNumber in it", err)
			}
		})
	}
}

func TestCountersMoved(t *testing.T) {
	if d, ok := (counters{5, 4, 1}).moved(counters{3, 4, 0}); !ok || d != (counters{2, 0, 1}) {
		t.Errorf("got %v, %v", d, ok)
	}
	for _, before := range []counters{{6, 4, 1}, {5, 5, 1}, {5, 4, 2}} {
		if d, ok := (counters{5, 4, 1}).moved(before); ok || d != (counters{}) {
			t.Errorf("since %v: got %v, %v, want none", before, d, ok)
		}
	}
}

func TestParseLimit(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	tests := []struct {
		name, text string
		want       *int64
		wantErr    bool
	}{
		{"v2 none", "max\n", nil, false},
		{"v1 none, 4 KiB pages", "9223372036854771712\n", nil, false},
		{"v1 none, 64 KiB pages", "9223372036854710272\n", nil, false},
		{"v1 none as printed by old kernels", "18446744073709551615\n", nil, false},
		{"a limit", "33554432\n", n(33554432), false},
		{"zero", "0\n", n(0), false},
		{"empty", "", nil, true},
		{"text", "many\n", nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseLimit([]byte(tt.text))
			if diff := cmp.Diff(tt.want, got); diff != "" || (err != nil) != tt.wantErr {
				t.Errorf("err %v (-want +got)\n%s", err, diff)
			}
		})
	}
}

func TestAppendPIDs(t *testing.T) {
	tests := []struct {
		name, text string
		want       []int
		rest       string
	}{
		{"some", "1\n20\n300\n", []int{1, 20, 300}, ""},
		{"of another namespace", "0\n0\n7\n", []int{7}, ""},
		{"cut", "12\n13", []int{12}, "13"},
		{"none", "", nil, ""},
		{"odd", "x\n-4\n99999999999\n5\n", []int{5}, ""},
	}
	for _, tt := range tests {
		got, rest := appendPIDs(nil, []byte(tt.text))
		if diff := cmp.Diff(tt.want, got); diff != "" || string(rest) != tt.rest {
			t.Errorf("%s: rest %q, want %q (-want +got)\n%s", tt.name, rest, tt.rest, diff)
		}
	}
}

func TestParseCounters_DoesNotAllocate(t *testing.T) {
	text := []byte("low 0\nhigh 0\nmax 183\noom 4\noom_kill 3\noom_group_kill 1\n")
	if n := testing.AllocsPerRun(100, func() { _, _ = parseCounters(text) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParseCounters(f *testing.F) {
	f.Add("low 0\nhigh 0\nmax 183\noom 4\noom_kill 3\noom_group_kill 1\n")
	f.Add("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n")
	f.Add("max\n")
	f.Add("9223372036854771712\n")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := parseCounters([]byte(text)); err != nil && c != (counters{}) {
			t.Error("both counters and an error")
		}
		if v, err := parseLimit([]byte(text)); v != nil && (err != nil || *v < 0 || *v >= noLimit) {
			t.Errorf("limit %d, %v", *v, err)
		}
		pids, rest := appendPIDs(nil, []byte(text))
		if len(pids) > strings.Count(text, "\n") || strings.Contains(string(rest), "\n") {
			t.Errorf("%d pids and %q, want no more than lines", len(pids), rest)
		}
	})
}
