// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/coroner-dev/coroner/internal/death"
)

const header = `{"format":"coroner-signals/1","node":"n"}` + "\n"

// everyKind has one signal of each kind.
func everyKind() []Signal {
	at := time.Date(2026, 3, 4, 12, 0, 0, 123456789, time.UTC)
	limit, no, code, uid, adj := int64(32<<20), false, 137, int64(1000), -998
	c := Cgroup{ID: 7, Path: "/a b/\"x\"<\u2028"}
	task := Task{PID: 7, TID: 8, Comm: "x\x1b[31m", UID: &uid, Cgroup: c, Init: &no, PIDNS: 4026531836, MM: 1}
	level := Level{Cgroup: c, LimitBytes: &limit, UsageBytes: new(int64), OOMGroup: true}
	figures := Figures{TotalVMBytes: &limit, AnonRSSBytes: new(int64), OOMScoreAdj: &adj}
	var all []Signal
	for _, b := range append(containers(), []Body{
		MarkVictim{Victim: task, Trigger: task, Figures: figures, Chain: []Level{level, {}}},
		OOMInvocation{Constraint: "CONSTRAINT_MEMCG", OOMMemcg: c, Chosen: task, Trigger: task},
		Kill{Target: task, Sender: task, Signal: 9, Code: CodeKernel, Result: 1},
		Exit{Task: task, Code: &code}, Exit{Signal: &code},
		ReportedKill{Seq: 1<<64 - 1, BootID: "b", Report: 2, Victim: task, Figures: figures, Memcg: true, OOM: &death.OOM{Constraint: "CONSTRAINT_NONE"}, Again: true, Text: "line"},
		ReportedGroup{Seq: 1, Report: 2, Cgroup: c},
		ReportedNote{Seq: 1, Report: 2, Kind: NoteReaped, PID: 7, Count: 3, Text: "line"},
		CgroupSeen{Level: level, InitPID: 7},
		CgroupGone{c},
		CgroupCounters{Cgroup: c, OOMKill: 1, OOMKillBelow: 2, Since: at, OOMKillTotal: 3, OOMKillBelowTotal: 4, OOM: 5, OOMGroupKill: 6, Chain: []Level{level}},
		MemoryHistory{
			Cgroup: c, LimitBytes: &limit, PeakBytes: new(int64), PeakSampled: true, First: at,
			Limits:  []LimitReading{{First: at, Last: at.Add(time.Second)}, {First: at.Add(2 * time.Second), Last: at.Add(2 * time.Second), Bytes: &limit}},
			Samples: [][3]int64{{at.Unix(), 0, 4096}, {at.Unix() + 10, 1 << 62, -1}},
			Last: &MemoryReading{
				Time: at, WorkingSetBytes: 1, UsageBytes: 2, AnonBytes: new(int64), FileBytes: &limit, ShmemBytes: new(int64(3)),
				KernelBytes: new(int64(4)), SomeAvg10: new(0.25),
			},
		},
		ProcessesEscaped{Cgroup: c, PIDNS: 4026531836, Count: 2, HeldBytes: 1 << 20, Examples: []EscapedProcess{{PID: 7, Comm: "x\x1b", Cgroup: "/", HeldBytes: &limit}, {PID: 8}}},
		PIDNamespace{PIDNS: 4026531836, Cgroup: c, Since: at},
		NodeCounters{OOMKill: 1, Total: 2, Counted: at},
		SourceState{Up: true, Mode: "bpf", Reason: "r"},
		Lost{Count: 1, Other: true, Why: "w"},
	}...) {
		all = append(all, Signal{Time: at, Observed: at.Add(time.Second), Source: death.SourceKmsg, User: "1000", Recovered: true, Body: b})
	}
	return all
}

func write(t testing.TB, h Header, signals []Signal) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, h)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range signals {
		if err := w.Write(s); err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
	}
	return b.Bytes()
}

// read reads to the end, or to the first error.
func read(file []byte) (h Header, signals []Signal, skipped int, err error) {
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		return Header{}, nil, 0, err
	}
	for {
		s, err := r.Read()
		if errors.Is(err, io.EOF) {
			return r.Header, signals, r.Skipped, nil
		}
		if err != nil {
			return r.Header, signals, r.Skipped, err
		}
		signals = append(signals, s)
	}
}

func TestReader_ReadsWhatAWriterWrote(t *testing.T) {
	want := Header{Format: FileFormat, Node: "n", BootID: "b", Kernel: "k", Agent: "a"}
	h, got, skipped, err := read(write(t, want, everyKind()))
	if diff := cmp.Diff(everyKind(), got); diff != "" || skipped != 0 || err != nil {
		t.Errorf("skipped %d, err %v (-want +got):\n%s", skipped, err, diff)
	}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReader_Foreign(t *testing.T) {
	const at = `"time":"2026-03-04T12:00:00Z","observed":"2026-03-04T12:00:00Z"`
	for _, tt := range []struct {
		name, lines    string
		signals, skips int
		err            string
	}{
		{name: "an unknown kind", lines: `{` + at + `,"kind":"later","body":[1]}`, skips: 1},
		{name: "cut", lines: `{` + at + `,"kind":"kill","body":{"sig`, err: "signal 2: unexpected EOF"},
		{name: "another type", lines: `{` + at + `,"kind":"kill","body":{"signal":"9"}}`, err: "signal 2: kill: "},
		{name: "year 9999", lines: `{"time":"9999-12-31T23:59:59-01:00","observed":"9999-12-31T23:59:59-01:00","kind":"lost","body":{}}`, err: "signal 2: lost: time out of range"},
		{name: "no time", lines: `{"kind":"lost","body":{}}`, signals: 1},
		{name: "no body", lines: `{` + at + `,"kind":"kill"}`, err: "signal 2: kill: no body"},
		{name: "a body that is null", lines: `{` + at + `,"kind":"kill","body":null}`, err: "signal 2: kill: no body"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, signals, skipped, err := read([]byte(header + tt.lines))
			if len(signals) != tt.signals || skipped != tt.skips || (err == nil) != (tt.err == "") || err != nil && !strings.HasPrefix(err.Error(), tt.err) {
				t.Errorf("%d signals, %d skipped, %v; want %d, %d, %s", len(signals), skipped, err, tt.signals, tt.skips, tt.err)
			}
		})
	}
}

func TestReader_TimesAreUTC(t *testing.T) {
	_, got, _, err := read([]byte(header + `{"time":"2026-03-04T13:00:00+01:00","observed":"2026-03-04T13:00:00+01:00","kind":"lost","body":{}}`))
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	want := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	if got[0].Time != want || got[0].Observed != want {
		t.Errorf("%v and %v, want %v", got[0].Time, got[0].Observed, want)
	}
}

// FuzzReader reads foreign files: what was understood is written and read
// again the same, and is no more than there are lines and objects.
func FuzzReader(f *testing.F) {
	f.Add(write(f, Header{Node: "n"}, everyKind()))
	for _, s := range everyKind() {
		f.Add(write(f, Header{}, []Signal{s}))
	}
	f.Add([]byte(header + `{"kind":"kill","body":null}{}null`))
	f.Fuzz(func(t *testing.T, file []byte) {
		h, signals, skipped, err := read(file)
		if len(signals)+skipped > len(file)/2 {
			t.Errorf("%d signals, %d skipped of %d bytes", len(signals), skipped, len(file))
		}
		if err != nil && h == (Header{}) && signals != nil {
			t.Error("signals without a header")
		}
		if h.Format == "" {
			return
		}
		h2, again, skipped, err := read(write(t, h, signals))
		if err != nil || skipped != 0 || h2 != h {
			t.Fatalf("again: %+v, %d skipped, %v", h2, skipped, err)
		}
		if diff := cmp.Diff(signals, again, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("(-first +again):\n%s", diff)
		}
	})
}
