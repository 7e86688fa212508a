// SPDX-License-Identifier: Apache-2.0

package oomreport

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/parse/kernlog"
)

// brief says in one line what an event tells.
func brief(e Event) string {
	switch e := e.(type) {
	case *Kill:
		s := fmt.Sprintf("kill %d (%s) ", e.PID, e.Comm)
		if e.TID != 0 {
			s += fmt.Sprintf("thread %d ", e.TID)
		}
		s += fmt.Sprintf("report %d", e.ReportID)
		for _, f := range []struct {
			on   bool
			word string
		}{{e.Group, "group"}, {e.Again, "again"}, {e.From == FromSummary, "by summary"}, {e.From == FromReaper, "by reaper"}} {
			if f.on {
				s += " " + f.word
			}
		}
		if r := e.Report; r != nil {
			s += fmt.Sprintf(" limit %s in %s", r.OOMMemcg, e.TaskMemcg)
			if r.TriggerComm != "" {
				s += " for " + r.TriggerComm
			}
			if r.PathCut {
				s += " cut"
			}
		}
		return s
	case *Group:
		return fmt.Sprintf("group %s report %d", e.Cgroup, e.ReportID)
	case *Note:
		return fmt.Sprintf("note %d pid %d (%s) count %d report %d", e.Kind, e.PID, e.Comm, e.Count, e.ReportID)
	}
	return "?"
}

func briefs(events []Event) []string {
	var out []string
	for _, e := range events {
		out = append(out, brief(e))
	}
	return out
}

func invokedBy(comm string) string {
	return comm + " invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
}

func summaryOf(oom, task, comm string, pid int) string {
	return fmt.Sprintf("oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=%s,task_memcg=%s,task=%s,pid=%d,uid=0", oom, task, comm, pid)
}

func globalSummaryOf(task, comm string, pid int) string {
	return fmt.Sprintf("oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=%s,task=%s,pid=%d,uid=0", task, comm, pid)
}

func killedLine(pid int, comm string) string {
	return fmt.Sprintf("Memory cgroup out of memory: Killed process %d (%s) total-vm:40kB, anon-rss:28kB, file-rss:4kB, shmem-rss:0kB, UID:0 pgtables:96kB oom_score_adj:0", pid, comm)
}

const header = "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"

func rowOf(pid int, comm string) string { return rowOfPages(pid, 7437, comm) }

func rowOfPages(pid, pages int, comm string) string {
	return fmt.Sprintf("[%7d]     0 %5d %8d     7355    98304        0             0 %s", pid, pid, pages, comm)
}

// at stamps lines a millisecond apart, beginning at sec.
func at(sec int, lines ...string) []string {
	var out []string
	for i, l := range lines {
		out = append(out, fmt.Sprintf("[%5d.%06d] %s", sec, i*1000, l))
	}
	return out
}

func TestParser_Sequences(t *testing.T) {
	groupOf := func(path string) string {
		return "Tasks in " + path + " are going to be killed due to memory.oom.group set"
	}
	for _, tt := range []struct {
		name string
		log  []string
		want []string
	}{
		{"summary without kill line is given out when the next report begins", at(1,
			invokedBy("a"), summaryOf("/a", "/a/x", "lost", 5), invokedBy("b"), summaryOf("/b", "/b", "b", 6), killedLine(6, "b")),
			[]string{"kill 5 (lost) report 1 by summary limit /a in /a/x for a", "kill 6 (b) report 2 limit /b in /b for b"}},
		{"or at the end", at(1, invokedBy("a"), summaryOf("/a", "/a/x", "lost", 5)),
			[]string{"kill 5 (lost) report 1 by summary limit /a in /a/x for a"}},
		{"its kill line comes all the same", at(1,
			invokedBy("a"), summaryOf("/a", "/a", "late", 5), invokedBy("b"), killedLine(5, "late")),
			[]string{"kill 5 (late) report 1 by summary limit /a in /a for a", "kill 5 (late) report 1 again limit /a in /a for a"}},
		{"reaper proves a lost kill line", at(1,
			summaryOf("/a", "/a", "x", 5), "oom_reaper: reaped process 5 (x), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB"),
			[]string{"kill 5 (x) report 1 by reaper limit /a in /a", "note 3 pid 5 (x) count 0 report 1"}},
		{"reaper after the kill", at(1,
			killedLine(5, "x"), "oom_reaper: reaped process 5 (x), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB"),
			[]string{"kill 5 (x) report 1", "note 3 pid 5 (x) count 0 report 1"}},
		{"reaper of somebody who is not in the table", at(1,
			invokedBy("a"), header, rowOf(5, "x"), "oom_reaper: reaped process 6 (y), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB"),
			[]string{"note 3 pid 6 (y) count 0 report 0"}},
		{"context of another pid is not this kill's", at(1,
			invokedBy("a"), summaryOf("/a", "/a", "x", 5), killedLine(6, "y")),
			[]string{"kill 6 (y) report 2", "kill 5 (x) report 1 by summary limit /a in /a for a"}},
		{"the kill line names a thread", at(1,
			invokedBy("a"), summaryOf("/a", "/a/x", "x", 5), killedLine(7, "x")),
			[]string{"kill 5 (x) thread 7 report 1 limit /a in /a/x for a"}},
		{"the kill line names a thread, with a table", at(1,
			invokedBy("a"), header, rowOf(5, "x"), rowOf(6, "x"), summaryOf("/a", "/a/x", "x", 5), killedLine(7, "x")),
			[]string{"kill 5 (x) thread 7 report 1 limit /a in /a/x for a"}},
		{"the kill line names another process of that name", at(1,
			invokedBy("a"), header, rowOf(5, "x"), rowOf(6, "x"), summaryOf("/a", "/a", "x", 5), killedLine(6, "x")),
			[]string{"kill 6 (x) report 2", "kill 5 (x) report 1 by summary limit /a in /a for a"}},
		{"table without the pid", at(1, invokedBy("a"), header, rowOf(5, "x"), killedLine(6, "y")),
			[]string{"kill 6 (y) report 2"}},
		{"table with the pid", at(1, invokedBy("a"), header, rowOf(5, "x"), killedLine(5, "x")),
			[]string{"kill 5 (x) report 1 limit  in  for a"}},
		{"head alone, near", at(1, invokedBy("a"), "memory: usage 4kB, limit 4kB, failcnt 1", killedLine(5, "x")),
			[]string{"kill 5 (x) report 1 limit  in  for a"}},
		{"head alone, long ago", append(at(1, invokedBy("a")), at(60, killedLine(5, "x"))...),
			[]string{"kill 5 (x) report 2"}},
		{"head of a cgroup, kill of the machine", at(1, invokedBy("a"), "memory: usage 4kB, limit 4kB, failcnt 1",
			"Out of memory: Killed process 5 (x) total-vm:4kB, anon-rss:4kB, file-rss:4kB, shmem-rss:0kB"),
			[]string{"kill 5 (x) report 2"}},
		{"callers part what is interleaved", []string{
			"[1.000000][  T1] " + invokedBy("a"), "[1.000001][  T2] " + invokedBy("b"),
			"[1.000002][  T1] " + header, "[1.000003][  T2] " + header, "[1.000004][  T1] " + rowOf(5, "x"), "[1.000005][  T2] " + rowOf(6, "y"),
			"[1.000006][  T2] " + summaryOf("/b", "/b", "y", 6), "[1.000007][  T1] " + summaryOf("/a", "/a", "x", 5),
			"[1.000008][  T2] " + killedLine(6, "y"), "[1.000009][  T1] " + killedLine(5, "x"),
		}, []string{"kill 6 (y) report 2 limit /b in /b for b", "kill 5 (x) report 1 limit /a in /a for a"}},
		{"without callers the pids do", at(1,
			invokedBy("a"), header, rowOf(5, "x"), summaryOf("/a", "/a", "x", 5), summaryOf("/b", "/b", "y", 6), killedLine(6, "y"), killedLine(5, "x")),
			[]string{"kill 6 (y) report 2 limit /b in /b", "kill 5 (x) report 1 limit /a in /a for a"}},
		{"group", at(1, invokedBy("a"), summaryOf("/a", "/a/x", "x", 5), killedLine(5, "x"), groupOf("/a"), killedLine(6, "y"), killedLine(5, "x")),
			[]string{"kill 5 (x) report 1 limit /a in /a/x for a", "group /a report 1", "kill 6 (y) report 1 group limit /a in  for a", "kill 5 (x) report 1 again limit /a in /a/x for a"}},
		{"group on a machine that ran out", at(1, invokedBy("a"), globalSummaryOf("/a/x", "x", 5), killedBy("Out of memory", 5, "x"), groupOf("/a/x"), killedBy("Out of memory", 6, "y"), killedBy("Out of memory", 5, "x")),
			[]string{"kill 5 (x) report 1 limit  in /a/x for a", "group /a/x report 1", "kill 6 (y) report 1 group limit  in  for a", "kill 5 (x) report 1 again limit  in /a/x for a"}},
		{"a cgroup's kill in the time of such a group", at(1, invokedBy("a"), globalSummaryOf("/a/x", "x", 5), killedBy("Out of memory", 5, "x"), groupOf("/a/x"), killedLine(6, "y")),
			[]string{"kill 5 (x) report 1 limit  in /a/x for a", "group /a/x report 1", "kill 6 (y) report 2"}},
		{"group whose context the rate limit took proves nothing of others", at(1, killedLine(5, "x"), groupOf("/a"), killedLine(6, "y"), killedLine(5, "x")),
			[]string{"kill 5 (x) report 1", "group /a report 1", "kill 6 (y) report 2", "kill 5 (x) report 1 again"}},
		{"group and a pid that its table lacks", at(1,
			invokedBy("a"), header, rowOf(5, "x"), rowOf(6, "y"), summaryOf("/a", "/a", "x", 5), killedLine(5, "x"), groupOf("/a"), killedLine(7, "z"), killedLine(8, "q")),
			[]string{"kill 5 (x) report 1 limit /a in /a for a", "group /a report 1", "kill 7 (z) report 2", "kill 8 (q) report 3"}},
		{"group whose member is named by a thread, too", at(1,
			invokedBy("a"), header, rowOf(5, "x"), rowOf(6, "y"), summaryOf("/a", "/a", "x", 5), killedLine(5, "x"), groupOf("/a"), killedLine(6, "y"), killedLine(8, "y"), killedLine(5, "x"), killedLine(9, "x")),
			[]string{"kill 5 (x) report 1 limit /a in /a for a", "group /a report 1", "kill 6 (y) report 1 group limit /a in  for a", "kill 6 (y) thread 8 report 1 again limit /a in  for a", "kill 5 (x) report 1 again limit /a in /a for a", "kill 5 (x) thread 9 report 1 again limit /a in /a for a"}},
		{"group whose member is named by a thread alone", at(1,
			invokedBy("a"), header, rowOfPages(5, 10, "x"), rowOfPages(6, 10, "y"), rowOfPages(7, 11, "y"), summaryOf("/a", "/a", "x", 5), killedLine(5, "x"), groupOf("/a"), killedLine(8, "y"), killedLine(9, "y")),
			[]string{"kill 5 (x) report 1 limit /a in /a for a", "group /a report 1", "kill 6 (y) thread 8 report 1 group limit /a in  for a", "kill 6 (y) thread 9 report 1 again limit /a in  for a"}},
		{"group whose members are alike, and one is named by a thread", at(1,
			invokedBy("a"), header, rowOfPages(5, 10, "x"), rowOfPages(6, 10, "y"), rowOfPages(7, 10, "y"), summaryOf("/a", "/a", "x", 5), killedLine(5, "x"), groupOf("/a"), killedLine(8, "y"), killedLine(9, "y")),
			[]string{"kill 5 (x) report 1 limit /a in /a for a", "group /a report 1", "kill 8 (y) report 1 group limit /a in  for a", "kill 8 (y) thread 9 report 1 again limit /a in  for a"}},
		{"group and another of a member's name", at(1,
			invokedBy("a"), header, rowOf(5, "x"), rowOf(6, "y"), summaryOf("/a", "/a", "x", 5), killedLine(5, "x"), groupOf("/a"), killedLine(6, "y"),
			"Memory cgroup out of memory: Killed process 8 (y) total-vm:44kB, anon-rss:28kB, file-rss:4kB, shmem-rss:0kB, UID:0 pgtables:40kB oom_score_adj:0"),
			[]string{"kill 5 (x) report 1 limit /a in /a for a", "group /a report 1", "kill 6 (y) report 1 group limit /a in  for a", "kill 8 (y) report 2"}},
		{"group and a kill much later", append(at(1, invokedBy("a"), summaryOf("/a", "/a", "x", 5), killedLine(5, "x"), groupOf("/a")), at(90, killedLine(6, "y"))...),
			[]string{"kill 5 (x) report 1 limit /a in /a for a", "group /a report 1", "kill 6 (y) report 2"}},
		{"two groups in a row", at(1, killedLine(5, "x"), groupOf("/a"), killedLine(6, "y"), groupOf("/b")),
			[]string{"kill 5 (x) report 1", "group /a report 1", "kill 6 (y) report 2", "group /b report 2"}},
		{"group line alone", at(1, groupOf("/a"), killedLine(6, "y")),
			[]string{"group /a report 1", "kill 6 (y) report 2"}},
		{"already exiting is no kill", at(1, invokedBy("a"), summaryOf("/a", "/a", "x", 5), "Memory cgroup out of memory: OOM victim 5 (x) is already exiting. Skip killing the task"),
			[]string{"note 1 pid 5 (x) count 0 report 1"}},
		{"no killable process", at(1, invokedBy("a"), header, "Out of memory and no killable processes...", killedLine(5, "x")),
			[]string{"note 0 pid 0 () count 0 report 1", "kill 5 (x) report 2"}},
		{"suppressed", at(1, "oom_kill_process: 15 callbacks suppressed", "oom_kill_process: some callbacks suppressed"),
			[]string{"note 2 pid 0 () count 15 report 0"}},
		{"sacrificed child", at(1, invokedBy("a"), header, rowOf(5, "p"), rowOf(6, "c"),
			"Task in /a/b killed as a result of limit of /a", "Memory cgroup out of memory: Kill process 5 (p) score 9 or sacrifice child", "Killed process 6 (c) total-vm:4kB, anon-rss:4kB, file-rss:4kB"),
			[]string{"kill 6 (c) report 2 limit /a in "}},
		{"sharers", at(1, "Task in /a/b killed as a result of limit of /a", "Memory cgroup out of memory: Kill process 5 (p) score 9 or sacrifice child",
			"Killed process 5 (p) total-vm:4kB, anon-rss:4kB, file-rss:4kB", "Kill process 6 (q) sharing same memory"),
			[]string{"kill 5 (p) report 1 limit /a in /a/b", "note 4 pid 6 (q) count 0 report 1"}},
		{"glued line of 5.0", at(1, summaryOf("/a", "/a/b", "p", 5)+"Memory cgroup out of memory: Kill process 5 (p) score 9 or sacrifice child", "Killed process 5 (p) total-vm:4kB, anon-rss:4kB, file-rss:4kB, shmem-rss:0kB"),
			[]string{"kill 5 (p) report 1 limit /a in /a/b"}},
		{"glued line of 5.0 with a nasty name, and a child", at(1, summaryOf("/a", "/a/b", "p", 5)+"Memory cgroup out of memory: Kill process 5 (,pid=1,uid=0) score 9 or sacrifice child", "Killed process 6 (c) total-vm:4kB, anon-rss:4kB, file-rss:4kB, shmem-rss:0kB"),
			[]string{"kill 6 (c) report 1 limit /a in "}},
		{"broken within the name", []string{"[1.000000] Memory cgroup out of memory: Killed process 5 (ja", "va) total-vm:40kB, anon-rss:28kB, file-rss:4kB, shmem-rss:0kB", "[1.1] x"},
			[]string{"kill 5 () report 1"}},
		{"name with a newline, as dmesg shows it", []string{
			"[1.000000] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a/b,task=nl", "           line,pid=5,uid=0"},
			[]string{"kill 5 () report 1 by summary limit /a in /a/b"}},
		{"summary that lost its end", at(1, invokedBy("a"), strings.TrimSuffix(summaryOf("/a", "/a/b", "p", 5), ",task=p,pid=5,uid=0"), killedLine(5, "p")),
			[]string{"kill 5 (p) report 1 limit /a in  for a cut"}},
		{"summary that lost more", at(1, strings.Split(summaryOf("/a", "/a/b", "p", 5), ",task_memcg")[0], killedLine(5, "p")),
			[]string{"kill 5 (p) report 1 limit  in  cut"}},
		{"prefix of a patch set", at(1, "OOM[3]: "+invokedBy("a"), "OOM[3]: "+summaryOf("/a", "/a", "x", 5), "OOM[3]: "+killedLine(5, "x")),
			[]string{"kill 5 (x) report 1 limit /a in /a for a"}},
		{"wrapped by a mail program", []string{
			"[1.000000] Memory cgroup out of memory: Killed process 5 (java)", "total-vm:40kB, anon-rss:28kB,", "file-rss:4kB, shmem-rss:0kB,", "UID:0 pgtables:96kB", "oom_score_adj:0", "[1.1] x"},
			[]string{"kill 5 (java) report 1"}},
		{"wrapped by a terminal", []string{
			"[1.000000] Memory cgroup out of memory: Killed process 5 (java) total-v", "m:40kB, anon-rss:28kB, file-rss:4kB, shmem-rss:0kB, UID:0 pgtables:96kB oom_sco", "re_adj:0"},
			[]string{"kill 5 (java) report 1"}},
		{"wrapped summary", []string{
			"[1.000000] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_all", "owed=0,oom_memcg=/a,task_memcg=/a/b,task=", "x,pid=5,uid=0", "[1.000001] " + killedLine(5, "x")},
			[]string{"kill 5 (x) report 1 limit /a in /a/b"}},
		{"elision is no piece", []string{
			"[1.000000] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=", "(...snipped...)", "[1.000001] " + killedLine(5, "x")},
			[]string{"kill 5 (x) report 1 limit /a in  cut"}},
		{"old kernels", at(1,
			"Pid: 4, comm: a Not tainted 2.6.32", invokedBy("a"), "a cpuset=box mems_allowed=0", "Pid: 7, comm: a Not tainted 2.6.32 #1",
			"Task in /a/b killed as a result of limit of /a", "Memory cgroup out of memory: Kill process 5 (p) score 9 or sacrifice child", "Killed process 5 (p) vsz:4kB, anon-rss:4kB, file-rss:4kB"),
			[]string{"kill 5 (p) report 1 limit /a in /a/b for a"}},
		{"no figures at all", at(1, "Out of memory: Killed process 5 (p).", "x"), []string{"kill 5 (p) report 1"}},
		{"names as words", at(1, invokedBy("Tasks in /x"), killedLine(5, "x")), []string{"kill 5 (x) report 1 limit  in  for Tasks in /x"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := briefs(parse(t, []byte(strings.Join(tt.log, "\n"))))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

// killedBy is a kill line as kernels since 5.1 write it, with figures that go
// by the name.
func killedBy(words string, pid int, comm string) string {
	return fmt.Sprintf("%s: Killed process %d (%s) total-vm:%d0kB, anon-rss:%d0kB, file-rss:0kB, shmem-rss:0kB", words, pid, comm, 4+len(comm), 3+len(comm))
}

func TestParser_PidComesBack(t *testing.T) {
	const memcg, global = "Memory cgroup out of memory", "Out of memory"
	old := func(comm string) []string {
		return []string{
			comm + " invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0", "Task in /a/" + comm + " killed as a result of limit of /a",
			"Memory cgroup out of memory: Kill process 812 (" + comm + ") score 9 or sacrifice child", "Killed process 812 (" + comm + ") total-vm:4kB, anon-rss:4kB, file-rss:4kB",
		}
	}
	journal := func(boot string, usec int, text string) string {
		return fmt.Sprintf(`{"_BOOT_ID":%q,"_SOURCE_MONOTONIC_TIMESTAMP":"%d","_TRANSPORT":"kernel","MESSAGE":%q}`, boot, usec, text)
	}
	group := "Tasks in /a are going to be killed due to memory.oom.group set"
	for _, tt := range []struct {
		name string
		log  []string
		want []string
	}{
		{"over a reboot", []string{
			"Nov  1 01:23:20 h kernel: [ 5000.0] " + killedBy(global, 812, "svc"), "Nov  2 00:05:00 h kernel: [  300.0] " + killedBy(global, 812, "other")},
			[]string{"kill 812 (svc) report 1", "kill 812 (other) report 2"}},
		{"the same program over a reboot", []string{
			"Nov  1 01:23:20 h kernel: [ 5000.0] " + killedBy(global, 812, "svc"), "Nov  2 00:05:00 h kernel: [  300.0] " + killedBy(global, 812, "svc")},
			[]string{"kill 812 (svc) report 1", "kill 812 (svc) report 2"}},
		{"whole reports of 3.10 over a reboot", append(at(5000, old("svc")...), at(300, old("svc")...)...),
			[]string{"kill 812 (svc) report 1 limit /a in /a/svc for svc", "kill 812 (svc) report 2 limit /a in /a/svc for svc"}},
		{"another boot's summary takes no kill line", append(at(5000, invokedBy("a"), summaryOf("/a", "/a", "svc", 812)), at(300, killedBy(memcg, 812, "other"))...),
			[]string{"kill 812 (svc) report 1 by summary limit /a in /a for a", "kill 812 (other) report 2"}},
		{"nor does one of long ago", append(at(50, invokedBy("a"), summaryOf("/a", "/a", "svc", 812)), at(5000, killedBy(memcg, 812, "other"))...),
			[]string{"kill 812 (other) report 2", "kill 812 (svc) report 1 by summary limit /a in /a for a"}},
		{"boots that the journal names", []string{journal("b1", 5e6, killedBy(global, 812, "svc")), journal("b2", 6e6, killedBy(global, 812, "svc"))},
			[]string{"kill 812 (svc) report 1", "kill 812 (svc) report 2"}},
		{"one boot that the journal names, whose clocks differ", []string{
			journal("b1", 500e6, invokedBy("a")), journal("b1", 500e6, summaryOf("/a", "/a", "svc", 812)), journal("b1", 400e6, "usb"), journal("b1", 500e6, killedBy(memcg, 812, "svc"))},
			[]string{"kill 812 (svc) report 1 limit /a in /a for a"}},
		{"within a boot, another program", append(at(5, killedBy(memcg, 101, "a")), at(8, killedBy(global, 101, "zzz"))...),
			[]string{"kill 101 (a) report 1", "kill 101 (zzz) report 2"}},
		{"within a boot, later", append(at(5, killedBy(memcg, 101, "a")), at(13, killedBy(global, 101, "zzz"))...),
			[]string{"kill 101 (a) report 1", "kill 101 (zzz) report 2"}},
		{"the same name, another limit", at(5, killedBy(memcg, 101, "a"), killedBy(global, 101, "a")),
			[]string{"kill 101 (a) report 1", "kill 101 (a) report 2"}},
		{"the same name, other figures", at(5, killedBy(memcg, 101, "a"), strings.Replace(killedBy(memcg, 101, "a"), "anon-rss:4", "anon-rss:5", 1)),
			[]string{"kill 101 (a) report 1", "kill 101 (a) report 2"}},
		{"a line twice", append(at(5, killedBy(memcg, 101, "a")), at(5, killedBy(memcg, 101, "a"))...),
			[]string{"kill 101 (a) report 1", "kill 101 (a) report 1 again"}},
		{"a group's first victim, whose figures went down", at(5, killedBy(memcg, 101, "a"), group, strings.Replace(killedBy(memcg, 101, "a"), "anon-rss:4", "anon-rss:3", 1)),
			[]string{"kill 101 (a) report 1", "group /a report 1", "kill 101 (a) report 1 again"}},
		{"another program in the time of a group", at(5, invokedBy("a"), summaryOf("/a", "/a", "a", 101), killedBy(memcg, 101, "a"), group, killedBy(memcg, 101, "zzz")),
			[]string{"kill 101 (a) report 1 limit /a in /a for a", "group /a report 1", "kill 101 (zzz) report 2"}},
		{"wall clock alone, files in the wrong order", []string{
			"2024-05-09T14:52:38Z h kernel: " + killedBy(memcg, 101, "a"), "2024-05-02T14:52:38Z h kernel: " + killedBy(memcg, 101, "a")},
			[]string{"kill 101 (a) report 1", "kill 101 (a) report 2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := briefs(parse(t, []byte(strings.Join(tt.log, "\n"))))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

// A storm uses the rate limit up: then nothing proves that a kill line without
// context belongs to the group before it.
func TestParser_GroupInAStorm(t *testing.T) {
	var log []string
	for i := range 10 {
		log = append(log, at(1, invokedBy("a"), summaryOf("/a", "/a", "x", 100+i), killedLine(100+i, "x"))...)
	}
	log = append(log, at(2, "Tasks in /a are going to be killed due to memory.oom.group set", killedLine(500, "other"))...)
	events := parse(t, []byte(strings.Join(log, "\n")))
	last := events[len(events)-1].(*Kill)
	if last.Group || last.Report != nil || last.ReportID != 11 {
		t.Errorf("got %s, want a report of its own", brief(last))
	}
}

// raw is a record as /dev/kmsg has it.
func raw(seq int, flags, text string) kernlog.Record {
	rec := kernlog.Record{Seq: uint64(seq), HasSeq: true, Stamp: time.Duration(seq) * time.Millisecond, HasStamp: true, Level: 6, Text: []byte(text)}
	f, caller, _ := strings.Cut(flags, ",")
	rec.Fragment = f == "c"
	rec.Caller = []byte(caller)
	return rec
}

func feed(p *Parser, recs ...kernlog.Record) []Event {
	var events []Event
	for _, r := range recs {
		events = p.Feed(events, r)
	}
	return events
}

func TestParser_Fragments(t *testing.T) {
	long := "/" + strings.Repeat("x", 988)
	for _, tt := range []struct {
		name string
		recs []kernlog.Record
		want []string
	}{
		{"joined", []kernlog.Record{
			raw(1, "-", "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg="), raw(2, "c", "/a/b,task=x,pid=5,uid=0"), raw(3, "-", killedLine(5, "x"))},
			[]string{"kill 5 (x) report 1 limit /a in /a/b"}},
		{"cut by the kernel", []kernlog.Record{
			raw(1, "-", "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg="), raw(2, "c", long), raw(3, "c", ",task=x,pid=5,uid=0"), raw(4, "-", killedLine(5, "x"))},
			[]string{"kill 5 (x) report 1 limit /a in  cut"}},
		{"group's path cut", []kernlog.Record{
			raw(1, "-", killedLine(5, "x")), raw(2, "-", "Tasks in "), raw(3, "c", long), raw(4, "c", " are going to be killed due to memory.oom.group set"), raw(5, "-", "x")},
			[]string{"kill 5 (x) report 1", "group  report 1"}},
		{"old form, cut", []kernlog.Record{
			raw(1, "-", "Task in "), raw(2, "c", long), raw(3, "c", " killed as a result of limit of /"), raw(4, "-", killedLine(5, "x"))},
			[]string{"kill 5 (x) report 1 limit / in  cut"}},
		{"a record between ends the line", []kernlog.Record{
			raw(1, "-", "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg="), raw(2, "-", "usb 1-1: x"), raw(3, "c", "/a/b,task=x,pid=5,uid=0"), raw(4, "-", killedLine(5, "x"))},
			[]string{"kill 5 (x) report 1 limit /a in  cut"}},
		{"another caller's does not", []kernlog.Record{
			raw(1, "-,T1", "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg="), raw(2, "-,T2", "usb 1-1: x"), raw(3, "c,T2", "y"), raw(4, "c,T1", "/a/b,task=x,pid=5,uid=0"), raw(5, "-,T1", killedLine(5, "x"))},
			[]string{"kill 5 (x) report 1 limit /a in /a/b"}},
		{"nor does another's report", []kernlog.Record{
			raw(1, "-,T1", summaryOf("/a", "/a", "x", 5)), raw(2, "-,T2", summaryOf("/b", "/b", "y", 6)), raw(3, "-,T1", killedLine(5, "x")), raw(4, "-,T2", killedLine(6, "y"))},
			[]string{"kill 5 (x) report 1 limit /a in /a", "kill 6 (y) report 2 limit /b in /b"}},
		{"first of a line before 4.10", []kernlog.Record{
			raw(1, "-", "usb"), raw(2, "c", "Task in "), raw(3, "c", "/a/b"), raw(4, "c", " killed as a result of limit of /a"), raw(5, "-", killedLine(5, "x"))},
			[]string{"kill 5 (x) report 1 limit /a in /a/b"}},
		{"of no line", []kernlog.Record{raw(1, "c", "Killed process"), raw(2, "c", "/x"), raw(3, "-", killedLine(5, "x"))},
			[]string{"kill 5 (x) report 1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p Parser
			got := briefs(p.Flush(feed(&p, tt.recs...)))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParser_KillAtOnce(t *testing.T) {
	var p Parser
	feed(&p, raw(1, "-", summaryOf("/a", "/a", "x", 5)))
	if got := feed(&p, raw(2, "-", killedLine(5, "x"))); len(got) != 1 {
		t.Errorf("got %v at the kill line, want the kill", briefs(got))
	}
	// Nothing comes behind a raw record, so not even a cut line waits.
	if got := feed(&p, raw(3, "-", "Killed process 6 (y) total-vm:4kB, anon")); len(got) != 1 {
		t.Errorf("got %v at a cut kill line, want the kill", briefs(got))
	}
}

func TestParser_Gap(t *testing.T) {
	var p Parser
	events := feed(&p, raw(1, "-", invokedBy("a")), raw(2, "-", "memory: usage 4kB, limit 4kB, failcnt 1"))
	events = p.Gap(events)
	events = append(events, feed(&p, raw(90, "-", killedLine(5, "x")), raw(91, "-", summaryOf("/b", "/b", "y", 6)))...)
	events = p.Gap(events)
	events = append(events, feed(&p, raw(99, "-", killedLine(6, "y")))...)
	want := []string{"kill 5 (x) report 2", "kill 6 (y) report 3 by summary limit /b in /b", "kill 6 (y) report 3 again limit /b in /b"}
	if diff := cmp.Diff(want, briefs(events)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// What was given out stays as it was, whatever comes after.
func TestParser_ReportsAreSnapshots(t *testing.T) {
	var p Parser
	head := []kernlog.Record{raw(1, "-", invokedBy("a")), raw(2, "-", header), raw(3, "-", rowOf(5, "x")), raw(4, "-", summaryOf("/a", "/a", "x", 5)), raw(5, "-", killedLine(5, "x"))}
	k := feed(&p, head...)[0].(*Kill)
	was := fmt.Sprintf("%+v %+v", *k.Report, k.Report.Tasks[0])
	for i := range 40 {
		feed(&p, raw(10+i, "-", invokedBy("b")), raw(10+i, "-", header), raw(10+i, "-", rowOf(100+i, "y")), raw(10+i, "-", killedLine(100+i, "y")))
	}
	if now := fmt.Sprintf("%+v %+v", *k.Report, k.Report.Tasks[0]); now != was {
		t.Errorf("report changed after it was given out:\n%s\n%s", was, now)
	}
}

func TestParser_StaysWithinBounds(t *testing.T) {
	var p Parser
	feed(&p, raw(1, "-", invokedBy("a")), raw(2, "-", "Memory cgroup stats for /a:"))
	for i := range maxStats + 10 {
		feed(&p, raw(3, "-", "s"+strings.Repeat("x", i%60)+strings.Repeat("y", i/60)+" 1"))
	}
	feed(&p, raw(4, "-", header))
	for i := range maxTasks + 7 {
		feed(&p, raw(5, "-", rowOf(i+1, "x")))
	}
	feed(&p, raw(6, "-", "oom-kill:constraint=C,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/"))
	for range maxPieces + 5 {
		feed(&p, raw(7, "c", strings.Repeat("x", 1000)))
	}
	// A pid that the table may have had is not refused.
	events := feed(&p, raw(8, "-", killedLine(9000000, "x")), raw(9, "-", "Tasks in /a are going to be killed due to memory.oom.group set"))
	if k := events[0].(*Kill); k.Report == nil || len(k.Report.Tasks) != maxTasks || len(k.Report.MemoryStat) > maxStats {
		t.Errorf("got %s", brief(k))
	}
	for i := range maxNamed + 3 {
		feed(&p, raw(10, "-", killedLine(i+1, "x")))
	}
	for range 3 * maxReports {
		feed(&p, raw(11, "-", invokedBy("b")), raw(12, "-", killedLine(7, "x")))
	}
	d := p.Dropped
	if d.Tasks != 7 || d.Stats == 0 || d.Text == 0 || d.Names == 0 {
		t.Errorf("got %+v dropped, want 7 tasks and some of each", d)
	}
	if len(p.reports) > maxReports {
		t.Errorf("got %d open reports, want %d at most", len(p.reports), maxReports)
	}
}

func TestParser_AllocatesNothingOutsideReports(t *testing.T) {
	for _, text := range []string{
		"usb 1-1: new high-speed USB device number 2 using xhci_hcd", "Memory: 2048k", "Out of luck", "Task in hand is done", "memory: bad", "oom_reaper: unable to reap pid:5 (x)",
		"[drm] initialized", "Kill me", "CPU: 0 PID: 1 Comm: x Not tainted", "Out of memory: nothing", "Killed by signal 9", "OOM[x",
	} {
		var p Parser
		rec := raw(1, "-", text)
		var dst []Event
		if n := testing.AllocsPerRun(100, func() { dst = p.Feed(dst[:0], rec) }); n != 0 || len(dst) != 0 {
			t.Errorf("%s: got %v allocations and %d events, want none", text, n, len(dst))
		}
	}
	// Nor in a log whose last report waits for its end.
	var p Parser
	feed(&p, raw(1, "-", invokedBy("a")))
	rec := raw(2, "-", "usb 1-1: new high-speed USB device")
	if n := testing.AllocsPerRun(100, func() { p.Feed(nil, rec) }); n != 0 {
		t.Errorf("within a report: got %v allocations, want 0", n)
	}
}
