// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest/verdict"
	"github.com/coroner-dev/coroner/internal/signal"
)

const elsewhere = "/batch"

// left is what was found of a web container whose worker lives elsewhere.
func left(pidns uint64, pids ...int) signal.ProcessesEscaped {
	b := signal.ProcessesEscaped{Cgroup: signal.Cgroup{Path: webPath}, PIDNS: pidns, Count: len(pids)}
	for _, pid := range pids {
		b.Examples = append(b.Examples, signal.EscapedProcess{PID: pid, Comm: "worker", Cgroup: elsewhere, HeldBytes: ptr(20 * mib)})
		b.HeldBytes += 20 * mib
	}
	return b
}

func said(d death.Death, text string) int {
	n := 0
	for _, e := range d.Evidence {
		n += strings.Count(e.Text, text)
	}
	return n
}

// TestEscaped_Evidence: who lives outside of a container's cgroup is told with
// its death, whether it was found before or a moment after, as it was found
// then; and no more once they have come back.
func TestEscaped_Evidence(t *testing.T) {
	const line = "2 processes of the container lived outside its cgroup, where its limit of 40 MiB does not hold for them: " +
		"pid 101 (worker) in /batch with 20 MiB, pid 102 (worker) in /batch with 20 MiB; together they held 40 MiB"
	v := task(100, "app", webPath, true)
	kill := oomKill(v, v, level(webPath, 40*mib, 40*mib))
	for name, tc := range map[string]struct {
		before, after []signal.ProcessesEscaped
		want          int
	}{
		"found before":  {[]signal.ProcessesEscaped{left(v.PIDNS, 101, 102)}, nil, 1},
		"found after":   {nil, []signal.ProcessesEscaped{left(v.PIDNS, 101, 102)}, 1},
		"told again":    {[]signal.ProcessesEscaped{left(v.PIDNS, 101), left(v.PIDNS, 101, 102)}, nil, 1},
		"ended with it": {[]signal.ProcessesEscaped{left(v.PIDNS, 101, 102)}, []signal.ProcessesEscaped{left(v.PIDNS)}, 1},
		"came back":     {[]signal.ProcessesEscaped{left(v.PIDNS, 101, 102), left(v.PIDNS)}, nil, 0},
		"none":          {nil, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			in := dockers(sc, "tracepoint")
			for _, b := range tc.before {
				in = append(in, sc.sig("cgroup", b))
			}
			for _, b := range kill {
				in = append(in, sc.sig("tracepoint", b))
			}
			for _, s := range in {
				q.Feed(s)
			}
			last := only(t, q.Take())
			for _, b := range tc.after {
				q.Feed(sc.sig("cgroup", b))
			}
			for _, d := range append(q.Take(), q.Close()...) {
				last = d
			}
			if n := said(last, line); n != tc.want || last.Cause != death.OOMContainerLimit {
				t.Errorf("said %d times, want %d:\n%s", n, tc.want, sketch([]death.Death{last}))
			}
			advised := strings.Contains(strings.Join(last.Advice, "\n"), "2 processes of the container lived outside its cgroup")
			if advised != (tc.want == 1) {
				t.Errorf("advice %q", last.Advice)
			}
		})
	}
}

// TestEscaped_Killed: a process that left its container and is killed by the
// limit under which it lives is told with both, whoever says whose it was.
func TestEscaped_Killed(t *testing.T) {
	v := task(101, "worker", elsewhere, false)
	v.PIDNS = task(100, "app", webPath, true).PIDNS
	kill := oomKill(v, v, level(elsewhere, 64*mib, 64*mib))
	for name, tc := range map[string]struct {
		found  []signal.ProcessesEscaped
		answer *signal.PIDNamespace
		wants  int
		whose  string
	}{
		"found before":              {[]signal.ProcessesEscaped{left(v.PIDNS, 101)}, nil, 0, webID},
		"another, found there":      {[]signal.ProcessesEscaped{left(v.PIDNS, 102)}, nil, 0, webID},
		"asked":                     {nil, &signal.PIDNamespace{PIDNS: v.PIDNS, Cgroup: signal.Cgroup{Path: webPath}}, 1, webID},
		"nobody knows":              {nil, nil, 1, ""},
		"of no container":           {nil, &signal.PIDNamespace{PIDNS: v.PIDNS, Cgroup: signal.Cgroup{Path: "/user.slice"}}, 1, ""},
		"the next in its namespace": {[]signal.ProcessesEscaped{left(v.PIDNS, 102)}, nil, 1, ""},
		"of another namespace":      {[]signal.ProcessesEscaped{left(v.PIDNS+1, 101)}, nil, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			in := append(dockers(sc, "tracepoint"), sc.sig("cgroup", signal.CgroupSeen{Level: level(webPath, 40*mib, -1), InitPID: 100}))
			for _, b := range tc.found {
				in = append(in, sc.sig("cgroup", b))
			}
			if strings.HasPrefix(name, "the next") { // the number is another container's by now
				in = append(in, sc.sig("cgroup", signal.CgroupGone{Cgroup: signal.Cgroup{Path: webPath}}))
			}
			for _, b := range kill {
				in = append(in, sc.sig("tracepoint", b))
			}
			for _, s := range in {
				q.Feed(s)
			}
			last := only(t, q.Take())
			asked := 0
			for _, w := range q.TakeWants() {
				if w.Kind == WantNamespace && w.PIDNS == v.PIDNS {
					asked++
				}
			}
			if tc.answer != nil {
				q.Feed(sc.sig("cgroup", *tc.answer))
			}
			for _, d := range append(q.Take(), q.Close()...) {
				last = d
			}
			whose := ""
			if last.Container != nil {
				whose = last.Container.ID
			}
			if asked != tc.wants || whose != tc.whose || last.Subject != death.SubjectProcess || last.OOM.TaskMemcg != elsewhere || last.Cause != death.OOMAncestorLimit {
				t.Errorf("asked %d times, of %q, want %d and %q:\n%s", asked, whose, tc.wants, tc.whose, sketch([]death.Death{last}))
			}
			const both = "was a process of container web-1, by its pid namespace; it lived outside the container's cgroup, in /batch, where"
			if said(last, both) > 1 || (said(last, both) == 1) != (tc.whose != "") || strings.Contains(last.Summary, "lived outside its cgroup, in /batch") != (tc.whose != "") {
				t.Errorf("%s", sketch([]death.Death{last}))
			}
			// A run after a restart has it so, too.
			next := New(Options{})
			next.Restore(q.now, []death.Death{last})
			next.Tick(q.now.Add(time.Second))
			if c := next.cases[0]; (c.stray != nil) != (tc.whose != "") || c.container != nil {
				t.Errorf("restored in container %+v, of %+v", c.container, c.stray)
			}
		})
	}
}

// TestEscaped_KilledEarly: one that left a container which has only begun is
// killed before the container's first process is found, or an engine names it.
func TestEscaped_KilledEarly(t *testing.T) {
	v := task(101, "worker", elsewhere, false)
	v.PIDNS = task(100, "app", webPath, true).PIDNS
	begun := saying{"cgroup", signal.CgroupSeen{Level: level(webPath, 40*mib, -1)}}
	runs := saying{"cgroup", signal.CgroupSeen{Level: level(webPath, 40*mib, -1), InitPID: 100}}
	named := saying{"docker", webSeen}
	answer := func(since time.Time) saying {
		return saying{"cgroup", signal.PIDNamespace{PIDNS: v.PIDNS, Cgroup: signal.Cgroup{Path: webPath}, Since: since}}
	}
	for name, tc := range map[string]struct {
		before, after []saying
		wants         int
		whose         string
	}{
		"found later":            {[]saying{begun, named}, []saying{runs, answer(epoch)}, 2, "web-1"},
		"told of again":          {[]saying{named, runs}, []saying{runs, runs}, 1, ""},
		"named later":            {[]saying{runs}, []saying{answer(epoch), named}, 1, "web-1"},
		"both later":             {[]saying{begun}, []saying{runs, answer(epoch), named}, 2, "web-1"},
		"answered, then others":  {[]saying{named, runs}, []saying{answer(epoch), {"cgroup", signal.CgroupSeen{Level: level("/docker/"+strings.Repeat("7", 64), 1, -1), InitPID: 7}}}, 1, "web-1"},
		"its number has another": {[]saying{}, []saying{named, runs, answer(epoch.Add(time.Minute))}, 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			in := sources(sc, "docker", "tracepoint")
			for _, s := range tc.before {
				in = append(in, sc.sig(s.src, s.body))
			}
			for _, b := range oomKill(v, v, level(elsewhere, 64*mib, 64*mib)) {
				in = append(in, sc.sig("tracepoint", b))
			}
			for _, s := range tc.after {
				in = append(in, sc.sig(s.src, s.body))
			}
			var last death.Death
			asked := 0
			for _, s := range in {
				q.Feed(s)
				for _, d := range q.Take() {
					last = d
				}
				for _, w := range q.TakeWants() {
					if w.Kind == WantNamespace && w.PIDNS == v.PIDNS {
						asked++
					}
				}
			}
			whose := ""
			if last.Container != nil {
				whose = last.Container.Name
			}
			lines := said(last, "was a process of container "+tc.whose+", by its pid namespace")
			if asked != tc.wants || whose != tc.whose || (lines == 1) != (tc.whose != "") {
				t.Errorf("asked %d times, of %q, want %d and %q:\n%s", asked, whose, tc.wants, tc.whose, sketch([]death.Death{last}))
			}
		})
	}
}

// TestEscaped_EndedWithIt: what the kernel kills with a pid namespace tells by
// itself where it lived, though nobody had looked.
func TestEscaped_EndedWithIt(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	v := task(100, "app", webPath, true)
	worker, own := task(101, "worker", elsewhere, false), task(102, "helper", webPath+"/inner", false)
	worker.PIDNS, own.PIDNS = v.PIDNS, v.PIDNS
	in := dockers(sc, "tracepoint")
	for _, b := range oomKill(v, v, level(webPath, 40*mib, 40*mib)) {
		in = append(in, sc.sig("tracepoint", b))
	}
	for _, x := range []signal.Task{worker, own} {
		in = append(in, sc.sig("tracepoint", signal.Kill{Target: x, Sender: v, Signal: 9, Code: signal.CodeKernel}))
	}
	ds := play(t, q, in...)
	d := ds[len(ds)-1]
	if said(d, "it lived outside the container's cgroup, in /batch") != 1 || said(d, "outside") != 1 {
		t.Errorf("%s", sketch(ds))
	}
}

// TestEscaped_Replayed: a recording has the evidence, too.
func TestEscaped_Replayed(t *testing.T) {
	sc := &scene{}
	first, stray := task(100, "app", webPath, true), task(101, "worker", elsewhere, false)
	stray.PIDNS = first.PIDNS
	in := dockers(sc, "tracepoint")
	in = append(in, sc.sig("cgroup", left(first.PIDNS, 102)))
	for _, b := range append(oomKill(stray, stray, level(elsewhere, 64*mib, 64*mib)), oomKill(first, first, level(webPath, 40*mib, 40*mib))...) {
		in = append(in, sc.sig("tracepoint", b))
	}
	in = append(in, sc.sig("cgroup", signal.PIDNamespace{PIDNS: first.PIDNS, Cgroup: signal.Cgroup{Path: webPath}}))
	var file bytes.Buffer
	w, err := signal.NewWriter(&file, signal.Header{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range in {
		if err := w.Write(s); err != nil {
			t.Fatal(err)
		}
	}
	r, err := signal.NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	var read []signal.Signal
	for range in {
		s, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		read = append(read, s)
	}
	live, replayed := play(t, New(Options{}), in...), play(t, New(Options{}), read...)
	if diff := cmp.Diff(live, replayed); diff != "" || len(live) != 2 {
		t.Errorf("%d deaths (-live +replayed):\n%s", len(live), diff)
	}
	if said(replayed[0], "was a process of container web-1") != 1 || said(replayed[1], "1 process of the container lived outside its cgroup") != 1 {
		t.Errorf("%s", sketch(replayed))
	}
}

// TestEscaped_Bounds: many containers with processes outside are remembered up
// to a bound, for a while.
func TestEscaped_Bounds(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	for i := range 2 * maxEscapes {
		b := left(1, 101)
		b.Path += itoa(i)
		q.Feed(sc.sig("cgroup", b))
	}
	if n := len(q.escapes); n != maxEscapes {
		t.Errorf("%d remembered", n)
	}
	q.Tick(q.now.Add(11 * time.Minute))
	if n := len(q.escapes); n != 0 {
		t.Errorf("%d remembered after 11 minutes", n)
	}
}

// TestEscaped_LimitNotKnown: the limit of a container does not hold for one
// that left it.
func TestEscaped_LimitNotKnown(t *testing.T) {
	f := verdict.Facts{OOM: true, SaidMemcg: true, TaskMemcg: elsewhere, Container: &death.Container{ID: webID, Cgroup: webPath}, Stray: true}
	if v := verdict.Judge(f); v.Cause != death.OOMAncestorLimit {
		t.Errorf("%s by %s", v.Cause, v.Rule)
	}
}

// TestEscaped_EndedMeanwhile: the first process ends before it is looked whose the
// namespace was.
func TestEscaped_EndedMeanwhile(t *testing.T) {
	first, v := task(100, "app", webPath, true), task(101, "worker", elsewhere, false)
	v.PIDNS = first.PIDNS
	for name, tc := range map[string]struct {
		batch bool // nothing is given out before both are told
		began time.Duration
		after int // milliseconds
		whose []string
	}{
		"at once":                  {false, -time.Hour, 1, []string{"web-1"}},
		"both at once":             {true, -time.Hour, 1, []string{"web-1"}},
		"much later":               {false, -time.Hour, 4000, nil},
		"the number has another's": {false, 100 * time.Millisecond, 500, nil},
	} {
		sc := &scene{}
		q := New(Options{})
		runs := webSeen
		runs.Started = epoch.Add(tc.began)
		sigs := append(sources(sc, "docker", "tracepoint"), sc.sig("docker", runs), sc.sig("cgroup", seen(7, webPath, 40*mib, 100)))
		for _, b := range oomKill(v, v, level(elsewhere, 64*mib, 64*mib)) {
			sigs = append(sigs, sc.sig("tracepoint", b))
		}
		sc.n += tc.after
		sigs = append(sigs, sc.sig("tracepoint", signal.Exit{Task: first, Code: ptr(1)}))
		last := map[string]death.Death{}
		for _, s := range sigs {
			q.Feed(s)
			if !tc.batch {
				for _, d := range q.Take() {
					last[d.ID] = d
				}
			}
		}
		for _, d := range append(q.Take(), q.Close()...) {
			last[d.ID] = d
		}
		var whose []string
		for _, d := range last {
			if d.OOM != nil && d.Container != nil {
				whose = append(whose, d.Container.Name)
			}
		}
		if !slices.Equal(whose, tc.whose) {
			t.Errorf("%s: of %v, want %v", name, whose, tc.whose)
		}
	}
}

// TestEscaped_OfASandbox: one in the pid namespace that a pod's containers share is
// the pod's, whenever an engine says that the first process only holds it; and
// nobody's where no pod is known.
func TestEscaped_OfASandbox(t *testing.T) {
	const path = "/pods/" + leftID
	v := task(101, "worker", elsewhere, false)
	v.PIDNS = task(100, "pause", path, true).PIDNS
	sandbox := signal.ContainerSeen{Container: death.Container{ID: leftID, Name: "POD", Runtime: "docker", Cgroup: path}, Sandbox: true}
	inPod := sandbox
	inPod.Container.Pod = &shopPod
	answer := saying{"cgroup", signal.PIDNamespace{PIDNS: v.PIDNS, Cgroup: signal.Cgroup{Path: path}}}
	unknown := sandbox
	unknown.Sandbox, unknown.Container.Name = false, ""
	for name, tc := range map[string]struct {
		says []saying
		pod  string
	}{
		"told before":       {[]saying{{"docker", inPod}, answer}, "web-1"},
		"told later":        {[]saying{{"docker", unknown}, answer, {"docker", inPod}}, "web-1"},
		"no pod":            {[]saying{{"docker", sandbox}, answer}, ""},
		"no pod, and later": {[]saying{{"docker", unknown}, answer, {"docker", sandbox}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			sc := &scene{}
			sigs := append(sources(sc, "docker", "tracepoint"), sc.sig("cgroup", seen(7, path, 40*mib, 100)))
			for _, b := range oomKill(v, v, level(elsewhere, 64*mib, 64*mib)) {
				sigs = append(sigs, sc.sig("tracepoint", b))
			}
			for _, x := range tc.says {
				sigs = append(sigs, sc.sig(x.src, x.body))
			}
			d := only(t, ticking(New(Options{}), sigs...))
			pod := ""
			if d.Container != nil && d.Container.Pod != nil && d.Container.ID == "" {
				pod = d.Container.Pod.Name
			}
			if pod != tc.pod || (d.Container != nil) != (pod != "") || (said(d, "of pod "+podUID) == 1) != (pod != "") {
				t.Errorf("of %+v:\n%s", d.Container, sketch([]death.Death{d}))
			}
		})
	}
}
