// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

// stage is a roster with a clock, to which engines speak.
type stage struct {
	t   *testing.T
	r   *roster
	now time.Time
	who map[string]death.Container
}

func newStage(t *testing.T) *stage {
	st := &stage{t: t, r: newRoster(), now: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), who: map[string]death.Container{}}
	st.r.now = func() time.Time { return st.now }
	st.r.began = st.now
	return st
}

// again is another agent that goes on with what the first one kept.
func (st *stage) again(known ...death.Death) *stage {
	next := newStage(st.t)
	next.now, next.r.began = st.now, st.now
	maps.Copy(next.who, st.who)
	next.r.goOn(st.r.takeChanges(), known)
	return next
}

// name says who a container is.
func (st *stage) name(id, runtime, name string, pod ...string) {
	c := death.Container{ID: id, Runtime: runtime, Name: name}
	if len(pod) == 3 {
		c.Pod = &death.Pod{Namespace: pod[0], Name: pod[1], UID: pod[2]}
	}
	st.who[id] = c
}

// say feeds bodies, a millisecond apart.
func (st *stage) say(src death.Source, bodies ...signal.Body) *stage {
	for _, b := range bodies {
		st.now = st.now.Add(time.Millisecond)
		var c *death.Container
		key := ""
		switch b := b.(type) {
		case signal.ContainerSeen:
			key = b.Container.ID
			if !b.Sandbox {
				named := b.Container
				if w, ok := st.who[key]; ok {
					named = w
				}
				c = &named
			}
		case signal.ContainerExit:
			key = b.ID
		case signal.ContainerGone:
			key = b.ID
		}
		st.r.feed(signal.Signal{Time: st.now, Source: src, Body: b}, c, key)
	}
	return st
}

func byID(c *death.Container) string { return c.ID }

func (st *stage) wait(d time.Duration) *stage {
	st.now = st.now.Add(d)
	return st
}

// shown is what metrics show of a container.
func (st *stage) shown(id string) (metrics.Container, bool) {
	for _, c := range st.r.list() {
		if c.ID == id {
			return c, true
		}
	}
	return metrics.Container{}, false
}

func (st *stage) restarts(want map[string]int) {
	st.t.Helper()
	got := map[string]int{}
	for _, c := range st.r.list() {
		got[c.ID] = c.Restarts
	}
	if !maps.Equal(got, want) {
		st.t.Errorf("restarts = %v, want %v", got, want)
	}
}

func state(id, s string) signal.ContainerSeen {
	return signal.ContainerSeen{Container: death.Container{ID: id}, State: s}
}

// looked is an engine's answer about a container: the run that began at that
// second, and the engine's own count.
func (st *stage) looked(id, s string, second, count int) signal.ContainerSeen {
	b := state(id, s)
	b.Started = time.Date(2026, 3, 4, 5, 0, 0, 0, time.UTC).Add(time.Duration(second) * time.Second)
	if s == "running" {
		b.PID = 1000 + second
	}
	if count >= 0 {
		b.Container.RestartCount = &count
	}
	return b
}

func exited(id string, code int) signal.ContainerExit {
	return signal.ContainerExit{ID: id, Code: &code}
}

// now is the second of the stage's clock, as looked counts.
func (st *stage) second() int {
	st.now = st.now.Truncate(time.Second).Add(time.Second)
	return int(st.now.Sub(time.Date(2026, 3, 4, 5, 0, 0, 0, time.UTC)) / time.Second)
}

// run is a run as Docker tells it: the event of the start, and what it answers
// when it is asked about it.
func (st *stage) run(id string, count int) *stage {
	s := st.second()
	return st.say("docker", state(id, "running"), st.looked(id, "running", s, count))
}

func TestRoster_Restarts(t *testing.T) {
	for _, tc := range []struct {
		name string
		play func(st *stage)
		want int
	}{
		{"created", func(st *stage) { st.say("docker", state("a", "created")) }, 0},
		{"started", func(st *stage) { st.say("docker", state("a", "created")).run("a", 0) }, 0},
		{"runs when it is seen first", func(st *stage) { st.run("a", 0) }, 0},
		{"started again by hand", func(st *stage) {
			st.say("docker", state("a", "created")).run("a", 0).say("docker", exited("a", 0)).run("a", 0)
		}, 1},
		{"ended before it was looked at", func(st *stage) {
			s := st.second()
			st.say("docker", state("a", "running"), exited("a", 1), st.looked("a", "exited", s, 0))
			s = st.second()
			st.say("docker", state("a", "running"), exited("a", 1), st.looked("a", "exited", s, 0))
		}, 1},
		{"looked at before the event of its end", func(st *stage) {
			for range 3 {
				s := st.second()
				st.say("docker", state("a", "running"), st.looked("a", "exited", s, 0), exited("a", 1))
			}
		}, 2},
		{"an answer of the run before comes late", func(st *stage) {
			s := st.second()
			st.say("docker", state("a", "running"), exited("a", 1))
			late := st.looked("a", "", s, 0)
			s = st.second()
			st.say("docker", state("a", "running"), late, st.looked("a", "running", s, 1))
		}, 1},
		{"paused", func(st *stage) { st.run("a", 0).say("docker", state("a", "paused"), state("a", "running")) }, 0},
		{"by its policy", func(st *stage) {
			st.run("a", 0)
			for i := range 4 {
				b := st.looked("a", "restarting", st.second()-1, i+1)
				b.Started = time.Time{}
				st.say("docker", exited("a", 1), b).run("a", i+1)
			}
		}, 4},
		{"had restarts before the first agent", func(st *stage) { st.run("a", 6) }, 6},
		{"was stopped when it was seen first, and started", func(st *stage) { st.say("docker", state("a", "exited")).run("a", 0) }, 1},
		{"was stopped when it was seen first, and is looked at later", func(st *stage) {
			s := st.second()
			st.second()
			st.say("docker", state("a", "exited"), st.looked("a", "exited", s, 0), st.looked("a", "exited", s, 0)).run("a", 0)
		}, 1},
		{"by its policy, then by hand, then by its policy", func(st *stage) {
			st.run("a", 3).say("docker", exited("a", 1)).run("a", 0).say("docker", exited("a", 1)).run("a", 1)
		}, 5},
		{"by its policy while nobody listened", func(st *stage) {
			st.run("a", 1)
			s := st.second()
			st.say("docker", st.looked("a", "running", s, 5))
			st.say("docker", signal.ContainerExit{ID: "a", Started: time.Unix(1, 0)})
		}, 5},
		{"an end told twice", func(st *stage) {
			st.run("a", 0).say("docker", exited("a", 1))
			st.r.feed(signal.Signal{Time: st.now, Source: "docker", Body: exited("a", 1)}, nil, "a")
			st.run("a", 0)
		}, 1},
		{"an end without a start", func(st *stage) { st.say("docker", state("a", "created"), exited("a", 127)).run("a", 0) }, 0},
		{"by the pid alone", func(st *stage) {
			for i := range 3 {
				b := state("a", "running")
				b.PID = 100 + i
				st.say("containerd", b, b)
				if i == 1 {
					st.say("containerd", signal.ContainerExit{ID: "a", PID: 101})
				}
			}
		}, 2},
		{"two engines tell the same", func(st *stage) {
			for i := range 4 {
				b := state("a", "running")
				b.PID = 100 + i
				st.say("containerd", b).run("a", -1).say("containerd", exited("a", 1)).say("docker", exited("a", 1))
			}
		}, 3},
		{"two engines, of which one goes on where the other is silent", func(st *stage) {
			for i := range 4 {
				b := state("a", "running")
				b.PID = 100 + i
				st.say("containerd", b, exited("a", 1))
			}
			for range 4 {
				st.run("a", -1).say("docker", exited("a", 1))
			}
		}, 3 + 3}, // the first that the second tells is taken for the last that is known
		{"an engine that comes later", func(st *stage) {
			for i := range 3 {
				b := state("a", "running")
				b.PID = 100 + i
				st.say("containerd", b, exited("a", 1))
			}
			b := state("a", "running")
			b.PID = 104
			st.say("containerd", b).run("a", -1)
		}, 3},
		{"a count that cannot be", func(st *stage) { st.run("a", -5).run("a", 1<<62) }, maxRestarts},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := newStage(t)
			tc.play(st)
			st.restarts(map[string]int{"a": tc.want})
		})
	}
}

// TestRoster_RestartsOfAPodsContainer: each restart has another id.
func TestRoster_RestartsOfAPodsContainer(t *testing.T) {
	st := newStage(t)
	attempt := func(n int) string {
		id := fmt.Sprint("id-", n)
		st.name(id, "containerd", "app", "prod", "web-0", "u1")
		return id
	}
	cri := func(id, s string, n int) signal.ContainerSeen {
		b := state(id, s)
		b.Container.RestartCount = &n
		return b
	}
	// The dead one and the living one are listed in any order.
	first, second := attempt(4), attempt(5)
	st.say("cri", cri(second, "running", 5), cri(first, "exited", 4))
	st.restarts(map[string]int{first: 5, second: 5})
	st = newStage(t)
	first, second = attempt(4), attempt(5)
	st.say("cri", cri(first, "exited", 4), cri(second, "running", 5))
	st.restarts(map[string]int{first: 5, second: 5})

	// A restart shows on the id that was there, and on the new one.
	third := attempt(6)
	st.say("cri", exited(second, 137), cri(third, "created", 6))
	st.say("cri", cri(third, "running", 6), signal.ContainerGone{ID: first})
	st.restarts(map[string]int{first: 6, second: 6, third: 6})
	// One that was removed does not change any more.
	fourth := attempt(7)
	st.say("cri", cri(fourth, "running", 7))
	st.restarts(map[string]int{first: 6, second: 7, third: 7, fourth: 7})

	// Without the engine's own count.
	st = newStage(t)
	for i := range 4 {
		b := state(attempt(i), "running")
		b.PID = 50 + i
		st.say("containerd", b, exited(attempt(i), 1))
	}
	st.restarts(map[string]int{"id-0": 3, "id-1": 3, "id-2": 3, "id-3": 3})

	// Another pod of that name is another pod, and so is another container.
	st.name("new", "containerd", "app", "prod", "web-0", "u2")
	st.name("side", "containerd", "side", "prod", "web-0", "u1")
	st.say("containerd", state("new", "running"), state("side", "running"))
	st.restarts(map[string]int{"id-0": 3, "id-1": 3, "id-2": 3, "id-3": 3, "new": 0, "side": 0})
}

// TestRoster_PodNameComesLater: what was counted before goes along.
func TestRoster_PodNameComesLater(t *testing.T) {
	st := newStage(t)
	for _, id := range []string{"a", "b"} {
		st.say("containerd", state(id, "running"), exited(id, 1), state(id, "running"))
	}
	st.restarts(map[string]int{"a": 1, "b": 1})
	for _, id := range []string{"a", "b"} {
		st.name(id, "containerd", "app", "prod", "web", "u")
		st.say("containerd", state(id, "running"))
	}
	st.restarts(map[string]int{"a": 3, "b": 3}) // four runs
}

// TestRoster_OverAnotherRun: an agent goes on from where the one before it
// was, and counts what the engine counted in between.
func TestRoster_OverAnotherRun(t *testing.T) {
	st := newStage(t)
	st.run("a", 3).say("docker", exited("a", 1)).run("a", 0)
	st.restarts(map[string]int{"a": 4})
	st.run("b", 0)
	next := st.again()
	s := next.second()
	next.say("docker", state("a", "running"), state("b", "running")) // the list
	next.restarts(map[string]int{"a": 4, "b": 0})
	next.say("docker", next.looked("a", "running", s, 2), next.looked("b", "running", s, 0)) // its policy, twice
	next.restarts(map[string]int{"a": 6, "b": 0})
	if got := next.r.takeChanges(); len(got) != 2 || got[stateRestarts+"a"] == "" || got[stateRestarts+"b"] == "" {
		t.Errorf("to be kept: %q, want what a counts, and when b began", got)
	}
	if got := next.r.takeChanges(); got != nil {
		t.Errorf("to be kept again: %q", got)
	}

	// What nobody has any more is forgotten, also in the history.
	gone := next.again()
	gone.r.goOn(map[string]string{stateRestarts + "x": `{"restarts":3}`, stateRestarts + "bad": `{"restarts":-3}`, stateRestarts + "worse": "null\x00"}, nil)
	if got := gone.r.takeChanges(); got != nil {
		t.Errorf("at once: %q", got)
	}
	gone.wait(keepUnclaimed)
	if got := gone.r.takeChanges(); len(got) != 1 || got[stateRestarts+"x"] != "" {
		t.Errorf("after an hour: %q, want x forgotten", got)
	}
}

// TestRoster_StartedWhileAway: a start of which the engine keeps no count, as by
// hand, is known by the time at which the run began.
func TestRoster_StartedWhileAway(t *testing.T) {
	for _, tc := range []struct {
		name string
		// counts are the engine's own: before, and when the next agent asks.
		before, after int
		then          func(st *stage, was, now int)
		want          int
	}{
		{"it runs on", 0, 0, func(st *stage, was, _ int) { st.say("docker", st.looked("a", "running", was, 0)) }, 0},
		{"by hand", 0, 0, func(st *stage, _, now int) { st.say("docker", st.looked("a", "running", now, 0)) }, 1},
		{"by hand, and it has ended", 0, 0, func(st *stage, _, now int) { st.say("docker", st.looked("a", "exited", now, 0)) }, 1},
		{"the list comes first", 0, 0, func(st *stage, _, now int) {
			st.say("docker", state("a", "running"), st.looked("a", "running", now, 0))
		}, 1},
		{"it is asked twice", 0, 0, func(st *stage, _, now int) {
			st.say("docker", st.looked("a", "running", now, 0), st.looked("a", "running", now, 0))
		}, 1},
		{"by the engine's policy", 0, 1, func(st *stage, _, now int) { st.say("docker", st.looked("a", "running", now, 1)) }, 1},
		{"by its policy, twice", 1, 3, func(st *stage, _, now int) { st.say("docker", st.looked("a", "running", now, 3)) }, 3},
		{"by hand, and then by its policy", 2, 1, func(st *stage, _, now int) { st.say("docker", st.looked("a", "running", now, 1)) }, 4},
		{"two engines tell", 0, 0, func(st *stage, _, now int) {
			st.say("docker", st.looked("a", "running", now, 0)).say("containerd", st.looked("a", "running", now, -1))
		}, 1},
		{"two engines tell, and list first", 0, 0, func(st *stage, _, now int) {
			st.say("docker", state("a", "running"), st.looked("a", "running", now, 0))
			st.say("containerd", state("a", "running"), st.looked("a", "running", now, -1))
		}, 1},
		{"once more, after it is back", 0, 0, func(st *stage, _, now int) {
			st.say("docker", state("a", "running"), st.looked("a", "running", now, 0), exited("a", 1)).run("a", 0)
		}, 2},
		{"first of all after it is back", 0, 0, func(st *stage, was, _ int) {
			st.say("docker", st.looked("a", "exited", was, 0)).run("a", 0)
		}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := newStage(t)
			was := st.second()
			st.say("docker", state("a", "running"), st.looked("a", "running", was, tc.before)).say("containerd", st.looked("a", "running", was, -1))
			st.restarts(map[string]int{"a": tc.before})
			st.wait(time.Minute)
			now := st.second()
			next := st.wait(time.Minute).again()
			tc.then(next, was, now)
			next.restarts(map[string]int{"a": tc.want})

			third := next.wait(time.Minute).again() // nothing happens meanwhile
			third.say("docker", state("a", "running"))
			third.restarts(map[string]int{"a": tc.want})
		})
	}
}

// TestRoster_StartedWhileAwayOfAPod: the kubelet counts all starts, each with an
// id of its own.
func TestRoster_StartedWhileAwayOfAPod(t *testing.T) {
	st := newStage(t)
	st.name("a", "containerd", "app", "prod", "web", "u")
	st.say("cri", st.looked("a", "running", st.second(), 0))
	st.wait(time.Minute)
	now := st.second()
	next := st.wait(time.Minute).again()
	next.name("b", "containerd", "app", "prod", "web", "u")
	next.say("cri", next.looked("b", "running", now, 1))
	next.restarts(map[string]int{"b": 1})
}

// TestRoster_CountDoesNotJump: what was shown goes up by what happens alone.
func TestRoster_CountDoesNotJump(t *testing.T) {
	st := newStage(t)
	s := st.second()
	st.say("docker", state("a", "running"))
	st.restarts(map[string]int{"a": 0}) // a scrape
	st.say("docker", st.looked("a", "running", s, 7))
	st.restarts(map[string]int{"a": 0})
	st.say("docker", exited("a", 1)).run("a", 8)
	st.restarts(map[string]int{"a": 1})
}

func TestRoster_ExitCode(t *testing.T) {
	died := func(at time.Time, code, sig int, recovered bool) []death.Death {
		d := death.Death{Subject: death.SubjectContainer, Time: at, Container: &death.Container{ID: "a"}, Exit: &death.Exit{}, Recovered: recovered}
		if sig > 0 {
			d.Exit.Signal = &sig
		} else {
			d.Exit.Code = &code
		}
		return []death.Death{d}
	}
	weak := func(code int) signal.ContainerSeen {
		b := state("a", "exited")
		b.ExitCode = &code
		return b
	}
	for _, tc := range []struct {
		name string
		play func(st *stage)
		want int
	}{
		{"not yet", func(*stage) {}, 0},
		{"an engine's", func(st *stage) { st.say("docker", exited("a", 3)) }, 3},
		{"the last", func(st *stage) { st.say("docker", exited("a", 3), state("a", "running"), exited("a", 4)) }, 4},
		{"a clean one", func(st *stage) { st.say("docker", exited("a", 3), state("a", "running"), exited("a", 0)) }, 0},
		{"not known", func(st *stage) { st.say("docker", exited("a", 3), signal.ContainerExit{ID: "a"}) }, 3},
		{"the kernel's", func(st *stage) { st.r.died(died(st.now, 5, 0, false), byID) }, 5},
		{"the kernel's, by a signal", func(st *stage) { st.r.died(died(st.now, 0, 9, false), byID) }, 137},
		{"the kernel's of an earlier run comes late", func(st *stage) {
			at := st.now
			st.say("docker", exited("a", 3))
			st.r.died(died(at, 9, 0, false), byID)
		}, 3},
		{"stopped when it is first seen", func(st *stage) { st.say("docker", weak(2)) }, 2},
		{"the list is of an end that was told", func(st *stage) { st.say("docker", exited("a", 3), weak(2)) }, 3},
		{"recovered, then listed", func(st *stage) { st.r.died(died(st.now, 9, 0, true), byID); st.say("docker", weak(2)) }, 2},
		{"a process of it was killed", func(st *stage) {
			d := died(st.now, 9, 0, false)
			d[0].Subject = death.SubjectProcess
			st.r.died(d, byID)
		}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := newStage(t)
			st.say("docker", state("a", "running"))
			tc.play(st)
			if c, ok := st.shown("a"); !ok || c.ExitCode != tc.want {
				t.Errorf("exit code = %d, %v; want %d", c.ExitCode, ok, tc.want)
			}
		})
	}
	t.Run("of an earlier run of the agent", func(t *testing.T) {
		st := newStage(t)
		st = st.again(died(st.now, 7, 0, false)[0], died(st.now.Add(-time.Hour), 8, 0, false)[0])
		st.say("docker", state("a", "running"))
		if c, _ := st.shown("a"); c.ExitCode != 7 {
			t.Errorf("exit code = %d, want 7", c.ExitCode)
		}
	})
}

// TestRoster_Life: a container is listed as long as its cgroup or an engine
// has it, and five minutes more as one that was removed.
func TestRoster_Life(t *testing.T) {
	st := newStage(t)
	check := func(what string, listed, removed bool) {
		t.Helper()
		c, ok := st.shown("a")
		if ok != listed || c.Removed != removed {
			t.Errorf("%s: listed %v, removed %v; want %v, %v", what, ok, c.Removed, listed, removed)
		}
	}
	in := death.Container{ID: "a", Cgroup: "/docker/a"}
	cgroup := func(b signal.Body) { st.r.feed(signal.Signal{Time: st.now, Source: "cgroup", Body: b}, &in, "a") }
	cgroup(signal.CgroupSeen{Level: signal.Level{Cgroup: signal.Cgroup{Path: in.Cgroup}}})
	check("its cgroup is there", true, false)
	st.name("a", "docker", "web")
	st.say("docker", state("a", "running"))
	if c, _ := st.shown("a"); c.Name != "web" {
		t.Errorf("name = %q", c.Name)
	}
	cgroup(signal.CgroupGone{Cgroup: signal.Cgroup{Path: in.Cgroup}})
	check("stopped", true, false)
	st.say("docker", signal.ContainerGone{ID: "a"})
	check("removed", true, true)
	st.wait(keepRemoved - time.Minute)
	check("lately", true, true)
	st.wait(time.Minute)
	check("after five minutes", false, false)
	if len(st.r.byKey)+len(st.r.byPath)+len(st.r.graves)+len(st.r.stories) != 0 {
		t.Errorf("left: %+v", st.r)
	}

	cgroup(signal.CgroupSeen{Level: signal.Level{Cgroup: signal.Cgroup{Path: in.Cgroup}}})
	cgroup(signal.CgroupGone{Cgroup: signal.Cgroup{Path: in.Cgroup}})
	check("no engine has it", true, true)
	st.wait(time.Minute)
	cgroup(signal.CgroupSeen{Level: signal.Level{Cgroup: signal.Cgroup{Path: in.Cgroup}}})
	check("came back", true, false)
	st.wait(2 * keepRemoved)
	check("and stays", true, false)

	sandbox := state("a", "running")
	sandbox.Sandbox = true
	st.say("docker", sandbox)
	check("it only holds a pod's namespaces", false, false)
}

// TestRoster_IsBounded: containers that come and go leave nothing behind.
func TestRoster_IsBounded(t *testing.T) {
	st := newStage(t)
	for i := range maxRemoved + 500 {
		id := fmt.Sprint(i)
		st.say("docker", state(id, "running"), exited(id, 1), state(id, "running"), signal.ContainerGone{ID: id})
	}
	if n := len(st.r.list()); n != maxRemoved {
		t.Errorf("%d listed, want %d", n, maxRemoved)
	}
	st.wait(keepRemoved)
	st.r.takeChanges()
	if r := st.r; len(r.byKey)+len(r.byPath)+len(r.graves)+len(r.stories)+len(r.changed)+len(r.list()) != 0 {
		t.Errorf("left: %d containers, %d graves, %d stories, %d changes", len(r.byKey), len(r.graves), len(r.stories), len(r.changed))
	}
}

// TestRoster_AnySignals: whatever engines say, in any order, counts of what is
// shown do not go down, and nothing is left in the end.
func TestRoster_AnySignals(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		st := newStage(t)
		ids := []string{"a", "b", "c", strings.Repeat("d", 64)}
		pods := [][]string{nil, {"ns\n\"", "pod\xff", "u"}, {"ns", strings.Repeat("p", 256), ""}}
		last := map[string]int{}
		named := map[string]int{}
		for range 300 {
			id := ids[rnd.IntN(len(ids))]
			if _, ok := named[id]; !ok {
				named[id] = rnd.IntN(len(pods))
			}
			st.name(id, "docker", "app", pods[named[id]]...)
			b := st.looked(id, []string{"", "created", "running", "paused", "restarting", "exited", "dead", "?"}[rnd.IntN(8)], rnd.IntN(1000), rnd.IntN(9)-1)
			if rnd.IntN(2) == 0 {
				b.Started = time.Time{}
			}
			var body signal.Body = b
			switch rnd.IntN(8) {
			case 0:
				body = exited(id, rnd.IntN(256))
			case 1:
				body = signal.ContainerGone{ID: id}
			}
			st.say([]death.Source{"docker", "containerd", "cri"}[rnd.IntN(3)], body)
			if rnd.IntN(20) == 0 {
				for _, c := range st.r.list() {
					if c.Restarts < last[c.ID] {
						t.Fatalf("seed %d: restarts of %.10s went from %d to %d", seed, c.ID, last[c.ID], c.Restarts)
					}
					last[c.ID] = c.Restarts
				}
			}
		}
		for _, id := range ids {
			st.say("docker", signal.ContainerGone{ID: id})
		}
		st.wait(keepRemoved)
		st.r.takeChanges()
		if r := st.r; len(r.list())+len(r.stories)+len(r.graves)+len(r.changed) != 0 {
			t.Fatalf("seed %d: left %d stories, %d graves, %d changes", seed, len(r.stories), len(r.graves), len(r.changed))
		}
	}
}
