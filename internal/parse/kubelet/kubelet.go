// SPDX-License-Identifier: Apache-2.0

// Package kubelet reads the sentences in which the kubelet says why it ended
// a pod or a container. They are of pkg/kubelet/eviction/helpers.go,
// pkg/kubelet/kuberuntime/kuberuntime_manager.go, pkg/kubelet/nodeshutdown and
// pkg/kubelet/preemption of Kubernetes 1.20 to 1.36. It is pure; what it does
// not know it leaves alone.
package kubelet

import (
	"math/big"
	"strconv"
	"strings"
)

// Eviction is what the kubelet says of a pod that it evicted.
type Eviction struct {
	// Resource is memory, ephemeral-storage, inodes or pids; of a limit that the
	// pod itself went beyond it is ephemeral-storage.
	Resource string
	// ThresholdBytes and AvailableBytes are of the node, when the kubelet
	// decided; counts for inodes and pids. nil: not said.
	ThresholdBytes, AvailableBytes *int64
	// Users are the containers that used more than they had asked for.
	Users []User
	// OwnLimit is true where the pod used more than it may, and the node had
	// enough.
	OwnLimit bool
}

// User is a container that used more than its request.
type User struct {
	Container               string
	UsedBytes, RequestBytes *int64
}

// The beginnings of the sentences, each of which ends with ". ".
const (
	lowOn         = "The node was low on resource: "
	threshold     = "Threshold quantity: "
	using         = " was using "
	container     = "Container "
	initContainer = "Init container " // the kubelet's word for a sidecar, too
	ownLimit      = " exceeded its local ephemeral storage limit "
	podLimit      = "Pod ephemeral local storage usage exceeds the total limit of containers "
	emptyDir      = "Usage of EmptyDir volume "
	condition     = "The node had condition: ["
)

// ParseEviction reads the message of a pod whose reason is Evicted, or of its
// condition DisruptionTarget. ok is false where it is none of these sentences.
func ParseEviction(message string) (e Eviction, ok bool) {
	for s := range strings.SplitSeq(message+" ", ". ") {
		switch {
		case strings.HasPrefix(s, lowOn):
			e.Resource = resource(s[len(lowOn):])
		case strings.Contains(s, condition):
			_, rest, _ := strings.Cut(s, condition)
			name, _, _ := strings.Cut(rest, "]")
			e.Resource = pressure(name)
		case strings.HasPrefix(s, threshold):
			t, a, _ := strings.Cut(s[len(threshold):], ", available: ")
			e.ThresholdBytes, e.AvailableBytes = quantity(t), quantity(a)
		case strings.HasPrefix(s, podLimit), strings.HasPrefix(s, emptyDir):
			e.Resource, e.OwnLimit = storage, true
		case strings.HasPrefix(s, container):
			e.container(s[len(container):])
		}
	}
	return e, e.Resource != ""
}

// container reads "NAME was using 3402720Ki, request is 0, has larger
// consumption of memory" and "NAME exceeded its local ephemeral storage limit
// "1Mi"".
func (e *Eviction) container(s string) {
	if strings.Contains(s, ownLimit) {
		e.Resource, e.OwnLimit = storage, true
		return
	}
	name, rest, ok := strings.Cut(s, using)
	if !ok {
		return
	}
	used, rest, _ := strings.Cut(rest, ", request is ")
	request, _, _ := strings.Cut(rest, ",")
	if u := (User{Container: strings.Clone(name), UsedBytes: quantity(used), RequestBytes: quantity(request)}); len(e.Users) < maxUsers {
		e.Users = append(e.Users, u)
	}
}

const maxUsers = 32

// The kubelet's names of what a node can be short of.
const (
	memory  = "memory"
	storage = "ephemeral-storage"
	inodes  = "inodes"
	pids    = "pids"
)

func resource(s string) string {
	switch s {
	case memory, storage, inodes, pids:
		return s
	}
	return ""
}

// pressure is what a node's condition says it is short of.
func pressure(c string) string {
	switch {
	case strings.HasPrefix(c, "MemoryPressure"):
		return memory
	case strings.HasPrefix(c, "DiskPressure"):
		return storage
	case strings.HasPrefix(c, "PIDPressure"):
		return pids
	}
	return ""
}

// scale are the suffixes of quantities (apimachinery, pkg/api/resource).
var scale = map[string]int64{
	"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
	"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60,
}

// quantity reads 13193Mi, 0 and 1.5Gi; nil: it is none, or beyond an int64.
func quantity(s string) *int64 {
	digits := strings.TrimRight(s, "kKMGTPEi")
	factor, ok := scale[s[len(digits):]]
	if !ok || digits == "" || len(digits) > 32 || strings.Trim(digits, "0123456789.") != "" {
		return nil
	}
	n, ok := new(big.Rat).SetString(digits)
	if !ok {
		return nil
	}
	n.Mul(n, new(big.Rat).SetInt64(factor))
	whole := new(big.Int).Quo(n.Num(), n.Denom())
	if !whole.IsInt64() {
		return nil
	}
	v := whole.Int64()
	return &v
}

// Probe is which probe of a container failed so often that the kubelet stops
// it: "liveness" or "startup". It reads the message of an event Killing:
// "Container web failed liveness probe, will be restarted", or of a sidecar
// "Init container proxy failed liveness probe".
func Probe(message string) (kind, name string) {
	about, ok := ofContainer(message)
	for _, k := range []string{"liveness", "startup"} {
		if n, _, hit := strings.Cut(about, " failed "+k+" probe"); ok && hit {
			return k, strings.Clone(n)
		}
	}
	return "", ""
}

// ofContainer cuts off what a message about one container begins with.
func ofContainer(message string) (about string, ok bool) {
	if about, ok = strings.CutPrefix(message, container); ok {
		return about, true
	}
	return strings.CutPrefix(message, initContainer)
}

// Stopping tells whether an event Killing says that a container is stopped, and
// not why: "Stopping container web"; or that it is because its postStart hook
// failed, of which another event has more.
func Stopping(message string) bool {
	return strings.HasPrefix(message, "Stopping container ") || message == "FailedPostStartHook"
}

// FailedProbe is what a probe found, of an event Unhealthy: "Liveness probe
// failed: HTTP probe failed with statuscode: 500". ok is false for others.
func FailedProbe(message string) (kind, found string, ok bool) {
	for _, k := range []string{"Liveness", "Startup", "Readiness"} {
		if rest, hit := strings.CutPrefix(message, k+" probe failed: "); hit {
			return strings.ToLower(k), strings.Clone(rest), true
		}
		if rest, hit := strings.CutPrefix(message, k+" probe errored: "); hit {
			return strings.ToLower(k), strings.Clone(rest), true
		}
	}
	return "", "", false
}

// Replaced is why the kubelet stops a container to make it anew, of an event
// Killing: "Container web definition changed, will be restarted" (a new image,
// mostly), or from 1.33 on "Container web resize requires restart". "": it says
// something else.
func Replaced(message string) string {
	about, ok := ofContainer(message)
	switch {
	case ok && strings.Contains(about, " definition changed"):
		return "its definition was changed"
	case ok && strings.HasSuffix(about, " resize requires restart"):
		return "its resources were changed"
	}
	return ""
}

// Shutdown tells whether a pod's message says that its node is shut down.
func Shutdown(message string) bool {
	return strings.Contains(message, "in response to imminent node shutdown") || strings.Contains(message, "Node is shutting")
}

// CriticalPod tells whether a pod's message says that the kubelet ended it to
// make room for a critical one.
func CriticalPod(message string) bool {
	return strings.HasPrefix(message, "Preempted in order to admit critical pod")
}

// NodeShutdown tells whether the message of a node's condition Ready says that
// the kubelet ends its pods because the machine is shut down
// (pkg/kubelet/nodeshutdown, 1.20 to 1.36).
func NodeShutdown(message string) bool { return strings.Contains(message, "node is shutting down") }

// ByTaint tells whether an event TaintManagerEviction says that a taint makes
// the pod go, and not that it may stay after all
// (pkg/controller/tainteviction, 1.16 to 1.36).
func ByTaint(message string) bool { return strings.HasPrefix(message, "Marking for deletion Pod ") }

// Own is what an event's message says of itself, without the words that client-go's
// correlator puts before one that stands for more than ten.
func Own(message string) string {
	return strings.TrimPrefix(message, "(combined from similar events): ")
}

// SystemOOM is the process that an event SystemOOM of a node says the kernel
// killed: "System OOM encountered, victim process: java, pid: 4711". ok is false
// where it names none.
func SystemOOM(message string) (pid int, ok bool) {
	const begin, last = "System OOM encountered, victim process: ", ", pid: "
	message = Own(message)
	i := strings.LastIndex(message, last) // a process can have any name
	if i < 0 || !strings.HasPrefix(message, begin) {
		return 0, false
	}
	n, err := strconv.Atoi(message[i+len(last):])
	return n, err == nil && n > 0
}
