// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
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

// TestTracefs_FullPages: where the events of a page leave no room for how many
// were overwritten before it, they are counted all the same.
func TestTracefs_FullPages(t *testing.T) {
	needRoot(t)
	w, err := openTracefs(Options{Logger: slog.New(slog.DiscardHandler)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.close() }()
	tr := w.(*tracefs)
	b := &tr.bufs[1]
	if err := write(b.dir, "events/enable", "0"); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // the thread ends with the test's goroutine
	if err := unix.SchedSetaffinity(0, anyCPU(t)); err != nil {
		t.Fatal(err)
	}
	mark, err := os.OpenFile(filepath.Join(b.dir, "trace_marker"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer mark.Close()
	// 60 bytes, of which a page has room for 68 and nothing else: a word for type
	// and time, eight for what every event has, eight for the caller, and the text
	// with two more, to the next word.
	text := []byte(strings.Repeat("x", 36) + "\n")
	const sent = 5000
	for range sent {
		if _, err := mark.Write(text); err != nil {
			t.Fatal(err)
		}
	}
	got, lost := 0, 0
	for _, s := range b.cpus {
		for {
			batch, err := tr.read(b, s, nil, func(s signal.Signal) {
				l := s.Body.(signal.Lost)
				if lost += int(l.Count); !l.Other {
					t.Errorf("lost %+v", l)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(batch) == 0 {
				break
			}
			got += len(batch)
		}
	}
	if got+lost != sent || lost == 0 {
		t.Errorf("read %d, lost %d, want %d together, some of them lost", got, lost, sent)
	}
	t.Logf("read %d, lost %d", got, lost)
}

// anyCPU is one of the processors that the test may run on.
func anyCPU(t *testing.T) *unix.CPUSet {
	t.Helper()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for i := range len(all) * 64 {
		if all.IsSet(i) {
			one.Set(i)
			break
		}
	}
	return &one
}
