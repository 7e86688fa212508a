// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"

	corev1 "k8s.io/api/core/v1"

	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/signal"
)

// lookedAfter adds what the kubelet does with a container that fails: whether it
// starts it again, and for which probes it stops it. A pod that runs keeps these.
func (l *life) lookedAfter(p *corev1.Pod, spec *corev1.Container) {
	l.seen.RestartPolicy = engines.Cut(string(p.Spec.RestartPolicy), engines.MaxName)
	if spec == nil {
		return
	}
	if r := spec.RestartPolicy; r != nil {
		l.seen.RestartPolicy = engines.Cut(string(*r), engines.MaxName)
	}
	l.seen.Liveness, l.seen.Startup = probe(spec.LivenessProbe), probe(spec.StartupProbe)
}

// probe reads the settings of one. What is left out is as the API server fills it
// in (SetDefaults_Probe of pkg/apis/core/v1, 1.20 to 1.36): static pods lack it.
func probe(p *corev1.Probe) *signal.Probe {
	if p == nil {
		return nil
	}
	return &signal.Probe{
		How: howOf(&p.ProbeHandler), DelaySeconds: p.InitialDelaySeconds,
		PeriodSeconds: cmp.Or(p.PeriodSeconds, 10), TimeoutSeconds: cmp.Or(p.TimeoutSeconds, 1), Failures: cmp.Or(p.FailureThreshold, 3),
	}
}

func howOf(h *corev1.ProbeHandler) string {
	switch {
	case h.Exec != nil:
		return "exec"
	case h.HTTPGet != nil:
		return "httpGet"
	case h.TCPSocket != nil:
		return "tcpSocket"
	case h.GRPC != nil:
		return "grpc"
	}
	return ""
}
