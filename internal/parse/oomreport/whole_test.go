// SPDX-License-Identifier: Apache-2.0

package oomreport

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/parse/kernlog"
)

// asSyslog says a record as syslog(2) does: a head before each of its lines.
func asSyslog(rec kernlog.Record) []byte {
	var b bytes.Buffer
	for line := range bytes.SplitSeq(rec.Text, []byte{'\n'}) {
		caller := ""
		if len(rec.Caller) > 0 {
			caller = fmt.Sprintf("[%6s]", rec.Caller)
		}
		us := rec.Stamp.Microseconds()
		fmt.Fprintf(&b, "<%d>[%5d.%06d]%s %s\n", rec.Facility<<3|rec.Level, us/1e6, us%1e6, caller, line)
	}
	return b.Bytes()
}

// syslogged are the events of a text of syslog(2)'s.
func syslogged(text []byte) (events []Event) {
	var w Whole
	var p Parser
	take := func(rec kernlog.Record, ok bool) {
		if ok && rec.Facility == 0 {
			events = p.Feed(events, rec)
		}
	}
	for line := range bytes.Lines(text) {
		if rec, ok := kernlog.Syslog(bytes.TrimSuffix(line, []byte{'\n'})); ok {
			take(w.Feed(rec))
		}
	}
	take(w.End())
	return p.Flush(events)
}

// What kernels really wrote is told the same where syslog(2) gives it, also by
// machines whose clock stands still for a whole report.
func TestWhole_KernelLogs(t *testing.T) {
	logs, err := filepath.Glob("testdata/kmsg/*.kmsg")
	if err != nil || len(logs) != 206 {
		t.Fatalf("got %d logs (%v), want 206", len(logs), err)
	}
	for _, name := range logs {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".kmsg"), func(t *testing.T) {
			var text []byte
			for line := range bytes.Lines(readFile(t, name)) {
				if rec, err := kernlog.ParseKmsg(bytes.TrimSuffix(line, []byte{'\n'})); err == nil {
					text = append(text, asSyslog(rec)...)
				}
			}
			var want kmsgTruth
			readJSON(t, strings.TrimSuffix(name, ".kmsg")+".json", &want)
			checkKmsg(t, syslogged(text), &want)
		})
	}
}

// What follows a line end in another record says nothing of its own.
func TestWhole_NamesAreNoLines(t *testing.T) {
	const kill = "Memory cgroup out of memory: Killed process 666 (victim) total-vm:4kB, anon-rss:4kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:4kB oom_score_adj:0"
	const summary = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/victim,task_memcg=/victim,task=v,pid=666,uid=0"
	for _, before := range []string{
		"anything", "XFS (a", "comm", "x\nanon 4096", "Task dump for CPU 0:",
	} {
		rec := kernlog.Record{Level: 6, Stamp: 1e9, Text: []byte(before + "\n" + kill + "\n" + summary + "\n" + kill + "\nx")}
		for _, e := range syslogged(asSyslog(rec)) {
			if k, ok := e.(*Kill); ok && k.PID == 666 {
				t.Errorf("%q: a name was taken for a kill: %+v", before, k)
			}
		}
	}
}

// Lines of a report may share a stamp.
func TestWhole_OneStamp(t *testing.T) {
	at := func(us, level int, lines ...string) (out []byte) {
		for _, l := range lines {
			out = fmt.Appendf(out, "<%d>[   10.%06d] %s\n", level, us, l)
		}
		return out
	}
	text := append(at(1, 6, "memory: usage 1024kB, limit 1024kB, failcnt 19", "swap: usage 8kB, limit 9007199254740988kB, failcnt 0", "Memory cgroup stats for /a:"),
		at(2, 6, "anon 4096", "pgfault 12", "Tasks state (memory values in pages):", "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
			"[      9]  1000     9     7437     7355    98304        0             3 leaky",
			"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a/b,task=leaky,pid=9,uid=1000")...)
	text = append(at(0, 4, "java invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=5"), text...)
	text = append(text, at(3, 3, "Memory cgroup out of memory: Killed process 9 (lea", "ky) total-vm:40kB, anon-rss:28kB, file-rss:4kB, shmem-rss:0kB, UID:1000 pgtables:96kB oom_score_adj:3",
		"Memory cgroup out of memory: Killed process 10 (x) total-vm:40kB, anon-rss:28kB, file-rss:4kB, shmem-rss:0kB, UID:1000 pgtables:96kB oom_score_adj:3")...)
	all := kills(syslogged(text))
	if len(all) != 2 {
		t.Fatalf("%d kills", len(all))
	}
	k := all[0]
	if k.Comm != "lea\nky" || k.TaskMemcg != "/a/b" || k.Report == nil || k.Report.OOMMemcg != "/a" || len(k.Report.Tasks) != 1 ||
		k.Report.MemoryStat["anon"] != 4096 || k.Report.Memory == nil || k.Report.Swap == nil || all[1].PID != 10 {
		t.Errorf("got %+v of %+v", k, k.Report)
	}
}

// FuzzWhole: no text but that of the lines comes out, and none is lost but at the bound.
func FuzzWhole(f *testing.F) {
	f.Add([]byte("<6>[    1.000000] a\n<6>[    1.000000] oom-kill:constraint=x\n<3>[    1.000000][    T1] c\nrubbish\n<6>d"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var w Whole
		in, out := 0, 0
		count := func(rec kernlog.Record, ok bool) {
			if ok {
				out += len(bytes.ReplaceAll(rec.Text, []byte{'\n'}, nil))
			}
		}
		for line := range bytes.Lines(text) {
			if rec, ok := kernlog.Syslog(bytes.TrimSuffix(line, []byte{'\n'})); ok {
				in += len(rec.Text)
				count(w.Feed(rec))
			}
		}
		count(w.End())
		if out > in || len(text) < maxHeld && out != in {
			t.Errorf("%d bytes of %d", out, in)
		}
	})
}
