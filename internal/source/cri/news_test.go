// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestSource_News: what somebody else has seen is listed at once, so that a
// container is known that is gone before the next list; a storm of news is
// no storm of lists.
func TestSource_News(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		ring := make(chan chan struct{}, 1)
		news := make(chan struct{})
		ring <- news
		call := func() {
			ch := <-ring
			close(ch)
			ring <- make(chan struct{})
		}
		f.podRuns("p1", "web")
		r := follow(t, f, Options{News: func() <-chan struct{} {
			ch := <-ring
			defer func() { ring <- ch }()
			return ch
		}})
		enginetest.Pass(5*paceLast + paceNews) // nothing happens: a list each two seconds
		f.runs("flash", "p1", 11)
		call()
		enginetest.Pass(paceNews)
		f.removed("flash")
		enginetest.Pass(2 * paceLast)
		seen := enginetest.Of[signal.ContainerSeen](r.Taken())
		if !slices.ContainsFunc(seen, func(s signal.ContainerSeen) bool {
			return s.Container.ID == "flash" && s.Container.Name == "name-flash"
		}) {
			t.Errorf("seen %+v", seen)
		}
		before := f.count("ListContainers", "")
		for range 200 { // for two seconds
			call()
			enginetest.Pass(10 * time.Millisecond)
		}
		if n := f.count("ListContainers", "") - before; n < 10 || n > 22 {
			t.Errorf("%d lists in two seconds of news", n)
		}
	})
}

// TestSource_OneSlowList: a list that took long once, on a machine that stood
// still for a while, keeps nothing from being told, be it the first or another.
func TestSource_OneSlowList(t *testing.T) {
	for _, quick := range []time.Duration{0, time.Minute} {
		t.Run(fmt.Sprint("after ", quick), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fake) {
				slow := false
				f.change(func() {
					f.before = func(_ context.Context, method, _ string) error {
						if method == "ListContainers" && slow {
							slow = false
							<-time.After(3 * time.Second)
						}
						return nil
					}
					slow = quick == 0
				})
				r := follow(t, f, Options{})
				enginetest.Pass(quick)
				if quick > 0 {
					f.change(func() { slow = true })
				}
				enginetest.Pass(3*time.Second + 2*paceLast)
				f.runs("a", "", 11)
				enginetest.Pass(paceLast + 100*time.Millisecond)
				if seen := enginetest.Of[signal.ContainerSeen](r.Taken()); len(seen) == 0 {
					t.Errorf("not told within %v", paceLast)
				}
			})
		})
	}
}
