// SPDX-License-Identifier: Apache-2.0

package oomreport

import (
	"fmt"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/death"
)

// reportsToWrap are whole reports, as kernels print them.
func reportsToWrap() map[string][]string {
	const (
		pod    = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod11111111_2222_3333_4444_555555555555.slice"
		scope  = "/docker-3f1c9a5e7b2d4c6f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7.scope"
		header = "[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name"
	)
	old := func(limit, task, comm string) []string {
		return []string{
			"java invoked oom-killer: gfp_mask=0xd0, order=10, oom_score_adj=998",
			"java cpuset=docker-3f1c9a5e7b2d4c6f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7.scope mems_allowed=0-11",
			"CPU: 2 PID: 11345 Comm: java Not tainted 3.10.0-1160.el7.x86_64 #1 SMP Mon Oct 19 16:18:59 UTC 2020 and more",
			"Hardware name: VMware, Inc. VMware Virtual Platform/440BX Desktop Reference Platform, BIOS 6.00 04/13/2018",
			"Call Trace:", " [<ffffffff81401c43>] dump_stack+0x19/0x1b",
			"Task in " + task + " killed as a result of limit of " + limit,
			"memory: usage 204812kB, limit 204816kB, failcnt 4563", "memory+swap: usage 204812kB, limit 9007199254740988kB, failcnt 12", "kmem: usage 7524kB, limit 9007199254740988kB, failcnt 45",
			"Memory cgroup stats for " + limit + ": cache:108KB rss:197168KB rss_huge:0KB mapped_file:4KB swap:0KB inactive_anon:12KB active_anon:197168KB inactive_file:88KB active_file:4KB unevictable:0KB",
			"Memory cgroup stats for " + task + ": cache:216KB rss:17168KB rss_huge:0KB mapped_file:14KB swap:0KB inactive_anon:1234KB active_anon:97168KB inactive_file:188KB active_file:44KB unevictable:0KB",
			header,
			"[10517]  1001 10517   748523    47842     132       55           998 " + comm, "[11344]  1001 11344    97590    46185     113       50           998 two words",
			"Memory cgroup out of memory: Kill process 10517 (" + comm + ") score 1904 or sacrifice child",
			"Killed process 10517 (" + comm + "), UID 1001, total-vm:390360kB, anon-rss:183712kB, file-rss:1016kB",
			"usb 1-1: new high-speed USB device number 2 using xhci_hcd",
		}
	}
	modern := func(limit, task, comm string) []string {
		var out []string
		out = append(out, "java invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=10, oom_score_adj=969",
			"CPU: 14 UID: 1001 PID: 11345 Comm: java Kdump: loaded Tainted: G           OE      6.1.0-18-amd64 #1  Debian 6.1.76-1",
			"memory: usage 4194304kB, limit 4194312kB, failcnt 1273284", "swap: usage 12kB, limit 9007199254740988kB, failcnt 17", "Memory cgroup stats for "+limit+":")
		for i, s := range []string{"anon", "inactive_anon", "active_anon", "file", "workingset_refault_anon", "slab_unreclaimable", "unevictable"} {
			out = append(out, fmt.Sprintf("%s %d", s, 1234567890+i*1111))
		}
		return append(out, "Tasks state (memory values in pages):",
			"[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name",
			"[  22609]  1001 22609  2480905  1034954  1029171     5783         0 11227136       12           969 "+comm, "[  22610]  1002 22610     2480      103      102       57         3    12288       11           969 sh -c x",
			"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=a.scope,mems_allowed=0-1,oom_memcg="+limit+",task_memcg="+task+",task="+comm+",pid=22609,uid=1001",
			"Memory cgroup out of memory: Killed process 22609 ("+comm+") total-vm:9923620kB, anon-rss:4116684kB, file-rss:23132kB, shmem-rss:12kB, UID:1001 pgtables:10964kB oom_score_adj:969",
			"Tasks in "+limit+" are going to be killed due to memory.oom.group set",
			"oom_reaper: reaped process 22609 ("+comm+"), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB")
	}
	return map[string][]string{
		"3.10 pod":         old(pod, pod+scope, "(sd-pam)"),
		"3.10 container":   old(pod+scope, pod+scope, "node"),
		"3.10 short":       old("/box", "/box/inner1", "node"),
		"6.1 pod":          modern(pod, pod+scope, "(sd-pam)"),
		"6.1 short":        modern("/box1", "/box1/inner1", "java"),
		"6.1 two of a box": append(modern("/box1", "/box1/inner1", "java"), modern("/box1", "/box1/inner1", "java")...),
	}
}

// facts are what a log tells, by the name of the field; what is absent is
// left out.
func facts(events []Event) map[string]string {
	out := map[string]string{}
	set := func(key string, v any) { out[key] = fmt.Sprint(v) }
	num := func(key string, v *int64) {
		if v != nil {
			set(key, *v)
		}
	}
	word := func(key, v string) {
		if v != "" {
			set(key, v)
		}
	}
	usage := func(key string, u *Usage) {
		if u != nil {
			num(key+" usage", u.UsageBytes)
			num(key+" limit", u.LimitBytes)
			num(key+" failcnt", u.Failcnt)
		}
	}
	for _, k := range kills(events) {
		at := fmt.Sprint("pid ", k.PID)
		set(at, true)
		word(at+" comm", k.Comm)
		word(at+" task_memcg", k.TaskMemcg)
		num(at+" uid", k.UID)
		num(at+" total-vm", k.TotalVMBytes)
		num(at+" anon", k.AnonRSSBytes)
		num(at+" file", k.FileRSSBytes)
		num(at+" shmem", k.ShmemRSSBytes)
		num(at+" pgtables", k.PgtablesBytes)
		if k.OOMScoreAdj != nil {
			set(at+" adj", *k.OOMScoreAdj)
		}
		r := k.Report
		if r == nil {
			continue
		}
		word("oom_memcg", r.OOMMemcg)
		word("task_memcg", r.TaskMemcg)
		word("trigger", r.TriggerComm)
		word("gfp", r.GFPMask)
		word("constraint", r.Constraint)
		word("nodemask", r.Nodemask)
		word("cpuset", r.Cpuset)
		word("mems", r.MemsAllowed)
		if r.TriggerPID != 0 {
			set("trigger pid", r.TriggerPID)
		}
		if r.VictimPID != 0 {
			set("victim pid", r.VictimPID)
		}
		if r.Order != nil {
			set("order", *r.Order)
		}
		if r.OOMScoreAdj != nil {
			set("trigger adj", *r.OOMScoreAdj)
		}
		usage("memory", r.Memory)
		usage("memsw", r.MemorySwap)
		usage("swap", r.Swap)
		usage("kmem", r.Kmem)
		for name, v := range r.MemoryStat {
			set("stat "+name, v)
		}
		for _, row := range r.Tasks {
			set(fmt.Sprint("row ", row.PID), rowText(row))
		}
	}
	return out
}

func rowText(t death.Task) string {
	s := fmt.Sprintf("%d %d %d %d %q", t.UID, t.TGID, t.TotalVMPages, t.RSSPages, t.Name)
	for _, p := range []*int64{t.RSSAnonPages, t.RSSFilePages, t.RSSShmemPages, t.PgtablesBytes, t.SwapentsPages} {
		if p != nil {
			s += fmt.Sprint(" ", *p)
		}
	}
	if t.OOMScoreAdj != nil {
		s += fmt.Sprint(" adj ", *t.OOMScoreAdj)
	}
	return s
}

// A log that a terminal wrapped or cut tells what the whole one tells, or
// less, and nothing else.
func TestParser_WrappedAndCutLogs(t *testing.T) {
	framings := map[string]func(i int) string{
		"dmesg":  func(i int) string { return fmt.Sprintf("[14808.%06d] ", 63890+i*7) },
		"syslog": func(i int) string { return fmt.Sprintf("Nov  1 01:23:20 h1 kernel: [14808.%06d] ", 63890+i*7) },
	}
	forms := map[string]func(line string, width int) []string{
		"wrapped": func(line string, width int) (out []string) {
			for len(line) > width {
				out, line = append(out, line[:width]), line[width:]
			}
			return append(out, line)
		},
		"wrapped, blanks trimmed": func(line string, width int) (out []string) {
			for len(line) > width {
				out, line = append(out, strings.TrimRight(line[:width], " ")), line[width:]
			}
			return append(out, line)
		},
		"cut": func(line string, width int) []string { return []string{line[:min(width, len(line))]} },
	}
	told, of := map[string]int{}, map[string]int{}
	for name, report := range reportsToWrap() {
		for framing, prefix := range framings {
			var whole []string
			for i, l := range report {
				whole = append(whole, prefix(i)+l)
			}
			want := facts(parse(t, []byte(strings.Join(whole, "\n"))))
			if len(want) < 25 {
				t.Fatalf("%s in %s: only %d facts: %v", name, framing, len(want), want)
			}
			for form, broken := range forms {
				for width := 60; width <= 260; width++ {
					var log []string
					for _, l := range whole {
						log = append(log, broken(l, width)...)
					}
					got := facts(parse(t, []byte(strings.Join(log, "\n"))))
					for key, v := range got {
						if want[key] != v {
							t.Errorf("%s in %s, %s at %d: %s is %q, want %q or nothing", name, framing, form, width, key, v, want[key])
						}
					}
					told[form] += len(got)
					of[form] += len(want)
				}
			}
		}
	}
	for form := range forms {
		t.Logf("%s: %d of %d facts told", form, told[form], of[form])
	}
	if told["wrapped"]*100 < of["wrapped"]*90 {
		t.Errorf("wrapped logs tell %d of %d facts, want nine of ten", told["wrapped"], of["wrapped"])
	}
}
