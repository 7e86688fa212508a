// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/coroner-dev/coroner/internal/signal"
)

const shapeLookedAfter = `{"metadata": {"name": "web-0", "namespace": "shop", "uid": "6b3f0c1e-0000-4000-8000-000000000001"},
 "spec": {"restartPolicy": "Never", "activeDeadlineSeconds": 90,
  "initContainers": [{"name": "proxy", "restartPolicy": "Always", "livenessProbe": {"httpGet": {"path": "/", "port": 1}, "initialDelaySeconds": 7, "periodSeconds": 2, "timeoutSeconds": 4, "failureThreshold": 5}}],
  "containers": [{"name": "main", "startupProbe": {"exec": {"command": ["a"]}}}]},
 "status": {"phase": "Running", "startTime": "2026-11-22T00:00:00Z",
  "initContainerStatuses": [{"name": "proxy", "containerID": "containerd://ID1", "state": {"running": {"startedAt": "2026-11-22T00:00:01Z"}}}],
  "containerStatuses": [{"name": "main", "containerID": "containerd://ID2", "state": {"running": {"startedAt": "2026-11-22T00:00:02Z"}}}]}}`

// TestLookedAfter: what the kubelet does where a container fails is told once, and
// not kept.
func TestLookedAfter(t *testing.T) {
	p := shaped(t, shapeLookedAfter)
	type told struct {
		Policy            string
		Liveness, Startup *signal.Probe
	}
	got := map[string]told{}
	var deadline time.Time
	tell := func(p *corev1.Pod, tb *table) (n int) {
		tb.tell = func(_ time.Time, _ bool, b signal.Body) {
			n++
			switch b := b.(type) {
			case signal.PodSeen:
				deadline = b.Deadline
			case signal.ContainerSeen:
				got[b.Container.Name] = told{b.RestartPolicy, b.Liveness, b.Startup}
			}
		}
		tb.see(reader{}.read(p), time.Time{})
		return n
	}
	tb := quiet()
	if n := tell(p, tb); n != 3 {
		t.Errorf("%d signals of a pod and two containers", n)
	}
	want := map[string]told{
		"proxy": {"Always", &signal.Probe{How: "httpGet", DelaySeconds: 7, PeriodSeconds: 2, TimeoutSeconds: 4, Failures: 5}, nil},
		"main":  {"Never", nil, &signal.Probe{How: "exec", PeriodSeconds: 10, TimeoutSeconds: 1, Failures: 3}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if want := time.Date(2026, 11, 22, 0, 1, 30, 0, time.UTC); !deadline.Equal(want) {
		t.Errorf("deadline %s, want %s", deadline, want)
	}
	if n := tell(p, tb); n != 0 {
		t.Errorf("%d signals of what did not change", n)
	}
	for _, b := range tb.pods[string(p.UID)].boxes {
		if b.told.Liveness != nil || b.told.Startup != nil {
			t.Errorf("kept: %+v", b.told)
		}
	}
}
