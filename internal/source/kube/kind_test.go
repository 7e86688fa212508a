// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/coroner-dev/coroner/internal/death"
)

// TestLives_Kinds: a container's kind is that of the list of the spec that has
// its name.
func TestLives_Kinds(t *testing.T) {
	p := running("web-1", podUID, mainID)
	always := corev1.ContainerRestartPolicyAlways
	p.Spec.InitContainers = []corev1.Container{{Name: "prepare"}, {Name: "proxy", RestartPolicy: &always}}
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug"}}}
	status := func(name, id string) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, ContainerID: "containerd://" + strings.Repeat(id, 32), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	}
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{status("prepare", "aa"), status("proxy", "bb")}
	p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{status("debug", "cc")}
	all, _, _ := reader{}.lives(p)
	got := map[string]death.Kind{}
	for _, l := range all {
		got[l.seen.Container.Name] = l.seen.Container.Kind
	}
	want := map[string]death.Kind{"main": "", "prepare": death.KindInit, "proxy": death.KindSidecar, "debug": death.KindEphemeral}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kinds (-want +got):\n%s", diff)
	}
}
