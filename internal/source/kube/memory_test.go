// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/coroner-dev/coroner/internal/signal"
)

// usual is a pod as there are many: what a Deployment, kubectl apply and four
// managers left of themselves is most of it.
func usual(i int) *corev1.Pod {
	p := running(fmt.Sprintf("web-7d4f9c5b8d-%05d", i), types.UID(fmt.Sprintf("6b3f0c1e-0000-4000-8000-%012d", i)), fmt.Sprintf("%064x", i))
	p.Labels = map[string]string{"app": "web", "app.kubernetes.io/name": "web", "app.kubernetes.io/version": "3", "pod-template-hash": "7d4f9c5b8d", "team": "shop"}
	p.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": strings.Repeat("{}", 2<<10), "checksum/config": strings.Repeat("0", 64)}
	p.OwnerReferences = ownedBy("ReplicaSet", "web-7d4f9c5b8d")
	for m := range 4 {
		p.ManagedFields = append(p.ManagedFields, metav1.ManagedFieldsEntry{Manager: fmt.Sprint("m", m), FieldsV1: &metav1.FieldsV1{Raw: []byte(`"` + strings.Repeat("x", 2<<10) + `"`)}})
	}
	c := &p.Spec.Containers[0]
	c.Resources.Limits = corev1.ResourceList{"memory": resource.MustParse("64Mi")}
	for e := range 30 {
		c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprint("SETTING_", e), Value: strings.Repeat("v", 40)})
	}
	return p
}

// hostile is a pod of which all is as long as nobody lets it be.
func hostile(i int) *corev1.Pod {
	long := strings.Repeat(fmt.Sprintf("%08d\xff\n", i), 256<<10/10)
	p := usual(i)
	p.Name, p.Namespace, p.Annotations = long, long, map[string]string{"a": long, annotationMirror: long}
	p.Labels = map[string]string{"app": long, "app.kubernetes.io/" + long: "x"}
	for l := range 100 {
		p.Labels[fmt.Sprint("app.kubernetes.io/", l, strings.Repeat("k", 200))] = long
	}
	p.Status.Message, p.Status.Reason = long, long
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: long, Message: long}}
	s := &p.Status.ContainerStatuses[0]
	s.Name, s.Image, s.ImageID = long, long, long
	return p
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // far below
}

// TestFollower_Memory: what is kept of a pod, while a list comes in and from then
// on, has a bound however much the API has of it.
func TestFollower_Memory(t *testing.T) {
	for _, tc := range []struct {
		name         string
		pods         int
		pod          func(int) *corev1.Pod
		listed, kept int64 // most bytes a pod
	}{
		{"110 usual pods", 110, usual, 6 << 10, 4 << 10},
		{"1000 hostile pods", 1000, hostile, 64 << 10, 16 << 10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := New(Options{Node: "n1"})
			told := 0
			f := s.newFollower(func(signal.Signal) { told++ })
			transform := f.Transformer()
			all := make([]any, 0, tc.pods)
			before := heap()
			for i := range tc.pods {
				d, err := transform(tc.pod(i))
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, d)
			}
			listed := (heap() - before) / int64(tc.pods)
			if err := f.Replace(all, ""); err != nil {
				t.Fatal(err)
			}
			all = nil
			kept := (heap() - before) / int64(tc.pods)
			t.Logf("a pod takes %d bytes while it is listed, %d from then on (%d signals)", listed, kept, told)
			if listed > tc.listed || kept > tc.kept || told < 2*tc.pods {
				t.Errorf("want at most %d and %d bytes", tc.listed, tc.kept)
			}
			runtime.KeepAlive(f)
			runtime.KeepAlive(all)
		})
	}
}

// TestRun_AtRest: from the first answer on the API is asked for nothing but two
// watches, whatever happens to pods that live.
func TestRun_AtRest(t *testing.T) {
	a := &api{version: 1, node: aNode(t)}
	for i := range 110 {
		a.pods = append(a.pods, usual(i))
	}
	_, l := follow(t, a)
	l.until(t, "the last pod", func(b signal.Body) bool { p, ok := b.(signal.PodSeen); return ok && p.Pod.Name == usual(109).Name })
	l.until(t, "the node", func(b signal.Body) bool { _, ok := b.(signal.NodeSeen); return ok })
	for i := range 110 {
		p := usual(i)
		p.Status.Phase = corev1.PodPhase(fmt.Sprint("Running-", i))
		a.change("MODIFIED", p)
		l.until(t, p.Name, func(b signal.Body) bool { s, ok := b.(signal.PodSeen); return ok && s.Phase == string(p.Status.Phase) })
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, ask := range a.asks {
		if !strings.Contains(ask, "watch=true") {
			t.Errorf("asked %s", ask)
		}
	}
	if len(a.asks) != 2 {
		t.Errorf("%d requests, want 2:\n%s", len(a.asks), strings.Join(a.asks, "\n"))
	}
}

// BenchmarkFollower_Update is what each change of a pod costs.
func BenchmarkFollower_Update(b *testing.B) {
	f := New(Options{Node: "n1"}).newFollower(func(signal.Signal) {})
	p := usual(1)
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Update(p); err != nil {
			b.Fatal(err)
		}
	}
}
