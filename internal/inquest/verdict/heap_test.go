// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/coroner-dev/coroner/internal/death"
)

// run is a real run of a runtime that was refused memory, or of a program that
// looks like it, from testdata/heap.
type run struct {
	name  string
	code  int
	row   string // "none"
	sure  death.Confidence
	lines []LogLine
}

func runs(t *testing.T) []run {
	t.Helper()
	files, err := filepath.Glob("testdata/heap/*.txtar")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d runs in testdata/heap: %v", len(files), err)
	}
	var out []run
	for _, path := range files {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		r := run{name: strings.TrimSuffix(filepath.Base(path), ".txtar")}
		if _, err := fmt.Sscanf(string(a.Files[0].Data), "exit %d\n%s %s", &r.code, &r.row, &r.sure); err != nil && r.row != "none" {
			t.Fatalf("%s: %v", path, err)
		}
		for line := range strings.Lines(string(a.Files[1].Data)) {
			if line = strings.TrimRight(line, "\n"); strings.TrimSpace(line) != "" {
				r.lines = append(r.lines, LogLine{Stream: "stderr", Text: line})
			}
		}
		out = append(out, r)
	}
	return out
}

// ends are the facts of a container's end by its own doing.
func ends(code int, lines []LogLine, change func(*Facts)) Facts {
	f := Facts{
		Container: &death.Container{ID: "3f1c9a5e7b2d4c6f", Name: "cart", Runtime: "docker"},
		Ended:     true, Exit: &death.Exit{Code: &code}, LogRead: lines != nil, LogLines: lines, Program: "cart",
	}
	if change != nil {
		change(&f)
	}
	return f
}

// TestHeap_RealRuns: each message that a real runtime printed is known, and
// what only looks like one is not.
func TestHeap_RealRuns(t *testing.T) {
	shown := map[string]bool{}
	for _, r := range runs(t) {
		t.Run(r.name, func(t *testing.T) {
			v := Judge(ends(r.code, r.lines, func(f *Facts) { f.FromKernel = true }))
			if r.row == "none" {
				if v.Cause == death.HeapLimit {
					t.Fatalf("it is no heap_limit: %s", v.Summary)
				}
				return
			}
			if v.Cause != death.HeapLimit || v.Confidence != r.sure || v.Claim == nil {
				t.Fatalf("%s %s, want heap_limit %s\n%s", v.Cause, v.Confidence, r.sure, v.Summary)
			}
			row := heapRow(v.Claim.Text)
			if row == nil || row.id != r.row {
				t.Fatalf("the line %q is of row %v, want %s", v.Claim.Text, row, r.row)
			}
			shown[r.row] = true
			if !strings.Contains(v.Summary, "'"+shorten(strings.ReplaceAll(strings.TrimSpace(v.Claim.Text), `\`, `\\`), 160)+"'") || !strings.Contains(v.Summary, row.runtime) {
				t.Errorf("summary %q does not give the line", v.Summary)
			}
			if !strings.Contains(strings.Join(v.Advice, " "), row.setting) {
				t.Errorf("advice %q does not name %s", v.Advice, row.setting)
			}
		})
	}
	for _, row := range heapLines {
		if !shown[row.id] && row.source == "" {
			t.Errorf("row %s: no real run shows it, and it says nothing of where its line is from", row.id)
		}
	}
}

// TestHeap_Examples: each row knows its own example, and an example that is
// said to be real is in a real run.
func TestHeap_Examples(t *testing.T) {
	real := map[string]bool{}
	for _, r := range runs(t) {
		for _, l := range r.lines {
			real[l.Text] = true
		}
	}
	for _, row := range heapLines {
		if got := heapRow(row.example); got == nil || got.id != row.id {
			t.Errorf("row %s: its example is of row %v", row.id, got)
		}
		if row.source == "" && !real[row.example] {
			t.Errorf("row %s: no run printed %q", row.id, row.example)
		}
		if !KeepLogLine(row.example) || row.setting == "" || row.runtime == "" {
			t.Errorf("row %s is not whole", row.id)
		}
	}
}

func said(text string) []LogLine { return []LogLine{{Stream: "stderr", Text: text}} }

const dotnetInit = "GC heap initialization failed with error 0x8007000E"

// left says that the kernel told of the exit: no signal ended it.
func left(f *Facts) { f.FromKernel = true }

const jvmMain = `Exception in thread "main" java.lang.OutOfMemoryError: Java heap space`

// TestHeap_Judged: the line alone is not enough.
func TestHeap_Judged(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	figures := func(peak, limit int64) func(*Facts) {
		return func(f *Facts) { f.PeakBytes, f.ContainerLimit, f.Counted = &peak, &limit, true }
	}
	for _, tc := range []struct {
		name       string
		facts      Facts
		rule       string
		confidence death.Confidence
		says       string
	}{
		{"code of the runtime", ends(1, said(jvmMain), nil), "heap-limit", death.Certain,
			`Container cart (docker 3f1c9a5e7b2d) ended: its first process left with exit code 1; the JVM had been refused memory, and said 'Exception in thread "main" java.lang.OutOfMemoryError: Java heap space'.`},
		{"it became the runtime", ends(1, said(jvmMain), func(f *Facts) { f.First, f.Program = "java", "sh" }), "heap-limit", death.Certain, "its first process java left"},
		{"as the engine started it", ends(1, said(jvmMain), func(f *Facts) { f.Program = "bash" }), "heap-limit", death.Probable, "its first process left"},
		{"nobody named it", ends(1, said(jvmMain), func(f *Facts) { f.Program = "" }), "heap-limit", death.Probable, ""},
		{"below Docker's init", ends(1, said(jvmMain), func(f *Facts) { f.First, f.Program = "docker-init", "java" }), "heap-limit", death.Certain, ""},
		{"a shell below it", ends(1, said(jvmMain), func(f *Facts) { f.First, f.Program = "docker-init", "sh" }), "heap-limit", death.Probable, ""},
		{"an init of its own", ends(1, said(jvmMain), func(f *Facts) { f.First, f.Program = "tini", "tini" }), "heap-limit", death.Probable, ""},
		{"a shell's code", ends(1, said(jvmMain), func(f *Facts) { f.First = "sh" }), "heap-limit", death.Probable, "its first process sh left with exit code 1"},
		{"another code", ends(7, said(jvmMain), nil), "heap-limit", death.Probable, "exit code 7"},
		{"peak and limit", ends(1, said(jvmMain), figures(380*mib, 512*mib)), "heap-limit", death.Certain, "peaked at 380 MiB of its 512 MiB. The kernel killed nothing."},
		{"the limit was reached", ends(1, said(jvmMain), figures(512*mib, 512*mib)), "error", death.Certain, ""},
		{"peak alone", ends(1, said(jvmMain), func(f *Facts) { f.PeakBytes = ptr(380 * mib) }), "heap-limit", death.Certain, "peaked at 380 MiB."},
		{"limit alone", ends(1, said(jvmMain), func(f *Facts) { f.ContainerLimit = ptr(512 * mib) }), "heap-limit", death.Certain, "may have 512 MiB."},
		{"abort by the kernel's word", ends(134, said("FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory"), func(f *Facts) { f.Exit = &death.Exit{Signal: ptr(6)}; f.First = "node" }),
			"heap-limit", death.Certain, "its first process node ended by SIGABRT; Node.js had been"},
		{".NET", ends(134, said("Unhandled exception. System.OutOfMemoryException: Exception of type 'System.OutOfMemoryException' was thrown."), nil), "heap-limit", death.Certain, ".NET"},
		{".NET, the newer of two", ends(134, append(said("Unhandled exception. System.OutOfMemoryException: x"), said("Unhandled exception. System.FormatException: no such table")...), nil), "abort", death.Probable, ""},
		{".NET, its beginning is gone", ends(134, append(said("   at Program.Grow()"), said(" ---> System.OutOfMemoryException: x")...), nil), "heap-limit", death.Probable, ".NET"},
		{".NET, 139", ends(139, said("Out of memory."), nil), "heap-limit", death.Certain, ".NET"},
		{"words that are no .NET", ends(1, said("Out of memory. Try again"), nil), "error", death.Certain, ""},
		{"OOM kill", ends(1, said(jvmMain), func(f *Facts) { f.OOM = true }), "limit-not-named", death.Possible, ""},
		{"asked to stop", ends(143, said(jvmMain), func(f *Facts) { f.Stop = &Stop{At: at, End: at, Confirmed: true} }), "stopped", death.Certain, ""},
		{"SIGKILL", ends(137, said(jvmMain), nil), "sigkill", death.Possible, ""},
		{"SIGKILL, whatever .NET said", ends(137, said(dotnetInit), nil), "sigkill", death.Possible, ""},
		{"137 of its own", ends(137, said(dotnetInit), left), "heap-limit", death.Certain,
			"its first process left with exit code 137, which is no signal here; .NET had been refused memory, and said 'GC heap initialization failed with error 0x8007000E'."},
		{"137 of a shell's child", ends(137, said(jvmMain), left), "error", death.Certain, "which shells and inits give for a child killed by SIGKILL"},
		{".NET, of a shell", ends(137, said(dotnetInit), func(f *Facts) { left(f); f.First = "sh" }), "heap-limit", death.Probable, "sh left with exit code 137"},
		{"SIGTERM by somebody", ends(143, said(jvmMain), nil), "signal", death.Probable, ""},
		{"completed", ends(0, said(jvmMain), nil), "completed", death.Certain, ""},
		{"never ran", ends(1, said(jvmMain), func(f *Facts) { f.NeverRan = true }), "never-ran", death.Certain, ""},
		{"long before", ends(1, []LogLine{{Time: at.Add(-2 * time.Minute), Text: jvmMain}}, func(f *Facts) { f.EndedAt = at }), "error", death.Certain, ""},
		{"just before", ends(1, []LogLine{{Time: at.Add(-50 * time.Second), Text: jvmMain}}, func(f *Facts) { f.EndedAt = at }), "heap-limit", death.Certain, ""},
		{"another thread's after the main one's", ends(1, append(said(jvmMain), said(`Exception in thread "pool-1" java.lang.OutOfMemoryError: Java heap space`)...), nil), "heap-limit", death.Certain, `"main"`},
		{"threads, not heap", ends(1, said(`Exception in thread "main" java.lang.OutOfMemoryError: unable to create native thread: possibly out of memory or process/resource limits reached`), nil), "error", death.Certain, ""},
		{"a word", ends(1, said("MemoryError"), nil), "error", death.Certain, ""},
		{"numpy", ends(1, []LogLine{{Text: traceback}, {Text: `  File "a.py", line 1, in <module>`}, {Text: "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 7.45 GiB for an array"}}, nil), "heap-limit", death.Certain, "Python"},
		{"a long traceback whose beginning is gone", ends(1, []LogLine{{Text: `  File "a.py", line 1, in f`}, {Text: "MemoryError"}}, nil), "heap-limit", death.Probable, "Python"},
		{"the other stream between", ends(1, []LogLine{{Stream: "stderr", Text: traceback}, {Stream: "stdout", Text: "x"}, {Stream: "stderr", Text: "  f()"}, {Stream: "stderr", Text: "MemoryError"}, {Stream: "stdout", Text: "bye"}}, nil),
			"heap-limit", death.Certain, "Python"},
		{"hostile", ends(1, said("x\x1b[2J java.lang.OutOfMemoryError: Java heap space\u202e"+strings.Repeat("y", 1000)), nil), "heap-limit", death.Probable, `x\x1b[2J java`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := Judge(tc.facts)
			if v.Rule != tc.rule || v.Confidence != tc.confidence || !strings.Contains(v.Summary, tc.says) {
				t.Errorf("%s %s, want %s %s\n%s\ndoes not say %q", v.Rule, v.Confidence, tc.rule, tc.confidence, v.Summary, tc.says)
			}
			if len(v.Summary) > 600 || strings.ContainsAny(v.Summary, "\x1b\u202e") {
				t.Errorf("summary %q", v.Summary)
			}
			if (v.Claim != nil) != (v.Rule == "heap-limit") || v.AsksLog {
				t.Errorf("claim %v, asks for the log: %v", v.Claim, v.AsksLog)
			}
		})
	}
}

// TestHeap_AsksForTheLog where, and only where, it could explain the end.
func TestHeap_AsksForTheLog(t *testing.T) {
	for _, tc := range []struct {
		name  string
		facts Facts
		asks  bool
	}{
		{"left with a code", ends(1, nil, nil), true},
		{"abort", ends(134, nil, nil), true},
		{"abort by the kernel's word", ends(0, nil, func(f *Facts) { f.Exit = &death.Exit{Signal: ptr(6)} }), true},
		{"segfault", ends(139, nil, nil), true},
		{"read already", ends(1, []LogLine{}, func(f *Facts) { f.LogRead = true }), false},
		{"completed", ends(0, nil, nil), false},
		{"SIGKILL", ends(137, nil, nil), false},
		{"137 of its own", ends(137, nil, left), true},
		{"SIGTERM", ends(143, nil, nil), false},
		{"OOM", ends(1, nil, func(f *Facts) { f.OOM = true }), false},
		{"asked to stop", ends(1, nil, func(f *Facts) { f.Stop = &Stop{At: time.Now()} }), false},
		{"killed", ends(1, nil, func(f *Facts) { f.Killer = &death.Killer{} }), false},
		{"never ran", ends(127, nil, func(f *Facts) { f.NeverRan = true }), false},
		{"lives on", ends(1, nil, func(f *Facts) { f.Ended = false }), false},
		{"how is not known", ends(1, nil, func(f *Facts) { f.Exit = nil }), false},
	} {
		if v := Judge(tc.facts); v.AsksLog != tc.asks {
			t.Errorf("%s: asks for the log: %v, want %v", tc.name, v.AsksLog, tc.asks)
		}
	}
}

// TestShm_Full: a full /dev/shm is named for SIGBUS, and for nothing else.
func TestShm_Full(t *testing.T) {
	shm := func(held, size int64) func(*Facts) { return func(f *Facts) { f.ShmBytes, f.ShmSize = &held, &size } }
	for _, tc := range []struct {
		name  string
		facts Facts
		rule  string
		says  string
	}{
		{"full", ends(135, nil, shm(64*mib, 64*mib)), "bus-error-shm-full", "while its /dev/shm was full: it held 64 MiB of shared memory, and /dev/shm may have 64 MiB."},
		{"full but for a batch", ends(135, nil, shm(64*mib-900<<10, 64*mib)), "bus-error-shm-full", ""},
		{"room", ends(135, nil, shm(32*mib, 64*mib)), "bus-error", ""},
		{"small, and empty", ends(135, nil, shm(0, 1*mib)), "bus-error", ""},
		{"of no size", ends(135, nil, shm(0, 0)), "bus-error", ""},
		{"size not known", ends(135, nil, func(f *Facts) { f.ShmBytes = ptr(64 * mib) }), "bus-error", ""},
		{"held not known", ends(135, nil, func(f *Facts) { f.ShmSize = ptr(64 * mib) }), "bus-error", ""},
		{"another signal", ends(139, nil, shm(64*mib, 64*mib)), "segfault", ""},
	} {
		v := Judge(tc.facts)
		if v.Rule != tc.rule || !strings.Contains(v.Summary, tc.says) {
			t.Errorf("%s: %s %q, want %s %q", tc.name, v.Rule, v.Summary, tc.rule, tc.says)
		}
		if tc.rule == "bus-error-shm-full" && (v.Confidence != death.Probable || v.Cause != death.BusError || !strings.Contains(v.Advice[0], "64 MiB")) {
			t.Errorf("%s: %+v", tc.name, v)
		}
	}
}

// TestLogLines_ThatCount: what is kept of a long log, and what has more read.
func TestLogLines_ThatCount(t *testing.T) {
	for text, want := range map[string][2]bool{ // kept, long
		"fatal error: out of memory":                              {true, false},
		"panic: runtime error: index out of range":                {true, false},
		"goroutine 7 gp=0x348acf7ff680 m=nil [GC worker (idle)]:": {false, true},
		"goroutine 1 [running]:":                                  {false, true},
		"goroutine 1 is running":                                  {false, false},
		"some panic: of others":                                   {false, false},
		"\tmain.go:12 +0x1d":                                      {false, false},
	} {
		if got := [2]bool{KeepLogLine(text), LongLog(text)}; got != want {
			t.Errorf("%q: kept and long %v, want %v", text, got, want)
		}
	}
}

func FuzzHeapLines(f *testing.F) {
	for _, row := range heapLines {
		f.Add(row.example+"\n"+row.example, 1)
	}
	f.Add(traceback+"\n  x\nMemoryError\n"+traceback, 134)
	f.Fuzz(func(t *testing.T, log string, code int) {
		var lines []LogLine
		for line := range strings.Lines(log) {
			lines = append(lines, LogLine{Text: strings.TrimRight(line, "\n")})
		}
		v := Judge(ends(code, lines, func(f *Facts) { f.LogRead = true }))
		if (v.Claim != nil) != (v.Cause == death.HeapLimit) || v.Summary == "" || v.AsksLog {
			t.Fatalf("%+v", v)
		}
		if v.Claim != nil && heapRow(v.Claim.Text) == nil {
			t.Fatalf("claim %q is of no row", v.Claim.Text)
		}
	})
}
