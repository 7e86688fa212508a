// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

const webLog = "/var/lib/docker/containers/" + webID + "/" + webID + "-json.log"

func heapLog(at time.Time) signal.ContainerLog {
	return signal.ContainerLog{ID: webID, At: at, Lines: []signal.LogLine{{Time: at, Stream: "stderr", Text: `Exception in thread "main" java.lang.OutOfMemoryError: Java heap space`}}}
}

func logSeen() signal.ContainerSeen {
	s := webSeen
	s.Program, s.LogPath, s.LimitBytes = "java", webLog, ptr(64*mib)
	return s
}

// TestWants_Log: the log of a container that failed by its own doing is asked
// for once, whenever its path comes to be known, and what it says amends the
// death.
func TestWants_Log(t *testing.T) {
	for _, tc := range []struct {
		name string
		body []signal.Body
	}{
		{"path known before", []signal.Body{logSeen(), webExit(1, false)}},
		{"path told after", []signal.Body{webExit(1, false), logSeen()}},
		{"end told twice", []signal.Body{logSeen(), webExit(1, false), webExit(1, false)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			var ds []death.Death
			var wants []Want
			for _, s := range dockers(sc) {
				q.Feed(s)
			}
			for i, b := range tc.body {
				s := sc.sig("docker", b)
				if _, again := b.(signal.ContainerExit); again && i > 1 {
					s.Time = s.Time.Add(-time.Millisecond) // the same end, told once more
				}
				q.Feed(s)
				ds = append(ds, q.Take()...)
				wants = append(wants, q.TakeWants()...)
			}
			if len(ds) == 0 || ds[len(ds)-1].Cause != death.Error {
				t.Fatalf("before the answer:\n%s", sketch(ds))
			}
			want := Want{Kind: WantLog, Source: "docker", ContainerID: webID, LogPath: webLog, At: ds[0].Time}
			if diff := cmp.Diff([]Want{want}, wants); diff != "" {
				t.Fatalf("wants (-want +got):\n%s", diff)
			}
			q.Feed(sc.sig("docker", heapLog(ds[0].Time)))
			after := only(t, q.Take())
			last := after.Evidence[len(after.Evidence)-1]
			if after.ID != ds[0].ID || after.Cause != death.HeapLimit || after.Confidence != death.Certain ||
				!strings.Contains(after.Summary, "may have 64 MiB") || last.Source != "docker" || !strings.Contains(last.Text, "Java heap space") {
				t.Errorf("after it:\n%s", sketch([]death.Death{after}))
			}
			if more := q.TakeWants(); more != nil {
				t.Errorf("asked again: %+v", more)
			}
		})
	}
}

// TestWants_LogOfTheRun: what a run before wrote is not asked for.
func TestWants_LogOfTheRun(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	started := epoch.Add(time.Second)
	for _, s := range append(dockers(sc), sc.sig("docker", logSeen())) {
		q.Feed(s)
	}
	end := func(ms int, startedAt time.Time) Want {
		t.Helper()
		sc.n = ms
		x := webExit(1, false)
		x.Started = startedAt
		q.Feed(sc.sig("docker", x))
		q.Take()
		wants := q.TakeWants()
		if len(wants) != 1 {
			t.Fatalf("wants %+v", wants)
		}
		return wants[0]
	}
	if w := end(3000, started); !w.Since.Equal(started.Add(-beforeStart)) {
		t.Errorf("first run, started at %v: since %v", started, w.Since)
	}
	at := epoch.Add(3001 * time.Millisecond)
	if w := end(3200, at.Add(100*time.Millisecond)); !w.Since.Equal(at.Add(drained)) {
		t.Errorf("second run, 100 ms after %v: since %v", at, w.Since)
	}
	if w := end(9000, epoch.Add(8*time.Second)); !w.Since.Equal(epoch.Add(8*time.Second - beforeStart)) {
		t.Errorf("third run: since %v", w.Since)
	}
}

// TestWants_NoAnswer: why there is none is told, and nothing else changes.
func TestWants_NoAnswer(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	for _, s := range append(dockers(sc), sc.sig("docker", logSeen()), sc.sig("docker", webExit(1, false))) {
		q.Feed(s)
	}
	q.Take()
	at := q.TakeWants()[0].At
	q.Feed(sc.sig("docker", signal.ContainerLog{ID: webID, At: at.Add(1), Lines: heapLog(at).Lines})) // of another end
	if ds := q.Take(); len(ds) != 0 {
		t.Errorf("the answer about another end was taken:\n%s", sketch(ds))
	}
	q.Feed(sc.sig("docker", signal.ContainerLog{ID: webID, At: at, Error: "open log: \x1bgone"}))
	d := only(t, q.Take())
	last := d.Evidence[len(d.Evidence)-1].Text
	if d.Cause != death.Error || !strings.Contains(last, `is not known: open log: \x1bgone`) {
		t.Errorf("death:\n%s", sketch([]death.Death{d}))
	}
	q.Feed(sc.sig("docker", heapLog(at)))
	if ds := q.Take(); len(ds) != 0 || q.Stats().Late != 2 {
		t.Errorf("a second answer: late %d\n%s", q.Stats().Late, sketch(ds))
	}
}

// TestWants_NotAsked: nobody reads the log of what the kernel or somebody else
// ended.
func TestWants_NotAsked(t *testing.T) {
	for name, bodies := range map[string][]signal.Body{
		"completed": {webExit(0, false)},
		"SIGKILL":   {webExit(137, false)},
		"stopped":   {asked(15, "kill"), webExit(1, false)},
		"no path":   {webExit(1, false)},
	} {
		sc := &scene{}
		q := New(Options{})
		sigs := dockers(sc)
		if name != "no path" {
			sigs = append(sigs, sc.sig("docker", logSeen()))
		}
		for _, b := range bodies {
			sigs = append(sigs, sc.sig("docker", b))
		}
		for _, s := range sigs {
			q.Feed(s)
			q.Take()
		}
		if wants := q.TakeWants(); wants != nil {
			t.Errorf("%s: asked %+v", name, wants)
		}
	}
}

// TestWants_OneAnswerLeavesTheOthers: an answer lets go of no case that another
// answer is on its way to.
func TestWants_OneAnswerLeavesTheOthers(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	first := task(100, "app", leftPath, true)
	for _, s := range append(inKube(sc), sc.sig("tracepoint", signal.Exit{Task: first, Signal: ptr(9)}), sc.sig("kube", kubeExit(137, "Error"))) {
		q.Feed(s)
	}
	q.Take()
	events, daemons := 0, 0
	for at := time.Duration(0); at < 40*time.Second; at += 500 * time.Millisecond {
		q.Tick(epoch.Add(at))
		for _, w := range q.TakeWants() {
			s := sc.sig("kube", signal.PodEvents{UID: w.Pod.UID, At: w.At, Error: "events is forbidden"})
			switch w.Kind {
			case WantEvents:
				events++
			case WantDaemon:
				daemons++
				s = sc.sig("journal", signal.OOMDaemonWord{ID: w.ContainerID, Path: w.Cgroup, At: w.At})
			default:
				continue
			}
			s.Observed = epoch.Add(at)
			q.Feed(s)
		}
		q.Take()
	}
	if events != eventsTries || daemons != 1 {
		t.Errorf("asked %d times for events, want %d; %d times for a daemon's words", events, eventsTries, daemons)
	}
}
