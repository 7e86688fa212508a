// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// agentRuns is an inquest over runs of the agent, and all deaths as last told.
type agentRuns struct {
	t      *testing.T
	q      *Inquest
	now    time.Time
	deaths []death.Death
}

func begun(t *testing.T, srcs ...death.Source) *agentRuns {
	l := &agentRuns{t: t, q: New(Options{BootID: "b1"}), now: epoch}
	l.up(srcs...)
	return l
}

func (l *agentRuns) up(srcs ...death.Source) {
	for _, src := range srcs {
		l.say(src, l.now, signal.SourceState{Up: true})
	}
	l.say("docker", l.now, webSeen)
}

// say is a signal of what happened at a time, told now.
func (l *agentRuns) say(src death.Source, at time.Time, b signal.Body) {
	if at.After(l.now) {
		l.now = at
	}
	l.q.Tick(l.now)
	l.q.Feed(signal.Signal{Time: at, Observed: l.now, Source: src, Body: b})
	l.take()
}

// found is a signal of what happened while no agent ran.
func (l *agentRuns) found(src death.Source, at time.Time, b signal.Body) {
	l.q.Feed(signal.Signal{Time: at, Observed: l.now, Source: src, Body: b, Recovered: true})
	l.take()
}

// pass lets time pass.
func (l *agentRuns) pass(d time.Duration) {
	for end := l.now.Add(d); l.now.Before(end); {
		l.now = l.now.Add(min(500*time.Millisecond, end.Sub(l.now)))
		l.q.Tick(l.now)
		l.take()
	}
}

func (l *agentRuns) take() {
	for _, d := range l.q.Take() {
		known := false
		for i := range l.deaths {
			if l.deaths[i].ID == d.ID {
				l.deaths[i], known = d, true
			}
		}
		if !known {
			l.deaths = append(l.deaths, d)
		}
	}
}

// restart ends the agent, and begins the next one from what the history has.
func (l *agentRuns) restart(srcs ...death.Source) {
	l.t.Helper()
	l.take()
	kept, err := json.Marshal(l.deaths)
	if err != nil {
		l.t.Fatal(err)
	}
	var known []death.Death
	if err := json.Unmarshal(kept, &known); err != nil {
		l.t.Fatal(err)
	}
	l.now = l.now.Add(200 * time.Millisecond)
	l.q = New(Options{BootID: "b1"})
	l.q.Restore(l.now, known)
	l.up(srcs...)
}

// webRun is one run of web-1, by the test's own book.
type webRun struct {
	pid    int
	began  time.Time
	ended  time.Time
	code   int
	killed bool // by the OOM killer
}

// says is what a source says of the end of a run.
func (r webRun) says(src death.Source) (time.Time, signal.Body) {
	switch src {
	case "tracepoint":
		x := signal.Exit{Task: task(r.pid, "app", webPath, true), Code: &r.code}
		if r.killed {
			x.Code, x.Signal = nil, ptr(9)
		}
		return r.ended, x
	case "containerd":
		return r.ended.Add(5 * time.Millisecond), signal.ContainerExit{ID: webID, Runtime: "containerd", Code: &r.code, PID: r.pid}
	case "kmsg":
		return r.ended.Add(-3 * time.Millisecond), reported(r.pid, "app", webPath, webPath, 40*mib, 40*mib)
	}
	return r.ended.Add(20 * time.Millisecond), signal.ContainerExit{ID: webID, Runtime: "docker", Code: &r.code}
}

// endsOf are the ends that deaths tell of, by their place in the test's book,
// and what in them speaks of another.
func endsOf(ds []death.Death, runs []webRun) []string {
	out := []string{}
	for _, d := range ds {
		which := slices.IndexFunc(runs, func(r webRun) bool { return d.Time.Sub(r.ended).Abs() < 100*time.Millisecond })
		code := "?"
		if x := d.Exit; x != nil && x.Code != nil {
			code = itoa(*x.Code)
		}
		s := fmt.Sprintf("%d: %s %s oom=%v", which, d.Subject, code, d.Cause.OOM())
		for _, e := range d.Evidence {
			if gap := e.Time.Sub(d.Time); gap.Abs() > 200*time.Millisecond {
				s += fmt.Sprintf("; %s later: %s", gap, e.Text)
			}
		}
		if n := len(d.Processes); n > 1 {
			s += fmt.Sprintf("; %d processes", n)
		}
		if d.Exit != nil && d.Exit.Agrees != nil && !*d.Exit.Agrees && !d.Cause.OOM() {
			s += "; agrees false"
		}
		out = append(out, s)
	}
	return out
}

// ends are the same by the test's own book.
func ends(runs []webRun) []string {
	out := []string{}
	for i, r := range runs {
		out = append(out, fmt.Sprintf("%d: container %d oom=%v", i, r.code, r.killed))
	}
	return out
}

// TestRestore_TheNextEnds: ends that come after a restart of the agent are of
// their own, whoever tells of them first, and whoever told of the one before.
func TestRestore_TheNextEnds(t *testing.T) {
	all := []death.Source{"tracepoint", "containerd", "docker"}
	for _, before := range [][]death.Source{all, {"docker"}, {"tracepoint"}, {"tracepoint", "docker"}, {"containerd", "docker"}} {
		permute(len(all), func(order []int) {
			l := begun(t, append([]death.Source{"cgroup"}, before...)...)
			runs := []webRun{{pid: 100, code: 5, began: epoch, ended: epoch.Add(time.Second)}}
			for _, src := range before {
				at, b := runs[0].says(src)
				l.say(src, at, b)
			}
			l.pass(time.Second)
			l.restart(append([]death.Source{"cgroup"}, all...)...)
			for i, code := range []int{0, 7, 11, 12} {
				l.pass(3 * time.Second)
				r := webRun{pid: 101 + i, code: code, began: l.now, ended: l.now.Add(time.Second)}
				l.pass(time.Second)
				for _, j := range order {
					at, b := r.says(all[j])
					l.say(all[j], at, b)
				}
				runs = append(runs, r)
			}
			l.pass(40 * time.Second)
			if diff := cmp.Diff(ends(runs), endsOf(l.deaths, runs)); diff != "" {
				t.Fatalf("before %v, order %v (-want +got):\n%s%s", before, order, diff, sketch(l.deaths))
			}
			if n := l.deaths[0].Revision; n > 4 {
				t.Errorf("before %v, order %v: the first is told %d times", before, order, n)
			}
		})
	}
}

// TestRestore_LateWords: what is told after a restart of the agent of an end
// from before it is of that end where its pid, its run or its time and code say
// so, and no other death.
func TestRestore_LateWords(t *testing.T) {
	first := webRun{pid: 100, code: 5, began: epoch, ended: epoch.Add(time.Second)}
	const s = time.Second
	for _, tc := range []struct {
		name   string
		before []death.Source
		src    death.Source
		after  time.Duration
		found  bool
		body   signal.ContainerExit
		more   int
	}{
		{"an event asked for again", []death.Source{"tracepoint"}, "docker", s / 50, true, signal.ContainerExit{Code: ptr(5)}, 0},
		{"the same event once more", []death.Source{"tracepoint", "docker"}, "docker", s / 50, true, signal.ContainerExit{Code: ptr(5)}, 0},
		{"the same event, explained", []death.Source{"docker"}, "docker", s / 50, true, signal.ContainerExit{Code: ptr(5), OOMKilled: ptr(false), Started: epoch, Finished: first.ended}, 0},
		{"the same end by an answer", []death.Source{"docker"}, "docker", 0, true, signal.ContainerExit{Code: ptr(5), OOMKilled: ptr(false), Started: epoch, Finished: first.ended}, 0},
		{"by an answer that knows no start", []death.Source{"tracepoint", "docker"}, "docker", 0, true, signal.ContainerExit{Code: ptr(5), OOMKilled: ptr(false), Finished: first.ended}, 0},
		{"the next end by an answer", []death.Source{"docker"}, "docker", s / 2, true, signal.ContainerExit{Code: ptr(5), OOMKilled: ptr(false), Finished: first.ended.Add(s / 2)}, 1},
		{"another event", []death.Source{"tracepoint", "docker"}, "docker", s / 2, true, signal.ContainerExit{Code: ptr(5)}, 1},
		{"another code", []death.Source{"tracepoint"}, "docker", s / 50, true, signal.ContainerExit{Code: ptr(6)}, 1},
		{"the run, told late", []death.Source{"tracepoint"}, "docker", 20 * s, false, signal.ContainerExit{Code: ptr(5), Started: epoch}, 0},
		{"the next run", []death.Source{"tracepoint"}, "docker", 20 * s, false, signal.ContainerExit{Code: ptr(5), Started: epoch.Add(10 * s)}, 1},
		{"nothing but near", []death.Source{"tracepoint"}, "docker", 20 * s, false, signal.ContainerExit{Code: ptr(5)}, 1},
		{"the first process", []death.Source{"tracepoint"}, "containerd", 20 * s, false, signal.ContainerExit{PID: 100}, 0},
		{"another first process", []death.Source{"tracepoint"}, "containerd", s / 10, true, signal.ContainerExit{PID: 101, Code: ptr(5)}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := begun(t, append([]death.Source{"cgroup"}, tc.before...)...)
			for _, src := range tc.before {
				at, b := first.says(src)
				l.say(src, at, b)
			}
			l.pass(time.Second)
			l.restart("cgroup", "tracepoint", "docker", "containerd")
			at, b := first.ended.Add(tc.after), tc.body
			b.ID, b.Runtime = webID, string(tc.src)
			if tc.found {
				l.found(tc.src, at, b)
			} else {
				l.say(tc.src, at, b)
			}
			l.pass(40 * time.Second)
			if len(l.deaths) != 1+tc.more || *l.deaths[0].Exit.Code != 5 {
				t.Errorf("%d deaths, want %d:\n%s", len(l.deaths), 1+tc.more, sketch(l.deaths))
			}
			for _, d := range l.deaths {
				if n := len(d.Evidence); n > 2 {
					t.Errorf("%d lines of evidence:\n%s", n, sketch(l.deaths))
				}
			}
		})
	}
}

// TestRestore_ReadsItsOwnWords: what a run writes of an end the next one reads.
func TestRestore_ReadsItsOwnWords(t *testing.T) {
	for _, b := range []signal.ContainerExit{
		{}, {Code: ptr(137)}, {Code: ptr(0), OOMKilled: ptr(true)}, {OOMKilled: ptr(false), Reason: "Error", Error: "OCI: a, b: exec: \"x\": with exit code 3"}, {Reason: "OOMKilled"},
	} {
		got, ok := readEngine(engineText(b))
		if diff := cmp.Diff(b.Error, got.Error); !ok || b.Error == "" && diff != "" {
			t.Errorf("%s: %v %s", engineText(b), ok, diff)
		}
		got.Error = b.Error
		if diff := cmp.Diff(b, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", engineText(b), diff)
		}
	}
	for _, comm := range []string{"app", "a b", "), ended by signal 9", "runc:[2:INIT]"} {
		for _, how := range []string{endedBySignal + "9", leftWithCode + "1"} {
			if got, ok := readFirst(firstEnded + "77 (" + comm + "), " + how); !ok || got.pid != 77 || got.comm != comm {
				t.Errorf("%s %s: %v %+v", comm, how, ok, got)
			}
		}
	}
}

// TestRestore_AskedAgain: what an engine is asked for again after a restart of
// the agent is told once, and what it was asked for before the container ended
// is not of the next run.
func TestRestore_AskedAgain(t *testing.T) {
	srcs := []death.Source{"cgroup", "tracepoint", "docker"}
	first := webRun{pid: 100, code: 143, ended: epoch.Add(time.Second)}
	asks := []dated{
		{-10 * time.Millisecond, "docker", asked(15, "kill")},
		{20 * time.Millisecond, "docker", webExit(143, false)},
		{30 * time.Millisecond, "docker", asked(0, "stop")},
	}
	l := begun(t, srcs...)
	l.say("docker", first.ended.Add(asks[0].at), asks[0].body)
	at, b := first.says("tracepoint")
	l.say("tracepoint", at, b)
	for _, a := range asks[1:] {
		l.say("docker", first.ended.Add(a.at), a.body)
	}
	l.pass(time.Second)
	before := l.deaths[0]
	l.restart(srcs...)
	for _, a := range asks {
		l.found("docker", first.ended.Add(a.at), a.body)
	}
	l.pass(5 * time.Second)
	next := webRun{pid: 101, code: 3, ended: l.now}
	for _, src := range srcs[1:] {
		at, b := next.says(src)
		l.say(src, at, b)
	}
	l.pass(40 * time.Second)
	if len(l.deaths) != 2 || before.Cause != death.Stopped || l.deaths[1].Cause != death.Error {
		t.Fatalf("before:\n%safter:\n%s", sketch([]death.Death{before}), sketch(l.deaths))
	}
	if diff := cmp.Diff(before.Evidence, l.deaths[0].Evidence); diff != "" || l.deaths[0].Summary != before.Summary {
		t.Errorf("(-before +after):\n%s%s", diff, sketch(l.deaths))
	}
}

// TestRestore_SaysNothingTwice: what is found out again after a restart stands
// there once, also where several lines are of one time.
func TestRestore_SaysNothingTwice(t *testing.T) {
	l := begun(t, "kube", "tracepoint", "cgroup")
	l.say("kube", l.now, signal.PodSeen{Pod: shopPod, Phase: "Running"})
	l.say("kube", l.now, podMain)
	tell := func() {
		at := epoch.Truncate(time.Second)
		l.pass(3 * time.Second)
		for _, w := range l.q.TakeWants() {
			if w.Kind == WantEvents {
				l.say("kube", l.now, signal.PodEvents{UID: w.Pod.UID, At: w.At, Events: []signal.PodEvent{
					{Reason: "Preempting", Container: "main", Message: "Preempted", First: at, Last: at, Count: 1},
					{Reason: "Killing", Container: "main", Message: "Stopping container main", First: at, Last: at, Count: 1},
				}})
			}
		}
		l.pass(time.Second)
	}
	l.say("tracepoint", l.now, signal.Exit{Task: task(100, "app", leftPath, true), Code: ptr(3)})
	tell()
	l.restart("kube", "tracepoint", "cgroup")
	l.say("kube", l.now, signal.PodSeen{Pod: shopPod, Phase: "Running"})
	l.say("kube", l.now, podMain)
	tell()
	for _, e := range l.deaths[0].Evidence {
		n := 0
		for _, o := range l.deaths[0].Evidence {
			if sameLine(e, o) {
				n++
			}
		}
		if n > 1 {
			t.Errorf("%d times: %s", n, e.Text)
		}
	}
}

// TestRestore_AsksNoLogAgain: what a container wrote is not asked for again with
// each restart of the agent, unless the answer may be lost.
func TestRestore_AsksNoLogAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		ran  time.Duration
		asks int
	}{"long ago": {time.Hour, 0}, "in the middle": {0, 1}} {
		l := begun(t, "docker", "cgroup")
		l.say("docker", l.now, logSeen())
		at, b := webRun{pid: 100, code: 1, ended: epoch.Add(time.Second)}.says("docker")
		l.say("docker", at, b)
		l.pass(tc.ran)
		asked := 0
		for range 3 {
			l.restart("docker", "cgroup")
			l.say("docker", l.now, logSeen())
			l.pass(time.Second)
			for _, w := range l.q.TakeWants() {
				if w.Kind == WantLog {
					asked++
					l.say("docker", l.now, signal.ContainerLog{ID: webID, At: w.At, Error: "open log: gone"})
				}
			}
			l.pass(2 * time.Minute)
		}
		if n := said(l.deaths[0], "is not known"); asked != tc.asks || n != tc.asks {
			t.Errorf("%s: asked %d times, said %d times:\n%s", name, asked, n, sketch(l.deaths))
		}
	}
}

// TestRestore_AsksNoEventsAgain: nor are a pod's events, which may stand for
// others since, and that they are not to be had now is not told.
func TestRestore_AsksNoEventsAgain(t *testing.T) {
	failed := signal.PodEvent{Reason: "FailedPreStopHook", Container: "main", Message: "PreStopHook failed", First: epoch, Last: epoch, Count: 2}
	for name, tc := range map[string]struct {
		ran    time.Duration
		before []signal.PodEvent // nil: no answer
		after  signal.PodEvents
		asks   int
		lines  int
	}{
		"long ago":                 {3 * time.Hour, []signal.PodEvent{}, signal.PodEvents{Error: "too many at once"}, 0, 0},
		"had them":                 {10 * time.Minute, []signal.PodEvent{failed}, signal.PodEvents{}, 0, 1},
		"had none, and has none":   {10 * time.Minute, []signal.PodEvent{}, signal.PodEvents{Error: "too many at once"}, eventsTries, 0},
		"had none":                 {10 * time.Minute, nil, signal.PodEvents{Events: []signal.PodEvent{failed}}, 1, 1},
		"in the middle, has none":  {0, nil, signal.PodEvents{Error: "too many at once"}, eventsTries, 0},
		"in the middle, has them":  {0, nil, signal.PodEvents{Events: []signal.PodEvent{failed}}, 1, 1},
		"in the middle, they grew": {time.Second, []signal.PodEvent{failed}, signal.PodEvents{Events: []signal.PodEvent{failed}}, 1, 1},
	} {
		l := begun(t, "kube", "tracepoint", "cgroup")
		answer := func(b signal.PodEvents) (asked int) {
			l.say("kube", l.now, signal.PodSeen{Pod: shopPod, Phase: "Running"})
			l.say("kube", l.now, podMain)
			for range 30 {
				l.pass(time.Second)
				for _, w := range l.q.TakeWants() {
					if w.Kind == WantEvents {
						asked++
						b.UID, b.At = w.Pod.UID, w.At
						l.say("kube", l.now, b)
					}
				}
			}
			return asked
		}
		l.say("tracepoint", l.now, signal.Exit{Task: task(100, "app", leftPath, true), Code: ptr(3)})
		if tc.before != nil {
			answer(signal.PodEvents{Events: tc.before})
		}
		l.pass(tc.ran)
		l.restart("kube", "tracepoint", "cgroup")
		asked := answer(tc.after)
		if n := said(l.deaths[0], "event FailedPreStopHook"); asked != tc.asks || n != tc.lines || said(l.deaths[0], "is not known") != 0 {
			t.Errorf("%s: asked %d times:\n%s", name, asked, sketch(l.deaths))
		}
	}
}
