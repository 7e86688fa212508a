// SPDX-License-Identifier: Apache-2.0

//go:build linux

package engines

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/death"
)

// Runtimes are the language runtimes of this machine, lent to containers that
// have nothing of them.
type Runtimes struct {
	// Binds are what a container must be lent, each as PATH:PATH:ro.
	Binds []string
	// Java, Node, Python, PHP and Ruby are programs in it, Classes is a folder
	// with testdata/Grow.class.
	Java, Node, Python, PHP, Ruby, Classes string
}

// NeedRuntimes finds them, or skips the test.
func NeedRuntimes(t *testing.T) Runtimes {
	t.Helper()
	Need(t, "default-jre-headless, nodejs, php-cli, python3-minimal, ruby", "/usr/bin/java", "/usr/bin/node", "/usr/bin/python3", "/usr/bin/php", "/usr/bin/ruby")
	r := Runtimes{Node: "/usr/bin/node", Python: "/usr/bin/python3", PHP: "/usr/bin/php", Classes: t.TempDir()}
	class, err := os.ReadFile("../engines/testdata/Grow.class") // of a test in a package beside this one
	Must(t, err)
	Must(t, os.WriteFile(filepath.Join(r.Classes, "Grow.class"), class, 0o644)) //nolint:gosec // a container's user reads it
	// Some are links by way of /etc, of which a container has nothing.
	for path, to := range map[string]*string{"/usr/bin/java": &r.Java, "/usr/bin/php": &r.PHP, "/usr/bin/ruby": &r.Ruby} {
		var err error
		*to, err = filepath.EvalSymlinks(path)
		Must(t, err)
	}
	conf, err := filepath.Glob("/etc/java-*-openjdk")
	Must(t, err)
	for _, dir := range append([]string{"/usr", "/lib", "/lib64", r.Classes}, conf...) {
		r.Binds = append(r.Binds, dir+":"+dir+":ro")
	}
	return r
}

// HeapRun is a real runtime that is refused memory, or is not.
type HeapRun struct {
	Name    string
	Command []string
	// Code is what the runtime leaves with, AnySignal where it depends on its
	// build. Says is what of its line must be told, Setting what of the advice;
	// both are empty where it is refused nothing.
	Code          int
	Says, Setting string
}

// AnySignal stands for 128 and the number of a signal.
const AnySignal = -1

// HeapRuns are the runtimes, each of which reaches what it may have itself,
// some 32 MiB or 200 of address space.
func (r Runtimes) HeapRuns() []HeapRun {
	java := []string{r.Java, "-Xmx32m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:TieredStopAtLevel=1", "-cp", r.Classes}
	with := func(more ...string) []string { return append(java[:len(java):len(java)], more...) }
	node := []string{r.Node, "--max-old-space-size=32", "-e", "const a = []; for (;;) a.push(new Array(1e4).fill({}))"}
	const heap, address = "Java heap space", "ulimit -v"
	return []HeapRun{
		{"jvm", with("Grow"), 1, `Exception in thread "main" java.lang.OutOfMemoryError: ` + heap, "-Xmx"},
		{"jvm-exit", with("-XX:+ExitOnOutOfMemoryError", "Grow"), 3, "Terminating due to java.lang.OutOfMemoryError: " + heap, "-Xmx"},
		// SIGABRT passes by a first process, which then ends by what V8 does next.
		{"node", node, AnySignal, "JavaScript heap out of memory", "--max-old-space-size"},
		{"node-in-shell", below(node), 134, "JavaScript heap out of memory", "--max-old-space-size"},
		{"python", Refused(r.Python, "-c", "a = []\nwhile True: a.append(bytearray(1 << 20))"), 1, "MemoryError", address},
		{"php", []string{r.PHP, "-n", "-d", "memory_limit=32M", "-r", `$a = []; while (true) $a[] = str_repeat("x", 1 << 20);`}, 255, "Allowed memory size of 33554432 bytes exhausted", "memory_limit"},
		{"ruby", Refused(r.Ruby, "-e", `a = []; loop { a << ("x" * (1 << 20)) }`), 1, "failed to allocate memory (NoMemoryError)", address},
	}
}

// Refused runs a program that may have 200 MB of addresses.
func Refused(program ...string) []string {
	return []string{"/bin/sh", "-c", "ulimit -v 200000; exec" + quote(program)}
}

// below runs a program that is not the first process.
func below(program []string) []string {
	return []string{"/bin/sh", "-c", quote(program) + passOn}
}

const passOn = "; exit $?"

func quote(program []string) string {
	quoted := ""
	for _, word := range program {
		quoted += " '" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return quoted
}

// inShell tells whether the first process is a shell to its end.
func (h HeapRun) inShell() bool { return strings.HasSuffix(h.Command[len(h.Command)-1], passOn) }

// Counters are runs that leave as the runtimes above do, and are no such end.
func (r Runtimes) Counters() []HeapRun {
	return []HeapRun{
		{Name: "jvm-told", Command: []string{r.Java, "-Xmx32m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-cp", r.Classes, "Grow", "told"}},
		{Name: "jvm-no-class", Command: []string{r.Java, "-Xmx32m", "-XX:-UsePerfData", "-cp", r.Classes, "Grown"}, Code: 1},
		{Name: "node-abort", Command: below([]string{r.Node, "-e", "process.abort()"}), Code: 134},
		{Name: "python-exit", Command: []string{r.Python, "-c", "raise KeyError('MemoryError')"}, Code: 1},
		{Name: "php-exit", Command: []string{r.PHP, "-n", "-r", "exit(255);"}, Code: 255},
		{Name: "ruby-raise", Command: []string{r.Ruby, "-e", "raise 'no memory for that'"}, Code: 1},
	}
}

// Overstepped prints what a runtime says that was refused memory, overcomes it,
// and takes more than its container may have.
func (r Runtimes) Overstepped() []string {
	return []string{r.Python, "-u", "-c", `import resource, traceback
no, most = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (200 << 20, most))
a = []
try:
    while True: a.append(bytearray(1 << 20))
except MemoryError:
    traceback.print_exc()
resource.setrlimit(resource.RLIMIT_AS, (no, most))
while True: a.append(bytearray(1 << 20))`}
}

// Left tells whether this is how it leaves.
func (h HeapRun) Left(code int) bool {
	return code == h.Code || h.Code == AnySignal && code > 128 && code != 137
}

// IsHeapLimit holds a death against the run that ended in a container that may
// have limit.
func IsHeapLimit(d *death.Death, run HeapRun, limit int64) error {
	sure := death.Certain
	if run.inShell() {
		sure = death.Probable // which may print any line, and leave with any code
	}
	switch {
	case d.Cause != death.HeapLimit || d.Confidence != sure || d.Subject != death.SubjectContainer || d.OOM != nil:
		return fmt.Errorf("%s %s %s, OOM %+v", d.Subject, d.Cause, d.Confidence, d.OOM)
	case d.Exit == nil || d.Exit.Code == nil || !run.Left(*d.Exit.Code) || !strings.Contains(d.Summary, run.Says):
		return fmt.Errorf("exit %+v: %s", d.Exit, d.Summary)
	case !slices.ContainsFunc(d.Evidence, func(e death.Evidence) bool { return strings.Contains(e.Text, run.Says) }):
		return fmt.Errorf("the line is no evidence: %+v", d.Evidence)
	}
	return tellsFigures(d, run, limit)
}

// tellsFigures: the peak stands against the limit, and in the advice.
func tellsFigures(d *death.Death, run HeapRun, limit int64) error {
	m := d.Memory
	if m == nil || m.LimitBytes == nil || *m.LimitBytes != limit || m.PeakBytes == nil || *m.PeakBytes < 4<<20 || *m.PeakBytes >= limit {
		return fmt.Errorf("memory %+v", m)
	}
	if !strings.Contains(d.Summary, death.FormatBytes(*m.PeakBytes)+" of its "+death.FormatBytes(limit)) {
		return fmt.Errorf("no peak against the limit: %s", d.Summary)
	}
	if len(d.Advice) == 0 || !strings.Contains(d.Advice[0], run.Setting) || !strings.Contains(d.Advice[0], death.FormatBytes(limit-*m.PeakBytes)) {
		return fmt.Errorf("advice %q", d.Advice)
	}
	return nil
}
