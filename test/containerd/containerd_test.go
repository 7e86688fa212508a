// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package containerd runs the containerd source against a real containerd that
// the test starts for itself.
package containerd

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/signal"
	source "github.com/coroner-dev/coroner/internal/source/containerd"
	"github.com/coroner-dev/coroner/test/engines"
)

// TestContainerd plays lives of containers on one engine, in order.
func TestContainerd(t *testing.T) {
	e := startEngine(t)
	r := engines.Watch(t, source.New(source.Options{Hosts: []string{"unix://" + e.socket()}, Logger: enginetest.Logger(t)}))
	engines.Find(r, "the engine's version", func(_ signal.Signal, st signal.SourceState) bool {
		return st.Up && strings.HasPrefix(st.Mode, "containerd ") && st.Mode != "containerd "
	})
	for _, part := range []struct {
		name string
		play func(*testing.T, *engine, *engines.Recorder)
	}{
		{"life", life}, {"flash", flash}, {"many flashes", manyFlashes}, {"namespaces", namespaces}, {"hostile labels", hostileLabels},
		{"leak", leak}, {"short leaks", shortLeaks}, {"while away", whileAway},
	} {
		t.Run(part.name, func(t *testing.T) { part.play(t, e, r) })
	}
	once(t, r)
}

// once holds that nothing was told twice, and nothing lost. An end may be told
// without its code, once, before it is told with it: where a list shows that the
// task is gone, and the event is still on its way.
func once(t *testing.T, r *engines.Recorder) {
	told := map[string]int{}
	coded := map[string]bool{}
	for _, s := range r.All() {
		switch b := s.Body.(type) {
		case signal.Lost:
			t.Errorf("lost %+v", b)
		case signal.ContainerExit:
			what := fmt.Sprint("exit of ", b.Namespace, "/", b.ID, " pid ", b.PID)
			if b.Code == nil && coded[what] {
				t.Errorf("%s was told without its code after it was told with it", what)
			}
			coded[what] = coded[what] || b.Code != nil
			told[fmt.Sprint(what, " with a code: ", b.Code != nil)]++
		case signal.ContainerGone:
			told[fmt.Sprint("removal of ", b.Namespace, "/", b.ID)]++
		}
	}
	for what, n := range told {
		if n != 1 {
			t.Errorf("%s was told %d times", what, n)
		}
	}
}

// running waits until a container's first process and cgroup are told.
func running(r *engines.Recorder, space, id string) (run, described signal.ContainerSeen) {
	_, run = engines.Find(r, "its pid", func(_ signal.Signal, s signal.ContainerSeen) bool {
		return s.Namespace == space && s.Container.ID == id && s.PID > 0 && s.State == "running"
	})
	_, described = engines.Find(r, "its cgroup", func(_ signal.Signal, s signal.ContainerSeen) bool {
		return s.Namespace == space && s.Container.ID == id && s.Container.Cgroup != ""
	})
	return run, described
}

// exitOf waits until the end of a container is told with its code.
func exitOf(r *engines.Recorder, space, id string) (signal.Signal, signal.ContainerExit) {
	return engines.Find(r, "its end", func(_ signal.Signal, x signal.ContainerExit) bool {
		return x.Namespace == space && x.ID == id && x.Code != nil
	})
}

// life is a container with execs in it, one of which ends as by a kill.
func life(t *testing.T, e *engine, r *engines.Recorder) {
	space := e.spaces[0]
	e.run(space, "life", []string{"-d"}, "/bin/sleep", "600")
	run, seen := running(r, space, "life")
	pid := strconv.Itoa(run.PID)
	if want := engines.MemoryCgroup(t, pid); seen.Container.Cgroup != want || !strings.HasSuffix(want, "/life") {
		t.Errorf("cgroup %q, want %q", seen.Container.Cgroup, want)
	}
	if c := seen.Container; c.Name != "life" || c.Runtime != "containerd" || c.Image != image || c.Labels["com.docker.compose.service"] != "web" ||
		seen.LimitBytes == nil || *seen.LimitBytes != 32<<20 || run.Started.IsZero() {
		t.Errorf("seen %+v, %+v", seen, run)
	}
	if listed := e.ctr(space, "task", "ls"); !strings.Contains(listed, pid) {
		t.Errorf("pid %s is not in %s", pid, listed)
	}
	for i, command := range []string{"exit 7", "kill -9 $$"} {
		_ = e.command("-n", space, "task", "exec", "--exec-id", fmt.Sprint("x", i), "life", "/bin/sh", "-c", command).Run()
	}
	killed := time.Now()
	e.ctr(space, "task", "kill", "-s", "SIGKILL", "life")
	s, exit := exitOf(r, space, "life")
	if exit.Code == nil || *exit.Code != 137 || exit.PID != run.PID || !exit.Started.Equal(run.Started) || !exit.Finished.After(exit.Started) ||
		s.Recovered || s.Time.Before(killed) {
		t.Errorf("exit %+v, %+v", s, exit)
	}
	e.remove(space, "life")
	engines.Find(r, "its removal", func(_ signal.Signal, g signal.ContainerGone) bool { return g.ID == "life" && g.Namespace == space })
}

// flash is a container that is gone at once.
func flash(t *testing.T, e *engine, r *engines.Recorder) {
	space := e.spaces[0]
	_ = e.command("-n", space, "run", "--rm", "--null-io", image, "flash", "/bin/sh", "-c", "exit 3").Run() // it ends with the same code
	_, exit := exitOf(r, space, "flash")
	if exit.Code == nil || *exit.Code != 3 {
		t.Errorf("exit %+v", exit)
	}
	wholly(t, r, space, "flash")
}

// wholly holds that a container's name, image and cgroup were told before its
// removal.
func wholly(t *testing.T, r *engines.Recorder, space, id string) {
	t.Helper()
	engines.Find(r, "its removal", func(_ signal.Signal, g signal.ContainerGone) bool { return g.ID == id && g.Namespace == space })
	var name, image, cgroup string
	for _, s := range r.All() {
		switch b := s.Body.(type) {
		case signal.ContainerSeen:
			if b.Namespace == space && b.Container.ID == id {
				name, image, cgroup = name+b.Container.Name, image+b.Container.Image, cgroup+b.Container.Cgroup
			}
		case signal.ContainerGone:
			if b.Namespace == space && b.ID == id && (name == "" || image == "" || cgroup != "/"+space+"/"+id) {
				t.Errorf("%s: name %q, image %q, cgroup %q", id, name, image, cgroup)
			}
		}
	}
}

// manyFlashes are some at once.
func manyFlashes(t *testing.T, e *engine, r *engines.Recorder) {
	space := e.spaces[1]
	const n = 8
	done := make(chan int, n)
	for i := range n {
		go func() {
			_ = e.command("-n", space, "run", "--rm", "--null-io", image, fmt.Sprint("f", i), "/bin/sh", "-c", fmt.Sprint("exit ", i)).Run()
			done <- i
		}()
	}
	for range n {
		<-done
	}
	for i := range n {
		id := fmt.Sprint("f", i)
		if _, exit := exitOf(r, space, id); exit.Code == nil || *exit.Code != i {
			t.Errorf("exit %+v", exit)
		}
		wholly(t, r, space, id)
	}
}

// namespaces are two containers of one name.
func namespaces(t *testing.T, e *engine, r *engines.Recorder) {
	pids := map[string]int{}
	for _, space := range e.spaces {
		e.run(space, "twin", []string{"-d"}, "/bin/sleep", "600")
		run, seen := running(r, space, "twin")
		pids[space] = run.PID
		if want := engines.MemoryCgroup(t, strconv.Itoa(run.PID)); seen.Container.Cgroup != want {
			t.Errorf("cgroup %q, want %q", seen.Container.Cgroup, want)
		}
	}
	e.ctr(e.spaces[1], "task", "kill", "-s", "SIGKILL", "twin")
	if _, exit := exitOf(r, e.spaces[1], "twin"); exit.PID != pids[e.spaces[1]] {
		t.Errorf("exit %+v, want pid %d", exit, pids[e.spaces[1]])
	}
	for _, space := range e.spaces {
		e.remove(space, "twin")
	}
	engines.Find(r, "the other's end", func(_ signal.Signal, x signal.ContainerExit) bool {
		return x.Namespace == e.spaces[0] && x.ID == "twin" && x.PID == pids[x.Namespace]
	})
}

// version2 tells whether the engine is containerd 2.
func (e *engine) version2() bool {
	return strings.Contains(e.ctr(e.spaces[0], "version"), "Version:  2.")
}

// hostileLabels are labels that claim a pod, and one that is not UTF-8, where
// the engine takes it: containerd 2 does not.
func hostileLabels(t *testing.T, e *engine, r *engines.Recorder) {
	space := e.spaces[0]
	given, want := "a\xff\n\"b", "a?\n\"b"
	if e.version2() {
		given, want = "a\n\"b", "a\n\"b"
	}
	e.run(space, "hostile", []string{"-d", "--label", "io.kubernetes.x=" + given, "--label", "nerdctl/name=evil\x1b[31m"}, "/bin/sleep", "600")
	_, seen := running(r, space, "hostile")
	if seen.Sandbox || seen.Container.Pod != nil || seen.Container.Labels["io.kubernetes.x"] != want || seen.Container.Name != "evil\x1b[31m" {
		t.Errorf("seen %+v", seen)
	}
	// It spoils no list of a source that begins now.
	r2 := engines.Watch(t, source.New(source.Options{Hosts: []string{e.socket()}, Logger: enginetest.Logger(t)}))
	_, again := running(r2, space, "hostile")
	if again.Container.Labels["io.kubernetes.x"] != want {
		t.Errorf("in a list %+v", again)
	}
	e.remove(space, "hostile")
}

// leak is a container whose first process the kernel kills.
func leak(t *testing.T, e *engine, r *engines.Recorder) {
	space := e.spaces[0]
	e.run(space, "leak", []string{"-d"}, "/bin/sh", "-c", "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done")
	_, exit := exitOf(r, space, "leak")
	if exit.Code == nil || *exit.Code != 137 {
		t.Errorf("exit %+v", exit)
	}
	ooms := 0
	for _, s := range r.All() {
		if b, ok := s.Body.(signal.ContainerOOM); ok && b.ID == "leak" {
			ooms++
		}
	}
	t.Logf("containerd told of %d OOM kills until the end", ooms)
	e.remove(space, "leak")
}

// shortLeaks are containers whose first process the kernel kills at once, and
// which are removed then.
func shortLeaks(t *testing.T, e *engine, r *engines.Recorder) {
	const n = 10
	space, before := e.spaces[1], oomKills(t)
	for i := range n {
		_ = e.command("-n", space, "run", "--rm", "--null-io", "--memory-limit", "8388608", image, fmt.Sprint("leak", i),
			"/bin/sh", "-c", "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done").Run() // it ends with the same code
	}
	if killed := oomKills(t) - before; killed < n {
		t.Errorf("the kernel killed %d", killed)
	}
	for i := range n {
		id := fmt.Sprint("leak", i)
		if _, exit := exitOf(r, space, id); exit.Code == nil || *exit.Code != 137 {
			t.Errorf("exit %+v", exit)
		}
		wholly(t, r, space, id)
	}
	ooms := map[string]bool{}
	for _, s := range r.All() {
		if b, ok := s.Body.(signal.ContainerOOM); ok && b.Namespace == space {
			ooms[b.ID] = true
		}
	}
	t.Logf("containerd told of an OOM kill in %d of %d", len(ooms), n)
}

// oomKills is what the kernel counts.
func oomKills(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/vmstat")
	engines.Must(t, err)
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			kills, err := strconv.Atoi(strings.TrimSpace(n))
			engines.Must(t, err)
			return kills
		}
	}
	t.Fatal("no oom_kill in /proc/vmstat")
	return 0
}

// whileAway are containers that die, or are killed and removed, while the
// engine is away, beside one that lives on.
func whileAway(t *testing.T, e *engine, r *engines.Recorder) {
	space := e.spaces[0]
	e.run(space, "dies", []string{"-d"}, "/bin/sleep", "600")
	e.run(space, "lives", []string{"-d"}, "/bin/sleep", "600")
	dies, _ := running(r, space, "dies")
	lives, _ := running(r, space, "lives")
	e.daemon.Stop()
	r.State("down", false)
	killed := time.Now()
	engines.Must(t, syscall.Kill(dies.PID, syscall.SIGKILL))
	e.daemon.Start()
	r.State("up again", true)
	// containerd 2 forgets a task that ended while it was away, with its code.
	forgets := e.version2()
	s, exit := engines.Find(r, "its end", func(_ signal.Signal, x signal.ContainerExit) bool {
		return x.Namespace == space && x.ID == "dies" && (x.Code != nil || forgets)
	})
	unknown := exit.Code == nil && forgets
	if !s.Recovered || exit.PID != dies.PID || !unknown && (exit.Code == nil || *exit.Code != 137) {
		t.Errorf("exit %+v, recovered %v", exit, s.Recovered)
	}
	t.Logf("told %v after the kill", s.Time.Sub(killed))
	e.ctr(space, "task", "kill", "-s", "SIGKILL", "lives")
	if s, exit := exitOf(r, space, "lives"); s.Recovered || exit.PID != lives.PID || *exit.Code != 137 {
		t.Errorf("the one that lives: %+v, recovered %v", exit, s.Recovered)
	}
	// Removed while this source is the one that is away.
	e.run(space, "removed", []string{"-d"}, "/bin/sleep", "600")
	running(r, space, "removed")
	if unknown {
		e.ctr(space, "container", "rm", "dies")
	} else {
		e.remove(space, "dies")
	}
	for _, id := range []string{"lives", "removed"} {
		e.remove(space, id)
	}
	engines.Find(r, "the removal", func(_ signal.Signal, g signal.ContainerGone) bool { return g.ID == "removed" })
}
