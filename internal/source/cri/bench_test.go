// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/signal"
)

// BenchmarkList is what one list costs while nothing happens: reading the
// messages, as large as a kubelet's containers make them, and merging them.
func BenchmarkList(b *testing.B) {
	for _, n := range []int{110, 500} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			containers, pods := fullLists(n)
			t := newTable()
			t.tell, t.lost, t.want = func(time.Time, bool, signal.Body) {}, func(int, string) {}, func(job) {}
			now := time.Now()
			t.connect(reader{runtime: "containerd", labels: engines.SelectionOf(DefaultLabels())}, now, now)
			b.ReportAllocs()
			for b.Loop() {
				var c runtimeapi.ListContainersResponse
				var p runtimeapi.ListPodSandboxResponse
				if engines.Unmarshal(containers, &c) != nil || engines.Unmarshal(pods, &p) != nil {
					b.Fatal("unreadable")
				}
				t.merge(listing{containers: c.GetContainers(), pods: p.GetItems()}, now)
			}
		})
	}
}

func fullLists(n int) (containers, pods []byte) {
	var c runtimeapi.ListContainersResponse
	var p runtimeapi.ListPodSandboxResponse
	for i := range n {
		id, name := fmt.Sprintf("%064x", i), fmt.Sprintf("web-7d4b9c6f5d-%05x", i)
		sandbox := "f" + id[1:]
		labels := map[string]string{labelPodName: name, labelPodNamespace: "shop", labelPodUID: "28fcb1a0-a45c-44e7-b9bf-e3b9360bedba"}
		c.Containers = append(c.Containers, &runtimeapi.Container{
			Id: id, PodSandboxId: sandbox, Metadata: &runtimeapi.ContainerMetadata{Name: "web"}, State: runtimeapi.ContainerState_CONTAINER_RUNNING,
			Image: &runtimeapi.ImageSpec{Image: "sha256:" + id}, ImageRef: "sha256:" + id, Labels: labels,
			Annotations: map[string]string{
				"io.kubernetes.container.hash": "f0e1d2c3", "io.kubernetes.container.restartCount": "0", "io.kubernetes.container.terminationMessagePath": "/dev/termination-log",
				"io.kubernetes.container.terminationMessagePolicy": "File", annotationGrace: "30",
			},
		})
		all := map[string]string{"app.kubernetes.io/name": "web", "pod-template-hash": "7d4b9c6f5d"}
		for k, v := range labels {
			all[k] = v
		}
		p.Items = append(p.Items, &runtimeapi.PodSandbox{
			Id: sandbox, Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "shop", Uid: labels[labelPodUID]}, Labels: all,
			Annotations: map[string]string{"kubernetes.io/config.seen": "2026-11-22T09:00:00Z", "kubernetes.io/config.source": "api", "note": strings.Repeat("n", 512)},
		})
	}
	containers, _ = proto.Marshal(&c)
	pods, _ = proto.Marshal(&p)
	return containers, pods
}
