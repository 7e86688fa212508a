// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/signal"
)

// TestTable_RunsGo: of a container that is started again and again the API tells
// of two runs. Those before them are removed, each once, also from whoever listens.
func TestTable_RunsGo(t *testing.T) {
	tb := newTable(time.Now().Add(-time.Hour), time.Time{})
	tb.lost = func(int, string) {}
	var gone []string
	tb.tell = func(_ time.Time, _ bool, b signal.Body) {
		if g, ok := b.(signal.ContainerGone); ok {
			gone = append(gone, g.Runtime+"://"+g.ID)
		}
	}
	id := func(run int) string { return strings.Repeat(fmt.Sprintf("%02x", run), 32) }
	p := running("web-1", podUID, id(0))
	tb.see(reader{}.read(p), time.Now())
	var want []string
	for run := 1; run < 6; run++ {
		s := &p.Status.ContainerStatuses[0]
		s.LastTerminationState = ended("web-1", podUID, id(run-1), 1).Status.ContainerStatuses[0].State
		s.ContainerID, s.RestartCount = "containerd://"+id(run), int32(run) //nolint:gosec // small
		tb.see(reader{}.read(p), time.Now())
		tb.see(reader{}.read(p), time.Now()) // what changed is something else
		if run > 1 {
			want = append(want, "containerd://"+id(run-2))
		}
		if !slices.Equal(gone, want) {
			t.Fatalf("after run %d these are gone: %q, want %q", run, gone, want)
		}
	}
	tb.gone(string(podUID), time.Now())
	slices.Sort(gone[len(want):])
	if want = append(want, "containerd://"+id(4), "containerd://"+id(5)); !slices.Equal(gone, want) {
		t.Errorf("with the pod these are gone: %q, want %q", gone, want)
	}
}
