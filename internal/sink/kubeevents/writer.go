// SPDX-License-Identifier: Apache-2.0

package kubeevents

import (
	"context"
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	recordname "k8s.io/client-go/tools/record/util"
)

// cacheSize bounds what the correlator remembers: events, series of similar
// ones, and their rates. At 1.5 KiB an event it takes 2 MiB at most.
const cacheSize = 1024

// writer correlates events and writes them. One goroutine uses it.
type writer struct {
	barred bool           // the right to write events was missing, and not for a moment
	rest   rest.Interface // nil: not connected yet
	group  *record.EventCorrelator
	named  int64 // what the last name ended in
}

func newWriter() *writer {
	return &writer{group: record.NewEventCorrelatorWithOptions(record.CorrelatorOptions{LRUCacheSize: cacheSize, KeyFunc: series, SpamKeyFunc: limited})}
}

// series groups events by who they are of, the container included, and by
// reason. The sentences of one group are told apart by their hash: ten of them
// would be kept else.
func series(e *corev1.Event) (group, one string) {
	o := &e.InvolvedObject
	h := fnv.New64a()
	_, _ = h.Write([]byte(e.Message)) // cannot fail
	return strings.Join([]string{o.Kind, o.Namespace, o.Name, string(o.UID), o.FieldPath, e.Type, e.Reason}, "\x00"), strconv.FormatUint(h.Sum64(), 16)
}

// limited says whose rate is limited: a series', not its pod's, so that kills
// which a container survives do not hide its end.
func limited(e *corev1.Event) string {
	group, _ := series(e)
	return group
}

// message is an event as it goes to the API: as a new one, or as a patch of
// one that is there.
type message struct {
	event *corev1.Event
	patch []byte
	tried bool
}

// correlate joins e with those like it; nil: it comes too soon after others.
func (w *writer) correlate(e *corev1.Event, now time.Time) *message {
	copied := *e
	w.named = max(now.UnixNano(), w.named+1)
	copied.Name = recordname.GenerateEventName(e.InvolvedObject.Name, w.named)
	r, err := w.group.EventCorrelate(&copied)
	if err != nil || r.Skip {
		return nil
	}
	out := *r.Event // those that stand for several lack it
	out.ReportingController, out.ReportingInstance = e.ReportingController, e.ReportingInstance
	m := &message{event: &out}
	if r.Event.Count > 1 {
		m.patch = r.Patch
	}
	return m
}

// write asks the API to take an event.
func (w *writer) write(ctx context.Context, m *message) error {
	if m.patch != nil {
		err := w.patch(ctx, m)
		if !apierrors.IsNotFound(err) {
			return err
		}
		// It has expired.
		m.patch, m.event.ResourceVersion = nil, ""
	}
	tried := m.tried
	m.tried = true
	var taken corev1.Event
	err := w.rest.Post().Namespace(m.event.Namespace).Resource("events").Body(m.event).Do(ctx).Into(&taken)
	if tried && apierrors.IsAlreadyExists(err) {
		return nil // an earlier try got through, and its answer did not
	}
	if err != nil {
		return said("create", m.event, err)
	}
	w.group.UpdateState(&taken)
	return nil
}

func (w *writer) patch(ctx context.Context, m *message) error {
	var taken corev1.Event
	err := w.rest.Patch(types.StrategicMergePatchType).Namespace(m.event.Namespace).Resource("events").Name(m.event.Name).Body(m.patch).Do(ctx).Into(&taken)
	if err != nil {
		return said("patch", m.event, err)
	}
	w.group.UpdateState(&taken)
	return nil
}
