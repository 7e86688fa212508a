// SPDX-License-Identifier: Apache-2.0

package oomreport

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseSummary(t *testing.T) {
	const head = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
	for _, tt := range []struct {
		name, text, comm, hint string
		want                   string // constraint nodemask cpuset mems oom task comm pid global cut
	}{
		{"nodes", "oom-kill:constraint=CONSTRAINT_CPUSET,nodemask=0,2-3,cpuset=box,mems_allowed=0-1,4,global_oom,task_memcg=/a,task=x,pid=5,uid=0", "", "",
			"CONSTRAINT_CPUSET 0,2-3 box 0-1,4 '' /a x 5 global"},
		{"no cpusets", "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg=/a,task_memcg=/a,task=x,pid=5,uid=0", "", "",
			"CONSTRAINT_MEMCG (null) '' '' /a /a x 5"},
		{"no memory cgroups", "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,task=a/b,pid=5,uid=0", "", "",
			"CONSTRAINT_NONE (null) / 0 '' '' a/b 5"},
		{"no cgroup of the task", "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task=x,pid=5,uid=0", "", "",
			"CONSTRAINT_NONE (null) / 0 '' '' x 5 global"},
		{"paths too long to print", head + "oom_memcg=(name too long),task_memcg=(name too long),task=x,pid=5,uid=0", "", "",
			"CONSTRAINT_MEMCG (null) / 0 '' '' x 5 cut"},
		{"one path too long to print", head + "oom_memcg=/a,task_memcg=(name too long),task=x,pid=5,uid=0", "", "",
			"CONSTRAINT_MEMCG (null) / 0 /a '' x 5 cut"},
		{"limit of the root", head + "oom_memcg=/,task_memcg=/a,task=x,pid=5,uid=-1", "", "", "CONSTRAINT_MEMCG (null) / 0 / /a x 5"},
		{"cpuset that looks like the rest", "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0,global_oom,task_memcg=,mems_allowed=1,oom_memcg=/a,task_memcg=/a,task=x,pid=5,uid=0", "", "",
			"CONSTRAINT_MEMCG (null) x,mems_allowed=0,global_oom,task_memcg= 1 /a /a x 5"},
		{"name with a pid", head + "oom_memcg=/a,task_memcg=/a,task=,pid=1,uid=0,pid=5,uid=0", "", "", "CONSTRAINT_MEMCG (null) / 0 /a /a ,pid=1,uid=0 5"},
		{"name with a task, not known", head + "oom_memcg=/a,task_memcg=/a,task=a=b,task=c,pid=5,uid=0", "", "", "CONSTRAINT_MEMCG (null) / 0 /a '' '' 5"},
		{"name with a task, known", head + "oom_memcg=/a,task_memcg=/a,task=a=b,task=c,pid=5,uid=0", "a=b,task=c", "", "CONSTRAINT_MEMCG (null) / 0 /a /a a=b,task=c 5"},
		{"cgroup with a task, known name", head + "oom_memcg=/a,task_memcg=/a/x,task=y,task=c,pid=5,uid=0", "c", "", "CONSTRAINT_MEMCG (null) / 0 /a /a/x,task=y c 5"},
		{"cgroup with a task too long for a name", head + "oom_memcg=/a,task_memcg=/a/x,task=yyyyyyyyyyyyyyyy,task=c,pid=5,uid=0", "", "", "CONSTRAINT_MEMCG (null) / 0 /a /a/x,task=yyyyyyyyyyyyyyyy c 5"},
		{"name renamed since", head + "oom_memcg=/a,task_memcg=/a,task=old,pid=5,uid=0", "new", "", "CONSTRAINT_MEMCG (null) / 0 /a /a old 5"},
		{"cgroup with a cgroup", head + "oom_memcg=/a,task_memcg=/b,task_memcg=/a,task_memcg=/b/c,task=x,pid=5,uid=0", "", "", "CONSTRAINT_MEMCG (null) / 0 /a,task_memcg=/b /a,task_memcg=/b/c x 5"},
		{"cgroup with a cgroup, two readings", head + "oom_memcg=/a,task_memcg=/a/k,task_memcg=/a,task_memcg=/a/k,task=x,pid=5,uid=0", "", "", "CONSTRAINT_MEMCG (null) / 0 '' '' x 5"},
		{"cgroup with a cgroup, the statistics tell", head + "oom_memcg=/a,task_memcg=/a/k,task_memcg=/a,task_memcg=/a/k,task=x,pid=5,uid=0", "", "/a", "CONSTRAINT_MEMCG (null) / 0 /a /a/k,task_memcg=/a,task_memcg=/a/k x 5"},
		{"victim outside, one reading", head + "oom_memcg=/a/b,task_memcg=/a/c,task=x,pid=5,uid=0", "", "", "CONSTRAINT_MEMCG (null) / 0 /a/b /a/c x 5"},
		{"no end", head + "oom_memcg=/a,task_memcg=/a/lo", "", "", "CONSTRAINT_MEMCG (null) / 0 /a '' '' 0 cut"},
		{"no end, machine-wide", "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/a/lo", "", "", "CONSTRAINT_NONE (null) / 0 '' '' '' 0 global cut"},
		{"end that is none", head + "oom_memcg=/a,task_memcg=/a,task=x,pid=0,uid=0", "", "", "CONSTRAINT_MEMCG (null) / 0 /a '' '' 0 cut"},
		{"end without pid", head + "oom_memcg=/a,task_memcg=/a,uid=0", "", "", "CONSTRAINT_MEMCG (null) / 0 /a '' '' 0 cut"},
		{"words that are none", head + "other=/a,task=x,pid=5,uid=0", "", "", "CONSTRAINT_MEMCG (null) '' '' '' '' '' 5"},
		{"odd mems", "oom-kill:constraint=C,nodemask=(null),cpuset=/,mems_allowed=zero,oom_memcg=/a,task_memcg=/a,task=x,pid=5,uid=0", "", "", "C (null) '' '' /a /a x 5"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, rest, ok := parseSummary(&line{text: []byte(tt.text)}, tt.comm, tt.hint)
			if !ok || rest != nil {
				t.Fatalf("got %v, rest %q", ok, rest)
			}
			words := []string{s.constraint, s.nodemask, s.cpuset, s.mems, s.oomMemcg, s.taskMemcg, s.comm, fmt.Sprint(s.pid)}
			for i, w := range words {
				if w == "" {
					words[i] = "''"
				}
			}
			if s.global {
				words = append(words, "global")
			}
			if s.pathCut {
				words = append(words, "cut")
			}
			if diff := cmp.Diff(tt.want, strings.Join(words, " ")); diff != "" {
				t.Errorf("summary (-want +got):\n%s", diff)
			}
		})
	}
	for _, text := range []string{"oom-kill:", "oom-kill:constraint=", "oom-kill:constraint=C,mask=", "oom-kill:constraint=" + strings.Repeat("x", 70) + ",nodemask=(null)"} {
		if _, _, ok := parseSummary(&line{text: []byte(text)}, "", ""); ok {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestParseKilled(t *testing.T) {
	show := func(p *int64) any {
		if p == nil {
			return "-"
		}
		return *p
	}
	for _, tt := range []struct{ text, want string }{
		{"5 (x) total-vm:4kB, anon-rss:3kB, file-rss:2kB", `5 "x" - 4096 3072 2048 - - - true`},
		{"5 (x) vsz:4kB, anon-rss:3kB, file-rss:2kB", `5 "x" - 4096 3072 2048 - - - true`},
		{"5, UID 679, (x) total-vm:4kB, anon-rss:3kB, file-rss:2kB", `5 "x" 679 4096 3072 2048 - - - true`},
		{"5 (x), UID 4294967294, total-vm:4kB, anon-rss:3kB, file-rss:2kB, shmem-rss:1kB", `5 "x" 4294967294 4096 3072 2048 1024 - - true`},
		{"5 (x) total-vm:4kB, anon-rss:3kB, file-rss:2kB, shmem-rss:1kB, UID:-2 pgtables:8kB oom_score_adj:-997", `5 "x" -2 4096 3072 2048 1024 8192 -997 true`},
		{"5 (x) total-vm:1kB) total-vm:4kB, anon-rss:3kB, file-rss:2kB", `5 "x) total-vm:1kB" - 4096 3072 2048 - - - true`},
		{"5 (), UID 5, total) total-vm:4kB", `5 "), UID 5, total" - 4096 - - - - - false`},
		{"5 ((sd-pam)) total-vm:4kB, anon-rss:3kB, file-rss:2kB", `5 "(sd-pam)" - 4096 3072 2048 - - - true`},
		{"5 () total-vm:4kB, anon-rss:3kB, file-rss:2kB", `5 "" - 4096 3072 2048 - - - true`},
		{"5 (x) total-vm:4kB, anon-rss:3kB, file-rss:2kB (see above)", `5 "x" - 4096 3072 2048 - - - false`},
		{"5 (x), UID 7, total-vm:4kB (see above)", `5 "x" 7 4096 - - - - - false`},
		{"5 (x)", `5 "x" - - - - - - - false`},
		{"5 (x).", `5 "x" - - - - - - - false`},
		{"5 (x) total-vm:4kB, anon-rss:3", `5 "x" - 4096 - - - - - false`},
		{"5 (x) total-vm:4, anon-rss:3kB", `5 "x" - - - - - - - false`},
		{"5 (x) total-vm:9223372036854775807kB, anon-rss:99999999999999999999kB", `5 "x" - - - - - - - false`},
		{"5 (x) total-vm:4kB, UID:5kB", `5 "x" - 4096 - - - - - false`},
		{"5 (x) total-vm:4kB, oom_score_adj:1001", `5 "x" - 4096 - - - - - false`},
		{"5 (x) total-vm:4kB, news:3kB", `5 "x" - 4096 - - - - - false`},
	} {
		kl, ok := parseKilled(whose{}, []byte(tt.text))
		adj := any("-")
		if kl.adj != nil {
			adj = *kl.adj
		}
		got := fmt.Sprintf("%d %q %v %v %v %v %v %v %v %v", kl.pid, kl.comm, show(kl.uid), show(kl.totalVM), show(kl.anon), show(kl.file), show(kl.shmem), show(kl.pgtables), adj, kl.whole)
		if !ok || got != tt.want {
			t.Errorf("%q:\n got %s, %v\nwant %s", tt.text, got, ok, tt.want)
		}
	}
	for _, text := range []string{
		"", "x", "0 (x)", "-5 (x)", "99999999999 (x)", "99999999999999999999 (x)", "5", "5 x", "5 (x", "5 (x) and more", "5, UID x, (y)", "5, UID 4 (y)",
		"5 (" + strings.Repeat("x", 64) + ") total-vm:4kB",
	} {
		if kl, ok := parseKilled(whose{}, []byte(text)); ok {
			t.Errorf("%q was taken: %+v", text, kl)
		}
	}
}

// one parses a report of these lines and gives its context.
func one(t *testing.T, lines ...string) *Report {
	t.Helper()
	ks := kills(parse(t, []byte(strings.Join(at(1, append(lines, killedLine(5, "x"))...), "\n"))))
	if len(ks) != 1 || ks[0].Report == nil {
		t.Fatalf("got %d kills, want one with a report", len(ks))
	}
	return ks[0].Report
}

func TestReport_Trigger(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"modern", []string{invokedBy("CPU 11/KVM"), "CPU: 60 UID: 0 PID: 70888 Comm: CPU 11/KVM Not tainted 6.12"}, "70888 CPU 11/KVM 0xcc0(GFP_KERNEL) 0 0 ''"},
		{"3.10", []string{"x invoked oom-killer: gfp_mask=0xd0, order=-1, oom_score_adj=-998", "x cpuset=a mems_allowed=0 b mems_allowed=0-1,3", "CPU: 0 PID: 7 Comm: x Tainted: G"}, "7 x 0xd0 -1 -998 a mems_allowed=0 b"},
		{"4.19", []string{"x invoked oom-killer: gfp_mask=0x6000c0(GFP_KERNEL), nodemask=0,2, order=3, oom_score_adj=5 [7/972]"}, "0 x 0x6000c0(GFP_KERNEL) 3 5 ''"},
		{"2.6.32", []string{"x invoked oom-killer: gfp_mask=0xd0, order=0, oom_adj=-3, oom_score_adj=0", "Pid: 7, comm: x Not tainted 2.6.32"}, "7 x 0xd0 0 0 ''"},
		{"another's stack", []string{invokedBy("x"), "CPU: 0 PID: 8 Comm: xy Not tainted", "CPU: 0 PID: x Comm: x ", "CPU: 0 Comm: x ", "CPU: 0 PID: 7 Comm: x Not tainted", "CPU: 0 PID: 9 Comm: x Not tainted"}, "7 x 0xcc0(GFP_KERNEL) 0 0 ''"},
		{"odd cpuset", []string{invokedBy("x"), "x cpuset=a mems_allowed=none"}, "0 x 0xcc0(GFP_KERNEL) 0 0 ''"},
		{"nothing after the name", []string{"x invoked oom-killer: gfp_mask="}, "0 x  - - ''"},
		{"odd numbers", []string{"x invoked oom-killer: gfp_mask=0x1, order=x, oom_score_adj=99999999999"}, "0 x 0x1 - - ''"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := one(t, tt.lines...)
			show := func(p *int) any {
				if p == nil {
					return "-"
				}
				return *p
			}
			cpuset := r.Cpuset
			if cpuset == "" {
				cpuset = "''"
			}
			got := fmt.Sprintf("%d %s %s %v %v %s", r.TriggerPID, r.TriggerComm, r.GFPMask, show(r.Order), show(r.OOMScoreAdj), cpuset)
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestReport_Usage(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	r := one(t, invokedBy("x"),
		"memory: usage 4kB, limit 8kB, failcnt 3", "memory+swap: usage 4kB, limit 9007199254740988kB, failcnt 0",
		"swap: usage 0kB, limit 9007199254740928kB, failcnt 0", "kmem: usage 9007199254740991kB, limit 1kB", "memory: usage xkB, limit 8kB")
	want := []*Usage{{n(4096), n(8192), n(3)}, {n(4096), nil, n(0)}, {n(0), nil, n(0)}, {nil, n(1024), nil}}
	if diff := cmp.Diff(want, []*Usage{r.Memory, r.MemorySwap, r.Swap, r.Kmem}); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
}

func TestReport_MemoryStat(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string
		want  map[string]int64
	}{
		{"a record each", []string{"Memory cgroup stats for /a:", "anon 4096", "usb 1-1: new device", "pgfault 7", "workingset_refault_anon 3", "zswpin 1", "zswpped 8192", "total_rss 12288",
			"hierarchical_memsw_limit 9223372036854771712", "Bad 5", "x -5", strings.Repeat("n", 65) + " 5", "Tasks state (memory values in pages):", "file 5"},
			map[string]int64{"anon": 4096, "zswpped": 8192, "total_rss": 12288}},
		{"as printers show newlines", []string{"Memory cgroup stats for /a: ", `anon 1\x0afile 2\x0apgscan 3`}, map[string]int64{"anon": 1, "file": 2}},
		{"one line a cgroup", []string{
			"Memory cgroup stats for /a: b: cache:1KB rss:0KB x:2 y:zKB workingset_refault_anon:0KB " + strings.Repeat("n", 50) + ":1KB",
			"Memory cgroup stats for /a/b: cache:2KB rss:3KB"},
			map[string]int64{"cache": 1024, "rss": 0, strings.Repeat("n", 50): 1024, "total_cache": 3072, "total_rss": 3072}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, one(t, append([]string{invokedBy("x")}, tt.lines...)...).MemoryStat); diff != "" {
				t.Errorf("counters (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReport_TaskIn(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"Task in /a/b killed as a result of limit of /a", "/a /a/b"},
		{"Task in /a killed as a result of limit of /a", "/a /a"},
		{"Task in /a/x killed as a result of limit of /z killed as a result of limit of /a", "/a /a/x killed as a result of limit of /z"},
		{"Task in /a killed as a result of limit of /b killed as a result of limit of /c", " "},
		{"Task in /a killed as a result", " "},
	} {
		r := one(t, invokedBy("x"), tt.text)
		if got := r.OOMMemcg + " " + r.TaskMemcg; got != tt.want {
			t.Errorf("%s:\n got %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestReport_Tasks(t *testing.T) {
	r := one(t, invokedBy("x"), "[ pid ]   uid  tgid total_vm      rss nr_ptes nr_pmds swapents oom_score_adj name",
		"[    5]     0     5     7437     7355    98304        0             0          -998 x", "[    6]  1000     6        1        2        3        4        5     9  two words ",
		"[    7]  1000     7", "[    x]     0", "[    8]  1000     8        1        2        3        4        5     9", "[    9     0", "(...)")
	var got []string
	for _, k := range r.Tasks {
		got = append(got, fmt.Sprint(k.PID, k.UID, k.TGID, k.TotalVMPages, k.RSSPages, *k.SwapentsPages, *k.OOMScoreAdj, k.PgtablesBytes == nil, k.RSSAnonPages == nil, " "+k.Name))
	}
	want := []string{"5 0 5 7437 7355 0 -998 true true x", "6 1000 6 1 2 5 9 true true  two words "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tasks (-want +got):\n%s", diff)
	}
	for _, header := range []string{"[  pid" + " uid name", "[ pid ] " + strings.Repeat("c ", 17) + "name"} {
		if r := one(t, invokedBy("x"), header, rowOf(5, "x")); len(r.Tasks) != 0 {
			t.Errorf("%q: got %d rows", header, len(r.Tasks))
		}
	}
}

// Kernels 5.4 without the fix print bytes as kB; the table's bytes tell.
func TestReport_PgtablesUnit(t *testing.T) {
	ks := kills(parse(t, []byte(strings.Join(at(1, invokedBy("a"), header, rowOf(5, "x"),
		"Out of memory: Killed process 5 (x) total-vm:4kB, anon-rss:4kB, file-rss:4kB, shmem-rss:0kB, UID:0 pgtables:98304kB oom_score_adj:0"), "\n"))))
	if got := *ks[0].PgtablesBytes; got != 98304 {
		t.Errorf("got %d bytes of page tables, want 98304", got)
	}
}

func TestParser_CountsMalformed(t *testing.T) {
	var p Parser
	for i, text := range []string{
		"Killed process 5 x", "oom-kill:nonsense", "Tasks in x", "Kill process 99999999999 (x) score 5", "oom_reaper: reaped process x",
		"Out of memory: OOM victim x is already exiting", "oom_kill_process: 0 callbacks suppressed",
	} {
		feed(&p, raw(2*i, "-", text), raw(2*i+1, "-", "end"))
		if p.Malformed != uint64(i+1) {
			t.Errorf("%q: got %d malformed lines, want %d", text, p.Malformed, i+1)
		}
	}
}

func TestEvents_AreBounded(t *testing.T) {
	var p Parser
	k := feed(&p, raw(1, "-", killedLine(5, "x")+strings.Repeat(" ", 5000)))[0].(*Kill)
	if len(k.Text) != maxText {
		t.Errorf("got %d bytes of text, want %d", len(k.Text), maxText)
	}
	for _, e := range []Event{&Kill{}, &Group{}, &Note{}} {
		e.event()
	}
}
