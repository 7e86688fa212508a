// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"errors"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/watch"
)

// TestHear_Ends: with the watch ends what passes it on, however it ends; one that
// is cut off before it said anything is no answer, one that was stopped says nothing.
func TestHear_Ends(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(from *watch.FakeWatcher, h *heard)
		want []error
	}{
		{"cut off", func(from *watch.FakeWatcher, _ *heard) { from.Stop() }, []error{errCutOff}},
		{"stopped", func(_ *watch.FakeWatcher, h *heard) { h.Stop() }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var work sync.WaitGroup
			var got []error
			from := watch.NewFake()
			h := hear(from, &work, func(err error) { got = append(got, err) })
			tc.end(from, h)
			work.Wait()
			if len(got) != len(tc.want) || len(got) == 1 && !errors.Is(got[0], tc.want[0]) {
				t.Errorf("said %v, want %v", got, tc.want)
			}
			if _, more := <-h.ResultChan(); more {
				t.Error("there is more after the end")
			}
		})
	}
}
