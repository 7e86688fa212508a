// SPDX-License-Identifier: Apache-2.0

package oomreport

import "bytes"

// killLine is what a "Killed process" line says.
type killLine struct {
	whose
	pid  int
	comm []byte
	uid  *int64
	// in bytes
	totalVM, anon, file, shmem, pgtables *int64
	adj                                  *int
	// whole is true when the line has an end that a kernel gives it.
	whole bool
}

// parseKilled reads what follows "Killed process ":
//
//	P (c) total-vm:NkB, anon-rss:NkB, file-rss:NkB              2.6.36
//	P (c) vsz:NkB, anon-rss:NkB, file-rss:NkB                   2.6.32
//	P, UID U, (c) total-vm:...                                  RHEL 6
//	P (c), UID U, total-vm:...                                  RHEL 7
//	... shmem-rss:NkB                                           4.5
//	... shmem-rss:NkB, UID:U pgtables:NkB oom_score_adj:N       5.4 to 5.8
//
// No bracket stands behind the name's own, so the last one ends the name.
func parseKilled(w whose, b []byte) (killLine, bool) {
	kl := killLine{whose: w}
	var ok bool
	if kl.pid, b, ok = pid(b); !ok {
		return kl, false
	}
	if rest, ok := bytes.CutPrefix(b, []byte(", UID ")); ok {
		uid, after, ok := number(rest)
		if !ok || !has(after, ", (") {
			return kl, false
		}
		kl.uid, b = &uid, after[1:]
	}
	if !has(b, " (") {
		return kl, false
	}
	b = b[2:]
	end := commEnd(b)
	if end < 0 || end > maxComm {
		return kl, false
	}
	kl.comm, b = b[:end], b[end+1:]
	if rest, ok := bytes.CutPrefix(b, []byte(", UID ")); ok {
		uid, after, ok := number(rest)
		if ok && has(after, ", ") {
			kl.uid, b = &uid, after[1:]
		}
	}
	kl.figures(b)
	return kl, true
}

// doubtEnd leaves out what touches the end of a line that may lack its end:
// the adjustment, or the name.
func (kl *killLine) doubtEnd(b []byte) {
	kl.adj = nil
	if len(b) > 0 && b[len(b)-1] == ')' {
		kl.comm = nil
	}
}

// commEnd finds the bracket that ends a name at the front of b: the last one,
// unless something was pasted behind the line, or the line was cut.
func commEnd(b []byte) int {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 || follows(b[end+1:], false) {
		return end
	}
	for _, s := range followers() {
		if i := bytes.LastIndex(b, []byte(")"+s)); i >= 0 {
			return i
		}
	}
	if follows(b[end+1:], true) {
		return end
	}
	return -1
}

// followers are what the kernel prints behind a name in a kill line.
func followers() [3]string { return [3]string{" total-vm:", " vsz:", ", UID "} }

// follows tells whether b goes on as behind a name, or is cut while it does.
func follows(b []byte, cut bool) bool {
	for _, s := range followers() {
		if has(b, s) || cut && len(b) < len(s) && s[:len(b)] == string(b) {
			return true
		}
	}
	return cut && len(bytes.TrimRight(b, " .")) == 0
}

// figures reads " total-vm:NkB, anon-rss:NkB, ..." and stops at what it does
// not know.
func (kl *killLine) figures(b []byte) {
	for {
		b = bytes.TrimLeft(b, " ,")
		i := bytes.IndexByte(b, ':')
		if i < 0 {
			return
		}
		n, rest, ok := number(b[i+1:])
		if !ok {
			return
		}
		key := string(b[:i])
		kB := has(rest, "kB")
		if kB {
			rest = rest[2:]
		}
		if !kl.set(key, n, kB, rest) {
			return
		}
		kl.whole = len(bytes.TrimRight(rest, " ")) == 0 && (key == "oom_score_adj" || key == "shmem-rss" || key == "file-rss")
		b = rest
	}
}

func (kl *killLine) set(key string, n int64, kB bool, rest []byte) bool {
	var to **int64
	switch key {
	case "total-vm", "vsz":
		to = &kl.totalVM
	case "anon-rss":
		to = &kl.anon
	case "file-rss":
		to = &kl.file
	case "shmem-rss":
		to = &kl.shmem
	case "pgtables":
		to = &kl.pgtables
	case "UID":
		if kB || len(rest) == 0 {
			return false // the kernel goes on behind it
		}
		kl.uid = &n
		return true
	case "oom_score_adj":
		if kB || n < -1000 || n > 1000 {
			return false
		}
		adj := int(n)
		kl.adj = &adj
		return true
	default:
		return false
	}
	if !kB {
		return false
	}
	*to = kilo(n)
	return true
}

// kilo turns kB into bytes; nil where that makes no sense.
func kilo(n int64) *int64 {
	if n < 0 || n > (1<<63-1)>>10 {
		return nil
	}
	n <<= 10
	return &n
}

// pidComm reads "P (c)REST" where the name ends at the last occurrence of
// ")" + mark.
func pidComm(b []byte, mark string) (int, []byte, bool) {
	p, rest, ok := pid(b)
	if !ok || !has(rest, " (") {
		return p, nil, ok
	}
	rest = rest[2:]
	end := bytes.LastIndex(rest, []byte(")"+mark))
	if end < 0 || end > maxComm {
		return p, nil, true
	}
	return p, rest[:end], true
}
