// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/signal"
	"github.com/coroner-dev/coroner/internal/source/kube"
)

// maxEvents bounds the events of one pod.
const maxEvents = 200

// events are what the API keeps of a pod's events.
func (c *Cluster) events(ctx context.Context, namespace, uid string) (*corev1.EventList, error) {
	ctx, cancel := c.asking(ctx)
	defer cancel()
	o := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("involvedObject.uid", uid).String(), Limit: maxEvents}
	var list corev1.EventList
	err := c.api.Get().Namespace(namespace).Resource("events").SpecificallyVersionedParams(&o, metav1.ParameterCodec, corev1.SchemeGroupVersion).Do(ctx).Into(&list)
	if err != nil {
		return nil, c.said("list", "events", namespace, err)
	}
	return &list, nil
}

// judge is what the API alone tells of a pod's deaths, newest first. The API has
// the last end of each container, and while it is started again the one before.
func judge(p *corev1.Pod, events func(w inquest.Want) signal.PodEvents, now time.Time) []death.Death {
	q := inquest.New(inquest.Options{Node: p.Spec.NodeName})
	from := signal.Signal{Time: now, Observed: now, Source: death.SourceKube}
	from.Body = signal.SourceState{Up: true, Mode: "api"}
	q.Feed(from)
	kube.Signals([]*corev1.Pod{p}, func(*corev1.Pod) time.Time { return now }, q.Feed)
	last := map[string]death.Death{}
	take := func(all []death.Death) {
		for _, d := range all {
			last[d.ID] = d
		}
	}
	// As many seconds as the inquest waits for a late word.
	for range 10 {
		now = now.Add(time.Second)
		q.Tick(now)
		for _, w := range q.TakeWants() {
			if w.Kind == inquest.WantEvents {
				from.Time, from.Observed, from.Body = now, now, events(w)
				q.Feed(from)
			}
		}
		take(q.Take())
	}
	take(q.Close())
	var out []death.Death
	for _, d := range last {
		dress(&d, p)
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b death.Death) int { return b.Time.Compare(a.Time) })
	return out
}

// dress says what only whoever asks the API once has to say: the limit that the
// pod's spec tells, and what to do so that the next death is known better.
func dress(d *death.Death, p *corev1.Pod) {
	for i, a := range d.Advice {
		if strings.HasPrefix(a, "Run coroner doctor") { // it would look at the machine that asks
			d.Advice[i] = "Run coroner's agent on the nodes: it has the kernel's own word of the next one (docs/kubernetes.md)."
		}
	}
	if d.Container == nil {
		return
	}
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		limit, ok := c.Resources.Limits[corev1.ResourceMemory]
		if c.Name != d.Container.Name || !ok {
			continue
		}
		text := "the pod's spec has a memory limit of " + death.FormatBytes(limit.Value()) + " for it"
		if p.Generation > 2 || p.Generation == 2 && p.DeletionTimestamp == nil {
			text += ", as it is now; the spec was changed since the pod was made"
		}
		d.Evidence = append(d.Evidence, death.Evidence{Time: p.CreationTimestamp.UTC(), Source: death.SourceKube, Text: text})
		slices.SortStableFunc(d.Evidence, func(a, b death.Evidence) int { return a.Time.Compare(b.Time) })
	}
}

// alone asks the API alone why a pod, or one container of it, died. n is the
// most that are told; 0: all.
func (c *Cluster) alone(ctx context.Context, p *corev1.Pod, container string, n int) []death.Death {
	asked := map[string]*corev1.EventList{} // a static pod's have another uid than the pod
	var failed error
	out := judge(p, func(w inquest.Want) signal.PodEvents {
		list, known := asked[w.Pod.UID]
		if !known && failed == nil {
			list, failed = c.events(ctx, p.Namespace, w.Pod.UID)
			asked[w.Pod.UID] = list
		}
		if failed != nil {
			return signal.PodEvents{UID: w.Pod.UID, At: w.At, Error: failed.Error()}
		}
		return kube.Events(list, w.Pod.UID, w.At)
	}, time.Now().UTC())
	if failed != nil {
		c.trouble(failed)
	}
	if container != "" {
		out = slices.DeleteFunc(out, func(d death.Death) bool { return d.Container == nil || d.Container.Name != container })
	}
	if n > 0 && len(out) > n {
		out = out[:n]
	}
	return out
}

// state says how a pod stands that has no death: what its containers wait for.
func state(p *corev1.Pod) string {
	out := "the pod is " + string(p.Status.Phase)
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		switch w := s.State.Waiting; {
		case w != nil && w.Reason != "":
			out += fmt.Sprintf("; container %s waits: %s", s.Name, w.Reason)
			if w.Message != "" {
				out += ": " + cut(w.Message)
			}
		case s.State.Running != nil:
			out += fmt.Sprintf("; container %s runs, restarted %d times", s.Name, s.RestartCount)
		}
	}
	return out
}
