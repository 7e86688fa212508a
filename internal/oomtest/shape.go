// SPDX-License-Identifier: Apache-2.0

package oomtest

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"strings"
)

// ContainerID makes a container's id of 64 hex digits from a name.
func ContainerID(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// PodUID makes a pod's uid from a name.
func PodUID(name string) string {
	h := ContainerID("pod " + name)
	return strings.Join([]string{h[:8], h[8:12], "4" + h[13:16], "a" + h[17:20], h[20:32]}, "-")
}

// SystemdPod is the slice of a pod under the kubelet's systemd driver. qos is
// "burstable", "besteffort" or "" for guaranteed.
func SystemdPod(qos, uid string) string {
	u := strings.ReplaceAll(uid, "-", "_")
	if qos == "" {
		return path.Join("kubepods.slice", "kubepods-pod"+u+".slice")
	}
	return path.Join("kubepods.slice", "kubepods-"+qos+".slice", "kubepods-"+qos+"-pod"+u+".slice")
}

// SystemdContainer is the scope of a containerd container in a pod's slice.
func SystemdContainer(pod, id string) string { return path.Join(pod, "cri-containerd-"+id+".scope") }

// CgroupfsPod is the cgroup of a pod under the kubelet's cgroupfs driver.
func CgroupfsPod(qos, uid string) string { return path.Join("kubepods", qos, "pod"+uid) }

// CgroupfsContainer is the cgroup of a container in it.
func CgroupfsContainer(pod, id string) string { return path.Join(pod, id) }
