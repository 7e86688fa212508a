// SPDX-License-Identifier: Apache-2.0

package cgpath

// Layout is one way in which somebody lays out cgroups.
type Layout struct {
	// ID names the layout; it never changes.
	ID string
	// Description says who makes it and when.
	Description string
	// Runtime is what runs the container, also where the path does not name it.
	Runtime string
	// Path is a real path of this kind.
	Path string
	// Want is what Parse must tell of Path.
	Want Path
}

// Names of the examples.
const (
	exID   = "46b3e0a4df44b752b841aecca454e6e78995d567912a84950390bae6f6777a63"
	exNode = "34186d9bd07706222bd427bb647ceed81e8e108eb653ff73c7137099fca1cab6"
	exUID  = "94eb36cd-29e1-478b-b365-4cb5dfc7d6fb"
	exUID_ = "94eb36cd_29e1_478b_b365_4cb5dfc7d6fb" //nolint:revive // the same with systemd's underscores
	exHash = "b51c0afdc5b2c2c9ee9b5fa7e4a0b6d1"

	exDirs   = "/kubepods/burstable/pod" + exUID
	exSlices = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + exUID_ + ".slice"
	exKind   = "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod" + exUID_ + ".slice"
	exUser   = "/user.slice/user-1000.slice/user@1000.service"
)

// Layouts lists the layouts that Parse knows: tests and documentation are
// made from it. A new layout starts here.
func Layouts() []Layout {
	var all []Layout
	for _, group := range [][]Layout{kubeletLayouts(), nodeLayouts(), engineLayouts(), nestedLayouts(), otherLayouts()} {
		all = append(all, group...)
	}
	return all
}

// inPod is a container of a Burstable pod.
func inPod(runtime, podCgroup, name string) Path {
	return Path{
		Level: Container, ContainerID: exID, Runtime: runtime, Cgroup: podCgroup + "/" + name,
		PodUID: exUID, PodCgroup: podCgroup, QoS: burstable,
	}
}

// alone is a container in no pod.
func alone(runtime, cgroup string) Path {
	return Path{Level: Container, ContainerID: exID, Runtime: runtime, Cgroup: cgroup}
}

// below is p for a path further in.
func below(p Path) Path {
	p.Level = Inside
	return p
}

// around is p in a container with this cgroup.
func around(p Path, outer string) Path {
	p.Nested, p.OuterID, p.OuterCgroup = true, exNode, outer
	p.Cgroup = outer + p.Cgroup
	if p.PodCgroup != "" {
		p.PodCgroup = outer + p.PodCgroup
	}
	return p
}

func kubeletLayouts() []Layout {
	const guaranteedDir, bestEffortDir = "/kubepods/pod" + exUID, "/kubepods/besteffort/pod" + exUID
	const guaranteedSlice = "/kubepods.slice/kubepods-pod" + exUID_ + ".slice"
	guaranteedPod := func(runtime, podCgroup, name string) Path {
		p := inPod(runtime, podCgroup, name)
		p.QoS = guaranteed
		return p
	}
	bestEffortPod := inPod("", bestEffortDir, exID)
	bestEffortPod.QoS = bestEffort
	static := inPod(Containerd, "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod"+exHash+".slice", "cri-containerd-"+exID+".scope")
	static.PodUID, static.Static = exHash, true
	staticDir := inPod("", "/kubepods/burstable/pod"+exHash, exID)
	staticDir.PodUID, staticDir.Static = exHash, true
	return []Layout{
		{"kubelet-cgroupfs-burstable", "Kubelet with the cgroupfs driver; any runtime, k3s too.", Containerd, exDirs + "/" + exID, inPod("", exDirs, exID)},
		{"kubelet-cgroupfs-besteffort", "The same, BestEffort.", Containerd, bestEffortDir + "/" + exID, bestEffortPod},
		{"kubelet-cgroupfs-guaranteed", "The same, Guaranteed: no level for the class.", Containerd, guaranteedDir + "/" + exID, guaranteedPod("", guaranteedDir, exID)},
		{"kubelet-cgroupfs-static", "Static pod: the uid is a hash of its configuration.", Containerd, "/kubepods/burstable/pod" + exHash + "/" + exID, staticDir},
		{"kubelet-systemd-containerd", "Kubelet and containerd with the systemd driver; k3s too.", Containerd, exSlices + "/cri-containerd-" + exID + ".scope", inPod(Containerd, exSlices, "cri-containerd-"+exID+".scope")},
		{"kubelet-systemd-guaranteed", "The same, Guaranteed.", Containerd, guaranteedSlice + "/cri-containerd-" + exID + ".scope", guaranteedPod(Containerd, guaranteedSlice, "cri-containerd-"+exID+".scope")},
		{"kubelet-systemd-static", "The same, static pod.", Containerd, static.Cgroup, static},
		{"kubelet-systemd-crio", "CRI-O with the systemd driver.", CRIO, exSlices + "/crio-" + exID + ".scope", inPod(CRIO, exSlices, "crio-"+exID+".scope")},
		{"kubelet-systemd-crio-crun", "CRI-O with crun: the processes are one level further in.", CRIO, exSlices + "/crio-" + exID + ".scope/container", below(inPod(CRIO, exSlices, "crio-"+exID+".scope"))},
		{"kubelet-systemd-crio-conmon", "CRI-O's monitor, which is no container.", CRIO, exSlices + "/crio-conmon-" + exID + ".scope", Path{Level: Monitor, PodUID: exUID, PodCgroup: exSlices, QoS: burstable, Unit: "crio-conmon-" + exID + ".scope"}},
		{"kubelet-cgroupfs-crio", "CRI-O with the cgroupfs driver.", CRIO, exDirs + "/crio-" + exID, inPod(CRIO, exDirs, "crio-"+exID)},
		{"kubelet-cgroupfs-crio-conmon", "CRI-O's monitor with the cgroupfs driver.", CRIO, exDirs + "/crio-conmon-" + exID, Path{Level: Monitor, PodUID: exUID, PodCgroup: exDirs, QoS: burstable}},
		{"kubelet-systemd-docker", "Docker below the kubelet (dockershim, cri-dockerd), systemd driver.", Docker, exSlices + "/docker-" + exID + ".scope", inPod(Docker, exSlices, "docker-"+exID+".scope")},
		{"kubelet-systemd-escaped", "Dashes of the uid escaped as systemd escapes names.", Containerd, `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod94eb36cd\x2d29e1\x2d478b\x2db365\x2d4cb5dfc7d6fb.slice/cri-containerd-` + exID + ".scope", inPod(Containerd, `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod94eb36cd\x2d29e1\x2d478b\x2db365\x2d4cb5dfc7d6fb.slice`, "cri-containerd-"+exID+".scope")},
		{"kubelet-systemd-mismatch", "Kubelet with the systemd driver, containerd with cgroupfs: outside kubepods, so the pod's limit does not hold.", Containerd, "/system.slice/containerd.service/kubepods-burstable-pod" + exUID_ + ".slice:cri-containerd:" + exID, mismatch("/system.slice/containerd.service")},
		{"kubelet-systemd-mismatch-root", "The same, containerd not started by systemd.", Containerd, "/kubepods-burstable-pod" + exUID_ + ".slice:cri-containerd:" + exID, mismatch("")},
		{"talos-pod", "Talos Linux: pods as with the cgroupfs driver.", Containerd, bestEffortDir + "/" + exID, bestEffortPod},
	}
}

func mismatch(parent string) Path {
	p := alone(Containerd, parent+"/kubepods-burstable-pod"+exUID_+".slice:cri-containerd:"+exID)
	p.PodUID, p.QoS = exUID, burstable
	return p
}

// nodeLayouts are the kubelet's groups above the containers.
func nodeLayouts() []Layout {
	const slice = "kubepods-burstable-pod" + exUID_ + ".slice"
	return []Layout{
		{"kubepods-cgroupfs", "All pods of the node, cgroupfs driver.", "", "/kubepods", Path{Level: Kubepods}},
		{"kubepods-systemd", "All pods of the node, systemd driver.", "", "/kubepods.slice", Path{Level: Kubepods, Unit: "kubepods.slice"}},
		{"qos-cgroupfs", "All pods of a class, cgroupfs driver.", "", "/kubepods/besteffort", Path{Level: QoS, QoS: bestEffort}},
		{"qos-systemd", "All pods of a class, systemd driver.", "", "/kubepods.slice/kubepods-burstable.slice", Path{Level: QoS, QoS: burstable, Unit: "kubepods-burstable.slice"}},
		{"pod-cgroupfs", "A pod, cgroupfs driver.", "", exDirs, Path{Level: Pod, PodUID: exUID, PodCgroup: exDirs, QoS: burstable}},
		{"pod-systemd", "A pod, systemd driver.", "", exSlices, Path{Level: Pod, PodUID: exUID, PodCgroup: exSlices, QoS: burstable, Unit: slice}},
		{"kubelet-cgroup-root-systemd", "Kubelet with --cgroup-root=/kubelet (as in kind), systemd driver.", Containerd, exKind + "/cri-containerd-" + exID + ".scope", inPod(Containerd, exKind, "cri-containerd-"+exID+".scope")},
		{"kubelet-cgroup-root-cgroupfs", "Kubelet with --cgroup-root=/kubelet, cgroupfs driver.", Containerd, "/kubelet" + exDirs + "/" + exID, inPod("", "/kubelet"+exDirs, exID)},
	}
}

func engineLayouts() []Layout {
	const rootless, machine = exUser + "/user.slice/libpod-" + exID + ".scope", "/machine.slice/libpod-" + exID + ".scope"
	const podSlice = "/machine.slice/machine-libpod_pod_" + exNode + ".slice"
	const rootlessPod = exUser + "/user.slice/user-libpod_pod_" + exNode + ".slice"
	inPodmanPod := func(podCgroup, name string) Path {
		p := alone(Podman, podCgroup+"/"+name)
		p.PodUID, p.PodCgroup = exNode, podCgroup
		return p
	}
	return []Layout{
		{"docker-cgroupfs", "Docker with the cgroupfs driver.", Docker, "/docker/" + exID, alone(Docker, "/docker/"+exID)},
		{"docker-systemd", "Docker with the systemd driver.", Docker, "/system.slice/docker-" + exID + ".scope", alone(Docker, "/system.slice/docker-"+exID+".scope")},
		{"docker-cgroup-parent", "Docker, cgroupfs, --cgroup-parent: the runtime is not named.", Docker, "/batch/" + exID, alone("", "/batch/"+exID)},
		{"docker-cgroup-parent-slice", "Docker, systemd, --cgroup-parent.", Docker, "/batch.slice/docker-" + exID + ".scope", alone(Docker, "/batch.slice/docker-"+exID+".scope")},
		{"docker-rootless", "Rootless Docker.", Docker, exUser + "/app.slice/docker-" + exID + ".scope", alone(Docker, exUser+"/app.slice/docker-"+exID+".scope")},
		{"docker-systemd-inside", "systemd in a Docker container: services are part of the container.", Docker, "/docker/" + exID + "/system.slice/cron.service", below(alone(Docker, "/docker/"+exID))},
		{"docker-cut-id", "A report in which somebody cut the id: no container can be named.", Docker, "/system.slice/docker-93f0eb72.scope", Path{Level: Other, Runtime: Docker}},
		{"containerd-systemd", "containerd without a pod, systemd driver.", Containerd, "/system.slice/cri-containerd-" + exID + ".scope", alone(Containerd, "/system.slice/cri-containerd-"+exID+".scope")},
		{"containerd-namespace", "containerd's namespace k8s.io without the kubelet.", Containerd, "/k8s.io/" + exID, alone(Containerd, "/k8s.io/"+exID)},
		{"nerdctl-systemd", "nerdctl, systemd driver.", Containerd, "/system.slice/nerdctl-" + exID + ".scope", alone(Containerd, "/system.slice/nerdctl-"+exID+".scope")},
		{"ctr", "ctr run with a name of one's own: nothing tells a container.", Containerd, "/default/NAME", Path{Level: Other}},
		{"podman-systemd", "podman.", Podman, machine, alone(Podman, machine)},
		{"podman-systemd-crun", "podman with crun: the processes are one level further in.", Podman, machine + "/container", below(alone(Podman, machine))},
		{"podman-conmon", "podman's monitor, which is no container.", Podman, "/machine.slice/libpod-conmon-" + exID + ".scope", Path{Level: Monitor, Unit: "libpod-conmon-" + exID + ".scope"}},
		{"podman-pod", "A podman pod.", Podman, podSlice, Path{Level: Pod, PodUID: exNode, PodCgroup: podSlice, Unit: "machine-libpod_pod_" + exNode + ".slice"}},
		{"podman-in-pod", "A container of a podman pod.", Podman, podSlice + "/libpod-" + exID + ".scope", inPodmanPod(podSlice, "libpod-"+exID+".scope")},
		{"podman-rootless", "Rootless podman.", Podman, rootless + "/container", below(alone(Podman, rootless))},
		{"podman-rootless-in-pod", "A container of a rootless podman pod.", Podman, rootlessPod + "/libpod-" + exID + ".scope", inPodmanPod(rootlessPod, "libpod-"+exID+".scope")},
		{"podman-cgroupfs", "podman with the cgroupfs driver.", Podman, "/libpod_parent/libpod-" + exID, alone(Podman, "/libpod_parent/libpod-"+exID)},
		{"podman-cgroupfs-in-pod", "A container of a podman pod, cgroupfs driver.", Podman, "/libpod_parent/" + exNode + "/libpod-" + exID, inPodmanPod("/libpod_parent/"+exNode, "libpod-"+exID)},
		{"podman-split", "podman below its service (quadlet, --cgroups=split).", Podman, "/system.slice/web.service/libpod-payload-" + exID, alone(Podman, "/system.slice/web.service/libpod-payload-"+exID)},
		{"podman-split-monitor", "The monitor of the same.", Podman, "/system.slice/web.service/runtime", Path{Level: Other, Unit: "web.service"}},
	}
}

func nestedLayouts() []Layout {
	const dockerNode, scopeNode, podmanNode = "/docker/" + exNode, "/system.slice/docker-" + exNode + ".scope", "/machine.slice/libpod-" + exNode + ".scope"
	const scope = "/cri-containerd-" + exID + ".scope"
	dind := alone(Docker, "/docker/"+exID)
	inPodDind := inPod(Docker, exDirs, exNode+"/docker/"+exID)
	inPodDind.Nested, inPodDind.OuterID, inPodDind.OuterCgroup = true, exNode, exDirs+"/"+exNode
	kindPod := Path{Level: Pod, PodUID: exUID, PodCgroup: dockerNode + exKind, QoS: burstable, Unit: "kubelet-kubepods-burstable-pod" + exUID_ + ".slice", Nested: true, OuterID: exNode, OuterCgroup: dockerNode}
	kubepods := Path{Level: Kubepods, Unit: "kubelet-kubepods.slice", Nested: true, OuterID: exNode, OuterCgroup: dockerNode}
	node := Path{Level: Inside, ContainerID: exNode, Runtime: Docker, Cgroup: dockerNode}
	lxcPod := inPod(Containerd, "/lxc.payload.ny2g2r5hh3-lxc"+exSlices, "cri-containerd-"+exID+".scope")
	lxcPod.LXC = "ny2g2r5hh3-lxc"
	return []Layout{
		{"kind-docker-cgroupfs", "kind's node in Docker with the cgroupfs driver, seen from the host.", Containerd, dockerNode + exKind + scope, around(inPod(Containerd, exKind, scope[1:]), dockerNode)},
		{"kind-docker-systemd", "kind's node in Docker with the systemd driver.", Containerd, scopeNode + exKind + scope, around(inPod(Containerd, exKind, scope[1:]), scopeNode)},
		{"kind-podman", "kind's node in podman.", Containerd, podmanNode + exKind + scope, around(inPod(Containerd, exKind, scope[1:]), podmanNode)},
		{"kind-kubelet-cgroupfs", "kind with the kubelet's cgroupfs driver.", Containerd, dockerNode + "/kubelet" + exDirs + "/" + exID, around(inPod("", "/kubelet"+exDirs, exID), dockerNode)},
		{"kind-pod", "A pod of kind's node.", "", dockerNode + exKind, kindPod},
		{"kind-kubepods", "All pods of kind's node.", "", dockerNode + "/kubelet.slice/kubelet-kubepods.slice", kubepods},
		{"kind-node-service", "A service of kind's node.", Docker, dockerNode + "/system.slice/containerd.service", node},
		{"dind", "Docker in Docker.", Docker, dockerNode + "/docker/" + exID, around(dind, dockerNode)},
		{"dind-in-pod", "Docker in a pod's container.", Docker, exDirs + "/" + exNode + "/docker/" + exID, inPodDind},
		{"lxc-kubelet", "A kubelet in an LXC guest.", Containerd, "/lxc.payload.ny2g2r5hh3-lxc" + exSlices + scope, lxcPod},
	}
}

func otherLayouts() []Layout {
	return []Layout{
		{"root", "The root.", "", "/", Path{Level: Root}},
		{"lxc", "LXC, and Proxmox.", "", "/lxc/703", Path{Level: Guest, LXC: "703"}},
		{"lxc-payload", "LXC since 4.0.", "", "/lxc.payload.web", Path{Level: Guest, LXC: "web"}},
		{"lxc-payload-dir", "LXC 4.0 with another pattern.", "", "/lxc.payload/web", Path{Level: Guest, LXC: "web"}},
		{"lxc-service", "A service in an LXC guest.", "", "/lxc/703/ns/system.slice/pulse.service", Path{Level: Unit, LXC: "703", Unit: "pulse.service"}},
		{"talos-runtime", "Talos Linux: its own services.", "", "/podruntime/runtime", Path{Level: Other}},
		{"systemd-service", "A service.", "", "/system.slice/nginx.service", Path{Level: Unit, Unit: "nginx.service"}},
		{"systemd-template", "A service of a template: dashes of names are escaped.", "", `/system.slice/system-serial\x2dgetty.slice/serial-getty@ttyS0.service`, Path{Level: Unit, Unit: "serial-getty@ttyS0.service"}},
		{"systemd-delegated", "A group that a service made for itself.", "", "/system.slice/app.service/workers", Path{Level: Other, Unit: "app.service"}},
		{"systemd-session", "A login session.", "", "/user.slice/user-1000.slice/session-1.scope", Path{Level: Unit, Unit: "session-1.scope"}},
		{"systemd-user-service", "A service of a user.", "", exUser + "/app.slice/run-u640.service", Path{Level: Unit, Unit: "run-u640.service"}},
		{"systemd-user-manager", "A user's manager itself.", "", "/user.slice/user-0.slice/user@0.service/init.scope", Path{Level: Unit, Unit: "user@0.service"}},
		{"systemd-init", "The system's manager itself.", "", "/init.scope", Path{Level: Unit, Unit: "init.scope"}},
		{"systemd-slice", "A slice.", "", "/user.slice/user-1000.slice", Path{Level: Slice, Unit: "user-1000.slice"}},
		{"systemd-user-slice", "A slice of a user.", "", exUser + "/app.slice", Path{Level: Slice, Unit: "app.slice"}},
		{"plain", "A group that somebody made by hand.", "", "/test1", Path{Level: Other}},
	}
}
