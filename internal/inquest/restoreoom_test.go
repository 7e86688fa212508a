// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// killed is the OOM kill of a run, in all that tells of it at once.
func (l *agentRuns) killed(r webRun) {
	v := task(r.pid, "app", webPath, true)
	for _, b := range oomKill(v, v, level(webPath, 40*mib, 40*mib)) {
		l.say("tracepoint", r.ended.Add(-3*time.Millisecond), b)
	}
	for _, src := range []death.Source{"kmsg", "tracepoint", "containerd", "docker"} {
		at, b := r.says(src)
		l.say(src, at, b)
	}
	l.say("docker", l.now, webExit(137, true))
}

// TestRestore_OOMLoop: a container that is killed and started again and again
// while the agent restarts: each end is a death of its own, whatever finds it.
func TestRestore_OOMLoop(t *testing.T) {
	const ms = time.Millisecond
	for _, tc := range []struct {
		name  string
		apart time.Duration
		away  int
	}{
		{"one, soon after the last known", 400 * ms, 1},
		{"three, each soon after the other", 500 * ms, 3},
		{"three", 3000 * ms, 3},
	} {
		for _, order := range []string{"the log first", "the engine first", "by turns"} {
			t.Run(tc.name+", "+order, func(t *testing.T) {
				all := []death.Source{"cgroup", "tracepoint", "kmsg", "containerd", "docker"}
				l := begun(t, all...)
				runs := []webRun{{pid: 100, code: 137, began: epoch, ended: epoch.Add(time.Second), killed: true}}
				l.killed(runs[0])
				l.pass(200 * ms)
				known := len(runs)
				for i := range tc.away {
					last := runs[len(runs)-1]
					runs = append(runs, webRun{pid: 101 + i, code: 137, began: last.ended.Add(100 * ms), ended: last.ended.Add(tc.apart), killed: true})
				}
				l.now = runs[len(runs)-1].ended.Add(300 * ms)
				l.restart(all...)
				tell := func(src death.Source, rs ...webRun) {
					for _, r := range rs {
						at, b := r.says(src)
						l.found(src, at, b)
					}
				}
				switch order {
				case "the log first":
					tell("kmsg", runs...)
					tell("docker", runs...)
				case "the engine first":
					tell("docker", runs...)
					tell("kmsg", runs...)
				default:
					for _, r := range runs {
						tell("docker", r)
						tell("kmsg", r)
					}
				}
				l.pass(5 * time.Second)
				live := webRun{pid: 200, code: 137, began: l.now, ended: l.now.Add(time.Second), killed: true}
				runs = append(runs, live)
				l.killed(live)
				l.pass(40 * time.Second)
				if diff := cmp.Diff(ends(runs), endsOf(l.deaths, runs)); diff != "" {
					t.Errorf("(-want +got):\n%s%s", diff, sketch(l.deaths))
				}
				for i, d := range l.deaths {
					if d.Cause != death.OOMContainerLimit || d.Container.Cgroup != webPath {
						t.Errorf("%d: %s of %s: %s", i, d.Cause, d.Container.Cgroup, d.Summary)
					}
					if len(d.Processes) != 1 || d.Processes[0].PID != runs[i].pid {
						t.Errorf("processes of %d: %+v", i, d.Processes)
					}
					if x := d.Exit; i < known && (x == nil || x.ReportedReason != "OOMKilled" || x.Agrees == nil || !*x.Agrees) {
						t.Errorf("reported of %d: %+v", i, x)
					}
				}
			})
		}
	}
}

// TestRestore_WhatIsSentLater: signals to the next run are no evidence of an end
// from before, and what an engine says of that one's memory is its own.
func TestRestore_WhatIsSentLater(t *testing.T) {
	for _, told := range []bool{true, false} {
		l := begun(t, "docker", "cgroup", "tracepoint")
		gone := webRun{pid: 100, code: 137, ended: epoch.Add(time.Second)}
		at, b := gone.says("docker")
		if told {
			l.say("docker", at, b)
		}
		l.now = at
		l.restart("docker", "cgroup", "tracepoint")
		if !told {
			l.found("docker", at, b)
		}
		next, child := task(101, "app", webPath, true), task(102, "worker", webPath, false)
		bash := onHost(task(902, "bash", "/user.slice/user-0.slice/session-3.scope", false))
		l.say("cgroup", l.now, seen(7, webPath, 40*mib, 101))
		l.say("docker", l.now.Add(500*time.Millisecond), signal.ContainerOOM{ID: webID, Runtime: "docker"})
		l.say("tracepoint", l.now, signal.Kill{Target: child, Sender: bash, Signal: 9})
		l.say("tracepoint", l.now, signal.Kill{Target: next, Sender: bash, Signal: 9})
		l.say("tracepoint", l.now, signal.Exit{Task: next, Signal: ptr(9)})
		l.pass(40 * time.Second)
		if len(l.deaths) != 2 || l.deaths[0].Killer != nil || len(l.deaths[0].Evidence) != 1 || l.deaths[1].Killer == nil {
			t.Errorf("told before: %v, got:\n%s", told, sketch(l.deaths))
		}
	}
}
