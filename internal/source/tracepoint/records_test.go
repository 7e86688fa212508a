// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/coroner-dev/coroner/internal/signal"
)

// The incidents are part of the binary: it also runs alone, in a machine with
// another kernel.
//
//go:embed testdata/*.txtar
var incidents embed.FS

// archive returns the files of one of testdata's incidents; hexadecimal
// lines, one a record, are read by hexLines.
func archive(t testing.TB, name string) map[string]string {
	t.Helper()
	b, err := incidents.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for _, f := range txtar.Parse(b).Files {
		files[f.Name] = string(f.Data)
	}
	return files
}

func hexLines(t testing.TB, s string) [][]byte {
	t.Helper()
	var all [][]byte
	for line := range strings.Lines(s) {
		b, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// testDecoder is of the machine that the recorded incidents are from.
func testDecoder() *decoder {
	d := newDecoder(nil)
	d.order, d.pageSize = binary.LittleEndian, 4096
	return d
}

func ptr[T any](v T) *T { return &v }

func TestDecode_Recorded(t *testing.T) {
	d := testDecoder()
	var got []signal.Body
	var at []uint64
	for _, raw := range hexLines(t, archive(t, "ring-6.18-v1.txtar")["ring"]) {
		body, ns, err := d.decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, ns)
		if body != nil {
			got = append(got, body)
		}
	}
	for i := 1; i < len(at); i++ {
		if at[i] < at[i-1] {
			t.Errorf("record %d is older than the one before", i)
		}
	}
	const cgroup = "/coroner-test-tp-5285/x=1,task_memcg="
	victim := signal.Task{
		PID: 5305, TID: 5305, Comm: "a) b,pid=1,uid", UID: ptr(int64(0)), Init: ptr(false),
		Cgroup: signal.Cgroup{ID: 13425496, Path: cgroup}, PIDNS: signal.InitialPIDNS, MM: d.opaque(0xffff8882531eb200),
	}
	want := []signal.Body{
		signal.Kill{Target: victim, Sender: victim, Signal: 9, Code: signal.CodeKernel},
		signal.MarkVictim{
			Victim: victim, Trigger: victim,
			Figures: signal.Figures{
				TotalVMBytes: ptr(int64(0x4f418 * 4096)), AnonRSSBytes: ptr(int64(0x2100 * 4096)),
				FileRSSBytes: ptr(int64(0x54b * 4096)), ShmemRSSBytes: ptr(int64(0)),
				PgtablesBytes: ptr(int64(0x29000)), OOMScoreAdj: ptr(0),
			},
			Chain: []signal.Level{
				{Cgroup: signal.Cgroup{ID: 13425496, Path: cgroup}, LimitBytes: ptr(int64(32 << 20)), UsageBytes: ptr(int64(32 << 20))},
				{Cgroup: signal.Cgroup{ID: 13425463, Path: "/coroner-test-tp-5285"}, UsageBytes: ptr(int64(0x2040 * 4096))},
				{Cgroup: signal.Cgroup{ID: 1, Path: "/"}},
			},
		},
		signal.Exit{Task: victim, Signal: ptr(9)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("signals (-want +got):\n%s", diff)
	}
}

// ringRecord makes a record by hand, for what no recorded one shows.
func ringRecord(kind uint32, size int) []byte {
	b := make([]byte, size)
	binary.LittleEndian.PutUint32(b[8:], kind)
	return b
}

func TestDecode_Invocation(t *testing.T) {
	for _, tt := range []struct {
		name       string
		constraint uint32
		memcg      uint64
		want       signal.OOMInvocation
	}{
		{"machine-wide", 0, 0, signal.OOMInvocation{Constraint: "CONSTRAINT_NONE"}},
		{"numa", 1, 0, signal.OOMInvocation{Constraint: "CONSTRAINT_CPUSET"}},
		{"cgroup", 3, 7, signal.OOMInvocation{Constraint: "CONSTRAINT_MEMCG", OOMMemcg: signal.Cgroup{ID: 7}}},
		{"of a later kernel", 99, 7, signal.OOMInvocation{OOMMemcg: signal.Cgroup{ID: 7}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := ringRecord(kindInvocation, callSize)
			binary.LittleEndian.PutUint64(b[headerSize+2*taskSize:], tt.memcg)
			binary.LittleEndian.PutUint32(b[headerSize+2*taskSize+8:], tt.constraint)
			got, _, err := testDecoder().decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(signal.Body(tt.want), got); diff != "" {
				t.Errorf("invocation (-want +got):\n%s", diff)
			}
		})
	}
}

func TestInitOf(t *testing.T) {
	for _, tt := range []struct {
		name          string
		level, parent uint16
		nr            uint32
		want          *bool
	}{
		{"initial namespace", 0, placeOtherCgroup, 1, ptr(false)},
		{"a container's first", 1, placeOtherCgroup, 1, ptr(true)},
		{"another of the container", 1, placeOtherCgroup, 7, ptr(false)},
		{"first of a namespace in the container", 2, placeSameCgroup, 1, ptr(false)},
		{"first of a container in the container", 2, placeOtherCgroup, 1, ptr(true)},
		{"parent not known", 1, 0, 1, nil},
		{"parent not known, nor needed", 1, 0, 7, ptr(false)},
		{"id not known", 0, placeOtherCgroup, 0, nil},
	} {
		if diff := cmp.Diff(tt.want, initOf(tt.level, tt.parent, tt.nr)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestDecode_AbsentFigures(t *testing.T) {
	b := ringRecord(kindMark, markSize)
	figures := b[headerSize+2*taskSize:]
	for i := range 5 {
		binary.LittleEndian.PutUint64(figures[8*i:], 1<<63)
	}
	binary.LittleEndian.PutUint64(figures[8:], math.MaxUint64) // -1: a counter that lags
	binary.LittleEndian.PutUint32(figures[40:], ^uint32(32767))
	binary.LittleEndian.PutUint32(b[headerSize+20:], 4711)
	got, _, err := testDecoder().decode(b)
	want := signal.MarkVictim{Victim: signal.Task{TID: 4711}, Figures: signal.Figures{FileRSSBytes: ptr(int64(0))}}
	if diff := cmp.Diff(signal.Body(want), got); diff != "" || err != nil {
		t.Errorf("mark (-want +got), err %v:\n%s", err, diff)
	}
}

func TestDecode_OtherExits(t *testing.T) {
	for status, want := range map[uint32]signal.Exit{
		0:         {Code: ptr(0)},
		3 << 8:    {Code: ptr(3)},
		9:         {Signal: ptr(9)},
		11 | 0x80: {Signal: ptr(11)}, // with a core dump
		255 << 8:  {Code: ptr(255)},
	} {
		if diff := cmp.Diff(want, exitOf(signal.Task{}, status)); diff != "" {
			t.Errorf("status %#x (-want +got):\n%s", status, diff)
		}
	}
}

func TestDecode_Broken(t *testing.T) {
	whole := hexLines(t, archive(t, "ring-6.18-v1.txtar")["ring"])
	for _, raw := range whole {
		for n := range len(raw) {
			body, _, err := testDecoder().decode(raw[:n])
			if _, mark := body.(signal.MarkVictim); err == nil && !mark { // a mark may have fewer levels
				t.Errorf("kind %d cut to %d of %d bytes = %+v, want an error", raw[8], n, len(raw), body)
			}
		}
	}
	if _, _, err := testDecoder().decode(ringRecord(77, 500)); !errors.Is(err, errKind) {
		t.Errorf("unknown kind = %v, want %v", err, errKind)
	}
}

func TestDecode_DeepPathIsNotGuessed(t *testing.T) {
	d := testDecoder()
	b := append(ringRecord(kindPath, pathSize), "x\x00"...)
	binary.LittleEndian.PutUint64(b[headerSize:], 7)
	binary.LittleEndian.PutUint32(b[headerSize+8:], 1)
	binary.LittleEndian.PutUint32(b[headerSize+12:], 2)
	if _, _, err := d.decode(b); err != nil || d.paths.get(7) != "/x" {
		t.Fatalf("path = %q, %v; want /x", d.paths.get(7), err)
	}
	binary.LittleEndian.PutUint32(b[headerSize+16:], 1)
	if _, _, err := d.decode(b); err != nil || d.paths.get(7) != "" {
		t.Errorf("path that is cut = %q, %v; want none", d.paths.get(7), err)
	}
}

func TestOpaque(t *testing.T) {
	a, b := testDecoder(), testDecoder()
	const addr = 0xffff88810aad5140
	if a.opaque(0) != 0 || a.opaque(addr) == 0 || a.opaque(addr) == a.opaque(addr+64) {
		t.Error("opaque does not tell addresses apart as it should")
	}
	if a.opaque(addr) == b.opaque(addr) {
		t.Error("two decoders have the same key")
	}
}

func FuzzDecode(f *testing.F) {
	for _, raw := range hexLines(f, archive(f, "ring-6.18-v1.txtar")["ring"]) {
		f.Add(raw)
	}
	f.Add(ringRecord(kindInvocation, callSize))
	d := testDecoder()
	f.Fuzz(func(t *testing.T, raw []byte) {
		body, _, err := d.decode(raw)
		if err != nil && body != nil {
			t.Errorf("body %+v and error %v", body, err)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	d := testDecoder()
	all := hexLines(b, archive(b, "ring-6.18-v1.txtar")["ring"])
	for _, r := range []struct {
		name string
		raw  []byte
	}{{"path", all[0]}, {"kill", all[1]}, {"mark", all[2]}, {"exit", all[3]}} {
		b.Run(r.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(r.raw)))
			for b.Loop() {
				if _, _, err := d.decode(r.raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
