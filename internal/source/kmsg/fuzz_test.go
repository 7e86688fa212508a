// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/signal"
)

// FuzzReadFile reads foreign copies of a log: the figures add up, no kill is
// told that no line was, and a packed copy tells the same.
func FuzzReadFile(f *testing.F) {
	logs, err := filepath.Glob("../../parse/oomreport/testdata/kmsg/*.kmsg")
	if err != nil || len(logs) == 0 {
		f.Fatalf("no logs: %v", err)
	}
	for _, name := range logs[:min(3, len(logs))] {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text[:min(len(text), 4<<10)])
	}
	f.Add([]byte("[    7.5] Memory cgroup out of memory: Killed process 7 (x) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0\n"))
	f.Add([]byte("\x1f\x8b\x08\x00"))
	f.Add([]byte("\x00\x01\n"))
	read := func(file []byte) (all []signal.Signal, s Stats, err error) {
		opt := FileOptions{Now: time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC), BootID: "b"}
		s, err = ReadFile(bytes.NewReader(file), opt, func(s signal.Signal) { all = append(all, s) })
		return all, s, err
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		all, stats, err := read(file)
		packed := bytes.HasPrefix(file, []byte("\x1f\x8b"))
		if stats.Records+stats.Foreign > stats.Lines || stats.Kills > stats.Records || stats.Framed > stats.Lines || stats.Cut > stats.Lines ||
			stats.Bytes > int64(len(file)) || !packed && stats.Lines > uint64(bytes.Count(file, []byte("\n"))+1) {
			t.Errorf("%+v of %d bytes", stats, len(file))
		}
		kills := uint64(0)
		for _, s := range all {
			if k, ok := s.Body.(signal.ReportedKill); ok && !k.Again {
				kills++
			}
		}
		if kills != stats.Kills {
			t.Errorf("%d kills told, %d counted", kills, stats.Kills)
		}
		if err != nil || packed {
			return
		}
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := w.Write(file); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		again, more, err := read(b.Bytes())
		more.Bytes = stats.Bytes
		if diff := cmp.Diff(all, again); diff != "" || err != nil || cmp.Diff(stats, more) != "" {
			t.Errorf("packed: %v, %+v, want %+v (-plain +packed):\n%s", err, more, stats, diff)
		}
	})
}
