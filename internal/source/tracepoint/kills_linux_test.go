// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/signal"
)

// The test binary is also the process that gets killed: the environment says
// what it does.
const (
	actEnv  = "CORONER_TEST_ACT"
	commEnv = "CORONER_TEST_COMM"
	// innerEnv is what the first process of a nested pid namespace does.
	innerEnv = "CORONER_TEST_INNER"
)

func TestMain(m *testing.M) {
	if comm := os.Getenv(commEnv); comm != "" {
		// The tracepoints name the thread that acts: this one, from here on.
		runtime.LockOSThread()
		for _, name := range []string{"/proc/self/comm", "/proc/thread-self/comm"} {
			if err := os.WriteFile(name, []byte(comm), 0); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(7)
			}
		}
	}
	switch act := os.Getenv(actEnv); act {
	case "":
		os.Exit(m.Run())
	case "leak":
		nextByte()
		leak()
	case "nest":
		nextByte()
		nest()
		nextByte()
		leak()
	case "share":
		nextByte()
		go vforkAndPause()
		nextByte()
		leak()
	case "wait":
		nextByte()
	case "exit3":
		nextByte()
		os.Exit(3)
	case "kill":
		pid, _ := strconv.Atoi(os.Getenv("CORONER_TEST_PID"))
		sig := syscall.SIGKILL
		if n, err := strconv.Atoi(os.Getenv("CORONER_TEST_SIGNAL")); err == nil {
			sig = syscall.Signal(n)
		}
		nextByte()
		if err := syscall.Kill(pid, sig); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		endBy(act)
	}
}

// nextByte waits for the word of the test, without the runtime's poller.
func nextByte() {
	var b [1]byte
	if n, err := syscall.Read(0, b[:]); n != 1 || err != nil {
		os.Exit(9)
	}
}

// leak touches memory outside Go's heap, so that no collector has to run.
func leak() {
	for {
		b, err := unix.Mmap(-1, 0, 4<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			os.Exit(8)
		}
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
	}
}

// nest makes a pid namespace inside this process's own, and outlives it. Its
// first process reads the test's words meanwhile.
func nest() {
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), actEnv+"="+os.Getenv(innerEnv), commEnv+"=inner")
	c.Stdin, c.Stderr = os.Stdin, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if err := c.Run(); c.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(6)
	}
}

// hierarchy is where this machine has its memory cgroups.
type hierarchy struct {
	mount   string
	version int
}

func findHierarchy(t testing.TB) hierarchy {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var v2 hierarchy
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		left, right, _ := strings.Cut(line, " - ")
		if len(strings.Fields(left)) < 5 {
			continue
		}
		kind := strings.Fields(right)
		if kind[0] == "cgroup" && slices.Contains(strings.Split(kind[2], ","), "memory") {
			return hierarchy{f[4], 1}
		}
		if kind[0] == "cgroup2" {
			v2 = hierarchy{f[4], 2}
		}
	}
	if v2.version == 0 {
		t.Fatal("no memory cgroups in /proc/self/mountinfo")
	}
	return v2
}

// needRoot skips a test that makes real kills where it cannot.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CORONER_CI") != "" {
		t.Fatal("real kills need root")
	}
	t.Skip("real kills in cgroups of our own need root")
}

// group is a cgroup that the test made.
type group struct {
	t    testing.TB
	h    hierarchy
	path string
}

// newTree makes the cgroup below which a test has its own.
func newTree(t testing.TB) group {
	t.Helper()
	h := findHierarchy(t)
	g := group{t, h, fmt.Sprintf("/coroner-test-tp-%d", os.Getpid())}
	if h.version == 2 {
		g.set(filepath.Join(h.mount, "cgroup.subtree_control"), "+memory")
	}
	g.make()
	t.Cleanup(g.remove)
	return g
}

func (g group) dir() string { return g.h.mount + g.path }

func (g group) set(file, value string) {
	g.t.Helper()
	if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
		g.t.Fatal(err)
	}
}

func (g group) make() {
	g.t.Helper()
	if err := os.Mkdir(g.dir(), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		g.t.Fatal(err)
	}
	if g.h.version == 2 {
		g.set(g.dir()+"/cgroup.subtree_control", "+memory")
	}
}

// child makes a cgroup for processes; limit 0 means none.
func (g group) child(name string, limit int64) group {
	g.t.Helper()
	c := group{g.t, g.h, g.path + "/" + name}
	if err := os.Mkdir(c.dir(), 0o755); err != nil {
		g.t.Fatal(err)
	}
	if limit > 0 {
		file := map[int]string{1: "memory.limit_in_bytes", 2: "memory.max"}[g.h.version]
		g.set(filepath.Join(c.dir(), file), strconv.FormatInt(limit, 10))
	}
	return c
}

func (g group) inode() uint64 {
	g.t.Helper()
	fi, err := os.Stat(g.dir())
	if err != nil {
		g.t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Ino
}

func (g group) remove() {
	g.t.Helper()
	poll(g.t, "remove "+g.path, func() bool {
		err := os.Remove(g.dir())
		return err == nil || errors.Is(err, os.ErrNotExist)
	})
}

func (g group) procs() []int {
	b, _ := os.ReadFile(filepath.Join(g.dir(), "cgroup.procs"))
	var pids []int
	for f := range strings.FieldsSeq(string(b)) {
		pid, _ := strconv.Atoi(f)
		pids = append(pids, pid)
	}
	return pids
}

// actor is a process of the test, in a cgroup of the test.
type actor struct {
	*exec.Cmd
	t     testing.TB
	in    io.WriteCloser
	group group
	tids  []int // its threads as it started
}

// start starts a process that waits for its word.
func start(t testing.TB, g group, act, comm string, attr *syscall.SysProcAttr, env ...string) *actor {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), append(env, actEnv+"="+act, commEnv+"="+comm, "GODEBUG=asyncpreemptoff=1", "GOGC=off")...)
	c.SysProcAttr, c.Stderr = attr, os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	a := &actor{Cmd: c, t: t, in: in, group: g}
	t.Cleanup(func() {
		if c.ProcessState == nil {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	})
	g.set(filepath.Join(g.dir(), "cgroup.procs"), strconv.Itoa(a.pid()))
	poll(t, "process calls itself "+comm, func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", a.pid()))
		return err != nil || strings.TrimSuffix(string(b), "!\n") == comm || string(b) == comm+"\n"
	})
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", a.pid()))
	for _, d := range tasks {
		tid, _ := strconv.Atoi(d.Name())
		a.tids = append(a.tids, tid)
	}
	return a
}

func (a *actor) pid() int { return a.Process.Pid }

// word lets the process take its next step.
func (a *actor) word() {
	a.t.Helper()
	if _, err := a.in.Write([]byte{'.'}); err != nil {
		a.t.Fatal(err)
	}
}

// end waits for the process, and says by which signal it ended.
func (a *actor) end() syscall.Signal {
	a.t.Helper()
	_ = a.Wait()
	return a.ProcessState.Sys().(syscall.WaitStatus).Signal()
}

// watch is a running source and what it told.
type watch struct {
	t     testing.TB
	state signal.SourceState
	stop  func() // ends the source and waits for it

	mu   sync.Mutex
	got  []signal.Signal
	more chan struct{}
}

// newWatch runs a source until the test ends. It skips where the kernel does
// not offer the mode.
func newWatch(t testing.TB, mode string) *watch {
	t.Helper()
	needRoot(t)
	w := &watch{t: t, more: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- New(Options{Mode: mode}).Run(ctx, w.emit) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v, want nil after the end of its context", err)
		}
	})
	t.Cleanup(w.stop)
	w.await("state", func(s signal.Signal) bool {
		st, ok := s.Body.(signal.SourceState)
		w.state = st
		return ok
	})
	if !w.state.Up {
		t.Fatalf("source did not come up: %s", w.state.Reason)
	}
	return w
}

func (w *watch) emit(s signal.Signal) {
	w.mu.Lock()
	w.got = append(w.got, s)
	w.mu.Unlock()
	select {
	case w.more <- struct{}{}:
	default:
	}
}

func (w *watch) all() []signal.Signal {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.got[:len(w.got):len(w.got)]
}

// await returns the first signal for which ok is true, and its place.
func (w *watch) await(what string, ok func(signal.Signal) bool) (signal.Signal, int) {
	w.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for i := 0; ; {
		all := w.all()
		for ; i < len(all); i++ {
			if ok(all[i]) {
				return all[i], i
			}
		}
		select {
		case <-w.more:
		case <-deadline.C:
			w.t.Fatalf("no %s in %d signals: %s", what, len(all), dump(all))
		}
	}
}

func (w *watch) mark(pid int) (signal.MarkVictim, signal.Signal, int) {
	w.t.Helper()
	s, i := w.await(fmt.Sprintf("mark of %d", pid), func(s signal.Signal) bool {
		m, ok := s.Body.(signal.MarkVictim)
		return ok && m.Victim.PID == pid
	})
	return s.Body.(signal.MarkVictim), s, i
}

func (w *watch) kill(pid int) (signal.Kill, int) {
	w.t.Helper()
	s, i := w.await(fmt.Sprintf("kill of %d", pid), func(s signal.Signal) bool {
		k, ok := s.Body.(signal.Kill)
		return ok && k.Target.PID == pid
	})
	return s.Body.(signal.Kill), i
}

func (w *watch) exit(pid int) signal.Exit {
	w.t.Helper()
	s, _ := w.await(fmt.Sprintf("exit of %d", pid), func(s signal.Signal) bool {
		e, ok := s.Body.(signal.Exit)
		return ok && e.Task.PID == pid
	})
	return s.Body.(signal.Exit)
}

// marks counts the marks by process, and what was lost. Since 6.15 the kernel
// also marks each further thread of a victim that asks for memory before it is
// gone (mm/memcontrol.c, mem_cgroup_out_of_memory; 65 marks of 40 kills were
// seen): those are no kills. It marks no thread twice.
func (w *watch) marks() (byPID map[int]int, lost uint64) {
	byPID = make(map[int]int)
	marked := make(map[int]int)
	for _, s := range w.all() {
		switch b := s.Body.(type) {
		case signal.MarkVictim:
			v := b.Victim
			if first, ok := marked[v.PID]; ok && first != v.TID && b.Trigger.TID == v.TID {
				continue
			}
			marked[v.PID] = v.TID
			byPID[v.PID]++
		case signal.Lost:
			lost += b.Count
		}
	}
	return byPID, lost
}

func dump(all []signal.Signal) string {
	var b bytes.Buffer
	for _, s := range all[max(0, len(all)-20):] {
		fmt.Fprintf(&b, "\n%T %+v", s.Body, s.Body)
	}
	return b.String()
}

// patience is long for emulated machines that share a processor.
const patience = time.Minute

// poll asks until the answer is yes, or fails after a while.
func poll(t testing.TB, what string, yes func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !yes(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not so after %s", what, patience)
		}
	}
}

// oomKills reads what the kernel itself counted.
func oomKills(t testing.TB) int {
	t.Helper()
	f, err := os.Open("/proc/vmstat")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if v, ok := strings.CutPrefix(sc.Text(), "oom_kill "); ok {
			n, _ := strconv.Atoi(v)
			return n
		}
	}
	t.Fatal("no oom_kill in /proc/vmstat")
	return 0
}
