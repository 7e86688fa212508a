// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestCare: what Kubernetes was told to do with a container that fails is in the
// evidence, and in the advice with its numbers.
func TestCare(t *testing.T) {
	first := task(100, "app", leftPath, true)
	runc := onHost(task(901, "runc", "/system.slice/containerd.service", false))
	killing := signal.PodEvent{Reason: "Killing", Container: "main", Message: "Container main failed liveness probe, will be restarted", First: epoch, Last: epoch, Count: 1}
	unhealthy := signal.PodEvent{Reason: "Unhealthy", Container: "main", Message: "Liveness probe failed: EOF", First: epoch.Add(-3 * time.Second), Last: epoch, Count: 4}
	stopping := signal.PodEvent{Reason: "Killing", Container: "main", Message: "Stopping container main", First: epoch, Last: epoch, Count: 1}
	for name, tc := range map[string]struct {
		policy string
		events []signal.PodEvent
		cause  death.Cause
		says   []string
		not    string
	}{
		"a probe":                   {"Always", []signal.PodEvent{unhealthy, killing}, death.LivenessProbe, []string{"kube its liveness probe (exec) is asked each 2 s, the first time after 5 s, may take 1 s, and fails for good after 4 in a row", "raise timeoutSeconds (1) or failureThreshold (4)"}, "restart policy"},
		"not restarted":             {"Never", []signal.PodEvent{unhealthy, stopping}, death.LivenessProbe, []string{"kube its restart policy is Never", "fails for good after 4"}, ""},
		"it would have said so":     {"OnFailure", []signal.PodEvent{unhealthy, stopping}, death.Stopped, []string{"kube its restart policy is OnFailure"}, "is asked each"},
		"nobody told of the policy": {"", []signal.PodEvent{unhealthy, stopping}, death.LivenessProbe, []string{"fails for good after 4"}, "restart policy"},
	} {
		t.Run(name, func(t *testing.T) {
			sc := &scene{}
			seen := podMain
			seen.RestartPolicy, seen.Liveness = tc.policy, &signal.Probe{How: "exec", DelaySeconds: 5, PeriodSeconds: 2, TimeoutSeconds: 1, Failures: 4}
			again := podMain // a change of something else has none of it
			sigs := append(inKube(sc), sc.sig("kube", seen), sc.sig("kube", again), sc.sig("tracepoint", signal.Kill{Target: first, Sender: runc, Signal: 15}),
				sc.sig("tracepoint", signal.Exit{Task: first, Code: ptr(0)}), sc.sig("kube", signal.PodEvents{Events: tc.events}))
			d := only(t, answering(New(Options{}), sigs...))
			text := sketch([]death.Death{d}) + strings.Join(d.Advice, "\n")
			for _, s := range tc.says {
				if !strings.Contains(text, s) {
					t.Errorf("no %q", s)
				}
			}
			if d.Cause != tc.cause || tc.not != "" && strings.Contains(text, tc.not) || t.Failed() {
				t.Errorf("want %s, and not %q:\n%s", tc.cause, tc.not, text)
			}
		})
	}
}

// TestEvents_OfTheRunBefore: what the kubelet did to the container before this one
// is not what this one ended of.
func TestEvents_OfTheRunBefore(t *testing.T) {
	for name, message := range map[string]string{
		"a probe":        "Container main failed liveness probe, will be restarted",
		"another image":  "Container main definition changed, will be restarted",
		"no reason told": "Stopping container main",
	} {
		for _, count := range []int{1, 2, 3} {
			sc := &scene{}
			seen := podMain
			seen.Started, seen.StopTimeout = epoch.Add(-5*time.Second), ptr(int64(30))
			killing := signal.PodEvent{Reason: "Killing", Container: "main", Message: message, First: epoch.Add(-9 * time.Second), Last: epoch.Add(-9 * time.Second), Count: count}
			if count == 3 && name != "no reason told" { // in the same second
				killing.Last = seen.Started
			}
			if count > 1 {
				killing.First = epoch.Add(-time.Minute)
			}
			end := kubeExit(1, "Error")
			end.Started, end.Finished = seen.Started, epoch
			sigs := append(inKube(sc), sc.sig("kube", seen), sc.sig("tracepoint", signal.Exit{Task: task(100, "app", leftPath, true), Code: ptr(1)}),
				sc.sig("kube", end), sc.sig("kube", signal.PodEvents{Events: []signal.PodEvent{killing}}))
			if d := only(t, answering(New(Options{}), sigs...)); d.Cause != death.Error {
				t.Errorf("%s, %d: got:\n%s", name, count, sketch([]death.Death{d}))
			}
		}
	}
}
