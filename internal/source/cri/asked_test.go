// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/coroner-dev/coroner/internal/engines/enginetest"
)

// slowly has the next status fail, when that time has passed.
func (f *fake) slowly(d time.Duration) {
	f.beforeEach(func(_ context.Context, method, _ string) error {
		if method != "ContainerStatus" {
			return nil
		}
		f.beforeEach(nil)
		<-time.After(d)
		return status.Error(codes.Unavailable, "busy")
	})
}

// TestEvents_EndsWhileAsked: the end of one about which a question is under way
// is asked for soon after that.
func TestEvents_EndsWhileAsked(t *testing.T) {
	telling(t, func(t *testing.T, f *fake, r *enginetest.Recorder) {
		f.slowly(2 * time.Second)
		f.runs("a", "", 12)
		f.event("a", evStarted)
		enginetest.Settle()
		f.ended("a", 5, "Error")
		f.change(func() { f.send(&runtimeapi.ContainerEventResponse{ContainerId: "a", ContainerEventType: evStopped}) })
		enginetest.Pass(4 * time.Second)
		if diff := cmp.Diff([]string{"a 5 Error pid 0 recovered false"}, exits(r.Taken())); diff != "" {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
	})
}

// TestEvents_SettlesWhileAsked: a reason that comes late is asked for, too, where
// a question from before the end is still under way.
func TestEvents_SettlesWhileAsked(t *testing.T) {
	telling(t, func(t *testing.T, f *fake, r *enginetest.Recorder) {
		f.slowly(2 * time.Second)
		f.runs("a", "", 12)
		f.event("a", evStarted)
		enginetest.Settle()
		f.ended("a", 137, "Error")
		f.event("a", evStopped)
		enginetest.Settle()
		f.change(func() { f.boxes["a"].Reason = reasonOOM })
		enginetest.Pass(5 * time.Second)
		want := []string{"a 137 Error pid 0 recovered false", "a 137 OOMKilled pid 0 recovered false"}
		if diff := cmp.Diff(want, exits(r.Taken())); diff != "" {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
	})
}

// TestSource_SettlesWhileAway: a reason that comes late is asked for, too, where
// the connection ended before that.
func TestSource_SettlesWhileAway(t *testing.T) {
	for name, after := range map[string]time.Duration{"before it was asked": 0, "while it was asked": 1600 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fake) {
				f.runs("a", "", 12)
				r := follow(t, f, Options{})
				enginetest.Pass(5 * time.Second)
				f.ended("a", 137, "Error")
				for len(exits(r.All())) == 0 {
					enginetest.Pass(10 * time.Millisecond)
				}
				f.beforeEach(func(ctx context.Context, method, _ string) error {
					if method == "ContainerStatus" {
						return hang(ctx)
					}
					return nil
				})
				enginetest.Pass(after)
				f.CutOff()
				f.beforeEach(nil)
				f.change(func() { f.boxes["a"].Reason = reasonOOM })
				enginetest.Pass(10 * time.Second)
				got := exits(r.Taken())
				if n := len(got); n != 2 || got[n-1][:15] != "a 137 OOMKilled" {
					t.Errorf("exits %v", got)
				}
			})
		})
	}
}
