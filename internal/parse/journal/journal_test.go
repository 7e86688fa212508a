// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// real is the journal of a Debian 12 in which earlyoom and systemd-oomd killed
// (systemd 252, compact, zstd), with the zeros after its end.
func real(t testing.TB) []byte {
	t.Helper()
	f, err := os.Open("testdata/bookworm-252.journal.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func all(b []byte, fields ...string) ([]Entry, error) {
	f, err := Open(bytes.NewReader(b), fields...)
	if err != nil {
		return nil, err
	}
	var out []Entry
	for e, err := range f.Back() {
		if err != nil {
			return out, err
		}
		out = append(out, e)
	}
	return out, nil
}

// TestBack_Real: all entries that the header counts come, newest first, and the
// lines are those that journalctl showed.
func TestBack_Real(t *testing.T) {
	b := real(t)
	es, err := all(b, "MESSAGE", "_SYSTEMD_UNIT", "_PID")
	if err != nil {
		t.Fatal(err)
	}
	if n := binary.LittleEndian.Uint64(b[entriesAt:]); uint64(len(es)) != n || n < 500 {
		t.Errorf("%d entries, the header says %d", len(es), n)
	}
	told := map[string][]string{}
	for i, e := range es {
		if i > 0 && e.Time.After(es[i-1].Time) {
			t.Errorf("entry %d of %v stands before one of %v", i, e.Time, es[i-1].Time)
		}
		if u := e.Fields["_SYSTEMD_UNIT"]; e.Fields["MESSAGE"] != "" {
			told[u] = append(told[u], e.Fields["_PID"]+": "+e.Fields["MESSAGE"])
		}
	}
	for _, want := range [][2]string{
		{"earlyoom.service", `165: sending SIGTERM to process 172 uid 0 "coroner": badness 1124, VmRSS 181 MiB`},
		{"systemd-oomd.service", "219: Killed /victims.slice/docker-4f1c9a5e7b2d3f1c9a5e7b2d3f1c9a5e7b2d3f1c9a5e7b2d3f1c9a5e7b2d3f1c.scope due to memory pressure for /victims.slice being 17.93% > 2.00% for > 1s with reclaim activity"},
	} {
		if n := strings.Count(strings.Join(told[want[0]], "\n")+"\n", want[1]+"\n"); n != 1 {
			t.Errorf("%s: %d times %q in\n%s", want[0], n, want[1], strings.Join(told[want[0]], "\n"))
		}
	}
}

// written makes a journal in the form before systemd 252: places of 8 bytes, and
// lists of entries that follow each other.
type written struct{ bytes.Buffer }

func (w *written) object(kind, flags byte, head []uint64, payload []byte) uint64 {
	for w.Len()%8 != 0 {
		w.WriteByte(0)
	}
	at := w.Len()
	w.Write([]byte{kind, flags, 0, 0, 0, 0, 0, 0})
	w.u64(uint64(objectSize + 8*len(head) + len(payload)))
	for _, v := range head {
		w.u64(v)
	}
	w.Write(payload)
	return uint64(at)
}

func (w *written) u64(v uint64) { _ = binary.Write(w, binary.LittleEndian, v) }

func plain(at time.Time) []byte {
	w := &written{}
	w.Write(append([]byte("LPKSHHRH"), make([]byte, headerSize-8)...))
	unit := w.object(kindData, 0, make([]uint64, 6), []byte("_SYSTEMD_UNIT=earlyoom.service"))
	var places []uint64
	for i, text := range []string{"one", "two", "three"} {
		said := w.object(kindData, byte(i/2*4), make([]uint64, 6), []byte("MESSAGE="+text)) // the third is packed
		head := []uint64{uint64(i), uint64(at.Add(time.Duration(i) * time.Second).UnixMicro()), 0, 1, 2, 0, unit, 0, said, 0}
		places = append(places, w.object(kindEntry, 0, head, nil))
	}
	for w.Len()%8 != 0 {
		w.WriteByte(0)
	}
	first := uint64(w.Len())
	const size = objectSize + 3*8 // a list stands before the one that follows it
	w.object(kindArray, 0, []uint64{first + size, places[0], places[1]}, nil)
	w.object(kindArray, 0, []uint64{0, places[2], 0, 0}, nil)
	out := w.Bytes()
	binary.LittleEndian.PutUint64(out[entriesAt:], 3)
	binary.LittleEndian.PutUint64(out[arrayAt:], first)
	return out
}

func TestBack_Plain(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	es, err := all(plain(at), "MESSAGE")
	if err != nil || len(es) != 3 {
		t.Fatalf("%d entries, %v", len(es), err)
	}
	if !es[0].Packed || es[0].Fields["MESSAGE"] != "" || es[1].Fields["MESSAGE"] != "two" || es[2].Fields["MESSAGE"] != "one" {
		t.Errorf("entries %+v", es)
	}
	if _, asked := es[1].Fields["_SYSTEMD_UNIT"]; asked || !es[2].Time.Equal(at) || es[2].BootID != "01000000000000000200000000000000" {
		t.Errorf("entry %+v", es[2])
	}
}

func TestOpen_Refuses(t *testing.T) {
	good := plain(time.Now())
	for name, tc := range map[string]struct {
		spoil func(b []byte) []byte
		want  error
	}{
		"short":             {func(b []byte) []byte { return b[:100] }, io.EOF},
		"another signature": {func(b []byte) []byte { b[0]++; return b }, errSignature},
		"unknown flags":     {func(b []byte) []byte { b[flagsAt] = 1 << 5; return b }, errFlags},
		"no list":           {func(b []byte) []byte { binary.LittleEndian.PutUint64(b[arrayAt:], headerSize); return b }, errObject},
		"beyond the end":    {func(b []byte) []byte { binary.LittleEndian.PutUint64(b[arrayAt:], 1<<40); return b }, io.EOF},
		"beyond all":        {func(b []byte) []byte { binary.LittleEndian.PutUint64(b[arrayAt:], 1<<63); return b }, errObject},
		"a list that follows itself": {func(b []byte) []byte {
			first := binary.LittleEndian.Uint64(b[arrayAt:])
			binary.LittleEndian.PutUint64(b[first+objectSize:], first)
			return b
		}, errObject},
	} {
		t.Run(name, func(t *testing.T) {
			if es, err := all(tc.spoil(bytes.Clone(good)), "MESSAGE"); !errors.Is(err, tc.want) {
				t.Errorf("%d entries, error %v; want %v", len(es), err, tc.want)
			}
		})
	}
}

// FuzzBack: nothing that a file holds makes it fail otherwise than by an error,
// or read for ever.
func FuzzBack(f *testing.F) {
	f.Add(plain(time.Unix(1, 0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		j, err := Open(bytes.NewReader(b), "MESSAGE")
		if err != nil {
			return
		}
		n := 0
		for e, err := range j.Back() {
			if n++; err == nil && len(e.Fields) > 1 || n > 1<<16 {
				t.Fatalf("%d entries, the last %+v", n, e)
			}
			if n > 1000 {
				return
			}
		}
	})
}
