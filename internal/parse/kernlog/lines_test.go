// SPDX-License-Identifier: Apache-2.0

package kernlog

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const text = "Out of memory: Killed process 7 (a b)"

func now() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// brief says what a record holds, without what is not known.
func brief(r Record) string {
	var b strings.Builder
	if r.HasStamp {
		fmt.Fprintf(&b, "@%s ", r.Stamp)
	}
	if !r.Time.IsZero() {
		fmt.Fprintf(&b, "%s ", r.Time.Format(time.RFC3339Nano))
	}
	if r.Facility >= 0 {
		fmt.Fprintf(&b, "fac %d ", r.Facility)
	}
	if r.Level >= 0 {
		fmt.Fprintf(&b, "lvl %d ", r.Level)
	}
	if len(r.Caller) > 0 {
		fmt.Fprintf(&b, "by %s ", r.Caller)
	}
	if r.Bare {
		b.WriteString("bare ")
	}
	return b.String() + string(r.Text)
}

func TestLines_Framings(t *testing.T) {
	const utc = "2024-05-09T14:52:38Z "
	for _, tt := range []struct{ name, line, want string }{
		{"raw", "3,5,2000000,-,caller=C1;" + text, "@2s fac 0 lvl 3 by C1 " + text},
		{"dmesg", "[   12.345678] " + text, "@12.345678s " + text},
		{"dmesg, far from boot", "[271641.879548] " + text, "@75h27m21.879548s " + text},
		{"dmesg, text with blanks first", "[   12.345678]  lead trail ", "@12.345678s  lead trail "},
		{"dmesg, empty text", "[   12.345678] ", "@12.345678s "},
		{"dmesg with caller", "[   37.052923][ T9185] " + text, "@37.052923s by T9185 " + text},
		{"dmesg with caller on a CPU", "[   37.052923][    C0] " + text, "@37.052923s by C0 " + text},
		{"util-linux with caller", "[   37.052923] [   T9185] " + text, "@37.052923s by T9185 " + text},
		{"text that looks like a caller", "[   37.052923] [T1] " + text, "@37.052923s [T1] " + text},
		{"task table", "[14808.064117] [10517]     0 10517 go", "@4h6m48.064117s [10517]     0 10517 go"},
		{"dmesg -d", "[   12.345678 <    0.000010>] " + text, "@12.345678s " + text},
		{"dmesg -H", "[May 9 14:52] " + text, text},
		{"dmesg -H, delta", "[  +0.000012] " + text, text},
		{"dmesg -T", "[Thu May  9 14:52:38 2024] " + text, utc + text},
		{"dmesg -T in Chinese", "[二 9月  3 05:57:48 2024] " + text, "2024-09-03T05:57:48Z " + text},
		{"dmesg -T in French", "[jeu. mai  9 14:52:38 2024] " + text, text},
		{"dmesg -T in Japanese, day with sign", "[木 5月 9日 14:52:38 2024] " + text, text},
		{"dmesg -T, one word", "[xxxxxxx 14:52:38 2024] " + text, text},
		{"dmesg -x", "kern  :err   : [   12.345678] " + text, "@12.345678s fac 0 lvl 3 " + text},
		{"dmesg -x -T", "kern  :warn  : [Thu May  9 14:52:38 2024] " + text, utc + "fac 0 lvl 4 " + text},
		{"dmesg -x iso", "kern  :err   : 2024-05-09T14:52:38,000000+00:00 " + text, utc + "fac 0 lvl 3 " + text},
		{"dmesg -x -t", "kern  :err   : " + text, "fac 0 lvl 3 " + text},
		{"dmesg iso", "2024-05-09T16:52:38,250000+02:00 " + text, "2024-05-09T14:52:38.25Z " + text},
		{"dmesg --raw", "<4>[   12.345678] " + text, "@12.345678s fac 0 lvl 4 " + text},
		{"dmesg --raw, no time", "<3>" + text, "fac 0 lvl 3 " + text},
		{"dmesg --raw, table", "<6>[  101]     0", "fac 0 lvl 6 [  101]     0"},
		{"syslog", "Feb  8 14:05:27 doris-03 kernel: " + text, "2026-02-08T14:05:27Z " + text},
		{"syslog of last year", "May  8 14:05:27 doris-03 kernel: " + text, "2025-05-08T14:05:27Z " + text},
		{"syslog, leap day", "Feb 29 14:05:27 h kernel: " + text, "2024-02-29T14:05:27Z " + text},
		{"syslog with seconds", "Feb 15 23:13:51 h-1 kernel: [  778.978329] " + text, "@12m58.978329s 2026-02-15T23:13:51Z " + text},
		{"syslog with pid -", "Feb 15 23:13:51 h kernel[-]: " + text, "2026-02-15T23:13:51Z " + text},
		{"syslog without host", "Feb 15 23:13:51 kernel: " + text, "2026-02-15T23:13:51Z " + text},
		{"syslog, host in brackets", "Feb 15 23:13:51 <coordinator> kernel: " + text, "2026-02-15T23:13:51Z " + text},
		{"syslog, French month", "févr. 15 23:13:51 h kernel: " + text, text},
		{"syslog, Chinese month", "2月 15 23:13:51 h kernel: " + text, "2026-02-15T23:13:51Z " + text},
		{"syslog, text with blanks first", "Feb 15 23:13:51 h kernel:  oom_kill+0x1", "2026-02-15T23:13:51Z  oom_kill+0x1"},
		{"syslog, escapes", "Feb 15 23:13:51 h kernel: a#012 b#011#1c#", "2026-02-15T23:13:51Z a\n b\t#1c#"},
		{"syslog on the wire", "<4>Feb 15 23:13:51 h kernel: " + text, "2026-02-15T23:13:51Z fac 0 lvl 4 " + text},
		{"rfc 3339", "2024-05-09T14:52:38.053424+00:00 testbox kernel: [ 9421.982946][T10521] " + text, "@2h37m1.982946s 2024-05-09T14:52:38.053424Z by T10521 " + text},
		{"rfc 5424", "<3>1 2024-05-09T14:52:38Z h kernel - - - " + text, utc + "fac 0 lvl 3 " + text},
		{"rfc 5424 with data", `<3>1 2024-05-09T14:52:38Z h kernel - - [a b="\"]"][c d="e"] ` + text, utc + "fac 0 lvl 3 " + text},
		{"journal short-precise", "Feb 15 23:13:51.123456 h kernel: " + text, "2026-02-15T23:13:51.123456Z " + text},
		{"journal short-iso", "2024-05-09T17:52:38+0300 h kernel: " + text, utc + text},
		{"journal short-iso, west", "2024-05-09T07:52:38-07 h kernel: " + text, utc + text},
		{"journal short-full", "Thu 2024-05-09 14:52:38 UTC h kernel: " + text, utc + text},
		{"journal short-unix", "1715266358.500000 h kernel: " + text, "2024-05-09T14:52:38.5Z " + text},
		{"journal short-monotonic", "[   12.345678] h kernel: " + text, "@12.345678s " + text},
		{"journal json", `{"__REALTIME_TIMESTAMP":"1715266358500000","_TRANSPORT":"kernel","__MONOTONIC_TIMESTAMP":"9","_SOURCE_MONOTONIC_TIMESTAMP":"2000000","PRIORITY":"3","SYSLOG_FACILITY":"0","SYSLOG_IDENTIFIER":"kernel","X":[[1],{}],"MESSAGE":"a\n\"\u00fc\ud83d\ude00\/\t"}`,
			"@2s 2024-05-09T14:52:38.5Z fac 0 lvl 3 a\n\"ü😀/\t"},
		{"journal json, bytes", `{ "MESSAGE" : [ 97 , 255, 10 ], "_TRANSPORT" : "kernel", "__MONOTONIC_TIMESTAMP" : "5" , "N" : null }`, "@5µs a\xff\n"},
		{"journal json-seq", "\x1e" + `{"MESSAGE":"` + text + `","_TRANSPORT":"kernel"}`, text},
		{"netconsole", "2024-05-09 14:52:38 192.168.17.23:6665 [ 1276.828639] " + text, "@21m16.828639s " + utc + text},
		{"vendor template", "    warning|kernel[-]|[2919920.414131] " + text, "@811h5m20.414131s lvl 4 " + text},
		{"vendor template, err", "err|kernel[-]|[1.5] " + text, "@1.5s lvl 3 " + text},
		{"quoted mail", "> > [   12.345678] " + text, "@12.345678s " + text},
		{"indented, with CR LF", "\t [   12.345678] " + text + "\r\n", "@12.345678s " + text},
		{"byte order mark", "\xef\xbb\xbf[   12.345678] " + text, "@12.345678s " + text},
		{"bare", text, "bare " + text},
		{"bare table header", "[  pid  ]   uid  tgid name", "bare [  pid  ]   uid  tgid name"},
		{"bare, almost json", "{", "bare {"},
		{"bare, almost raw", "3,5,x", "bare 3,5,x"},
		{"bare, almost a level", "warning|kernel", "bare warning|kernel"},
		{"bare, almost a facility", "kern  :loud  : x", "bare kern  :loud  : x"},
		{"bare, unknown facility", "mine  :err   : x", "bare mine  :err   : x"},
		{"bare, almost a priority", "<TASK>", "bare <TASK>"},
		{"bare, open bracket", "[   12.345678 <    0.00 " + text, "bare [   12.345678 <    0.00 " + text},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := Lines{Now: now()}
			rec, ok := l.Feed([]byte(tt.line))
			got := brief(rec)
			if !ok {
				got = "not the kernel's"
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("record (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLines_NotTheKernels(t *testing.T) {
	for _, line := range []string{
		"14,5,2000000,-;" + text,
		"user  :err   : [   12.345678] " + text,
		"daemon:info  : " + text,
		"<13>[   12.345678] " + text,
		"<12>Feb 15 23:13:51 h kernel: " + text,
		"<30>1 2024-05-09T14:52:38Z h kernel - - - " + text,
		"<3>1 2024-05-09T14:52:38Z h app - - - " + text,
		"<3>1 2024-05-09T14:52:38Z h",
		"Feb 15 23:13:51 h dockerd[12]: " + text,
		"Feb 15 23:13:51 h containerd: [   12.345678] " + text,
		"Feb 15 23:13:51 h kernel[77]: " + text,
		"Feb 15 23:13:51 h app[kernel]: " + text,
		"Feb 15 23:13:51 h last message repeated 2 times",
		"Feb 15 23:13:51 dockerd[1]: kernel: " + text,
		"Feb 15 23:13:51 h",
		"2024-05-09T14:52:38Z h app: kernel: " + text,
		"2024-05-09 14:52:38 myapp:x [   12.345678] " + text,
		"2024-05-09 14:52:38 " + text,
		"1715266358.500000 h app[1]: " + text,
		`{"MESSAGE":"` + text + `"}`,
		`{"MESSAGE":"` + text + `","_TRANSPORT":"stdout"}`,
		`{"MESSAGE":"` + text + `","_TRANSPORT":["x","kernel"]}`,
		`{"MESSAGE":"` + text + `","_TRANSPORT":"kernel","_TRANSPORT":"kernel"}`,
		`{"MESSAGE":"` + text + `","_TRANSPORT":"kernel","SYSLOG_FACILITY":"1"}`,
		`{"MESSAGE":"` + text + `","_TRANSPORT":"kernel","SYSLOG_FACILITY":"x"}`,
		`{"MESSAGE":"` + text + `","_TRANSPORT":"kernel","SYSLOG_IDENTIFIER":"app"}`,
		`{"MESSAGE":null,"_TRANSPORT":"kernel"}`,
		`{"MESSAGE":[300],"_TRANSPORT":"kernel"}`,
		`{"MESSAGE":[1;2],"_TRANSPORT":"kernel"}`,
		`{"MESSAGE":"\u12","_TRANSPORT":"kernel"}`,
		`{"MESSAGE":"\uzzzz","_TRANSPORT":"kernel"}`,
		`{"X":"\",\"_TRANSPORT\":\"kernel","MESSAGE":"a"}`,
		`{}`,
	} {
		var l Lines
		if rec, ok := l.Feed([]byte(line)); ok {
			t.Errorf("%s: taken as the kernel's: %s", line, brief(rec))
		} else if l.Foreign != 1 {
			t.Errorf("%s: got %d foreign lines, want 1", line, l.Foreign)
		}
	}
}

func TestLines_BrokenObjectsAreNoFraming(t *testing.T) {
	for _, line := range []string{`{"a":1`, `{"a" 1}`, `{"a":"`, `{"a":]}`, `{a:1}`, `{"a":1 "b":2}`, `{"a"`, `{"MESSAGE":[[[`} {
		var l Lines
		if rec, ok := l.Feed([]byte(line)); !ok || !rec.Bare {
			t.Errorf("%s: got %+v, %v, want a bare line", line, rec, ok)
		}
	}
}

// journalctl shows the further lines of a message indented, without framing.
func TestLines_NextLinesOfOthers(t *testing.T) {
	l := Lines{Now: now()}
	var got []string
	for line := range strings.Lines(strings.Join([]string{
		"bare before all",
		"Feb 15 23:13:51 h app[1]: first",
		"                          " + text,
		"        [   12.345678] " + text,
		text,
		"",
		"Feb 15 23:13:51 h kernel: anon 4096",
		"                          file 8192",
		"Feb 15 23:13:51 h kernel: " + text,
		"[   12.345678] " + text,
	}, "\n")) {
		if rec, ok := l.Feed([]byte(line)); ok {
			got = append(got, brief(rec))
		}
	}
	want := []string{
		"bare bare before all", "2026-02-15T23:13:51Z anon 4096", "bare file 8192",
		"2026-02-15T23:13:51Z " + text, "@12.345678s " + text,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if l.Foreign != 4 {
		t.Errorf("got %d foreign lines, want 4", l.Foreign)
	}
}

func TestLines_NextLinesInShortMonotonic(t *testing.T) {
	var l Lines
	for _, line := range []string{"[   12.345678] h app[1]: first", "                        " + text, "   [   12.345678] " + text} {
		if rec, ok := l.Feed([]byte(line)); ok && string(rec.Text) == text {
			t.Errorf("%q: taken as the kernel's", line)
		}
	}
}

func TestLines_PropertiesOfRawRecords(t *testing.T) {
	var l Lines
	for _, line := range []string{"6,1,2,-;a", " SUBSYSTEM=pci"} {
		rec, ok := l.Feed([]byte(line))
		if want := line[0] != ' '; ok != want {
			t.Errorf("%q: got %s, %v", line, brief(rec), ok)
		}
	}
	// The number of a record of somebody else is told all the same.
	if rec, ok := l.Feed([]byte("14,7,2,-;x")); ok || rec.Seq != 7 || !rec.HasSeq {
		t.Errorf("got %+v, %v", rec, ok)
	}
}

func TestLines_TimesThatAreNone(t *testing.T) {
	for _, line := range []string{
		"Feb 31 25:13:51 h kernel: x", "Feb 41 23:13:51 h kernel: x", "Feb x 23:13:51 h kernel: x", "2024-13-09T14:52:38Z h kernel: x",
		"2024-05-09T14:61:38Z h kernel: x", "[Thu May  9 14:52:38 20x4] x", "99999999999.5 h kernel: x", "5.5 h kernel: x",
	} {
		l := Lines{Now: now()}
		rec, ok := l.Feed([]byte(line))
		if ok && !rec.Bare {
			t.Errorf("%s: got %s", line, brief(rec))
		}
	}
	// A day that no year has gives no time, and no year gives none either.
	l := Lines{Now: now()}
	if rec, ok := l.Feed([]byte("Feb 31 23:13:51 h kernel: x")); !ok || !rec.Time.IsZero() {
		t.Errorf("31 February: got %s, %v", brief(rec), ok)
	}
	l = Lines{}
	if rec, ok := l.Feed([]byte("Feb 11 23:13:51 h kernel: x")); !ok || !rec.Time.IsZero() {
		t.Errorf("no Now: got %s, %v", brief(rec), ok)
	}
}

func TestLines_AllocateNothing(t *testing.T) {
	for _, line := range []string{
		"[   12.345678][ T1] " + text, "Feb 15 23:13:51 h kernel: [  1.5] " + text, "2024-05-09T14:52:38.5+02:00 h kernel: a#012b",
		`{"MESSAGE":"a\nb","_TRANSPORT":"kernel","PRIORITY":"3","__REALTIME_TIMESTAMP":"1"}`, "kern  :err   : [   12.345678] x",
		"Feb 15 23:13:51 h dockerd[12]: " + text, text,
		"3,5,2000000,-,caller=C1;a\\x0ab", "[Thu May  9 14:52:38 2024] " + text, "[二 9月  3 05:57:48 2024] " + text, "[jeu. mai  9 14:52:38 2024] " + text,
		"[   12.345678 <    0.000010>] " + text, "[May 9 14:52] " + text, "[  +0.000012] " + text, "[   37.052923] [   T9185] " + text,
		"kern  :warn  : [Thu May  9 14:52:38 2024] " + text, "kern  :err   : 2024-05-09T14:52:38,000000+00:00 " + text, "2024-05-09T16:52:38,250000+02:00 " + text,
		"<4>[   12.345678] " + text, "<4>Feb 15 23:13:51 h kernel: " + text, `<3>1 2024-05-09T14:52:38Z h kernel - - [a b="c"] ` + text,
		"Thu 2024-05-09 14:52:38 UTC h kernel: " + text, "2024-05-09T17:52:38+0300 h kernel: " + text, "1715266358.500000 h kernel: " + text, "[   12.345678] h kernel: " + text,
		`{"_BOOT_ID":"0123456789abcdef","MESSAGE":[97,10],"_TRANSPORT":"kernel","_SOURCE_MONOTONIC_TIMESTAMP":"2000000"}`,
		"2024-05-09 14:52:38 192.168.17.23:6665 [ 1276.828639] " + text, "warning|kernel[-]|[2919920.414131] " + text,
	} {
		l := Lines{Now: now()}
		b := []byte(line)
		if n := testing.AllocsPerRun(100, func() { l.Feed(b) }); n != 0 {
			t.Errorf("%s: got %v allocations, want 0", line, n)
		}
	}
}

func BenchmarkLines(b *testing.B) {
	for name, line := range map[string]string{
		"dmesg":  "[   12.345678] usb 1-1: new high-speed USB device number 2 using xhci_hcd and some more words for length",
		"syslog": "Feb 15 23:13:51 ubuntu-1 kernel: [  778.978329] usb 1-1: new high-speed USB device number 2 using xhci_hcd",
		"other":  "Feb 15 23:13:51 ubuntu-1 dockerd[123]: time=x level=info msg=\"something of the kind that engines say all day\"",
	} {
		b.Run(name, func(b *testing.B) {
			l := Lines{Now: now()}
			in := bytes.Clone([]byte(line))
			b.ReportAllocs()
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				l.Feed(in)
			}
		})
	}
}

func TestLines_BootsOfTheJournal(t *testing.T) {
	var l Lines
	line := `{"_BOOT_ID":"0123","MESSAGE":"a","_TRANSPORT":"kernel"}`
	if rec, ok := l.Feed([]byte(line)); !ok || string(rec.BootID) != "0123" || rec.Line != nil {
		t.Errorf("got boot %q of line %q, want 0123 and no line", rec.BootID, rec.Line)
	}
	if rec, _ := l.Feed([]byte("  [ 1.5] a\r\n")); string(rec.Line) != "  [ 1.5] a" || rec.BootID != nil {
		t.Errorf("got boot %q of line %q", rec.BootID, rec.Line)
	}
}
