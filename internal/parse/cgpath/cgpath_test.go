// SPDX-License-Identifier: Apache-2.0

package cgpath_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/parse/cgpath"
)

const (
	id    = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	other = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
	uid   = "28fcb1a0-a45c-44e7-b9bf-e3b9360bedba"
)

func TestParse_Layouts(t *testing.T) {
	seen := map[string]bool{}
	for _, l := range cgpath.Layouts() {
		t.Run(l.ID, func(t *testing.T) {
			if seen[l.ID] || l.ID == "" || l.Description == "" {
				t.Errorf("id %q: taken, or no description", l.ID)
			}
			seen[l.ID] = true
			if diff := cmp.Diff(l.Want, cgpath.Parse(l.Path)); diff != "" {
				t.Errorf("Parse(%q): (-want +got)\n%s", l.Path, diff)
			}
			if l.Want.Runtime != "" && l.Want.Runtime != l.Runtime && !l.Want.Nested {
				t.Errorf("the path names %q, the layout %q", l.Want.Runtime, l.Runtime)
			}
		})
	}
}

func TestParse_Odd(t *testing.T) {
	const node = "/docker/" + other
	tests := []struct {
		name, path string
		want       cgpath.Path
	}{
		{"empty", "", cgpath.Path{Level: cgpath.Root}},
		{"slashes", "///", cgpath.Path{Level: cgpath.Root}},
		{"no leading slash", "docker/" + id, cgpath.Path{Level: cgpath.Container, ContainerID: id, Runtime: "docker", Cgroup: "docker/" + id}},
		{"slash at the end", "/docker/" + id + "/", cgpath.Path{Level: cgpath.Container, ContainerID: id, Runtime: "docker", Cgroup: "/docker/" + id}},
		{"private cgroup namespace", "/../../docker/" + id, cgpath.Path{Level: cgpath.Container, ContainerID: id, Runtime: "docker", Cgroup: "/../../docker/" + id}},
		{"63 digits", "/docker/" + id[1:], cgpath.Path{Level: cgpath.Other}},
		{"65 digits", "/docker/0" + id, cgpath.Path{Level: cgpath.Other}},
		{"capital digits", "/docker/" + strings.ToUpper(id), cgpath.Path{Level: cgpath.Other}},
		{"id after a dot", "/x." + id, cgpath.Path{Level: cgpath.Other}},
		{"id in a slice", "/x-" + id + ".slice", cgpath.Path{Level: cgpath.Slice, Unit: "x-" + id + ".slice"}},
		{"unknown word", "/runc-" + id + ".scope", cgpath.Path{Level: cgpath.Container, ContainerID: id, Cgroup: "/runc-" + id + ".scope"}},
		{"escaped word", `/cri\x2dcontainerd\x2d` + id + ".scope", cgpath.Path{Level: cgpath.Container, ContainerID: id, Runtime: "containerd", Cgroup: `/cri\x2dcontainerd\x2d` + id + ".scope"}},
		{"escape cut short", `/cri\x2-` + id, cgpath.Path{Level: cgpath.Container, ContainerID: id, Cgroup: `/cri\x2-` + id}},
		{"word cut short", `/cri-` + id, cgpath.Path{Level: cgpath.Container, ContainerID: id, Cgroup: `/cri-` + id}},
		{"colon without slice", "/docker:" + id, cgpath.Path{Level: cgpath.Container, ContainerID: id, Runtime: "docker", Cgroup: "/docker:" + id}},
		{"slice that is no pod's", "/system.slice:docker:" + id, cgpath.Path{Level: cgpath.Container, ContainerID: id, Runtime: "docker", Cgroup: "/system.slice:docker:" + id}},
		{"pod without kubepods", "/x/pod" + uid + "/" + id, cgpath.Path{Level: cgpath.Container, ContainerID: id, Cgroup: "/x/pod" + uid + "/" + id, PodUID: uid, PodCgroup: "/x/pod" + uid}},
		{"pod slice without kubepods", "/x-pod" + uid + ".slice", cgpath.Path{Level: cgpath.Pod, PodUID: uid, PodCgroup: "/x-pod" + uid + ".slice", Unit: "x-pod" + uid + ".slice"}},
		{"besteffort slice", "/kubepods-besteffort-pod" + uid + ".slice", cgpath.Path{Level: cgpath.Pod, PodUID: uid, QoS: "BestEffort", PodCgroup: "/kubepods-besteffort-pod" + uid + ".slice", Unit: "kubepods-besteffort-pod" + uid + ".slice"}},
		{"besteffort group", "/kubepods-besteffort.slice", cgpath.Path{Level: cgpath.QoS, QoS: "BestEffort", Unit: "kubepods-besteffort.slice"}},
		{"a class that is none", "/kubepods/silver/pod" + uid, cgpath.Path{Level: cgpath.Pod, PodUID: uid, PodCgroup: "/kubepods/silver/pod" + uid}},
		{"class without kubepods", "/burstable", cgpath.Path{Level: cgpath.Other}},
		{"uid with a bad digit", "/kubepods/pod28fcb1a0-a45c-44e7-b9bf-e3b9360bedbx", cgpath.Path{Level: cgpath.Other}},
		{"uid with a bad group", "/kubepods/pod28fcb1a-0a45c-44e7-b9bf-e3b9360bedba", cgpath.Path{Level: cgpath.Other}},
		{"uid with a bad sign", "/kubepods/pod28fcb1a0+a45c+44e7+b9bf+e3b9360bedba", cgpath.Path{Level: cgpath.Other}},
		{"uid too long", "/kubepods/pod28fcb1a0_a45c_44e7_b9bf_e3b9360bedba0", cgpath.Path{Level: cgpath.Other}},
		{"slice pod without dash", "/kubepodspod" + uid + ".slice", cgpath.Path{Level: cgpath.Slice, Unit: "kubepodspod" + uid + ".slice"}},
		{"slice pod with a bad uid", "/kubepods-podx.slice", cgpath.Path{Level: cgpath.Slice, Unit: "kubepods-podx.slice"}},
		{"almost kubepods", "/mykubepods.slice", cgpath.Path{Level: cgpath.Slice, Unit: "mykubepods.slice"}},
		{"podman pod with a short id", "/machine-libpod_pod_12.slice", cgpath.Path{Level: cgpath.Slice, Unit: "machine-libpod_pod_12.slice"}},
		{"monitor of an outer container", node + "/libpod-conmon-" + id, cgpath.Path{Level: cgpath.Monitor, ContainerID: other, Runtime: "docker", Cgroup: node}},
		{"lxc guest in a container", node + "/lxc.payload.x", cgpath.Path{Level: cgpath.Inside, ContainerID: other, Runtime: "docker", Cgroup: node, LXC: "x"}},
		{"lxc not at the root", "/a/lxc/b", cgpath.Path{Level: cgpath.Other}},
		{"names of units alone", "/.service/.slice", cgpath.Path{Level: cgpath.Slice, Unit: ".slice"}},
		{"service, then slice, then group", "/a.service/b.slice/c", cgpath.Path{Level: cgpath.Other, Unit: "a.service"}},
		{"slice, then group", "/b.slice/c", cgpath.Path{Level: cgpath.Other, Unit: "b.slice"}},
		{"mount", "/system.slice/var-lib.mount", cgpath.Path{Level: cgpath.Unit, Unit: "var-lib.mount"}},
		{"hostile commas", "/a,task_memcg=/docker/" + id + ",pid=1", cgpath.Path{Level: cgpath.Other}},
		{"nul and spaces", "/a \x00b/\xff", cgpath.Path{Level: cgpath.Other}},
		{
			"three deep: the next container around is the outer one", node + "/docker/" + id + "/docker/" + other,
			cgpath.Path{
				Level: cgpath.Container, ContainerID: other, Runtime: "docker", Cgroup: node + "/docker/" + id + "/docker/" + other,
				Nested: true, OuterID: id, OuterCgroup: node + "/docker/" + id,
			},
		},
		{
			"pod in a pod's container: the last pod", "/kubepods/pod" + uid + "/" + id + "/kubepods/besteffort/pod" + strings.Repeat("0", 32),
			cgpath.Path{
				Level: cgpath.Pod, PodUID: strings.Repeat("0", 32), Static: true, QoS: "BestEffort",
				PodCgroup: "/kubepods/pod" + uid + "/" + id + "/kubepods/besteffort/pod" + strings.Repeat("0", 32),
				Nested:    true, OuterID: id, OuterCgroup: "/kubepods/pod" + uid + "/" + id,
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, cgpath.Parse(tt.path)); diff != "" {
				t.Errorf("Parse(%q): (-want +got)\n%s", tt.path, diff)
			}
		})
	}
}

func TestWithin(t *testing.T) {
	tests := []struct {
		ancestor, path string
		want           bool
	}{
		{"/", "/", true},
		{"", "/a", true},
		{"/", "/a/b", true},
		{"/a", "/a", true},
		{"/a", "/a/", true},
		{"/a/", "/a/b", true},
		{"/a", "/ab", false},
		{"/a/b", "/a", false},
		{"/b", "/a/b", false},
	}
	for _, tt := range tests {
		if got := cgpath.Within(tt.ancestor, tt.path); got != tt.want {
			t.Errorf("Within(%q, %q) = %v, want %v", tt.ancestor, tt.path, got, tt.want)
		}
	}
}

func TestParse_AllocatesTheUIDOnly(t *testing.T) {
	for _, l := range cgpath.Layouts() {
		most := 0.0
		if !strings.Contains(l.Path, l.Want.PodUID) {
			most = 1 // the uid with its dashes put back
		}
		if got := testing.AllocsPerRun(10, func() { cgpath.Parse(l.Path) }); got > most {
			t.Errorf("%s: %v allocations, want at most %v", l.ID, got, most)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, l := range cgpath.Layouts() {
		f.Add(l.Path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		p := cgpath.Parse(path)
		if p.Level == "" {
			t.Error("no level")
		}
		if p.ContainerID != "" && (len(p.ContainerID) != 64 || !strings.Contains(p.Cgroup, p.ContainerID)) {
			t.Errorf("id %q is not of cgroup %q", p.ContainerID, p.Cgroup)
		}
		if p.ContainerID != "" && p.Unit != "" {
			t.Errorf("both container %q and unit %q", p.ContainerID, p.Unit)
		}
		for _, prefix := range []string{p.Cgroup, p.PodCgroup, p.OuterCgroup} {
			if !strings.HasPrefix(path, prefix) || !cgpath.Within(prefix, path) {
				t.Errorf("%q is not on the way to %q", prefix, path)
			}
		}
		if p.Nested != (p.OuterID != "") || p.Nested != (p.OuterCgroup != "") {
			t.Errorf("nested %v, outer %q in %q", p.Nested, p.OuterID, p.OuterCgroup)
		}
		switch len(p.PodUID) {
		case 0, 36, 64:
		case 32:
			if !p.Static {
				t.Errorf("uid %q is not static", p.PodUID)
			}
		default:
			t.Errorf("uid %q", p.PodUID)
		}
		if p.Cgroup != "" && p.Level == cgpath.Container && cgpath.Parse(p.Cgroup).ContainerID != p.ContainerID {
			t.Errorf("own cgroup %q tells another id", p.Cgroup)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	ls := cgpath.Layouts()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		cgpath.Parse(ls[i%len(ls)].Path)
	}
}
