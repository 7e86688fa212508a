// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestPodRequest(t *testing.T) {
	of := func(s string) corev1.ResourceRequirements {
		if s == "" {
			return corev1.ResourceRequirements{}
		}
		return corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(s)}}
	}
	always := corev1.ContainerRestartPolicyAlways
	pod := func(containers ...string) *corev1.Pod {
		p := &corev1.Pod{}
		for _, c := range containers {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Resources: of(c)})
		}
		return p
	}
	init := func(p *corev1.Pod, sidecar bool, s string) *corev1.Pod {
		c := corev1.Container{Resources: of(s)}
		if sidecar {
			c.RestartPolicy = &always
		}
		p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		return p
	}
	overhead := pod("1Mi")
	overhead.Spec.Overhead = of("2Mi").Requests
	whole := pod("1Mi")
	whole.Spec.Resources = new(of("64Mi"))
	for name, tt := range map[string]struct {
		pod  *corev1.Pod
		want int64 // MiB; 0: none
	}{
		"none":                           {pod("", ""), 0},
		"containers":                     {pod("10Mi", "", "5Mi"), 15},
		"small init container":           {init(pod("10Mi"), false, "4Mi"), 10},
		"large init container":           {init(pod("10Mi"), false, "40Mi"), 40},
		"sidecar":                        {init(pod("10Mi"), true, "4Mi"), 14},
		"init container after a sidecar": {init(init(pod("10Mi"), true, "4Mi"), false, "20Mi"), 24},
		"overhead":                       {overhead, 3},
		"the pod's own":                  {whole, 64},
	} {
		got := podRequest(tt.pod)
		if (got == nil) != (tt.want == 0) || got != nil && *got != tt.want<<20 {
			t.Errorf("%s: %v, want %d MiB", name, got, tt.want)
		}
	}
}
