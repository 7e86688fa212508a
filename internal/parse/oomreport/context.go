// SPDX-License-Identifier: Apache-2.0

package oomreport

import "bytes"

// parseInvoked reads "COMM invoked oom-killer: gfp_mask=0x..(..), order=N,
// oom_score_adj=N". Kernels 4.10 to 4.20 have nodemask= before order=, 2.6.36
// to 3.x oom_adj= before oom_score_adj=.
func (r *report) parseInvoked(b []byte, doubt bool) {
	comm, rest, _ := bytes.Cut(b, []byte(invoked))
	if len(comm) <= maxComm {
		r.rep.TriggerComm = string(comm)
	}
	if gfp, ok := bytes.CutPrefix(rest, []byte("gfp_mask=")); ok {
		if i := bytes.Index(gfp, []byte(", ")); i > 0 && i < 512 {
			r.rep.GFPMask = string(gfp[:i])
		}
	}
	r.rep.Order = keyInt(rest, ", order=", doubt)
	r.rep.OOMScoreAdj = keyInt(rest, ", oom_score_adj=", doubt)
}

// keyInt finds a number behind key. Where the end of b is in doubt, it does not
// stand there.
func keyInt(b []byte, key string, doubt bool) *int {
	i := bytes.Index(b, []byte(key))
	if i < 0 {
		return nil
	}
	n, after, ok := number(b[i+len(key):])
	if !ok || doubt && len(after) == 0 || n < -1<<31 || n > 1<<31-1 {
		return nil
	}
	v := int(n)
	return &v
}

// parseTrigger takes the trigger's pid from "CPU: 0 [UID: 0] PID: 102 Comm: c
// Not tainted ..." (before 3.11 "Pid: 102, comm: c Not tainted"), and its
// cpuset from "c cpuset=NAME mems_allowed=0" (before 5.0). Both are believed
// only for the name that the first line gave.
// It tells whether it took the cpuset, with which the line ends.
func (r *report) parseTrigger(b []byte, doubt bool) bool {
	comm := r.rep.TriggerComm
	if comm == "" {
		return false
	}
	if has(b, comm) && has(b[len(comm):], " cpuset=") {
		set := b[len(comm)+len(" cpuset="):]
		if i := bytes.LastIndex(set, []byte(" mems_allowed=")); i >= 0 && isList(set[i+14:]) && !doubt {
			r.rep.Cpuset, r.rep.MemsAllowed = string(set[:i]), string(set[i+14:])
			return true
		}
		return false
	}
	if r.rep.TriggerPID == 0 {
		r.parseTriggerPID(b, comm)
	}
	return false
}

func (r *report) parseTriggerPID(b []byte, comm string) {
	mark := " Comm: "
	switch {
	case has(b, "CPU: "):
		i := bytes.Index(b, []byte(" PID: "))
		if i < 0 {
			return
		}
		b = b[i+6:]
	case has(b, "Pid: "):
		b, mark = b[5:], ", comm: "
	default:
		return
	}
	p, rest, ok := pid(b)
	if !ok || !has(rest, mark) {
		return
	}
	rest = rest[len(mark):]
	if has(rest, comm) && has(rest[len(comm):], " ") {
		r.rep.TriggerPID = p
	}
}

// parseTaskIn reads "Task in /A killed as a result of limit of /B" (before
// 5.0): A is the victim's cgroup, at or below B.
func (r *report) parseTaskIn(l *line, doubt bool) {
	const words = limitOf
	b, ok := bytes.CutPrefix(l.text, []byte("Task in "))
	if !ok {
		return
	}
	var plain, below []int
	for from := 0; ; {
		i := bytes.Index(b[from:], []byte(words+"/"))
		if i < 0 {
			break
		}
		i += from
		plain = append(plain, i)
		if under(b[:i], b[i+len(words):]) {
			below = append(below, i)
		}
		from = i + 1
	}
	if len(below) == 1 {
		plain = below
	}
	if len(plain) != 1 {
		return
	}
	i := plain[0]
	tsk, oom := b[:i], b[i+len(words):]
	if l.cut(8, tsk) {
		tsk, r.rep.PathCut = nil, true
	}
	if l.cut(8+i+len(words), oom) {
		oom, r.rep.PathCut = nil, true
	}
	r.rep.TaskMemcg, r.rep.OOMMemcg = bounded(tsk, maxHeld), bounded(oom, maxHeld)
	r.taskIn = true
	if doubt {
		r.doubtLimit()
	}
}

const limitOf = " killed as a result of limit of "

// doubtLimit leaves out a limit's cgroup that may lack its end, unless it is
// the task's own: there is none below that.
func (r *report) doubtLimit() {
	if r.rep.OOMMemcg != r.rep.TaskMemcg {
		r.rep.OOMMemcg = ""
	}
}

// parseTasksIn reads "Tasks in /A are going to be killed due to
// memory.oom.group set".
func parseTasksIn(l *line) (path string, ok bool) {
	b, ok := bytes.CutPrefix(l.text, []byte("Tasks in "))
	if !ok {
		return "", false
	}
	b, ok = cutSuffix(bytes.TrimRight(b, " "), tasksInEnd)
	if !ok {
		return "", false
	}
	if l.cut(9, b) || len(b) == 0 || b[0] != '/' {
		return "", true
	}
	return string(b), true
}

const tasksInEnd = " are going to be killed due to memory.oom.group set"

// noLimit is the smallest limit, in kB, that is the kernel's way to say that
// there is none: LONG_MAX bytes, less what rounding to pages takes.
const noLimit = 1<<53 - 1<<10

// parseUsage reads "memory: usage NkB, limit NkB, failcnt N" and its sisters.
// A number without its unit may lack digits too.
func (r *report) parseUsage(b []byte, doubt bool) {
	name, rest, ok := bytes.Cut(b, []byte(": usage "))
	if !ok {
		return
	}
	u := &Usage{}
	usage, rest, ok := number(rest)
	if rest, ok = cutPrefix(rest, "kB", ok); !ok {
		return
	}
	if usage < noLimit {
		u.UsageBytes = kilo(usage)
	}
	if rest, ok = cutPrefix(rest, ", limit ", ok); ok {
		var limit int64
		limit, rest, ok = number(rest)
		if rest, ok = cutPrefix(rest, "kB", ok); ok && limit < noLimit {
			u.LimitBytes = kilo(limit)
		}
	}
	if rest, ok = cutPrefix(rest, ", failcnt ", ok); ok {
		if n, after, ok := number(rest); ok && !(doubt && len(after) == 0) {
			u.Failcnt = &n
		}
	}
	switch string(name) {
	case "memory":
		r.rep.Memory = u
	case "memory+swap":
		r.rep.MemorySwap = u
	case "swap":
		r.rep.Swap = u
	case "kmem":
		r.rep.Kmem = u
	}
}

// cutPrefix takes s off the front of b, if all was well before.
func cutPrefix(b []byte, s string, ok bool) ([]byte, bool) {
	if !ok || !has(b, s) {
		return b, false
	}
	return b[len(s):], true
}

const statsFor = "Memory cgroup stats for "

// parseStats reads "Memory cgroup stats for /A:", whose counters follow, and
// the form of before 5.2 that has them on the same line, " cache:0KB rss:0KB".
func (r *report) parseStats(l *line, doubt bool, d *Dropped) {
	b, ok := bytes.CutPrefix(l.text, []byte(statsFor))
	if !ok {
		return
	}
	var path, inline []byte
	if i := bytes.LastIndex(b, []byte(": cache:")); i >= 0 {
		path, inline = b[:i], b[i+2:]
	} else if head, ok := cutSuffix(bytes.TrimRight(b, " "), ":"); ok {
		path = head
	}
	// Sums lack what stood behind the cut.
	r.noTotals = r.noTotals || doubt || inline != nil && !bytes.HasSuffix(bytes.TrimRight(inline, " "), []byte("KB"))
	first := !r.hasStats
	r.hasStats, r.inStats = true, inline == nil
	if first && len(path) > 0 && path[0] == '/' && !l.cut(24, path) {
		r.statMemcg = bounded(path, maxHeld)
	}
	for _, f := range bytes.Fields(inline) {
		r.parseInlineStat(f, first, d)
	}
}

// parseInlineStat reads one counter of such a line, "rss:0KB"; own tells that
// the line is the first cgroup's, whose limit it is.
func (r *report) parseInlineStat(f []byte, own bool, d *Dropped) {
	name, val, ok := bytes.Cut(f, []byte{':'})
	n, unit, ok2 := number(val)
	// Two counters whose blank a wrap swallowed are one word.
	r.noTotals = r.noTotals || has(unit, "K") && string(unit) != "KB"
	if !ok || !ok2 || string(unit) != "KB" || n < 0 || n >= noLimit {
		return
	}
	if own {
		r.stat(name, n<<10, d)
	}
	r.addTotal(name, n<<10, d)
}

// parseStatLines reads the counters "anon 4096": one a record, or all in one
// with newlines between, which some printers show as \x0a.
func (r *report) parseStatLines(b []byte, d *Dropped) {
	for len(b) > 0 {
		one := b
		b = nil
		if i := bytes.IndexByte(one, '\n'); i >= 0 {
			one, b = one[:i], one[i+1:]
		} else if i := bytes.Index(one, []byte(`\x0a`)); i >= 0 {
			one, b = one[:i], one[i+4:]
		}
		name, val, ok := bytes.Cut(bytes.TrimSpace(one), []byte{' '})
		if n, ok2 := all(val); ok && ok2 && n >= 0 && n < noLimit<<10 {
			r.stat(name, n, d)
		}
	}
}

// stat keeps one counter, if it is a size.
func (r *report) stat(name []byte, n int64, d *Dropped) {
	if !isSize(name) {
		return
	}
	if r.stats == nil {
		r.stats = make(map[string]int64, 48)
	}
	if _, old := r.stats[string(name)]; !old && len(r.stats) >= maxStats {
		d.Stats++
		return
	}
	r.stats[string(name)] = n
}

func (r *report) addTotal(name []byte, n int64, d *Dropped) {
	if len(name) > 48 {
		return
	}
	total := append([]byte("total_"), name...)
	r.stat(total, r.stats[string(total)]+n, d)
}

// isSize tells whether a counter of memory.stat is in bytes: all are, but for
// those that count events (Documentation/admin-guide/cgroup-v2.rst).
func isSize(name []byte) bool {
	if len(name) == 0 || len(name) > 64 {
		return false
	}
	for _, c := range name {
		if c != '_' && c-'0' > 9 && c-'a' > 25 {
			return false
		}
	}
	name = bytes.TrimPrefix(name, []byte("total_"))
	if has(name, "zswpped") {
		return true
	}
	for _, p := range []string{"pg", "workingset_", "thp_", "zswp", "swpin", "swpout", "numa_", "nr_"} {
		if has(name, p) {
			return false
		}
	}
	return true
}

// bounded copies at most limit bytes.
func bounded(b []byte, limit int) string {
	if len(b) > limit {
		b = b[:limit]
	}
	return string(b)
}
