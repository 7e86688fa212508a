// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

const pkg = "github.com/coroner-dev/coroner/internal/x"

func TestTally_Ends(t *testing.T) {
	skip := func(test string) []event {
		return []event{
			{Action: "output", Package: pkg, Test: test, Output: "    x_test.go:7: needs: cgroup v2\n"},
			{Action: "skip", Package: pkg, Test: test},
		}
	}
	pass := event{Action: "pass", Package: pkg, Test: "TestA"}
	fail := []event{
		{Action: "output", Package: pkg, Test: "TestB", Output: "got 1, want 2\n"},
		{Action: "fail", Package: pkg, Test: "TestB"},
		{Action: "output", Package: pkg, Output: "exit status 1\n"},
		{Action: "fail", Package: pkg},
	}
	tests := []struct {
		name   string
		events []event
		part   string // left out as a whole
		broken bool
		ci     bool
		code   int
		want   []string
	}{
		{"all passes", []event{pass}, "", false, true, 0, []string{"PASS: 1 passed, 0 failed, 0 left out"}},
		{"a failure is told once, with its output", fail, "", false, false, 1,
			[]string{"FAIL internal/x TestB\ngot 1, want 2", "failed:\n  internal/x TestB\nFAIL: 0 passed, 1 failed"}},
		{"a package fails without a test", []event{{Action: "fail", Package: pkg}}, "", false, false, 1, []string{"failed:\n  internal/x\n"}},
		{"a skip says why", skip("TestA"), "", false, true, 0, []string{"left out:\n  internal/x TestA: needs: cgroup v2\nPASS: 0 passed, 0 failed, 1 left out"}},
		{"a test that ran elsewhere is not left out", append(skip("TestA"), pass), "", false, true, 0, []string{"1 passed, 0 failed, 0 left out"}},
		{"a part is left out", nil, wholePart + "space", false, false, 0, []string{"all tests in space: no rocket", "PASS"}},
		{"a part is left out in CI", nil, wholePart + "space", false, true, 1, []string{"FAIL"}},
		{"a step breaks", nil, "", true, false, 1, []string{"failed:\n  vm\nFAIL"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			ta := newTally(&out)
			for _, e := range tt.events {
				ta.take(e, "")
			}
			if tt.part != "" {
				ta.leave(tt.part, "no rocket")
			}
			if tt.broken {
				ta.broken("vm", errors.New("no kernel"))
			}
			if code := ta.end(time.Second, tt.ci); code != tt.code {
				t.Errorf("exit status %d, want %d", code, tt.code)
			}
			for _, w := range tt.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("no %q in:\n%s", w, out.String())
				}
			}
		})
	}
}
