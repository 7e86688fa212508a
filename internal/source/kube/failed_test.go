// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/coroner-dev/coroner/internal/signal"
)

// TestTable_NeverRan: a pod of which nothing ran stays in the API for as long as
// nobody removes it. It is told when it is news, once, at the time when it failed.
func TestTable_NeverRan(t *testing.T) {
	began := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	now := began.Add(time.Minute)
	rejected := func(at time.Time) *corev1.Pod {
		p := running("web-1", podUID, mainID)
		p.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "OutOfmemory", Message: "Pod was rejected: ", StartTime: &metav1.Time{Time: at}}
		return p
	}
	pending := running("web-1", podUID, mainID)
	pending.Status = corev1.PodStatus{Phase: corev1.PodPending, StartTime: &metav1.Time{Time: began.Add(-time.Hour)}}
	disrupted := rejected(began.Add(-time.Hour))
	disrupted.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "TerminationByKubelet", LastTransitionTime: metav1.Time{Time: began.Add(5 * time.Second)}}}
	for name, tc := range map[string]struct {
		since     time.Time
		pods      []*corev1.Pod
		at        time.Time // zero: it is not told
		recovered bool
	}{
		"now":                           {time.Time{}, []*corev1.Pod{rejected(began.Add(time.Second))}, began.Add(time.Second), false},
		"before the very first agent":   {time.Time{}, []*corev1.Pod{rejected(began.Add(-time.Hour))}, time.Time{}, false},
		"between two runs":              {began.Add(-2 * time.Hour), []*corev1.Pod{rejected(began.Add(-time.Hour))}, began.Add(-time.Hour), true},
		"told by the run before":        {began.Add(-time.Minute), []*corev1.Pod{rejected(began.Add(-time.Hour))}, time.Time{}, false},
		"it waited for long, and fails": {time.Time{}, []*corev1.Pod{pending, rejected(began.Add(-time.Hour))}, now, false},
		"its condition says when":       {time.Time{}, []*corev1.Pod{disrupted}, began.Add(5 * time.Second), false},
		"by another clock":              {time.Time{}, []*corev1.Pod{rejected(now.Add(time.Hour))}, now, false},
	} {
		t.Run(name, func(t *testing.T) {
			tb := newTable(began, tc.since)
			tb.lost = func(int, string) {}
			n := 0
			tb.tell = func(_ time.Time, recovered bool, b signal.Body) {
				if p, ok := b.(signal.PodSeen); ok && p.NeverRan {
					n++
					if !p.Failed.Equal(tc.at) || recovered != tc.recovered {
						t.Errorf("failed at %s, recovered %v; want %s, %v", p.Failed, recovered, tc.at, tc.recovered)
					}
				}
			}
			for _, p := range append(tc.pods, tc.pods[len(tc.pods)-1]) { // the last one twice
				tb.see(reader{}.read(p), now)
			}
			if told := n > 0; n > 1 || told == tc.at.IsZero() {
				t.Errorf("told %d times", n)
			}
		})
	}
}
