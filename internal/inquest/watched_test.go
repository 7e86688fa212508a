// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestEnd_NotOOM: that no OOM kill was counted is said where the counters were
// watched at the end, and tell of the whole run.
func TestEnd_NotOOM(t *testing.T) {
	counters := func(sc *scene, total uint64) []signal.Signal {
		return append([]signal.Signal{sc.sig("cgroup", stands(7, webPath, total, 0)), sc.sig("cgroup", signal.NodeCounters{Total: 50})}, sources(sc, "cgroup")...)
	}
	started := func(sc *scene) signal.Signal {
		s := sc.sig("docker", webSeen)
		b := webSeen
		b.Started = s.Time
		s.Body = b
		return s
	}
	for _, tc := range []struct {
		name string
		play func(sc *scene) []signal.Signal
		rule string
	}{
		{"watched all the time", func(sc *scene) []signal.Signal {
			return append(counters(sc, 0), started(sc), sc.sig("docker", webExit(137, false)))
		}, "sigkill-not-oom"},
		{"watched all the time, but the engine says otherwise", func(sc *scene) []signal.Signal {
			return append(counters(sc, 0), started(sc), sc.sig("docker", webExit(137, true)))
		}, "sigkill-flagged"},
		{"it ran before, and no kill was counted in it", func(sc *scene) []signal.Signal {
			return append(append([]signal.Signal{started(sc)}, counters(sc, 0)...), sc.sig("docker", webExit(137, false)))
		}, "sigkill-not-oom"},
		{"it ran before, and a kill was counted in it", func(sc *scene) []signal.Signal {
			return append(append([]signal.Signal{started(sc)}, counters(sc, 1)...), sc.sig("docker", webExit(137, false)))
		}, "sigkill"},
		{"it ended before", func(sc *scene) []signal.Signal {
			run, end := started(sc), sc.sig("docker", webExit(137, false))
			sc.n += 5000
			out := append([]signal.Signal{run}, counters(sc, 0)...)
			end.Observed, end.Recovered = sc.sig("docker", signal.Lost{}).Observed, true
			return append(out, end)
		}, "sigkill"},
		{"it ended before, flagged", func(sc *scene) []signal.Signal {
			run, end := started(sc), sc.sig("docker", webExit(137, true))
			sc.n += 5000
			out := append([]signal.Signal{run}, counters(sc, 0)...)
			end.Observed, end.Recovered = sc.sig("docker", signal.Lost{}).Observed, true
			return append(out, end)
		}, "sigkill-flagged"},
		{"a child was OOM-killed long before", func(sc *scene) []signal.Signal {
			out := append(counters(sc, 0), started(sc), sc.sig("kmsg", signal.SourceState{Up: true}),
				sc.sig("kmsg", reported(101, "worker", webPath, webPath, mib, mib)),
				sc.sig("cgroup", stands(7, webPath, 1, 0)), sc.sig("cgroup", signal.NodeCounters{OOMKill: 1, Total: 51}))
			sc.n += 8000
			return append(out, sc.sig("docker", webExit(137, true)))
		}, "sigkill-flagged"},
		{"a run before was OOM-killed", func(sc *scene) []signal.Signal {
			out := append(counters(sc, 0), started(sc), sc.sig("kmsg", signal.SourceState{Up: true}),
				sc.sig("kmsg", reported(100, "app", webPath, webPath, mib, mib)),
				sc.sig("cgroup", stands(7, webPath, 1, 0)), sc.sig("cgroup", signal.NodeCounters{OOMKill: 1, Total: 51}),
				sc.sig("docker", webExit(137, true)))
			sc.n += 20_000
			out = append(out, started(sc))
			sc.n += 20_000
			return append(out, sc.sig("docker", webExit(137, false)))
		}, "sigkill-not-oom"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			ds := ticking(New(Options{}), append(sources(sc, "docker"), tc.play(sc)...)...)
			d := ds[len(ds)-1]
			if d.Rule != tc.rule {
				t.Errorf("rule %s, want %s\n%s", d.Rule, tc.rule, sketch(ds))
			}
			if before := strings.Contains(fmt.Sprint(d.Evidence), "had killed in the container"); before != strings.HasPrefix(tc.name, "a child") {
				t.Errorf("evidence of a kill before: %v\n%s", before, sketch(ds))
			}
		})
	}
}

// TestEnd_OOMWordFirst: an engine says that a container ran out of memory before
// it says that it ended.
func TestEnd_OOMWordFirst(t *testing.T) {
	says := []saying{{"containerd", signal.ContainerOOM{ID: webID, Runtime: "containerd"}}, {"docker", webExit(137, false)}}
	permute(2, func(order []int) {
		sc := &scene{}
		q := New(Options{})
		sigs := dockers(sc)
		for _, i := range order {
			sigs = append(sigs, sc.sig(says[i].src, says[i].body))
		}
		if d := only(t, ticking(q, sigs...)); said(d, "ran out of memory") != 1 {
			t.Errorf("order %v:\n%s", order, sketch([]death.Death{d}))
		}
	})
}

// TestEnd_EnginesLateWordOfOOM: what an engine says seconds late of an OOM kill is
// no evidence of the container's next end.
func TestEnd_EnginesLateWordOfOOM(t *testing.T) {
	l := begun(t, "docker", "cgroup", "tracepoint", "containerd")
	runs := []webRun{{pid: 100, code: 137, killed: true, ended: epoch.Add(time.Second)}, {pid: 101, code: 3, ended: epoch.Add(20 * time.Second)}}
	for i, r := range runs {
		first := task(r.pid, "app", webPath, true)
		if r.killed {
			for _, b := range oomKill(first, first, level(webPath, 40*mib, 40*mib)) {
				l.say("tracepoint", r.ended.Add(-time.Millisecond), b)
			}
		}
		for _, src := range []death.Source{"tracepoint", "docker"} {
			at, b := r.says(src)
			l.say(src, at, b)
		}
		if i == 0 {
			l.pass(12 * time.Second) // its case is let go
			l.say("containerd", l.now, signal.ContainerOOM{ID: webID, Runtime: "containerd"})
		}
	}
	l.pass(40 * time.Second)
	if len(l.deaths) != 2 || said(l.deaths[1], outOfMemory) != 0 {
		t.Errorf("got:\n%s", sketch(l.deaths))
	}
}
