// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestRun_Clock: times that the control plane gives are told in this machine's
// time, however wrong its clock is; those of the kubelet are so already.
func TestRun_Clock(t *testing.T) {
	for _, ahead := range []time.Duration{0, time.Second, 5 * time.Minute, -5 * time.Minute, 30 * 24 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			t.Parallel()
			asked := time.Now().Add(-time.Minute) // in truth, for all that follows
			remote, local := metav1.NewTime(asked.Add(ahead)), metav1.NewTime(asked)
			disrupted := func(name, uid, reason string, at metav1.Time) *corev1.Pod {
				p, grace := running(name, podUID[:len(podUID)-1]+types.UID(uid), mainID), int64(30)
				p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: remote.Add(30 * time.Second)}, &grace
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, LastTransitionTime: at}}
				return p
			}
			n := aNode(t)
			n.Spec.Taints[0].TimeAdded = &remote
			n.Status.Conditions[0].LastTransitionTime = local
			a := &api{version: 1, ahead: ahead, node: n, pods: []*corev1.Pod{disrupted("listed", "2", "EvictionByEvictionAPI", remote)}, events: []corev1.Event{
				{Reason: "Preempted", FirstTimestamp: remote, LastTimestamp: remote, Source: corev1.EventSource{Component: "default-scheduler"}},
				{Reason: "Killing", FirstTimestamp: local, LastTimestamp: local, Source: corev1.EventSource{Component: "kubelet"}},
			}}
			s, l := follow(t, a)
			right := func(what string, at time.Time) {
				t.Helper()
				if at.Sub(asked).Abs() > clockSlack {
					t.Errorf("%s is told as %s of what it was", what, at.Sub(asked))
				}
			}
			pod := func(name string) signal.PodSeen {
				return l.until(t, name, func(b signal.Body) bool { p, ok := b.(signal.PodSeen); return ok && p.Pod.Name == name }).Body.(signal.PodSeen)
			}
			right("a listed deletion", pod("listed").Deletion.At)
			right("a listed eviction", pod("listed").Disruption.At)
			a.change("ADDED", disrupted("watched", "3", "TerminationByKubelet", local))
			right("a watched deletion", pod("watched").Deletion.At)
			right("the kubelet's own word", pod("watched").Disruption.At)
			node := l.until(t, "the node", func(b signal.Body) bool { _, ok := b.(signal.NodeSeen); return ok }).Body.(signal.NodeSeen)
			right("a taint", node.Taints[0].Added)
			right("a condition", node.Conditions[0].Since)
			for _, e := range s.Events(t.Context(), death.Pod{Namespace: "shop", UID: string(podUID)}, time.Now()).Events {
				right("the event "+e.Reason, e.First)
			}
			if ahead.Abs() > time.Minute {
				l.until(t, "that the clocks differ", isUp(true, fmt.Sprintf("the API's clock is %d s", int64(ahead.Abs().Seconds()))))
			}
		})
	}
}

// TestTable_NothingIsToCome: what has been told is no later than now, whatever
// the clock says that gave it.
func TestTable_NothingIsToCome(t *testing.T) {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	p, grace := running("web-1", podUID, mainID), int64(0)
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: now.Add(time.Hour)}, &grace
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "PreemptionByScheduler", LastTransitionTime: metav1.NewTime(now.Add(time.Hour))}}
	tb := quiet()
	tb.see(reader{}.read(p), now)
	if got := tb.pods[string(podUID)].told; !got.Deletion.At.Equal(now) || !got.Disruption.At.Equal(now) {
		t.Errorf("%v %v", got.Deletion, got.Disruption)
	}
}
