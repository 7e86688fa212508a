// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/signal"
	"github.com/coroner-dev/coroner/internal/source/kube"
)

// state is a pod with one container at a time, as the API has it then.
type state struct {
	at         time.Duration // before (-) the death
	pod, owner string        // owner: KIND/NAME
	id         byte          // of the container
	started    time.Duration
	image      string // of the status; asked: of the spec
	asked      string
	limit      string // that holds; wanted: of the spec
	wanted     string
	restarts   int32
	code       int32 // -1: it runs
}

// at0 is when the deaths of these tests are.
var at0 = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func (s state) object() *corev1.Pod {
	id := "containerd://" + strings.Repeat(string(s.id), 64)
	if s.asked == "" {
		s.asked = s.image
	}
	if s.wanted == "" {
		s.wanted = s.limit
	}
	of := func(limit string) corev1.ResourceRequirements {
		if limit == "" {
			return corev1.ResourceRequirements{}
		}
		return corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(limit)}}
	}
	kind, owner, _ := strings.Cut(s.owner, "/")
	ref := metav1.OwnerReference{APIVersion: "apps/v1", Kind: kind, Name: owner, Controller: new(true), UID: types.UID("owner-" + owner)}
	if kind == "Job" {
		ref.APIVersion = "batch/v1"
	}
	status := corev1.ContainerStatus{Name: "main", Image: s.image, ImageID: "docker.io/" + s.image + "@sha256:" + strings.Repeat("1", 64), ContainerID: id, RestartCount: s.restarts, Resources: new(of(s.limit))}
	began := metav1.NewTime(at0.Add(s.started))
	if s.code < 0 {
		status.State.Running = &corev1.ContainerStateRunning{StartedAt: began}
	} else {
		reason := map[int32]string{137: "OOMKilled"}[s.code]
		status.State.Terminated = &corev1.ContainerStateTerminated{ContainerID: id, ExitCode: s.code, Reason: reason, StartedAt: began, FinishedAt: metav1.NewTime(at0)}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: s.pod, Namespace: "shop", UID: types.UID("uid-of-" + s.pod), CreationTimestamp: began, OwnerReferences: []metav1.OwnerReference{ref}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: s.asked, Resources: of(s.wanted)}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{status}},
	}
}

// TestKubernetes_Changes (S26): what was changed just before a death is in its
// evidence, with when; what was not is not.
func TestKubernetes_Changes(t *testing.T) {
	const s, m = time.Second, time.Minute
	web := func(at time.Duration, pod string, id byte, started time.Duration, image, limit string, code int32) state {
		return state{at: at, pod: pod, owner: "StatefulSet/web", id: id, started: started, image: image, limit: limit, code: code}
	}
	cron := func(at time.Duration, minute string, id byte, image string, code int32) state {
		return state{at: at, pod: "backup-" + minute + "-x", owner: "Job/backup-" + minute, id: id, started: at, image: image, limit: "64Mi", code: code}
	}
	resize := web(-40*s, "web-0", 'a', -20*m, "x:1", "64Mi", -1)
	resize.wanted = "48Mi"
	renamed := web(-2*s, "web-0", 'a', -20*m, "sha256:"+strings.Repeat("5", 64), "64Mi", 1)
	renamed.asked = "x:2"
	begun := web(-20*m, "web-0", 'a', -20*m, "sha256:"+strings.Repeat("5", 64), "64Mi", -1)
	begun.asked = "x:1"
	again := web(0, "web-0", 'd', -30*s, "x:1", "64Mi", 3)
	again.restarts = 1
	for _, tc := range []struct {
		name  string
		had   []state
		want  []string
		image string
	}{
		{"the limit was lowered in place", []state{web(-20*m, "web-0", 'a', -20*m, "x:1", "64Mi", -1), resize, web(-30*s, "web-0", 'a', -20*m, "x:1", "48Mi", -1), web(0, "web-0", 'a', -20*m, "x:1", "48Mi", 137)},
			[]string{"30s kube: the memory limit was changed from 64 MiB to 48 MiB, 30.0 s before"}, "x:1"},
		{"it was asked for, and the node has no room", []state{web(-20*m, "web-0", 'a', -20*m, "x:1", "64Mi", -1), resize, web(0, "web-0", 'a', -20*m, "x:1", "64Mi", 137)}, nil, "x:1"},
		{"another image in the same pod", []state{web(-20*m, "web-0", 'a', -20*m, "x:1", "64Mi", -1), {-60 * s, "web-0", "StatefulSet/web", 'b', -60 * s, "x:2", "", "64Mi", "", 1, -1}, {0, "web-0", "StatefulSet/web", 'b', -60 * s, "x:2", "", "64Mi", "", 1, 3}},
			[]string{"1m0s kube: deployed 60.0 s before, in place of container aaaaaaaaaaaa: image x:1 before, x:2 since"}, "x:2"},
		{"a rollout: another pod of the owner, the old one lives", []state{web(-20*m, "web-a", 'a', -20*m, "x:1", "64Mi", -1), web(-60*s, "web-b", 'b', -60*s, "x:2", "48Mi", -1), web(-20*s, "web-c", 'c', -20*s, "x:2", "48Mi", -1), web(0, "web-c", 'c', -20*s, "x:2", "48Mi", 137)},
			[]string{"1m0s kube: deployed 60.0 s before, in place of container aaaaaaaaaaaa: image x:1 before, x:2 since; memory limit 64 MiB before, 48 MiB since"}, "x:2"},
		{"one of the old pods restarts after a rollout", []state{web(-20*m, "web-0", 'a', -20*m, "x:1", "64Mi", -1), web(-60*s, "web-1", 'b', -60*s, "x:2", "64Mi", -1), again}, nil, "x:1"},
		{"another workload", []state{web(-20*m, "web-0", 'a', -20*m, "x:1", "64Mi", -1), {-60 * s, "db-0", "StatefulSet/db", 'b', -60 * s, "y:2", "", "64Mi", "", 0, -1}, {0, "db-0", "StatefulSet/db", 'b', -60 * s, "y:2", "", "64Mi", "", 0, 3}}, nil, "y:2"},
		{"the next run of a CronJob has another image", []state{cron(-30*m, "29543730", 'a', "x:1", -1), cron(-10*m, "29543750", 'b', "x:2", -1), {0, "backup-29543750-x", "Job/backup-29543750", 'b', -10 * m, "x:2", "", "64Mi", "", 0, 3}},
			[]string{"10m0s kube: deployed 10 min before, in place of container aaaaaaaaaaaa: image x:1 before, x:2 since"}, "x:2"},
		{"an image is asked for that did not run yet", []state{begun, renamed}, nil, "x:1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at := map[*corev1.Pod]time.Time{}
			var pods []*corev1.Pod
			for _, st := range tc.had {
				p := st.object()
				at[p] = at0.Add(st.at)
				pods = append(pods, p)
			}
			q := inquest.New(inquest.Options{})
			q.Feed(signal.Signal{Time: at0.Add(-time.Hour), Observed: at0.Add(-time.Hour), Source: "kube", Body: signal.SourceState{Up: true, Mode: "api"}})
			kube.Signals(pods, func(p *corev1.Pod) time.Time { return at[p] }, q.Feed)
			ds := slices.Concat(q.Take(), q.Close())
			if len(ds) == 0 {
				t.Fatal("no death")
			}
			d := ds[len(ds)-1]
			var got []string
			for _, e := range d.Evidence {
				if strings.Contains(e.Text, "memory limit was") || strings.HasPrefix(e.Text, "deployed") {
					got = append(got, at0.Sub(e.Time).String()+" "+string(e.Source)+": "+e.Text)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || d.Container.Image != tc.image {
				t.Errorf("image %s (-want +got):\n%s", d.Container.Image, diff)
			}
		})
	}
}
