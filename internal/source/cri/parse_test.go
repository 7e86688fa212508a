// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/signal"
)

var boxID = strings.Repeat("0a", 32)

func TestCgroupOf(t *testing.T) {
	const uid = "28fcb1a0_a45c_44e7_b9bf_e3b9360bedba"
	for spec, want := range map[string]string{
		"/kubepods/burstable/pod28fcb1a0-a45c-44e7-b9bf-e3b9360bedba/" + boxID: "/kubepods/burstable/pod28fcb1a0-a45c-44e7-b9bf-e3b9360bedba/" + boxID,
		"kubepods-burstable-pod" + uid + ".slice:cri-containerd:" + boxID:      "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uid + ".slice/cri-containerd-" + boxID + ".scope",
		"kubepods.slice:crio:" + boxID:                                         "/kubepods.slice/crio-" + boxID + ".scope",
		":docker:x":                                                            "/system.slice/docker-x.scope",
		"a.slice::x":                                                           "/a.slice/x.scope",
		"-.slice:p:x":                                                          "/p-x.scope",
		"a.slice:p:b.slice":                                                    "/a.slice/b.slice",
		"/a//b/../c/":                                                          "/a/c",
		"/":                                                                    "",
		"":                                                                     "",
		"k8s.io/x":                                                             "",
		"a:b":                                                                  "",
		"a.slice:b:c:d":                                                        "",
		"a.slice:b:":                                                           "",
		"a:b:c":                                                                "",
		"a--b.slice:p:x":                                                       "",
		"-a.slice:p:x":                                                         "",
		".slice:p:x":                                                           "",
		"a.slice:../p:x":                                                       "",
		"/" + strings.Repeat("x", 4096):                                        "",
		strings.Repeat("a-", 99) + "b.slice:p:x":                               "",
	} {
		if got := cgroupOf(spec); got != want {
			t.Errorf("cgroupOf(%q) = %q, want %q", spec, got, want)
		}
	}
}

func TestOwnCgroup(t *testing.T) {
	const spec = "/kubepods/burstable/pod1/x"
	for _, tt := range []struct{ lives, id, spec, want string }{
		{spec, "x", spec, spec},
		{spec + "/init.scope", "x", spec, spec},
		{"/docker/node" + spec, "x", spec, "/docker/node" + spec},
		{spec + spec, "x", spec, spec},
		{spec + "y", "x", spec, ""},
		{"/system.slice/cri-containerd-" + boxID + ".scope/a", boxID, "", "/system.slice/cri-containerd-" + boxID + ".scope"},
		{"/user.slice", "x", spec, ""},
		{"", "x", spec, ""},
		{"", "x", "", ""},
	} {
		if got := ownCgroup(tt.lives, tt.id, tt.spec); got != tt.want {
			t.Errorf("ownCgroup(%q, %q, %q) = %q, want %q", tt.lives, tt.id, tt.spec, got, tt.want)
		}
	}
}

func TestParseInfo(t *testing.T) {
	const crio = `{"sandboxID":"s","pid":7,"runtimeSpec":{"ociVersion":"1.0.2-dev","annotations":{"pid":"9"},"process":{"args":["/usr/bin/java","-jar"]},"linux":{"cgroupsPath":"a.slice:crio:x","resources":{"memory":{"limit":-1}}}},"privileged":false}`
	for _, tt := range []struct {
		text string
		want info
		bad  bool
	}{
		{"", info{}, false},
		{crio, info{pid: 7, cgroup: "/a.slice/crio-x.scope", program: "java"}, false},
		{`{"pid":0,"runtimeSpec":null}`, info{}, false},
		{`{"pid":-4,"runtimeSpec":{"linux":{"cgroupsPath":"/x","resources":{"memory":{"limit":5}}}}}`, info{cgroup: "/x", limit: new(int64(5))}, false},
		{`{"runtimeType":"io.containerd.runc.v2","runtimeOptions":{"systemd_cgroup":true},"runtimeSpec":{"linux":{"cgroupsPath":"a.slice:p:x"}}}`, info{cgroup: "/a.slice/p-x.scope"}, false},
		{`{"runtimeType":"io.containerd.runc.v2","runtimeOptions":{},"runtimeSpec":{"linux":{"cgroupsPath":"a.slice:p:x"}}}`, info{}, false},
		{`{"runtimeType":"io.containerd.runc.v2","runtimeOptions":null,"runtimeSpec":{"linux":{"cgroupsPath":"/p/x"}}}`, info{cgroup: "/p/x"}, false},
		{`{"runtimeType":"io.containerd.kata.v2","runtimeOptions":"kata","runtimeSpec":{"linux":{"cgroupsPath":"a.slice:p:x"}}}`, info{}, false},
		{`{"pid":"7"}`, info{}, true},
		{`{"pid":99999999999999999999}`, info{}, true},
		{`{"pid":7`, info{}, true},
		{"nonsense", info{}, true},
	} {
		got, err := parseInfo(tt.text)
		if (err != nil) != tt.bad {
			t.Errorf("%s: %v", tt.text, err)
		}
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(info{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.text, diff)
		}
	}
}

func TestImageOf(t *testing.T) {
	id := "sha256:" + boxID
	for _, tt := range []struct {
		spec *runtimeapi.ImageSpec
		ref  string
		want string
	}{
		{nil, "", ""},
		{&runtimeapi.ImageSpec{Image: id}, id, ""},
		{&runtimeapi.ImageSpec{Image: boxID}, "docker.io/x@" + id, "docker.io/x@" + id},
		{&runtimeapi.ImageSpec{Image: id, UserSpecifiedImage: "shop/web"}, id, "shop/web"},
		{&runtimeapi.ImageSpec{Image: "docker.io/shop/web:1"}, "", "docker.io/shop/web:1"},
	} {
		if got := imageOf(&runtimeapi.ContainerStatus{Image: tt.spec, ImageRef: tt.ref}); got != tt.want {
			t.Errorf("imageOf(%v, %q) = %q, want %q", tt.spec, tt.ref, got, tt.want)
		}
	}
}

func TestStopSignal(t *testing.T) {
	for s, want := range map[runtimeapi.Signal]int{
		runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT: 0, runtimeapi.Signal_SIGNAL_SIGABRT: 6, runtimeapi.Signal_SIGNAL_SIGCLD: 17,
		runtimeapi.Signal_SIGNAL_SIGTERM: 15, runtimeapi.Signal_SIGNAL_SIGRTMIN: 34, runtimeapi.Signal_SIGNAL_SIGRTMINPLUS3: 37,
		runtimeapi.Signal_SIGNAL_SIGRTMAXMINUS1: 63, runtimeapi.Signal_SIGNAL_SIGRTMAX: 64, 99: 0, -1: 0,
	} {
		if got := stopSignal(s); got != want {
			t.Errorf("%v: %d, want %d", s, got, want)
		}
	}
	for n, name := range runtimeapi.Signal_name {
		if n != 0 && stopSignal(runtimeapi.Signal(n)) == 0 {
			t.Errorf("%s has no number", name)
		}
	}
}

// TestStatus_Containerd reads what a containerd 1.6.20 answered; of its words
// only folders and the name of the machine were changed.
func TestStatus_Containerd(t *testing.T) {
	var c runtimeapi.ContainerStatusResponse
	var s runtimeapi.PodSandboxStatusResponse
	answered(t, "container", &c)
	answered(t, "sandbox", &s)
	rd := reader{runtime: "containerd", namespace: containerdNamespace, labels: engines.SelectionOf([]string{"io.kubernetes.pod.*"})}
	own, err := parseInfo(c.GetInfo()[infoKey])
	if err != nil {
		t.Fatal(err)
	}
	p := rd.pod(s.GetStatus().GetMetadata(), s.GetStatus().GetLabels())
	got, err := rd.status(c.GetStatus(), own, own.cgroup, p)
	if err != nil {
		t.Fatal(err)
	}
	const id, uid = "0fe4f7ff6a81623d379a1436d7924e4d2538320fc989713d82b638ed6e81d3c7", "28fcb1a0-a45c-44e7-b9bf-000000000000"
	want := signal.ContainerSeen{
		Container: death.Container{
			ID: id, Name: "web", Runtime: "containerd", Image: "localhost/base:1", Cgroup: "/kubepods/burstable/pod" + uid + "/" + id,
			RestartCount: new(2), Labels: map[string]string{"io.kubernetes.pod.name": "web-0"},
			Pod: &death.Pod{Namespace: "shop", Name: "web-0", UID: uid, QoSClass: "Burstable"},
		},
		Namespace: "k8s.io", State: "running", PID: 30484, Program: "sleep", Started: time.Unix(0, 1795351906108368185).UTC(), LimitBytes: new(int64(32 << 20)),
		LogPath: "/var/log/pods/web-0/web.2.log", StopTimeout: new(int64(7)),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("container (-want +got):\n%s", diff)
	}
	own, err = parseInfo(s.GetInfo()[infoKey])
	if want := (info{pid: 30446, cgroup: "/kubepods/burstable/pod" + uid + "/251a9cfa05f80ff8f56ce510498d9b52b11b6af15033e93a0c239b49fe9f1ab0", program: "sleep"}); err != nil || own != want {
		t.Errorf("sandbox %+v, %v, want %+v", own, err, want)
	}
}

func answered(t *testing.T, name string, m proto.Message) {
	t.Helper()
	text, err := os.ReadFile("testdata/containerd-1.6.20/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(text, m); err != nil {
		t.Fatal(err)
	}
}

// TestExit_Unknown: a runtime that lost sight of a container makes up a code.
func TestExit_Unknown(t *testing.T) {
	e := reader{}.exit(&runtimeapi.ContainerStatus{Id: "a", ExitCode: 255, Reason: "Unknown"})
	if e.Code != nil || e.OOMKilled != nil || e.Reason != "Unknown" {
		t.Errorf("%+v", e)
	}
	if e := (reader{}).exit(&runtimeapi.ContainerStatus{Id: "a", ExitCode: -1}); e.Code != nil || e.OOMKilled != nil || !e.Finished.IsZero() {
		t.Errorf("%+v", e)
	}
}

// TestExit_AtOnce: a start is noted late, and is none after the end.
func TestExit_AtOnce(t *testing.T) {
	e := reader{}.exit(&runtimeapi.ContainerStatus{Id: "a", StartedAt: 5e18 + 1, FinishedAt: 5e18})
	if !e.Started.IsZero() || e.Finished.IsZero() {
		t.Errorf("%+v", e)
	}
}

// sample is a status with text that is no UTF-8 in all kinds of places.
func sample(text string) *runtimeapi.ContainerStatus {
	return &runtimeapi.ContainerStatus{
		Id: "a", Metadata: &runtimeapi.ContainerMetadata{Name: text, Attempt: 7}, ExitCode: 137, FinishedAt: 1 << 60,
		Image: &runtimeapi.ImageSpec{Image: text, Annotations: map[string]string{text: text}}, Labels: map[string]string{text: "v", "k": text},
		Mounts: []*runtimeapi.Mount{{HostPath: text}, {ContainerPath: "x", UidMappings: []*runtimeapi.IDMapping{{HostId: 5}}}},
	}
}

// TestUnmarshal: text that is no UTF-8 is mended, and nothing else is changed.
func TestUnmarshal(t *testing.T) {
	b, err := proto.Marshal(sample("INVALID8"))
	if err != nil {
		t.Fatal(err)
	}
	bad := []byte(strings.ReplaceAll(string(b), "INVALID8", "\xffNVALID\xc0"))
	var got runtimeapi.ContainerStatus
	if err := proto.Unmarshal(bad, &got); err == nil {
		t.Error("the library takes it")
	}
	if err := engines.Unmarshal(bad, &got); err != nil {
		t.Fatal(err)
	}
	if want := sample("?NVALID?"); !proto.Equal(want, &got) {
		t.Errorf("got %v, want %v", &got, want)
	}
	for _, text := range []string{"\xff", "\x0a\xff", "\x12\x03\x0a\x09a"} {
		if err := engines.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%q is taken for a message", text)
		}
	}
}

// FuzzUnmarshal: what is mended is text; what is good is not changed.
func FuzzUnmarshal(f *testing.F) {
	for _, text := range []string{"x", "\xffy"} {
		b, _ := proto.Marshal(sample("INVALID8"))
		f.Add([]byte(strings.ReplaceAll(string(b), "INVALID8", text+"NVALID8"[len(text)-1:])))
	}
	rd := reader{runtime: "r", labels: engines.SelectionOf([]string{"*"})}
	f.Fuzz(func(t *testing.T, b []byte) {
		var got, want runtimeapi.ContainerStatus
		err := engines.Unmarshal(b, &got)
		if plain := proto.Unmarshal(b, &want); plain == nil && (err != nil || !proto.Equal(&got, &want)) {
			t.Errorf("a good message: %v", err)
		}
		if err != nil {
			return
		}
		seen, err := rd.status(&got, info{}, "", pod{})
		if err != nil {
			return
		}
		checkText(t, seen.Container.Name, engines.MaxName)
		checkText(t, seen.Container.Image, engines.MaxImage)
		checkText(t, seen.LogPath, engines.MaxPath)
		for k, v := range seen.Container.Labels {
			checkText(t, k, engines.MaxLabelName)
			checkText(t, v, engines.MaxLabelValue)
		}
		e := rd.exit(&got)
		checkText(t, e.Error, engines.MaxError)
		checkText(t, e.Reason, engines.MaxName)
		if e.Code != nil && *e.Code < 0 {
			t.Errorf("code %d", *e.Code)
		}
		if _, err := json.Marshal([]signal.Body{seen, e}); err != nil {
			t.Error(err)
		}
	})
}

func checkText(t *testing.T, s string, most int) {
	t.Helper()
	if !utf8.ValidString(s) || len(s) > most {
		t.Errorf("text of %d bytes: %.80q", len(s), s)
	}
}

func FuzzParseInfo(f *testing.F) {
	f.Add(`{"pid":7,"runtimeSpec":{"linux":{"cgroupsPath":"a-b.slice:p:x","resources":{"memory":{"limit":5}}}}}`, "/a.slice/a-b.slice/p-x.scope/y")
	f.Add(`{"runtimeSpec":{"linux":{"cgroupsPath":"/k/x"}}}`, "/k/x")
	f.Fuzz(func(t *testing.T, text, lives string) {
		i, err := parseInfo(text)
		if err != nil && i != (info{}) {
			t.Errorf("%+v beside %v", i, err)
		}
		checkText(t, i.cgroup, engines.MaxPath)
		if i.pid < 0 || i.limit != nil && *i.limit <= 0 || i.cgroup != "" && (i.cgroup[0] != '/' || strings.Contains(i.cgroup, "/../") || i.cgroup == "/") {
			t.Errorf("%+v", i)
		}
		own := ownCgroup(lives, "x", i.cgroup)
		checkText(t, own, engines.MaxPath)
		if utf8.ValidString(lives) && !strings.HasPrefix(lives, own) {
			t.Errorf("%q is not on %q", own, lives)
		}
	})
}
