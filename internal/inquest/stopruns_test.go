// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// lagging is how many milliseconds later than they were told signals may come.
const lagging = 150

// merges gives each order in which what two sources tell can come: each tells
// its own things in their order, and nothing comes later than lagging.
func merges(a, b []timed, f func([]timed)) {
	var order []timed
	var rec func(a, b []timed, now int)
	rec = func(a, b []timed, now int) {
		if len(a) == 0 && len(b) == 0 {
			f(order)
			return
		}
		for i, next := range [][]timed{a, b} {
			other := [][]timed{b, a}[i]
			if len(next) == 0 || len(other) > 0 && other[0].ms+other[0].later+lagging < max(now, next[0].ms+next[0].later) {
				continue
			}
			order = append(order, next[0])
			if i == 0 {
				rec(a[1:], b, max(now, a[0].ms+a[0].later))
			} else {
				rec(a, b[1:], max(now, b[0].ms+b[0].later))
			}
			order = order[:len(order)-1]
		}
	}
	rec(a, b, 0)
}

// played gives the deaths of web-1, of which an engine and the kernel tell in
// this order.
func played(who signal.ContainerSeen, order []timed) []death.Death {
	sc := &scene{}
	sigs := append(sources(sc, "docker", "tracepoint", "cgroup"), sc.sig("docker", who), sc.sig("cgroup", seen(7, webPath, 40*mib, 100)), sc.sig("cgroup", signal.NodeCounters{}))
	now := 0
	for _, x := range order {
		now = max(now, x.ms+x.later)
		sc.n = 1000 + now
		s := sc.sig(x.src, x.body)
		s.Time = epoch.Add(time.Duration(1000+x.ms) * time.Millisecond)
		sigs = append(sigs, s)
	}
	return ticking(New(Options{}), sigs...)
}

// life is one run of web-1 on Docker, as its sources tell of it.
type life struct {
	began          int // in ms
	engine, kernel []timed
}

func (r *life) first() signal.Task { return task(100+r.began, "app", webPath, true) }

// stopped is asked to stop at ms, and is killed so many ms later. Docker tells
// of SIGKILL when the process has left already.
func (r *life) stopped(ms, wait int, done ...string) *life {
	runc := onHost(task(901, "runc", "/system.slice/containerd.service", false))
	r.kernel = append(r.kernel, kernel(ms, signal.Kill{Target: r.first(), Sender: runc, Signal: 15}),
		kernel(ms+wait, signal.Kill{Target: r.first(), Sender: runc, Signal: 9}), kernel(ms+wait, signal.Exit{Task: r.first(), Signal: ptr(9)}))
	r.engine = append(r.engine, docker(ms+1, asked(15, "kill")), docker(ms+wait+2, asked(9, "kill")), docker(ms+wait+40, webExit(137, false)))
	for i, action := range done {
		r.engine = append(r.engine, docker(ms+wait+60+300*i, asked(0, action)))
	}
	return r
}

// killed is killed at ms, on request.
func (r *life) killed(ms int) *life {
	runc := onHost(task(901, "runc", "/system.slice/containerd.service", false))
	r.kernel = append(r.kernel, kernel(ms, signal.Kill{Target: r.first(), Sender: runc, Signal: 9}), kernel(ms, signal.Exit{Task: r.first(), Signal: ptr(9)}))
	r.engine = append(r.engine, docker(ms+2, asked(9, "kill")), docker(ms+40, webExit(137, false)))
	return r
}

// left ends by itself at ms.
func (r *life) left(ms, code int) *life {
	r.kernel = append(r.kernel, kernel(ms, signal.Exit{Task: r.first(), Code: &code}))
	r.engine = append(r.engine, docker(ms+40, webExit(code, false)))
	return r
}

// asks is what Docker says that it was asked, without a signal.
func (r *life) asks(ms int, action string) *life {
	r.engine = append(r.engine, docker(ms, asked(0, action)))
	return r
}

// inEveryOrder plays runs, and wants the same of each order.
func inEveryOrder(t *testing.T, who signal.ContainerSeen, want string, runs ...*life) []death.Death {
	t.Helper()
	var engine, kernel []timed
	for _, r := range runs {
		engine, kernel = append(engine, r.engine...), append(kernel, r.kernel...)
	}
	var last []death.Death
	n := 0
	merges(engine, kernel, func(order []timed) {
		if n++; t.Failed() {
			return
		}
		last = played(who, order)
		if got := judged(last); got != want {
			at := ""
			for _, x := range order {
				at += fmt.Sprintf(" %s@%d", x.src, x.ms)
			}
			t.Errorf("got  %s\nwant %s\nin order%s\n%s", got, want, at, sketch(last))
		}
	})
	if n < 2 {
		t.Errorf("%d orders", n)
	}
	return last
}

// TestStops_ToldAfterTheEnd: Docker tells of the SIGKILL that it sent when the
// kernel has told already that the process left: it is none of the next run.
func TestStops_ToldAfterTheEnd(t *testing.T) {
	for _, tc := range []struct {
		name string
		runs []*life
		want string
	}{
		{"stopped twice", []*life{(&life{}).stopped(0, 2000, "stop"), (&life{began: 3}).stopped(14000, 2000, "stop")},
			"stop_timeout stop-timeout probable, stop_timeout stop-timeout probable"},
		{"killed, then left with its own 137", []*life{(&life{}).killed(0), (&life{began: 3}).left(9000, 137)},
			"killed killed-on-request certain, error error certain"},
		{"killed, and again at once", []*life{(&life{}).killed(0), (&life{began: 3}).killed(400), (&life{began: 6}).left(800, 4)},
			"killed killed-on-request certain, killed killed-on-request certain, error error certain"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ds := inEveryOrder(t, webSeen, tc.want, tc.runs...)
			for i, d := range ds {
				for _, e := range d.Evidence {
					if strings.Contains(e.Text, "as it was asked") && i > 0 && e.Time.Before(ds[i-1].Time.Add(100*time.Millisecond)) {
						t.Errorf("death %d has a request of the run before: %s %s", i, e.Time, e.Text)
					}
				}
			}
		})
	}
}

// told has Docker tell of a signal that it sent on request.
func (r *life) told(ms, n int) *life {
	r.engine = append(r.engine, docker(ms, asked(n, "kill")))
	return r
}

// unheard leaves out the signals that Docker told of.
func (r *life) unheard() *life {
	r.engine = slices.DeleteFunc(r.engine, func(x timed) bool {
		b, is := x.body.(signal.ContainerStop)
		return is && b.Action == "kill"
	})
	return r
}

// TestStops_WhileItWaitedToStart: Docker says that a stop is done also of a
// container that did not run, as it waited for its restart policy. It sends no
// signal then.
func TestStops_WhileItWaitedToStart(t *testing.T) {
	patient := webSeen
	patient.StopTimeout = ptr(int64(60))
	for _, tc := range []struct {
		name string
		who  signal.ContainerSeen
		runs []*life
		want string
	}{
		{"stopped", webSeen, []*life{(&life{}).left(0, 7), (&life{began: 3}).left(1000, 7).asks(6500, "stop")}, "error error certain, error error certain"},
		{"stopped at once", webSeen, []*life{(&life{}).left(0, 7).asks(160, "stop")}, "error error certain"},
		{"restarted", webSeen, []*life{(&life{}).left(0, 7).asks(1000, "stop").asks(1300, "restart"), (&life{began: 3}).left(2000, 7)}, "error error certain, error error certain"},
		{"after a signal that it handled", webSeen, []*life{(&life{}).told(0, 15).left(40000, 7).asks(45000, "stop")}, "error error certain"},
		{"restarted after a signal that it handled", webSeen, []*life{(&life{}).told(0, 15).left(40000, 7).asks(45000, "stop").asks(45300, "restart")}, "error error certain"},
		{"after a signal that it may have ended by", patient, []*life{(&life{}).told(0, 15).left(20000, 7).asks(25000, "stop")}, "stopped stopped probable"},
		{"stop -t 60", webSeen, []*life{(&life{}).told(0, 15).left(20000, 7).asks(20060, "stop")}, "stopped stopped certain"},
		{"stop, of which the beginning was not heard", webSeen, []*life{(&life{}).stopped(0, 2000, "stop").unheard()}, "stop_timeout stop-timeout certain"},
		{"killed past the engine, and stopped later", webSeen, []*life{(&life{}).killed(0).unheard().asks(9000, "stop")}, "killed killed-past-engine probable"},
		{"stop -t 2, told late", webSeen, []*life{(&life{}).stopped(0, 2000).asks(6000, "stop")}, "stop_timeout stop-timeout probable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, d := range inEveryOrder(t, tc.who, tc.want, tc.runs...) {
				for _, e := range d.Evidence {
					if d.Cause == death.Error && strings.Contains(e.Text, "done, as it was asked") {
						t.Errorf("of a run that had ended: %s", e.Text)
					}
				}
			}
		})
	}
}

// TestStops_RestartedManyTimes: each restart is told as such and is not judged
// anew by the requests of later ones, however many there are.
func TestStops_RestartedManyTimes(t *testing.T) {
	const restarts = 25
	var runs []*life
	var want []string
	for i := range restarts {
		runs = append(runs, (&life{began: i}).stopped(500*i, 10, "stop", "restart"))
		want = append(want, "stop_timeout stop-timeout probable")
	}
	var order []timed
	for _, r := range runs {
		order = append(order, r.engine...)
		order = append(order, r.kernel...)
	}
	slices.SortStableFunc(order, func(a, b timed) int { return a.ms - b.ms })
	ds := played(webSeen, order)
	if got := judged(ds); got != strings.Join(want, ", ") {
		t.Errorf("got %s", got)
	}
	for i, d := range ds {
		// More than by each line of evidence means that it was judged again for nothing.
		if d.Revision > 8 {
			t.Errorf("death %d: revision %d", i, d.Revision)
		}
		requests := 0
		for _, e := range d.Evidence {
			if strings.Contains(e.Text, "as it was asked") {
				requests++
			}
		}
		if requests != 4 {
			t.Errorf("death %d: %d requests\n%s", i, requests, sketch(ds[i:i+1]))
		}
	}
}

// inPodman is web-1 in podman, whose run began so many milliseconds after the
// scene.
func inPodman(began int) signal.ContainerSeen {
	who := webSeen
	who.Container.Runtime, who.Container.RestartCount = "podman", ptr(0)
	who.PID, who.Started = 0, epoch.Add(time.Duration(1000+began)*time.Millisecond)
	return who
}

// podmanEnds has podman tell the end of a run at ms, and the rest of it once it
// has been asked.
func (r *life) podmanEnds(ms, code, began int) *life {
	x := signal.ContainerExit{ID: webID, Runtime: "podman", Code: &code}
	full := x
	full.OOMKilled, full.Started, full.Finished = ptr(false), inPodman(began).Started, inPodman(ms-15).Started
	more := docker(ms, full)
	more.later = 300
	r.engine = append(r.engine, docker(ms, x), more)
	return r
}

// podmanRestarts has podman tell of a restart at ms.
func (r *life) podmanRestarts(ms int) *life {
	r.engine = append(r.engine, docker(ms, byPodman("restart")))
	return r
}

// podmanRuns has podman say that a run began, when it was asked at ms.
func (r *life) podmanRuns(ms, began int) *life {
	r.engine = append(r.engine, docker(ms, inPodman(began)))
	return r
}

// exits has the kernel tell of the first process' end at ms: by its own code, or
// killed by the runtime.
func (r *life) exits(ms, code int) *life {
	if code != 137 {
		r.kernel = append(r.kernel, kernel(ms, signal.Exit{Task: r.first(), Code: &code}))
		return r
	}
	runc := onHost(task(901, "runc", "/system.slice/x.service", false))
	r.kernel = append(r.kernel, kernel(ms, signal.Kill{Target: r.first(), Sender: runc, Signal: 9}), kernel(ms, signal.Exit{Task: r.first(), Signal: ptr(9)}))
	return r
}

// TestStops_PodmanRestarts: podman tells of a restart on request as it begins,
// and of one by the restart policy when the run is over: the same word.
func TestStops_PodmanRestarts(t *testing.T) {
	unknown := inPodman(0)
	unknown.Started = time.Time{}
	for _, tc := range []struct {
		name string
		who  signal.ContainerSeen
		runs []*life
		want string
	}{
		{"by the policy", inPodman(-500), []*life{
			(&life{}).exits(0, 9).podmanEnds(16, 9, -500).podmanRestarts(400),
			(&life{began: 3}).exits(840, 9).podmanEnds(1020, 9, 841).podmanRestarts(1270),
			(&life{began: 6}).exits(2000, 9).podmanEnds(2020, 9, 1990),
		}, "error error certain, error error certain, error error certain"},
		{"on request", inPodman(-500), []*life{
			(&life{}).podmanRestarts(0).exits(8, 137).podmanEnds(70, 137, -500).podmanRuns(400, 390),
			(&life{began: 3}).podmanRestarts(450).exits(460, 137).podmanEnds(520, 137, 390).podmanRuns(900, 800),
			(&life{began: 6}).exits(1500, 4).podmanEnds(1520, 4, 800),
		}, "stop_timeout stop-timeout certain, stop_timeout stop-timeout certain, error error certain"},
		{"on request, after ten seconds", inPodman(-500), []*life{(&life{}).podmanRestarts(0).exits(10000, 137).podmanEnds(10060, 137, -500).podmanRuns(10400, 10390)}, "stop_timeout stop-timeout certain"},
		{"on request, in time", inPodman(-500), []*life{(&life{}).podmanRestarts(0).exits(3000, 0).podmanEnds(3060, 0, -500).podmanRuns(3400, 3390)}, "stopped stopped certain"},
		{"on request, when it had ended", inPodman(-500), []*life{
			(&life{}).exits(0, 3).podmanEnds(16, 3, -500).podmanRestarts(1000).podmanRuns(1300, 1290),
			(&life{began: 3}).exits(1500, 3).podmanEnds(1516, 3, 1290),
		}, "error error certain, error error certain"},
		{"not known whether it ran", unknown, []*life{(&life{}).podmanRestarts(0).exits(8, 137).podmanEnds(70, 137, 4000)}, "unknown killed-by-runtime possible"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inEveryOrder(t, tc.who, tc.want, tc.runs...)
		})
	}
}

// TestStops_PodmanRestartedManyTimes is TestStops_RestartedManyTimes of podman.
func TestStops_PodmanRestartedManyTimes(t *testing.T) {
	var order []timed
	var want []string
	for i := range 25 {
		ms := 500 * i
		r := (&life{began: i}).podmanRestarts(ms).exits(ms+8, 137).podmanEnds(ms+70, 137, ms-110).podmanRuns(ms+400, ms+390)
		order, want = slices.Concat(order, r.engine, r.kernel), append(want, "stop_timeout stop-timeout certain")
	}
	slices.SortStableFunc(order, func(a, b timed) int { return a.ms - b.ms })
	if got := judged(played(inPodman(-110), order)); got != strings.Join(want, ", ") {
		t.Errorf("got %s", got)
	}
}

// TestStops_RunsBeforeTheEngine: what was of a run that ended before the engine told
// of the container is not of the next: an OOM kill, nor what it wrote.
func TestStops_RunsBeforeTheEngine(t *testing.T) {
	l := &agentRuns{t: t, q: New(Options{BootID: "b1"}), now: epoch}
	for _, src := range []death.Source{"tracepoint", "cgroup", "docker"} {
		l.say(src, l.now, signal.SourceState{Up: true})
	}
	child := task(101, "worker", webPath, false)
	for _, b := range oomKill(child, child, level(webPath, 40*mib, 40*mib)) {
		l.say("tracepoint", l.now, b)
	}
	l.pass(3 * time.Second)
	ended := l.now
	l.say("tracepoint", ended, signal.Exit{Task: task(100, "app", webPath, true), Code: ptr(3)})
	l.pass(200 * time.Millisecond)
	l.say("docker", l.now, logSeen())
	l.pass(20 * time.Second)
	l.q.TakeWants()
	l.say("tracepoint", l.now, signal.Exit{Task: task(200, "app", webPath, true), Code: ptr(3)})
	for _, w := range l.q.TakeWants() {
		if w.Kind == WantLog && !w.Since.Equal(ended.Add(drained)) {
			t.Errorf("the log is asked for since %v, want just after %v", w.Since, ended)
		}
	}
	l.pass(10 * time.Second)
	const line = "the OOM killer had killed in the container"
	if len(l.deaths) != 3 || said(l.deaths[1], line) != 1 || said(l.deaths[2], line) != 0 {
		t.Errorf("got:\n%s", sketch(l.deaths))
	}
}
