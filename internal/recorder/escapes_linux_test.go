// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
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
	load := oomtest.Load{NewPIDNS: true, Bytes: oomtest.Idle, Children: []oomtest.Load{{Bytes: 8 << 20, Comm: []byte("stray")}, {Bytes: oomtest.Idle}}}
	box, well := tree.Cgroup("box"), tree.Cgroup("well")
	away, below := tree.Cgroup("box2"), tree.Cgroup("well/inner")
	before := time.Now()
	a, b := box.Start(load), tree.Cgroup("well/init").Start(load)
	started := time.Now()
	stray := -1
	for _, p := range a.All {
		if p.Comm == "stray" {
			stray = p.PID
		}
	}
	move(t, stray, away)
	a.Go()
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
		{Contained: contained[0], PIDNS: namespace(t, a.PID), Count: 1, Examples: []signal.EscapedProcess{{PID: stray, Comm: "stray", Cgroup: away.Path}}},
		{Contained: contained[1], PIDNS: namespace(t, b.PID)},
	}
	if err := oomtest.Poll(10*time.Second, func() error {
		last := slices.Clone(e.Last())
		for i := range last {
			if n := len(last[i].Examples); n > 0 {
				// What it holds, as the kernel counts: what it touched and its own.
				if held := last[i].Examples[0].HeldBytes; held == nil || *held < 8<<20 || *held > 32<<20 || *held != last[i].HeldBytes {
					return fmt.Errorf("holds %v of %d", held, last[i].HeldBytes)
				}
				last[i].HeldBytes, last[i].Examples = 0, []signal.EscapedProcess{last[i].Examples[0]}
				last[i].Examples[0].HeldBytes = nil
			}
		}
		if diff := cmp.Diff(want, last); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if of, since, known := e.Namespace(namespace(t, stray)); !known || of != contained[0] || since.Before(before.Add(-20*time.Millisecond)) || since.After(started) {
		t.Errorf("its namespace is of %+v, %v, since %v, want that between %v and %v", of, known, since, before, started)
	}
	if of, _, known := e.Namespace(namespace(t, os.Getpid())); known {
		t.Errorf("the test's own namespace is of %+v", of)
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

// namespace is the pid namespace of a process, as the kernel says.
func namespace(t *testing.T, pid int) uint64 {
	t.Helper()
	fi, err := os.Stat(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Ino
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
	// before is what comes before the path of a cgroup.
	before string
}

// fakeV1 and fakeV2 are the two hierarchies: what tells them, and fakeProc.before.
var fakeV1, fakeV2 = [2]string{"memory.oom_control", "3:memory:"}, [2]string{"cgroup.controllers", "0::"}

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
		"cgroup": f.before + cgroup + "\n", "comm": "p" + strconv.Itoa(pid) + "\n",
		"stat": fmt.Sprintf("%d (x) S 1 1 1 0 -1 4194560 1 2\n", pid),
	} {
		if err := os.WriteFile(filepath.Join(at, name), []byte(text), 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
}

// holds says how many kB a process has of its own.
func (f fakeProc) holds(pid int, kb int) {
	f.t.Helper()
	at := filepath.Join(f.dir, "proc", strconv.Itoa(pid), "status")
	text, err := os.ReadFile(at)
	if err == nil {
		err = os.WriteFile(at, fmt.Appendf(text, "RssAnon:\t%8d kB\nRssShmem:\t       0 kB\n", kb), 0o600)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// escapesOn runs an Escapes over plain files for so long.
func escapesOn(t *testing.T, version [2]string, containers []Contained, fill func(f fakeProc), during func()) []Escaped {
	t.Helper()
	f := fakeProc{t, t.TempDir(), version[1]}
	for _, name := range []string{"cgroup/" + version[0], "cgroup/pod/web/x", "cgroup/pod/side/x", "cgroup/pod/pause/x"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(f.dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(f.dir, name), []byte("memory\n"), 0o600); err != nil {
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
	for name, version := range map[string][2]string{"v1": fakeV1, "v2": fakeV2} {
		t.Run(name, func(t *testing.T) {
			pause := Contained{signal.Cgroup{Path: "/pod/pause"}, 10}
			got := escapesOn(t, version, []Contained{{signal.Cgroup{Path: "/pod/web"}, 11}, pause, {signal.Cgroup{Path: "/pod/side"}, 12}}, func(f fakeProc) {
				f.process(1, 1, "1", "/")
				f.process(10, 5, "10 1", "/pod/pause")
				f.process(11, 5, "11 2", "/pod/web/inner")
				f.process(12, 5, "12 3", "/pod/side")
				f.process(13, 5, "13 4", "/pod/webber")
				f.holds(13, 3<<10)
				f.process(14, 5, "14 5", "/")
				f.process(15, 6, "15 6", "/elsewhere")
			}, func() {})
			want := []Escaped{{Contained: pause, PIDNS: 5, Count: 2, HeldBytes: 3 << 20, Examples: []signal.EscapedProcess{
				{PID: 13, Comm: "p13", Cgroup: "/pod/webber", HeldBytes: new(int64(3 << 20))}, {PID: 14, Comm: "p14", Cgroup: "/"},
			}}}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestEscapes_OnItsWay: a process that is put into its cgroup a moment later,
// one that ends, and one whose id is another's by then.
func TestEscapes_OnItsWay(t *testing.T) {
	web := Contained{signal.Cgroup{Path: "/pod/web"}, 10}
	var proc fakeProc
	got := escapesOn(t, fakeV1, []Contained{web}, func(f fakeProc) {
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
	if diff := cmp.Diff([]Escaped{{Contained: web, PIDNS: 5}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestEscapes_Bounds: many are counted up to a bound, a few are named.
func TestEscapes_Bounds(t *testing.T) {
	web := Contained{signal.Cgroup{Path: "/pod/web"}, 10}
	got := escapesOn(t, fakeV1, []Contained{web}, func(f fakeProc) {
		f.process(10, 5, "10 1", "/pod/web")
		for pid := 100; pid < 100+1000; pid++ {
			f.process(pid, 5, "20 2", "/out")
		}
	}, func() {})
	if len(got) != 1 || got[0].Count != 300 || len(got[0].Examples) != maxExamples {
		t.Errorf("%+v", got)
	}
}

// TestEscapes_Soon: what happens to a container has all looked at within ten
// seconds, and no more often than that; what is found is told each time, and
// once that there is none any more.
func TestEscapes_Soon(t *testing.T) {
	f := fakeProc{t, t.TempDir(), fakeV1[1]}
	for _, name := range []string{"cgroup/memory.oom_control", "cgroup/web/x"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(f.dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(f.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.process(10, 5, "10 1", "/web")
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		var told []int
		e := NewEscapes(EscapesOptions{
			Roots: host.Roots{Proc: filepath.Join(f.dir, "proc"), Cgroup: filepath.Join(f.dir, "cgroup")},
			Containers: func() []Contained {
				looks++
				return []Contained{{signal.Cgroup{Path: "/web"}, 10}}
			},
			Found: func(x Escaped) { told = append(told, x.Count) },
		})
		stop := start(t, e.Run)
		defer stop()
		time.Sleep(6 * time.Second) // the first look
		f.process(11, 5, "11 2", "/away")
		for range 200 { // for twenty seconds
			e.Soon()
			time.Sleep(100 * time.Millisecond)
		}
		f.process(11, 5, "11 2", "/web")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if looks < 4 || looks > 6 || len(told) < 2 || len(told) > 3 || told[0] != 1 || told[len(told)-1] != 0 {
			t.Errorf("%d looks, told %v", looks, told)
		}
	})
}
