// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestRun_UnreadableCgroup: a cgroup that the agent's user cannot read is
// nothing that nobody hears of.
func TestRun_UnreadableCgroup(t *testing.T) {
	f := newFixture(t)
	f.make("/open", "max")
	f.make("/shut", "max")
	must(t, os.Chmod(f.path("/shut"), 0))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var reason string
	var said []signal.Body
	err := host.WithCapabilities(0, func() { // root without capabilities is nobody special
		runErr := New(f.options()).Run(ctx, func(s signal.Signal) {
			said = append(said, s.Body)
			if b, ok := s.Body.(signal.SourceState); ok && b.Up {
				reason = b.Reason
				cancel()
			}
		})
		if runErr != nil {
			t.Error(runErr)
		}
	})
	must(t, err)
	if !strings.Contains(reason, "/shut") || !strings.Contains(reason, "CAP_DAC_READ_SEARCH") || strings.Contains(reason, "/open") {
		t.Errorf("reason %q does not name the cgroup and the remedy", reason)
	}
	if len(said) == 0 {
		t.Error("nothing was said")
	}
}
