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

// remade is a container that ends n times, each time made anew with another
// id; who names it.
func remade(t *testing.T, n int, who func(i int, id string) death.Container) []death.Death {
	t.Helper()
	sc := &scene{}
	q := New(Options{})
	sigs := sources(sc, "docker")
	var last map[string]death.Death
	for i := range n {
		id := fmt.Sprintf("%064x", 0xabc000+i)
		sc.n = i * 60_000
		c := who(i, id)
		sigs = append(sigs,
			sc.sig("docker", signal.ContainerSeen{Container: c, State: "running", PID: 100 + i}),
			sc.sig("docker", signal.ContainerExit{ID: id, Runtime: c.Runtime, Code: ptr(3)}),
			sc.sig("docker", signal.ContainerGone{ID: id, Runtime: c.Runtime}))
	}
	last = map[string]death.Death{}
	var order []string
	for _, d := range play(t, q, sigs...) {
		if _, known := last[d.ID]; !known {
			order = append(order, d.ID)
		}
		last[d.ID] = d
	}
	var out []death.Death
	for _, id := range order {
		out = append(out, last[id])
	}
	return out
}

// TestInquest_RepeatsOfOneMadeAnew: what is made anew under the same names is
// one story, whatever its id.
func TestInquest_RepeatsOfOneMadeAnew(t *testing.T) {
	labels := func(service string) map[string]string {
		return map[string]string{composeProject: "shop", composeService: service}
	}
	pod := func(name string) *death.Pod { return &death.Pod{Namespace: "prod", Name: name, UID: "u-" + name} }
	for _, tc := range []struct {
		name string
		who  func(i int, id string) death.Container
		one  bool
	}{
		{"a pod's container", func(_ int, id string) death.Container {
			return death.Container{ID: id, Runtime: "containerd", Name: "app", Pod: pod("web-0")}
		}, true},
		{"a name that somebody gave", func(_ int, id string) death.Container {
			return death.Container{ID: id, Runtime: "docker", Name: "x"}
		}, true},
		{"a compose service", func(_ int, id string) death.Container {
			return death.Container{ID: id, Runtime: "docker", Name: "shop-web-1", Labels: labels("web")}
		}, true},
		{"a compose service while the next one is made", func(i int, id string) death.Container {
			name := "shop-web-1"
			if i%2 == 1 {
				name = id[:12] + "_" + name
			}
			return death.Container{ID: id, Runtime: "docker", Name: name, Labels: labels("web")}
		}, true},
		{"a container in each pod", func(i int, id string) death.Container {
			return death.Container{ID: id, Runtime: "containerd", Name: "app", Pod: pod(fmt.Sprint("web-", i))}
		}, false},
		{"replicas of a service", func(i int, id string) death.Container {
			return death.Container{ID: id, Runtime: "docker", Name: fmt.Sprint("shop-web-", i), Labels: labels("web")}
		}, false},
		{"the same name in several projects", func(i int, id string) death.Container {
			return death.Container{ID: id, Runtime: "docker", Name: "web", Labels: map[string]string{composeProject: fmt.Sprint("p", i)}}
		}, false},
		{"no names", func(_ int, id string) death.Container {
			return death.Container{ID: id, Runtime: "docker"}
		}, false},
		{"named by its id", func(_ int, id string) death.Container {
			return death.Container{ID: id, Runtime: "containerd", Name: id}
		}, false},
		{"a pod without a namespace", func(i int, id string) death.Container {
			return death.Container{ID: id, Runtime: "podman", Name: fmt.Sprint("c", i), Pod: &death.Pod{Name: "p"}}
		}, false},
		{"text that looks like a separator", func(i int, id string) death.Container {
			names := []string{"a", "a\x00b", strings.Repeat("a", 65536), "a\n\"", "\xff"}
			return death.Container{ID: id, Runtime: "docker", Name: names[i]}
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const n = 5
			ds := remade(t, n, tc.who)
			if len(ds) != n {
				t.Fatalf("deaths = %d, want %d: %s", len(ds), n, sketch(ds))
			}
			for i, d := range ds {
				switch r := d.Repeat; {
				case !tc.one || i == 0:
					if r != nil {
						t.Errorf("death %d is no repeat: %+v", i, r)
					}
				case r == nil || r.Count != i+1 || !r.First.Equal(ds[0].Time) || !r.Last.Equal(d.Time):
					t.Errorf("death %d: repeat = %+v, want count %d since %s", i, r, i+1, ds[0].Time)
				case i < 3: // minutes
					if r.PerHour != nil {
						t.Errorf("death %d: %v an hour, after %d minutes", i, *r.PerHour, i)
					}
				case r.PerHour == nil || *r.PerHour < 59 || *r.PerHour > 61: // one a minute
					t.Errorf("death %d: %v an hour, want 60", i, r.PerHour)
				}
			}
		})
	}
}

// TestInquest_RepeatsOverARestart: the deaths that the history has are part of
// the story, also those of earlier ids.
func TestInquest_RepeatsOverARestart(t *testing.T) {
	web := func(_ int, id string) death.Container {
		return death.Container{ID: id, Runtime: "docker", Name: "web"}
	}
	before := remade(t, 3, web)
	sc := &scene{}
	q := New(Options{})
	sc.n = 3 * 60_000
	q.Restore(sc.sig("docker", signal.ContainerGone{}).Time, before)
	id := strings.Repeat("d", 64)
	ds := play(t, q, append(sources(sc, "docker"),
		sc.sig("docker", signal.ContainerSeen{Container: web(0, id), State: "running", PID: 9}),
		sc.sig("docker", signal.ContainerExit{ID: id, Runtime: "docker", Code: ptr(3)}))...)
	if len(ds) == 0 {
		t.Fatal("no death")
	}
	if r := ds[len(ds)-1].Repeat; r == nil || r.Count != 4 || !r.First.Equal(before[0].Time) {
		t.Errorf("repeat = %+v, want the 4th since %s", r, before[0].Time)
	}
}

// TestInquest_RepeatsOlderThanWhatIsRestored: a story goes on from what its last
// death says of it, also where the agent begins with that one alone.
func TestInquest_RepeatsOlderThanWhatIsRestored(t *testing.T) {
	web := func(_ int, id string) death.Container {
		return death.Container{ID: id, Runtime: "docker", Name: "web"}
	}
	before := remade(t, 5, web)
	for _, tc := range []struct {
		name  string
		known []death.Death
	}{
		{"all", before},
		{"the last two", before[3:]},
		{"the last alone", before[4:]},
		{"one between is lost", []death.Death{before[1], before[4]}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{n: 5 * 60_000}
			q := New(Options{})
			q.Restore(sc.sig("docker", signal.ContainerGone{}).Time, tc.known)
			id := strings.Repeat("d", 64)
			ds := play(t, q, append(sources(sc, "docker"),
				sc.sig("docker", signal.ContainerSeen{Container: web(0, id), State: "running", PID: 9}),
				sc.sig("docker", signal.ContainerExit{ID: id, Runtime: "docker", Code: ptr(3)}))...)
			if len(ds) == 0 {
				t.Fatal("no death")
			}
			if r := ds[len(ds)-1].Repeat; r == nil || r.Count != 6 || !r.First.Equal(before[0].Time) {
				t.Errorf("repeat = %+v, want the 6th since %s", r, before[0].Time)
			}
		})
	}
}

// TestSeries_NameThatComesLater: a death that was told before its container
// had a name goes over to the story of that name, and counts once.
func TestSeries_NameThatComesLater(t *testing.T) {
	x := newSeries()
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	dead := func(id, name string, at time.Time) *death.Death {
		return &death.Death{Time: at, Cause: death.OOMContainerLimit, Container: &death.Container{ID: id, Runtime: "docker", Name: name}}
	}
	first, second, third := &caseFile{at: at}, &caseFile{at: at.Add(time.Minute)}, &caseFile{at: at.Add(2 * time.Minute)}
	x.place(first, dead("aa", "web", first.at))
	if r := x.place(second, dead("bb", "", second.at)); r != nil {
		t.Errorf("without a name = %+v, want no repeat", r)
	}
	if r := x.place(second, dead("bb", "web", second.at)); r == nil || r.Count != 2 {
		t.Errorf("with its name = %+v, want the 2nd", r)
	}
	if r := x.place(third, dead("cc", "web", third.at)); r == nil || r.Count != 3 {
		t.Errorf("the next one = %+v, want the 3rd", r)
	}
}

// TestSeries_LeftEmpty: a story that its only death has left, for another cause,
// begins anew with the next one.
func TestSeries_LeftEmpty(t *testing.T) {
	x := newSeries()
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	dead := func(cause death.Cause, at time.Time) *death.Death {
		return &death.Death{Time: at, Cause: cause, Container: &death.Container{ID: "aa", Runtime: "docker", Name: "web"}}
	}
	first, second, third := &caseFile{at: at}, &caseFile{at: at.Add(24 * time.Hour)}, &caseFile{at: at.Add(25 * time.Hour)}
	x.place(first, dead(death.Error, first.at))
	x.place(first, dead(death.HeapLimit, first.at))
	x.place(second, dead(death.Error, second.at))
	r := x.place(third, dead(death.Error, third.at))
	if r == nil || r.Count != 2 || !r.First.Equal(second.at) || r.PerHour == nil || *r.PerHour != 1 {
		t.Errorf("repeat = %+v, want the 2nd since %s, 1 an hour", r, second.at)
	}
}
