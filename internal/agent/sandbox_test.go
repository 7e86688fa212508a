// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/oomtest"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestPipeline_Sandboxes: no pod's own container is listed, whoever tells of
// the pod, and in whatever order.
func TestPipeline_Sandboxes(t *testing.T) {
	uid, web, pause := oomtest.PodUID("shop"), oomtest.ContainerID("web"), oomtest.ContainerID("pause")
	pod := death.Pod{Namespace: "shop", Name: "web-1", UID: uid}
	path := func(id string) string {
		return "/" + oomtest.CgroupfsContainer(oomtest.CgroupfsPod("burstable", uid), id)
	}
	seen := func(id string) signal.Body {
		return signal.CgroupSeen{Level: signal.Level{Cgroup: signal.Cgroup{Path: path(id)}}}
	}
	podSeen := signal.PodSeen{Pod: pod, Phase: "Running"}
	webSeen := signal.ContainerSeen{Container: death.Container{ID: web, Name: "web", Runtime: "containerd", Pod: &pod}, State: "running"}
	first := true
	ended := func(id, comm string) signal.Body {
		return signal.Exit{Task: signal.Task{PID: 7, Comm: comm, Init: &first, Cgroup: signal.Cgroup{Path: path(id)}}, Code: new(int)}
	}
	up, down := signal.SourceState{Up: true}, signal.SourceState{}
	for name, tt := range map[string]struct {
		said []signal.Body
		want []string
	}{
		"pod first":                     {[]signal.Body{up, podSeen, seen(pause), webSeen, seen(web)}, []string{web}},
		"cgroups first":                 {[]signal.Body{up, seen(pause), seen(web), podSeen, webSeen}, []string{web}},
		"not told of yet":               {[]signal.Body{up, podSeen, seen(pause), seen(web)}, nil},
		"the API is away":               {[]signal.Body{up, podSeen, webSeen, down, seen(web), seen(pause)}, []string{web, pause}},
		"the API was away":              {[]signal.Body{up, seen(web), podSeen, webSeen, down, seen(pause), up, podSeen}, []string{web}},
		"nobody tells of the pod":       {[]signal.Body{seen(pause), seen(web), ended(pause, "pause")}, []string{web}},
		"nobody tells of the container": {[]signal.Body{seen(pause), seen(web), ended(web, "web")}, []string{web, pause}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPipeline(inquest.New(inquest.Options{}), func(progress) {})
			for _, b := range tt.said {
				src := death.SourceKube
				switch b.(type) {
				case signal.CgroupSeen:
					src = death.SourceCgroup
				case signal.Exit:
					src = death.SourceTracepoint
				}
				now := time.Now()
				p.feed(signal.Signal{Time: now, Observed: now, Source: src, Body: b})
			}
			var got []string
			for _, c := range p.living.list() {
				got = append(got, c.ID)
			}
			slices.Sort(got)
			slices.Sort(tt.want)
			if !slices.Equal(got, tt.want) {
				t.Errorf("listed %v, want %v", got, tt.want)
			}
		})
	}
}
