// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPaths_ForgetsTheLeastUsed(t *testing.T) {
	var forgotten []uint64
	p := newPaths(2, func(id uint64) { forgotten = append(forgotten, id) })
	p.put(1, "/a")
	p.put(2, "/b")
	p.get(1)
	p.put(3, "/c")
	p.put(3, "/renamed")
	if diff := cmp.Diff([]uint64{2}, forgotten); diff != "" {
		t.Errorf("forgotten (-want +got):\n%s", diff)
	}
	for id, want := range map[uint64]string{1: "/a", 2: "", 3: "/renamed"} {
		if got := p.get(id); got != want {
			t.Errorf("path of %d = %q, want %q", id, got, want)
		}
	}
}

func TestJoinPath(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		n          int
		want       string
		ok         bool
	}{
		{"root", "", 0, "/", true},
		{"one", "kubepods\x00", 1, "/kubepods", true},
		{"innermost first", "ab,task_memcg=\x00pod 1\x00kubepods\x00", 3, "/kubepods/pod 1/ab,task_memcg=", true},
		{"fewer names than said", "a\x00", 2, "", false},
		{"name without an end", "a", 1, "", false},
		{"empty name", "\x00", 1, "", false},
		{"too many", "", maxLevels + 1, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := joinPath([]byte(tt.text), tt.n)
			if got != tt.want || ok != tt.ok {
				t.Errorf("joinPath() = %q, %v; want %q, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
}

func TestParentPath(t *testing.T) {
	for path, want := range map[string]string{"/a/b": "/a", "/a": "/", "/": "", "": ""} {
		if got := parentPath(path); got != want {
			t.Errorf("parentPath(%q) = %q, want %q", path, got, want)
		}
	}
}
