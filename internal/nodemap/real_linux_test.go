// SPDX-License-Identifier: Apache-2.0

package nodemap

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/oomtest"
)

func TestMain(m *testing.M) { oomtest.Main(m) }

// kernelScore is what the kernel itself shows.
func kernelScore(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score", pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// scores computes those of all processes, as the map has them.
func scores(t *testing.T) map[int]api.OOMCandidate {
	t.Helper()
	f, err := Read(host.Roots{})
	if err != nil {
		t.Fatal(err)
	}
	f.ReadTasks(host.Roots{})
	if f.TasksWhy != "" {
		t.Skip(f.TasksWhy)
	}
	total := f.MemInfo["MemTotal"] + f.MemInfo["SwapTotal"]
	out := map[int]api.OOMCandidate{}
	for i := range f.Tasks {
		for _, c := range oomOrder(f.Tasks[i:i+1], total, total, int64(os.Getpagesize()), func(*Task) bool { return true }) {
			out[c.PID] = c
		}
	}
	return out
}

// mayLower tells whether processes may be made less likely victims here, which
// takes CAP_SYS_RESOURCE.
func mayLower() bool {
	const file = "/proc/self/oom_score_adj"
	is, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	if err := os.WriteFile(file, []byte("-1000"), 0); err != nil {
		return false
	}
	return os.WriteFile(file, is, 0) == nil
}

// TestOOMScore_IsTheKernels compares with /proc/PID/oom_score, of all that runs
// here and of processes whose memory and oom_score_adj the test sets. One point
// is 0.15 % of the machine's memory, which rounding, and pages that each CPU
// counts on its own first, can make the difference of.
func TestOOMScore_IsTheKernels(t *testing.T) {
	tree := oomtest.New(t)
	info, err := host.Roots{}.MemInfo()
	if err != nil {
		t.Fatal(err)
	}
	held := min(192<<20, info["MemTotal"]/32)
	adjs := []int{0, 300, 1000}
	if mayLower() {
		adjs = append(adjs, -1000, -999, -500)
	}
	var loads []*oomtest.Process
	for i, adj := range adjs {
		c := tree.Cgroup(fmt.Sprintf("p%d", i), oomtest.Limit(1<<30))
		p := c.Start(oomtest.Load{Bytes: held, Rate: 1 << 33, OOMScoreAdj: &adj})
		p.Go()
		if err := oomtest.Poll(20*time.Second, func() error {
			if n := c.Usage(); n < held {
				return fmt.Errorf("holds %d bytes", n)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		loads = append(loads, p)
	}
	got := scores(t)
	compared := 0
	for pid, c := range got {
		want, err := kernelScore(pid)
		if err != nil {
			continue // it has ended
		}
		if d := c.OOMScore - want; d < -1 || d > 1 { // it may have grown between two readings
			if err := oomtest.Poll(5*time.Second, func() error { return agrees(t, pid) }); err != nil {
				t.Errorf("%s: %v", c.Comm, err)
			}
		}
		compared++
	}
	if compared < len(adjs) {
		t.Errorf("%d processes were compared, want %d at least", compared, len(adjs))
	}
	for i, p := range loads {
		c, weighed := got[p.PID]
		if weighed != (adjs[i] != -1000) {
			t.Errorf("oom_score_adj %d: weighed %v", adjs[i], weighed)
		}
		if weighed && (c.RSSBytes < held || c.PageTablesBytes == 0) {
			t.Errorf("pid %d holds %d bytes, and was seen with %+v", p.PID, held, c)
		}
		if s, err := kernelScore(p.PID); adjs[i] == -1000 && (err != nil || s != 0) {
			t.Errorf("the kernel's score of one that it never takes: %d, %v", s, err)
		}
	}
}

// agrees compares a process's score with the kernel's before and after.
func agrees(t *testing.T, pid int) error {
	t.Helper()
	before, err := kernelScore(pid)
	if err != nil {
		return nil // it has ended
	}
	got, weighed := scores(t)[pid]
	after, err := kernelScore(pid)
	switch {
	case err != nil, !weighed && after == 0: // what has ended and is not reaped has 0
		return nil
	case !weighed || got.OOMScore < min(before, after)-1 || got.OOMScore > max(before, after)+1:
		return fmt.Errorf("pid %d: weighed %v, score %d, the kernel says %d and then %d", pid, weighed, got.OOMScore, before, after)
	}
	return nil
}

// alone tries a few times: what else runs on the machine takes memory, too.
func alone(t *testing.T, try func(n int) error) {
	t.Helper()
	var err error
	for n := range 5 {
		if err = try(n); err == nil {
			return
		}
		t.Log(err)
	}
	t.Error(err)
}

// around reads the machine before and after something is done to it, and has
// the map take it for what happened in a minute more.
func around(t *testing.T, do func()) api.NodeMap {
	t.Helper()
	before, err := Read(host.Roots{})
	if err != nil {
		t.Fatal(err)
	}
	do()
	now, err := Read(host.Roots{})
	if err != nil {
		t.Fatal(err)
	}
	before.Time = before.Time.Add(-time.Minute)
	return Build(Input{Facts: now, Before: SampleOf(before)})
}

// TestRead_UnitOutsideGrows: memory that grows outside of all containers is
// named with its cgroup and its growth, and is nobody else's (S24).
func TestRead_UnitOutsideGrows(t *testing.T) {
	tree := oomtest.New(t)
	info, err := host.Roots{}.MemInfo()
	if err != nil {
		t.Fatal(err)
	}
	held := min(256<<20, info["MemTotal"]/4)
	alone(t, func(n int) error {
		c := tree.Cgroup(fmt.Sprintf("system.slice/backup%d.service", n), oomtest.Limit(1<<30))
		m := around(t, func() {
			c.Start(oomtest.Load{Bytes: held}).Go()
			if err := oomtest.Poll(20*time.Second, func() error {
				if n := c.Usage(); n < held {
					return fmt.Errorf("holds %d bytes", n)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		})
		found := slices.IndexFunc(m.Groups, func(g api.NodeGroup) bool { return g.Cgroup == c.Path })
		if found < 0 {
			t.Fatalf("%s is not among the groups: %+v", c.Path, m.Groups)
		}
		name := fmt.Sprintf("backup%d.service", n)
		if g := m.Groups[found]; g.Kind != "unit" || g.Name != name || g.GrowthBytes == nil || *g.GrowthBytes < held || *g.GrowthBytes > held*5/4 {
			t.Errorf("got %+v, want the unit %s grown by %d", g, name, held)
		}
		if !strings.Contains(strings.Join(m.Advice, "\n"), name+", outside of all containers, grew by") {
			t.Errorf("advice %q does not name it", m.Advice)
		}
		for _, kind := range []string{"unaccounted", "containers_working_set"} {
			if g := m.Memory[kind].GrowthBytes; g == nil || *g > held/4 {
				return fmt.Errorf("%s grew too: %s", kind, growth(&m, kind))
			}
		}
		if g := m.Memory["units_working_set"].GrowthBytes; g == nil || *g < held*3/4 {
			return fmt.Errorf("units did not grow: %s", growth(&m, "units_working_set"))
		}
		return nil
	})
}

func growth(m *api.NodeMap, kind string) string {
	if g := m.Memory[kind].GrowthBytes; g != nil {
		return fmt.Sprintf("%d MiB", *g>>20)
	}
	return "not known"
}

// TestRead_KernelGrows: memory that the kernel takes for itself, of a trace
// buffer that the test makes, is no cgroup's, and told as that (S24).
func TestRead_KernelGrows(t *testing.T) {
	oomtest.Require(t, oomtest.RealKills)
	dir := t.TempDir()
	if err := unix.Mount("nodev", dir, "tracefs", 0, ""); err != nil {
		t.Skipf("tracefs cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	info, err := host.Roots{}.MemInfo()
	if err != nil {
		t.Fatal(err)
	}
	taken := max(128<<20, info["MemTotal"]/128)
	alone(t, func(n int) error {
		instance := filepath.Join(dir, "instances", fmt.Sprintf("coroner-nodemap-%d-%d", os.Getpid(), n))
		if err := os.Mkdir(instance, 0o700); err != nil {
			t.Skipf("no instance of tracefs: %v", err)
		}
		t.Cleanup(func() { // at the end: the kernel frees it in its own time
			if err := os.Remove(instance); err != nil {
				t.Error(err)
			}
		})
		m := around(t, func() {
			perCPU := strconv.FormatInt(taken>>10/int64(runtime.NumCPU()), 10)
			if err := os.WriteFile(filepath.Join(instance, "buffer_size_kb"), []byte(perCPU), 0); err != nil {
				t.Fatal(err)
			}
		})
		if g := m.Memory["unaccounted"].GrowthBytes; g == nil || *g < taken*3/4 || *g > taken*5/4 {
			return fmt.Errorf("unaccounted grew by %s, want %d MiB; free %s, page cache %s, units %s, containers %s, slab %s", growth(&m, "unaccounted"), taken>>20,
				growth(&m, "free"), growth(&m, "reclaimable"), growth(&m, "units_working_set"), growth(&m, "containers_working_set"), growth(&m, "kernel_slab"))
		}
		if !strings.Contains(strings.Join(m.Advice, "\n"), "Memory that no cgroup has grew by") {
			t.Errorf("advice %q", m.Advice)
		}
		return nil
	})
}

// TestTools_AreWhatTheToolsShow asks procps' own free.
func TestTools_AreWhatTheToolsShow(t *testing.T) {
	path, err := exec.LookPath("free")
	if err != nil {
		t.Skip("no free in PATH (Debian: procps)")
	}
	version, err := exec.Command(path, "--version").Output()
	if err != nil || !strings.Contains(string(version), "procps-ng 4") {
		t.Skipf("free is not of procps 4: %q, %v", version, err)
	}
	used := func() (n int64) {
		out, err := exec.Command(path, "-b").Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			if f := strings.Fields(line); len(f) > 2 && f[0] == "Mem:" {
				n, _ = strconv.ParseInt(f[2], 10, 64)
			}
		}
		return n
	}
	alone(t, func(int) error {
		low := used()
		f, err := Read(host.Roots{})
		if err != nil {
			t.Fatal(err)
		}
		high := used()
		if high < low {
			low, high = high, low
		}
		const apart = 32 << 20 // the machine goes on between two readings
		for _, tool := range Build(Input{Facts: f}).Tools {
			if tool.Tool == "free (used)" && (tool.Bytes < low-apart || tool.Bytes > high+apart) {
				return fmt.Errorf("free shows %d to %d, the map says %d", low, high, tool.Bytes)
			}
		}
		return nil
	})
}

// TestRead_AddsUp: on the machine that there is, the parts make the whole.
func TestRead_AddsUp(t *testing.T) {
	f, err := Read(host.Roots{})
	if err != nil {
		t.Fatal(err)
	}
	m := Build(Input{Facts: f})
	if f.Version == 0 || f.Part {
		t.Skipf("no memory cgroups are seen whole here: %q", m.Notes)
	}
	var sum int64
	for _, kind := range []string{"pods_working_set", "containers_working_set", "units_working_set", "hugepages", "unaccounted", "reclaimable", "free"} {
		sum += m.Memory[kind].Bytes
		t.Logf("%s %d", kind, m.Memory[kind].Bytes>>20)
	}
	total := m.Memory["capacity"].Bytes
	if d := sum - total; d < -total/50 || d > total/50 {
		t.Errorf("the parts add up to %d, the machine has %d", sum, total)
	}
}
