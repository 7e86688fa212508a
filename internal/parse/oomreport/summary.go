// SPDX-License-Identifier: Apache-2.0

package oomreport

import "bytes"

// line is one message, put together from its pieces.
type line struct {
	text []byte
	// starts are the places where a record other than the first begins.
	starts []int
}

// cutLen is the shortest path that a kernel may have cut. A record holds 1024
// bytes, its prefix takes up to 48 of them (PREFIX_MAX with a caller), the
// marks of a continuation three: 973 on such kernels, 989 without callers,
// 1021 since 6.10 or so.
const cutLen = 973

// cut tells whether the kernel may have cut the path that begins at place at.
// A path that does not fit is put into a record of its own and cut there.
func (l *line) cut(at int, path []byte) bool {
	if len(path) < cutLen {
		return false
	}
	for _, s := range l.starts {
		if s == at {
			return true
		}
	}
	return false
}

// summary is what an oom-kill: line says (dump_oom_summary, since 5.0).
type summary struct {
	constraint, nodemask, cpuset, mems string
	oomMemcg, taskMemcg, comm          string
	global, pathCut                    bool
	pid                                int // 0: the line lost its end
	uid                                *int64
}

// parseSummary reads
//
//	oom-kill:constraint=C,nodemask=N,cpuset=S,mems_allowed=M,
//	  (oom_memcg=/A|global_oom)[,task_memcg=/B],task=c,pid=P,uid=U
//
// (one line). Everything but the names is read from the ends, where the
// kernel's own digits stand; comm, the killed process's name, tells where
// task= begins, and hint, the cgroup that the statistics are of, where
// oom_memcg ends. What stays ambiguous stays empty. rest is what a kernel 5.0
// glued to the line.
func parseSummary(l *line, comm, hint string) (s summary, rest []byte, ok bool) {
	b, ok := bytes.CutPrefix(l.text, []byte("oom-kill:constraint="))
	if !ok {
		return s, nil, false
	}
	body, rest := unglue(b)
	body = s.tail(body)
	constraint, body, ok := bytes.Cut(body, []byte(",nodemask="))
	if !ok || len(constraint) > 64 {
		return s, rest, false
	}
	s.constraint = string(constraint)
	mid := body
	if nodemask, after, ok := bytes.Cut(body, []byte(",cpuset=")); ok && isList(nodemask) {
		s.nodemask, mid = string(nodemask), after
	} else if i := listEnd(body); i > 0 && afterNodes(body[i:]) {
		// Kernels without cpusets go on with the cgroups.
		s.nodemask, mid = string(body[:i]), body[i:]
	}
	// The names stand at the end of what is left of the line.
	off := len("oom-kill:constraint=") + len(constraint) + len(",nodemask=") + len(body) - len(mid)
	s.names(l, mid, off, comm, hint)
	return s, rest, true
}

// afterNodes tells whether b goes on as behind a list of nodes.
func afterNodes(b []byte) bool {
	return has(b, ",oom_memcg=") || has(b, ",global_oom") || has(b, taskName)
}

// unglue takes off the message that kernels 5.0 wrote behind the summary
// without a line end.
func unglue(b []byte) (body, rest []byte) {
	i := bytes.LastIndex(b, []byte(",uid="))
	if i < 0 {
		return b, nil
	}
	_, after, ok := number(b[i+5:])
	if ok && (has(after, "Memory cgroup out of memory") || has(after, "Out of memory")) {
		return b[:len(b)-len(after)], after
	}
	// The message may hold ",uid=" in a name.
	if j := bytes.LastIndex(b, []byte("ut of memory")); j > 0 {
		for _, w := range []string{"Memory cgroup o", "O"} {
			if k := j - len(w); k > 0 && has(b[k:], w+"ut of memory") {
				if i := bytes.LastIndex(b[:k], []byte(",uid=")); i >= 0 {
					if _, ok := all(b[i+5 : k]); ok {
						return b[:k], b[k:]
					}
				}
			}
		}
	}
	return b, nil
}

// tail cuts ",pid=P,uid=U" off the end.
func (s *summary) tail(b []byte) []byte {
	b = bytes.TrimRight(b, " ")
	i := bytes.LastIndex(b, []byte(",uid="))
	if i < 0 {
		return b
	}
	uid, ok := all(b[i+5:])
	j := bytes.LastIndex(b[:i], []byte(",pid="))
	if !ok || j < 0 {
		return b
	}
	n, rest, ok := pid(b[j+5 : i])
	if !ok || len(rest) > 0 {
		return b
	}
	s.pid, s.uid = n, &uid
	return b[:j]
}

// names takes "CPUSET,mems_allowed=M,oom_memcg=/A,task_memcg=/B,task=c" apart;
// mid begins at place off of the line. A cpuset is printed by its name, so the
// first slash (but for the root's own) begins the first path, and what stands
// before it is the kernel's.
func (s *summary) names(l *line, mid []byte, off int, comm, hint string) {
	from := 0
	if has(mid, "/,") {
		from = 1
	}
	slash := bytes.IndexByte(mid[from:], '/') + from
	task := s.taskAt(mid, comm)
	if slash < from || len(task) > 0 && slash > task[len(task)-1] {
		s.pathless(l, mid, task)
		return
	}
	head := mid[:slash]
	if h, ok := cutSuffix(head, ",global_oom"+taskMemcg); ok {
		s.global = true
		head = h
	} else if head, ok = cutSuffix(head, ",oom_memcg="); !ok {
		return
	}
	s.memsAllowed(head)
	s.paths(l, mid[slash:], off+slash, comm, hint)
}

// pathless reads a summary without any path: memory cgroups are off, or the
// kernel could not print the path, which it says in words.
func (s *summary) pathless(l *line, mid []byte, task []int) {
	head := mid
	if n := len(task); n > 0 {
		head = mid[:task[n-1]]
		s.takeComm(l, mid, task)
	}
	if i := bytes.Index(head, []byte(",oom_memcg=")); i >= 0 {
		s.pathCut, head = true, head[:i]
	}
	head, s.global = cutSuffix(head, ",global_oom")
	if s.pid == 0 && !s.global && !s.pathCut {
		return // the list may lack its end
	}
	s.memsAllowed(head)
}

// memsAllowed reads "CPUSET,mems_allowed=M" from the right.
func (s *summary) memsAllowed(b []byte) {
	i := bytes.LastIndex(b, []byte(",mems_allowed="))
	if i < 0 || !isList(b[i+14:]) {
		return
	}
	s.cpuset, s.mems = string(b[:i]), string(b[i+14:])
}

const taskName = ",task="

// taskAt lists the places where ",task=" can begin, from the right: the one
// that fits comm, or all that leave a name of the kernel's length.
func (s *summary) taskAt(b []byte, comm string) []int {
	if s.pid == 0 {
		return nil
	}
	if comm != "" {
		if head, ok := cutSuffix(b, taskName+comm); ok {
			return []int{len(head)}
		}
	}
	var at []int
	for end := len(b); ; {
		i := bytes.LastIndex(b[:end], []byte(taskName))
		n := len(b) - i - len(taskName)
		if i < 0 || n > taskComm && (len(at) > 0 || n > maxComm) {
			return at
		}
		at = append(at, i)
		end = i
	}
}

// takeComm takes the victim's name from the end of b, if there is one reading
// of it. The kernel does not break it; what a terminal broke may lack a space.
func (s *summary) takeComm(l *line, b []byte, task []int) {
	if len(task) != 1 {
		return
	}
	name := b[task[0]+len(taskName):]
	end := bytes.LastIndex(l.text, []byte(",pid="))
	for _, at := range l.starts {
		if at > end-len(name) && at < end {
			return
		}
	}
	s.comm = string(name)
}

// paths reads "/A,task_memcg=/B,task=c", or "/B,task=c" after global_oom, at
// place off of the line. It goes through all readings that the names allow,
// and keeps what they agree in.
func (s *summary) paths(l *line, b []byte, off int, comm, hint string) {
	if s.pid == 0 {
		// The line lost its end: so did the last path.
		s.pathCut = true
		if !s.global {
			if oom, _, at := splitMemcg(b, hint); at >= 0 && !l.cut(off, oom) {
				s.oomMemcg = string(oom)
			}
		}
		return
	}
	task := s.taskAt(b, comm)
	s.takeComm(l, b, task)
	for n, end := range task {
		var oom, tsk []byte
		at := 0
		if s.global {
			tsk = b[:end]
		} else if oom, tsk, at = splitMemcg(b[:end], hint); l.cut(off, oom) {
			oom, s.pathCut = nil, true
		}
		if l.cut(off+at, tsk) || string(tsk) == tooLong {
			tsk, s.pathCut = nil, true
		}
		if n == 0 {
			s.oomMemcg, s.taskMemcg = string(oom), string(tsk)
		}
		if s.oomMemcg != string(oom) {
			s.oomMemcg = ""
		}
		if s.taskMemcg != string(tsk) {
			s.taskMemcg = ""
		}
	}
}

const (
	taskMemcg = ",task_memcg="
	tooLong   = "(name too long)" // pr_cont_kernfs_path
)

// splitMemcg parts "/A,task_memcg=/B". A name can hold the words between; but
// B lies below A, and the statistics (hint) may have named A. at is where B
// begins, -1 when there is none. Both are nil when more than one reading holds.
func splitMemcg(b []byte, hint string) (oom, tsk []byte, at int) {
	var plain, below, hinted []int
	for from := 0; ; {
		i := bytes.Index(b[from:], []byte(taskMemcg+"/"))
		if i < 0 {
			break
		}
		i += from
		plain = append(plain, i)
		if under(b[i+len(taskMemcg):], b[:i]) {
			below = append(below, i)
			if string(b[:i]) == hint {
				hinted = append(hinted, i)
			}
		}
		from = i + 1
	}
	for _, c := range [][]int{hinted, below, plain} {
		if len(c) == 1 {
			at = c[0] + len(taskMemcg)
			return b[:c[0]], b[at:], at
		}
	}
	if len(plain) > 0 {
		return nil, nil, -1
	}
	// The second path may be lost behind its token, or said to be too long.
	for _, end := range []string{taskMemcg, taskMemcg + tooLong} {
		if head, ok := cutSuffix(b, end); ok {
			at = len(head) + len(taskMemcg)
			return head, b[at:], at
		}
	}
	return b, nil, -1
}

// under tells whether path a is path b or lies below it.
func under(a, b []byte) bool {
	if len(b) == 1 {
		return true
	}
	return bytes.HasPrefix(a, b) && (len(a) == len(b) || a[len(b)] == '/')
}

func cutSuffix(b []byte, s string) ([]byte, bool) {
	if len(b) >= len(s) && string(b[len(b)-len(s):]) == s {
		return b[:len(b)-len(s)], true
	}
	return b, false
}

// isList tells whether b is a list of node numbers as the kernel prints it.
func isList(b []byte) bool { return len(b) < 4096 && listEnd(b) == len(b) }

// listEnd gives the end of "(null)" or of "0-3,5" at the front of b.
func listEnd(b []byte) int {
	if has(b, "(null)") {
		return 6
	}
	i := 0
	for i < len(b) && (b[i]-'0' < 10 || b[i] == '-' || b[i] == ',' && i+1 < len(b) && b[i+1]-'0' < 10) {
		i++
	}
	return i
}
