// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"errors"
	"maps"
	"strconv"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
	"github.com/coroner-dev/coroner/internal/signal"
)

// reader turns a runtime's answers into values of ours. It does no I/O.
type reader struct {
	runtime string
	// namespace is containerd's, in which all of these containers are.
	namespace string
	labels    engines.Selection
}

var errNoID = errors.New("no container id")

// The words of runtimes for how a container ended.
const (
	reasonOOM     = "OOMKilled"
	reasonUnknown = "Unknown" // the runtime lost sight of it; its exit code says nothing
)

// What the kubelet marks its containers with.
const (
	labelPodName      = "io.kubernetes.pod.name"
	labelPodNamespace = "io.kubernetes.pod.namespace"
	labelPodUID       = "io.kubernetes.pod.uid"
	annotationGrace   = "io.kubernetes.pod.terminationGracePeriod"
)

// The states of a container, as signals have them.
const (
	created = "created"
	running = "running"
	exited  = "exited"
)

func stateOf(s runtimeapi.ContainerState) string {
	switch s {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return created
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return running
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		return exited
	}
	return ""
}

func podState(s runtimeapi.PodSandboxState) string {
	if s == runtimeapi.PodSandboxState_SANDBOX_READY {
		return running
	}
	return exited
}

// pod is who a pod is, and the labels of it that are carried.
type pod struct {
	who    death.Pod
	labels map[string]string
	lost   int // labels cut or left out
}

func (r reader) pod(m *runtimeapi.PodSandboxMetadata, labels map[string]string) pod {
	p := pod{who: podNamed(m.GetNamespace(), m.GetName(), m.GetUid())}
	p.labels, p.lost = r.labels.Pick(labels)
	return p
}

// sandbox is what is told of a pod's own container.
func (r reader) sandbox(id, state string, p pod) signal.ContainerSeen {
	return signal.ContainerSeen{
		Container: death.Container{ID: strings.Clone(id), Runtime: r.runtime, Labels: maps.Clone(p.labels), Pod: known(p.who)},
		Namespace: r.namespace, Sandbox: true, State: state,
	}
}

// named is what both a list and a status say of who a container is.
type named interface {
	GetId() string
	GetMetadata() *runtimeapi.ContainerMetadata
	GetImage() *runtimeapi.ImageSpec
	GetImageRef() string
	GetState() runtimeapi.ContainerState
	GetLabels() map[string]string
	GetAnnotations() map[string]string
}

// name reads who a container is. p is its pod, where that is known.
func (r reader) name(c named, p pod) (seen signal.ContainerSeen, lost int, err error) {
	if !engines.ValidID(c.GetId()) {
		return seen, 0, errNoID
	}
	own := c.GetLabels()
	carried, lost := r.labels.Pick(own)
	if len(p.labels) > 0 {
		all := maps.Clone(p.labels)
		maps.Copy(all, carried)
		var more int
		carried, more = r.labels.Pick(all)
		lost += more
	}
	who := p.who
	if who == (death.Pod{}) { // its sandbox is not known
		who = podNamed(own[labelPodNamespace], own[labelPodName], own[labelPodUID])
	}
	seen = signal.ContainerSeen{
		Container: death.Container{
			ID: strings.Clone(c.GetId()), Runtime: r.runtime, Name: engines.Cut(c.GetMetadata().GetName(), engines.MaxName),
			Image: engines.Cut(imageOf(c), engines.MaxImage), Labels: carried, Pod: known(who),
		},
		Namespace: r.namespace, State: stateOf(c.GetState()), StopTimeout: grace(c.GetAnnotations()),
	}
	if m := c.GetMetadata(); m != nil {
		seen.Container.RestartCount = new(int(m.GetAttempt()))
	}
	return seen, lost, nil
}

func podNamed(namespace, name, uid string) death.Pod {
	return death.Pod{
		Namespace: engines.Cut(namespace, engines.MaxName), Name: engines.Cut(name, engines.MaxName), UID: engines.Cut(uid, engines.MaxName),
	}
}

// known gives a pod of its own to each signal; nil: nothing is known of it.
func known(p death.Pod) *death.Pod {
	if p == (death.Pod{}) {
		return nil
	}
	return &p
}

// imageOf is the image as whoever made the container named it. The kubelet
// gives runtimes the image's id, and the name beside it since 1.28; runtimes
// find a name for an id in a status, but not in a list.
func imageOf(c named) string {
	spec := c.GetImage()
	for _, name := range []string{spec.GetUserSpecifiedImage(), spec.GetImage(), c.GetImageRef()} {
		if name != "" && !isImageID(name) {
			return name
		}
	}
	return ""
}

func isImageID(s string) bool {
	s = strings.TrimPrefix(s, "sha256:")
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// grace is how many seconds the kubelet waits between asking a container to
// stop and SIGKILL, unless a deletion says otherwise.
func grace(annotations map[string]string) *int64 {
	n, err := strconv.ParseInt(annotations[annotationGrace], 10, 32)
	if err != nil || n < 0 {
		return nil
	}
	return &n
}

// status reads the answer about one container. own is what came with it,
// cgroup where it was found to be.
func (r reader) status(s *runtimeapi.ContainerStatus, own info, cgroup string, p pod) (signal.ContainerSeen, error) {
	seen, _, err := r.name(s, p)
	if err != nil {
		return seen, err
	}
	seen.Container.Cgroup = cgroup
	if seen.Container.Pod != nil {
		seen.Container.Pod.QoSClass = cgpath.Parse(cgroup).QoS
	}
	seen.Started = startOf(s)
	if path := s.GetLogPath(); len(path) <= engines.MaxPath {
		seen.LogPath = engines.Cut(path, engines.MaxPath)
	}
	seen.LimitBytes, seen.Program = own.limit, own.program
	if n := s.GetResources().GetLinux().GetMemoryLimitInBytes(); n > 0 {
		seen.LimitBytes = &n
	}
	seen.StopSignal = stopSignal(s.GetStopSignal())
	if seen.State == running {
		seen.PID = own.pid
	}
	return seen, nil
}

// exit reads how a container ended.
func (r reader) exit(s *runtimeapi.ContainerStatus) signal.ContainerExit {
	e := signal.ContainerExit{
		ID: strings.Clone(s.GetId()), Runtime: r.runtime, Namespace: r.namespace,
		Reason: engines.Cut(s.GetReason(), engines.MaxName), Error: engines.Cut(s.GetMessage(), engines.MaxError),
		Started: startOf(s), Finished: instant(s.GetFinishedAt()),
	}
	if e.Reason == reasonUnknown {
		return e
	}
	if e.Reason != "" {
		e.OOMKilled = new(e.Reason == reasonOOM)
	}
	if n := int(s.GetExitCode()); n >= 0 && n <= 1<<16 {
		e.Code = &n
	}
	return e
}

// bareExit is an end of which nothing else is known.
func (r reader) bareExit(id string) signal.ContainerExit {
	return signal.ContainerExit{ID: id, Runtime: r.runtime, Namespace: r.namespace}
}

// startOf is when a container was started. containerd notes it when it is done
// with it, which of one that ends at once can be after the end: that is none.
func startOf(s *runtimeapi.ContainerStatus) time.Time {
	started, finished := instant(s.GetStartedAt()), instant(s.GetFinishedAt())
	if !finished.IsZero() && started.After(finished) {
		return time.Time{}
	}
	return started
}

// stopSignal is the number of a signal; 0: the runtime's own choice. The
// interface counts signals by their names; those of real time are in order.
func stopSignal(s runtimeapi.Signal) int {
	if s >= runtimeapi.Signal_SIGNAL_SIGRTMIN && s <= runtimeapi.Signal_SIGNAL_SIGRTMAX {
		return int(s-runtimeapi.Signal_SIGNAL_SIGRTMIN) + 34
	}
	if s == runtimeapi.Signal_SIGNAL_SIGCLD { // another name
		s = runtimeapi.Signal_SIGNAL_SIGCHLD
	}
	return engines.SignalNumber(strings.TrimPrefix(s.String(), "SIGNAL_"))
}

// instant reads a runtime's time in nanoseconds; 0 and the time before all
// times, as Go counts, are none.
func instant(ns int64) time.Time {
	if ns <= 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}
