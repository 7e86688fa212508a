// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

const report = `[   10.000001] java invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=5
[   10.000002] CPU: 0 PID: 7 Comm: java Not tainted 6.1.0 #1
[   10.000003] memory: usage 1024kB, limit 1024kB, failcnt 19
[   10.000004] swap: usage 8kB, limit 9007199254740988kB, failcnt 0
[   10.000005] Memory cgroup stats for /a:
[   10.000006] anon 4096
[   10.000007] pgfault 12
[   10.000008] Tasks state (memory values in pages):
[   10.000009] [  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name
[   10.000010] [      9]  1000     9     7437     7355    98304        0             3 leaky
[   10.000011] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a/b,task=leaky,pid=9,uid=1000
[   10.000012] Memory cgroup out of memory: Killed process 9 (leaky) total-vm:40kB, anon-rss:28kB, file-rss:4kB, shmem-rss:0kB, UID:1000 pgtables:96kB oom_score_adj:3
[   10.000013] Tasks in /a are going to be killed due to memory.oom.group set
[   10.000014] oom_reaper: reaped process 9 (leaky), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB
`

func read(t *testing.T, in io.Reader, opts FileOptions) ([]signal.Signal, Stats) {
	t.Helper()
	var out []signal.Signal
	st, err := ReadFile(in, opts, func(s signal.Signal) { out = append(out, s) })
	if err != nil {
		t.Fatal(err)
	}
	return out, st
}

func ptr[T any](v T) *T { return &v }

func TestReadFile_AllThatAReportSays(t *testing.T) {
	got, st := read(t, strings.NewReader(report), FileOptions{Boot: boot(), BootID: "b"})
	at := func(us int) time.Time { return boot().Add(10*time.Second + time.Duration(us)*time.Microsecond) }
	uid := ptr(int64(1000))
	want := []signal.Signal{
		{Time: at(12), Source: death.SourceKmsg, Recovered: true, Body: signal.ReportedKill{
			BootID: "b", Report: 1, Memcg: true,
			Victim: signal.Task{PID: 9, Comm: "leaky", UID: uid, Cgroup: signal.Cgroup{Path: "/a/b"}},
			Figures: signal.Figures{
				TotalVMBytes: ptr(int64(40 << 10)), AnonRSSBytes: ptr(int64(28 << 10)), FileRSSBytes: ptr(int64(4 << 10)),
				ShmemRSSBytes: ptr(int64(0)), PgtablesBytes: ptr(int64(96 << 10)), OOMScoreAdj: ptr(3),
			},
			OOM: &death.OOM{
				Constraint: "CONSTRAINT_MEMCG", OOMMemcg: "/a", TaskMemcg: "/a/b",
				Trigger:    &death.Trigger{PID: 7, Comm: "java"},
				UsageBytes: ptr(int64(1 << 20)), LimitBytes: ptr(int64(1 << 20)), SwapUsageBytes: ptr(int64(8 << 10)),
				MemoryStat: map[string]int64{"anon": 4096},
				Tasks: []death.Task{{
					PID: 9, UID: 1000, TGID: 9, TotalVMPages: 7437, RSSPages: 7355, Name: "leaky",
					PgtablesBytes: ptr(int64(98304)), SwapentsPages: ptr(int64(0)), OOMScoreAdj: ptr(3),
				}},
				Order: ptr(0), GFPMask: "0xcc0(GFP_KERNEL)",
			},
			Text: "Memory cgroup out of memory: Killed process 9 (leaky) total-vm:40kB, anon-rss:28kB, file-rss:4kB, shmem-rss:0kB, UID:1000 pgtables:96kB oom_score_adj:3",
		}},
		{Time: at(13), Source: death.SourceKmsg, Recovered: true, Body: signal.ReportedGroup{Report: 1, Cgroup: signal.Cgroup{Path: "/a"}}},
		{Time: at(14), Source: death.SourceKmsg, Recovered: true, Body: signal.ReportedNote{
			Report: 1, Kind: signal.NoteReaped, PID: 9, Text: "oom_reaper: reaped process 9 (leaky), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("signals (-want +got):\n%s", diff)
	}
	if want := (Stats{Bytes: int64(len(report)), Lines: 14, Records: 14, Framed: 14, Kills: 1}); st != want {
		t.Errorf("got %+v, want %+v", st, want)
	}
}

func TestReadFile_OldSwapAndNotes(t *testing.T) {
	got, _ := read(t, strings.NewReader(`[1.000000] a invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0
[1.000001] memory+swap: usage 4kB, limit 8kB, failcnt 0
[1.000002] Memory cgroup out of memory: Kill process 5 (a) score 1 or sacrifice child
[1.000003] Killed process 5 (a) total-vm:4kB, anon-rss:4kB, file-rss:0kB
[1.000004] Kill process 6 (a) sharing same memory
[1.000005] oom_kill_process: 3 callbacks suppressed
[1.000006] Memory cgroup out of memory: OOM victim 8 (b) is already exiting. Skip killing the task
[1.000007] Out of memory and no killable processes...
`), FileOptions{})
	k := got[0].Body.(signal.ReportedKill)
	if *k.OOM.MemswUsageBytes != 4<<10 || *k.OOM.MemswLimitBytes != 8<<10 {
		t.Errorf("got swap %v of %v", k.OOM.MemswUsageBytes, k.OOM.MemswLimitBytes)
	}
	var notes []string
	for _, s := range got[1:] {
		n := s.Body.(signal.ReportedNote)
		notes = append(notes, fmt.Sprint(n.Kind, " ", n.PID, " ", n.Count))
	}
	want := []string{"sharer 6 0", "suppressed 0 3", "already_exiting 8 0", "unkillable 0 0"}
	if diff := cmp.Diff(want, notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}

func TestReadFile_Times(t *testing.T) {
	const line = "Killed process 9 (x) total-vm:4kB, anon-rss:4kB, file-rss:0kB, shmem-rss:0kB"
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name, log string
		opts      FileOptions
		want      time.Time
	}{
		{"stamp and boot", "[   10.500000] " + line, FileOptions{Boot: boot()}, boot().Add(10500 * time.Millisecond)},
		{"stamp only", "[   10.500000] " + line, FileOptions{}, time.Unix(10, 5e8).UTC()},
		{"no time at all", line, FileOptions{}, time.Unix(0, 0).UTC()},
		{"wall time", "2024-05-09T10:00:00.25+0200 h kernel: " + line, FileOptions{}, time.Date(2024, 5, 9, 8, 0, 0, 25e7, time.UTC)},
		{"no year, this year", "Feb 28 10:00:00 h kernel: " + line, FileOptions{Now: now}, time.Date(2026, 2, 28, 10, 0, 0, 0, time.UTC)},
		{"no year, last year", "Mar  4 10:00:00 h kernel: " + line, FileOptions{Now: now}, time.Date(2025, 3, 4, 10, 0, 0, 0, time.UTC)},
		{"zone", "Feb 28 10:00:00 h kernel: " + line, FileOptions{Now: now, Location: time.FixedZone("", 3600)}, time.Date(2026, 2, 28, 9, 0, 0, 0, time.UTC)},
		{"learned from a line before", "2024-05-09T10:00:00Z h kernel: [    5.0] x\n[    7.0] " + line, FileOptions{}, time.Date(2024, 5, 9, 10, 0, 2, 0, time.UTC)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _ := read(t, strings.NewReader(tt.log), tt.opts)
			if len(got) != 1 || !got[0].Time.Equal(tt.want) {
				t.Errorf("got %v, want one at %v", got, tt.want)
			}
		})
	}
}

func zipped(t *testing.T, parts ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range parts {
		z := gzip.NewWriter(&b)
		if _, err := z.Write([]byte(p)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestReadFile_Gzip(t *testing.T) {
	z := zipped(t, report[:300], report[300:])
	var last int64
	got, st := read(t, iotest.OneByteReader(bytes.NewReader(z)), FileOptions{Progress: func(n int64) { last = n }})
	if len(got) != 3 || st.Kills != 1 || st.Lines != 14 || st.Bytes != int64(len(z)) || last != st.Bytes {
		t.Errorf("got %d signals, %+v, progress to %d of %d", len(got), st, last, len(z))
	}
	_, err := ReadFile(bytes.NewReader(z[:len(z)-20]), FileOptions{}, func(signal.Signal) {})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut file: got %v", err)
	}
	_, err = ReadFile(strings.NewReader("\x1f\x8b rubbish"), FileOptions{}, func(signal.Signal) {})
	if err == nil {
		t.Error("rubbish behind the magic: got no error")
	}
}

func TestReadFile_BadInput(t *testing.T) {
	broken := errors.New("disk gone")
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		in   io.Reader
		want string
	}{
		{"empty", strings.NewReader(""), ErrEmpty.Error()},
		{"binary", bytes.NewReader(binary[:1<<20]), ErrBinary.Error()},
		{"xz", strings.NewReader("\xfd7zXZ\x00\x00\x04"), "xzcat FILE | coroner explain"},
		{"journal file", strings.NewReader("LPKSHHRH\x00\x00"), "journalctl"},
		{"unreadable", iotest.ErrReader(broken), broken.Error()},
		{"unreadable later", io.MultiReader(strings.NewReader(report), iotest.ErrReader(broken)), "line 15: disk gone"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ReadFile(tt.in, FileOptions{}, func(signal.Signal) {})
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
	// A crash leaves zeros in a log file; the rest of it is good.
	got, _ := read(t, strings.NewReader(strings.Repeat("\x00", 5000)+"\n"+report), FileOptions{})
	if len(got) != 3 {
		t.Errorf("got %d signals behind zeros, want 3", len(got))
	}
}

func TestReadFile_LongLines(t *testing.T) {
	long := "[1.000000] " + strings.Repeat("x", 3*maxLine) + "Killed process 1 (a) total-vm:4kB"
	got, st := read(t, strings.NewReader(long+"\n"+report+long), FileOptions{})
	if len(got) != 3 || st.Cut != 2 || st.Lines != 16 {
		t.Errorf("got %d signals, %+v", len(got), st)
	}
}

func TestReadFile_GapsOfRawRecords(t *testing.T) {
	log := strings.Join([]string{
		"4,10,1000000,-;java invoked oom-killer: gfp_mask=0xcc0, order=0, oom_score_adj=0",
		"14,11,1000001,-;somebody else", // its number counts
		" SUBSYSTEM=x",
		"6,12,1000002,-;memory: usage 1kB, limit 1kB, failcnt 0",
		"3,20,1000003,-;Memory cgroup out of memory: Killed process 5 (a) total-vm:4kB, anon-rss:4kB, file-rss:0kB, shmem-rss:0kB",
		"3,5,2000003,-;Memory cgroup out of memory: Killed process 6 (b) total-vm:4kB, anon-rss:4kB, file-rss:0kB, shmem-rss:0kB",
	}, "\n")
	got, st := read(t, strings.NewReader(log), FileOptions{})
	if st.Lost != 7 || st.Kills != 2 || st.Foreign != 1 {
		t.Errorf("got %+v, want 7 lost, 2 kills, 1 foreign", st)
	}
	if k := got[0].Body.(signal.ReportedKill); k.OOM != nil || k.Seq != 20 {
		t.Errorf("a kill behind a gap took the context before it: %+v", k)
	}
}

// A file in a form that is not read looks otherwise than one without kills.
func TestReadFile_CountsFramedLines(t *testing.T) {
	const kill = "Out of memory: Killed process 9 (x) total-vm:4kB, anon-rss:4kB, file-rss:0kB, shmem-rss:0kB"
	for _, tt := range []struct {
		name, log string
		want      uint64
	}{
		{"dmesg", "[   10.5] usb\n\n[   10.6] " + kill + "\n", 2},
		{"syslog of others", "Feb 28 10:00:00 h app[1]: x\n", 1},
		{"journal json", `{"_TRANSPORT":"kernel","MESSAGE":"x"}` + "\n", 1},
		{"bare texts", kill + "\n", 0},
		{"journal json-pretty", "{\n\t\"_TRANSPORT\" : \"kernel\",\n\t\"MESSAGE\" : \"" + kill + "\"\n}\n", 0},
		{"journal export", "__REALTIME_TIMESTAMP=1\n_TRANSPORT=kernel\nMESSAGE=" + kill + "\n\n", 0},
		{"journal verbose", "Thu 2024-05-09 14:52:38.123456 CEST [s=ab;i=1;b=cd;m=1;t=2;x=3]\n    PRIORITY=3\n    MESSAGE=" + kill + "\n", 0},
		{"coloured dmesg", "\x1b[32m[   10.5] \x1b[0m\x1b[31m" + kill + "\x1b[0m\n", 0},
	} {
		if _, st := read(t, strings.NewReader(tt.log), FileOptions{}); st.Framed != tt.want {
			t.Errorf("%s: got %d framed lines, want %d", tt.name, st.Framed, tt.want)
		}
	}
}

// What was found before the file broke is given out, the last victim too.
func TestReadFile_BrokenFileTellsWhatItHeld(t *testing.T) {
	open := strings.Join(strings.Split(report, "\n")[:11], "\n") + "\n" // a summary, no kill line
	text := report + strings.ReplaceAll(strings.ReplaceAll(open, "[   10.", "[   20."), "pid=9,", "pid=10,")
	z := zipped(t, text)
	damaged := bytes.Clone(z)
	damaged[len(z)-8] ^= 1 // the checksum
	for _, tt := range []struct {
		name string
		in   io.Reader
	}{
		{"read", io.MultiReader(strings.NewReader(text), iotest.ErrReader(errors.New("disk gone")))},
		{"cut gzip", bytes.NewReader(z[:len(z)-8])},
		{"damaged gzip", bytes.NewReader(damaged)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var pids []int
			st, err := ReadFile(tt.in, FileOptions{}, func(s signal.Signal) {
				if k, ok := s.Body.(signal.ReportedKill); ok {
					pids = append(pids, k.Victim.PID)
				}
			})
			if diff := cmp.Diff([]int{9, 10}, pids); diff != "" || err == nil || st.Kills != 2 {
				t.Errorf("error %v, %d kills, pids (-want +got):\n%s", err, st.Kills, diff)
			}
		})
	}
}
