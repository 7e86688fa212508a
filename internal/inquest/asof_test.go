// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"fmt"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestAsOf_Renamed: a death keeps the name that the container had.
func TestAsOf_Renamed(t *testing.T) {
	called := func(name string) signal.ContainerSeen {
		b := webSeen
		b.Container.Name = name
		return b
	}
	for _, tc := range []struct {
		name   string
		says   func(sc *scene) []signal.Signal
		before string
	}{
		{"after its death", func(sc *scene) []signal.Signal {
			return []signal.Signal{sc.sig("docker", called("a9new")), sc.sig("docker", webExit(3, false)), sc.sig("docker", called("a9later"))}
		}, "a9new"},
		{"before its death", func(sc *scene) []signal.Signal {
			return []signal.Signal{sc.sig("docker", called("a9old")), sc.sig("docker", called("a9new")), sc.sig("docker", webExit(3, false))}
		}, "a9new"},
		{"back and forth", func(sc *scene) []signal.Signal {
			return []signal.Signal{sc.sig("docker", called("a")), sc.sig("docker", called("b")), sc.sig("docker", webExit(3, false)), sc.sig("docker", called("a"))}
		}, "b"},
		{"named only afterwards", func(sc *scene) []signal.Signal {
			return []signal.Signal{sc.sig("docker", webExit(3, false)), sc.sig("docker", called("a")), sc.sig("docker", called("b"))}
		}, "a"},
		{"another engine names it afterwards", func(sc *scene) []signal.Signal {
			lesser := sc.sig("containerd", signal.ContainerSeen{Container: death.Container{ID: webID, Name: webID, Runtime: "containerd"}})
			return []signal.Signal{lesser, sc.sig("docker", webExit(3, false)), sc.sig("docker", called("a")), sc.sig("docker", called("b"))}
		}, "a"},
		{"an answer from before overtakes", func(sc *scene) []signal.Signal {
			first, event := sc.sig("docker", called("a")), sc.sig("docker", called("b"))
			stale := sc.sig("docker", called("a"))
			again := event
			again.Observed = stale.Observed.Add(time.Millisecond)
			return []signal.Signal{first, event, stale, again, sc.sig("docker", webExit(3, false))}
		}, "b"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			d := only(t, ticking(New(Options{}), append(sources(sc, "docker", "containerd"), tc.says(sc)...)...))
			if d.Container.Name != tc.before {
				t.Errorf("the death is of %q, want %q", d.Container.Name, tc.before)
			}
		})
	}
}

// TestAsOf_RestartLoop: each death has the restarts from before its own run,
// whichever answers of Docker there were, and never the next run's.
func TestAsOf_RestartLoop(t *testing.T) {
	const runs = 5
	for _, tc := range []struct {
		name             string
		running, waiting bool // asked while it ran, while it waited to be started
		briefly          bool // Docker notes the start after the end
		stale            bool // what it did when asked is not known
		known            bool
	}{
		{name: "asked in each run", running: true, waiting: true, known: true},
		{name: "asked only while it waits", waiting: true, known: true},
		{name: "asked only in each run", running: true, known: true},
		{name: "over at once", waiting: true, briefly: true, known: true},
		{name: "the answer is old", waiting: true, stale: true},
		{name: "never asked in time"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			sigs := dockers(sc, "tracepoint")
			var last time.Time
			seenIn := func(state string, pid, restarts int) {
				b := webSeen
				b.State, b.PID, b.Started, b.Container.RestartCount = state, pid, last, ptr(restarts)
				sigs = append(sigs, sc.sig("docker", b))
			}
			for i := range runs {
				sc.n = 1000 + 400*i
				last = epoch.Add(time.Duration(sc.n) * time.Millisecond)
				if tc.briefly {
					last = last.Add(30 * time.Millisecond)
				}
				if tc.running {
					seenIn("running", 200+i, i)
				}
				sigs = append(sigs, sc.sig("tracepoint", signal.Exit{Task: task(200+i, "app", webPath, true), Code: ptr(3)}))
				sc.n += 40
				sigs = append(sigs, sc.sig("docker", webExit(3, false)))
				switch {
				case tc.stale:
					seenIn("", 0, i+1)
				case tc.waiting && i < runs-1:
					seenIn("restarting", 0, i+1)
				case tc.waiting:
					seenIn("exited", 0, i)
				}
			}
			got, want := "", ""
			for i, d := range ticking(New(Options{}), sigs...) {
				if n := d.Container.RestartCount; n != nil {
					got += fmt.Sprint(*n, " ")
				}
				if tc.known {
					want += fmt.Sprint(i, " ")
				}
			}
			if got != want {
				t.Errorf("restarts %q, want %q", got, want)
			}
		})
	}
}

// TestTenants_Namespaces: two containers with one id, in two of containerd's
// namespaces, are told apart on the record. One that another engine names is
// found by that.
func TestTenants_Namespaces(t *testing.T) {
	in := func(namespace string) signal.ContainerSeen {
		return signal.ContainerSeen{Namespace: namespace, Container: death.Container{ID: "same", Name: "same", Runtime: "containerd", Cgroup: "/" + namespace + "/same"}}
	}
	ended := func(namespace string) signal.ContainerExit {
		return signal.ContainerExit{Namespace: namespace, ID: "same", Runtime: "containerd", Code: ptr(3)}
	}
	sc := &scene{}
	sigs := append(sources(sc, "containerd", "docker"), sc.sig("containerd", in("n1")), sc.sig("containerd", in("n2")),
		sc.sig("containerd", ended("n1")), sc.sig("containerd", ended("n2")), sc.sig("containerd", ended("n3")),
		sc.sig("containerd", signal.ContainerSeen{Namespace: "moby", Container: death.Container{ID: webID, Runtime: "docker"}}),
		sc.sig("docker", webSeen), sc.sig("docker", webExit(3, false)))
	got := ""
	for _, d := range ticking(New(Options{}), sigs...) {
		got += d.Container.Namespace + "/" + d.Container.Name
		if d.Repeat != nil {
			got += fmt.Sprint(" x", d.Repeat.Count)
		}
		got += " "
	}
	if want := "n1/same n2/same n3/ /web-1 "; got != want {
		t.Errorf("deaths of %q, want %q", got, want)
	}
}
