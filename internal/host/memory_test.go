// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/coroner-dev/coroner/internal/host"
)

func TestOwnMemoryLimit(t *testing.T) {
	const controllers = "sys/fs/cgroup/cgroup.controllers"
	type files = map[string]string
	tests := []struct {
		name  string
		files files
		want  int64
		file  string // below the tree
		ok    bool
	}{
		{"v2: its own", files{
			controllers: "memory\n", "proc/self/cgroup": "0::/system.slice/coroner.service\n",
			"sys/fs/cgroup/system.slice/memory.max":                 "max\n",
			"sys/fs/cgroup/system.slice/coroner.service/memory.max": "134217728\n",
		}, 128 << 20, "sys/fs/cgroup/system.slice/coroner.service/memory.max", true},
		{"v2: an ancestor's is smaller", files{
			controllers: "memory\n", "proc/self/cgroup": "0::/kubepods/pod1/box\n",
			"sys/fs/cgroup/kubepods/memory.max":          "1000000000\n",
			"sys/fs/cgroup/kubepods/pod1/memory.max":     "64000000\n",
			"sys/fs/cgroup/kubepods/pod1/box/memory.max": "128000000\n",
		}, 64000000, "sys/fs/cgroup/kubepods/pod1/memory.max", true},
		{"v2: where it is made to wait", files{
			controllers: "memory\n", "proc/self/cgroup": "0::/a\n",
			"sys/fs/cgroup/a/memory.max": "128000000\n", "sys/fs/cgroup/a/memory.high": "96000000\n",
		}, 96000000, "sys/fs/cgroup/a/memory.high", true},
		{"v2: the root of a namespace", files{
			controllers: "memory\n", "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "77000000\n",
		}, 77000000, "sys/fs/cgroup/memory.max", true},
		{"v2: none", files{
			controllers: "memory\n", "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n",
		}, 0, "", true},
		{"v2: outside of what is seen", files{
			controllers: "memory\n", "proc/self/cgroup": "0::/../a\n", "sys/fs/cgroup/a/memory.max": "1\n",
		}, 0, "", true},
		{"v1: its own", files{
			"sys/fs/cgroup/memory/memory.oom_control":             "oom_kill 0\n",
			"proc/self/cgroup":                                    "9:cpu,cpuacct:/x\n8:memory:/docker/1\n0::/y\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":          "9223372036854771712\n",
			"sys/fs/cgroup/memory/docker/memory.limit_in_bytes":   "9223372036854771712\n",
			"sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "33554432\n",
		}, 32 << 20, "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", true},
		{"v1: none, with large pages", files{
			"sys/fs/cgroup/memory/memory.oom_control": "oom_kill 0\n", "proc/self/cgroup": "8:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854710272\n",
		}, 0, "", true},
		{"v1: no line of it", files{
			"sys/fs/cgroup/memory/memory.oom_control": "oom_kill 0\n", "proc/self/cgroup": "0::/y\n",
		}, 0, "", false},
		{"odd", files{
			controllers: "memory\n", "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "many\n",
		}, 0, "", false},
		{"no hierarchy", files{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/": ""}, 0, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := tree(t, tt.files)
			want := host.MemoryLimit{Bytes: tt.want}
			if tt.file != "" {
				want.File = filepath.Join(dir, tt.file)
			}
			got, err := roots(dir).OwnMemoryLimit()
			if got != want || (err == nil) != tt.ok {
				t.Errorf("got %+v, %v; want %+v, ok %v", got, err, want, tt.ok)
			}
		})
	}
}

// TestOwnMemoryLimit_OfAPart: the mount shows a part of the hierarchy, as in
// a container without a cgroup namespace.
func TestOwnMemoryLimit_OfAPart(t *testing.T) {
	for _, tt := range []struct {
		name, own string
		want      int64
	}{
		{"its own part", "/docker/1", 32 << 20},
		{"below it", "/docker/1/app", 32 << 20},
		{"another part", "/docker/12", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := tree(t, map[string]string{
				"sys/fs/cgroup/memory/memory.oom_control": "oom_kill 0\n", "sys/fs/cgroup/memory/app/": "",
				"sys/fs/cgroup/memory/memory.limit_in_bytes": "33554432\n",
				"proc/self/cgroup":                           "8:memory:" + tt.own + "\n",
			})
			mount := "35 31 0:32 /docker/1 " + filepath.Join(dir, "sys/fs/cgroup/memory") + " rw - cgroup cgroup rw,memory\n"
			writeFile(t, filepath.Join(dir, "proc/self/mountinfo"), mount)
			if got, err := roots(dir).OwnMemoryLimit(); got.Bytes != tt.want || err != nil {
				t.Errorf("got %+v, %v; want %d", got, err, tt.want)
			}
		})
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
