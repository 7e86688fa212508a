// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/signal"
)

// recordedPages are the incidents that trace_pipe_raw gave.
var recordedPages = []string{"page-6.18.txtar", "page-5.10.txtar"}

func recorded(t testing.TB, name string) (pageLayout, traceFormats, []byte) {
	t.Helper()
	f := archive(t, name)
	l, err := parseHeaderPage([]byte(f["header_page"]), binary.LittleEndian)
	if err != nil {
		t.Fatal(err)
	}
	e, err := newTraceFormats([]byte(f["signal_generate"]), []byte(f["mark_victim"]), binary.LittleEndian)
	if err != nil {
		t.Fatal(err)
	}
	page := make([]byte, l.size)
	copy(page, hexLines(t, f["page"])[0])
	return l, e, page
}

func TestPage_Recorded(t *testing.T) {
	const comm = "a) b,pid=1,uid"
	for _, tt := range []struct {
		name string
		want []signal.Body
	}{
		{"page-5.10.txtar", []signal.Body{
			signal.Kill{
				Target: signal.Task{TID: 96, Comm: comm}, Sender: signal.Task{TID: 96},
				Signal: 9, Code: signal.CodeKernel,
			},
			signal.MarkVictim{Victim: signal.Task{TID: 96}, Trigger: signal.Task{TID: 96}},
		}},
		{"page-6.18.txtar", []signal.Body{
			signal.Kill{
				Target: signal.Task{TID: 13511, Comm: comm}, Sender: signal.Task{TID: 13514},
				Signal: 9, Code: signal.CodeKernel,
			},
			signal.MarkVictim{
				Victim: signal.Task{TID: 13511, Comm: comm, UID: ptr(int64(0))}, Trigger: signal.Task{TID: 13514},
				Figures: signal.Figures{
					TotalVMBytes: ptr(int64(0x13c818 << 10)), AnonRSSBytes: ptr(int64(0x8300 << 10)),
					FileRSSBytes: ptr(int64(0x10c4 << 10)), ShmemRSSBytes: ptr(int64(0)),
					PgtablesBytes: ptr(int64(0x9c << 10)), OOMScoreAdj: ptr(0),
				},
			},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, f, page := recorded(t, tt.name)
			entries, lost, err := l.parse(page, nil)
			if err != nil || lost != 0 {
				t.Fatalf("parse() = lost %d, %v; want none", lost, err)
			}
			var got []signal.Body
			last := uint64(0)
			for _, e := range entries {
				body, err := f.decode(e.data)
				if err != nil {
					t.Fatal(err)
				}
				if e.ns < last {
					t.Errorf("event at %d after one at %d", e.ns, last)
				}
				last = e.ns
				got = append(got, body)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

// testPage builds a page by hand: 100 is its time, then come words.
func testPage(order binary.ByteOrder, commit uint64, words ...uint32) (pageLayout, []byte) {
	l := pageLayout{
		stamp: field{offset: 0, size: 8}, commit: field{offset: 8, size: 8}, data: 16, size: 16 + 4*len(words), order: order,
	}
	b := make([]byte, l.size)
	order.PutUint64(b, 100)
	order.PutUint64(b[8:], commit)
	for i, w := range words {
		order.PutUint32(b[16+4*i:], w)
	}
	return l, b
}

func TestPage_Entries(t *testing.T) {
	le := func(typ, delta uint32) uint32 { return typ | delta<<5 }
	type event struct {
		NS   uint64
		Size int
	}
	for _, tt := range []struct {
		name   string
		commit uint64
		words  []uint32
		want   []event
		lost   uint64
		bad    bool
	}{
		{name: "empty"},
		{"two", 16, []uint32{le(1, 5), 0, le(1, 7), 0}, []event{{105, 4}, {112, 4}}, 0, false},
		{"length in a word of its own", 16, []uint32{le(0, 1), 12, 0, 0}, []event{{101, 8}}, 0, false},
		{"time goes on", 16, []uint32{le(entryExtend, 3), 2, le(1, 1), 0}, []event{{100 + 3 + 2<<27 + 1, 4}}, 0, false},
		{"absolute time", 16, []uint32{le(entryStamp, 9), 1, le(1, 1), 0}, []event{{9 + 1<<27 + 1, 4}}, 0, false},
		{"an event taken back", 20, []uint32{le(entryPadding, 1), 8, 0, le(1, 1), 0}, []event{{102, 4}}, 0, false},
		{"rest is padding", 16, []uint32{le(1, 1), 0, le(entryPadding, 0), 7}, []event{{101, 4}}, 0, false},
		{"some lost", 8 | missedEvents, []uint32{le(1, 1), 0}, []event{{101, 4}}, 1, false},
		{"seven lost", 8 | missedEvents | missedStored, []uint32{le(1, 1), 0, 7, 0}, []event{{101, 4}}, 7, false},
		{"lost, and no room for the number", 8 | missedEvents | missedStored, []uint32{le(1, 1), 0}, []event{{101, 4}}, 1, false},
		{"more data than page", 4000, []uint32{le(1, 1), 0}, nil, 0, true},
		{"entry over the end", 16, []uint32{le(1, 1), 0, le(5, 1), 0}, []event{{101, 4}}, 0, true},
		{"length under the least", 8, []uint32{le(0, 1), 2}, nil, 0, true},
		{"time cut off", 4, []uint32{le(entryExtend, 1)}, nil, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, b := testPage(binary.LittleEndian, tt.commit, tt.words...)
			entries, lost, err := l.parse(b, nil)
			var got []event
			for _, e := range entries {
				got = append(got, event{e.ns, len(e.data)})
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if lost != tt.lost || (err != nil) != tt.bad {
				t.Errorf("lost = %d, err = %v; want %d, an error: %v", lost, err, tt.lost, tt.bad)
			}
		})
	}
}

func TestPage_BigEndian(t *testing.T) {
	l, b := testPage(binary.BigEndian, 8, 1<<27|5, 0)
	entries, _, err := l.parse(b, nil)
	if err != nil || len(entries) != 1 || entries[0].ns != 105 {
		t.Errorf("parse() = %+v, %v; want one event at 105", entries, err)
	}
}

func FuzzPage(f *testing.F) {
	var layouts []pageLayout
	var formats []traceFormats
	for _, name := range recordedPages {
		l, e, page := recorded(f, name)
		layouts, formats = append(layouts, l), append(formats, e)
		f.Add(page)
	}
	f.Fuzz(func(t *testing.T, page []byte) {
		for i, l := range layouts {
			entries, _, _ := l.parse(page, nil)
			if len(entries) > len(page)/4 {
				t.Errorf("%d events in %d bytes", len(entries), len(page))
			}
			for _, e := range entries {
				if body, err := formats[i].decode(e.data); err != nil && body != nil {
					t.Errorf("body %+v and error %v", body, err)
				}
			}
		}
	})
}

func FuzzParseFormat(f *testing.F) {
	for _, name := range recordedPages {
		for _, text := range archive(f, name) {
			f.Add([]byte(text), []byte("0123456789abcdef0123456789abcdef"))
		}
	}
	f.Fuzz(func(t *testing.T, text, data []byte) {
		e, err := newTraceFormats(text, text, binary.LittleEndian)
		if err == nil {
			_, _ = e.decode(data)
		}
		_, _ = parseHeaderPage(text, binary.LittleEndian)
	})
}

func BenchmarkPage(b *testing.B) {
	l, f, page := recorded(b, "page-6.18.txtar")
	var entries []entry
	b.ReportAllocs()
	for b.Loop() {
		entries, _, _ = l.parse(page, entries[:0])
		for _, e := range entries {
			if _, err := f.decode(e.data); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func TestParseOverrun(t *testing.T) {
	for _, tt := range []struct {
		stats string
		want  uint64
		ok    bool
	}{
		{"entries: 78\noverrun: 468\ncommit overrun: 2\nbytes: 4056\n", 468, true},
		{"entries: 0\noverrun: 0\n", 0, true},
		{"entries: 0\ncommit overrun: 2\n", 0, false},
		{"overrun: 46", 0, false}, // cut
		{"overrun: -1\n", 0, false},
		{"", 0, false},
	} {
		if got, ok := parseOverrun([]byte(tt.stats)); got != tt.want || ok != tt.ok {
			t.Errorf("parseOverrun(%q) = %d, %v; want %d, %v", tt.stats, got, ok, tt.want, tt.ok)
		}
	}
}
