// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/signal"
)

// The shapes are those of API servers 1.33 and 1.34, cut to what is read; IDn
// stands for an id of 64 digits.
const (
	shapeInit = `{"metadata": {"name": "web-0", "namespace": "shop", "uid": "6b3f0c1e-0000-4000-8000-000000000001"},
 "spec": {"initContainers": [{"name": "prepare", "image": "shop/prepare:1", "resources": {"limits": {"memory": "64Mi"}}}], "containers": [{"name": "main", "image": "shop/web:3"}], "terminationGracePeriodSeconds": 30},
 "status": {"phase": "Failed", "qosClass": "Burstable",
  "initContainerStatuses": [{"name": "prepare", "image": "shop/prepare:1", "imageID": "sha256:11", "containerID": "containerd://ID1", "ready": false, "started": false, "restartCount": 1, "allocatedResources": {"memory": "64Mi"}, "resources": {"limits": {"memory": "64Mi"}},
    "state": {"terminated": {"containerID": "containerd://ID1", "exitCode": 137, "reason": "OOMKilled", "startedAt": "2026-11-22T00:01:00Z", "finishedAt": "2026-11-22T00:01:02Z"}},
    "lastState": {"terminated": {"containerID": "containerd://ID2", "exitCode": 137, "reason": "OOMKilled", "startedAt": "2026-11-22T00:00:50Z", "finishedAt": "2026-11-22T00:00:52Z"}}}],
  "containerStatuses": [{"name": "main", "image": "shop/web:3", "imageID": "", "ready": false, "restartCount": 0, "lastState": {}, "state": {"waiting": {"reason": "PodInitializing"}}}]}}`

	shapeSidecar = `{"metadata": {"name": "web-0", "namespace": "shop", "uid": "6b3f0c1e-0000-4000-8000-000000000001"},
 "spec": {"initContainers": [{"name": "proxy", "image": "mesh/proxy:2", "restartPolicy": "Always", "resources": {"limits": {"memory": "32Mi"}, "requests": {"memory": "16Mi"}}}], "containers": [{"name": "main", "image": "shop/web:3"}]},
 "status": {"phase": "Running", "qosClass": "Burstable",
  "initContainerStatuses": [{"name": "proxy", "image": "mesh/proxy:2", "imageID": "sha256:22", "containerID": "containerd://ID1", "ready": true, "started": true, "restartCount": 1,
    "state": {"running": {"startedAt": "2026-11-22T00:01:00Z"}},
    "lastState": {"terminated": {"containerID": "containerd://ID2", "exitCode": 1, "reason": "Error", "startedAt": "2026-11-22T00:00:50Z", "finishedAt": "2026-11-22T00:00:52Z"}}}],
  "containerStatuses": [{"name": "main", "image": "shop/web:3", "imageID": "sha256:33", "containerID": "containerd://ID3", "ready": true, "restartCount": 0, "lastState": {}, "state": {"running": {"startedAt": "2026-11-22T00:01:01Z"}}}]}}`

	shapeEphemeral = `{"metadata": {"name": "web-0", "namespace": "shop", "uid": "6b3f0c1e-0000-4000-8000-000000000001"},
 "spec": {"containers": [{"name": "main", "image": "shop/web:3"}], "ephemeralContainers": [{"name": "debugger-x7k2p", "image": "busybox", "targetContainerName": "main", "stdin": true, "tty": true, "resources": {}}]},
 "status": {"phase": "Running", "qosClass": "BestEffort",
  "containerStatuses": [{"name": "main", "image": "shop/web:3", "imageID": "sha256:33", "containerID": "containerd://ID3", "restartCount": 0, "lastState": {}, "state": {"running": {"startedAt": "2026-11-22T00:01:01Z"}}}],
  "ephemeralContainerStatuses": [{"name": "debugger-x7k2p", "image": "docker.io/library/busybox:latest", "imageID": "docker.io/library/busybox@sha256:44", "containerID": "containerd://ID1", "ready": false, "restartCount": 0, "lastState": {},
    "state": {"terminated": {"containerID": "containerd://ID1", "exitCode": 137, "reason": "OOMKilled", "startedAt": "2026-11-22T00:02:00Z", "finishedAt": "2026-11-22T00:02:02Z"}}}]}}`

	shapeMirror = `{"metadata": {"name": "etcd-n1", "namespace": "kube-system", "uid": "6b3f0c1e-0000-4000-8000-00000000000e",
   "annotations": {"kubernetes.io/config.hash": "0123456789abcdef0123456789abcdef", "kubernetes.io/config.mirror": "0123456789abcdef0123456789abcdef", "kubernetes.io/config.seen": "2026-11-22T00:00:00Z", "kubernetes.io/config.source": "file"},
   "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "6b3f0c1e-0000-4000-8000-00000000000f", "controller": true}]},
 "spec": {"containers": [{"name": "etcd", "image": "registry.k8s.io/etcd:3.6.4-0", "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}}}], "priority": 2000001000, "priorityClassName": "system-node-critical"},
 "status": {"phase": "Running", "qosClass": "Burstable",
  "containerStatuses": [{"name": "etcd", "image": "registry.k8s.io/etcd:3.6.4-0", "imageID": "sha256:55", "containerID": "containerd://ID1", "restartCount": 2, "lastState": {}, "state": {"running": {"startedAt": "2026-11-22T00:00:10Z"}}}]}}`

	// As the kubelet itself gives the same pod: it has no mirror's annotation, and
	// the hash for its uid.
	shapeStatic = `{"metadata": {"name": "etcd-n1", "namespace": "kube-system", "uid": "0123456789abcdef0123456789abcdef",
   "annotations": {"kubernetes.io/config.hash": "0123456789abcdef0123456789abcdef", "kubernetes.io/config.seen": "2026-11-22T00:00:00Z", "kubernetes.io/config.source": "file"}},
 "spec": {"containers": [{"name": "etcd", "image": "registry.k8s.io/etcd:3.6.4-0"}]},
 "status": {"phase": "Running", "qosClass": "Burstable",
  "containerStatuses": [{"name": "etcd", "image": "registry.k8s.io/etcd:3.6.4-0", "imageID": "sha256:55", "containerID": "containerd://ID1", "restartCount": 2, "lastState": {}, "state": {"running": {"startedAt": "2026-11-22T00:00:10Z"}}}]}}`
)

func shaped(t *testing.T, shape string) *corev1.Pod {
	t.Helper()
	for i := range 10 {
		shape = strings.ReplaceAll(shape, fmt.Sprint("ID", i), strings.Repeat(fmt.Sprint(i), 64))
	}
	var p corev1.Pod
	if err := json.Unmarshal([]byte(shape), &p); err != nil {
		t.Fatal(err)
	}
	return &p
}

// TestShapes: each kind of container, and of pod, by the names that its cgroup
// has (S27).
func TestShapes(t *testing.T) {
	const uid, hash = "6b3f0c1e-0000-4000-8000-000000000001", "0123456789abcdef0123456789abcdef"
	for name, tc := range map[string]struct {
		shape string
		want  []string // pod's uid, container, first digits of its id, restarts, what is told
	}{
		"an init container": {shapeInit, []string{
			uid + " prepare 22 0 exited", uid + " prepare 22 ended 137", uid + " prepare 11 1 exited of 67108864", uid + " prepare 11 ended 137"}},
		"a sidecar, which is an init container that goes on": {shapeSidecar, []string{
			uid + " proxy 22 0 exited", uid + " proxy 22 ended 1", uid + " proxy 11 1 running of 33554432", uid + " main 33 0 running"}},
		"an ephemeral container":                     {shapeEphemeral, []string{uid + " main 33 0 running", uid + " debugger-x7k2p 11 0 exited", uid + " debugger-x7k2p 11 ended 137"}},
		"a static pod, as the API has it":            {shapeMirror, []string{hash + " etcd 11 2 running"}},
		"a static pod, as the kubelet itself has it": {shapeStatic, []string{hash + " etcd 11 2 running"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			who := map[string]string{}
			Signals([]*corev1.Pod{shaped(t, tc.shape)}, func(*corev1.Pod) time.Time { return time.Time{} }, func(s signal.Signal) {
				switch b := s.Body.(type) {
				case signal.ContainerSeen:
					c := b.Container
					who[c.ID] = c.Pod.UID + " " + c.Name + " " + c.ID[:2]
					line := fmt.Sprint(who[c.ID], " ", *c.RestartCount, " ", b.State)
					if b.LimitBytes != nil {
						line += fmt.Sprint(" of ", *b.LimitBytes)
					}
					if want := "/var/log/pods/" + c.Pod.Namespace + "_" + c.Pod.Name + "_" + c.Pod.UID + "/" + c.Name + "/"; !strings.HasPrefix(b.LogPath, want) {
						t.Errorf("log %s, want %s...", b.LogPath, want)
					}
					got = append(got, line)
				case signal.ContainerExit:
					got = append(got, fmt.Sprint(who[b.ID], " ended ", *b.Code))
				}
			})
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestTable_Mirrors: a static pod is one, whoever tells of it, and who says that
// he is the mirror of another's pod gets none of its names.
func TestTable_Mirrors(t *testing.T) {
	const hash = "0123456789abcdef0123456789abcdef"
	rd, now := reader{labels: engines.SelectionOf(nil)}, time.Time{}
	mirror := func(of string, uid string) *corev1.Pod {
		p := shaped(t, shapeMirror)
		p.Annotations[annotationMirror], p.UID, p.Namespace, p.Name = of, podUID[:len(podUID)-1]+types.UID(uid), "evil", "evil-"+uid
		return p
	}
	victim := running("web-1", podUID, strings.Repeat("a", 64))
	for name, tc := range map[string]struct {
		pods []*corev1.Pod
		want map[string]string // whose the uid of a cgroup is, at the end
	}{
		"the kubelet, then the API":        {[]*corev1.Pod{shaped(t, shapeStatic), shaped(t, shapeMirror)}, map[string]string{hash: "kube-system/etcd-n1"}},
		"the API, then the kubelet":        {[]*corev1.Pod{shaped(t, shapeMirror), shaped(t, shapeStatic)}, map[string]string{hash: "kube-system/etcd-n1"}},
		"another's uid, after him":         {[]*corev1.Pod{victim, mirror(string(podUID), "5")}, map[string]string{string(podUID): "shop/web-1", string(podUID[:35]) + "5": "evil/evil-5"}},
		"another's uid, before him":        {[]*corev1.Pod{mirror(string(podUID), "5"), victim}, map[string]string{string(podUID): "shop/web-1"}},
		"another static pod's hash":        {[]*corev1.Pod{shaped(t, shapeMirror), mirror(hash, "6")}, map[string]string{hash: "kube-system/etcd-n1", string(podUID[:35]) + "6": "evil/evil-6"}},
		"another's uid, before him, twice": {[]*corev1.Pod{mirror(string(podUID), "5"), victim, mirror(string(podUID), "5")}, map[string]string{string(podUID): "shop/web-1", string(podUID[:35]) + "5": "evil/evil-5"}},
	} {
		t.Run(name, func(t *testing.T) {
			tb := quiet()
			for _, p := range tc.pods {
				tb.see(rd.read(p), now)
			}
			got := map[string]string{}
			for uid, h := range tb.pods {
				got[uid] = h.told.Pod.Namespace + "/" + h.told.Pod.Name
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			var all []*reading
			for _, p := range tc.pods {
				all = append(all, rd.read(p))
			}
			tb.keep(all, now)
			if diff := len(tb.pods) - len(got); diff != 0 {
				t.Errorf("%d pods went though they are there", -diff)
			}
			tb.keep(nil, now)
			if len(tb.pods) != 0 {
				t.Errorf("%d pods stay though they went", len(tb.pods))
			}
		})
	}
}
