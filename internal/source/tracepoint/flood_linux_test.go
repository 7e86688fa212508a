// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/signal"
)

// TestRun_Flood has a process in a container signal the first one as fast as it
// can: few are told, the others counted as what they are, and neither the same
// signal from outside nor an OOM kill is hidden.
func TestRun_Flood(t *testing.T) {
	flood := uint64(2000)
	if testing.Short() { // an emulated processor changes from sender to target some dozen times a second
		flood = 200
	}
	eachMode(t, func(t *testing.T, w *watch, tree group) {
		leaf, oom := tree.child("flooded", 0), tree.child("victim", limit)
		t.Cleanup(leaf.remove)
		t.Cleanup(oom.remove)
		began := time.Now()
		p := start(t, leaf, "parent", "flooded", firstAttr(), innerEnv+"=flood")
		p.word()
		p.word()
		held := func() (n uint64) {
			for _, s := range w.all() {
				if l, ok := s.Body.(signal.Lost); ok {
					if !l.Other {
						t.Fatalf("lost %+v", l)
					}
					n += l.Count
				}
			}
			return n
		}
		poll(t, "the flood is one", func() bool { return held() > flood })
		if w.state.Mode == ModeBPF { // the trace buffer overruns
			var tries []int
			for len(tries) < 3 {
				n := 0
				poll(t, "SIGTERM from outside is told", func() bool {
					p.signal(syscall.SIGTERM) // nothing comes of it while another is pending
					n++
					return len(outsiders(w.heardBy(p))) > len(tries)
				})
				tries = append(tries, n)
			}
			for _, k := range outsiders(w.heardBy(p)) {
				checkOutsider(t, k.Sender)
			}
			t.Logf("told after %d", tries)
			slices.Sort(tries)
			// By chance it is told even if the flood hides it; and if nothing does,
			// one stays pending while the machine does not run its target.
			if tries[1] > 400 {
				t.Errorf("SIGTERM from outside was told after %d were sent", tries)
			}
		}
		v := start(t, oom, "leak", "victim", nil)
		v.word()
		v.end()
		w.mark(v.pid())
		took := time.Since(began)
		p.signal(syscall.SIGKILL)
		p.end()
		told := 0
		for _, k := range w.heardBy(p) {
			if k.Signal == 15 && k.Sender.PID != os.Getpid() {
				told++
			}
		}
		if most := beatMost * (int(took/time.Second) + 2); told > most || told == 0 {
			t.Errorf("%d of the flood were told in %s, want 1 to %d", told, took, most)
		}
		t.Logf("in %s %d were told, %d counted", took, told, held())
	})
}

// outsiders are the signals of this test.
func outsiders(heard []signal.Kill) []signal.Kill {
	return slices.DeleteFunc(heard, func(k signal.Kill) bool { return k.Sender.PID != os.Getpid() })
}

// BenchmarkRun_SignalFlood signals a first process that handles it: what the
// source adds to each kill(2), and how many it tells.
func BenchmarkRun_SignalFlood(b *testing.B) {
	for _, by := range []string{"others", "itself"} {
		for _, mode := range []string{"off", ModeBPF, ModeTracefs} {
			b.Run(by+"/"+mode, func(b *testing.B) {
				needRoot(b)
				w := &watch{}
				if mode != "off" {
					w = newWatch(b, mode)
				}
				leaf := newTree(b).child("flooded", 0)
				b.Cleanup(leaf.remove)
				act := map[string]string{"others": "hear", "itself": "self"}[by]
				p := start(b, leaf, act, "flooded", firstAttr(), fmt.Sprintf("%s=%d", countEnv, b.N))
				p.ready("flooded")
				b.ResetTimer()
				if by == "itself" {
					p.word()
					_ = p.Wait()
				} else {
					for range b.N {
						p.signal(syscall.SIGUSR1)
					}
				}
				b.StopTimer()
				b.ReportMetric(float64(len(w.heardBy(p)))/b.Elapsed().Seconds(), "told/s")
				if by == "others" {
					p.signal(syscall.SIGKILL)
					p.end()
				}
			})
		}
	}
}

// BenchmarkProgram_Signals has the kernel say how long the program for signals
// takes, which is less than what other work on a machine adds to kill(2).
func BenchmarkProgram_Signals(b *testing.B) {
	needRoot(b)
	for _, to := range []struct {
		name string
		attr *syscall.SysProcAttr
		sig  syscall.Signal
	}{
		{"first process", firstAttr(), syscall.SIGUSR1},
		{"another process", nil, syscall.SIGUSR1},
		{"one that ends nothing", firstAttr(), syscall.SIGURG},
	} {
		b.Run(to.name, func(b *testing.B) {
			w, err := openBPF(Options{Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = w.close() }()
			leaf := newTree(b).child("flooded", 0)
			b.Cleanup(leaf.remove)
			p := start(b, leaf, "hear", "flooded", to.attr)
			p.ready("flooded")
			on, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = on.Close() }()
			for b.Loop() {
				p.signal(to.sig)
			}
			stats, err := w.(*bpf).main.Programs[probeProgSignalGenerate].Stats()
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(stats.Runtime.Nanoseconds())/float64(stats.RunCount), "program-ns/signal")
			p.signal(syscall.SIGKILL)
			p.end()
		})
	}
}
