// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest/verdict"
	"github.com/coroner-dev/coroner/internal/signal"
)

// history is n seconds of a container that grows by a MiB each second.
func history(path string, n int, end time.Time) signal.MemoryHistory {
	h := signal.MemoryHistory{Cgroup: signal.Cgroup{Path: path}, LimitBytes: ptr(40 * mib), PeakBytes: ptr(40 * mib)}
	for i := range n {
		used := int64(i+1) * 39 * mib / int64(n)
		h.Samples = append(h.Samples, [3]int64{end.Unix() - int64(n-1-i), used, used + mib})
	}
	h.Last = &signal.MemoryReading{ShmemBytes: ptr(8 * mib)}
	return h
}

// TestMemory_AskedOnce: the memory before a death is asked for once, a moment
// after it, and is in the death then.
func TestMemory_AskedOnce(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	v := task(100, "app", webPath, true)
	for _, s := range dockers(sc, "tracepoint") {
		q.Feed(s)
	}
	for _, b := range oomKill(v, v, level(webPath, 40*mib, 40*mib)) {
		q.Feed(sc.sig("tracepoint", b))
	}
	first := only(t, q.Take())
	if w := q.TakeWants(); len(w) != 0 || first.Memory == nil || len(first.Memory.Samples) != 0 {
		t.Fatalf("asked at once: %+v, memory %+v", w, first.Memory)
	}
	q.Tick(q.now.Add(250 * time.Millisecond))
	wants := q.TakeWants()
	if len(wants) != 1 || wants[0].Kind != WantMemory || wants[0].Cgroup != webPath {
		t.Fatalf("wants %+v", wants)
	}
	q.Feed(sc.sig("cgroup", history(webPath, 200, first.Time)))
	d := only(t, q.Take())
	m := d.Memory
	if m == nil || len(m.Samples) != 2*recentPoints || *m.PeakBytes != 40*mib || *m.LimitBytes != 40*mib || d.Revision != 2 {
		t.Fatalf("revision %d, memory %+v", d.Revision, m)
	}
	if last := m.Samples[len(m.Samples)-1]; last[1] != float64(39*mib) {
		t.Errorf("the last sample is %v", last)
	}
	q.Tick(q.now.Add(time.Second))
	if w := q.TakeWants(); len(w) != 0 {
		t.Errorf("asked again: %+v", w)
	}
	// What nobody asked for changes nothing.
	q.Feed(sc.sig("cgroup", history(webPath, 3, first.Time)))
	if ds := q.Take(); len(ds) != 0 || q.Stats().Late != 1 {
		t.Errorf("late answer: %d deaths, %d late", len(ds), q.Stats().Late)
	}
}

// TestMemory_OneCurveForMany: of many kills in one container one tells the
// curve; each tells limit and peak.
func TestMemory_OneCurveForMany(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	for _, s := range dockers(sc, "tracepoint") {
		q.Feed(s)
	}
	last := map[string]death.Death{}
	for i := range 20 {
		sc.n += 400
		v := task(200+i, "worker", webPath, false)
		for _, b := range oomKill(v, v, level(webPath, 40*mib, 40*mib)) {
			q.Feed(sc.sig("tracepoint", b))
		}
		q.Tick(q.now.Add(300 * time.Millisecond))
		for _, d := range q.Take() {
			last[d.ID] = d
		}
		q.Tick(q.now)
		for range q.TakeWants() {
			q.Feed(sc.sig("cgroup", history(webPath, 30, q.now)))
		}
		for _, d := range q.Take() {
			last[d.ID] = d
		}
	}
	curves := 0
	for _, d := range last {
		if d.Memory == nil || d.Memory.PeakBytes == nil {
			t.Errorf("no peak in %s", d.ID)
			continue
		}
		if len(d.Memory.Samples) > 0 {
			curves++
		}
	}
	if len(last) != 20 || curves != 1 {
		t.Errorf("%d deaths with %d curves, want 20 with 1", len(last), curves)
	}
}

// TestMemory_PeakBetweenSamples: what grew between two samples is in the
// kernel's peak, which counts unless the page cache filled it up to the limit.
func TestMemory_PeakBetweenSamples(t *testing.T) {
	limit := ptr(40 * mib)
	for name, tc := range map[string]struct {
		kernel, want    int64
		read, container *int64
	}{
		"between":                  {30 * mib, 30 * mib, limit, nil},
		"page cache":               {40 * mib, 3 * mib, limit, nil},
		"not told":                 {0, 3 * mib, limit, nil},
		"limit not yet set":        {30 * mib, 30 * mib, nil, limit}, // when the recorder read it
		"cache, limit not yet set": {40 * mib, 3 * mib, nil, limit},
		"no limit":                 {30 * mib, 3 * mib, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := signal.MemoryHistory{LimitBytes: tc.read, Samples: [][3]int64{{1, mib, mib}, {2, 3 * mib, 4 * mib}}}
			if tc.kernel > 0 {
				h.PeakBytes = &tc.kernel
			}
			c := &caseFile{container: &death.Container{}}
			c.memory = New(Options{}).remember(c, &h)
			f := verdict.Facts{ContainerLimit: tc.container}
			if c.memoryFacts(&f); f.PeakBytes == nil || *f.PeakBytes != tc.want {
				t.Errorf("peak %v, want %d", f.PeakBytes, tc.want)
			}
		})
	}
}

// TestMemory_PeakAtTheKill: the kernel's usage at the kill counts where the
// recorder had read last before it, and what nobody knows is not told as 0.
func TestMemory_PeakAtTheKill(t *testing.T) {
	for name, read := range map[string]*int64{"before it ran": new(int64), "before it grew": ptr(2 * mib), "not at all": nil} {
		t.Run(name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			v := task(100, "app", webPath, false)
			for _, s := range dockers(sc, "tracepoint") {
				q.Feed(s)
			}
			for _, b := range oomKill(v, v, level(webPath, 40*mib, 40*mib)) {
				q.Feed(sc.sig("tracepoint", b))
			}
			d := only(t, q.Take())
			q.Tick(q.now.Add(250 * time.Millisecond))
			q.TakeWants()
			q.Feed(sc.sig("cgroup", signal.MemoryHistory{Cgroup: signal.Cgroup{Path: webPath}, LimitBytes: ptr(40 * mib), PeakBytes: read}))
			for _, d = range q.Take() {
				continue // the last revision
			}
			if m := d.Memory; m == nil || m.PeakBytes == nil || *m.PeakBytes != 40*mib {
				t.Errorf("memory %+v, want a peak of 40 MiB", m)
			}
		})
	}
	q := New(Options{})
	if m := q.remember(&caseFile{container: &death.Container{}}, &signal.MemoryHistory{PeakBytes: new(int64)}); m.PeakBytes != nil {
		t.Errorf("a peak of %d, read before anything ran", *m.PeakBytes)
	}
}

// TestMemory_LeakIsAdvised: the advice goes by the shape of the curve, with its
// figures.
func TestMemory_LeakIsAdvised(t *testing.T) {
	for _, tc := range []struct {
		name  string
		curve func(second int64) int64
		leaks bool
	}{
		{"leak", func(s int64) int64 { return 6*mib + s*mib }, true},
		{"spike", func(s int64) int64 { return 6*mib + s/88*90*mib }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			v := task(100, "app", webPath, true)
			for _, s := range dockers(sc, "tracepoint") {
				q.Feed(s)
			}
			for _, b := range oomKill(v, v, level(webPath, 96*mib, 96*mib)) {
				q.Feed(sc.sig("tracepoint", b))
			}
			first := only(t, q.Take())
			q.Tick(q.now.Add(250 * time.Millisecond))
			q.TakeWants()
			h := signal.MemoryHistory{Cgroup: signal.Cgroup{Path: webPath}, LimitBytes: ptr(96 * mib)}
			for s := range int64(91) {
				h.Samples = append(h.Samples, [3]int64{first.Time.Unix() - 90 + s, tc.curve(s), tc.curve(s)})
			}
			q.Feed(sc.sig("cgroup", h))
			d := only(t, q.Take())
			const says = "Its memory grew steadily by 1 MiB/s over 90 s: look for a leak. A limit of 120 MiB instead of 96 MiB would last about 24 s longer."
			if d.Memory.Pattern != tc.name || (d.Advice[0] == says) != tc.leaks {
				t.Errorf("pattern %s, advice %q", d.Memory.Pattern, d.Advice)
			}
		})
	}
}

// TestMemory_OfTheEndAskedAbout: the recorder knew nothing of a run that was over
// at once, nor is an answer of now about a death from before.
func TestMemory_OfTheEndAskedAbout(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		l := begun(t, "docker", "cgroup", "tracepoint")
		end := func(pid int) {
			r := webRun{pid: pid, code: 1, ended: l.now.Add(time.Second)}
			l.say("cgroup", l.now, seen(uint64(pid), webPath, 40*mib, pid))
			for _, src := range []death.Source{"tracepoint", "docker"} {
				at, b := r.says(src)
				l.say(src, at, b)
			}
		}
		end(100)
		l.pass(500 * time.Millisecond)
		l.q.TakeWants() // and nobody knows
		if restarted {
			l.restart("docker", "cgroup", "tracepoint")
		}
		end(101)
		l.pass(500 * time.Millisecond)
		for _, w := range l.q.TakeWants() {
			if w.Kind == WantMemory {
				l.say("cgroup", w.At, history(webPath, 30, w.At))
			}
		}
		l.pass(40 * time.Second)
		if len(l.deaths) != 2 || l.deaths[0].Memory != nil && l.deaths[0].Memory.PeakBytes != nil || l.deaths[1].Memory == nil || l.deaths[1].Memory.PeakBytes == nil {
			t.Errorf("restarted %v: memory of the wrong one:\n%s", restarted, sketch(l.deaths))
		}
	}
}
