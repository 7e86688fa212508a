// SPDX-License-Identifier: Apache-2.0

//go:build linux

package systemd

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
)

// Where test/run puts things into the machine.
const (
	builtBinary = "/test/coroner"
	builtUnits  = "/test/systemd"
	installed   = "/usr/local/bin/coroner"
	unitFolder  = "/etc/systemd/system"
	group       = "/sys/fs/cgroup/system.slice/coroner.service"
	patience    = time.Minute
)

// TestUnit_NodeOOM is S17: the machine runs out of memory, again and again,
// with the agent running as its unit will run it.
func TestUnit_NodeOOM(t *testing.T) {
	install(t)
	noThrashing(t)
	before := show(t)
	t.Logf("started as pid %s, %s bytes", before["MainPID"], before["MemoryCurrent"])
	limits(t)
	status := agentStatus(t)
	for _, s := range status.Sources {
		if !s.Absent && (!s.Up || s.Reason != "") {
			t.Errorf("source %s under the unit: up %v, mode %q, %s", s.Name, s.Up, s.Mode, s.Reason)
		}
		if s.Name == death.SourceTracepoint && s.Mode != "bpf" {
			t.Errorf("tracepoints by %s, want bpf", s.Mode)
		}
	}
	if status.History.Error != "" || status.History.Path == ":memory:" {
		t.Errorf("history %s: %s", status.History.Path, status.History.Error)
	}
	tree := oomtest.New(t)
	for round := range 3 {
		began := time.Now()
		id, uid := oomtest.ContainerID(fmt.Sprint("node", round)), oomtest.PodUID("node")
		box := tree.Cgroup(oomtest.CgroupfsContainer(oomtest.CgroupfsPod("besteffort", uid), id))
		score := 1000
		p, end := box.Run(oomtest.Load{Comm: []byte("glutton"), OOMScoreAdj: &score})
		if end.Signal != syscall.SIGKILL || box.OOMKills() != 1 {
			t.Fatalf("round %d: the load ended by %v, the kernel counted %d; want a kill", round, end.Signal, box.OOMKills())
		}
		killed := time.Since(began)
		named(t, box.Path, id, p.PID)
		t.Logf("round %d: killed after %.1f s, named after %.1f s", round, killed.Seconds(), time.Since(began).Seconds())
	}
	after := show(t)
	for _, key := range []string{"MainPID", "NRestarts", "ActiveState", "InvocationID"} {
		if before[key] != after[key] {
			t.Errorf("%s was %s, is %s", key, before[key], after[key])
		}
	}
	bounded(t)
	if n := agentStatus(t).UnattributedOOMKills; n == nil || *n != 0 {
		t.Errorf("unattributed kills: %v, want 0", n)
	}
}

// noThrashing lets the kernel call the OOM killer once it would have to take
// what was used within the last second (since 6.1). Else an emulated machine
// reads its programs from the disk again and again, for minutes.
func noThrashing(t *testing.T) {
	t.Helper()
	for _, s := range [][2]string{{"enabled", "y"}, {"min_ttl_ms", "1000"}} {
		if err := os.WriteFile("/sys/kernel/mm/lru_gen/"+s[0], []byte(s[1]), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnit_WithTracefs: the drop-in for kernels that take no programs.
func TestUnit_WithTracefs(t *testing.T) {
	install(t)
	dir := filepath.Join(unitFolder, "coroner.service.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	copyTo(t, filepath.Join(builtUnits, "tracefs.conf"), filepath.Join(dir, "tracefs.conf"), 0o644)
	run(t, "systemctl", "daemon-reload")
	run(t, "systemctl", "restart", "coroner.service")
	for _, s := range agentStatus(t).Sources {
		if !s.Absent && !s.Up || s.Name == death.SourceTracepoint && s.Mode != "tracefs" {
			t.Errorf("source %s with the drop-in: up %v, mode %q, %s", s.Name, s.Up, s.Mode, s.Reason)
		}
	}
	tree := oomtest.New(t)
	id := oomtest.ContainerID("tracefs")
	box := tree.Cgroup("docker/"+id, oomtest.Limit(48<<20))
	score := 0 // not the test's own, which is spared
	p, _ := box.Run(oomtest.Load{Comm: []byte("leaky"), OOMScoreAdj: &score})
	d := lists(t, func(d *death.Death) bool { return len(d.Processes) > 0 && d.Processes[0].PID == p.PID })
	if d.Cause != death.OOMContainerLimit {
		t.Errorf("cause %s, want %s", d.Cause, death.OOMContainerLimit)
	}
}

// install does what the README says.
func install(t *testing.T) {
	t.Helper()
	oomtest.Require(t, oomtest.InVM, oomtest.V2)
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skipf("needs a machine that this one is not: no systemd runs: %v", err)
	}
	copyTo(t, builtBinary, installed, 0o755)
	copyTo(t, filepath.Join(builtUnits, "coroner.service"), filepath.Join(unitFolder, "coroner.service"), 0o644)
	run(t, "systemctl", "daemon-reload")
	run(t, "systemctl", "enable", "--now", "coroner.service")
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(run(t, "systemctl", "status", "--full", "--no-pager", "--lines=100", "coroner.service"))
		}
	})
	if s := show(t); s["ActiveState"] != "active" || s["NRestarts"] != "0" {
		t.Fatalf("the unit after its start: %v", s)
	}
}

func copyTo(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.Close() }()
	_ = os.Remove(to) // it may run
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(dst, src)
	if cerr := dst.Close(); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	c := exec.Command(name, args...)
	var complaints strings.Builder
	c.Stderr = &complaints
	out, err := c.Output()
	if err != nil && !slices.Contains(args, "status") {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, &complaints)
	}
	return string(out)
}

// show are the unit's properties, as systemd has them.
func show(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(run(t, "systemctl", "show", "coroner.service")) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		out[key] = value
	}
	return out
}

// limits checks that the kernel has what the unit says, and that the agent
// keeps Go's heap below it.
func limits(t *testing.T) {
	t.Helper()
	path := filepath.Join(unitFolder, "coroner.service")
	for file, key := range map[string]string{"memory.max": "MemoryMax", "memory.high": "MemoryHigh"} {
		if got, want := number(t, file), mebibytes(t, setting(t, path, key)); got != want {
			t.Errorf("%s is %d, the unit's %s is %d", file, got, key, want)
		}
	}
	pid := show(t)["MainPID"]
	adj, err := os.ReadFile("/proc/" + pid + "/oom_score_adj")
	if err != nil || strings.TrimSpace(string(adj)) != setting(t, path, "OOMScoreAdjust") {
		t.Errorf("oom_score_adj is %s (%v)", adj, err)
	}
	if status, err := os.ReadFile("/proc/" + pid + "/status"); err != nil || !regexp.MustCompile(`VmLck:\s+[1-9]`).Match(status) {
		t.Errorf("the agent does not keep its own text in memory (%v):\n%s", err, status)
	}
	journal := run(t, "journalctl", "--no-pager", "-u", "coroner.service")
	want := fmt.Sprintf("go_limit_bytes=%d", mebibytes(t, setting(t, path, "MemoryHigh"))/5*4)
	if !strings.Contains(journal, want) {
		t.Errorf("the agent does not say %s:\n%s", want, journal)
	}
}

// bounded checks the kernel's own figures of the agent's memory.
func bounded(t *testing.T) {
	t.Helper()
	peak, limit := number(t, "memory.peak"), number(t, "memory.max")
	t.Logf("memory.current %d, memory.peak %d, memory.max %d", number(t, "memory.current"), peak, limit)
	if peak >= limit {
		t.Errorf("memory.peak is %d, memory.max %d", peak, limit)
	}
	events, err := os.ReadFile(filepath.Join(group, "memory.events"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(events)) {
		switch key, n, _ := strings.Cut(strings.TrimSpace(line), " "); key {
		case "max", "oom", "oom_kill":
			if n != "0" {
				t.Errorf("memory.events of the agent: %s %s", key, n)
			}
		}
	}
}

func number(t *testing.T, file string) int64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(group, file))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// named waits until "coroner list" tells of the node's OOM kill as it was.
func named(t *testing.T, cgroup, id string, pid int) {
	t.Helper()
	d := lists(t, func(d *death.Death) bool {
		return d.OOM != nil && d.OOM.TaskMemcg == cgroup && d.OOM.Constraint != "" && d.Cause == death.OOMNode
	})
	victims := []int{}
	for _, p := range d.Processes {
		victims = append(victims, p.PID)
	}
	if d.Confidence != death.Certain || d.Container == nil || d.Container.ID != id || !slices.Equal(victims, []int{pid}) ||
		d.OOM.Constraint != "CONSTRAINT_NONE" || d.OOM.OOMMemcg != "" {
		t.Errorf("the death of pid %d in %s is told as %s: %s, victims %v, container %+v, OOM %+v",
			pid, cgroup, d.Confidence, d.Summary, victims, d.Container, d.OOM)
	}
}

// lists waits until "coroner list -o json" has one death that is wanted.
func lists(t *testing.T, want func(*death.Death) bool) death.Death {
	t.Helper()
	var found []death.Death
	var out string
	err := oomtest.Poll(patience, func() error {
		out = run(t, installed, "list", "-o", "json")
		var page struct{ Deaths []death.Death }
		if err := json.Unmarshal([]byte(out), &page); err != nil {
			return err
		}
		found = slices.DeleteFunc(page.Deaths, func(d death.Death) bool { return !want(&d) })
		if len(found) != 1 {
			return fmt.Errorf("%d deaths as wanted, of %d", len(found), len(page.Deaths))
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return found[0]
}

func agentStatus(t *testing.T) api.Status {
	t.Helper()
	client, err := api.NewClient("http://127.0.0.1:3001", nil)
	if err != nil {
		t.Fatal(err)
	}
	st, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}
