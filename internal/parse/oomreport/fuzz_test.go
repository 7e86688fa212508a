// SPDX-License-Identifier: Apache-2.0

package oomreport

import (
	"bytes"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/parse/kernlog"
)

// FuzzParser feeds arbitrary logs: there is no panic, the same log gives the
// same events, and every event keeps within its bounds.
func FuzzParser(f *testing.F) {
	for _, pattern := range []string{"testdata/kmsg-public/*.log", "testdata/kmsg/*odd-comm*.kmsg", "testdata/kmsg/*path*.kmsg", "testdata/kmsg/*group*.kmsg"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			f.Fatalf("%s: %d files, %v", pattern, len(names), err)
		}
		for _, name := range names {
			f.Add(readFile(f, name))
		}
	}
	f.Fuzz(func(t *testing.T, log []byte) {
		run := func() ([]Event, *Parser) {
			var l kernlog.Lines
			p := &Parser{}
			var events []Event
			for i, line := range bytes.Split(log, []byte{'\n'}) {
				if rec, ok := l.Feed(line); ok {
					events = p.Feed(events, rec)
				}
				if i%97 == 96 {
					events = p.Gap(events)
				}
			}
			return p.Flush(events), p
		}
		events, p := run()
		again, _ := run()
		if !reflect.DeepEqual(events, again) {
			t.Errorf("the same log, other events:\n%s", cmp.Diff(events, again))
		}
		if len(p.free) > maxReports || len(p.held.line.text) > maxHeld {
			t.Errorf("%d reports, %d bytes held", len(p.free), len(p.held.line.text))
		}
		for _, e := range events {
			checkBounds(t, e)
		}
	})
}

func checkBounds(t *testing.T, e Event) {
	t.Helper()
	switch e := e.(type) {
	case *Kill:
		if e.PID <= 0 || e.ReportID == 0 || len(e.Comm) > maxComm || len(e.Text) > maxText || len(e.TaskMemcg) > maxHeld {
			t.Errorf("out of bounds: %+v", e)
		}
		if e.TaskMemcg != "" && e.Report == nil {
			t.Errorf("a cgroup without a report: %+v", e)
		}
		if r := e.Report; r != nil && (len(r.Tasks) > maxTasks || len(r.MemoryStat) > maxStats || len(r.TriggerComm) > maxComm || len(r.OOMMemcg) > maxHeld) {
			t.Errorf("report out of bounds: %+v", r)
		}
	case *Group:
		if len(e.Cgroup) > maxHeld || e.ReportID == 0 {
			t.Errorf("out of bounds: %+v", e)
		}
	case *Note:
		if len(e.Text) > maxText || e.PID < 0 || e.Count < 0 {
			t.Errorf("out of bounds: %+v", e)
		}
	}
}

// A log of nothing but hostile lines must not make the parser grow.
func TestParser_HoldsLittle(t *testing.T) {
	var p Parser
	var dst []Event
	rec := raw(1, "-", "")
	say := func(s string) {
		rec.Text = []byte(s)
		dst = p.Feed(dst[:0], rec)
	}
	for i := range 20 {
		say(invokedBy("a"))
		say(header)
		for j := range 5000 {
			say(rowOf(i*5000+j+1, "fifteen-bytes-x"))
		}
		say("Memory cgroup stats for /" + strings.Repeat("x", 4000) + ":")
		say(summaryOf("/"+strings.Repeat("a", 4000), "/"+strings.Repeat("a", 4000), "x", i+1))
		say("end")
	}
	dst = nil
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 24<<20 {
		t.Errorf("got %d MiB on the heap, want less than 24", m.HeapAlloc>>20)
	}
	runtime.KeepAlive(&p)
}

func BenchmarkParser_NoReport(b *testing.B) {
	var recs []kernlog.Record
	size := 0
	for _, text := range []string{
		"usb 1-1: new high-speed USB device number 2 using xhci_hcd",
		"audit: type=1400 audit(1715266358.500:77): apparmor=\"ALLOWED\" operation=\"open\" profile=\"x\" name=\"/proc/1/status\" pid=77 comm=\"y\"",
		"IPv6: ADDRCONF(NETDEV_CHANGE): veth1a2b3c4d: link becomes ready",
		"cni0: port 3(veth1a2b3c4d) entered blocking state",
		"device veth1a2b3c4d entered promiscuous mode",
		"EXT4-fs (sda1): mounted filesystem with ordered data mode. Opts: (null). Quota mode: none.",
		"Memory: 2048000K/2097152K available (14345K kernel code, 2381K rwdata, 8884K rodata, 2716K init)",
		"Output of something that begins like a kill line but is none, and goes on for a while",
	} {
		recs = append(recs, kernlog.Record{Level: 6, Text: []byte(text)})
		size += len(text)
	}
	var p Parser
	var dst []Event
	b.ReportAllocs()
	b.SetBytes(int64(size))
	for b.Loop() {
		for i := range recs {
			dst = p.Feed(dst[:0], recs[i])
		}
	}
	if len(dst) != 0 {
		b.Fatal("events out of nothing")
	}
}

func BenchmarkParser_Report(b *testing.B) {
	for _, name := range []string{"6.1.0.cgv2.container-limit", "6.1.0.cgv1.many-tasks-400"} {
		b.Run(name, func(b *testing.B) {
			log := readFile(b, filepath.Join("testdata", "kmsg", name+".kmsg"))
			var recs []kernlog.Record
			for line := range bytes.Lines(log) {
				if rec, err := kernlog.ParseKmsg(line); err == nil {
					recs = append(recs, rec)
				}
			}
			var p Parser
			var dst []Event
			b.ReportAllocs()
			b.SetBytes(int64(len(log)))
			for b.Loop() {
				for i := range recs {
					dst = p.Feed(dst[:0], recs[i])
				}
			}
		})
	}
}
