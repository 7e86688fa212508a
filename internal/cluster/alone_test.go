// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/signal"
	"github.com/coroner-dev/coroner/internal/source/kube"
)

const recorded = "../../test/replay/testdata/kubernetes"

// lastState is a pod that ended as the API had it last in a recorded case, and
// its events. Pods are there with no grace period left for a moment only.
func lastState(t *testing.T, name string) (*corev1.Pod, *corev1.EventList) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(recorded, name, "pod-watch.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var last *corev1.Pod
	for line := range bytes.Lines(text) {
		var e struct{ Object corev1.Pod }
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		p := &e.Object
		ended := slices.ContainsFunc(slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses), func(s corev1.ContainerStatus) bool {
			return s.State.Terminated != nil || s.LastTerminationState.Terminated != nil
		})
		if g := p.DeletionGracePeriodSeconds; last == nil || ended && (g == nil || *g > 0) {
			last = p
		}
	}
	var events corev1.EventList
	if text, err = os.ReadFile(filepath.Join(recorded, name, "events.json")); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &events); err != nil {
		t.Fatal(err)
	}
	return last, &events
}

// TestJudge: what one look at the API tells, some time after the end, of each
// case that was made in a real cluster.
func TestJudge(t *testing.T) {
	type end struct {
		container string
		cause     death.Cause
		code      int
	}
	for name, want := range map[string][]end{
		"a-oom-init-never":       {{"main", death.OOMContainerLimit, 137}},
		"a-oom-init-restart":     {{"main", death.OOMContainerLimit, 137}},
		"b-oom-child":            nil,
		"b-oom-child-then-exit3": {{"main", death.Error, 3}},
		"c-eviction":             {{"main", death.EvictedMemory, 137}},
		"c-eviction-exit0":       {{"main", death.EvictedMemory, 0}},
		"d-sigkill":              {{"main", death.Unknown, 137}},
		"e-liveness":             {{"main", death.LivenessProbe, 137}},
		"f-segv":                 {{"main", death.Segfault, 139}},
		"g-job":                  {{"main", death.Completed, 0}},
		"i-oom-two-containers":   {{"leaker", death.OOMContainerLimit, 137}},
		"j-delete-stubborn":      {{"main", death.StopTimeout, 137}},
		"k-oom-initcontainer":    {{"prepare", death.OOMContainerLimit, 137}},
		"l-preempted":            {{"main", death.Preempted, 0}},
		"m-api-eviction":         {{"main", death.Drained, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			p, events := lastState(t, name)
			var got []end
			for _, d := range judge(p, func(w inquest.Want) signal.PodEvents { return kube.Events(events, w.Pod.UID, w.At) }, time.Now().UTC()) {
				t.Logf("%s %s (%s, %s): %s", d.Time.Format(time.RFC3339), d.Cause, d.Confidence, d.Rule, d.Summary)
				for _, e := range d.Evidence {
					t.Logf("    %s %s %s", e.Time.Format(time.TimeOnly), e.Source, e.Text)
				}
				for _, a := range d.Advice {
					t.Logf("    advice %s", a)
					if strings.Contains(a, "doctor") {
						t.Errorf("advice for another machine: %s", a)
					}
				}
				if limits := p.Spec.Containers[0].Resources.Limits; limits.Memory().Sign() > 0 && d.Container.Name == p.Spec.Containers[0].Name && !strings.Contains(d.Evidence[0].Text, "a memory limit of "+death.FormatBytes(limits.Memory().Value())) {
					t.Errorf("the limit is not in %+v", d.Evidence)
				}
				got = append(got, end{d.Container.Name, d.Cause, *d.Exit.Code})
				if d.Node != p.Spec.NodeName || d.Container.Pod.Name != p.Name {
					t.Errorf("on node %q in pod %q, want %q and %q", d.Node, d.Container.Pod.Name, p.Spec.NodeName, p.Name)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("deaths %v, want %v", got, want)
			}
		})
	}
}
