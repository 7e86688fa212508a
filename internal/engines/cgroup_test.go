// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"strings"
	"testing"
)

func TestOwnCgroup(t *testing.T) {
	id := strings.Repeat("ab", 32)
	for _, tt := range []struct{ path, id, want string }{
		{"/docker/" + id, id, "/docker/" + id},
		{"/docker/" + id + "/system.slice/cron.service", id, "/docker/" + id},
		{"/system.slice/docker-" + id + ".scope", id, "/system.slice/docker-" + id + ".scope"},
		{"/machine.slice/libpod-" + id + ".scope/container", id, "/machine.slice/libpod-" + id + ".scope"},
		{"/system.slice/containerd.service/a.slice:cri-containerd:" + id, id, "/system.slice/containerd.service/a.slice:cri-containerd:" + id},
		{"/docker/" + id + "/docker/" + id, id, "/docker/" + id},
		{"/default/web", "web", "/default/web"},
		{"/cobweb/web", "web", "/cobweb/web"},
		{"/user.slice", id, ""},
		{"/", id, ""},
		{"", id, ""},
		{"//", "a", ""},
		{"/a", "", ""},
	} {
		if got := OwnCgroup(tt.path, tt.id); got != tt.want {
			t.Errorf("OwnCgroup(%q, %q) = %q, want %q", tt.path, tt.id, got, tt.want)
		}
	}
}

func TestSystemdCgroup(t *testing.T) {
	for spec, want := range map[string]string{
		"kubepods-burstable-pod1.slice:cri-containerd:x": "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-x.scope",
		":docker:x":                              "/system.slice/docker-x.scope",
		"a.slice::x":                             "/a.slice/x.scope",
		"-.slice:p:x":                            "/p-x.scope",
		"a.slice:p:b.slice":                      "/a.slice/b.slice",
		"":                                       "",
		"a.slice:p":                              "",
		"a.slice:p:x:y":                          "",
		"a.slice:p:":                             "",
		"a:p:x":                                  "",
		"a--b.slice:p:x":                         "",
		".slice:p:x":                             "",
		"a.slice:../p:x":                         "",
		"/a.slice:p:x":                           "",
		strings.Repeat("a-", 99) + "b.slice:p:x": "",
	} {
		if got := SystemdCgroup(spec); got != want {
			t.Errorf("SystemdCgroup(%q) = %q, want %q", spec, got, want)
		}
	}
}
