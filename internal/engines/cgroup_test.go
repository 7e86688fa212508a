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
