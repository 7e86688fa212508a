// SPDX-License-Identifier: Apache-2.0

package kubeevents

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/coroner-dev/coroner/internal/death"
)

const (
	component = "coroner"
	// maxMessage is what an event may say (NoteLengthLimit, events.k8s.io/v1).
	maxMessage = 1024
	// combined begins the message of an event that stands for several.
	combined = "(combined from similar events): "
	// maxSentence leaves room for it.
	maxSentence = maxMessage - len(combined)
)

// events are what d has to tell, and of whom: its pod, and of the machine's own
// lack of memory the node as well. before is the cause that was told of it
// earlier, which d contradicts; empty: none was.
func (s *Sink) events(d *death.Death, before death.Cause, now time.Time) (out []*corev1.Event) {
	sentence, kind, at := d.Summary, corev1.EventTypeWarning, d.Time
	reason := reasonOf(d.Cause)
	if before != "" {
		sentence, at = "Told as "+string(before)+" before; by what is known now: "+sentence, now
		if reason == "" {
			reason, kind = reasonOf(before), corev1.EventTypeNormal
		}
	}
	if at.IsZero() || at.After(now) {
		at = now
	}
	if pod, ok := podOf(d); ok && reason != "" {
		out = append(out, s.event(pod, kind, reason, sentence, at))
	}
	if d.Cause == death.OOMNode || before == death.OOMNode {
		out = append(out, s.event(s.nodeRef(), kind, ReasonNodeOOM, sentence, at))
	}
	return out
}

func (s *Sink) event(of corev1.ObjectReference, kind, reason, sentence string, at time.Time) *corev1.Event {
	namespace := of.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	return &corev1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: namespace},
		InvolvedObject:      of,
		Type:                kind,
		Reason:              reason,
		Message:             bounded(sentence, maxSentence),
		FirstTimestamp:      metav1.NewTime(at),
		LastTimestamp:       metav1.NewTime(at),
		Count:               1,
		Source:              corev1.EventSource{Component: component, Host: s.opt.Node},
		ReportingController: component,
		ReportingInstance:   s.opt.Node,
	}
}

// nodeRef names the node as the kubelet's own events do: by its name, also for
// its uid, which is where kubectl looks for them.
func (s *Sink) nodeRef() corev1.ObjectReference {
	return corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: s.opt.Node, UID: types.UID(s.opt.Node)}
}

// podOf names the pod of d, and which of its containers. Names that no API
// lets pass are of none: other engines' containers may have any label.
func podOf(d *death.Death) (corev1.ObjectReference, bool) {
	c := d.Container
	if c == nil || c.Pod == nil || d.Subject == death.SubjectPod {
		return corev1.ObjectReference{}, false // a pod of which nothing ran has the kubelet's own event
	}
	p := c.Pod
	if !isLabel(p.Namespace) || len(validation.IsDNS1123Subdomain(p.Name)) > 0 || !isUID(p.UID) {
		return corev1.ObjectReference{}, false
	}
	ref := corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: p.Namespace, Name: p.Name, UID: types.UID(p.UID)}
	if isLabel(c.Name) {
		ref.FieldPath = listOf(c.Kind) + "{" + c.Name + "}"
	}
	return ref, true
}

// listOf is the list of the pod's spec that has the containers of a kind.
func listOf(k death.Kind) string {
	switch k {
	case death.KindInit, death.KindSidecar:
		return "spec.initContainers"
	case death.KindEphemeral:
		return "spec.ephemeralContainers"
	}
	return "spec.containers"
}

func isLabel(s string) bool { return len(validation.IsDNS1123Label(s)) == 0 }

// isUID takes a UUID, and the hash that a static pod has in its place.
func isUID(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "0123456789abcdef-") == ""
}

// bounded makes text of at most n bytes that shows nothing but what it says.
func bounded(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) <= n {
		return s
	}
	const more = "..."
	n -= len(more)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + more
}
