// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/oomtest"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestEscapes_Real: of two containers, one has moved a process into a sibling
// cgroup and one into a cgroup of its own below.
func TestEscapes_Real(t *testing.T) {
	tree := oomtest.New(t)
	load := oomtest.Load{NewPIDNS: true, Bytes: oomtest.Idle, Children: []oomtest.Load{{Bytes: oomtest.Idle, Comm: []byte("stray")}, {Bytes: oomtest.Idle}}}
	box, well := tree.Cgroup("box"), tree.Cgroup("well")
	away, below := tree.Cgroup("box2"), tree.Cgroup("well/inner")
	a, b := box.Start(load), tree.Cgroup("well/init").Start(load)
	stray := -1
	for _, p := range a.All {
		if p.Comm == "stray" {
			stray = p.PID
		}
	}
	move(t, stray, away)
	move(t, b.All[1].PID, below)

	contained := []Contained{
		{signal.Cgroup{Path: box.Path}, a.PID}, {signal.Cgroup{Path: well.Path}, b.PID},
		{signal.Cgroup{Path: "/gone"}, a.PID},
	}
	e := NewEscapes(EscapesOptions{
		Interval: 12 * time.Millisecond, Recheck: time.Millisecond, Containers: func() []Contained { return contained },
	})
	run(t, e.Run)
	want := []Escaped{
		{contained[0], 1, []EscapedProcess{{stray, "stray", away.Path}}},
		{contained[1], 0, nil},
	}
	if err := oomtest.Poll(10*time.Second, func() error {
		if diff := cmp.Diff(want, e.Last()); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	move(t, stray, box)
	if err := oomtest.Poll(10*time.Second, func() error {
		if got := e.Last(); len(got) != 2 || got[0].Count != 0 {
			return fmt.Errorf("%+v", got)
		}
		return nil
	}); err != nil {
		t.Errorf("back where it belongs: %v", err)
	}
}

func move(t *testing.T, pid int, to *oomtest.Cgroup) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(to.Dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
}

// fakeProc is a procfs of plain files.
type fakeProc struct {
	t   *testing.T
	dir string
}

// process writes one: its pid namespace, its ids in the namespaces, its cgroup.
func (f fakeProc) process(pid int, ns uint64, ids, cgroup string) {
	f.t.Helper()
	at := filepath.Join(f.dir, "proc", strconv.Itoa(pid))
	if err := os.MkdirAll(filepath.Join(at, "ns"), 0o700); err != nil {
		f.t.Fatal(err)
	}
	link := filepath.Join(at, "ns", "pid")
	_ = os.Remove(link)
	if err := os.Symlink(fmt.Sprintf("pid:[%d]", ns), link); err != nil {
		f.t.Fatal(err)
	}
	for name, text := range map[string]string{
		"status": "Name:\tx\nPPid:\t1\nNSpid:\t" + strings.ReplaceAll(ids, " ", "\t") + "\n",
		"cgroup": "3:memory:" + cgroup + "\n", "comm": "p" + strconv.Itoa(pid) + "\n",
		"stat": fmt.Sprintf("%d (x) S 1 1 1 0 -1 4194560 1 2\n", pid),
	} {
		if err := os.WriteFile(filepath.Join(at, name), []byte(text), 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
}

// escapesOn runs an Escapes over plain files for so long.
func escapesOn(t *testing.T, containers []Contained, fill func(f fakeProc), during func()) []Escaped {
	t.Helper()
	f := fakeProc{t, t.TempDir()}
	for _, name := range []string{"cgroup/memory.oom_control", "cgroup/pod/web/x", "cgroup/pod/side/x", "cgroup/pod/pause/x"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(f.dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(f.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fill(f)
	var last []Escaped
	synctest.Test(t, func(t *testing.T) {
		e := NewEscapes(EscapesOptions{
			most:       300,
			Roots:      host.Roots{Proc: filepath.Join(f.dir, "proc"), Cgroup: filepath.Join(f.dir, "cgroup")},
			Containers: func() []Contained { return containers },
		})
		stop := start(t, e.Run)
		defer stop()
		time.Sleep(5*time.Second + walkPause + 500*time.Millisecond)
		synctest.Wait()
		during()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		last = e.Last()
	})
	return last
}

// TestEscapes_SharedNamespace: a pod whose containers share one pid namespace.
func TestEscapes_SharedNamespace(t *testing.T) {
	pause := Contained{signal.Cgroup{Path: "/pod/pause"}, 10}
	got := escapesOn(t, []Contained{{signal.Cgroup{Path: "/pod/web"}, 11}, pause, {signal.Cgroup{Path: "/pod/side"}, 12}}, func(f fakeProc) {
		f.process(1, 1, "1", "/")
		f.process(10, 5, "10 1", "/pod/pause")
		f.process(11, 5, "11 2", "/pod/web/inner")
		f.process(12, 5, "12 3", "/pod/side")
		f.process(13, 5, "13 4", "/pod/webber")
		f.process(14, 5, "14 5", "/")
		f.process(15, 6, "15 6", "/elsewhere")
	}, func() {})
	want := []Escaped{{pause, 2, []EscapedProcess{{13, "p13", "/pod/webber"}, {14, "p14", "/"}}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestEscapes_OnItsWay: a process that is put into its cgroup a moment later,
// one that ends, and one whose id is another's by then.
func TestEscapes_OnItsWay(t *testing.T) {
	web := Contained{signal.Cgroup{Path: "/pod/web"}, 10}
	var proc fakeProc
	got := escapesOn(t, []Contained{web}, func(f fakeProc) {
		proc = f
		f.process(10, 5, "10 1", "/pod/web")
		for pid := 20; pid < 23; pid++ {
			f.process(pid, 5, "20 2", "/start")
		}
	}, func() {
		proc.process(20, 5, "20 2", "/pod/web")
		proc.process(21, 7, "20 2", "/start")
		if err := os.RemoveAll(filepath.Join(proc.dir, "proc", "22")); err != nil {
			t.Error(err)
		}
	})
	if diff := cmp.Diff([]Escaped{{web, 0, nil}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestEscapes_Bounds: many are counted up to a bound, a few are named.
func TestEscapes_Bounds(t *testing.T) {
	web := Contained{signal.Cgroup{Path: "/pod/web"}, 10}
	got := escapesOn(t, []Contained{web}, func(f fakeProc) {
		f.process(10, 5, "10 1", "/pod/web")
		for pid := 100; pid < 100+1000; pid++ {
			f.process(pid, 5, "20 2", "/out")
		}
	}, func() {})
	if len(got) != 1 || got[0].Count != 300 || len(got[0].Examples) != maxExamples {
		t.Errorf("%+v", got)
	}
}
