// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseTaskCgroup(t *testing.T) {
	const v1 = "9:name=systemd:/x\n5:memory:/docker/ab:c\n4:cpu,cpuacct:/y\n0::/u\n"
	for _, tt := range []struct {
		name, text string
		version    int
		want       string
		below      bool
	}{
		{"v1", v1, 1, "/docker/ab:c", true},
		{"v1, controllers together", "3:cpu,memory:/m\n", 1, "/m", true},
		{"v1, a name like the controller", "3:name=memory:/m\n", 1, "", false},
		{"v2", v1, 2, "/u", true},
		{"v2, removed", "0::/a/b (deleted)\n", 2, "/a/b", true},
		{"above the namespace", "0::/../x\n", 2, "/../x", false},
		{"just above the namespace", "0::/..\n", 2, "/..", false},
		{"a name with dots", "0::/..x\n", 2, "/..x", true},
		{"no hierarchy", v1, 0, "", false},
		{"gone", "", 2, "", false},
		{"cut", "0::/a/b", 2, "", false},
		{"no cgroup at all", "garbage\n", 2, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := parseTaskCgroup([]byte(tt.text), tt.version)
			if got != tt.want || BelowRoot(got) != tt.below {
				t.Errorf("parseTaskCgroup() = %q, below the root %v; want %q, %v", got, BelowRoot(got), tt.want, tt.below)
			}
		})
	}
}

func TestAlive(t *testing.T) {
	for text, want := range map[string]bool{
		"7 (x) S 1 7 7 0 -1 4194304 0":                true,
		"7 (x) Z 1 7 7 0 -1 4194308 0":                false,
		"7 (a) S 1 1 1 1 1 0) R 1 7 7 0 -1 4194308 0": false,
		"7 (x) S 1 7": false,
		"":            false,
	} {
		if got := Alive([]byte(text)); got != want {
			t.Errorf("Alive(%q) = %v, want %v", text, got, want)
		}
	}
}

// TestTaskCgroup: on v1 a task that exits shows the root, and that is not
// where it lived.
func TestTaskCgroup(t *testing.T) {
	for _, tt := range []struct {
		name, cgroup, stat string
		version            int
		want               string
	}{
		{"v1", "5:memory:/c\n", "7 (x) S 1 7 7 0 -1 4194304 0", 1, "/c"},
		{"v1, exiting", "5:memory:/\n", "7 (x) S 1 7 7 0 -1 4194308 0", 1, ""},
		{"v1, in the root", "5:memory:/\n", "7 (x) S 1 7 7 0 -1 4194304 0", 1, "/"},
		{"v2, exiting", "0::/c\n", "7 (x) S 1 7 7 0 -1 4194308 0", 2, "/c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "7"), 0o755); err != nil {
				t.Fatal(err)
			}
			for name, text := range map[string]string{"cgroup": tt.cgroup, "stat": tt.stat} {
				if err := os.WriteFile(filepath.Join(dir, "7", name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			r := Roots{Proc: dir}
			if got := r.TaskCgroup(7, tt.version); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if got := r.TaskCgroup(8, tt.version); got != "" {
				t.Errorf("of a task that is gone: %q", got)
			}
		})
	}
}

// FuzzParseTaskCgroup: a path is what stands in a whole line, and another
// version's line is never taken for it.
func FuzzParseTaskCgroup(f *testing.F) {
	for _, s := range []string{
		"9:name=systemd:/x\n5:memory:/docker/ab:c\n0::/u\n", "3:cpu,memory:/m\n", "0::/a/b (deleted)\n", "0::/../x\n", "0::/cut", "3:name=memory:/m\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got := parseTaskCgroup([]byte(text), 0); got != "" {
			t.Errorf("no hierarchy: %q", got)
		}
		for version := 1; version <= 2; version++ {
			got := parseTaskCgroup([]byte(text), version)
			if got == "" {
				continue
			}
			if got[0] != '/' || strings.Contains(got, "\n") {
				t.Errorf("v%d of %q: %q", version, text, got)
			}
			before, after := "memory", "\n"
			if version == 2 {
				before = "0:"
			}
			if !strings.Contains(text, before) || !strings.Contains(text, ":"+got+after) && !strings.Contains(text, ":"+got+" (deleted)"+after) {
				t.Errorf("v%d: %q does not stand in %q", version, got, text)
			}
		}
		// What the kernel writes of a cgroup comes out whole.
		path := "/" + strings.NewReplacer("\n", "", " (deleted)", "").Replace(text)
		if got := parseTaskCgroup(fmt.Appendf(nil, "1:name=memory:/n\n7:cpu,memory:%s\n0::/u\n", path), 1); got != path {
			t.Errorf("v1: %q, want %q", got, path)
		}
		if got := parseTaskCgroup(fmt.Appendf(nil, "7:memory:/n\n0::%s\n", path), 2); got != strings.TrimSuffix(path, " (deleted)") {
			t.Errorf("v2: %q, want %q", got, path)
		}
	})
}

// FuzzStat: whatever a process calls itself, its flags decide, and its start
// time is its own.
func FuzzStat(f *testing.F) {
	f.Add("x", uint32(4194304), uint64(7))
	f.Add("a) S 1 1 1 1 1 0) R", uint32(4194308), uint64(math.MaxUint64))
	f.Add("(", uint32(flagExiting), uint64(0))
	f.Fuzz(func(t *testing.T, comm string, flags uint32, start uint64) {
		_ = Alive([]byte(comm)) // a file of anything
		stat := fmt.Appendf(nil, "7 (%s) S 1 7 7 0 -1 %d 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0\n", comm, flags, start)
		if got, ok := statField(stat, statStartTime); !ok || got != start {
			t.Errorf("start time of %q: %d, %v, want %d", stat, got, ok, start)
		}
		if got, want := Alive(stat), flags&flagExiting == 0; got != want {
			t.Errorf("Alive(%q) = %v, want %v", stat, got, want)
		}
		if i := strings.LastIndexByte(string(stat), ')'); Alive(stat[:i+5]) {
			t.Errorf("Alive(%q), which has no flags", stat[:i+5])
		}
	})
}
