// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Real kills on the running kernel, cgroup v1 or v2, in cgroups of this
// test's own. The truth is what wait(2) says of the processes.

const (
	roleEnv  = "CORONER_TEST_ROLE"
	procsEnv = "CORONER_TEST_PROCS"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		helper(role)
	}
	os.Exit(m.Run())
}

// helper is a process that joins a cgroup, says so, and, told to, takes more
// memory than it may.
func helper(role string) {
	if err := os.WriteFile(os.Getenv(procsEnv), []byte("0"), 0); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if role == "nest" {
		nest()
	}
	fmt.Println("joined")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	if role == "leak" {
		b, err := unix.Mmap(-1, 0, 256<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			os.Exit(1)
		}
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
	}
	os.Exit(0)
}

// nest starts the first process of a pid namespace in the same cgroup. It ends
// with the test's pipe, as this one does.
func nest() {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"=wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	cmd.Stdin = os.Stdin
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go func() { _ = cmd.Wait() }()
}

// arena is a cgroup of this test's own on the real hierarchy.
type arena struct {
	t    *testing.T
	hier host.Hierarchy
	base string // path below the mount
}

func newArena(t *testing.T) *arena {
	t.Helper()
	skip := func(why error) {
		t.Helper()
		if ci() {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	hier, err := host.Roots{}.MemoryHierarchy()
	if err != nil {
		skip(err)
	}
	if _, err := (host.Roots{}).NodeOOMKills(); err != nil {
		skip(err)
	}
	a := &arena{t: t, hier: hier, base: fmt.Sprintf("/coroner-test-cg-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name()[len("TestReal_"):], "/", "-"))}
	if err := a.try(""); err != nil {
		skip(fmt.Errorf("make a cgroup (needs user 0): %w", err))
	}
	t.Cleanup(func() { a.removeAll(a.dir("")) })
	return a
}

func (a *arena) path(sub string) string { return a.base + sub }
func (a *arena) dir(sub string) string  { return a.hier.Dir(a.base + sub) }

// try makes a cgroup; on v2 its parent hands the memory controller down.
func (a *arena) try(sub string) error {
	if a.hier.Version == 2 {
		err := os.WriteFile(filepath.Join(filepath.Dir(a.dir(sub)), "cgroup.subtree_control"), []byte("+memory"), 0)
		if err != nil {
			return err
		}
	}
	return os.Mkdir(a.dir(sub), 0o755)
}

func (a *arena) make(sub string) {
	a.t.Helper()
	must(a.t, a.try(sub))
}

func (a *arena) limit(sub string, bytes int64) {
	a.t.Helper()
	file := map[int]string{1: "memory.limit_in_bytes", 2: "memory.max"}[a.hier.Version]
	must(a.t, os.WriteFile(filepath.Join(a.dir(sub), file), []byte(strconv.FormatInt(bytes, 10)), 0))
}

func (a *arena) removeAll(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			a.removeAll(filepath.Join(dir, e.Name()))
		}
	}
	// The kernel lets go of a dead process a moment after wait does.
	deadline := time.Now().Add(patience)
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			a.t.Errorf("remove %s: %v", dir, err)
			return
		}
	}
}

// process is a helper in a cgroup.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
}

func (a *arena) start(sub, role string, attr *syscall.SysProcAttr) *process {
	a.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+role, procsEnv+"="+filepath.Join(a.dir(sub), "cgroup.procs"))
	cmd.SysProcAttr = attr
	in, err := cmd.StdinPipe()
	must(a.t, err)
	out, err := cmd.StdoutPipe()
	must(a.t, err)
	must(a.t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "joined\n" {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		a.t.Fatalf("helper said %q, %v", line, err)
	}
	p := &process{a.t, cmd, in}
	a.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return p
}

// killed lets the process go on, and waits for its end by SIGKILL.
func (p *process) killed() {
	_ = p.in.Close()
	_ = p.cmd.Wait()
	if ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
		p.t.Errorf("helper ended with %v, want SIGKILL", p.cmd.ProcessState)
	}
}

func kills(said []signal.Body, path string) uint64 { return sum(said, path).OOMKill }

const testLimit = 16 << 20

func TestReal_SequentialKills(t *testing.T) {
	a := newArena(t)
	a.make("/c")
	a.limit("/c", testLimit)
	r := record(t, Options{})
	r.untilUp()
	for n := uint64(1); n <= 6; n++ { // 1, and then 5 more
		a.start("/c", "leak", nil).killed()
		r.until(fmt.Sprintf("kill %d", n), func(said []signal.Body) bool { return kills(said, a.path("/c")) == n })
	}
	if a.hier.Version == 2 { // the parent's file may be read after the child's
		r.until("6 in the parent's sum", func(said []signal.Body) bool { return sum(said, a.path("")).OOMKillBelow >= 6 })
	}
	got := sum(r.all(), a.path("/c"))
	if len(got.Chain) != 3 || got.Chain[0].LimitBytes == nil || *got.Chain[0].LimitBytes != testLimit || got.Chain[0].UsageBytes == nil {
		t.Errorf("chain %+v, want three levels, the first with the limit and its usage", got.Chain)
	}
	if a.hier.Version == 2 && (got.OOM == 0 || got.OOMKillBelow != 6 || sum(r.all(), a.path("")).OOMKillBelow != 6) {
		t.Errorf("got %+v, want oom, and 6 in the sums of both levels", got)
	}
	if got := kills(r.all(), a.path("")); got != 0 {
		t.Errorf("the parent: got %d kills of its own, want 0", got)
	}
	checkNode(t, r)
}

// checkNode compares with the machine's count: others may kill meanwhile, but
// what was told must add up.
func checkNode(t *testing.T, r *recorder) {
	t.Helper()
	first, last, added, began := uint64(0), uint64(0), uint64(0), false
	for _, b := range r.all() {
		if n, ok := b.(signal.NodeCounters); ok {
			if !began {
				first, began = n.Total, true
			}
			last = n.Total
			added += n.OOMKill
		}
	}
	if added == 0 || first+added != last {
		t.Errorf("node: %d and %d added, yet %d in the end", first, added, last)
	}
}

func TestReal_ParallelKills(t *testing.T) {
	a := newArena(t)
	a.make("/c")
	a.limit("/c", testLimit)
	r := record(t, Options{})
	r.untilUp()
	var ps []*process
	for range 8 {
		ps = append(ps, a.start("/c", "leak", nil))
	}
	var all sync.WaitGroup
	for _, p := range ps {
		all.Go(p.killed)
	}
	all.Wait()
	r.until("8 kills", func(said []signal.Body) bool { return kills(said, a.path("/c")) >= 8 })
	// One more, so that whatever was still to come has come.
	a.start("/c", "leak", nil).killed()
	r.until("9 kills", func(said []signal.Body) bool { return kills(said, a.path("/c")) >= 9 })
	if got := kills(r.all(), a.path("/c")); got != 9 {
		t.Errorf("got %d kills, want 9", got)
	}
}

func TestReal_ParallelKillsInManyCgroups(t *testing.T) {
	a := newArena(t)
	r := record(t, Options{})
	r.untilUp()
	const n = 8
	var all sync.WaitGroup
	for i := range n {
		sub := fmt.Sprintf("/c%d", i)
		a.make(sub)
		a.limit(sub, testLimit)
		p := a.start(sub, "leak", nil)
		all.Go(p.killed)
	}
	all.Wait()
	for i := range n {
		path := a.path(fmt.Sprintf("/c%d", i))
		r.until("one kill in "+path, func(said []signal.Body) bool { return kills(said, path) == 1 })
	}
}

func TestReal_PodLimitKillsInTheContainer(t *testing.T) {
	a := newArena(t)
	a.make(pods)
	a.make(pod)
	a.limit(pod, testLimit)
	a.make(ctr)
	r := record(t, Options{})
	r.untilUp()
	a.start(ctr, "leak", nil).killed()
	r.until("the kill", func(said []signal.Body) bool { return kills(said, a.path(ctr)) == 1 })
	got := sum(r.all(), a.path(ctr))
	if len(got.Chain) < 3 || got.Chain[0].LimitBytes != nil || got.Chain[1].LimitBytes == nil || *got.Chain[1].LimitBytes != testLimit {
		t.Errorf("chain %+v, want the limit at the pod only", got.Chain)
	}
	if a.hier.Version == 2 {
		r.until("oom at the pod", func(said []signal.Body) bool { return sum(said, a.path(pod)).OOM > 0 })
		if got.OOM != 0 {
			t.Errorf("oom %d at the container, want it at the pod only", got.OOM)
		}
	}
}

func TestReal_TreeIsFollowed(t *testing.T) {
	a := newArena(t)
	r := record(t, Options{})
	r.untilUp()
	sub := ""
	for i := range 5 {
		sub += fmt.Sprintf("/d%d", i)
		a.make(sub)
	}
	a.limit(sub, testLimit)
	r.until("the fifth level with its limit", func(said []signal.Body) bool {
		s := known(said, a.path(sub))
		return s != nil && s.LimitBytes != nil && *s.LimitBytes == testLimit
	})
	var st syscall.Stat_t
	must(t, syscall.Stat(a.dir(sub), &st))
	if s := known(r.all(), a.path(sub)); s.ID != st.Ino {
		t.Errorf("id %d, want the inode %d", s.ID, st.Ino)
	}
	a.start(sub, "leak", nil).killed()
	r.until("the kill", func(said []signal.Body) bool { return kills(said, a.path(sub)) == 1 })
	a.removeAll(a.dir(sub))
	r.until("CgroupGone", func(said []signal.Body) bool { return known(said, a.path(sub)) == nil })

	// A removed one's name may come back as another cgroup.
	a.make(sub)
	r.until("the name again", func(said []signal.Body) bool { return known(said, a.path(sub)) != nil })
	a.limit(sub, testLimit)
	a.start(sub, "leak", nil).killed()
	r.until("its kill", func(said []signal.Body) bool { return kills(said, a.path(sub)) == 2 })
}

// A cgroup that is removed as soon as its process is dead: on v1 its counter
// may be gone, but the machine's count tells.
func TestReal_RemovedAtOnce(t *testing.T) {
	a := newArena(t)
	r := record(t, Options{})
	r.untilUp()
	const n = 10
	for i := range n {
		sub := fmt.Sprintf("/c%d", i)
		a.make(sub)
		a.limit(sub, testLimit)
		a.start(sub, "leak", nil).killed()
		a.removeAll(a.dir(sub))
	}
	r.until("the node's count", func(said []signal.Body) bool {
		added := uint64(0)
		for _, b := range said {
			if m, ok := b.(signal.NodeCounters); ok {
				added += m.OOMKill
			}
		}
		return added >= n
	})
	if a.hier.Version == 2 {
		r.until("the parent's sum", func(said []signal.Body) bool { return sum(said, a.path("")).OOMKillBelow == n })
	}
	counted := uint64(0)
	for i := range n {
		path := a.path(fmt.Sprintf("/c%d", i))
		r.until(path+" gone", func(said []signal.Body) bool { return known(said, path) == nil })
		counted += kills(r.all(), path)
	}
	t.Logf("%d of %d counted in the cgroup itself", counted, n)
	if counted > n {
		t.Errorf("counted %d, want at most %d", counted, n)
	}
}

func TestReal_InitPID(t *testing.T) {
	a := newArena(t)
	a.make("/docker")
	r := record(t, Options{})
	r.untilUp()
	a.make("/docker/" + cid)
	p := a.start("/docker/"+cid, "wait", &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID})
	r.until("its first process", func(said []signal.Body) bool {
		s := known(said, a.path("/docker/"+cid))
		return s != nil && s.InitPID == p.cmd.Process.Pid
	})
	_ = p.in.Close()
	_ = p.cmd.Wait()
}

// The first process of a pid namespace that was made inside the container is
// there first, and yet not the container's.
func TestReal_InitPIDIsNoNestedOne(t *testing.T) {
	a := newArena(t)
	a.make("/docker")
	r := record(t, Options{})
	r.untilUp()
	a.make("/docker/" + cid)
	outer := a.start("/docker/"+cid, "nest", nil)
	b, err := os.ReadFile(filepath.Join(a.dir("/docker/"+cid), "cgroup.procs"))
	must(t, err)
	if pids := strings.Fields(string(b)); len(pids) != 2 {
		t.Fatalf("processes %q, want the outer and the nested one", pids)
	}
	p := a.start("/docker/"+cid, "wait", &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID})
	r.until("its first process", func(said []signal.Body) bool {
		s := known(said, a.path("/docker/"+cid))
		return s != nil && s.InitPID != 0
	})
	for _, b := range r.all() {
		if s, ok := b.(signal.CgroupSeen); ok && s.Path == a.path("/docker/"+cid) && s.InitPID != 0 && s.InitPID != p.cmd.Process.Pid {
			t.Errorf("first process %d, want %d", s.InitPID, p.cmd.Process.Pid)
		}
	}
	for _, p := range []*process{p, outer} {
		_ = p.in.Close()
		_ = p.cmd.Wait()
	}
}

func TestReal_KillsFromBeforeAreNoDelta(t *testing.T) {
	a := newArena(t)
	a.make("/c")
	a.limit("/c", testLimit)
	a.start("/c", "leak", nil).killed()
	r := record(t, Options{})
	r.untilUp()
	a.start("/c", "leak", nil).killed()
	r.until("the second kill", func(said []signal.Body) bool { return kills(said, a.path("/c")) > 0 })
	if got := kills(r.all(), a.path("/c")); got != 1 {
		t.Errorf("got %d kills, want 1", got)
	}
}

func TestReal_CancelsAtOnce(t *testing.T) {
	newArena(t)
	quickest := time.Hour
	for n := 0; n < 5 && quickest > 100*time.Millisecond; n++ { // what else runs is in the way, and not always
		r := record(t, Options{PollInterval: time.Hour})
		r.untilUp()
		quickest = min(quickest, r.stop())
	}
	if quickest > 100*time.Millisecond {
		t.Errorf("cancellation took %v at least", quickest)
	}
}

// Where the kernel gives no inotify instance, or no more watches, the tree is
// read again and again, and the source says so.
func TestReal_WithoutInotify(t *testing.T) {
	for name, o := range map[string]Options{
		"no instance": {RescanInterval: 20 * time.Millisecond, noInotify: true},
		"no watches":  {RescanInterval: 20 * time.Millisecond, maxWatches: 1},
	} {
		t.Run(name, func(t *testing.T) { withoutInotify(t, o) })
	}
}

func withoutInotify(t *testing.T, o Options) {
	a := newArena(t)
	r := record(t, o)
	r.untilUp()
	for _, b := range r.all() {
		if s, ok := b.(signal.SourceState); ok && !strings.Contains(s.Reason, "inotify") {
			t.Errorf("reason %q does not say that there is no inotify", s.Reason)
		}
	}
	a.make("/c")
	a.limit("/c", testLimit)
	r.until("the new cgroup", func(said []signal.Body) bool {
		s := known(said, a.path("/c"))
		return s != nil && s.LimitBytes != nil
	})
	a.start("/c", "leak", nil).killed()
	r.until("the kill", func(said []signal.Body) bool { return kills(said, a.path("/c")) == 1 })
	a.removeAll(a.dir("/c"))
	r.until("CgroupGone", func(said []signal.Body) bool { return known(said, a.path("/c")) == nil })
}
