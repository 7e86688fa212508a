// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/signal"
)

func TestParseFormat(t *testing.T) {
	f, err := parseFormat([]byte("name: x\nID: 12\nformat:\n" +
		"\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n" +
		"\tfield:char comm[16];\toffset:4;\tsize:16;\tsigned:0;\n" +
		"\tfield:__rel_loc char[] name;\toffset:20;\tsize:4;\tsigned:0;\n" +
		"\tfield:void *p;\toffset:24;\tsize:8;\tsigned:0;\n\nprint fmt: \"field:\"\n"))
	want := map[string]field{
		"common_type": {size: 2},
		"comm":        {offset: 4, size: 16},
		"name":        {offset: 20, size: 4, loc: true, from: 24},
		"p":           {offset: 24, size: 8},
	}
	if diff := cmp.Diff(want, f.fields, cmp.AllowUnexported(field{})); diff != "" || err != nil || f.id != 12 {
		t.Errorf("id %d, err %v, fields (-want +got):\n%s", f.id, err, diff)
	}
	data := make([]byte, 40)
	binary.LittleEndian.PutUint32(data[20:], 3<<16|8) // 8 after the field's end
	copy(data[32:], "abc")
	if s, ok := f.string(data, "name", binary.LittleEndian); s != "abc" || !ok {
		t.Errorf("name = %q, %v; want abc", s, ok)
	}
	binary.LittleEndian.PutUint32(data[20:], 300<<16|8)
	if s, ok := f.string(data, "name", binary.LittleEndian); ok {
		t.Errorf("name behind the event's end = %q, want none", s)
	}
}

func TestParseFormat_Broken(t *testing.T) {
	for name, text := range map[string]string{
		"empty":        "",
		"no size":      "field:int pid; offset:8;",
		"no name":      "field:; offset:8; size:4;",
		"huge offset":  "field:int pid; offset:99999999; size:4;",
		"no number":    "field:int pid; offset:x; size:4;",
		"id not a one": "ID: x\n",
	} {
		if f, err := parseFormat([]byte(text)); err == nil {
			t.Errorf("%s: parseFormat() = %+v, want an error", name, f)
		}
	}
	if _, err := newTraceFormats([]byte("field:int pid; offset:8; size:4;"), nil, binary.LittleEndian); !errors.Is(err, errNoField) {
		t.Errorf("format without common_type = %v, want %v", err, errNoField)
	}
}

// TestDecodeTrace_Codes: what a task can give to a signal for itself is not told
// as the kernel's.
func TestDecodeTrace_Codes(t *testing.T) {
	files := archive(t, "page-6.18.txtar")
	f, err := newTraceFormats([]byte(files["signal_generate"]), []byte(files["mark_victim"]), binary.LittleEndian)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name                      string
		sig, code, sender, result int
		want                      signal.Kill
		fault                     bool
	}{
		{"by another process", 15, 0, 8, 0, signal.Kill{Signal: 15}, false},
		{"the kernel did not keep the sender", 15, -6, 8, loseInfo, signal.Kill{Signal: 15, Code: -6}, false},
		{"by the kernel", 2, 128, 8, 0, signal.Kill{Signal: 2, Code: 128}, false},
		{"by itself, as the kernel", 15, 128, 7, 0, signal.Kill{Signal: 15}, false},
		{"by its own fault", 11, 1, 7, 0, signal.Kill{Signal: 11, Code: 1}, true},
		{"by its own fault, no address", 11, 128, 7, 0, signal.Kill{Signal: 11, Code: 128}, true},
		{"the OOM killer's, by the victim itself", 9, 128, 7, 0, signal.Kill{Signal: 9, Code: 128}, false},
		{"ignored", 15, 0, 8, 1, signal.Kill{Signal: 15, Result: 1}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := make([]byte, 48)
			for at, v := range map[int]int{0: f.kill.id, 4: tt.sender, 8: tt.sig, 16: tt.code, 36: 7, 44: tt.result} {
				binary.LittleEndian.PutUint32(b[at:], uint32(v))
			}
			copy(b[20:], "app")
			tt.want.Target, tt.want.Sender = signal.Task{TID: 7, Comm: "app"}, signal.Task{TID: tt.sender}
			got, err := f.decode(b)
			if diff := cmp.Diff(signal.Body(tt.want), got); diff != "" || err != nil {
				t.Errorf("err %v, signal (-want +got):\n%s", err, diff)
			}
			if k, ok := got.(signal.Kill); !ok || k.IsFault() != tt.fault {
				t.Errorf("a fault: %v, want %v", k.IsFault(), tt.fault)
			}
		})
	}
}

func TestMergeVictim(t *testing.T) {
	in := func(path string) signal.Cgroup { return signal.Cgroup{Path: path} }
	event := signal.Task{TID: 9, Comm: "x"}
	for _, tt := range []struct {
		name                string
		looked, known, want signal.Task
	}{
		{
			"there", signal.Task{PID: 7, Comm: "x", Cgroup: in("/a")}, signal.Task{},
			signal.Task{PID: 7, TID: 9, Comm: "x", Cgroup: in("/a")},
		},
		{"gone", signal.Task{}, signal.Task{}, signal.Task{PID: 9, TID: 9, Comm: "x"}},
		{
			"gone since its kill", signal.Task{}, signal.Task{PID: 7, Cgroup: in("/a")},
			signal.Task{PID: 7, TID: 9, Comm: "x", Cgroup: in("/a")},
		},
		{
			"left its cgroup since its kill", signal.Task{PID: 7, Comm: "x"}, signal.Task{PID: 7, Cgroup: in("/a")},
			signal.Task{PID: 7, TID: 9, Comm: "x", Cgroup: in("/a")},
		},
		{
			"left its parent since its kill", signal.Task{PID: 7, Comm: "x"}, signal.Task{PID: 7, Init: ptr(true)},
			signal.Task{PID: 7, TID: 9, Comm: "x", Init: ptr(true)},
		},
		{
			"another has its id", signal.Task{PID: 9, Comm: "y", Cgroup: in("/b")}, signal.Task{},
			signal.Task{PID: 9, TID: 9, Comm: "x"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, mergeVictim(event, tt.looked, tt.known)); diff != "" {
				t.Errorf("task (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRun_SaysWhyNot(t *testing.T) {
	var got []signal.Signal
	err := New(Options{Mode: "x"}).Run(context.Background(), func(s signal.Signal) { got = append(got, s) })
	if err == nil || !strings.Contains(err.Error(), `mode "x"`) {
		t.Fatalf("Run() = %v, want an error that names the mode", err)
	}
	want := signal.SourceState{Reason: err.Error()}
	if len(got) != 1 || got[0].Body != want {
		t.Errorf("signals = %+v, want %+v", got, want)
	}
}
