// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// LogLine is one line that a container wrote: what it says of itself.
type LogLine struct {
	Time   time.Time // zero: not told
	Stream string    // stdout or stderr
	Text   string
}

// lastBreath is how long before its end a runtime may have said why it gives
// up: some write their heap or core to a file meanwhile.
const lastBreath = time.Minute

// heapLine is one message by which a language runtime says that it was refused
// memory.
type heapLine struct {
	id      string
	runtime string
	// word is in each such line; pattern is asked of lines that have it.
	word    string
	pattern func() *regexp.Regexp
	// example is a real line: of a run kept in testdata/heap, or, where source
	// is set, from there.
	example, source string
	// codes are what the runtime then leaves with, 128 and the signal's number
	// for a signal; nil: programs print this without ending by it.
	codes []int
	// ends tells of the line at i, among those of its stream, whether its
	// neighbours bear it out, and whether it ended there; nil: it needs none.
	ends func(lines []LogLine, i int) (here, sure bool)
	// setting is what raises what it may have.
	setting string
}

const (
	setHeap   = "-Xmx, or -XX:MaxRAMPercentage= (without either, a quarter of the container's limit)"
	setJVM    = setHeap + "; for Metaspace -XX:MaxMetaspaceSize=, for direct buffers -XX:MaxDirectMemorySize="
	setNode   = "--max-old-space-size= (MiB; in NODE_OPTIONS, too)"
	setNative = "its limits of address space and data (ulimit -v and -d), and the machine's vm.overcommit_memory"
	setDotNet = "DOTNET_GCHeapHardLimit (hexadecimal) or DOTNET_GCHeapHardLimitPercent (without either, three quarters of the container's limit)"
	setGo     = setNative + "; GOMEMLIMIT makes it collect before it is refused"
	setPHP    = "memory_limit in php.ini (a request's own, whatever the container may have)"
)

// heapLines are tried in their order on each line, the newest line first.
// "unable to create native thread" and "Requested array size exceeds VM limit"
// of the JVM are no matter of the heap's size, and in no row.
var heapLines = []heapLine{
	{
		id: "jvm-exit", runtime: "the JVM", word: "OutOfMemoryError", codes: []int{3, 134},
		pattern: pattern(`^(Terminating|Aborting) due to java\.lang\.OutOfMemoryError: ` + jvmSpaces),
		example: "Terminating due to java.lang.OutOfMemoryError: Java heap space", setting: setJVM,
	},
	{
		id: "jvm-main", runtime: "the JVM", word: "OutOfMemoryError", codes: []int{1},
		pattern: pattern(`^Exception in thread "main" java\.lang\.OutOfMemoryError: ` + jvmSpaces),
		example: `Exception in thread "main" java.lang.OutOfMemoryError: Java heap space`, setting: setJVM,
	},
	{
		id: "jvm-handler", runtime: "the JVM", word: "OutOfMemoryError", codes: []int{1},
		pattern: pattern(`^Exception: java\.lang\.OutOfMemoryError thrown from the UncaughtExceptionHandler in thread "main"`),
		example: `Exception: java.lang.OutOfMemoryError thrown from the UncaughtExceptionHandler in thread "main"`, setting: setJVM,
	},
	{
		id: "jvm-native", runtime: "the JVM", word: "insufficient memory", codes: []int{1, 134},
		pattern: pattern(`^# There is insufficient memory for the Java Runtime Environment to continue\.`),
		example: "# There is insufficient memory for the Java Runtime Environment to continue.", setting: setNative,
	},
	{
		id: "jvm-reserve", runtime: "the JVM", word: "Could not ", codes: []int{1},
		pattern: pattern(`^Could not (reserve enough space for .*object heap|allocate compressed class space)`),
		example: "Could not reserve enough space for 3072000KB object heap", setting: setHeap + ", below " + setNative,
	},
	{
		id: "jvm-told", runtime: "the JVM", word: "OutOfMemoryError",
		pattern: pattern(`\bjava\.lang\.OutOfMemoryError: ` + jvmSpaces),
		example: "java.lang.OutOfMemoryError: Java heap space", setting: setJVM,
	},
	{
		id: "node-heap", runtime: "Node.js", word: "out of memory", codes: []int{134, 133, 132, 139},
		pattern: pattern(`^FATAL ERROR: .*(JavaScript heap|process) out of memory`),
		example: "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory", setting: setNode,
	},
	{
		id: "node-worker", runtime: "Node.js", word: "ERR_WORKER_OUT_OF_MEMORY", codes: []int{1},
		pattern: pattern(`^Error \[ERR_WORKER_OUT_OF_MEMORY\]: `),
		example: "Error [ERR_WORKER_OUT_OF_MEMORY]: Worker terminated due to reaching memory limit: JS heap out of memory",
		setting: "resourceLimits of the Worker, or " + setNode,
	},
	{
		id: "node-buffer", runtime: "Node.js", word: "Array buffer", codes: []int{1},
		pattern: pattern(`^RangeError: Array buffer allocation failed`),
		example: "RangeError: Array buffer allocation failed", setting: setNative,
	},
	{
		id: "go-fatal", runtime: "the Go runtime", word: "fatal error: ", codes: []int{2, 134},
		pattern: pattern(`^fatal error: (runtime: )?(out of memory|cannot allocate memory)`),
		example: "fatal error: runtime: out of memory", setting: setGo,
	},
	{
		id: "python", runtime: "Python", word: "MemoryError", codes: []int{1}, ends: endOfTraceback,
		pattern: pattern(`^([A-Za-z_][\w.]*\._Array)?MemoryError(: .*)?$`),
		example: "MemoryError", setting: setNative,
	},
	{
		id: "php-limit", runtime: "PHP", word: "Allowed memory size", codes: []int{255},
		pattern: pattern(`\bAllowed memory size of \d+ bytes exhausted`),
		example: "PHP Fatal error:  Allowed memory size of 33554432 bytes exhausted (tried to allocate 2097152 bytes) in /app/grow.php on line 3", setting: setPHP,
	},
	{
		id: "php-mmap", runtime: "PHP", word: "mmap() failed", codes: []int{1, 255},
		pattern: pattern(`^mmap\(\) failed: \[12\] Cannot allocate memory`),
		example: "mmap() failed: [12] Cannot allocate memory", setting: setNative,
	},
	{
		id: "ruby", runtime: "Ruby", word: "NoMemoryError", codes: []int{1},
		pattern: pattern(`\bfailed to allocate memory \(NoMemoryError\)`),
		example: "grow.rb: failed to allocate memory (NoMemoryError)", setting: setNative,
	},
	{
		// The two are what it says where it has no memory for more.
		id: "ruby-bare", runtime: "Ruby", word: ": NoMemoryError", codes: []int{1},
		pattern: pattern(`^[^: ]+: NoMemoryError$`),
		example: "grow.rb: NoMemoryError", setting: setNative,
	},
	{
		id: "ruby-fatal", runtime: "Ruby", word: "[FATAL] failed to allocate", codes: []int{1},
		pattern: pattern(`^\[FATAL\] failed to allocate memory$`),
		example: "[FATAL] failed to allocate memory", setting: setNative,
	},
	{
		id: "cpp-bad-alloc", runtime: "C++", word: "bad_alloc", codes: []int{134},
		pattern: pattern(`^terminate called after throwing an instance of 'std::bad_alloc'`),
		example: "terminate called after throwing an instance of 'std::bad_alloc'", setting: setNative,
	},
	{
		id: "dotnet-core2", runtime: ".NET", word: "OutOfMemoryException", codes: []int{134, 139},
		pattern: pattern(`^Unhandled Exception: (System\.)?OutOfMemoryException\b`),
		example: "Unhandled Exception: OutOfMemoryException.", setting: setNative,
	},
	{
		id: "dotnet-exception", runtime: ".NET", word: "System.OutOfMemoryException", codes: []int{134, 139}, ends: endOfUnhandled,
		pattern: pattern(`^(( ---> )?System\.OutOfMemoryException: |(Unhandled exception|Process terminated|Fatal error)\. .*\bSystem\.OutOfMemoryException\b)`),
		example: " ---> System.OutOfMemoryException: Exception of type 'System.OutOfMemoryException' was thrown.", setting: setDotNet,
	},
	{
		id: "dotnet-bare", runtime: ".NET", word: "Out of memory.", codes: []int{134, 139},
		pattern: pattern(`^Out of memory\.$`),
		example: "Out of memory.", setting: setDotNet,
	},
	{
		// It never ran; 137 is the low byte of the host's own error, and no signal.
		id: "dotnet-init", runtime: ".NET", word: "0x8007000", codes: []int{137},
		pattern: pattern(`^(GC heap initialization failed with error 0x8007000E|Failed to create CoreCLR, HRESULT: 0x8007000[8E])$`),
		example: "GC heap initialization failed with error 0x8007000E", setting: setDotNet + ", and " + setNative,
	},
}

// jvmSpaces are what of the JVM can be full.
const jvmSpaces = `(Java heap space|GC overhead limit exceeded|Metaspace|Compressed class space|Direct buffer memory|Cannot reserve \d+ bytes of direct buffer memory|Unable to allocate \d+ bytes)`

// pattern is compiled when a line first has its word: most agents never see one,
// and all together hold a quarter of a MiB.
func pattern(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

const traceback = "Traceback (most recent call last):"

// endOfTraceback tells whether an exception of Python is the end of a
// traceback, and of the last one; sure where the main thread ended by it.
func endOfTraceback(lines []LogLine, i int) (here, sure bool) {
	for _, l := range lines[i+1:] {
		if l.Text == traceback {
			return false, false // it went on, and ended by something else
		}
	}
	j := i - 1
	for j >= 0 && strings.HasPrefix(lines[j].Text, "  ") {
		j--
	}
	if j == i-1 || j >= 0 && lines[j].Text != traceback {
		return false, false
	}
	thread := j > 0 && strings.HasPrefix(lines[j-1].Text, "Exception in thread ")
	return true, j >= 0 && !thread && i == len(lines)-1
}

// unhandled begins what .NET says of an exception by which it ends.
var unhandled = regexp.MustCompile(`^(Unhandled exception|Process terminated|Fatal error)\. `)

// endOfUnhandled tells whether an exception of .NET is, or brought about, one
// that nobody handled, and the last one.
func endOfUnhandled(lines []LogLine, i int) (here, sure bool) {
	for _, l := range lines[i+1:] {
		if unhandled.MatchString(l.Text) {
			return false, false
		}
	}
	for ; i >= 0; i-- {
		if unhandled.MatchString(lines[i].Text) {
			return true, true
		}
		below := strings.HasPrefix(lines[i].Text, " ") || strings.HasPrefix(lines[i].Text, "--- End of ") || strings.HasPrefix(lines[i].Text, "System.OutOfMemoryException: ")
		if !below {
			return false, false
		}
	}
	return true, false // its beginning is gone
}

// heapClaim is a runtime's word that it was refused memory.
type heapClaim struct {
	row  *heapLine
	line LogLine
	sure bool // by this message the runtime ends, and with such a code
}

// heapClaim finds the newest line by which a runtime says so, one that is sure
// before others; nil: there is none.
func (f *Facts) heapClaim() *heapClaim {
	var found *heapClaim
	for i := len(f.LogLines) - 1; i >= 0; i-- {
		l := f.LogLines[i]
		if !l.Time.IsZero() && !f.EndedAt.IsZero() && f.EndedAt.Sub(l.Time) > lastBreath {
			continue
		}
		row := heapRow(l.Text)
		if row == nil {
			continue
		}
		c := heapClaim{row: row, line: l, sure: slices.Contains(row.codes, f.exitCode())}
		if row.ends != nil {
			here, sure := row.ends(f.streamAt(i))
			if !here {
				continue
			}
			c.sure = c.sure && sure
		}
		if c.sure {
			return &c
		}
		if found == nil {
			found = &c
		}
	}
	return found
}

// streamAt are the lines of the stream of line i, and where it is in them.
func (f *Facts) streamAt(i int) (lines []LogLine, at int) {
	for j, l := range f.LogLines {
		if j == i {
			at = len(lines)
		}
		if l.Stream == f.LogLines[i].Stream {
			lines = append(lines, l)
		}
	}
	return lines, at
}

func heapRow(text string) *heapLine {
	for i := range heapLines {
		if x := &heapLines[i]; strings.Contains(text, x.word) && x.pattern().MatchString(text) {
			return x
		}
	}
	return nil
}

// KeepLogLine tells whether a line counts that stands before the last ones.
func KeepLogLine(text string) bool {
	return heapRow(text) != nil || strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "fatal error: ")
}

// goTrace opens the trace of one goroutine. Go prints those of all, below the
// line that says why: a fatal error, or a panic, which says that it is none of
// memory.
var goTrace = regexp.MustCompile(`^goroutine \d+ .*\[.*\]:$`)

// LongLog tells whether a line is of something long whose beginning counts.
func LongLog(text string) bool { return goTrace.MatchString(text) }

// ofChild tells whether the exit code is rather that of a child that SIGKILL
// ended, as shells and inits pass it on, than one of the runtime's own.
func (f *Facts) ofChild() bool { return f.endedBy(sigkill) && !f.heapClaim().sure }

// ownDoing tells whether the first process failed and ended by itself, as far
// as is known: nobody was asked to stop it or sent it a signal. A 137 is that
// where the kernel says that it left.
func (f *Facts) ownDoing() bool {
	if !f.Ended || f.OOM || f.NeverRan || f.InRuntime || f.Killer != nil || f.Stop.Matters() || f.exitCode() <= 0 {
		return false
	}
	n := f.endSignal()
	if n == sigkill {
		return f.left()
	}
	return !sentByOthers(n)
}

// exitCode is how the first process ended in one number, as a shell has it;
// -1: not known.
func (f *Facts) exitCode() int {
	switch x := f.Exit; {
	case x == nil:
	case x.Signal != nil:
		return 128 + *x.Signal
	case x.Code != nil:
		return *x.Code
	}
	return -1
}

// asksLog tells whether a rule would look at the container's last lines.
func (f *Facts) asksLog() bool { return !f.LogRead && f.ownDoing() }

// belowLimit tells whether the container's memory is not known to have reached
// its limit.
func (f *Facts) belowLimit() bool {
	return f.PeakBytes == nil || f.ContainerLimit == nil || *f.PeakBytes < *f.ContainerLimit
}

// heapRules judge by what a container said last.
var heapRules = []Rule{
	{
		ID: "heap-limit", Cause: death.HeapLimit, Confidence: death.Certain,
		Meaning: "The language runtime was refused memory, said so in its last lines and gave up, while the container's memory was below its limit. It is certain where it left as the runtime does after such a line; a line alone is a claim that any program can make, and so are line and code of a shell, or of a first process that nobody named or that is an init.",
		Needs:   "the end of the container's log, with the line of a runtime; an end by its own doing; a peak of memory below the limit, where both are known",
		fits:    func(f *Facts) bool { return f.ownDoing() && f.belowLimit() && f.heapClaim() != nil && !f.ofChild() },
		sure:    func(f *Facts) bool { return f.heapClaim().sure && f.noShell() },
		claim:   func(f *Facts) *LogLine { return &f.heapClaim().line },
		advice:  adviseHeap,
	},
}

// noShell tells whether the first process is known to be no shell. A shell leaves
// with any code that its script says, and what ran below it nobody has seen.
func (f *Facts) noShell() bool {
	first := cmp.Or(f.First, f.Program)
	if isInit(first) {
		first = f.Program // which Docker's --init runs below it
	}
	return first != "" && !isShell(first) && !isInit(first)
}

// isInit tells whether a program of this name does nothing but start another,
// and leaves with its code.
func isInit(name string) bool {
	switch name {
	case "docker-init", "tini", "tini-static", "dumb-init", "catatonit", "podman-init":
		return true
	}
	return false
}

func isShell(name string) bool {
	switch name {
	case "sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "fish", "csh", "tcsh", "busybox":
		return true
	}
	return false
}

// heapSentence is the summary of an end for want of heap.
func heapSentence(f *Facts) string {
	c := f.heapClaim()
	if c == nil {
		return ""
	}
	how := endedHow(f)
	if f.endedBy(sigkill) {
		how = fmt.Sprintf("left with exit code %d, which is no signal here", f.exitCode())
	}
	s := fmt.Sprintf("%s ended: %s %s; %s had been refused memory, and said '%s'.", upper(where(f)), firstName(f), how,
		c.row.runtime, shorten(death.Printable(strings.TrimSpace(c.line.Text)), 160))
	switch peak, limit := f.PeakBytes, f.ContainerLimit; {
	case peak != nil && limit != nil:
		s += fmt.Sprintf(" The container's memory peaked at %s of its %s.", death.FormatBytes(*peak), death.FormatBytes(*limit))
	case peak != nil:
		s += fmt.Sprintf(" The container's memory peaked at %s.", death.FormatBytes(*peak))
	case limit != nil:
		s += fmt.Sprintf(" The container may have %s.", death.FormatBytes(*limit))
	}
	if f.Counted {
		s += " The kernel killed nothing."
	}
	return s
}

func adviseHeap(f *Facts) []string {
	c := f.heapClaim()
	if c == nil {
		return nil
	}
	grow := fmt.Sprintf("If the work honestly needs more, raise what %s may have: %s.", c.row.runtime, c.row.setting)
	if limit, peak := f.ContainerLimit, f.PeakBytes; limit != nil && peak != nil && *peak < *limit {
		grow += fmt.Sprintf(" The container's limit leaves %s over its peak; above that, raise the limit, too.", death.FormatBytes(*limit-*peak))
	} else if limit != nil {
		grow += fmt.Sprintf(" Keep it below the container's limit of %s, with room for what is not heap.", death.FormatBytes(*limit))
	}
	return []string{grow, "Else look for what grew: raising the container's memory limit alone changes nothing where the runtime's own setting is a fixed size."}
}
