// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
)

// containers are bodies with each field set.
func containers() []Body {
	at := time.Date(2026, 11, 22, 9, 30, 0, 123456789, time.UTC)
	return []Body{
		ContainerSeen{
			Container: death.Container{
				ID: "4f1c", Name: "web", Runtime: "docker", Image: "shop/web:1", ImageID: "sha256:5d0d", RestartCount: new(3),
				Labels: map[string]string{"com.docker.compose.service": "web\n\u202e"},
			},
			Namespace: "k8s.io", Sandbox: true, PID: 812, State: "running", Started: at, ExitCode: new(0), LimitBytes: new(int64(32 << 20)), RequestBytes: new(int64(16 << 20)), ShmSizeBytes: new(int64(64 << 20)),
			LogPath: "/var/lib/docker/containers/4f1c/4f1c-json.log", StopSignal: 15, StopTimeout: new(int64(0)),
		},
		ContainerGone{ID: "4f1c", Runtime: "docker", Namespace: "moby"},
		ContainerExit{
			ID: "4f1c", Runtime: "podman", Namespace: "moby", Code: new(0), OOMKilled: new(false), Reason: "StartError", Error: "no such file",
			PID: 812, Started: at, Finished: at.Add(time.Second),
		},
		ContainerStop{ID: "4f1c", Runtime: "docker", Namespace: "moby", Signal: 15, Action: "kill"},
		ContainerOOM{ID: "4f1c", Runtime: "docker", Namespace: "moby"},
		PodSeen{
			Pod:   death.Pod{Namespace: "shop", Name: "web-1", UID: "6b3f", QoSClass: "Burstable", Owner: &death.Owner{Kind: "Deployment", Name: "web"}},
			Phase: "Failed", Reason: "Evicted", Message: "low\n", Priority: new(int32(-1)), NeverRan: true,
			Disruption: &Disruption{Reason: "TerminationByKubelet", Message: "low", At: at}, Deletion: &Deletion{At: at},
		},
		PodGone{UID: "6b3f"},
		PodEvents{UID: "6b3f", At: at, Events: []PodEvent{{Reason: "Killing", Message: "m", Container: "web", First: at, Last: at, Count: 2, By: "kubelet"}}, Error: "cut"},
		NodeSeen{
			Name: "n1", Capacity: NodeResources{MemoryBytes: new(int64(1 << 30)), StorageBytes: new(int64(1)), MilliCPU: new(int64(2000)), Pods: new(int64(110))},
			Allocatable: NodeResources{MemoryBytes: new(int64(1 << 29))},
			Conditions:  []NodeCondition{{Type: "MemoryPressure", Status: "True", Reason: "r", Message: "m", Since: at}},
			Taints:      []Taint{{Key: "k", Value: "v", Effect: "NoExecute", Added: at}},
		},
		ContainerLog{ID: "4f1c", At: at, Lines: []LogLine{{Time: at, Stream: "stderr", Text: "a\x00b\u2028"}}, Error: "cut"},
	}
}

// TestWriter_LeavesOutWhatIsNotKnown: a zero is never written for a value that
// nobody told.
func TestWriter_LeavesOutWhatIsNotKnown(t *testing.T) {
	for _, tt := range []struct {
		body Body
		want string
	}{
		{ContainerSeen{Container: death.Container{ID: "a"}}, `"body":{"container":{"id":"a"}}`},
		{ContainerGone{ID: "a"}, `"body":{"id":"a"}`},
		{ContainerExit{ID: "a"}, `"body":{"id":"a"}`},
		{ContainerStop{ID: "a", Action: "stop"}, `"body":{"id":"a","action":"stop"}`},
		{ContainerOOM{ID: "a"}, `"body":{"id":"a"}`},
		{MemoryHistory{Cgroup: Cgroup{Path: "/a"}}, `"body":{"path":"/a"}`},
		{ProcessesEscaped{Cgroup: Cgroup{Path: "/a"}}, `"body":{"path":"/a","count":0}`},
		{PIDNamespace{PIDNS: 1}, `"body":{"pidns":1}`},
		{MemoryHistory{Last: &MemoryReading{UsageBytes: 1}}, `"body":{"last":{"working_set_bytes":0,"usage_bytes":1}}`},
	} {
		if file := string(write(t, Header{}, []Signal{{Body: tt.body}})); !strings.Contains(file, tt.want) {
			t.Errorf("%T: %s\nlacks %s", tt.body, file, tt.want)
		}
	}
}

// TestKinds_AreAll: each type with a kind can be read from a file.
func TestKinds_AreAll(t *testing.T) {
	var want []string
	for _, name := range []string{"signal.go", "container.go", "memory.go", "escaped.go", "oomdaemon.go", "pod.go", "node.go"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func \(\w+\) kind\(\) string +\{ return "(\w+)" \}`).FindAllStringSubmatch(string(text), -1) {
			want = append(want, m[1])
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, Kinds()); diff != "" || len(want) < 21 {
		t.Errorf("kinds (-declared +decoded):\n%s", diff)
	}
}
