// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

// shelf holds deaths, newest first, and counts how many were asked for.
type shelf struct {
	asked
	deaths []death.Death
	given  int
}

func (s *shelf) newest(_ context.Context, _ api.Query, n int) ([]death.Death, error) {
	out := s.deaths
	if n > 0 {
		out = out[:min(n, len(out))]
	}
	s.given += len(out)
	return out, nil
}

// fallen is the n-th death of a container by one cause, a minute after the one
// before it.
func fallen(name string, n int) death.Death {
	begun := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	d := death.Death{
		Time: begun.Add(time.Duration(n-1) * time.Minute), Cause: death.OOMContainerLimit,
		Container: &death.Container{ID: strings.Repeat("ab", 32), Name: name, Runtime: "docker"},
	}
	if n > 1 {
		d.Repeat = &death.Repeat{Count: n, First: begun, Last: d.Time}
	}
	return d
}

func TestFold(t *testing.T) {
	with := func(d death.Death, change func(*death.Death)) death.Death {
		c := *d.Container
		d.Container = &c
		change(&d)
		return d
	}
	pod := func(name string) func(*death.Death) {
		return func(d *death.Death) { d.Container.Pod = &death.Pod{Namespace: "shop", Name: name} }
	}
	task := func(d *death.Death) {
		d.Container.Workload = &death.Workload{Kind: death.WorkloadECS, Group: "shop", Name: "web"}
	}
	for _, tc := range []struct {
		name   string
		deaths []death.Death
		want   []int
	}{
		{"one container", []death.Death{fallen("a", 3), fallen("a", 2), fallen("a", 1)}, []int{0}},
		{"two of them, in turn", []death.Death{fallen("a", 3), fallen("b", 3), fallen("a", 2), fallen("b", 2), fallen("b", 1)}, []int{0, 1}},
		{"another cause", []death.Death{fallen("a", 3), with(fallen("a", 2), func(d *death.Death) { d.Cause = death.Killed })}, []int{0, 1}},
		{"another node", []death.Death{fallen("a", 3), with(fallen("a", 2), func(d *death.Death) { d.Node = "n2" })}, []int{0, 1}},
		{"another runtime", []death.Death{fallen("a", 3), with(fallen("a", 2), func(d *death.Death) { d.Container.Runtime = "podman" })}, []int{0, 1}},
		{"another pod", []death.Death{with(fallen("a", 3), pod("p1")), with(fallen("a", 2), pod("p2"))}, []int{0, 1}},
		{"a task of each name", []death.Death{with(fallen("a", 3), task), with(fallen("b", 2), task)}, []int{0}},
		{"Compose makes it anew", []death.Death{fallen("a", 3), fallen("abababababab_a", 2)}, []int{0}},
		{"before its story", []death.Death{fallen("a", 3), with(fallen("a", 1), func(d *death.Death) { d.Time = d.Time.Add(-time.Hour) })}, []int{0, 1}},
		{"no story", []death.Death{with(fallen("a", 3), func(d *death.Death) { d.Repeat = nil }), fallen("a", 1)}, []int{0, 1}},
		{"of nobody", []death.Death{{Time: time.Unix(9, 0)}, {Time: time.Unix(8, 0)}}, []int{0, 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for i := range tc.deaths {
				tc.deaths[i].ID = fmt.Sprint(i)
			}
			var got []string
			for _, d := range fold(tc.deaths) {
				got = append(got, d.ID)
			}
			var want []string
			for _, i := range tc.want {
				want = append(want, fmt.Sprint(i))
			}
			if !slices.Equal(got, want) {
				t.Errorf("told %v, want %v", got, want)
			}
		})
	}
}

// TestStories_FillTheListing: behind one that dies all the time the others are
// listed as well, and no more is asked for than there is a bound.
func TestStories_FillTheListing(t *testing.T) {
	var loud []death.Death
	for n := 10 * maxFolded; n > 0; n-- {
		loud = append(loud, fallen("loud", n))
	}
	with := func(n int, more ...death.Death) *shelf {
		return &shelf{deaths: append(slices.Clone(loud[:n]), more...)}
	}
	for _, tc := range []struct {
		name        string
		from        *shelf
		limit       int
		want, bound int
	}{
		{"others behind it", with(300, fallen("b", 1), fallen("c", 1)), 50, 3, 2 * maxFolded},
		{"no more lines than asked for", with(30, fallen("b", 1), fallen("c", 1)), 2, 2, 2 * maxFolded},
		{"nobody else within the bound", with(10 * maxFolded), 50, 1, 2 * maxFolded},
		{"more than the bound is asked for", with(10 * maxFolded), 3 * maxFolded, 1, 3 * maxFolded},
		{"all", with(300, fallen("b", 1)), 0, 2, 301},
		{"none", with(0), 50, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := stories{tc.from}.newest(t.Context(), api.Query{}, tc.limit)
			if err != nil || len(got) != tc.want || tc.from.given > tc.bound {
				t.Errorf("%d lines of %d deaths, %v; want %d of at most %d", len(got), tc.from.given, err, tc.want, tc.bound)
			}
		})
	}
}
