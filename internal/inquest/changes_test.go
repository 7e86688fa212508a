// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// dated is a signal of its own time, however late it comes.
type dated struct {
	at   time.Duration // before (-) or after the death
	src  death.Source
	body signal.Body
}

// told plays signals in this order, all of them within a second, and gives the
// one death.
func told(t *testing.T, said []dated) death.Death {
	t.Helper()
	died := epoch.Add(2 * time.Hour)
	var sigs []signal.Signal
	setup := []dated{
		{0, "docker", signal.SourceState{Up: true}}, {0, "tracepoint", signal.SourceState{Up: true}}, {0, "cgroup", signal.SourceState{Up: true}},
		{0, "cgroup", seen(7, webPath, 32*mib, 100)},
	}
	for i, s := range append(setup, said...) {
		sigs = append(sigs, signal.Signal{
			Time: died.Add(s.at), Observed: died.Add(max(s.at, 0) + time.Duration(i)*time.Millisecond), Source: s.src, Body: s.body,
		})
	}
	return only(t, ticking(New(Options{}), recorded(t, sigs)...))
}

// recorded is what a file of these signals gives back: a replay says the same.
func recorded(t *testing.T, sigs []signal.Signal) []signal.Signal {
	t.Helper()
	var file bytes.Buffer
	w, err := signal.NewWriter(&file, signal.Header{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sigs {
		if err := w.Write(s); err != nil {
			t.Fatal(err)
		}
	}
	r, err := signal.NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	var out []signal.Signal
	for range sigs {
		s, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

// changesOf are the lines that tell of changes.
func changesOf(d death.Death) []string {
	var out []string
	for _, e := range d.Evidence {
		if strings.Contains(e.Text, "memory limit") && !strings.Contains(e.Text, "inferred") || strings.HasPrefix(e.Text, "deployed") {
			out = append(out, fmt.Sprintf("%s: %s", e.Source, e.Text))
		}
	}
	return out
}

func limited(c signal.ContainerSeen, limit int64) signal.ContainerSeen {
	c.LimitBytes = &limit
	return c
}

func webWith(id, image string, limit int64) signal.ContainerSeen {
	c := limited(webSeen, limit)
	c.Container.ID, c.Container.Image, c.PID = id, image, 0
	return c
}

const oldID = "0ddba11e5e7b2d4c6f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6"

// TestChanges_AnyOrder: what changed before a death is in its evidence, with
// the old and the new value and how long before, whatever comes first.
func TestChanges_AnyOrder(t *testing.T) {
	v := task(100, "app", webPath, true)
	kill := oomKill(v, v, level(webPath, 32*mib, 32*mib))
	died := epoch.Add(2 * time.Hour)
	const s = time.Second
	report := reported(100, "app", webPath, webPath, 32*mib, 32*mib)
	for _, tc := range []struct {
		name string
		said []dated
		want []string
	}{
		{"docker update", []dated{
			{-600 * s, "docker", limited(webSeen, 64*mib)}, {-12 * s, "docker", limited(webSeen, 32*mib)},
			{0, "tracepoint", kill[0]}, {0, "tracepoint", kill[1]}, {0, "kmsg", report}, {10 * time.Millisecond, "docker", webExit(137, true)},
		}, []string{"docker: the memory limit was changed from 64 MiB to 32 MiB, 12.0 s before"}},
		{"docker update and back", []dated{
			{-600 * s, "docker", limited(webSeen, 64*mib)}, {-500 * s, "docker", limited(webSeen, 32*mib)}, {-100 * s, "docker", limited(webSeen, 64*mib)},
			{-300 * time.Millisecond, "docker", limited(webSeen, 32*mib)}, {0, "tracepoint", kill[0]}, {0, "tracepoint", kill[1]},
		}, []string{
			"docker: the memory limit was changed from 64 MiB to 32 MiB, 8 min before", "docker: the memory limit was changed from 32 MiB to 64 MiB, 100.0 s before",
			"docker: the memory limit was changed from 64 MiB to 32 MiB, 300 ms before",
		}},
		{"the kernel kills while it is lowered", []dated{
			{-600 * s, "docker", limited(webSeen, 64*mib)}, {5 * time.Millisecond, "docker", limited(webSeen, 32*mib)},
			{0, "tracepoint", kill[0]}, {0, "tracepoint", kill[1]},
		}, []string{"docker: the memory limit was changed from 64 MiB to 32 MiB, at the same time"}},
		{"raised because of it", []dated{
			{-600 * s, "docker", limited(webSeen, 32*mib)}, {s, "docker", limited(webSeen, 64*mib)},
			{0, "tracepoint", kill[0]}, {0, "tracepoint", kill[1]},
		}, nil},
		{"long ago", []dated{
			{-7000 * s, "docker", limited(webSeen, 64*mib)}, {-4000 * s, "docker", limited(webSeen, 32*mib)},
			{0, "tracepoint", kill[0]}, {0, "tracepoint", kill[1]},
		}, nil},
		{"another engine that knows what was configured first", []dated{
			{-600 * s, "docker", limited(webSeen, 32*mib)}, {0, "tracepoint", kill[0]}, {0, "tracepoint", kill[1]},
			{-590 * s, "containerd", limited(webSeen, 64*mib)}, {-10 * s, "containerd", limited(webSeen, 48*mib)},
		}, nil},
		{"another image", []dated{
			{-600 * s, "docker", webWith(oldID, "shop/web:2", 32*mib)}, {-42 * s, "docker", webWith(webID, "shop/web:3", 32*mib)},
			{0, "tracepoint", kill[0]}, {0, "tracepoint", kill[1]},
		}, []string{"docker: deployed 42.0 s before, in place of container 0ddba11e5e7b: image shop/web:2 before, shop/web:3 since"}},
		{"another limit", []dated{
			{-600 * s, "docker", webWith(oldID, "shop/web:3", 64*mib)}, {-590 * s, "docker", signal.ContainerGone{ID: oldID}},
			{-42 * s, "docker", webWith(webID, "shop/web:3", 32*mib)}, {0, "tracepoint", kill[0]}, {0, "tracepoint", kill[1]},
		}, []string{"docker: deployed 42.0 s before, in place of container 0ddba11e5e7b: memory limit 64 MiB before, 32 MiB since"}},
		{"both, and the limit again", []dated{
			{-600 * s, "docker", webWith(oldID, "shop/web:2", 128*mib)}, {-42 * s, "docker", webWith(webID, "shop/web:3", 64*mib)},
			{-2 * s, "docker", webWith(webID, "shop/web:3", 32*mib)}, {0, "tracepoint", kill[0]}, {0, "tracepoint", kill[1]},
		}, []string{
			"docker: deployed 42.0 s before, in place of container 0ddba11e5e7b: image shop/web:2 before, shop/web:3 since; memory limit 128 MiB before, 64 MiB since",
			"docker: the memory limit was changed from 64 MiB to 32 MiB, 2.0 s before",
		}},
		{"made anew as it was", []dated{
			{-600 * s, "docker", webWith(oldID, "shop/web:3", 32*mib)}, {-42 * s, "docker", webWith(webID, "shop/web:3", 32*mib)},
			{0, "tracepoint", kill[0]}, {0, "tracepoint", kill[1]},
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			permute(len(tc.said), func(order []int) {
				var said []dated
				last := map[death.Source]int{}
				for _, i := range order {
					if before, ok := last[tc.said[i].src]; ok && before > i {
						return // a source tells its own things in their order
					}
					last[tc.said[i].src] = i
					said = append(said, tc.said[i])
				}
				d := told(t, said)
				if diff := cmp.Diff(tc.want, changesOf(d)); diff != "" {
					t.Fatalf("order %v (-want +got):\n%s%s", order, diff, sketch([]death.Death{d}))
				}
				if d.Time.Sub(died) > 10*time.Millisecond || d.Cause != death.OOMContainerLimit {
					t.Fatalf("order %v:\n%s", order, sketch([]death.Death{d}))
				}
				lowered := slices.ContainsFunc(d.Advice, func(a string) bool { return strings.HasPrefix(a, "The limit was 64 MiB until ") })
				if want := strings.Contains(strings.Join(tc.want, ""), "from 64 MiB to 32 MiB") || tc.name == "another limit"; lowered != want {
					t.Fatalf("advice %q, of a lowered limit: %v", d.Advice, want)
				}
			})
		})
	}
}

// TestChanges_ByTheCgroup: a limit that was written past the engine is known by
// what the recorder read, and by what the kernel says with the kill.
func TestChanges_ByTheCgroup(t *testing.T) {
	const s = time.Second
	v := task(100, "app", webPath, true)
	died := epoch.Add(2 * time.Hour)
	read := func(first, last time.Duration, bytes int64) signal.LimitReading {
		r := signal.LimitReading{First: died.Add(first), Last: died.Add(last)}
		if bytes > 0 {
			r.Bytes = &bytes
		}
		return r
	}
	for _, tc := range []struct {
		name   string
		kill   int64 // the limit that the kernel gives with it; 0: none
		engine int64 // what an engine told 4 s before; 0: nothing
		runs   []signal.LimitReading
		want   []string
	}{
		{"read before the kill", 32 * mib, 0, []signal.LimitReading{read(-600*s, -40*s, 64*mib), read(-10*s, s/10, 32*mib)},
			[]string{"cgroup: the memory limit was changed from 64 MiB to 32 MiB, between 40.0 s and 10.0 s before"}},
		{"read after the kill", 32 * mib, 0, []signal.LimitReading{read(-600*s, -5*s, 64*mib), read(s/10, s/10, 32*mib)},
			[]string{"cgroup: the memory limit was changed from 64 MiB to 32 MiB, at most 5.0 s before"}},
		{"the kernel alone saw it", 32 * mib, 0, []signal.LimitReading{read(-600*s, -5*s, 64*mib)},
			[]string{"cgroup: the memory limit was changed from 64 MiB to 32 MiB, at most 5.0 s before"}},
		{"the engine told it too", 32 * mib, 32 * mib, []signal.LimitReading{read(-600*s, -5*s, 64*mib), read(-2*s, s, 32*mib)},
			[]string{"docker: the memory limit was changed from 64 MiB to 32 MiB, 4.0 s before"}},
		{"set where there was none", 32 * mib, 0, []signal.LimitReading{read(-600*s, -5*s, 0), read(-2*s, s, 32*mib)},
			[]string{"cgroup: a memory limit of 32 MiB was set where there was none, between 5.0 s and 2.0 s before"}},
		{"read while it was made", 32 * mib, 0, []signal.LimitReading{read(-9*s, -8*s, 0), read(-7*s, s, 32*mib)}, nil},
		{"raised after the kill", 32 * mib, 0, []signal.LimitReading{read(-600*s, -s, 32*mib), read(s, s, 64*mib)}, nil},
		{"not changed", 32 * mib, 0, []signal.LimitReading{read(-600*s, s, 32*mib)}, nil},
		{"nothing was read", 32 * mib, 0, nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			said := []dated{{-1000 * s, "docker", webSeen}}
			if tc.engine > 0 {
				said[0].body = limited(webSeen, 64*mib)
				said = append(said, dated{-4 * s, "docker", limited(webSeen, tc.engine)})
			}
			for _, b := range oomKill(v, v, level(webPath, tc.kill, tc.kill)) {
				said = append(said, dated{0, "tracepoint", b})
			}
			h := history(webPath, 5, died)
			h.Limits = tc.runs
			said = append(said, dated{s, "cgroup", signal.NodeCounters{}}, dated{s, "cgroup", h})
			d := told(t, said)
			if d.Memory == nil || len(d.Memory.Samples) == 0 {
				t.Fatalf("the recorder's word was not taken:\n%s", sketch([]death.Death{d}))
			}
			if diff := cmp.Diff(tc.want, changesOf(d)); diff != "" {
				t.Errorf("(-want +got):\n%s%s", diff, sketch([]death.Death{d}))
			}
		})
	}
}

// TestChanges_Deploys: who came before whom, over renames, replicas and those
// that were made anew since.
func TestChanges_Deploys(t *testing.T) {
	const s = time.Second
	ids := []string{strings.Repeat("a", 64), strings.Repeat("b", 64), strings.Repeat("c", 64), strings.Repeat("d", 64)}
	made := func(at time.Duration, i int, name, image string, w *death.Workload) dated {
		return dated{at, "docker", signal.ContainerSeen{Container: death.Container{ID: ids[i], Name: name, Runtime: "docker", Image: image, Workload: w}, State: "running", PID: 100 + i}}
	}
	ecs := func(name string) *death.Workload {
		return &death.Workload{Kind: death.WorkloadECS, Group: "cart", Name: name}
	}
	compose := &death.Workload{Kind: death.WorkloadCompose, Group: "shop", Name: "web"}
	for _, tc := range []struct {
		name string
		said []dated
		want string // "": none. The last one dies.
	}{
		{"made anew twice since", []dated{made(-600*s, 0, "x", "x:1", nil), made(-90*s, 1, "x", "x:2", nil), made(-60*s, 2, "x", "x:2", nil), made(-30*s, 3, "x", "x:2", nil)},
			"deployed 90.0 s before, in place of container aaaaaaaaaaaa: image x:1 before, x:2 since"},
		{"renamed away", []dated{made(-600*s, 0, "x", "x:1", nil), made(-90*s, 0, "x-old", "x:1", nil), made(-60*s, 3, "x", "x:2", nil)},
			"deployed 60.0 s before, in place of container aaaaaaaaaaaa: image x:1 before, x:2 since"},
		{"compose names it at last", []dated{made(-600*s, 0, "shop-web-1", "x:1", compose), made(-60*s, 3, "aaaaaaaaaaaa_shop-web-1", "x:2", compose), made(-58*s, 3, "shop-web-1", "x:2", compose)},
			"deployed 60.0 s before, in place of container aaaaaaaaaaaa: image x:1 before, x:2 since"},
		{"another replica is no deploy", []dated{made(-600*s, 0, "shop-web-1", "x:1", compose), made(-60*s, 3, "shop-web-2", "x:2", compose)}, ""},
		{"ECS: each task has another name", []dated{made(-600*s, 0, "ecs-cart-1-w-ab", "x:1", ecs("w")), made(-60*s, 1, "ecs-cart-2-w-cd", "x:2", ecs("w")), made(-50*s, 3, "ecs-cart-2-w-ef", "x:2", ecs("w"))},
			"deployed 60.0 s before, in place of container aaaaaaaaaaaa: image x:1 before, x:2 since"},
		{"another container of the task", []dated{made(-600*s, 0, "ecs-cart-1-w-ab", "x:1", ecs("w")), made(-60*s, 3, "ecs-cart-1-log-cd", "y:1", ecs("log"))}, ""},
		{"told by a list, the newer first", []dated{made(-60*s, 3, "x", "x:2", nil), made(-600*s, 0, "x", "x:1", nil)}, ""},
		{"another build under one name", []dated{
			{-600 * s, "docker", signal.ContainerSeen{Container: death.Container{ID: ids[0], Name: "x", Runtime: "docker", Image: "x", ImageID: "sha256:" + strings.Repeat("1", 64)}}},
			{-60 * s, "docker", signal.ContainerSeen{Container: death.Container{ID: ids[3], Name: "x", Runtime: "docker", Image: "x", ImageID: "sha256:" + strings.Repeat("2", 64)}}},
		}, "deployed 60.0 s before, in place of container aaaaaaaaaaaa: image x (111111111111) before, x (222222222222) since"},
		{"one build by another name", []dated{
			{-600 * s, "docker", signal.ContainerSeen{Container: death.Container{ID: ids[0], Name: "x", Runtime: "docker", Image: "x:1", ImageID: "sha256:" + strings.Repeat("1", 64)}}},
			{-60 * s, "docker", signal.ContainerSeen{Container: death.Container{ID: ids[3], Name: "x", Runtime: "docker", Image: "x:2", ImageID: "sha256:" + strings.Repeat("1", 64)}}},
		}, ""},
		{"hostile names", []dated{made(-600*s, 0, "x", "\x1b[2J\n", nil), made(-60*s, 3, "x", "x\u202e", nil)},
			`deployed 60.0 s before, in place of container aaaaaaaaaaaa: image \x1b[2J\x0a before, x\u202e since`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := told(t, append(tc.said, dated{0, "docker", signal.ContainerExit{ID: ids[3], Runtime: "docker", Code: ptr(3)}}))
			var got string
			for _, e := range d.Evidence {
				if strings.HasPrefix(e.Text, "deployed") {
					got = e.Text
				}
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			advised := slices.ContainsFunc(d.Advice, func(a string) bool { return strings.HasPrefix(a, "It runs another image since ") })
			if advised != (tc.want != "") {
				t.Errorf("advice %q", d.Advice)
			}
		})
	}
}

// TestChanges_AreBounded: names and changes beyond the bounds go, the oldest first.
func TestChanges_AreBounded(t *testing.T) {
	x := newTenants(time.Hour)
	see := func(i int, name string, limit int64) {
		x.see(signal.Signal{Source: "docker", Time: epoch.Add(time.Duration(i) * time.Millisecond)},
			signal.ContainerSeen{Container: death.Container{ID: fmt.Sprint("c", i), Name: name}, LimitBytes: &limit})
	}
	for i := range maxSeries + 500 {
		see(i, fmt.Sprint("n", i), 1)
	}
	if n := len(x.names); n > maxSeries {
		t.Errorf("%d names kept, want at most %d", n, maxSeries)
	}
	for i := range 50 {
		see(20000+i, "one", int64(i))
		see(20000, "one", int64(i))
	}
	n := 0
	for p := x.names["name\x00\x00\x00\x00one"]; p != nil; p = p.before {
		n++
	}
	if n == 0 || n > maxPast+1 {
		t.Errorf("%d of one name kept, want at most %d", n, maxPast+1)
	}
	if c := x.byKey["c20000"].changes; len(c) != maxChanges || c[maxChanges-1].to != 49 {
		t.Errorf("changes kept: %+v", c)
	}
}
