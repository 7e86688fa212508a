// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	mountsV1 = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:10 master:1 - cgroup cgroup rw,memory
`
	mountsHybrid = mountsV1 + "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
	mountsV2     = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
	mountsLocal  = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,memory_localevents\n"
	mountsSpace  = `40 23 0:30 / /mnt/a\040b\134c\011d rw - cgroup2 none rw` + "\n"
	mountsParts  = `40 23 0:30 /docker/x /c/part rw - cgroup2 cgroup2 rw
41 23 0:30 / /c/whole rw - cgroup2 cgroup2 rw
`
	mountsPart = "40 23 0:30 /../../.. /c/part rw - cgroup2 cgroup2 rw\n"
)

func TestHierarchyOf(t *testing.T) {
	yes, no := func(string) bool { return true }, func(string) bool { return false }
	tests := []struct {
		name, text string
		hasMemory  func(string) bool
		want       Hierarchy
		wantErr    error
	}{
		{"v1", mountsV1, no, Hierarchy{Version: 1, Mount: "/sys/fs/cgroup/memory", Root: "/"}, nil},
		{"hybrid", mountsHybrid, no, Hierarchy{Version: 1, Mount: "/sys/fs/cgroup/memory", Root: "/", Hybrid: true}, nil},
		{"v2", mountsV2, yes, Hierarchy{Version: 2, Mount: "/sys/fs/cgroup", Root: "/"}, nil},
		{"v2 counting locally", mountsLocal, yes, Hierarchy{Version: 2, Mount: "/sys/fs/cgroup", Root: "/", LocalEvents: true}, nil},
		{"v2 without memory", mountsV2, no, Hierarchy{}, ErrNoMemoryHierarchy},
		{"odd characters", mountsSpace, yes, Hierarchy{Version: 2, Mount: "/mnt/a b\\c\td", Root: "/"}, nil},
		{"whole before part", mountsParts, yes, Hierarchy{Version: 2, Mount: "/c/whole", Root: "/"}, nil},
		{"a part only", mountsPart, yes, Hierarchy{Version: 2, Mount: "/c/part", Root: "/../../.."}, nil},
		{"cpu only", strings.ReplaceAll(mountsV1, "rw,memory", "rw,memoryx"), yes, Hierarchy{}, ErrNoMemoryHierarchy},
		{"nothing", "", yes, Hierarchy{}, ErrNoMemoryHierarchy},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ms, err := parseMountinfo(strings.NewReader(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			got, err := hierarchyOf(ms, tt.hasMemory)
			if diff := cmp.Diff(tt.want, got); diff != "" || !errors.Is(err, tt.wantErr) {
				t.Errorf("err %v, want %v (-want +got)\n%s", err, tt.wantErr, diff)
			}
		})
	}
}

func TestParseMountinfo_Malformed(t *testing.T) {
	for _, text := range []string{"x\n", "1 2 3 4 - a b c\n", "36 35 98:0 / /p rw - ext4\n", mountsV2 + strings.Repeat("y", 500)} {
		if ms, err := parseMountinfo(strings.NewReader(text)); err == nil || len(err.Error()) > 300 {
			t.Errorf("%.40q: got %v, %v, want a short error", text, ms, err)
		}
	}
}

// crowded is the mountinfo of a node with n containers.
func crowded(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d 29 0:%d / /var/lib/docker/overlay2/%064x/merged rw,relatime shared:%d - overlay overlay rw,lowerdir=%s,upperdir=/var/lib/docker/overlay2/%064x/diff\n",
			500+i, 60+i, i, i, strings.Repeat("/var/lib/docker/overlay2/l/ABCDEFGHIJKLMNOPQRSTUVWXYZ:", 12), i)
	}
	return b.String() + mountsV2
}

// TestParseMountinfo_Crowded: what containers have mounted is passed over, and
// checked all the same.
func TestParseMountinfo_Crowded(t *testing.T) {
	alone, err := parseMountinfo(strings.NewReader(mountsV2))
	if err != nil {
		t.Fatal(err)
	}
	text := crowded(200)
	among, err := parseMountinfo(strings.NewReader(text))
	if diff := cmp.Diff(alone, among, cmp.AllowUnexported(mount{})); diff != "" || err != nil {
		t.Errorf("%v (-alone +among)\n%s", err, diff)
	}
	if _, err := parseMountinfo(strings.NewReader(text + "501 29 0:60 / - overlay overlay rw\n")); err == nil {
		t.Error("a line without options is taken")
	}
}

func BenchmarkParseMountinfo(b *testing.B) {
	text := crowded(200)
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := parseMountinfo(strings.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMemoryHierarchy_NamedRoots(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  Hierarchy
		ok    bool
	}{
		{"v2", map[string]string{"cgroup.controllers": "cpu io memory pids\n"}, Hierarchy{Version: 2, Mount: ".", Root: "/"}, true},
		{"v1", map[string]string{"memory/memory.oom_control": ""}, Hierarchy{Version: 1, Mount: "memory", Root: "/"}, true},
		{"v1 memory itself", map[string]string{"memory.oom_control": ""}, Hierarchy{Version: 1, Mount: ".", Root: "/"}, true},
		{"hybrid", map[string]string{"memory/memory.oom_control": "", "unified/cgroup.procs": "", "unified/cgroup.controllers": "cpu\n"}, Hierarchy{Version: 1, Mount: "memory", Root: "/", Hybrid: true}, true},
		{"v2 without memory", map[string]string{"cgroup.controllers": "cpu\n"}, Hierarchy{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, tt.files)
			got, err := Roots{Proc: filepath.Join(dir, "none"), Cgroup: dir}.MemoryHierarchy()
			if got.Mount != "" {
				got.Mount, _ = filepath.Rel(dir, got.Mount)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || (err == nil) != tt.ok {
				t.Errorf("err %v (-want +got)\n%s", err, diff)
			}
			if !tt.ok && !errors.Is(err, ErrNoMemoryHierarchy) {
				t.Errorf("got %v, want ErrNoMemoryHierarchy", err)
			}
		})
	}
}

func TestMemoryHierarchy_NamedRootFoundInMountinfo(t *testing.T) {
	dir := t.TempDir()
	if strings.ContainsAny(dir, " \\") {
		t.Skip("the temporary directory needs escapes")
	}
	write(t, dir, map[string]string{
		"cg/cgroup.controllers": "memory\n",
		"proc/self/mountinfo":   "29 23 0:26 /node /other rw - cgroup2 cgroup2 rw\n29 23 0:26 /node " + filepath.Join(dir, "cg") + " rw - cgroup2 cgroup2 rw,memory_localevents\n",
	})
	got, err := Roots{Proc: filepath.Join(dir, "proc"), Cgroup: filepath.Join(dir, "cg")}.MemoryHierarchy()
	want := Hierarchy{Version: 2, Mount: filepath.Join(dir, "cg"), Root: "/node", LocalEvents: true}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("err %v (-want +got)\n%s", err, diff)
	}
}

func TestMemoryHierarchy_NoSuchRoot(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	if _, err := (Roots{Proc: none, Cgroup: none}).MemoryHierarchy(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}

func TestHierarchy_String(t *testing.T) {
	for want, h := range map[string]Hierarchy{"v1": {Version: 1}, "v2": {Version: 2}, "hybrid v1": {Version: 1, Hybrid: true}, "none": {}} {
		if h.String() != want {
			t.Errorf("got %q, want %q", h, want)
		}
	}
}

func TestHierarchy_Part(t *testing.T) {
	whole, part := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(part, "memory.max"), []byte("max\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		h    Hierarchy
		want bool
	}{
		"v1":                                  {Hierarchy{Version: 1, Mount: whole, Root: "/"}, false},
		"v1 in a container":                   {Hierarchy{Version: 1, Mount: whole, Root: "/docker/abc"}, true},
		"v1 from a cgroup namespace":          {Hierarchy{Version: 1, Mount: whole, Root: "/../.."}, false},
		"v1 where nobody told how":            {Hierarchy{Version: 1, Mount: whole}, false},
		"v2":                                  {Hierarchy{Version: 2, Mount: whole, Root: "/"}, false},
		"v2 in a cgroup namespace of its own": {Hierarchy{Version: 2, Mount: part, Root: "/"}, true},
		"no hierarchy":                        {Hierarchy{}, false},
	} {
		if got := tt.h.Part(); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

func TestRoots_KernelPIDs(t *testing.T) {
	for name, tt := range map[string]struct {
		ns, status string
		want       bool
	}{
		"the host":                        {"pid:[4026531836]", "NSpid:\t77\n", true},
		"a container":                     {"pid:[4026532201]", "NSpid:\t1\n", false},
		"a container, the host's procfs":  {"pid:[4026532201]", "NSpid:\t4711\t1\n", true},
		"a container before Linux 4.1":    {"pid:[4026532201]", "Name:\tx\n", false},
		"a container that tells nothing":  {"pid:[4026532201]", "", false},
		"no such namespaces":              {"", "NSpid:\t1\n", true},
		"a link of a form not known here": {"pid:4026531836", "NSpid:\t1\n", false},
	} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "self", "ns"), 0o755); err != nil {
			t.Fatal(err)
		}
		if tt.ns != "" {
			if err := os.Symlink(tt.ns, filepath.Join(dir, "self", "ns", "pid")); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "self", "status"), []byte(tt.status), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := (Roots{Proc: dir}).KernelPIDs(); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
