// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/kubeclient"
	"github.com/coroner-dev/coroner/internal/signal"
)

// How long the API may take, and how much is taken of it. An event can be as large
// as any object, 1.5 MiB, for whoever may write them.
const (
	askLimit   = 10 * time.Second
	maxEvents  = 200 // of one pod
	eventsPage = 20
)

// client asks the API's group core/v1.
type client struct {
	rest  rest.Interface
	clock *clock
	turn  chan struct{} // one page of events at a time
}

func newClient(cfg *rest.Config, clock *clock) (*client, error) {
	c := rest.CopyConfig(cfg)
	c.Wrap(clock.wrap)
	r, err := kubeclient.Core(c)
	if err != nil {
		return nil, err
	}
	return &client{rest: r, clock: clock, turn: make(chan struct{}, 1)}, nil
}

// list and watchPods are of the pods of one node.
func (c *client) list(ctx context.Context, node string, o metav1.ListOptions) (*corev1.PodList, error) {
	o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", node).String()
	var pods corev1.PodList
	err := c.rest.Get().Resource("pods").VersionedParams(&o, metav1.ParameterCodec).Do(ctx).Into(&pods)
	if err != nil {
		return nil, said("list pods", err)
	}
	return &pods, nil
}

func (c *client) watchPods(ctx context.Context, node string, o metav1.ListOptions) (watch.Interface, error) {
	o.FieldSelector, o.Watch = fields.OneTermEqualSelector("spec.nodeName", node).String(), true
	r := c.rest.Get().Resource("pods").VersionedParams(&o, metav1.ParameterCodec)
	if s := o.TimeoutSeconds; s != nil {
		r = r.Timeout(time.Duration(*s) * time.Second)
	}
	w, err := r.Watch(ctx)
	if err != nil {
		return nil, said("watch pods", err)
	}
	return w, nil
}

// listNode and watchNode are of one node.
func (c *client) listNode(ctx context.Context, node string, o metav1.ListOptions) (*corev1.NodeList, error) {
	o.FieldSelector = fields.OneTermEqualSelector("metadata.name", node).String()
	var nodes corev1.NodeList
	if err := c.rest.Get().Resource("nodes").VersionedParams(&o, metav1.ParameterCodec).Do(ctx).Into(&nodes); err != nil {
		return nil, said("list nodes", err)
	}
	return &nodes, nil
}

func (c *client) watchNode(ctx context.Context, node string, o metav1.ListOptions) (watch.Interface, error) {
	o.FieldSelector, o.Watch = fields.OneTermEqualSelector("metadata.name", node).String(), true
	r := c.rest.Get().Resource("nodes").VersionedParams(&o, metav1.ParameterCodec)
	if s := o.TimeoutSeconds; s != nil {
		r = r.Timeout(time.Duration(*s) * time.Second)
	}
	w, err := r.Watch(ctx)
	if err != nil {
		return nil, said("watch nodes", err)
	}
	return w, nil
}

// ownersOf reads who owns a Job: of the Job itself nothing but its metadata is
// asked for.
func (c *client) ownersOf(ctx context.Context, j job) (uid string, refs []metav1.OwnerReference, err error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	text, err := c.rest.Get().AbsPath("/apis/batch/v1/namespaces", j.namespace, "jobs", j.name).
		SetHeader("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").Do(ctx).Raw()
	if err != nil {
		return "", nil, said("get jobs", err)
	}
	var o metav1.PartialObjectMetadata
	if err := json.Unmarshal(text, &o); err != nil {
		return "", nil, fmt.Errorf("get job: %w", err)
	}
	return string(o.UID), o.OwnerReferences, nil
}

// events reads what the API keeps of a pod's events, a page at a time.
func (c *client) events(ctx context.Context, namespace, uid string) (out []signal.PodEvent, err error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	o := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("involvedObject.uid", uid).String(), Limit: eventsPage}
	for range maxEvents / eventsPage {
		page, next, err := c.eventsPage(ctx, namespace, o)
		if err != nil {
			return nil, said("list events in namespace "+namespace, err)
		}
		if out, o.Continue = append(out, page...), next; next == "" {
			break
		}
	}
	return out, nil
}

// eventsPage reads one page, when it is its turn.
func (c *client) eventsPage(ctx context.Context, namespace string, o metav1.ListOptions) (out []signal.PodEvent, next string, err error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, "", ctx.Err()
	}
	var list corev1.EventList
	if err := c.rest.Get().Namespace(namespace).Resource("events").VersionedParams(&o, metav1.ParameterCodec).Do(ctx).Into(&list); err != nil {
		return nil, "", err
	}
	for i := range list.Items {
		out = append(out, reader{ahead: c.clock.by()}.event(&list.Items[i]))
	}
	return out, list.Continue, nil
}

// event reads one event. The kubelet's are by this machine's clock.
func (r reader) event(e *corev1.Event) signal.PodEvent {
	out := signal.PodEvent{
		Reason: engines.Cut(e.Reason, engines.MaxName), Message: engines.Cut(e.Message, engines.MaxError),
		Container: containerOf(e.InvolvedObject.FieldPath), Count: int(e.Count), By: engines.Cut(e.ReportingController, engines.MaxName),
		First: instant(e.FirstTimestamp), Last: instant(e.LastTimestamp),
	}
	if out.By == "" {
		out.By = engines.Cut(e.Source.Component, engines.MaxName)
	}
	// Those of the newer API have a time of their own, and a series.
	if at := e.EventTime.Time.UTC(); out.First.IsZero() && !e.EventTime.IsZero() {
		out.First, out.Last = at, at
	}
	if s := e.Series; s != nil {
		out.Count = int(s.Count)
		if !s.LastObservedTime.IsZero() {
			out.Last = s.LastObservedTime.UTC()
		}
	}
	if out.By != byKubelet {
		out.First, out.Last = r.remote(out.First), r.remote(out.Last)
	}
	return out
}

// byKubelet is what the kubelet calls itself in events.
const byKubelet = "kubelet"

// containerOf reads spec.containers{NAME}, spec.initContainers{NAME} and
// spec.ephemeralContainers{NAME}.
func containerOf(fieldPath string) string {
	for i := range fieldPath {
		if fieldPath[i] == '{' && fieldPath[len(fieldPath)-1] == '}' {
			return engines.Cut(fieldPath[i+1:len(fieldPath)-1], engines.MaxName)
		}
	}
	return ""
}

// said puts into words what was asked and why it failed, with the right that
// is missing.
func said(what string, err error) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%s: the service account may not: %w", what, err)
	}
	var broken *url.Error
	if errors.As(err, &broken) {
		err = &unreached{broken}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// unreached says where nobody answered. The whole address, which url.Error has, is
// another each time that a watch begins: one trouble would be told as many.
type unreached struct{ err *url.Error }

// Error is without the address but for its host.
func (e *unreached) Error() string {
	at := "the API"
	if u, err := url.Parse(e.err.URL); err == nil && u.Host != "" {
		at = u.Host
	}
	return at + ": " + e.err.Err.Error()
}

// Unwrap gives what it stands for: client-go looks for it.
func (e *unreached) Unwrap() error { return e.err }
