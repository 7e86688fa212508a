// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coroner-dev/coroner/internal/oomtest"
)

func TestTogether_EachIsToldWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The guests take 5, 1, 1, 3 and 4 seconds, two at once: 9 in all.
		takes := []time.Duration{5, 1, 1, 3, 4}
		var rows []guest
		for i := range takes {
			rows = append(rows, guest{name: fmt.Sprint("machine ", i), pkg: "./x"})
		}
		var out strings.Builder
		var running atomic.Int32
		ta := newTally(&out)
		began := time.Now()
		ta.together(2, rows, func(ta *tally, g guest) {
			if n := running.Add(1); n > 2 {
				t.Errorf("%d guests at once, want 2", n)
			}
			defer running.Add(-1)
			i := slices.IndexFunc(rows, func(r guest) bool { return r.name == g.name })
			fmt.Fprintln(ta.out, "begin", i)
			<-time.After(takes[i] * time.Second)
			ta.take(event{Action: "pass", Package: pkg, Test: "TestA"}, g.name)
			if i == 2 {
				ta.take(event{Action: "fail", Package: pkg, Test: "TestB"}, g.name)
			}
			ta.leave(fmt.Sprint("part ", i), "no rocket")
			fmt.Fprintln(ta.out, "end", i)
		})
		if took := time.Since(began); took != 9*time.Second {
			t.Errorf("took %s, want 9s", took)
		}
		if ta.passed != 5 || len(ta.failed) != 1 || len(ta.left) != 5 {
			t.Errorf("%d passed, failed %q, %d left out; want 5, TestB, 5", ta.passed, ta.failed, len(ta.left))
		}
		want := `run  x on machine 0
run  x on machine 1
begin 1
end 1
run  x on machine 2
begin 2
FAIL internal/x TestB machine 2
end 2
run  x on machine 3
`
		if !strings.HasPrefix(out.String(), want) {
			t.Errorf("got:\n%s\nwant at first:\n%s", out.String(), want)
		}
	})
}

// A failure on one machine hides none of the same package on another.
func TestTogether_EachFailureIsTold(t *testing.T) {
	var out strings.Builder
	ta := newTally(&out)
	rows := []guest{{name: "a", pkg: "./internal/x"}, {name: "b", pkg: "./internal/x"}}
	ta.together(1, rows, func(ta *tally, g guest) {
		if g.name == "a" {
			ta.take(event{Action: "fail", Package: pkg, Test: "TestB"}, "on a")
		}
		ta.take(event{Action: "fail", Package: pkg}, "on "+g.name)
	})
	if want := []string{"internal/x TestB on a", "internal/x on b"}; !slices.Equal(ta.failed, want) {
		t.Errorf("failed %q, want %q", ta.failed, want)
	}
}

// A script in place of test/vm is a machine that ends in each way.
func TestInGuest_HowItEnds(t *testing.T) {
	if why := lacking("sh", "go"); why != "" {
		t.Skip(why)
	}
	const passes = `echo '=== RUN   TestA'; echo '--- PASS: TestA (0.01s)'; `
	tests := []struct {
		name, script string
		passed       int
		failed       []string
		want         []string
	}{
		{"passes", passes + `echo PASS; echo 'vm: exit status 0' >&2`, 1, nil, []string{"ok   test/x", "  on Linux 0.1", "vm: exit status 0"}},
		{
			"a test fails", `echo '=== RUN   TestB'; echo '    x_test.go:1: got 1, want 2'; echo '--- FAIL: TestB (0.01s)'; echo FAIL; exit 1`,
			0, []string{"test/x TestB on Linux 0.1"}, []string{"FAIL test/x TestB on Linux 0.1", "got 1, want 2"},
		},
		{
			"the machine dies in a test", `echo '=== RUN   TestB'; echo 'console: oops' >&2; exit 125`,
			0, []string{"test/x on Linux 0.1"}, []string{"=== RUN   TestB", "console: oops", "exit status 125"},
		},
		{
			"the machine dies after a test", passes + `echo '=== RUN   TestB'; exit 125`,
			1, []string{"test/x on Linux 0.1"}, []string{"=== RUN   TestB"},
		},
		{"it passes and the machine dies", passes + `echo PASS; exit 124`, 1, []string{"test/x on Linux 0.1"}, []string{"exit status 124"}},
		{
			"it is interrupted", `trap 'echo console: here >&2; exit 124' TERM; echo '=== RUN   TestB'; RUNS; while :; do :; done`,
			0, []string{"test/x on Linux 0.1"}, []string{"=== RUN   TestB", "console: here", "exit status 124"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			runs := filepath.Join(dir, "runs")
			script := strings.Replace(tt.script, "RUNS", "touch "+runs, 1)
			if err := os.WriteFile(filepath.Join(dir, "vm"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if script != tt.script {
				go func() {
					_ = oomtest.Poll(time.Minute, func() error { _, err := os.Stat(runs); return err })
					cancel()
				}()
			}
			var out bytes.Buffer
			ta := newTally(&out)
			r := &runner{timeout: time.Minute}
			r.inGuest(ctx, ta, guest{name: "Linux 0.1", pkg: "./test/x"}, binaries{dir})
			if ta.passed != tt.passed || !slices.Equal(ta.failed, tt.failed) {
				t.Errorf("%d passed, failed %q; want %d, %q", ta.passed, ta.failed, tt.passed, tt.failed)
			}
			for _, w := range tt.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("no %q", w)
				}
			}
			if t.Failed() {
				t.Log(out.String())
			}
		})
	}
}

// toRoot goes where "make test" runs.
func toRoot(t *testing.T) {
	t.Helper()
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(strings.TrimSpace(string(root)))
}

func TestGuests_Rows(t *testing.T) {
	toRoot(t)
	rows := guests("./test/system ./internal/oomtest")
	if want := len(systems()) + 2*len(kernels()); len(rows) != want {
		t.Errorf("%d rows, want %d", len(rows), want)
	}
	seen, bins := map[string]bool{}, map[string]string{}
	for _, g := range rows {
		if seen[g.String()] {
			t.Errorf("two rows are called %s", g)
		}
		seen[g.String()] = true
		if bin := (binaries{"/d"}).tests(g.pkg); bins[bin] != "" && bins[bin] != g.pkg {
			t.Errorf("%s and %s are one binary, %s", bins[bin], g.pkg, bin)
		} else {
			bins[bin] = g.pkg
		}
		for _, f := range append([]string{g.pkg}, g.files...) {
			if src, _, _ := strings.Cut(f, ":"); !exists(src) {
				t.Errorf("%s: no %s", g, src)
			}
		}
	}
}

func TestVMArgs(t *testing.T) {
	g := guest{name: "Linux 0.1", flags: []string{"-kernel=0.1"}, pkg: "./test/x", args: []string{"-test.short"}, coroner: true, files: []string{"a:/b"}}
	r := &runner{timeout: time.Minute, args: []string{"-test.run=TestA"}}
	got := strings.Join(r.vmArgs(g, binaries{"/d"}), " ")
	want := "-kernel=0.1 -timeout=1m0s -file=/d/coroner:/test/coroner -file=a:/b /d/test-x.test -test.v=test2json -test.timeout=1m0s -test.short -test.run=TestA"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
