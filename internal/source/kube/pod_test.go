// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/signal"
)

// quiet is a table that nobody hears.
func quiet() *table {
	t := newTable(time.Time{}, time.Time{})
	t.tell, t.lost = func(time.Time, bool, signal.Body) {}, func(int, string) {}
	return t
}

func yes() *bool { b := true; return &b }

func ownedBy(kind, name string) []metav1.OwnerReference {
	return []metav1.OwnerReference{{Kind: "ConfigMap", Name: "not-the-controller"}, {Kind: kind, Name: name, Controller: yes()}}
}

// TestOwner: what a pod itself says of the workload that it belongs to.
func TestOwner(t *testing.T) {
	for _, tc := range []struct {
		refs   []metav1.OwnerReference
		labels map[string]string
		want   *death.Owner
	}{
		{ownedBy("ReplicaSet", "web-7d4f9c"), map[string]string{"pod-template-hash": "7d4f9c"}, &death.Owner{Kind: "Deployment", Name: "web"}},
		{ownedBy("ReplicaSet", "web-7d4f9c"), map[string]string{"pod-template-hash": "other"}, &death.Owner{Kind: "ReplicaSet", Name: "web-7d4f9c"}},
		{ownedBy("ReplicaSet", "alone"), nil, &death.Owner{Kind: "ReplicaSet", Name: "alone"}},
		{ownedBy("StatefulSet", "db"), nil, &death.Owner{Kind: "StatefulSet", Name: "db"}},
		{ownedBy("Node", "n1"), nil, nil},
		{nil, map[string]string{"pod-template-hash": "x"}, nil},
	} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{OwnerReferences: tc.refs, Labels: tc.labels}}
		if diff := cmp.Diff(tc.want, owner(p)); diff != "" {
			t.Errorf("%v %v (-want +got):\n%s", tc.refs, tc.labels, diff)
		}
	}
}

// TestPod_Static: a pod that the kubelet has from a file goes by its hash,
// which its cgroup has for a uid.
func TestPod_Static(t *testing.T) {
	p := running("etcd-n1", podUID, mainID)
	p.Annotations = map[string]string{"kubernetes.io/config.mirror": "0123456789abcdef0123456789abcdef"}
	tb := quiet()
	tb.see(reader{}.read(p), time.Time{})
	if tb.pods["0123456789abcdef0123456789abcdef"] == nil {
		t.Errorf("known by %v", slices.Collect(maps.Keys(tb.pods)))
	}
}

// TestPod_Deletion: the request's time is the deadline less the grace period;
// the update that takes the pod off the API is no new request.
func TestPod_Deletion(t *testing.T) {
	asked := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	p := running("web-1", podUID, mainID)
	at := func(deadline time.Time, grace int64) *corev1.Pod {
		q := p.DeepCopy()
		q.DeletionTimestamp, q.DeletionGracePeriodSeconds = &metav1.Time{Time: deadline}, &grace
		return q
	}
	var told []*signal.Deletion
	Signals([]*corev1.Pod{p, at(asked.Add(30*time.Second), 30), at(asked.Add(31*time.Second), 0)}, func(*corev1.Pod) time.Time { return asked }, func(s signal.Signal) {
		if seen, ok := s.Body.(signal.PodSeen); ok {
			told = append(told, seen.Deletion)
		}
	})
	want := []*signal.Deletion{nil, {At: asked, GraceSeconds: 30}}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestLives: init containers, sidecars and ephemeral ones are containers like
// others; limits are those that hold now.
func TestLives(t *testing.T) {
	p := running("web-1", podUID, mainID)
	id := func(s string) string { return "containerd://" + strings.Repeat(s, 32) }
	p.Spec.InitContainers = []corev1.Container{{Name: "prepare", Image: "shop/prepare:1"}}
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "busybox"}}}
	p.Spec.Containers[0].Resources = corev1.ResourceRequirements{
		Limits: corev1.ResourceList{"memory": resource.MustParse("64Mi")}, Requests: corev1.ResourceList{"memory": resource.MustParse("32Mi")},
	}
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "prepare", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ContainerID: id("aa"), ExitCode: 0, Reason: "Completed", StartedAt: metav1.Unix(100, 0), FinishedAt: metav1.Unix(160, 0),
	}}}}
	p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{{Name: "debug", ContainerID: id("bb"), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	main := &p.Status.ContainerStatuses[0]
	main.RestartCount = 2
	main.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ContainerID: id("cc"), ExitCode: 1, Reason: "Error", FinishedAt: metav1.Unix(170, 0)}
	main.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": resource.MustParse("48Mi")}}
	lives, _, nameless := reader{labels: engines.SelectionOf(nil)}.lives(p)
	var got []string
	for _, l := range lives {
		c := l.seen.Container
		s := c.Name + " " + c.ID[:2] + " " + c.Image
		if l.exit != nil {
			s += " ended " + l.exit.Finished.Format("15:04:05")
		}
		if c.RestartCount != nil {
			s += " restart " + string(rune('0'+*c.RestartCount))
		}
		if l.seen.LimitBytes != nil {
			s += " of " + death.FormatBytes(*l.seen.LimitBytes)
		}
		got = append(got, s)
	}
	want := []string{"prepare aa shop/prepare:1 ended 00:02:40 restart 0", "main cc  ended 00:02:50 restart 1", "main 4c shop/web:3 restart 2 of 48 MiB", "debug bb busybox restart 0"}
	if diff := cmp.Diff(want, got); diff != "" || len(nameless) > 0 {
		t.Errorf("%v (-want +got):\n%s", nameless, diff)
	}
}

// TestLogPath: as a kubelet (1.34) has it, and none of names that lead elsewhere.
func TestLogPath(t *testing.T) {
	p, c := death.Pod{Namespace: "shop", Name: "web-1", UID: string(podUID)}, death.Container{Name: "main", RestartCount: count(2)}
	if got, want := logPath(&p, &c), "/var/log/pods/shop_web-1_"+string(podUID)+"/main/2.log"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	p.Name = "../../../etc"
	if got := logPath(&p, &c); got != "" {
		t.Errorf("a path of hostile names: %s", got)
	}
}

// TestLives_NeverStarted: the time of start of a container that could not be
// started is the beginning of 1970; what the runtime says of it is its error.
func TestLives_NeverStarted(t *testing.T) {
	p := running("web-1", podUID, mainID)
	p.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ContainerID: "containerd://" + mainID, ExitCode: 128, Reason: "StartError", Message: `exec: "/nope": no such file or directory`,
		StartedAt: metav1.Unix(0, 0), FinishedAt: metav1.Unix(1770000000, 0),
	}}
	lives, _, _ := reader{}.lives(p)
	if len(lives) != 1 || lives[0].exit == nil || !lives[0].exit.Started.IsZero() || !strings.Contains(lives[0].exit.Error, "no such file") {
		t.Errorf("%+v", lives)
	}
}

// TestSignals_Hostile: nothing that a pod carries is told longer than its
// bound, and an id that is none is counted.
func TestSignals_Hostile(t *testing.T) {
	long := strings.Repeat("\xff\n\"", 1<<16)
	p := running("web-1", podUID, "../../etc")
	p.Labels = map[string]string{"app": long, "app.kubernetes.io/" + long: "x"}
	p.Status.Message, p.Status.Reason = long, long
	p.Status.ContainerStatuses[0].Name, p.Status.ContainerStatuses[0].Image = long, long
	var lost uint64
	Signals([]*corev1.Pod{p, p}, func(*corev1.Pod) time.Time { return time.Time{} }, func(s signal.Signal) {
		switch b := s.Body.(type) {
		case signal.Lost:
			lost += b.Count
		case signal.PodSeen:
			if len(b.Message) > engines.MaxError || len(b.Reason) > engines.MaxName {
				t.Errorf("a message of %d bytes, a reason of %d", len(b.Message), len(b.Reason))
			}
		case signal.ContainerSeen:
			t.Errorf("a container with the id %q", b.Container.ID)
		}
	})
	if lost != 3 { // two labels, one id
		t.Errorf("lost %d, want 3", lost)
	}
}

// TestTable_Bound: pods beyond the bound are counted, each time that they are told.
func TestTable_Bound(t *testing.T) {
	var pods []*corev1.Pod
	for i := range maxPods + 3 {
		p := &corev1.Pod{}
		p.UID = types.UID(fmt.Sprint("pod-", i))
		pods = append(pods, p)
	}
	seen, lost := 0, uint64(0)
	Signals(pods, func(*corev1.Pod) time.Time { return time.Time{} }, func(s signal.Signal) {
		switch b := s.Body.(type) {
		case signal.PodSeen:
			seen++
		case signal.Lost:
			lost += b.Count
		}
	})
	if seen != maxPods || lost != 3 {
		t.Errorf("%d pods, %d lost; want %d and 3", seen, lost, maxPods)
	}
}

func FuzzPod(f *testing.F) {
	f.Add([]byte(`{"metadata":{"name":"a","uid":"u"},"status":{"phase":"Failed","containerStatuses":[{"name":"main","state":{"terminated":{"containerID":"containerd://a","exitCode":137}}}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p := &corev1.Pod{}
		if err := json.Unmarshal(text, p); err != nil {
			return
		}
		Signals([]*corev1.Pod{p}, func(*corev1.Pod) time.Time { return time.Time{} }, func(s signal.Signal) {
			if x, ok := s.Body.(signal.ContainerExit); ok && !engines.ValidID(x.ID) {
				t.Errorf("id %q", x.ID)
			}
		})
	})
}
