// SPDX-License-Identifier: Apache-2.0

package oomreport

import "bytes"

// lineKind is what a line is to a report.
type lineKind int

const (
	lineOther      lineKind = iota
	lineInvoked             // COMM invoked oom-killer: ...
	lineTaskIn              // Task in A killed as a result of limit of B
	lineUsage               // memory: usage ...
	lineStats               // Memory cgroup stats for ...
	lineTable               // Tasks state (memory values in pages):
	lineHeader              // [  pid  ]   uid  tgid ...
	lineSummary             // oom-kill:constraint=...
	lineChosen              // Kill process P (c) score N or sacrifice child
	lineKilled              // Killed process P (c) ...
	lineTasksIn             // Tasks in A are going to be killed ...
	lineUnkillable          // Out of memory and no killable processes...
	lineExiting             // OOM victim P (c) is already exiting ...
	lineSharer              // Kill process P (c) sharing same memory
	lineSuppressed          // oom_kill_process: N callbacks suppressed
	lineReaped              // oom_reaper: reaped process P (c), ...
)

// begins tells whether a line of this kind is the start of a message, never
// the rest of one.
func (k lineKind) begins() bool { return k != lineOther }

// whose is what the first words of a kill line say.
type whose struct{ memcg, global bool }

const (
	invoked     = " invoked oom-killer: "
	invokedMask = invoked + "gfp_mask="
)

// classify looks at the first bytes of a line. It is all the work that a line
// outside reports costs. The text comes back without the words before its
// kind: for kill lines that is the message of oom_kill_process.
func classify(text []byte) (lineKind, whose, []byte) {
	if len(text) < len("Task in ") {
		return lineOther, whose{}, text
	}
	text = numbered(text)
	// All the words below may be the name of the process that asks.
	asks := invokedAt(text)
	if asks >= 0 && asks <= taskComm {
		return lineInvoked, whose{}, text
	}
	if len(text) > 0 && (text[0] == 'M' || text[0] == 'O' || text[0] == 'K') {
		if k, w, rest := classifyMessage(text); k != lineOther {
			return k, w, rest
		}
	} else if k, rest := classifyWord(text); k != lineOther {
		return k, whose{}, rest
	}
	if asks > 0 {
		return lineInvoked, whose{}, text
	}
	return lineOther, whose{}, text
}

// classifyWord looks at the lines that begin with their own word.
func classifyWord(text []byte) (lineKind, []byte) {
	if len(text) == 0 {
		return lineOther, text
	}
	switch text[0] {
	case 'T':
		return classifyTasks(text), text
	case 'o':
		const reaped = "oom_reaper: reaped process "
		switch {
		case has(text, "oom-kill:"):
			return lineSummary, text
		case has(text, "oom_kill_process: "):
			return lineSuppressed, text
		case has(text, reaped):
			return lineReaped, text[len(reaped):]
		}
	case 'm', 's', 'k':
		for _, w := range [...]string{"memory: usage ", "memory+swap: usage ", "swap: usage ", "kmem: usage "} {
			if has(text, w) {
				return lineUsage, text
			}
		}
	case '[':
		if has(bytes.TrimLeft(text[1:], " "), "pid ") && bytes.HasSuffix(bytes.TrimRight(text, " "), []byte(" name")) {
			return lineHeader, text
		}
	}
	return lineOther, text
}

// classifyTasks tells the lines about tasks apart. The kernel may break the
// first of them behind "Task in ", before a long path.
func classifyTasks(text []byte) lineKind {
	switch {
	case has(text, "Task in /"), string(text) == "Task in ":
		return lineTaskIn
	case has(text, "Tasks in "):
		return lineTasksIn
	case has(text, "Tasks state"):
		return lineTable
	}
	return lineOther
}

// invokedAt finds where a name ends and " invoked oom-killer: gfp_mask="
// begins; -1: nowhere. It goes by the hyphen, which few lines have.
func invokedAt(text []byte) int {
	const hyphen = len(" invoked oom")
	window := text[:min(len(text), maxComm+hyphen+1)]
	for from := hyphen; from < len(window); {
		i := bytes.IndexByte(window[from:], '-')
		if i < 0 {
			return -1
		}
		from += i
		if has(text[from-hyphen:], invokedMask) {
			return from - hyphen
		}
		from++
	}
	return -1
}

// classifyMessage looks at lines that begin with the OOM killer's message.
func classifyMessage(text []byte) (lineKind, whose, []byte) {
	var w whose
	rest := text
	switch {
	case has(text, statsFor):
		return lineStats, w, text
	case has(text, "Memory cgroup out of memory: "):
		w.memcg, rest = true, text[len("Memory cgroup out of memory: "):]
	case has(text, "Out of memory and no killable process"):
		return lineUnkillable, w, text
	case has(text, "Out of memory: "):
		w.global, rest = true, text[len("Out of memory: "):]
	case has(text, "Out of memory (oom_kill_allocating_task): "):
		w.global, rest = true, text[len("Out of memory (oom_kill_allocating_task): "):]
	}
	switch {
	case has(rest, "Killed process ") && len(rest) > 15 && rest[15]-'0' < 10:
		return lineKilled, w, rest[15:]
	case has(rest, "Kill process ") && len(rest) > 13 && rest[13]-'0' < 10:
		if bytes.HasSuffix(rest, []byte(" sharing same memory")) {
			return lineSharer, w, rest[13:]
		}
		return lineChosen, w, rest[13:]
	case has(rest, "OOM victim ") && bytes.Contains(rest, []byte("is already exiting")):
		return lineExiting, w, rest[11:]
	}
	return lineOther, w, text
}

// numbered takes off "OOM[n]: ", which a patch set proposed for every line.
func numbered(text []byte) []byte {
	if !has(text, "OOM[") {
		return text
	}
	if _, rest, ok := number(text[4:]); ok && has(rest, "]: ") {
		return rest[3:]
	}
	return text
}

func has(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix
}

// number reads a decimal number, with a sign perhaps: up to 18 digits, which
// an int64 holds whatever they are.
func number(b []byte) (n int64, rest []byte, ok bool) {
	i := 0
	neg := len(b) > 1 && b[0] == '-'
	if neg {
		i = 1
	}
	first := i
	for i < len(b) && b[i]-'0' < 10 {
		n = n*10 + int64(b[i]-'0')
		i++
	}
	if i == first || i-first > 18 {
		return 0, b, false
	}
	if neg {
		n = -n
	}
	return n, b[i:], true
}

// pid reads a process id: positive and within an int32.
func pid(b []byte) (int, []byte, bool) {
	n, rest, ok := number(b)
	if !ok || n <= 0 || n > 1<<31-1 {
		return 0, b, false
	}
	return int(n), rest, true
}

// all reads a number that is all of b.
func all(b []byte) (int64, bool) {
	n, rest, ok := number(b)
	return n, ok && len(rest) == 0
}
