// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/host"
)

// tree writes files below a directory of its own; a name that ends in / is a
// directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func roots(dir string) host.Roots {
	return host.Roots{Proc: filepath.Join(dir, "proc"), Sys: filepath.Join(dir, "sys"), Root: dir}
}

func TestRoots_Paths(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the paths are those of Linux")
	}
	tests := []struct {
		name string
		r    host.Roots
		want [5]string
	}{
		{"usual", host.Roots{}, [5]string{"/proc/1/status", "/sys/kernel", "/sys/fs/cgroup/x", "/etc", "/dev/kmsg"}},
		{
			"in a container", host.Roots{Proc: "/host/proc", Sys: "/host/sys", Root: "/host"},
			[5]string{"/host/proc/1/status", "/host/sys/kernel", "/host/sys/fs/cgroup/x", "/host/etc", "/host/dev/kmsg"},
		},
		{"cgroup elsewhere", host.Roots{Cgroup: "/cg"}, [5]string{"/proc/1/status", "/sys/kernel", "/cg/x", "/etc", "/dev/kmsg"}},
	}
	for _, tt := range tests {
		got := [5]string{tt.r.ProcPath("1", "status"), tt.r.SysPath("kernel"), tt.r.CgroupPath("x"), tt.r.RootPath("etc"), tt.r.Devkmsg()}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestRoots_Words(t *testing.T) {
	dir := tree(t, map[string]string{
		"proc/sys/kernel/random/boot_id": "6f8f0f0a-0000-4000-8000-000000000001\n",
		"proc/sys/kernel/osrelease":      "6.1.0-25-amd64\n",
		"proc/sys/kernel/hostname":       "pod-7f\n",
		"etc/hostname":                   "node-1\n",
	})
	r := roots(dir)
	for _, tt := range []struct {
		name string
		read func() (string, error)
		want string
	}{
		{"BootID", r.BootID, "6f8f0f0a-0000-4000-8000-000000000001"},
		{"KernelRelease", r.KernelRelease, "6.1.0-25-amd64"},
		{"Hostname of the host's root", r.Hostname, "node-1"},
		{"Hostname of the kernel", host.Roots{Proc: r.Proc}.Hostname, "pod-7f"},
	} {
		if got, err := tt.read(); err != nil || got != tt.want {
			t.Errorf("%s: got %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
	if name, err := (host.Roots{Proc: filepath.Join(dir, "none")}).Hostname(); err != nil || name == "" {
		t.Errorf("Hostname without procfs: got %q, %v, want this machine's", name, err)
	}
	if _, err := (host.Roots{Proc: filepath.Join(dir, "none")}).BootID(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("BootID without procfs: got %v, want fs.ErrNotExist", err)
	}
}

func TestNodeOOMKills(t *testing.T) {
	pad := strings.Repeat("some_counter 123456\n", 1500) // longer than one read
	tests := []struct {
		name, text string
		want       uint64
		wantErr    string
	}{
		{"there", "pgfault 12\noom_kill 7\nnuma_hit 1\n", 7, ""},
		{"last line without end", "a 1\noom_kill 18446744073709551615", 1<<64 - 1, ""},
		{"far down", pad + "oom_kill 3\n", 3, ""},
		{"only like it", "oom_kill_x 3\nxoom_kill 4\n", 0, "4.13"},
		{"empty", "", 0, "4.13"},
		{"no number", "oom_kill many\n", 0, "oom_kill many"},
		{"without end", strings.Repeat(pad, 40), 0, "larger"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := roots(tree(t, map[string]string{"proc/vmstat": tt.text}))
			got, err := r.NodeOOMKills()
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("got %d, %v, want an error with %q", got, err, tt.wantErr)
				}
				if wrapped := errors.Is(err, host.ErrNotSupported); wrapped != (tt.wantErr == "4.13") {
					t.Errorf("wraps ErrNotSupported: %v", wrapped)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("got %d, %v, want %d", got, err, tt.want)
			}
		})
	}
	if _, err := roots(t.TempDir()).NodeOOMKills(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without vmstat: got %v, want fs.ErrNotExist", err)
	}
}

func TestTaskIDs(t *testing.T) {
	const head = "Name:\tNSpid:\t1\t1\nUmask:\t0022\nPid:\t4711\nPPid:\t42\n"
	tests := []struct {
		name, status string
		want         host.TaskIDs
		first        bool
		wantErr      bool
	}{
		{"initial namespace", head + "NSpid:\t4711\n", host.TaskIDs{Parent: 42, Own: []int{4711}}, false, false},
		{"the first process of the machine", "PPid:\t0\nNSpid:\t1\n", host.TaskIDs{Own: []int{1}}, false, false},
		{"a container's first", head + "NSpid:\t4711\t1\n", host.TaskIDs{Parent: 42, Own: []int{4711, 1}}, true, false},
		{"a nested one's first", head + "NSpid:\t4711\t12\t1\n", host.TaskIDs{Parent: 42, Own: []int{4711, 12, 1}}, true, false},
		{"another one", head + "NSpid:\t4711\t12\n", host.TaskIDs{Parent: 42, Own: []int{4711, 12}}, false, false},
		{"first of the outer one only", head + "NSpid:\t4711\t1\t7\n", host.TaskIDs{Parent: 42, Own: []int{4711, 1, 7}}, false, false},
		{"before 4.1", head, host.TaskIDs{Parent: 42}, false, false},
		{"no number", head + "NSpid:\tx\n", host.TaskIDs{}, false, true},
		{"no number of a parent", "PPid:\tx\nNSpid:\t4711\t1\n", host.TaskIDs{}, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := roots(tree(t, map[string]string{"proc/4711/status": tt.status}))
			got, err := r.TaskIDs(4711)
			if diff := cmp.Diff(tt.want, got); diff != "" || got.First() != tt.first || (err != nil) != tt.wantErr {
				t.Errorf("first %v, want %v, err %v (-want +got)\n%s", got.First(), tt.first, err, diff)
			}
		})
	}
	if _, err := roots(t.TempDir()).TaskIDs(1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a process that is gone: got %v, want fs.ErrNotExist", err)
	}
}

func TestPIDNS(t *testing.T) {
	tests := []struct {
		link string
		want uint64
		ok   bool
	}{
		{"pid:[4026531836]", 4026531836, true},
		{"net:[4026531836]", 0, false},
		{"pid:[x]", 0, false},
		{"pid:[1", 0, false},
	}
	for _, tt := range tests {
		dir := tree(t, map[string]string{"proc/7/ns/": ""})
		if err := os.Symlink(tt.link, filepath.Join(dir, "proc/7/ns/pid")); err != nil {
			t.Skipf("symbolic links: %v", err)
		}
		got, err := roots(dir).PIDNS(7)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%q: got %d, %v, want %d", tt.link, got, err, tt.want)
		}
	}
	if _, err := roots(t.TempDir()).PIDNS(7); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a process that is gone: got %v, want fs.ErrNotExist", err)
	}
}

func TestTracefs(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  host.Tracefs
		ok    bool
	}{
		{"mounted", map[string]string{"sys/kernel/tracing/events/": ""}, host.Tracefs{Path: "sys/kernel/tracing", Mounted: true}, true},
		{"in debugfs", map[string]string{"sys/kernel/debug/tracing/events/": ""}, host.Tracefs{Path: "sys/kernel/debug/tracing", Mounted: true}, true},
		{"to be mounted", map[string]string{"sys/kernel/tracing/": ""}, host.Tracefs{Path: "sys/kernel/tracing"}, true},
		{"none", map[string]string{"sys/kernel/": ""}, host.Tracefs{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := tree(t, tt.files)
			got, err := roots(dir).Tracefs()
			if got.Path != "" {
				got.Path, _ = filepath.Rel(dir, got.Path)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || (err == nil) != tt.ok {
				t.Errorf("%v (-want +got)\n%s", err, diff)
			}
			if !tt.ok && !errors.Is(err, host.ErrNotSupported) {
				t.Errorf("got %v, want ErrNotSupported", err)
			}
		})
	}
}

func TestBootClock(t *testing.T) {
	zero := time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("x", 3600))
	c := host.NewBootClock(zero)
	want := time.Date(2026, 3, 1, 11, 0, 1, 500, time.UTC)
	if got := c.Wall(time.Second + 500); !got.Equal(want) || got.Location() != time.UTC || !c.Known() {
		t.Errorf("got %v, want %v", got, want)
	}
	if (host.BootClock{}).Known() {
		t.Error("the zero clock is known")
	}
	if runtime.GOOS != "linux" {
		if _, err := host.MonotonicClock(); !errors.Is(err, host.ErrNotSupported) {
			t.Errorf("got %v, want ErrNotSupported", err)
		}
	}
}
