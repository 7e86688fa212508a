// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

const usersPath = "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + webID + ".scope"

// ofUserEngine is what the engine of a user says.
func ofUserEngine(sc *scene, user string, b signal.Body) signal.Signal {
	s := sc.sig("docker", b)
	s.User = user
	return s
}

// lies are what a hostile engine can say of a container.
func lies(namespace, id string) []signal.Body {
	return []signal.Body{
		signal.ContainerSeen{
			Namespace: namespace, State: "running", PID: 100, LogPath: "/etc/shadow", LimitBytes: ptr(int64(1)), Sandbox: true,
			Container: death.Container{
				ID: id, Name: "evil", Runtime: "podman", Image: "evil:1", Cgroup: "/system.slice/nginx.service",
				Labels: map[string]string{composeProject: "evil"}, Pod: &death.Pod{Namespace: "evil", Name: "evil"},
			},
		},
		signal.ContainerStop{Namespace: namespace, ID: id, Runtime: "podman", Signal: 9, Action: "kill"},
		signal.ContainerOOM{Namespace: namespace, ID: id, Runtime: "podman"},
		signal.ContainerExit{Namespace: namespace, ID: id, Runtime: "podman", Code: ptr(0), OOMKilled: ptr(false), PID: 100},
		signal.ContainerGone{Namespace: namespace, ID: id, Runtime: "podman"},
	}
}

// TestBelieve_UsersEngine: the engine that a user runs names no container of
// another engine, nor one whose cgroup is not the user's, whoever speaks first.
func TestBelieve_UsersEngine(t *testing.T) {
	kill := oomKill(task(100, "app", webPath, true), task(100, "app", webPath, true), level(webPath, 32*mib, 32*mib))
	named := func(name string) signal.ContainerSeen {
		return signal.ContainerSeen{Container: death.Container{ID: webID, Name: name, Runtime: "containerd", Image: "shop/web:3"}}
	}
	lie := func(sc *scene, user string) []signal.Signal {
		var out []signal.Signal
		for _, b := range lies("", webID) {
			out = append(out, ofUserEngine(sc, user, b))
		}
		return out
	}
	for _, tc := range []struct {
		name string
		play func(sc *scene) [][]signal.Signal
	}{
		{"containerd told of it", func(sc *scene) [][]signal.Signal {
			return [][]signal.Signal{{sc.sig("containerd", named("web-1"))}, {sc.sig("cgroup", seen(7, webPath, 32*mib, 100))}, lie(sc, "1000")}
		}},
		{"the user's spoke first", func(sc *scene) [][]signal.Signal {
			return [][]signal.Signal{lie(sc, "1000"), {sc.sig("containerd", named("web-1"))}, {sc.sig("cgroup", seen(7, webPath, 32*mib, 100))}}
		}},
		{"no engine told of it", func(sc *scene) [][]signal.Signal {
			return [][]signal.Signal{{sc.sig("cgroup", seen(7, webPath, 32*mib, 100))}, lie(sc, "1000")}
		}},
		{"its cgroup is seen later", func(sc *scene) [][]signal.Signal {
			return [][]signal.Signal{lie(sc, "1000")[:1], {sc.sig("cgroup", seen(7, webPath, 32*mib, 100))}, lie(sc, "1000")}
		}},
		{"no number of a user", func(sc *scene) [][]signal.Signal {
			return [][]signal.Signal{{sc.sig("cgroup", seen(7, webPath, 32*mib, 100))}, lie(sc, "unknown")}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			sigs := append(sources(sc, "tracepoint", "cgroup", "docker", "containerd"), slices.Concat(tc.play(sc)...)...)
			for _, b := range kill {
				sigs = append(sigs, sc.sig("tracepoint", b))
			}
			sigs = append(sigs, lie(sc, "1000")...)
			var d *death.Death
			for _, got := range ticking(q, sigs...) {
				if got.OOM != nil {
					d = &got
				}
			}
			if d == nil {
				t.Fatal("no death")
			}
			c := d.Container
			if d.Cause != death.OOMContainerLimit || c == nil || c.ID != webID || c.Runtime == "podman" || c.Name == "evil" || c.Image == "evil:1" || c.Pod != nil || len(c.Labels) > 0 {
				t.Errorf("container %+v\n%s", c, sketch([]death.Death{*d}))
			}
			for _, e := range d.Evidence {
				if e.Source == "docker" {
					t.Errorf("evidence of the user's engine: %s", e.Text)
				}
			}
			if l, key := q.Tenant("", webID); l != nil && l.Name == "evil" {
				t.Errorf("it is listed as %+v, %s", l, key)
			}
			if q.Stats().Disbelieved == 0 {
				t.Error("nothing was counted as disbelieved")
			}
		})
	}
}

// TestBelieve_UsersOwn: a user's engine names the containers of that user, but
// not those of another, and points to no file and no cgroup of others.
func TestBelieve_UsersOwn(t *testing.T) {
	for _, tc := range []struct {
		user string
		want string
	}{{"1000", "mine"}, {"1001", ""}} {
		t.Run(tc.user, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			v := task(100, "app", usersPath, true)
			mine := signal.ContainerSeen{LogPath: "/etc/shadow", PID: 100, State: "running", Container: death.Container{ID: webID, Name: "mine", Runtime: "podman", Cgroup: "/system.slice/nginx.service"}}
			sigs := append(sources(sc, "tracepoint", "cgroup", "docker"), ofUserEngine(sc, tc.user, mine), sc.sig("cgroup", seen(7, usersPath, 32*mib, 100)))
			for _, b := range oomKill(v, v, level(usersPath, 32*mib, 32*mib)) {
				sigs = append(sigs, sc.sig("tracepoint", b))
			}
			sigs = append(sigs, ofUserEngine(sc, tc.user, signal.ContainerExit{ID: webID, Runtime: "podman", Code: ptr(137), PID: 100}))
			ds := ticking(q, sigs...)
			if d := only(t, ds); d.Container == nil || d.Container.Name != tc.want || d.Cause != death.OOMContainerLimit {
				t.Errorf("got %+v\n%s", d.Container, sketch(ds))
			}
			if own := q.tenants.byKey[webID]; own.logPath != "" || own.Cgroup != "" || q.tenants.at("/system.slice/nginx.service") != nil {
				t.Errorf("the user's engine is believed its log %q and cgroup %q", own.logPath, own.Cgroup)
			}
		})
	}
}

// TestAbandon: a container that the engine whose names count cannot speak for
// any more is gone when no other has it and its cgroup is.
func TestAbandon(t *testing.T) {
	const minute = time.Minute
	down, up := signal.SourceState{Reason: "no answer"}, signal.SourceState{Up: true}
	below := signal.ContainerSeen{Namespace: "moby", Container: death.Container{ID: webID, Runtime: "docker"}}
	gone := signal.ContainerGone{Namespace: "moby", ID: webID}
	for _, tc := range []struct {
		name  string
		after []dated // the time from the beginning
		gone  bool
	}{
		{"docker goes away, containerd says that it went", []dated{{minute, "docker", down}, {2 * minute, "containerd", gone}}, true},
		{"containerd says that it went, docker goes away", []dated{{minute, "containerd", gone}, {2 * minute, "docker", down}}, true},
		{"it stopped: docker has it", []dated{{minute, "containerd", gone}}, false},
		{"containerd has it", []dated{{minute, "docker", down}}, false},
		{"both are away, it runs", []dated{{minute, "docker", down}, {minute, "containerd", down}, {minute, "cgroup", seen(7, webPath, 0, 100)}}, false},
		{"both are away, it ran", []dated{{minute, "docker", down}, {minute, "containerd", down}, {minute, "cgroup", seen(7, webPath, 0, 100)}, {2 * minute, "cgroup", signal.CgroupGone{Cgroup: signal.Cgroup{Path: webPath}}}}, true},
		{"docker comes back in time", []dated{{minute, "docker", down}, {2 * minute, "containerd", gone}, {9 * minute, "docker", up}}, false},
		{"nobody can tell whether it lives", []dated{{minute, "cgroup", down}, {minute, "docker", down}, {2 * minute, "containerd", gone}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := New(Options{})
			feed := func(at time.Duration, src death.Source, b signal.Body) {
				q.Tick(epoch.Add(at))
				q.Feed(signal.Signal{Time: epoch.Add(at), Observed: epoch.Add(at), Source: src, Body: b})
			}
			for _, src := range []death.Source{"docker", "containerd", "cgroup"} {
				feed(0, src, up)
			}
			feed(0, "docker", webSeen)
			feed(0, "containerd", below)
			for _, s := range tc.after {
				feed(s.at, s.src, s.body)
			}
			var forgotten []string
			for m := range 16 {
				q.Tick(epoch.Add(10*minute + time.Duration(m)*30*time.Second))
				forgotten = append(forgotten, q.TakeAbandoned()...)
			}
			c, _ := q.Tenant("", webID)
			if (c == nil) != tc.gone || slices.Contains(forgotten, webID) != tc.gone {
				t.Errorf("known as %+v, abandoned %q; want gone: %v", c, forgotten, tc.gone)
			}
			// Its names stay for as long as those of others that went.
			if d := q.tenants.dress(&death.Container{ID: webID}); d.Name != "web-1" {
				t.Errorf("named %q just after", d.Name)
			}
			feed(30*minute, "docker", up)
			feed(30*minute, "docker", webSeen)
			if c, _ := q.Tenant("", webID); c == nil || c.Name != "web-1" {
				t.Errorf("back again as %+v", c)
			}
		})
	}
}

// TestAbandon_NobodyEverHad: what only an end was told of takes no room for ever.
func TestAbandon_NobodyEverHad(t *testing.T) {
	q := New(Options{})
	sc := &scene{}
	for _, s := range sources(sc, "docker", "cgroup") {
		q.Feed(s)
	}
	for i := range 100 {
		q.Feed(sc.sig("docker", signal.ContainerStop{ID: fmt.Sprint("c", i), Action: "kill"}))
	}
	for m := range 30 {
		q.Tick(epoch.Add(time.Duration(m) * time.Minute))
	}
	if n := len(q.tenants.byKey); n != 0 {
		t.Errorf("%d are still known", n)
	}
}

// TestTenants_NoRoom: what there is no room for is told of in the inquest's figures.
func TestTenants_NoRoom(t *testing.T) {
	q := New(Options{})
	sc := &scene{}
	for i := range maxTenants + 10 {
		q.Feed(sc.sig("docker", signal.ContainerSeen{Container: death.Container{ID: fmt.Sprint("c", i)}}))
	}
	if n := q.Stats().NoRoom; n != 10 {
		t.Errorf("no room %d times, want 10", n)
	}
}
