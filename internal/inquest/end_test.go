// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

const (
	webID   = "5d1f0c2b9a8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a392817060504"
	webPath = "/docker/" + webID
)

var webSeen = signal.ContainerSeen{
	Container: death.Container{ID: webID, Name: "web-1", Runtime: "docker", Image: "shop/web:3", Labels: map[string]string{"com.docker.compose.service": "web"}},
	PID:       100, State: "running",
}

// dockers is a scene with Docker and the kernel's sources, in which web-1 runs.
func dockers(sc *scene, more ...death.Source) []signal.Signal {
	return append(sources(sc, append([]death.Source{"docker"}, more...)...), sc.sig("docker", webSeen))
}

func webExit(code int, flag bool) signal.ContainerExit {
	return signal.ContainerExit{ID: webID, Runtime: "docker", Code: &code, OOMKilled: &flag}
}

func asked(n int, action string) signal.ContainerStop {
	return signal.ContainerStop{ID: webID, Runtime: "docker", Signal: n, Action: action}
}

// byPodman is podman's word that it has done something.
func byPodman(action string) signal.ContainerStop {
	return signal.ContainerStop{ID: webID, Runtime: "podman", Action: action}
}

// saying is what one source says.
type saying struct {
	src  death.Source
	body signal.Body
}

// TestEnd_AnyOrder plays what the sources say of one end of a container, in
// each order that they can come in: it is always one death with the same
// cause, the container's name and its exit.
func TestEnd_AnyOrder(t *testing.T) {
	first, child := task(100, "app", webPath, true), task(101, "worker", webPath, false)
	runc := onHost(task(901, "runc", "/system.slice/containerd.service", false))
	person := onHost(task(902, "bash", "/user.slice/user-0.slice/session-3.scope", false))
	oom := func(v signal.Task) []saying {
		b := oomKill(v, v, level(webPath, 40*mib, 40*mib))
		return []saying{{"tracepoint", b[0]}, {"tracepoint", b[1]}}
	}
	sigkilled := saying{"tracepoint", signal.Exit{Task: first, Signal: ptr(9)}}
	for _, tc := range []struct {
		name   string
		says   []saying
		cause  death.Cause
		rule   string
		exit   string
		agrees bool
	}{
		{"S1 first process OOM-killed", append(oom(first), sigkilled, saying{"docker", webExit(137, true)}, saying{"kmsg", reported(100, "app", webPath, webPath, 40*mib, 40*mib)}),
			death.OOMContainerLimit, "container-limit", "137 9 OOMKilled", true},
		{"S4 the engine does not know of it", append(oom(first), sigkilled, saying{"docker", webExit(137, false)}),
			death.OOMContainerLimit, "container-limit", "137 9 Error", false},
		{"S1 by log and engine alone", []saying{{"kmsg", reported(100, "app", webPath, webPath, 40*mib, 40*mib)}, {"docker", webExit(137, true)}},
			death.OOMContainerLimit, "container-limit", "137 - OOMKilled", true},
		{"S1 by counter and engine alone", []saying{{"cgroup", signal.CgroupCounters{Cgroup: signal.Cgroup{Path: webPath}, OOMKill: 1, Chain: []signal.Level{level(webPath, 40*mib, -1)}}}, {"docker", webExit(137, true)}},
			death.OOMContainerLimit, "limit-not-named", "137 - OOMKilled", true},
		{"S3 the child is OOM-killed, the first process leaves", append(oom(child), saying{"tracepoint", signal.Exit{Task: first, Code: ptr(7)}}, saying{"docker", webExit(7, true)}),
			death.OOMContainerLimit, "container-limit", "7 - OOMKilled", true},
		{"S10 kill -9 by a person", []saying{{"tracepoint", signal.Kill{Target: first, Sender: person, Signal: 9}}, sigkilled, {"docker", webExit(137, false)}},
			death.Killed, "killed", "137 9 Error", true},
		{"S11 stopped in time", []saying{{"docker", asked(15, "kill")}, {"tracepoint", signal.Exit{Task: first, Code: ptr(143)}}, {"docker", webExit(143, false)}, {"docker", asked(0, "stop")}},
			death.Stopped, "stopped", "143 - Error", true},
		{"S11 not in time", []saying{{"docker", asked(15, "kill")}, {"docker", asked(9, "kill")}, {"tracepoint", signal.Kill{Target: first, Sender: runc, Signal: 9}}, sigkilled, {"docker", webExit(137, false)}, {"docker", asked(0, "stop")}},
			death.StopTimeout, "stop-timeout", "137 9 Error", true},
		{"S11 not in time, podman, which tells only that it is done", []saying{{"tracepoint", signal.Kill{Target: first, Sender: runc, Signal: 9}}, sigkilled, {"docker", byPodman("stop")}, {"docker", webExit(137, false)}},
			death.StopTimeout, "stop-timeout", "137 9 Error", true},
		{"S11 in time, podman", []saying{{"tracepoint", signal.Exit{Task: first, Code: ptr(5)}}, {"docker", byPodman("stop")}, {"docker", webExit(5, false)}},
			death.Stopped, "stopped", "5 - Error", true},
		{"docker kill", []saying{{"docker", asked(9, "kill")}, {"tracepoint", signal.Kill{Target: first, Sender: runc, Signal: 9}}, sigkilled, {"docker", webExit(137, false)}},
			death.Killed, "killed-on-request", "137 9 Error", true},
		{"a runtime that was not asked", []saying{{"tracepoint", signal.Kill{Target: first, Sender: runc, Signal: 9}}, sigkilled, {"docker", webExit(137, false)}},
			death.Killed, "killed-past-engine", "137 9 Error", true},
		{"S14 segfault", []saying{{"tracepoint", signal.Exit{Task: first, Signal: ptr(11)}}, {"docker", webExit(139, false)}},
			death.Segfault, "segfault", "139 11 Error", true},
		{"S10 kill -TERM by a person", []saying{{"tracepoint", signal.Kill{Target: first, Sender: person, Signal: 15}}, {"tracepoint", signal.Exit{Task: first, Code: ptr(0)}}, {"docker", webExit(0, false)}},
			death.Killed, "told-to-end", "0 - Completed", true},
		{"SIGSEGV by a person", []saying{{"tracepoint", signal.Kill{Target: first, Sender: person, Signal: 11}}, {"tracepoint", signal.Exit{Task: first, Signal: ptr(11)}}, {"docker", webExit(139, false)}},
			death.Killed, "told-to-end", "139 11 Error", true},
		{"completed", []saying{{"tracepoint", signal.Exit{Task: first, Code: ptr(0)}}, {"docker", webExit(0, false)}},
			death.Completed, "completed", "0 - Completed", true},
		{"error", []saying{{"tracepoint", signal.Exit{Task: first, Code: ptr(3)}}, {"docker", webExit(3, false)}},
			death.Error, "error", "3 - Error", true},
		{"two engines", []saying{{"tracepoint", signal.Exit{Task: first, Code: ptr(3)}}, {"docker", webExit(3, false)}, {"containerd", signal.ContainerExit{ID: webID, Runtime: "containerd", Code: ptr(3)}}},
			death.Error, "error", "3 - Error", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			permute(len(tc.says), func(order []int) {
				if !tellable(tc.says, order) {
					return
				}
				sc := &scene{}
				sigs := dockers(sc, "tracepoint", "kmsg", "cgroup")
				sigs = append(sigs, sc.sig("cgroup", seen(7, webPath, 40*mib, 100)), sc.sig("cgroup", signal.NodeCounters{}))
				for _, i := range order {
					sigs = append(sigs, sc.sig(tc.says[i].src, tc.says[i].body))
				}
				q := New(Options{Node: "n1", BootID: "b1"})
				d := only(t, ticking(q, sigs...))
				exit := sketchExit(d.Exit)
				agrees := d.Exit.Agrees != nil && *d.Exit.Agrees
				got := []any{d.Subject, d.Cause, d.Rule, exit, agrees, d.Container.Name, d.Container.Image, q.Stats().Unattributed}
				want := []any{death.SubjectContainer, tc.cause, tc.rule, tc.exit, tc.agrees, "web-1", "shop/web:3", uint64(0)}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("order %v (-want +got):\n%s%s", order, diff, sketch([]death.Death{d}))
				}
			})
		})
	}
}

// tellable leaves out orders that no source gives: each tells its own things
// in their order, and a stop is asked for before the end is told by the same
// engine.
func tellable(says []saying, order []int) bool {
	last := map[death.Source]int{}
	for _, i := range order {
		if before, ok := last[says[i].src]; ok && before > i {
			return false
		}
		last[says[i].src] = i
	}
	return true
}

func sketchExit(x *death.Exit) string {
	if x == nil {
		return "none"
	}
	show := func(n *int) string {
		if n == nil {
			return "-"
		}
		return fmt.Sprint(*n)
	}
	return fmt.Sprintf("%s %s %s", show(x.Code), show(x.Signal), x.ReportedReason)
}

// TestEnd_EngineAlone: each engine is enough to tell that there was a death;
// what only the kernel knows is said to be missing.
func TestEnd_EngineAlone(t *testing.T) {
	never := signal.ContainerExit{ID: webID, Runtime: "docker", Code: ptr(127), Error: "OCI runtime create failed: exec: \"/nosuch\": no such file"}
	for _, tc := range []struct {
		name       string
		bodies     []signal.Body
		cause      death.Cause
		confidence death.Confidence
		says       string
	}{
		{"137, flagged", []signal.Body{webExit(137, true)}, death.OOMContainerLimit, death.Possible, "calls it OOM-killed"},
		{"137, not flagged", []signal.Body{webExit(137, false)}, death.Unknown, death.Possible, "no source has told"},
		{"139", []signal.Body{webExit(139, false)}, death.Segfault, death.Probable, "SIGSEGV"},
		{"143 that nobody asked for", []signal.Body{webExit(143, false)}, death.Killed, death.Probable, "SIGTERM"},
		{"0, flagged for a child", []signal.Body{webExit(0, true)}, death.Completed, death.Certain, "exit code 0"},
		{"never ran", []signal.Body{never}, death.StartFailed, death.Certain, "/nosuch"},
		{"SIGHUP is no stop, and may be why", []signal.Body{asked(1, "kill"), webExit(1, false)}, death.Error, death.Probable, "asked to send it SIGHUP"},
		{"stopped, as podman tells it", []signal.Body{webExit(143, false), byPodman("stop")}, death.Stopped, death.Certain, "asked to stop"},
		{"restarted", []signal.Body{asked(15, "kill"), webExit(0, false), asked(0, "restart")}, death.Stopped, death.Certain, "asked to restart"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			sigs := dockers(sc)
			for _, b := range tc.bodies {
				sigs = append(sigs, sc.sig("docker", b))
			}
			d := only(t, ticking(New(Options{}), sigs...))
			if d.Cause != tc.cause || d.Confidence != tc.confidence || d.Subject != death.SubjectContainer || !strings.Contains(d.Summary, tc.says) || d.Container.Name != "web-1" {
				t.Errorf("got:\n%s", sketch([]death.Death{d}))
			}
		})
	}
}

// TestEnd_ByRuntime: where no engine tells of requests, the signals that the
// runtime sent tell of a stop.
func TestEnd_ByRuntime(t *testing.T) {
	first := task(100, "app", leftPath, true)
	runc := onHost(task(901, "runc", "/system.slice/containerd.service", false))
	fake := onHost(task(902, "runc", rightPth, false))
	inside := runc
	inside.PIDNS = 4026532000
	term := func(by signal.Task) signal.Body { return signal.Kill{Target: first, Sender: by, Signal: 15} }
	for _, tc := range []struct {
		name   string
		bodies []signal.Body
		cause  death.Cause
		rule   string
	}{
		{"in time", []signal.Body{term(runc), signal.Exit{Task: first, Code: ptr(143)}}, death.Stopped, "stopped-by-runtime"},
		{"too late", []signal.Body{term(runc), signal.Kill{Target: first, Sender: runc, Signal: 9}, signal.Exit{Task: first, Signal: ptr(9)}}, death.StopTimeout, "stop-timeout-by-runtime"},
		{"too late, as the program has no handler", []signal.Body{signal.Kill{Target: first, Sender: runc, Signal: 15, Result: signal.ResultIgnored},
			signal.Kill{Target: first, Sender: runc, Signal: 9}, signal.Exit{Task: first, Signal: ptr(9)}}, death.StopTimeout, "stop-timeout-by-runtime"},
		{"by itself, after a signal that it did not get", []signal.Body{signal.Kill{Target: first, Sender: runc, Signal: 15, Result: signal.ResultIgnored},
			signal.Exit{Task: first, Code: ptr(3)}}, death.Error, "error"},
		{"a container that calls itself runc", []signal.Body{term(fake), signal.Exit{Task: first, Code: ptr(143)}}, death.Killed, "told-to-end"},
		{"another pid namespace", []signal.Body{term(inside), signal.Exit{Task: first, Code: ptr(143)}}, death.Killed, "told-to-end"},
		{"SIGHUP to read its configuration", []signal.Body{signal.Kill{Target: first, Sender: runc, Signal: 1}, signal.Exit{Task: first, Code: ptr(1)}}, death.Error, "error"},
		{"its own", []signal.Body{term(first), signal.Exit{Task: first, Code: ptr(1)}}, death.Error, "error"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			sigs := sources(sc, "tracepoint")
			for _, b := range tc.bodies {
				sigs = append(sigs, sc.sig("tracepoint", b))
			}
			d := only(t, ticking(New(Options{}), sigs...))
			if d.Cause != tc.cause || d.Rule != tc.rule || d.Cause == death.Killed && (d.Killer == nil || d.Killer.Signal != 15) {
				t.Errorf("got:\n%s", sketch([]death.Death{d}))
			}
		})
	}
}

// TestEnd_OOMDaemon: what earlyoom or systemd-oomd kill is their doing, also a
// worker or a host process; a container that calls itself so is a killer like
// any other.
func TestEnd_OOMDaemon(t *testing.T) {
	early := onHost(task(700, "earlyoom", "/system.slice/earlyoom.service", false))
	fake := task(701, "earlyoom", rightPth+"/system.slice/earlyoom.service", false)
	first, worker, host := task(100, "app", leftPath, true), task(101, "worker", leftPath, false), task(102, "browser", "/user.slice/user-1000.slice/session-2.scope", false)
	for _, tc := range []struct {
		name    string
		by, of  signal.Task
		cause   death.Cause
		subject death.Subject
		deaths  int
	}{
		{"a container's first process", early, first, death.OOMUserspace, death.SubjectContainer, 1},
		{"a worker", early, worker, death.OOMUserspace, death.SubjectProcess, 1},
		{"a host process", early, host, death.OOMUserspace, death.SubjectProcess, 1},
		{"by a container that calls itself so", fake, first, death.Killed, death.SubjectContainer, 1},
		{"of a worker by such a one", fake, worker, "", "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			sigs := append(sources(sc, "tracepoint"), sc.sig("tracepoint", signal.Kill{Target: tc.of, Sender: tc.by, Signal: 9}),
				sc.sig("tracepoint", signal.Exit{Task: tc.of, Signal: ptr(9)}))
			ds := ticking(New(Options{}), sigs...)
			if len(ds) != tc.deaths {
				t.Fatalf("deaths = %d, want %d\n%s", len(ds), tc.deaths, sketch(ds))
			}
			for _, d := range ds {
				if d.Cause != tc.cause || d.Subject != tc.subject || d.Killer.PID != tc.by.PID || d.OOMKills() != 0 {
					t.Errorf("got:\n%s", sketch(ds))
				}
			}
		})
	}
	t.Run("process by process", func(t *testing.T) {
		sc := &scene{}
		sigs := sources(sc, "tracepoint")
		for _, v := range []signal.Task{worker, first} {
			sigs = append(sigs, sc.sig("tracepoint", signal.Kill{Target: v, Sender: early, Signal: 9}), sc.sig("tracepoint", signal.Exit{Task: v, Signal: ptr(9)}))
		}
		if d := only(t, ticking(New(Options{}), sigs...)); len(d.Processes) != 2 || d.Subject != death.SubjectContainer {
			t.Errorf("got:\n%s", sketch([]death.Death{d}))
		}
	})
}

// TestEnd_SurvivedKillThenEndedWell: OOMKilled of a container that ended well
// later is the flag of a child's kill: two deaths, and the engine contradicted.
func TestEnd_SurvivedKillThenEndedWell(t *testing.T) {
	sc := &scene{}
	child, first := task(101, "worker", webPath, false), task(100, "app", webPath, true)
	sigs := dockers(sc, "tracepoint")
	for _, b := range oomKill(child, child, level(webPath, 40*mib, 40*mib)) {
		sigs = append(sigs, sc.sig("tracepoint", b))
	}
	sigs = append(sigs, sc.sig("tracepoint", signal.Exit{Task: first, Code: ptr(0)}), sc.sig("docker", webExit(0, true)))
	ds := ticking(New(Options{}), sigs...)
	if len(ds) != 2 {
		t.Fatalf("deaths = %d, want 2\n%s", len(ds), sketch(ds))
	}
	if ds[0].Subject != death.SubjectProcess || ds[0].Cause != death.OOMContainerLimit || ds[0].Container.Name != "web-1" {
		t.Errorf("the child's:\n%s", sketch(ds[:1]))
	}
	if ds[1].Cause != death.Completed || ds[1].Exit.Agrees == nil || *ds[1].Exit.Agrees {
		t.Errorf("the container's, agrees %v:\n%s", ds[1].Exit.Agrees, sketch(ds[1:]))
	}
}

// TestEnd_RestartLoop: the same container ends ten times, a second apart, told
// by the kernel and later by the engine: ten deaths, each told by both.
func TestEnd_RestartLoop(t *testing.T) {
	for _, gap := range []int{100, 1000, 10000} {
		for _, pids := range []bool{true, false} {
			t.Run(fmt.Sprint(gap, " ms apart, pids ", pids), func(t *testing.T) {
				sc := &scene{}
				sigs := dockers(sc, "tracepoint")
				for i := range 10 {
					sc.n = 1000 + i*gap
					sigs = append(sigs, sc.sig("tracepoint", signal.Exit{Task: task(200+i, "app", webPath, true), Code: ptr(i + 1)}))
					sc.n += min(gap/2, 40)
					x := webExit(i+1, false)
					if pids {
						x.PID = 200 + i
					}
					sigs = append(sigs, sc.sig("docker", x))
				}
				ds := ticking(New(Options{}), sigs...)
				if len(ds) != 10 {
					t.Fatalf("deaths = %d, want 10\n%s", len(ds), sketch(ds))
				}
				for i, d := range ds {
					if *d.Exit.Code != i+1 || d.Exit.ReportedReason != "Error" {
						t.Errorf("death %d: %s", i, sketchExit(d.Exit))
					}
				}
			})
		}
	}
}

// TestEnd_ToldOnce: an end that its engine tells once more, after its case was
// let go, or that another engine tells late, is no other death.
func TestEnd_ToldOnce(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	x := sc.sig("docker", webExit(3, false))
	sigs := append(dockers(sc, "containerd"), x)
	sc.n += 20000
	again := x
	again.Observed = sc.sig("docker", x.Body).Observed
	late := sc.sig("containerd", signal.ContainerExit{ID: webID, Runtime: "containerd", Code: ptr(3)})
	ds := ticking(q, sigs...)
	if more := ticking(q, again, late); len(ds) != 1 || len(more) != 0 || q.Stats().Late != 2 {
		t.Errorf("deaths = %d, late %d, want 1, 2\n%s", len(ds), q.Stats().Late, sketch(ds))
	}
}

func TestEnd_SandboxesNeverCount(t *testing.T) {
	sc := &scene{}
	pause := webSeen
	pause.Sandbox = true
	sigs := append(sources(sc, "docker", "tracepoint"), sc.sig("docker", pause),
		sc.sig("tracepoint", signal.Exit{Task: task(100, "pause", webPath, true), Code: ptr(0)}), sc.sig("docker", webExit(0, false)),
		// One that no engine has told of, in a pod.
		sc.sig("tracepoint", signal.Exit{Task: task(300, "pause", leftPath, true), Signal: ptr(15)}))
	if ds := ticking(New(Options{}), sigs...); len(ds) != 0 {
		t.Errorf("deaths:\n%s", sketch(ds))
	}
}

// TestEnd_CgroupThatNamesNoContainer: containerd's own containers live in
// cgroups that bear the name that people gave them.
func TestEnd_CgroupThatNamesNoContainer(t *testing.T) {
	const path = "/default/batch"
	sc := &scene{}
	seenThere := signal.ContainerSeen{Container: death.Container{ID: "batch", Name: "batch", Runtime: "containerd", Cgroup: path}}
	v := task(100, "leak", path, true)
	kill := oomKill(v, v, level(path, 40*mib, 40*mib))
	for _, early := range []bool{true, false} {
		t.Run(fmt.Sprint("known before ", early), func(t *testing.T) {
			sigs := sources(sc, "containerd", "tracepoint")
			if early {
				sigs = append(sigs, sc.sig("containerd", seenThere))
			}
			sigs = append(sigs, sc.sig("tracepoint", kill[0]), sc.sig("tracepoint", kill[1]))
			if !early {
				sigs = append(sigs, sc.sig("containerd", seenThere))
			}
			sigs = append(sigs, sc.sig("containerd", signal.ContainerExit{ID: "batch", Runtime: "containerd", Code: ptr(137)}))
			d := only(t, ticking(New(Options{}), sigs...))
			if d.Cause != death.OOMContainerLimit || d.Container == nil || d.Container.Name != "batch" || d.Subject != death.SubjectContainer || *d.Exit.Agrees {
				t.Errorf("got:\n%s", sketch([]death.Death{d}))
			}
		})
	}
}

// TestEnd_KilledWhereTheCgroupNamesNoContainer is S10 on containerd alone.
func TestEnd_KilledWhereTheCgroupNamesNoContainer(t *testing.T) {
	const path = "/default/batch"
	sc := &scene{}
	first, person := task(100, "app", path, true), onHost(task(902, "bash", "/user.slice/user-0.slice/session-3.scope", false))
	sigs := append(sources(sc, "containerd", "tracepoint"),
		sc.sig("containerd", signal.ContainerSeen{Namespace: "default", Container: death.Container{ID: "batch", Name: "batch", Runtime: "containerd", Cgroup: path}}),
		sc.sig("tracepoint", signal.Kill{Target: first, Sender: person, Signal: 9}),
		sc.sig("tracepoint", signal.Exit{Task: first, Signal: ptr(9)}),
		sc.sig("containerd", signal.ContainerExit{Namespace: "default", ID: "batch", Runtime: "containerd", Code: ptr(137), PID: 100}))
	d := only(t, ticking(New(Options{}), sigs...))
	if d.Cause != death.Killed || d.Confidence != death.Certain || d.Killer == nil || d.Container.Name != "batch" {
		t.Errorf("got:\n%s", sketch([]death.Death{d}))
	}
}

// TestTenants_AreBounded: containers beyond the bound are counted, and the
// removed make room.
func TestTenants_AreBounded(t *testing.T) {
	x := newTenants(time.Hour)
	for i := range maxTenants + 10 {
		x.see(signal.Signal{Source: "docker"}, signal.ContainerSeen{Container: death.Container{ID: fmt.Sprint(i)}})
	}
	if len(x.byKey) != maxTenants || x.full != 10 {
		t.Errorf("%d kept, %d refused", len(x.byKey), x.full)
	}
	for i := range maxTenants {
		x.gone("docker", signal.ContainerGone{ID: fmt.Sprint(i)}, epoch)
	}
	x.expire(epoch)
	if len(x.byKey) > maxTenants/2 {
		t.Errorf("%d kept after all were removed", len(x.byKey))
	}
}

// TestEnd_LeftWithASignalsCode: a first process of which the kernel says that
// it left was sent no signal, whatever code it chose: shells and inits pass on
// how a child ended. A stop is a stop all the same.
func TestEnd_LeftWithASignalsCode(t *testing.T) {
	first := task(100, "sh", webPath, true)
	for _, tc := range []struct {
		name       string
		asks       []signal.Body
		code       int
		cause      death.Cause
		confidence death.Confidence
		says       string
	}{
		{"137", nil, 137, death.Error, death.Certain, "sh left with exit code 137, which shells and inits give for a child killed by SIGKILL."},
		{"143", nil, 143, death.Error, death.Certain, "sh left with exit code 143, which shells and inits give for a child killed by SIGTERM."},
		{"139", nil, 139, death.Segfault, death.Probable, "sh left with exit code 139, which shells and inits give for a child killed by SIGSEGV, a segmentation fault."},
		{"a number of no deadly signal", nil, 151, death.Error, death.Certain, "sh left with exit code 151."},
		{"143, stopped", []signal.Body{asked(15, "kill")}, 143, death.Stopped, death.Certain, "left with exit code 143 (SIGTERM)"},
		{"137, stopped: a child was killed", []signal.Body{asked(15, "kill")}, 137, death.Stopped, death.Certain, "left with exit code 137 (SIGKILL)"},
		{"137, stopped in the end", []signal.Body{asked(15, "kill"), asked(9, "kill")}, 137, death.StopTimeout, death.Certain, "was killed (SIGKILL)"},
		{"137, killed on request", []signal.Body{asked(9, "kill")}, 137, death.Killed, death.Certain, "asked to kill"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			sigs := append(dockers(sc, "tracepoint", "cgroup"), sc.sig("cgroup", seen(7, webPath, 40*mib, 100)), sc.sig("cgroup", signal.NodeCounters{}))
			for i, b := range tc.asks {
				sc.n += 10000 * i // the grace period of a stop
				sigs = append(sigs, sc.sig("docker", b))
			}
			sigs = append(sigs, sc.sig("tracepoint", signal.Exit{Task: first, Code: &tc.code}), sc.sig("docker", webExit(tc.code, false)))
			if tc.cause == death.Stopped || tc.cause == death.StopTimeout {
				sigs = append(sigs, sc.sig("docker", asked(0, "stop")))
			}
			d := only(t, ticking(New(Options{}), sigs...))
			if d.Cause != tc.cause || d.Confidence != tc.confidence || !strings.Contains(d.Summary, tc.says) || strings.Contains(d.Summary, "not seen") {
				t.Errorf("got:\n%s", sketch([]death.Death{d}))
			}
			if advice := strings.Join(d.Advice, "\n"); strings.Contains(advice, "coroner doctor") {
				t.Errorf("advice %q, with tracepoints up", advice)
			}
		})
	}
}

// TestEnd_SenderNotSeen: with tracepoints up coroner doctor has nothing to add.
func TestEnd_SenderNotSeen(t *testing.T) {
	sc := &scene{}
	sigs := append(dockers(sc, "tracepoint", "cgroup"), sc.sig("cgroup", seen(7, webPath, 40*mib, 100)), sc.sig("cgroup", signal.NodeCounters{}),
		sc.sig("tracepoint", signal.Exit{Task: task(100, "app", webPath, true), Signal: ptr(15)}), sc.sig("docker", webExit(143, false)))
	d := only(t, ticking(New(Options{}), sigs...))
	if advice := strings.Join(d.Advice, "\n"); d.Rule != "signal" || strings.Contains(advice, "coroner doctor") || advice == "" {
		t.Errorf("advice %q of:\n%s", advice, sketch([]death.Death{d}))
	}
}

// TestEnd_InferredInItsOwnName: what is inferred is told in the name of who read
// the figures, not of who spoke last.
func TestEnd_InferredInItsOwnName(t *testing.T) {
	first := task(100, "app", webPath, true)
	chain := []signal.Level{level(webPath, 40*mib, 40*mib)}
	counted := signal.CgroupCounters{Cgroup: signal.Cgroup{Path: webPath}, OOMKill: 1, Chain: []signal.Level{level(webPath, 40*mib, -1)}}
	line := reported(100, "app", webPath, webPath, 40*mib, 40*mib)
	line.OOM = nil
	for _, tc := range []struct {
		name string
		says []saying
		want death.Source
	}{
		{"figures at the kill", []saying{{"tracepoint", oomKill(first, first, chain...)[0]}, {"tracepoint", oomKill(first, first, chain...)[1]}, {"docker", webExit(137, true)}}, death.SourceTracepoint},
		{"a counter", []saying{{"cgroup", counted}, {"kmsg", line}}, death.SourceCgroup},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			sigs := append(dockers(sc, "tracepoint", "kmsg", "cgroup"), sc.sig("cgroup", seen(7, webPath, 40*mib, 100)), sc.sig("cgroup", signal.NodeCounters{}))
			for _, s := range tc.says {
				sigs = append(sigs, sc.sig(s.src, s.body))
			}
			d := only(t, ticking(New(Options{}), sigs...))
			last := d.Evidence[len(d.Evidence)-1]
			if last.Source != tc.want || !strings.HasPrefix(last.Text, "inferred: ") {
				t.Errorf("got:\n%s", sketch([]death.Death{d}))
			}
		})
	}
}

// TestEnd_SharedPIDNamespace: the first process of a container with the host's
// pid namespace, or another container's, is the one that the engine names. The
// tracepoint tells nothing of its end.
func TestEnd_SharedPIDNamespace(t *testing.T) {
	person := onHost(task(902, "bash", "/user.slice/user-0.slice/session-3.scope", false))
	first, other := onHost(task(100, "app", webPath, false)), onHost(task(101, "worker", webPath, false))
	unknown := first
	unknown.Init = nil
	x := webExit(137, false)
	x.PID = 100
	oom := oomKill(first, first, level(webPath, 40*mib, 40*mib))
	for _, tc := range []struct {
		name   string
		bodies []saying
		cause  death.Cause
		killer string
	}{
		{"kill -9", []saying{{"tracepoint", signal.Kill{Target: first, Sender: person, Signal: 9}}, {"docker", x}}, death.Killed, "bash"},
		{"kill -9, told late", []saying{{"docker", x}, {"tracepoint", signal.Kill{Target: first, Sender: person, Signal: 9}}}, death.Killed, "bash"},
		{"kill -9, not told whether first", []saying{{"tracepoint", signal.Kill{Target: unknown, Sender: person, Signal: 9}}, {"docker", x}}, death.Killed, "bash"},
		{"OOM-killed", []saying{{"tracepoint", oom[0]}, {"tracepoint", oom[1]}, {"docker", x}}, death.OOMContainerLimit, ""},
		{"OOM-killed, by the log alone", []saying{{"kmsg", reported(100, "app", webPath, webPath, 40*mib, 40*mib)}, {"docker", x}}, death.OOMContainerLimit, ""},
		{"another of its processes", []saying{{"tracepoint", signal.Kill{Target: other, Sender: person, Signal: 9}}, {"docker", x}}, death.Unknown, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			sigs := dockers(sc, "tracepoint", "kmsg")
			for _, s := range tc.bodies {
				sigs = append(sigs, sc.sig(s.src, s.body))
			}
			d := only(t, ticking(New(Options{}), sigs...))
			killer, isFirst := "", len(d.Processes) == 1 && d.Processes[0].Init != nil && *d.Processes[0].Init
			if d.Killer != nil {
				killer = d.Killer.Comm
			}
			if d.Cause != tc.cause || killer != tc.killer || d.Subject != death.SubjectContainer || isFirst != (tc.cause != death.Unknown) {
				t.Errorf("killer %q, first process %v:\n%s", killer, isFirst, sketch([]death.Death{d}))
			}
		})
	}
}

// TestEnd_FlagNotSeen: what Docker says of an OOM kill is not known where it
// told the end without its flag.
func TestEnd_FlagNotSeen(t *testing.T) {
	first := task(100, "app", webPath, true)
	for _, code := range []int{137, 3, 0} {
		sc := &scene{}
		sigs := dockers(sc, "tracepoint", "kmsg", "cgroup")
		if code == 137 {
			for _, b := range oomKill(first, first, level(webPath, 40*mib, 40*mib)) {
				sigs = append(sigs, sc.sig("tracepoint", b))
			}
		}
		sigs = append(sigs, sc.sig("docker", signal.ContainerExit{ID: webID, Runtime: "docker", Code: &code}))
		d := only(t, ticking(New(Options{}), sigs...))
		if x := d.Exit; *x.Code != code || x.ReportedReason != "" || x.Agrees != nil {
			t.Errorf("%d: %s, agrees %v:\n%s", code, sketchExit(x), x.Agrees, sketch([]death.Death{d}))
		}
	}
}
