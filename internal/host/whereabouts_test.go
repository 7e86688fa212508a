// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"errors"
	"io/fs"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/host"
)

func TestRoots_Whereabouts(t *testing.T) {
	const alive, ends = ") ) S 1 1 1 0 -1 4194560 1 2\n", " (a b) S 1 1 1 0 -1 4194564 1 2\n"
	r := roots(tree(t, map[string]string{
		"proc/1/cgroup": "12:cpuset:/no\n4:memory:/docker/abc\n0::/other\n", "proc/1/stat": "1 (" + alive,
		"proc/2/cgroup": "4:memory:/\n0::/gone (deleted)\n", "proc/2/stat": "2 (x" + alive,
		"proc/3/cgroup": "4:memory:/\n0::/\n", "proc/3/stat": "3" + ends,
		"proc/4/cgroup": "4:memory:/../x\n",
		"proc/5/cgroup": "4:memory:/\n", "proc/5/stat": "cut",
		"proc/6/cgroup": "4:memory:/part/of/it\n0::/part\n",
		"proc/7/cgroup": "4:cpu:/\n",
	}))
	v1, v2 := host.Hierarchy{Version: 1, Root: "/"}, host.Hierarchy{Version: 2, Root: "/"}
	part := host.Hierarchy{Version: 1, Root: "/part"}
	for _, tt := range []struct {
		name string
		pid  int
		h    host.Hierarchy
		want string
		err  error
	}{
		{"v1", 1, v1, "/docker/abc", nil},
		{"v2", 1, v2, "/other", nil},
		{"in the root", 2, v1, "/", nil},
		{"in a removed one", 2, v2, "/gone", nil},
		{"at its end, which looks like the root", 3, v1, "", host.ErrWhereabouts},
		{"above the reader's cgroup namespace", 4, v1, "", host.ErrWhereabouts},
		{"nobody knows whether it ends", 5, v1, "", host.ErrWhereabouts},
		{"below a mount of a part", 6, part, "/of/it", nil},
		{"outside of a mount of a part", 1, part, "", host.ErrWhereabouts},
		{"no memory controller", 7, v1, "", host.ErrWhereabouts},
		{"no process", 8, v1, "", fs.ErrNotExist},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := r.Whereabouts(tt.pid, tt.h); got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%q, %v; want %q, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestRoots_EachPID(t *testing.T) {
	r := roots(tree(t, map[string]string{
		"proc/1/": "", "proc/22/comm": "a\nb\n", "proc/333/": "", "proc/self/": "", "proc/4294967296/": "", "proc/-1/": "",
	}))
	var all []int
	parts := 0
	err := r.EachPID(2, func(pid int) { all = append(all, pid) }, func() bool { parts++; return true })
	slices.Sort(all)
	if diff := cmp.Diff([]int{1, 22, 333}, all); diff != "" || err != nil || parts < 3 {
		t.Errorf("%v, %d parts (-want +got):\n%s", err, parts, diff)
	}
	parts = 0
	if err := r.EachPID(1, func(int) {}, func() bool { parts++; return false }); err != nil || parts != 1 {
		t.Errorf("stopped after the first part: %v, %d parts", err, parts)
	}
	if comm, err := r.Comm(22); comm != "a\nb" || err != nil {
		t.Errorf("%q, %v", comm, err)
	}
	if _, err := r.Comm(23); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
