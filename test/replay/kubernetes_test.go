// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/signal"
	"github.com/coroner-dev/coroner/internal/source/kube"
)

const clusterCases = "testdata/kubernetes"

// watched reads what a watch of a pod brought, in its order.
func watched(t *testing.T, name string) (pods []*corev1.Pod) {
	t.Helper()
	f, err := os.Open(filepath.Join(clusterCases, name, "pod-watch.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct {
			Object corev1.Pod `json:"object"`
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		pods = append(pods, &e.Object)
	}
	if err := lines.Err(); err != nil || len(pods) == 0 {
		t.Fatalf("%d states of pods: %v", len(pods), err)
	}
	return pods
}

// fromAPI is what coroner says with nothing but the Kubernetes API to go by.
func fromAPI(t *testing.T, name string) []death.Death {
	t.Helper()
	var events corev1.EventList
	text, err := os.ReadFile(filepath.Join(clusterCases, name, "events.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &events); err != nil {
		t.Fatal(err)
	}
	q := inquest.New(inquest.Options{})
	var out []death.Death
	var now time.Time
	take := func() {
		for _, d := range q.Take() {
			if i := slices.IndexFunc(out, func(o death.Death) bool { return o.ID == d.ID }); i >= 0 {
				out[i] = d
				continue
			}
			out = append(out, d)
		}
	}
	feed := func(s signal.Signal) {
		s.Observed = now
		q.Feed(s)
		take()
	}
	answer := func() {
		q.Tick(now)
		for _, w := range q.TakeWants() {
			if w.Kind == inquest.WantEvents {
				feed(signal.Signal{Time: now, Source: death.SourceKube, Body: kube.Events(&events, w.Pod.UID, w.At)})
			}
		}
		take()
	}
	pods := watched(t, name)
	now = pods[0].CreationTimestamp.UTC()
	feed(signal.Signal{Time: now, Source: death.SourceKube, Body: signal.SourceState{Up: true, Mode: "api"}})
	kube.Signals(pods, func(p *corev1.Pod) time.Time {
		now = latest(p, now)
		answer()
		return now
	}, feed)
	for range 5 {
		now = now.Add(time.Second)
		answer()
	}
	return append(out, q.Close()...)
}

// latest is the newest time that a pod speaks of, after now.
func latest(p *corev1.Pod, now time.Time) time.Time {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if r := s.State.Running; r != nil && r.StartedAt.After(now) {
			now = r.StartedAt.UTC()
		}
		if x := s.State.Terminated; x != nil && x.FinishedAt.After(now) {
			now = x.FinishedAt.UTC()
		}
	}
	return now
}

// TestKubernetes_API: what the API alone tells of each case that was made in a
// real cluster. An OOM kill that the container survives is not in it.
func TestKubernetes_API(t *testing.T) {
	type end struct {
		pod, container string
		cause          death.Cause
		code           int
	}
	for name, want := range map[string][]end{
		"a-oom-init-never":       {{"leaker", "main", death.OOMContainerLimit, 137}},
		"a-oom-init-restart":     {{"leaker", "main", death.OOMContainerLimit, 137}, {"leaker", "main", death.OOMContainerLimit, 137}},
		"b-oom-child":            nil,
		"b-oom-child-then-exit3": {{"forker", "main", death.Error, 3}},
		"c-eviction":             {{"besteffort-leaker", "main", death.EvictedMemory, 137}},
		"c-eviction-exit0":       {{"besteffort-leaker", "main", death.EvictedMemory, 0}},
		"d-sigkill":              {{"victim", "main", death.Unknown, 137}},
		"e-liveness":             {{"hung", "main", death.LivenessProbe, 137}},
		"f-segv":                 {{"crasher", "main", death.Segfault, 139}},
		"g-job":                  {{"work-k6hgv", "main", death.Completed, 0}},
		"h-oom-exec":             nil,
		"i-oom-two-containers":   {{"two", "leaker", death.OOMContainerLimit, 137}},
		"j-delete-stubborn":      {{"stubborn", "main", death.StopTimeout, 137}},
		"k-oom-initcontainer":    {{"initoom", "prepare", death.OOMContainerLimit, 137}},
		"l-preempted":            {{"low", "main", death.Preempted, 0}},
		"m-api-eviction":         {{"victim", "main", death.Drained, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []end
			for _, d := range fromAPI(t, name) {
				t.Logf("%s (%s, %s): %s", d.Cause, d.Confidence, d.Rule, d.Summary)
				for _, e := range d.Evidence {
					t.Logf("    %s %s %s", e.Time.Format(time.TimeOnly), e.Source, e.Text)
				}
				got = append(got, end{d.Container.Pod.Name, d.Container.Name, d.Cause, *d.Exit.Code})
				if d.Container.Pod.Namespace != name || d.Subject != death.SubjectContainer {
					t.Errorf("a %s in namespace %q, want a container in %q", d.Subject, d.Container.Pod.Namespace, name)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("deaths %v, want %v", got, want)
			}
		})
	}
}
