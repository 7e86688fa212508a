// SPDX-License-Identifier: Apache-2.0

// Package cgpath tells from a cgroup's path who lives there: the container,
// its runtime, its pod and QoS class, or the systemd unit. It is a pure
// grammar over names that the kubelet, the runtimes and systemd give (Layouts
// lists them, with an example of each); it works for paths of cgroup v1 and
// v2, under any prefix, and reads nothing.
//
// A name proves nothing: whoever may make cgroups below a container can give
// them the shape of another container. Path then says Nested, and Outer is
// the container in which the name was made.
package cgpath

import "strings"

// Level is what a path is, as far as its names tell.
type Level string

// The levels.
const (
	Root      Level = "root"
	Kubepods  Level = "kubepods"  // the group of all pods of a node
	QoS       Level = "qos"       // the group of all pods of one QoS class
	Pod       Level = "pod"       // one pod
	Container Level = "container" // a container's own cgroup
	Inside    Level = "inside"    // below a container's own cgroup
	Monitor   Level = "monitor"   // a container's monitor (conmon), outside the container
	Guest     Level = "guest"     // an LXC guest's own cgroup
	Slice     Level = "slice"     // a systemd slice
	Unit      Level = "unit"      // another systemd unit: a service, a scope, a mount
	Other     Level = "other"
)

// Path is what a cgroup's path tells. Empty fields are not known.
type Path struct {
	// Level is what this very path is.
	Level Level

	// ContainerID is the innermost container's id: 64 hexadecimal digits.
	ContainerID string
	// Runtime is containerd, docker, cri-o or podman, where the path names it.
	Runtime string
	// Cgroup is the container's own cgroup: the path up to and including the
	// name that holds the id.
	Cgroup string

	// PodUID is the pod's uid with dashes. A static pod's is the hash of its
	// configuration (annotation kubernetes.io/config.hash), 32 digits without
	// dashes; a podman pod's is its id, 64 digits.
	PodUID string
	// Static is true for a static pod: PodUID is then not the API's uid.
	Static bool
	// PodCgroup is the path up to and including the pod's name; empty where
	// the pod has no cgroup of its own on this path.
	PodCgroup string
	// QoS is Guaranteed, Burstable or BestEffort, where the names around the
	// pod are the kubelet's.
	QoS string

	// Unit is the systemd unit around a path that is in no container.
	Unit string
	// LXC is the name of the innermost LXC guest around.
	LXC string

	// Nested is true when another container is around the innermost container
	// or pod: OuterID, whose own cgroup is OuterCgroup. Parse(OuterCgroup)
	// tells more of it.
	Nested      bool
	OuterID     string
	OuterCgroup string
}

// The runtimes as Path names them.
const (
	Containerd = "containerd"
	Docker     = "docker"
	CRIO       = "cri-o"
	Podman     = "podman"
)

// Parse tells what a path's names say. The path is that below the root of the
// hierarchy, as in /proc/PID/cgroup or in the kernel's log.
func Parse(path string) Path {
	var w walk
	for pos := 0; pos < len(path); {
		if path[pos] == '/' {
			pos++
			continue
		}
		end := strings.IndexByte(path[pos:], '/')
		if end < 0 {
			end = len(path)
		} else {
			end += pos
		}
		w.step(path[pos:end], path[:end])
		w.before, w.prev = w.prev, path[pos:end]
		pos = end
	}
	return w.result()
}

// Within tells whether path is ancestor or lies below it. Empty is the root.
func Within(ancestor, path string) bool {
	ancestor, path = strings.TrimRight(ancestor, "/"), strings.TrimRight(path, "/")
	rest, ok := strings.CutPrefix(path, ancestor)
	return ok && (ancestor == "" || rest == "" || rest[0] == '/')
}

// walk goes from the root inwards; what is found deeper replaces what was
// found above it.
type walk struct {
	p Path
	// prev and before are the names one and two levels up.
	prev, before string
	// service is the innermost unit that holds processes, slice the innermost slice.
	service, slice string
	last           string
}

// step takes the name of the next level; prefix is the path up to its end.
func (w *walk) step(name, prefix string) {
	w.last = name
	switch {
	case w.monitor(name):
	case w.podmanPod(name, prefix):
	case w.container(name, prefix):
	case w.pod(name, prefix):
	case w.kubepods(name):
	case w.guest(name):
	default:
		w.other(name)
	}
}

func (w *walk) monitor(name string) bool {
	if !isMonitor(name) {
		return false
	}
	w.unit(name)
	w.p.Level = Monitor
	return true
}

func (w *walk) container(name, prefix string) bool {
	c, ok := parseContainer(name, w.prev)
	if !ok {
		return false
	}
	w.enclose()
	w.p.ContainerID, w.p.Runtime, w.p.Cgroup = c.id, c.runtime, prefix
	w.p.Level = Container
	if pod, ok := parsePodSlice(c.slice); ok {
		w.setPod(pod, "")
	}
	return true
}

// podmanPod: the group that podman makes for a pod.
func (w *walk) podmanPod(name, prefix string) bool {
	id, ok := parsePodmanPod(name, w.prev)
	if !ok {
		return false
	}
	w.enclose()
	w.unit(name)
	w.setPod(pod{uid: id}, prefix)
	w.p.Level = Pod
	return true
}

func (w *walk) pod(name, prefix string) bool {
	p, ok := parsePodSlice(name)
	if !ok {
		if p, ok = parsePodDir(name); !ok {
			return false
		}
		switch {
		case w.prev == "kubepods":
			p.qos = guaranteed
		case w.before == "kubepods":
			p.qos = qosOf(w.prev)
		}
	}
	w.enclose()
	w.unit(name)
	w.setPod(p, prefix)
	w.p.Level = Pod
	return true
}

func (w *walk) setPod(p pod, prefix string) {
	w.p.PodUID, w.p.Static, w.p.QoS, w.p.PodCgroup = p.uid, p.static, p.qos, prefix
}

// kubepods: the kubelet's groups above the pods.
func (w *walk) kubepods(name string) bool {
	level, qos := Kubepods, ""
	switch slice, isSlice := strings.CutSuffix(name, ".slice"); {
	case name == "kubepods" || isSlice && endsInName(slice, "kubepods"):
	case w.prev == "kubepods" && qosOf(name) != "":
		level, qos = QoS, qosOf(name)
	case isSlice && endsInName(slice, "kubepods-burstable"):
		level, qos = QoS, burstable
	case isSlice && endsInName(slice, "kubepods-besteffort"):
		level, qos = QoS, bestEffort
	default:
		return false
	}
	w.enclose()
	w.unit(name)
	w.setPod(pod{qos: qos}, "")
	w.p.Level = level
	return true
}

// enclose makes the container found so far the outer one of what comes now.
func (w *walk) enclose() {
	w.service, w.slice = "", ""
	if w.p.ContainerID == "" {
		return
	}
	w.p.Nested, w.p.OuterID, w.p.OuterCgroup = true, w.p.ContainerID, w.p.Cgroup
	w.p.ContainerID, w.p.Runtime, w.p.Cgroup = "", "", ""
}

func (w *walk) guest(name string) bool {
	guest, ok := parseGuest(name, w.prev, w.before == "")
	if !ok {
		return false
	}
	w.p.LXC = guest
	w.p.Level = Guest
	if w.p.ContainerID != "" {
		w.p.Level = Inside
	}
	return true
}

func (w *walk) other(name string) {
	level := w.unit(name)
	switch {
	case w.p.ContainerID != "":
		w.p.Level = Inside
	case cutContainer(name) != "":
		// A container's scope whose id was cut by whoever copied it.
		w.p.Runtime, w.service, w.slice = cutContainer(name), "", ""
		w.p.Level = Other
	default:
		w.p.Level = level
	}
}

// unit remembers name if it is a systemd unit's.
func (w *walk) unit(name string) Level {
	switch {
	case strings.HasSuffix(name, ".slice"):
		w.slice = name
		return Slice
	case isUnit(name):
		// The manager's own processes live in init.scope of its service.
		if name != "init.scope" || w.service == "" {
			w.service = name
		}
		return Unit
	}
	return Other
}

func (w *walk) result() Path {
	p := w.p
	switch {
	case p.Level == "":
		p.Level = Root
	case p.ContainerID != "":
	case w.last == w.slice || w.service == "":
		p.Unit = w.slice
	default:
		p.Unit = w.service
	}
	return p
}
