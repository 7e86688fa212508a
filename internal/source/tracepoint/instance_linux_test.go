// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/host"
)

func TestTracefs_CleansUp(t *testing.T) {
	needRoot(t)
	root, hidden, err := mountTracefs(host.Roots{})
	if err != nil {
		t.Fatal(err)
	}
	if hidden != nil {
		defer hidden.Close()
	}
	instances := filepath.Join(root, "instances")
	before := names(t, instances)
	// One was left behind by a process that is no more, one is not ours, one
	// is of a process that lives.
	g := newTree(t).child("ghost", 0)
	t.Cleanup(g.remove)
	dead := start(t, g, "exit3", "ghost", nil)
	dead.word()
	dead.end()
	mine := map[string]bool{
		instancePrefix + strconv.Itoa(dead.pid()):  false,
		"test-coroner-" + strconv.Itoa(dead.pid()): true,
		instancePrefix + "1":                       true,
	}
	for name := range mine {
		if err := os.Mkdir(filepath.Join(instances, name), 0o700); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Rmdir(filepath.Join(instances, name)) }()
	}
	w := newWatch(t, ModeTracefs)
	now := names(t, instances)
	for name, want := range mine {
		if slices.Contains(now, name) != want {
			t.Errorf("instance %s is there: %v, want %v", name, !want, want)
		}
	}
	if own := instancePrefix + strconv.Itoa(os.Getpid()); !slices.Contains(now, own) {
		t.Errorf("instances = %v, want %s among them", now, own)
	}
	w.stop()
	for _, name := range names(t, instances) {
		if strings.HasPrefix(name, instancePrefix+strconv.Itoa(os.Getpid())) && !slices.Contains(before, name) {
			t.Errorf("instance %s was left behind", name)
		}
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestLackingOf(t *testing.T) {
	for set, want := range map[string]string{
		"0000000000000000": "CAP_BPF and CAP_PERFMON",
		"0000008000000000": "CAP_PERFMON",
		"0000004000000000": "CAP_BPF",
		"000000c000000000": "",
		"0000000000200000": "",
		"000001fffeffffff": "",
		"none":             "",
	} {
		if got := lackingOf(set); got != want {
			t.Errorf("lackingOf(%s) = %q, want %q", set, got, want)
		}
	}
}
