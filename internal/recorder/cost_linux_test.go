// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/oomtest"
)

// boxes makes real cgroups, each with a process of its own in it as long as
// there are not too many, and gives them to a Recorder.
func boxes(b *testing.B, r *Recorder, n, below int) {
	b.Helper()
	tree := oomtest.New(b)
	for i := range n {
		c := tree.Cgroup(fmt.Sprintf("box%d", i))
		for j := range below {
			tree.Cgroup(fmt.Sprintf("box%d/in%d", i, j))
		}
		r.Watch(named(c))
	}
}

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// BenchmarkRecorder is what one reading of one cgroup costs, everything of a
// second in it but the wake-ups: the files, the samples, and the share of
// what comes each ten seconds and each half minute.
func BenchmarkRecorder(b *testing.B) {
	for _, tt := range []struct {
		name  string
		below int
		opt   Options
	}{
		{"kept open", 0, Options{busy: true}}, {"opened each time", 0, Options{busy: true, noKeep: true}},
		{"100 cgroups below", 100, Options{busy: true}}, {"at rest", 0, Options{}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			r := New(tt.opt)
			boxes(b, r, 50, tt.below)
			f, err := openFiles(r.opt.Roots)
			if err != nil {
				b.Fatal(err)
			}
			if tt.opt.noKeep {
				f.keepNone()
			}
			l := &loop{r: r, files: f, slot: -1}
			defer l.close()
			l.tick()
			all := append([]*entry(nil), r.dense...)
			for _, in := range r.slots {
				all = append(all, in...)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				e := all[i%len(all)]
				l.round++
				e.due, e.denseFor = 0, -1
				e.slowAt, e.tenAt = int64(r.now()/time.Second), int64(r.now()/time.Second)
				if i/len(all)%30 == 0 {
					e.slowAt = -1
				}
				if i/len(all)%10 == 0 {
					e.tenAt = -10
				}
				l.serve(e)
			}
			if s := r.Stats(); s.Errors != 0 {
				b.Errorf("%+v", s)
			}
		})
	}
}

// BenchmarkRecorder_CPU runs a Recorder for so many seconds as it is asked to
// (-benchtime 30x) and tells the part of one CPU that this process used.
func BenchmarkRecorder_CPU(b *testing.B) {
	for _, tt := range []struct {
		n    int
		busy bool
	}{{110, true}, {200, true}, {500, true}, {200, false}} {
		b.Run(fmt.Sprintf("%d,busy=%t", tt.n, tt.busy), func(b *testing.B) {
			n := tt.n
			r := New(Options{busy: tt.busy})
			boxes(b, r, n, 0)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error)
			go func() { done <- r.Run(ctx) }()
			<-time.After(3 * time.Second) // the first time is denser
			b.ResetTimer()
			began, used := time.Now(), cpu(b)
			for range b.N {
				<-time.After(time.Second)
			}
			b.ReportMetric(100*float64(cpu(b)-used)/float64(time.Since(began)), "%CPU")
			b.StopTimer()
			cancel()
			if err := <-done; err != nil {
				b.Error(err)
			}
			s := r.Stats()
			b.ReportMetric(float64(s.Seldom), "seldom")
			if s.Recorded != n || s.Errors != 0 {
				b.Errorf("%+v", s)
			}
		})
	}
}

func BenchmarkFigures(b *testing.B) {
	r := New(Options{})
	boxes(b, r, 200, 0)
	run(b, r.Run)
	if err := oomtest.Poll(10*time.Second, func() error {
		if n := len(r.Figures()); n != 200 {
			return fmt.Errorf("%d figures", n)
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r.Figures()
	}
}

func BenchmarkHistory(b *testing.B) {
	r := New(Options{})
	boxes(b, r, 1, 0)
	var e *entry
	for _, one := range r.live {
		e = one
	}
	for s := range int64(4000) {
		e.series.add(s, sampleOf(s, s))
	}
	b.ReportAllocs()
	for b.Loop() {
		r.History(e.cgroup)
	}
}
