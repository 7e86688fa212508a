// SPDX-License-Identifier: Apache-2.0

package kube

import (
	corev1 "k8s.io/api/core/v1"
)

// podRequest is the memory that a pod was promised, as the scheduler and the
// kubelet's eviction count it (component-helpers/resource/helpers.go, 1.34):
// the containers and those init containers that go on running, or the largest
// of the moments at which an init container runs, whichever is more, and
// overhead; what the pod itself requests stands for the containers. nil: nothing.
func podRequest(p *corev1.Pod) *int64 {
	var sum, sidecars, most int64
	for i := range p.Spec.Containers {
		sum += requested(p.Spec.Containers[i].Resources.Requests)
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		n := requested(c.Resources.Requests)
		if r := c.RestartPolicy; r != nil && *r == corev1.ContainerRestartPolicyAlways {
			sidecars += n
			n = 0
		}
		most = max(most, sidecars+n)
	}
	total := max(sum+sidecars, most)
	if r := p.Spec.Resources; r != nil {
		if n := requested(r.Requests); n > 0 {
			total = n
		}
	}
	if total += requested(p.Spec.Overhead); total <= 0 {
		return nil
	}
	return &total
}

func requested(l corev1.ResourceList) int64 {
	if n := memory(l); n != nil {
		return *n
	}
	return 0
}
