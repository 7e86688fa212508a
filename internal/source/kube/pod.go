// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/signal"
)

// reader turns objects of the API into values of ours. It does no I/O.
type reader struct {
	labels engines.Selection
	// ahead is how far the API's clock is ahead of this machine's.
	ahead time.Duration
}

// remote is a time by the API's clock, in this machine's.
func (r reader) remote(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(-r.ahead)
}

// What marks a pod that the kubelet has from a file, and the API only as a
// mirror: the kubelet knows it by the hash of its configuration, which cgroups
// and events have for its uid (pkg/kubelet/types/pod_update.go, 1.34).
const annotationMirror = "kubernetes.io/config.mirror"

// labelTemplateHash is what a Deployment marks its ReplicaSets and their pods
// with; it ends the ReplicaSet's name.
const labelTemplateHash = "pod-template-hash"

// disruptionTarget is the condition that says why a pod is made to go.
const disruptionTarget = corev1.DisruptionTarget

// pod reads what is told of a pod.
func (r reader) pod(p *corev1.Pod) signal.PodSeen {
	seen := signal.PodSeen{
		Pod:   r.name(p),
		Phase: engines.Cut(string(p.Status.Phase), engines.MaxName), Reason: engines.Cut(p.Status.Reason, engines.MaxName),
		Message: engines.Cut(p.Status.Message, engines.MaxError),
	}
	if p.Spec.Priority != nil {
		seen.Priority = new(*p.Spec.Priority)
	}
	seen.RequestBytes = podRequest(p)
	for _, c := range p.Status.Conditions {
		if c.Type == disruptionTarget && c.Status == corev1.ConditionTrue {
			seen.Disruption = r.disruption(&c)
		}
	}
	seen.Deletion = r.deletion(p)
	if n, at := p.Spec.ActiveDeadlineSeconds, p.Status.StartTime; n != nil && at != nil { // the kubelet sets it
		seen.Deadline = at.Add(time.Duration(*n) * time.Second).UTC()
	}
	if seen.NeverRan = hasEnded(p) && !slices.ContainsFunc(statuses(p), wasStarted); seen.NeverRan {
		seen.Failed = r.failed(p, &seen)
	}
	return seen
}

// failed is when a pod ended of which nothing ran. One that the kubelet does not
// let in has no other start (SetPodStatus of pkg/kubelet/status, 1.34).
func (r reader) failed(p *corev1.Pod, seen *signal.PodSeen) time.Time {
	switch d := seen.Disruption; {
	case d != nil && !d.At.IsZero():
		return d.At
	case seen.Reason == "DeadlineExceeded" && !seen.Deadline.IsZero():
		return seen.Deadline
	case p.Status.StartTime != nil:
		return instant(*p.Status.StartTime)
	}
	return r.remote(instant(p.CreationTimestamp))
}

// disruption reads the condition DisruptionTarget. Whoever makes the pod go sets
// it by his own clock, which for the kubelet is this machine's.
func (r reader) disruption(c *corev1.PodCondition) *signal.Disruption {
	d := signal.Disruption{Reason: engines.Cut(c.Reason, engines.MaxName), Message: engines.Cut(c.Message, engines.MaxError), At: instant(c.LastTransitionTime)}
	if c.Reason != corev1.PodReasonTerminationByKubelet {
		d.At = r.remote(d.At)
	}
	return &d
}

// name is who a pod is.
func (r reader) name(p *corev1.Pod) death.Pod {
	return death.Pod{
		Namespace: engines.Cut(p.Namespace, engines.MaxName), Name: engines.Cut(p.Name, engines.MaxName),
		UID: engines.Cut(string(p.UID), engines.MaxName), QoSClass: engines.Cut(string(p.Status.QOSClass), engines.MaxName), Owner: owner(p),
	}
}

// deletion is the request to delete p. The last update of a pod, which takes
// it off the API, has no grace period left and is no request of its own; one
// that was forced has none from the beginning.
func (r reader) deletion(p *corev1.Pod) *signal.Deletion {
	if p.DeletionTimestamp == nil {
		return nil
	}
	d := signal.Deletion{At: r.remote(instant(*p.DeletionTimestamp))}
	if g := p.DeletionGracePeriodSeconds; g != nil {
		d.GraceSeconds = *g
		d.At = d.At.Add(-time.Duration(*g) * time.Second)
	}
	return &d
}

func hasEnded(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
}

// statuses are those of all containers of a pod.
func statuses(p *corev1.Pod) []corev1.ContainerStatus {
	return slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses)
}

func wasStarted(s corev1.ContainerStatus) bool {
	return s.State.Running != nil || s.State.Terminated != nil || s.LastTerminationState.Terminated != nil
}

// reading is what is taken of a pod: the object itself is not kept.
type reading struct {
	metav1.ObjectMeta // its names, by which a cache finds it
	seen              signal.PodSeen
	lives             []life
	cut               int
	nameless          []string
	job               *job
	// static is the hash that a mirror pod has for its uid in cgroups; "": it is
	// no mirror.
	static string
}

// read takes what is told of a pod.
func (r reader) read(p *corev1.Pod) *reading {
	d := &reading{seen: r.pod(p), job: jobOf(p), static: engines.Cut(p.Annotations[annotationMirror], engines.MaxName)}
	d.Namespace, d.Name, d.UID = d.seen.Pod.Namespace, d.seen.Pod.Name, types.UID(engines.Cut(string(p.UID), engines.MaxName))
	d.lives, d.cut, d.nameless = r.lives(p)
	return d
}

// life is one run of a container: Kubernetes gives each a container of its own.
type life struct {
	seen signal.ContainerSeen
	exit *signal.ContainerExit // nil: it runs
	// complete is false for the run before the present one: its image and its
	// limit are not told.
	complete bool
}

// lives reads the runs of a pod's containers that the API still tells of: the
// one that is, or was last, and the one before. nameless are the containers that
// ended and have no id of a runtime.
func (r reader) lives(p *corev1.Pod) (out []life, cut int, nameless []string) {
	who := r.name(p)
	carried, cut := r.carried(p.Labels)
	add := func(l life, ok bool, name string) {
		if !ok {
			nameless = append(nameless, strings.Clone(name))
			return
		}
		c := &l.seen.Container
		c.Kind = kindOf(p, name)
		c.Name, c.Pod, c.Labels = engines.Cut(name, engines.MaxName), new(who), maps.Clone(carried)
		l.seen.StopTimeout = p.Spec.TerminationGracePeriodSeconds
		l.lookedAfter(p, specOf(p, name))
		out = append(out, l)
	}
	all := statuses(p)
	if more := len(all) - maxContainers; more > 0 {
		all, cut = all[:maxContainers], cut+more
	}
	for _, s := range all {
		last, present := s.LastTerminationState.Terminated, s.State.Terminated
		if last != nil && (present == nil || last.ContainerID != present.ContainerID) {
			l, ok := ofTerminated(last, int(s.RestartCount)-1)
			add(l, ok, s.Name)
		}
		switch {
		case present != nil:
			l, ok := ofTerminated(present, int(s.RestartCount))
			l.describe(&s, specOf(p, s.Name))
			add(l, ok, s.Name)
		case s.State.Running != nil:
			l, ok := ofRunning(&s)
			l.describe(&s, specOf(p, s.Name))
			add(l, ok, s.Name)
		}
	}
	return out, cut, nameless
}

// maxContainers bounds those of one pod, maxLabelValue what one label says: the
// API lets no more pass (apimachinery, LabelValueMaxLength).
const (
	maxContainers = 256
	maxLabelValue = 63
)

// carried are the labels to carry.
func (r reader) carried(labels map[string]string) (map[string]string, int) {
	out, cut := r.labels.Pick(labels)
	for name, v := range out {
		if len(v) > maxLabelValue {
			out[name] = engines.Cut(v, maxLabelValue)
			if len(labels[name]) <= engines.MaxLabelValue { // else it is counted
				cut++
			}
		}
	}
	return out, cut
}

// logPath is where the kubelet has the runtime write what a container says
// (pkg/kubelet/kuberuntime/helpers.go, 1.34). Names that no API lets pass make
// no path.
func logPath(p *death.Pod, c *death.Container) string {
	for _, part := range []string{p.Namespace, p.Name, p.UID, c.Name} {
		if !engines.ValidID(part) {
			return ""
		}
	}
	return "/var/log/pods/" + p.Namespace + "_" + p.Name + "_" + p.UID + "/" + c.Name + "/" + strconv.Itoa(*c.RestartCount) + ".log"
}

// ofRunning is the run that is.
func ofRunning(s *corev1.ContainerStatus) (life, bool) {
	runtime, id, ok := runtimeID(s.ContainerID)
	l := life{seen: signal.ContainerSeen{State: "running", Started: instant(s.State.Running.StartedAt)}}
	l.seen.Container = death.Container{ID: id, Runtime: runtime, RestartCount: count(int(s.RestartCount))}
	return l, ok
}

// ofTerminated is a run that has ended.
func ofTerminated(t *corev1.ContainerStateTerminated, restarts int) (life, bool) {
	runtime, id, ok := runtimeID(t.ContainerID)
	if !ok {
		return life{}, false
	}
	l := life{seen: signal.ContainerSeen{State: "exited"}}
	l.seen.Container = death.Container{ID: id, Runtime: runtime, RestartCount: count(restarts)}
	l.exit = &signal.ContainerExit{
		ID: id, Runtime: runtime, Reason: engines.Cut(t.Reason, engines.MaxName),
		Started: instant(t.StartedAt), Finished: instant(t.FinishedAt),
	}
	if t.Reason != reasonUnknown {
		l.exit.Code = new(int(t.ExitCode))
		l.exit.OOMKilled = new(t.Reason == reasonOOM)
	}
	if l.exit.Started.IsZero() { // else it is what the container itself wrote last
		l.exit.Error = engines.Cut(t.Message, engines.MaxError)
	}
	return l, true
}

// The words of the API for how a container ended. The kubelet says the last of
// one that it lost sight of, with an exit code of its own making
// (pkg/kubelet/kubelet_pods.go, 1.34).
const (
	reasonOOM     = "OOMKilled"
	reasonUnknown = "ContainerStatusUnknown"
)

func count(n int) *int {
	n = max(n, 0)
	return &n
}

// describe adds what is so of the container that the status speaks of now.
func (l *life) describe(s *corev1.ContainerStatus, spec *corev1.Container) {
	l.complete = true
	c := &l.seen.Container
	c.Image, c.ImageID = engines.Cut(s.Image, engines.MaxImage), engines.Cut(s.ImageID, engines.MaxImage)
	var limits, requests corev1.ResourceList
	if spec != nil {
		limits, requests = spec.Resources.Limits, spec.Resources.Requests
		if isImageID(c.Image) || c.Image == "" {
			c.Image = engines.Cut(spec.Image, engines.MaxImage)
		}
	}
	if s.Resources != nil { // what holds now, where the kubelet says so (1.33)
		limits, requests = s.Resources.Limits, s.Resources.Requests
	}
	l.seen.LimitBytes, l.seen.RequestBytes = memory(limits), memory(requests)
}

func memory(l corev1.ResourceList) *int64 {
	q, ok := l[corev1.ResourceMemory]
	if n := q.Value(); ok && n > 0 {
		return &n
	}
	return nil
}

// specOf is what was asked for under a container's name; nil: nothing.
func specOf(p *corev1.Pod, name string) *corev1.Container {
	for _, cs := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range cs {
			if cs[i].Name == name {
				return &cs[i]
			}
		}
	}
	for i := range p.Spec.EphemeralContainers {
		if c := &p.Spec.EphemeralContainers[i]; c.Name == name {
			return (*corev1.Container)(&c.EphemeralContainerCommon)
		}
	}
	return nil
}

// kindOf is what the container of that name is to its pod.
func kindOf(p *corev1.Pod, name string) death.Kind {
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; c.Name == name {
			if r := c.RestartPolicy; r != nil && *r == corev1.ContainerRestartPolicyAlways {
				return death.KindSidecar
			}
			return death.KindInit
		}
	}
	for i := range p.Spec.EphemeralContainers {
		if p.Spec.EphemeralContainers[i].Name == name {
			return death.KindEphemeral
		}
	}
	return ""
}

// runtimeID reads containerd://ID.
func runtimeID(s string) (runtime, id string, ok bool) {
	runtime, id, ok = strings.Cut(s, "://")
	return engines.Cut(runtime, engines.MaxName), strings.Clone(id), ok && engines.ValidID(id)
}

func isImageID(s string) bool {
	s = strings.TrimPrefix(s, "sha256:")
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// instant is a time of the API; the beginning of 1970 is none.
func instant(t metav1.Time) time.Time {
	if t.IsZero() || t.Unix() <= 0 {
		return time.Time{}
	}
	return t.UTC()
}
