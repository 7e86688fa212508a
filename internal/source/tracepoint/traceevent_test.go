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
