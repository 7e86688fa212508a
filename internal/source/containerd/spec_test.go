// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/signal"
)

func ourReader() reader { return reader{labels: engines.SelectionOf(DefaultLabels())} }

const id64 = "87b0753e33cbe04b208b654d5e0edc092c80acf4e2dfc104922849a4b63ac7da"

func TestDescribe(t *testing.T) {
	pod := map[string]string{
		labelKind: "container", labelInPod: "web", labelPodName: "web-1", labelPodNamespace: "shop", labelPodUID: "0a1b",
	}
	sandbox := map[string]string{labelKind: "sandbox", labelPodName: "web-1", labelPodNamespace: "shop", labelPodUID: "0a1b"}
	carried := func(labels map[string]string) map[string]string {
		out, _ := ourReader().labels.Pick(labels)
		return out
	}
	const state = "/var/lib/nerdctl/1935db59/containers/default/" + id64
	nerdctl := map[string]string{
		labelNerdctl: "db", labelNerdctlDir: state, labelStopSignal: "SIGQUIT", "com.docker.compose.service": "db",
		labelNerdctlLog: `{"driver":"json-file","address":"/run/containerd/containerd.sock"}`,
	}
	with := func(labels map[string]string, name, value string) map[string]string {
		out := map[string]string{name: value}
		for k, v := range labels {
			if k != name {
				out[k] = v
			}
		}
		return out
	}
	meta := func(text string) *anypb.Any {
		return &anypb.Any{TypeUrl: "github.com/containerd/cri/pkg/store/container/Metadata", Value: []byte(text)}
	}
	const kept = `{"Version":"v1","Metadata":{"ID":"x","LogPath":"/var/log/pods/shop_web-1_0a1b/web/2.log","StopSignal":"SIGINT","Config":{"metadata":{"name":"web","attempt":2}}}}`
	seen := func(namespace string, c death.Container) signal.ContainerSeen {
		c.ID = id64
		if c.Runtime == "" {
			c.Runtime = "containerd"
		}
		if service := c.Labels["com.docker.compose.service"]; service != "" && namespace != nsDocker {
			c.Workload = &death.Workload{Kind: death.WorkloadCompose, Name: service}
		}
		return signal.ContainerSeen{Namespace: namespace, Container: c}
	}
	inPod := &death.Pod{Namespace: "shop", Name: "web-1", UID: "0a1b"}
	for _, tc := range []struct {
		name      string
		namespace string
		c         *containersapi.Container
		want      signal.ContainerSeen
		change    func(s *signal.ContainerSeen)
		unread    bool
	}{
		{name: "ctr: only an id", namespace: "default", c: &containersapi.Container{Image: "docker.io/library/base:1"},
			want: seen("default", death.Container{Name: id64, Image: "docker.io/library/base:1"})},
		{name: "nerdctl", namespace: "default", c: &containersapi.Container{Labels: nerdctl},
			want:   seen("default", death.Container{Name: "db", Labels: carried(nerdctl)}),
			change: func(s *signal.ContainerSeen) { s.StopSignal, s.LogPath = 3, state+"/"+id64+"-json.log" }},
		{name: "nerdctl with another log", namespace: "default", c: &containersapi.Container{Labels: with(nerdctl, labelNerdctlLog, `{"driver":"journald"}`)},
			want: seen("default", death.Container{Name: "db", Labels: carried(nerdctl)}), change: func(s *signal.ContainerSeen) { s.StopSignal = 3 }},
		{name: "nerdctl's folder of another container", namespace: "default", c: &containersapi.Container{Labels: with(nerdctl, labelNerdctlDir, "/etc")},
			want: seen("default", death.Container{Name: "db", Labels: carried(nerdctl)}), change: func(s *signal.ContainerSeen) { s.StopSignal = 3 }},
		{name: "nerdctl's folder that climbs", namespace: "default", c: &containersapi.Container{Labels: with(nerdctl, labelNerdctlDir, "/a/../containers/default/"+id64)},
			want: seen("default", death.Container{Name: "db", Labels: carried(nerdctl)}), change: func(s *signal.ContainerSeen) { s.StopSignal = 3 }},
		{name: "pod", namespace: "k8s.io",
			c:      &containersapi.Container{Labels: pod, Extensions: map[string]*anypb.Any{criMetadata[0]: meta(kept)}},
			want:   seen("k8s.io", death.Container{Name: "web", Pod: inPod, Labels: carried(pod), RestartCount: new(2)}),
			change: func(s *signal.ContainerSeen) { s.StopSignal, s.LogPath = 2, "/var/log/pods/shop_web-1_0a1b/web/2.log" }},
		{name: "pod of containerd 2", namespace: "k8s.io",
			c:      &containersapi.Container{Labels: pod, Extensions: map[string]*anypb.Any{criMetadata[1]: meta(`{"Metadata":{"LogPath":"rel","Config":{"metadata":{}}}}`)}},
			want:   seen("k8s.io", death.Container{Name: "web", Pod: inPod, Labels: carried(pod), RestartCount: new(0)}),
			change: func(*signal.ContainerSeen) {}},
		{name: "pod whose record is broken", namespace: "k8s.io", unread: true,
			c:    &containersapi.Container{Labels: pod, Extensions: map[string]*anypb.Any{criMetadata[0]: meta(`{"Metadata":7}`)}},
			want: seen("k8s.io", death.Container{Name: "web", Pod: inPod, Labels: carried(pod)})},
		{name: "sandbox", namespace: "k8s.io", c: &containersapi.Container{Labels: sandbox},
			want:   seen("k8s.io", death.Container{Name: id64, Pod: inPod, Labels: carried(sandbox)}),
			change: func(s *signal.ContainerSeen) { s.Sandbox = true }},
		{name: "an image's labels make no sandbox, and no pod", namespace: "default", c: &containersapi.Container{Labels: sandbox},
			want: seen("default", death.Container{Name: id64, Labels: carried(sandbox)})},
		{name: "ctr in the CRI's namespace", namespace: "k8s.io", c: &containersapi.Container{Labels: map[string]string{labelPodName: "p"}},
			want: seen("k8s.io", death.Container{Name: id64, Labels: map[string]string{labelPodName: "p"}})},
		{name: "Docker's", namespace: "moby", c: &containersapi.Container{Labels: nerdctl, Spec: specOf("/docker/"+id64, 5)},
			want:   seen("moby", death.Container{Runtime: "docker", Labels: carried(nerdctl)}),
			change: func(s *signal.ContainerSeen) { s.StopSignal, s.LimitBytes = 3, new(int64(5)) }},
		{name: "no limit", namespace: "default", c: &containersapi.Container{Spec: specOf("/a", -1)}, want: seen("default", death.Container{Name: id64})},
		{name: "configuration that is none", namespace: "default", unread: true,
			c:    &containersapi.Container{Spec: &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: []byte(`{"linux":7}`)}},
			want: seen("default", death.Container{Name: id64})},
		{name: "configuration of another kind", namespace: "default", c: &containersapi.Container{Spec: &anypb.Any{TypeUrl: "x", Value: []byte("\xff")}},
			want: seen("default", death.Container{Name: id64})},
		{name: "image known by its digest", namespace: "k8s.io",
			c: &containersapi.Container{Image: "sha256:87b0", Labels: pod, Spec: &anypb.Any{
				TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: []byte(`{"annotations":{"io.kubernetes.cri.image-name":"shop/web:1"}}`)}},
			want: seen("k8s.io", death.Container{Name: "web", Image: "shop/web:1", Pod: inPod, Labels: carried(pod)})},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.c.ID = id64
			got, err := ourReader().describe(tc.namespace, tc.c)
			if err != nil {
				t.Fatal(err)
			}
			if tc.change != nil {
				tc.change(&tc.want)
			}
			if diff := cmp.Diff(tc.want, got.seen); diff != "" || got.unread != tc.unread {
				t.Errorf("unread %v (-want +got):\n%s", got.unread, diff)
			}
		})
	}
	for _, id := range []string{"", "../a", "a/b", strings.Repeat("a", 129)} {
		if _, err := ourReader().describe("default", &containersapi.Container{ID: id}); err == nil {
			t.Errorf("id %.20q was taken", id)
		}
	}
}

// sample reads what a real containerd said of a container: container and
// sandbox are of containerd 1.6.20's CRI, and their image has the label
// io.cri-containerd.kind=sandbox.
func sample(t testing.TB, name string) *containersapi.Container {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	type document struct {
		TypeURL string          `json:"type_url"`
		Value   json.RawMessage `json:"value"`
	}
	var s struct {
		ID, Image  string
		Labels     map[string]string
		Spec       document
		Extensions map[string]document
		Options    struct {
			TypeURL string `json:"type_url"`
			Value   []byte `json:"value"`
		} `json:"runtime_options"`
	}
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	c := &containersapi.Container{
		ID: s.ID, Image: s.Image, Labels: s.Labels, Spec: &anypb.Any{TypeUrl: s.Spec.TypeURL, Value: s.Spec.Value},
		Runtime:    &containersapi.Container_Runtime{Options: &anypb.Any{TypeUrl: s.Options.TypeURL, Value: s.Options.Value}},
		Extensions: map[string]*anypb.Any{},
	}
	for name, e := range s.Extensions {
		c.Extensions[name] = &anypb.Any{TypeUrl: e.TypeURL, Value: e.Value}
	}
	return c
}

func TestDescribe_Real(t *testing.T) {
	const uid = "0a1b2c3d-0000-4000-8000-000000000001"
	pod := &death.Pod{Namespace: "shop", Name: "web-1", UID: uid}
	labels := map[string]string{labelPodName: "web-1", labelPodNamespace: "shop", labelPodUID: uid}
	inPod := map[string]string{labelPodName: "web-1", labelPodNamespace: "shop", labelPodUID: uid, labelInPod: "web"}
	for name, want := range map[string]signal.ContainerSeen{
		"container.json": {
			Container: death.Container{Name: "web", Pod: pod, Labels: inPod, RestartCount: new(2)}, LimitBytes: new(int64(32 << 20)),
			LogPath: "/var/log/pods/shop_web-1_0a1b/web/2.log", StopSignal: 2, Program: "sleep",
		},
		"sandbox.json": {Container: death.Container{Pod: pod, Labels: labels}, Sandbox: true, Program: "sleep"},
	} {
		c := sample(t, "containerd-1.6.20/"+name)
		got, err := ourReader().describe("k8s.io", c)
		if err != nil || got.unread || got.lost != 0 {
			t.Fatal(err, got.unread, got.lost)
		}
		want.Namespace, want.Container.ID, want.Container.Runtime, want.Container.Image = "k8s.io", c.ID, "containerd", "docker.io/library/base:1"
		if want.Container.Name == "" {
			want.Container.Name = c.ID
		}
		if diff := cmp.Diff(want, got.seen); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if cgroup := "/kubepods/burstable/pod" + uid + "/" + c.ID; got.own("") != cgroup {
			t.Errorf("%s: cgroup %q", name, got.own(""))
		}
	}
}

func TestDescribe_Cgroup(t *testing.T) {
	driver := func(systemd bool) *containersapi.Container_Runtime {
		b, err := proto.Marshal(&options.Options{SystemdCgroup: systemd})
		if err != nil {
			t.Fatal(err)
		}
		return &containersapi.Container_Runtime{Name: "io.containerd.runc.v2", Options: &anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: b}}
	}
	const pod = "kubepods-burstable-pod0a1b.slice:cri-containerd:" + id64
	const podPath = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0a1b.slice/cri-containerd-" + id64 + ".scope"
	for _, tc := range []struct {
		name, spec, lives, want string
		runtime                 *containersapi.Container_Runtime
	}{
		{name: "cgroupfs", spec: "/default/a", want: "/default/a"},
		{name: "cgroupfs, not clean", spec: "/default//a/", want: "/default/a"},
		{name: "systemd", spec: "system.slice:nerdctl:" + id64, want: "/system.slice/nerdctl-" + id64 + ".scope", runtime: driver(true)},
		{name: "systemd, slices in slices", spec: pod, want: podPath, runtime: driver(true)},
		{name: "systemd by its form", spec: pod, want: podPath},
		{name: "systemd's root slice", spec: "-.slice:ctr:a", want: "/ctr-a.scope"},
		{name: "systemd, no slice named", spec: ":docker:a", want: "/system.slice/docker-a.scope"},
		{name: "systemd, no prefix", spec: "a.slice::b", want: "/a.slice/b.scope"},
		{name: "a slice that is none", spec: "a--b.slice:x:y"},
		{name: "not a slice", spec: "a:x:y"},
		{name: "a unit that climbs", spec: "a.slice:x:../y"},
		{name: "a unit's form below cgroupfs", spec: pod, runtime: driver(false)},
		{name: "the same, by its process", spec: pod, runtime: driver(false), lives: "/system.slice/containerd.service/" + pod + "/x",
			want: "/system.slice/containerd.service/" + pod},
		{name: "its process lives deeper", spec: "/default/a", lives: "/default/a/system.slice/x.service", want: "/default/a"},
		{name: "below another root", spec: "/default/a", lives: "/docker/n/default/a/x", want: "/docker/n/default/a"},
		{name: "a name that goes on", spec: "/default/a", lives: "/default/ab", want: "/default/a"},
		{name: "its process lives elsewhere", spec: "/default/a", lives: "/elsewhere", want: "/default/a"},
		{name: "its process exits", spec: "/default/a", lives: "/", want: "/default/a"},
		{name: "relative", spec: "foo", lives: "/system.slice/" + id64 + "/b", want: "/system.slice/" + id64},
		{name: "nothing said", lives: "/system.slice/" + id64, want: "/system.slice/" + id64},
		{name: "nothing known", lives: "/system.slice"},
		{name: "the root", spec: "/"},
		{name: "too long", spec: "/" + strings.Repeat("a", engines.MaxPath)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, err := ourReader().describe("default", &containersapi.Container{ID: id64, Spec: specOf(tc.spec, 0), Runtime: tc.runtime})
			if err != nil {
				t.Fatal(err)
			}
			if got := d.own(tc.lives); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// FuzzSpec: whatever an engine says of a container, reading it does not panic,
// and what comes out is bounded, valid text.
func FuzzSpec(f *testing.F) {
	f.Add([]byte(`{"linux":{"cgroupsPath":"/default/a","resources":{"memory":{"limit":33554432}}}}`), "default", "/default/a", `{"Metadata":{"LogPath":"/a"}}`)
	f.Add([]byte(`{"linux":{"cgroupsPath":"a-b.slice:p:n"}}`), "k8s.io", "/x", `{"Metadata":{"Config":{"metadata":{"attempt":-1}}}}`)
	f.Add([]byte(`{"annotations":{"io.kubernetes.cri.image-name":"\u0000"},"linux":{"cgroupsPath":"::"}}`), "moby", "", "")
	real := sample(f, "containerd-1.6.20/container.json")
	f.Add(real.Spec.Value, "k8s.io", "/kubepods/x", string(real.Extensions[criMetadata[0]].Value))
	f.Fuzz(func(t *testing.T, spec []byte, namespace, text, cri string) {
		c := &containersapi.Container{
			ID: "a", Image: "sha256:" + text,
			Labels:     map[string]string{labelKind: "container", labelInPod: text, labelPodUID: text, labelNerdctl: text, labelNerdctlDir: text, labelStopSignal: text, text: text},
			Spec:       &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: spec},
			Extensions: map[string]*anypb.Any{criMetadata[0]: {Value: []byte(cri)}},
		}
		d, err := reader{labels: engines.SelectionOf([]string{"*"})}.describe(namespace, c)
		if err != nil {
			t.Fatal(err)
		}
		d.seen.Container.Cgroup = d.own(text)
		if d.cgroup != "" && (d.cgroup[0] != '/' || strings.Contains(d.cgroup+"/", "/../")) {
			t.Errorf("cgroup %q", d.cgroup)
		}
		d.seen.Container.Cgroup = d.own("")
		withinBounds(t, d.seen)
	})
}

func withinBounds(t *testing.T, seen signal.ContainerSeen) {
	t.Helper()
	c := seen.Container
	check := func(what, s string, most int) {
		if len(s) > most || !utf8.ValidString(s) {
			t.Errorf("%s: %d bytes: %.50q", what, len(s), s)
		}
	}
	check("id", c.ID, engines.MaxID)
	check("name", c.Name, engines.MaxName)
	check("image", c.Image, engines.MaxImage)
	check("cgroup", c.Cgroup, engines.MaxPath)
	check("log path", seen.LogPath, engines.MaxPath)
	if c.Pod != nil {
		check("uid", c.Pod.UID, engines.MaxName)
	}
	if seen.LimitBytes != nil && *seen.LimitBytes <= 0 || c.RestartCount != nil && *c.RestartCount < 0 {
		t.Errorf("limit %v, restarts %v", seen.LimitBytes, c.RestartCount)
	}
	for k, v := range c.Labels {
		check("label's name", k, engines.MaxLabelName)
		check("label", v, engines.MaxLabelValue)
	}
}
