// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestLag_TheTracepointIsBehind: where the agent gets so little CPU that the
// tracepoint tells each kill seconds after log and counters did, each is told
// once, by name, in its cgroup.
func TestLag_TheTracepointIsBehind(t *testing.T) {
	const kills, cgroups = 60, 4
	w := &world{}
	w.sources(0)
	w.sayAt(time.Millisecond, time.Millisecond, "tracepoint", signal.SourceState{Up: true, Mode: "bpf"})
	lived, counted := map[int]string{}, map[string]uint64{}
	for i := range kills {
		at := time.Second + time.Duration(i)*100*time.Millisecond
		path, pid := fmt.Sprintf("/docker/%064x", i%cgroups+1), 100+i
		lived[pid] = path
		w.sayAt(at+2*time.Millisecond, at, "kmsg", signal.ReportedKill{Report: uint64(i + 1), Victim: signal.Task{PID: pid, Comm: "leak"}, Memcg: true})
		late := at + time.Duration(i)*300*time.Millisecond
		v := task(pid, "leak", path, false)
		for _, b := range oomKill(v, v, level(path, mib, mib)) {
			w.sayAt(late, at, "tracepoint", b)
		}
		counted[path]++
		read := at + 50*time.Millisecond
		w.sayAt(read, read, "cgroup", signal.NodeCounters{OOMKill: 1, Total: uint64(i + 1)})
		w.sayAt(read, read, "cgroup", signal.CgroupCounters{
			Cgroup: signal.Cgroup{ID: uint64(i%cgroups + 1), Path: path}, OOMKill: 1, OOMKillTotal: counted[path], Since: epoch.Add(read - 100*time.Millisecond),
		})
		w.sayAt(read, read, "cgroup", signal.NodeCounters{Total: uint64(i + 1), Counted: epoch.Add(read)})
	}
	slices.SortStableFunc(w.sigs, func(a, b signal.Signal) int { return a.Observed.Compare(b.Observed) })
	q := New(Options{})
	ds := ticking(q, w.sigs...)
	for _, d := range ds {
		if p := d.Processes[0]; len(d.Processes) != 1 || lived[p.PID] != d.OOM.TaskMemcg || p.PID == 0 {
			t.Errorf("pid %d in %q, lived in %s", p.PID, d.OOM.TaskMemcg, lived[p.PID])
		}
	}
	if n := unattributed(q); len(ds) != kills || n != 0 {
		t.Errorf("%d deaths, want %d; unattributed %d, want 0", len(ds), kills, n)
	}
}

// TestLag_EndToldBefore: a container's end that others tell first is one death,
// also where the tracepoint tells it seconds later.
func TestLag_EndToldBefore(t *testing.T) {
	first, child := task(100, "app", webPath, true), task(101, "worker", webPath, false)
	person := onHost(task(902, "bash", "/user.slice/user-0.slice/session-3.scope", false))
	oom := oomKill(child, child, level(webPath, 40*mib, 40*mib))
	left := saying{"tracepoint", signal.Exit{Task: first, Code: ptr(7)}}
	line := saying{"kmsg", reported(101, "worker", webPath, webPath, 40*mib, 40*mib)}
	for _, behind := range []time.Duration{0, time.Second, 3 * time.Second, 4 * time.Second} {
		for name, tc := range map[string]struct {
			says, late []saying
			cause      death.Cause
		}{
			"killed":          {[]saying{{"docker", webExit(137, false)}}, []saying{{"tracepoint", signal.Kill{Target: first, Sender: person, Signal: 9}}, {"tracepoint", signal.Exit{Task: first, Signal: ptr(9)}}}, death.Killed},
			"left for a kill": {[]saying{line}, []saying{left}, death.OOMContainerLimit},
			"all late":        {[]saying{line}, []saying{{"tracepoint", oom[0]}, {"tracepoint", oom[1]}, left}, death.OOMContainerLimit},
			"the engine too":  {[]saying{{"docker", webExit(7, false)}, line}, []saying{{"tracepoint", oom[0]}, {"tracepoint", oom[1]}, left}, death.OOMContainerLimit},
		} {
			t.Run(fmt.Sprint(name, ", after ", behind), func(t *testing.T) {
				sc := &scene{}
				sigs := append(dockers(sc, "tracepoint", "kmsg", "cgroup"), sc.sig("cgroup", seen(7, webPath, 40*mib, 100)))
				for _, x := range tc.says {
					sigs = append(sigs, sc.sig(x.src, x.body))
				}
				after := func(d time.Duration, x saying) {
					s := sc.sig(x.src, x.body)
					s.Observed = s.Observed.Add(d)
					sigs = append(sigs, s)
				}
				for d := time.Duration(0); d < behind; d += 200 * time.Millisecond {
					after(d, saying{"cgroup", signal.NodeCounters{}})
				}
				for _, x := range tc.late {
					after(behind, x)
				}
				d := only(t, ticking(New(Options{}), sigs...))
				if d.Cause != tc.cause || d.Subject != death.SubjectContainer || tc.cause == death.Killed && d.Killer == nil {
					t.Errorf("got:\n%s", sketch([]death.Death{d}))
				}
			})
		}
	}
}

// TestLag_KillOfBefore: a SIGKILL that is told when its container's end was told
// and let go makes no second death of it, and that of the next run is one.
func TestLag_KillOfBefore(t *testing.T) {
	person := onHost(task(902, "bash", "/user.slice/user-0.slice/session-3.scope", false))
	for _, next := range []bool{false, true} {
		l := begun(t, "docker", "cgroup", "tracepoint")
		r := webRun{pid: 100, code: 137, ended: epoch.Add(time.Second)}
		at, b := r.says("docker")
		l.say("docker", at, b)
		l.pass(15 * time.Second)
		if next {
			r = webRun{pid: 101, code: 137, ended: l.now}
		}
		first := task(r.pid, "app", webPath, true)
		l.say("tracepoint", r.ended.Add(-time.Millisecond), signal.Kill{Target: first, Sender: person, Signal: 9})
		l.say("tracepoint", r.ended, signal.Exit{Task: first, Signal: ptr(9)})
		if next {
			at, b := r.says("docker")
			l.say("docker", at, b)
		}
		l.pass(40 * time.Second)
		if (len(l.deaths) == 2) != next || next && l.deaths[1].Cause != death.Killed {
			t.Errorf("of the next run: %v, got:\n%s", next, sketch(l.deaths))
		}
	}
}

// TestLag_ShortRuns: of a container that is started again and ends within
// seconds the tracepoint may tell all ends after its engine did. Each is told of
// its own run.
func TestLag_ShortRuns(t *testing.T) {
	person := onHost(task(902, "bash", "/user.slice/user-0.slice/session-3.scope", false))
	for _, gap := range []time.Duration{300 * time.Millisecond, 1500 * time.Millisecond} {
		for _, behind := range []time.Duration{0, time.Second, 3 * time.Second} {
			if gap > time.Second && behind > time.Second {
				continue // the first is let go by then
			}
			for _, how := range []string{"left", "left, by its pid", "killed"} {
				t.Run(fmt.Sprint(how, ", ", gap, " apart, after ", behind), func(t *testing.T) {
					l := begun(t, "docker", "cgroup", "tracepoint")
					var runs []webRun
					for i := range 3 {
						r := webRun{pid: 100 + i, code: 1 + i, ended: epoch.Add(time.Second + time.Duration(i)*gap)}
						if how == "killed" {
							r.code, r.killed = 137, true
						}
						runs = append(runs, r)
						at, b := r.says("docker")
						e, _ := b.(signal.ContainerExit)
						if how == "left, by its pid" {
							e.PID = r.pid
						}
						l.say("docker", at, e)
					}
					l.pass(behind)
					for _, r := range runs {
						if r.killed {
							l.say("tracepoint", r.ended.Add(-time.Millisecond), signal.Kill{Target: task(r.pid, "app", webPath, true), Sender: person, Signal: 9})
						}
						at, b := r.says("tracepoint")
						l.say("tracepoint", at, b)
					}
					l.pass(40 * time.Second)
					if len(l.deaths) != len(runs) {
						t.Fatalf("deaths = %d, want %d\n%s", len(l.deaths), len(runs), sketch(l.deaths))
					}
					for i, d := range l.deaths {
						r := runs[i]
						if *d.Exit.Code != r.code || said(d, fmt.Sprintf("first process, pid %d ", r.pid)) != 1 || r.killed && said(d, fmt.Sprintf("SIGKILL to pid %d ", r.pid)) != 1 {
							t.Errorf("run %d:\n%s", i, sketch([]death.Death{d}))
						}
					}
				})
			}
		}
	}
}

// TestLag_ClockSetBack: a SIGKILL of now is none of an end that was let go, also
// where the clock was set back and that lies in the future.
func TestLag_ClockSetBack(t *testing.T) {
	person := onHost(task(902, "bash", "/user.slice/user-0.slice/session-3.scope", false))
	l := begun(t, "docker", "cgroup", "tracepoint")
	at, b := webRun{pid: 100, code: 3, ended: epoch.Add(30 * time.Second)}.says("docker")
	l.say("docker", at, b)
	l.pass(15 * time.Second)
	first, back := task(101, "app", webPath, true), epoch.Add(10*time.Second)
	for _, b := range []signal.Body{signal.Kill{Target: first, Sender: person, Signal: 9}, signal.Exit{Task: first, Signal: ptr(9)}} {
		l.q.Feed(signal.Signal{Time: back, Observed: back, Source: "tracepoint", Body: b})
		l.take()
	}
	l.pass(10 * time.Second)
	if len(l.deaths) != 2 || l.deaths[1].Cause != death.Killed {
		t.Errorf("got:\n%s", sketch(l.deaths))
	}
}

// TestLag_EngineToldLast: an engine that tells of an end long after the kernel, on
// a machine that is short of time, still says how it ended, once.
func TestLag_EngineToldLast(t *testing.T) {
	for _, late := range []time.Duration{2 * time.Second, 9 * time.Second, 40 * time.Second} {
		for _, again := range []bool{false, true} { // the container runs again by then
			l := begun(t, "cgroup", "tracepoint", "docker")
			runs := []webRun{{pid: 100, code: 137, began: epoch, ended: epoch.Add(time.Second), killed: true}}
			tell := func(r webRun, src death.Source) {
				at, b := r.says(src)
				l.say(src, at, b)
			}
			v := task(100, "app", webPath, true)
			for _, b := range oomKill(v, v, level(webPath, 40*mib, 40*mib)) {
				l.say("tracepoint", runs[0].ended, b)
			}
			tell(runs[0], "tracepoint")
			if again {
				runs = append(runs, webRun{pid: 101, code: 3, began: epoch.Add(1500 * time.Millisecond), ended: epoch.Add(1800 * time.Millisecond)})
				tell(runs[1], "tracepoint")
			}
			l.pass(late)
			for _, r := range runs {
				_, b := r.says("docker")
				exit := b.(signal.ContainerExit)
				exit.PID = r.pid
				l.say("docker", r.ended.Add(20*time.Millisecond), exit)
			}
			l.pass(90 * time.Second)
			if diff := cmp.Diff(ends(runs), endsOf(l.deaths, runs)); diff != "" {
				t.Errorf("%s late, again %v (-want +got):\n%s%s", late, again, diff, sketch(l.deaths))
			}
			for _, d := range l.deaths {
				if said(d, "the container ended with exit code") != 1 {
					t.Errorf("%s late, again %v: the engine's word is not there:\n%s", late, again, sketch(l.deaths))
				}
			}
			if n := len(l.q.cases); n != 0 {
				t.Errorf("%s late, again %v: %d cases are open", late, again, n)
			}
		}
	}
}
