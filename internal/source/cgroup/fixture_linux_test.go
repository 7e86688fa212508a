// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// fixture imitates the files of cgroup v2 and of vmstat in a plain directory.
type fixture struct {
	t   *testing.T
	dir string
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{t: t, dir: t.TempDir()}
	must(t, os.MkdirAll(filepath.Join(f.dir, "proc"), 0o755))
	must(t, os.MkdirAll(filepath.Join(f.dir, "cg"), 0o755))
	must(t, os.WriteFile(filepath.Join(f.dir, "cg/cgroup.controllers"), []byte("cpu memory\n"), 0o644))
	f.node(0)
	return f
}

func (f *fixture) options() Options {
	return Options{
		Roots:        host.Roots{Proc: filepath.Join(f.dir, "proc"), Cgroup: filepath.Join(f.dir, "cg")},
		PollInterval: 5 * time.Millisecond,
	}
}

func (f *fixture) path(path string) string { return filepath.Join(f.dir, "cg", path) }

// overwrite keeps the size, so that no reader sees half a file.
func (f *fixture) overwrite(path, text string) {
	f.t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	must(f.t, err)
	_, err = file.WriteAt([]byte(text), 0)
	must(f.t, errors.Join(err, file.Close()))
}

func (f *fixture) node(kills uint64) {
	f.t.Helper()
	f.overwrite(filepath.Join(f.dir, "proc/vmstat"), fmt.Sprintf("nr_free_pages 1\noom_kill %08d\n", kills))
}

func (f *fixture) events(path string, below, own counters) {
	f.t.Helper()
	const form = "low 0\nhigh 0\nmax 0\noom %08d\noom_kill %08d\noom_group_kill %08d\n"
	f.overwrite(f.path(path+"/memory.events.local"), fmt.Sprintf(form, own.oom, own.kill, own.groupKill))
	f.overwrite(f.path(path+"/memory.events"), fmt.Sprintf(form, below.oom, below.kill, below.groupKill))
}

// make makes a cgroup as the kernel would: with all files at once.
func (f *fixture) make(path, limit string) {
	f.t.Helper()
	tmp, err := os.MkdirTemp(f.dir, "new")
	must(f.t, err)
	for name, text := range map[string]string{
		"memory.max": limit + "\n", "memory.current": "4096\n", "memory.oom.group": "0\n", "cgroup.procs": "",
	} {
		must(f.t, os.WriteFile(filepath.Join(tmp, name), []byte(text), 0o644))
	}
	must(f.t, os.Rename(tmp, f.path(path)))
	f.events(path, counters{}, counters{})
}

func ptr[T any](v T) *T { return &v }

const (
	cid  = "46b3e0a4df44b752b841aecca454e6e78995d567912a84950390bae6f6777a63"
	pods = "/kubepods"
	pod  = pods + "/pod94eb36cd-29e1-478b-b365-4cb5dfc7d6fb"
	ctr  = pod + "/" + cid
)

func TestRun_V2TellsTheTreeBeforeItIsUp(t *testing.T) {
	f := newFixture(t)
	f.make(pods, "max")
	f.make(pod, "67108864")
	f.make(ctr, "33554432")
	f.overwrite(f.path(ctr+"/memory.oom.group"), "1\n")
	f.events(ctr, counters{9, 9, 9}, counters{9, 9, 9}) // before this source ran
	f.node(9)
	r := record(t, f.options())
	r.untilUp()
	var got []signal.Body
	for _, b := range r.all() {
		if s, ok := b.(signal.CgroupSeen); ok {
			if s.ID == 0 {
				t.Errorf("%s has no id", s.Path)
			}
			s.ID = 0
			b = s
		}
		if s, ok := b.(signal.CgroupCounters); ok {
			if s.ID == 0 || len(s.Chain) != 4 {
				t.Errorf("%s has id %d and %d levels", s.Path, s.ID, len(s.Chain))
			}
			s.ID, s.Chain = 0, nil
			b = s
		}
		if s, ok := b.(signal.NodeCounters); ok {
			if s.Counted.IsZero() || s.Counted.After(time.Now()) {
				t.Errorf("counted up to %v", s.Counted)
			}
			s.Counted = time.Time{}
			b = s
		}
		got = append(got, b)
		if _, up := b.(signal.SourceState); up {
			break
		}
	}
	level := func(path string, limit *int64, group bool) signal.CgroupSeen {
		return signal.CgroupSeen{Level: signal.Level{Cgroup: signal.Cgroup{Path: path}, LimitBytes: limit, OOMGroup: group}}
	}
	want := []signal.Body{
		level("/", nil, false), level(pods, nil, false), level(pod, ptr[int64](67108864), false), level(ctr, ptr[int64](33554432), true),
		signal.CgroupCounters{Cgroup: signal.Cgroup{Path: ctr}, OOMKillTotal: 9, OOMKillBelowTotal: 9},
		signal.NodeCounters{Total: 9},
		signal.SourceState{Up: true, Mode: "v2"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if d := r.stop(); d > time.Second {
		t.Errorf("cancellation took %v", d)
	}
}

// TestRun_EndedWhileItStarts: who ends before the whole tree was read does not
// say that it was, for the rest would be taken for removed.
func TestRun_EndedWhileItStarts(t *testing.T) {
	f := newFixture(t)
	f.make(pods, "max")
	f.make(pod, "67108864")
	f.events(pods, counters{9, 9, 9}, counters{9, 9, 9})
	f.node(9)
	ctx, cancel := context.WithCancel(t.Context())
	seen := 0
	err := New(f.options()).Run(ctx, func(s signal.Signal) {
		switch b := s.Body.(type) {
		case signal.CgroupSeen:
			seen++
			cancel()
		case signal.SourceState:
			if b.Up {
				t.Errorf("it is up, and has told of %d cgroups", seen)
			}
		}
	})
	if seen == 0 || err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("%d cgroups, %v", seen, err)
	}
}

func TestRun_FirstProcess(t *testing.T) {
	many := make([]int, 5000) // longer than one read
	for i := range many {
		many[i] = 10000 + i
	}
	type ids struct{ parent, depth, own int }
	tests := []struct {
		name  string
		procs []int
		ids   map[int]ids
		want  int
	}{
		{"the runtime's child", []int{50, 51}, map[int]ids{50: {9, 2, 1}, 51: {50, 2, 7}}, 50},
		{"a nested one is listed first", []int{40, 50}, map[int]ids{40: {50, 3, 1}, 50: {9, 2, 1}}, 50},
		{"only a nested one", []int{40, 50}, map[int]ids{40: {50, 2, 1}, 50: {9, 1, 50}}, 0},
		{"two from outside: the outer one", []int{40, 50, 60}, map[int]ids{40: {9, 3, 1}, 50: {9, 2, 1}, 60: {9, 3, 1}}, 50},
		{"parent not known", []int{50}, map[int]ids{50: {0, 2, 1}}, 0},
		{"gone", []int{50}, nil, 0},
		{"its parent is far down", append([]int{40}, many...), map[int]ids{40: {14999, 2, 1}}, 0},
		{"a long list", append([]int{40}, many...), map[int]ids{40: {15000, 2, 1}}, 40},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.make(pods, "max")
			f.make(pod, "max")
			f.make(ctr, "max")
			var list strings.Builder
			for _, pid := range tt.procs {
				fmt.Fprintln(&list, pid)
			}
			f.overwrite(f.path(ctr+"/cgroup.procs"), list.String())
			for pid, p := range tt.ids {
				dir := filepath.Join(f.dir, "proc", strconv.Itoa(pid))
				must(t, os.Mkdir(dir, 0o755))
				own := strings.Repeat(strconv.Itoa(pid)+"\t", p.depth-1) + strconv.Itoa(p.own)
				f.overwrite(filepath.Join(dir, "status"), fmt.Sprintf("PPid:\t%d\nNSpid:\t%s\n", p.parent, own))
			}
			r := record(t, f.options())
			r.untilUp()
			if s := known(r.all(), ctr); s == nil || s.InitPID != tt.want {
				t.Errorf("got %+v, want first process %d", s, tt.want)
			}
		})
	}
}

func TestRun_V2Deltas(t *testing.T) {
	f := newFixture(t)
	f.make(pods, "max")
	f.make(pod, "67108864")
	f.make(ctr, "33554432")
	f.events(pods, counters{5, 5, 0}, counters{})
	f.events(pod, counters{5, 5, 0}, counters{1, 0, 0})
	f.events(ctr, counters{4, 5, 0}, counters{4, 5, 0})
	f.node(100)
	r := record(t, f.options())
	r.untilUp()

	// The pod's limit kills two processes of the container.
	f.events(ctr, counters{4, 7, 1}, counters{4, 7, 1})
	f.events(pod, counters{8, 7, 1}, counters{4, 0, 0})
	f.events(pods, counters{8, 7, 1}, counters{})
	f.node(102)
	r.until("the container's counters", func(said []signal.Body) bool { return sum(said, pods).OOMKillBelow == 2 })
	said := r.all()
	for path, want := range map[string]signal.CgroupCounters{
		ctr:  {OOMKill: 2, OOMKillBelow: 2, OOMGroupKill: 1},
		pod:  {OOM: 3, OOMKillBelow: 2},
		pods: {OOMKillBelow: 2},
	} {
		got := sum(said, path)
		var chain []string
		for _, level := range got.Chain {
			chain = append(chain, level.Path)
		}
		var wantChain []string
		for p := path; p != "/"; p = filepath.Dir(p) {
			wantChain = append(wantChain, p)
		}
		if diff := cmp.Diff(append(wantChain, "/"), chain); diff != "" {
			t.Errorf("chain of %s (-want +got)\n%s", path, diff)
		}
		if l := got.Chain[0]; path == ctr && (*l.LimitBytes != 33554432 || *l.UsageBytes != 4096) {
			t.Errorf("limit and usage: %+v", l)
		}
		got.Chain, got.Cgroup = nil, signal.Cgroup{}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", path, diff)
		}
	}
	nodes := uint64(0)
	for _, b := range said {
		if n, ok := b.(signal.NodeCounters); ok {
			nodes += n.OOMKill
		}
	}
	if nodes != 2 {
		t.Errorf("the node's count: got %d, want 2", nodes)
	}
}

func TestRun_V2CgroupMadeWhileRunningCountsFromNothing(t *testing.T) {
	f := newFixture(t)
	f.make(pods, "max")
	r := record(t, f.options())
	r.untilUp()
	f.make(pod, "max")
	f.make(ctr, "4096")
	r.until("the container", func(said []signal.Body) bool { return known(said, ctr) != nil })
	f.events(ctr, counters{1, 1, 0}, counters{1, 1, 0})
	f.events(pod, counters{1, 1, 0}, counters{})
	f.events(pods, counters{1, 1, 0}, counters{})
	f.node(1)
	r.until("its first kill", func(said []signal.Body) bool { return sum(said, ctr).OOMKill == 1 })

	// Gone before anybody read its second: the ancestors tell.
	must(t, os.RemoveAll(f.path(ctr)))
	r.until("CgroupGone", func(said []signal.Body) bool { return known(said, ctr) == nil })
	f.events(pod, counters{2, 2, 0}, counters{})
	f.events(pods, counters{2, 2, 0}, counters{})
	f.node(2)
	r.until("the pod's sum", func(said []signal.Body) bool { return sum(said, pod).OOMKillBelow == 2 })
	if got := sum(r.all(), ctr).OOMKill; got != 1 {
		t.Errorf("the container: got %d kills, want 1", got)
	}

	// Another one of the same name starts from nothing.
	f.make(ctr, "4096")
	r.until("the container again", func(said []signal.Body) bool { return known(said, ctr) != nil })
	f.events(ctr, counters{1, 1, 0}, counters{1, 1, 0})
	f.events(pod, counters{3, 3, 0}, counters{})
	f.events(pods, counters{3, 3, 0}, counters{})
	f.node(3)
	r.until("its kill", func(said []signal.Body) bool { return sum(said, ctr).OOMKill == 2 })
}

func TestRun_V2LimitReachedWithoutAKill(t *testing.T) {
	f := newFixture(t)
	f.make("/a", "4096")
	r := record(t, f.options())
	r.untilUp()
	f.events("/a", counters{3, 0, 0}, counters{3, 0, 0}) // inotify wakes; vmstat does not move
	r.until("OOM without a kill", func(said []signal.Body) bool { return sum(said, "/a").OOM == 3 })
}

func TestRun_V2LimitChanges(t *testing.T) {
	f := newFixture(t)
	f.make("/a", "00004096")
	r := record(t, f.options())
	r.untilUp()
	f.overwrite(f.path("/a/memory.max"), "00008192\n")
	r.until("the new limit", func(said []signal.Body) bool {
		s := known(said, "/a")
		return s.LimitBytes != nil && *s.LimitBytes == 8192
	})
	f.overwrite(f.path("/a/memory.oom.group"), "1\n")
	r.until("memory.oom.group", func(said []signal.Body) bool { return known(said, "/a").OOMGroup })
}

func TestRun_V2Renamed(t *testing.T) {
	f := newFixture(t)
	f.make("/a", "max")
	f.make("/a/b", "max")
	f.events("/a/b", counters{0, 3, 0}, counters{0, 3, 0})
	f.events("/a", counters{0, 3, 0}, counters{})
	r := record(t, f.options())
	r.untilUp()
	id := known(r.all(), "/a/b").ID
	must(t, os.Rename(f.path("/a"), f.path("/z")))
	r.until("the new path", func(said []signal.Body) bool { s := known(said, "/z/b"); return s != nil && s.ID == id })
	f.events("/z/b", counters{0, 4, 0}, counters{0, 4, 0})
	f.events("/z", counters{0, 4, 0}, counters{})
	f.node(1)
	r.until("a kill under the new path", func(said []signal.Body) bool { return sum(said, "/z/b").OOMKill > 0 })
	if got := sum(r.all(), "/z/b").OOMKill; got != 1 {
		t.Errorf("got %d kills, want 1: a new name is no new cgroup", got)
	}
}

func TestRun_V2LocalEvents(t *testing.T) {
	f := newFixture(t)
	f.make("/a", "max")
	f.make("/a/b", "max")
	for _, p := range []string{"/a", "/a/b"} { // as kernels before 5.2
		must(t, os.Remove(f.path(p+"/memory.events.local")))
	}
	r := record(t, f.options())
	r.untilUp()
	f.overwrite(f.path("/a/b/memory.events"), "low 0\nhigh 0\nmax 0\noom 00000001\noom_kill 00000001\n")
	f.node(1)
	r.until("the kill", func(said []signal.Body) bool { return sum(said, "/a/b").OOMKill == 1 })
	if got := sum(r.all(), "/a"); got.OOMKill != 0 || got.OOMKillBelow != 0 {
		t.Errorf("the parent: got %+v, want nothing", got)
	}
}

func TestRun_WithoutVMStat(t *testing.T) {
	f := newFixture(t)
	f.make("/a", "max")
	f.overwrite(filepath.Join(f.dir, "proc/vmstat"), strings.Repeat("x 1\n", 20))
	opt := f.options()
	opt.RescanInterval = 20 * time.Millisecond
	r := record(t, opt)
	r.untilUp()
	f.events("/a", counters{1, 1, 0}, counters{1, 1, 0})
	r.until("the kill", func(said []signal.Body) bool { return sum(said, "/a").OOMKill == 1 })
	for _, b := range r.all() {
		if s, ok := b.(signal.SourceState); ok && !strings.Contains(s.Reason, "4.13") {
			t.Errorf("the reason %q does not name the kernel", s.Reason)
		}
		if _, ok := b.(signal.NodeCounters); ok {
			t.Error("NodeCounters without vmstat")
		}
	}
}

func TestRun_TooManyCgroups(t *testing.T) {
	f := newFixture(t)
	for i := range 5 {
		f.make(fmt.Sprintf("/c%d", i), "max")
	}
	opt := f.options()
	opt.MaxCgroups = 3
	r := record(t, opt)
	r.untilUp()
	seen := 0
	for _, b := range r.all() {
		switch b := b.(type) {
		case signal.CgroupSeen:
			seen++
		case signal.SourceState:
			if !strings.Contains(b.Reason, "more than 3") {
				t.Errorf("reason %q", b.Reason)
			}
		}
	}
	if seen != 3 {
		t.Errorf("got %d cgroups, want 3", seen)
	}
}

func TestRun_NoHierarchy(t *testing.T) {
	var said []signal.Body
	none := filepath.Join(t.TempDir(), "none")
	err := New(Options{Roots: host.Roots{Proc: none, Cgroup: none}}).Run(context.Background(), func(s signal.Signal) { said = append(said, s.Body) })
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
	if diff := cmp.Diff([]signal.Body{signal.SourceState{Reason: err.Error()}}, said); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestRun_HierarchyUnmounted(t *testing.T) {
	f := newFixture(t)
	opt := f.options()
	opt.RescanInterval = 10 * time.Millisecond
	r := record(t, opt)
	r.untilUp()
	must(t, os.RemoveAll(f.path("/")))
	err := <-r.done
	close(r.done)
	if !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want ErrGone", err)
	}
	if s, ok := r.all()[len(r.all())-1].(signal.SourceState); !ok || s.Up {
		t.Errorf("last said: %+v, want SourceState down", s)
	}
}
