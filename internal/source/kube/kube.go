// SPDX-License-Identifier: Apache-2.0

// Package kube follows the pods of one node as the Kubernetes API has them,
// and reads a pod's events where the inquest asks.
//
// It is trusted for pods, owners, limits, evictions, preemptions, failed
// probes and deletions; not for single processes, nor for why a container
// ended: an OOM kill that the container survived is not in the API at all, and
// the reason OOMKilled stands for ends with other causes
// (docs/kubernetes.md). Its times are whole seconds.
//
// The kernel's word never waits for it: what comes later amends the death.
package kube

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/kubeclient"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Options set up a Source.
type Options struct {
	// Kubeconfig is a file that says where the API is, and as whom to ask;
	// empty: as the service account of the pod that the agent runs in.
	Kubeconfig string
	// Node is the node's name in the API: only its pods are asked for.
	Node string
	// Kubelet is where the node's kubelet answers, https://HOST:10250 or
	// http://HOST:10255, for where the API does not; empty: at NodeAddress, or at
	// Node, if it is known as whom to ask. KubeletCA is a file with the authority
	// that its certificate is of; empty: the cluster's.
	Kubelet, KubeletCA string
	// NodeAddress is the node's, for where its name does not resolve, as in pods.
	// The kubelet there has to prove that it is Node's.
	NodeAddress string
	// Labels of pods to carry, each a name or a prefix ending in *; nil:
	// DefaultLabels.
	Labels []string
	// Since is when the last end was told by an earlier run: those after it are
	// told, as recovered. Zero: none was.
	Since time.Time
	// Logger is told of troubles; nil discards.
	Logger *slog.Logger
}

// DefaultLabels are those that say which workload a pod belongs to.
func DefaultLabels() []string {
	return []string{"app.kubernetes.io/*", "app", "job-name", "batch.kubernetes.io/job-name"}
}

// Source watches the pods of a node.
type Source struct {
	opt Options
	// config is the test's own; nil: what the options say.
	config *rest.Config
	// asks is the client of the present Run.
	asks atomic.Pointer[client]
}

// New returns a Source; nothing is asked before Run.
func New(opt Options) *Source {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Labels == nil {
		opt.Labels = DefaultLabels()
	}
	return &Source{opt: opt}
}

// Name returns death.SourceKube.
func (s *Source) Name() death.Source { return death.SourceKube }

// connect finds the API.
func (s *Source) connect() (*rest.Config, error) {
	if s.config != nil {
		return s.config, nil
	}
	return kubeclient.Config(s.opt.Kubeconfig)
}

// Events asks what the API keeps of a pod's events, for a death at a time.
func (s *Source) Events(ctx context.Context, pod death.Pod, at time.Time) signal.PodEvents {
	out := signal.PodEvents{UID: pod.UID, At: at}
	c := s.asks.Load()
	if c == nil {
		out.Error = "the API was not reached yet"
		return out
	}
	var err error
	if out.Events, err = c.events(ctx, pod.Namespace, pod.UID); err != nil {
		out.Error = engines.Cut(err.Error(), engines.MaxReason)
	}
	return out
}

// Signals are what a source that saw these states of pods, one after the
// other, would have told: for commands that ask the API once, and for tests
// with recorded pods.
func Signals(pods []*corev1.Pod, at func(*corev1.Pod) time.Time, emit func(signal.Signal)) {
	t, rd := newTable(time.Time{}, time.Time{}), reader{labels: engines.SelectionOf(DefaultLabels())}
	var now time.Time
	t.tell = func(when time.Time, recovered bool, b signal.Body) {
		emit(signal.Signal{Time: when, Observed: now, Source: death.SourceKube, Recovered: recovered, Body: b})
	}
	t.lost = func(n int, why string) {
		t.tell(now, false, signal.Lost{Count: uint64(n), Other: true, Why: why}) //nolint:gosec // never negative
	}
	for _, p := range pods {
		now = at(p)
		t.see(rd.read(p), now)
	}
}

// Events reads those of one pod from a list, for a death at a time: as the
// source answers the inquest's question.
func Events(all *corev1.EventList, uid string, at time.Time) signal.PodEvents {
	out := signal.PodEvents{UID: uid, At: at}
	for i := range all.Items {
		if e := &all.Items[i]; string(e.InvolvedObject.UID) == uid {
			out.Events = append(out.Events, reader{}.event(e))
		}
	}
	return out
}
