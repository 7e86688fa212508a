// SPDX-License-Identifier: Apache-2.0

//go:build linux

package oomtest_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/oomtest"
)

const (
	mib    = 1 << 20
	killed = syscall.SIGKILL
)

func TestMain(m *testing.M) { oomtest.Main(m) }

func TestRun_ContainerLimit(t *testing.T) {
	tree := oomtest.New(t)
	node, err := oomtest.NodeOOMKills()
	if err != nil {
		t.Fatal(err)
	}
	uid := oomtest.PodUID("shop")
	box := tree.Cgroup(oomtest.SystemdContainer(oomtest.SystemdPod("burstable", uid), oomtest.ContainerID("web")), oomtest.Limit(32*mib))
	p, end := box.Run(oomtest.Load{Comm: []byte("a) b,c=d \xff"), NewPIDNS: true})
	if end.Signal != killed {
		t.Fatalf("ended by %+v, want SIGKILL", end)
	}
	if got := box.OOMKills(); got != 1 {
		t.Errorf("cgroup's oom_kill = %d, want 1", got)
	}
	if after, err := oomtest.NodeOOMKills(); err != nil || after <= node {
		t.Errorf("machine's oom_kill = %d, want more than %d (%v)", after, node, err)
	}
	if len(p.All) != 1 || p.All[0].PID != p.PID || !p.All[0].Init || p.All[0].Comm != "a) b,c=d \xff" {
		t.Errorf("ledger = %+v", p.All)
	}
	if p.All[0].Cgroup != box.Path || box.Inode() == 0 {
		t.Errorf("cgroup = %q, want %q", p.All[0].Cgroup, box.Path)
	}
}

func TestRun_ChildDiesParentExits(t *testing.T) {
	box := oomtest.New(t).Cgroup("box", oomtest.Limit(48*mib))
	code := 7
	p, end := box.Run(oomtest.Load{Bytes: oomtest.Idle, ExitCode: &code, Children: []oomtest.Load{{Comm: []byte("worker")}}})
	if end.Signal != 0 || end.Code != code {
		t.Errorf("parent ended by %+v, want exit code %d", end, code)
	}
	if len(p.All) != 2 || p.All[1].Comm != "worker" || !p.All[1].Ended(time.Second) {
		t.Errorf("ledger = %+v, want an ended worker", p.All)
	}
}

func TestRun_SharersDieWithTheVictim(t *testing.T) {
	box := oomtest.New(t).Cgroup("box", oomtest.Limit(32*mib))
	p, end := box.Run(oomtest.Load{Sharers: 2})
	if end.Signal != killed || len(p.All) != 3 {
		t.Fatalf("ended by %+v, with %d processes, want SIGKILL and 3", end, len(p.All))
	}
	for _, q := range p.All {
		if !q.Ended(5 * time.Second) {
			t.Errorf("%d (%s) lives on", q.PID, q.Comm)
		}
	}
	if got := box.OOMKills(); got != 1 {
		t.Errorf("oom_kill = %d: the kernel does not count sharers", got)
	}
}

func TestRun_NamespaceDiesWithItsFirstProcess(t *testing.T) {
	box := oomtest.New(t).Cgroup("box", oomtest.Limit(48*mib))
	p, end := box.Run(oomtest.Load{NewPIDNS: true, Children: []oomtest.Load{{Bytes: oomtest.Idle}}})
	if end.Signal != killed || len(p.All) != 2 || !p.All[1].Ended(5*time.Second) {
		t.Errorf("ended by %+v, with %+v", end, p.All)
	}
}

func TestRun_SharedMemoryAndRate(t *testing.T) {
	box := oomtest.New(t).Cgroup("box", oomtest.Limit(24*mib))
	if _, end := box.Run(oomtest.Load{Shared: true, Rate: 256 * mib}); end.Signal != killed {
		t.Errorf("ended by %+v, want SIGKILL", end)
	}
}

func TestRun_GroupKill(t *testing.T) {
	oomtest.Require(t, oomtest.V2)
	box := oomtest.New(t).Cgroup("box", oomtest.Limit(64*mib), oomtest.Group())
	p, end := box.Run(oomtest.Load{Bytes: oomtest.Idle, Children: []oomtest.Load{{}, {Bytes: oomtest.Idle}}})
	if end.Signal != killed || len(p.All) != 3 {
		t.Fatalf("ended by %+v, with %d processes, want SIGKILL and 3", end, len(p.All))
	}
	for _, q := range p.All {
		if !q.Ended(5 * time.Second) {
			t.Errorf("%d (%s) lives on", q.PID, q.Comm)
		}
	}
}

func TestStart_TakesNothingBeforeGo(t *testing.T) {
	box := oomtest.New(t).Cgroup("box", oomtest.Limit(32*mib))
	p := box.Start(oomtest.Load{})
	if got := box.PIDs(); len(got) != 1 || got[0] != p.PID {
		t.Errorf("pids = %v, want %d", got, p.PID)
	}
	if p.All[0].Ended(50 * time.Millisecond) {
		t.Error("it ended before Go")
	}
	p.Kill(syscall.SIGTERM)
	if end := p.Wait(); end.Signal != syscall.SIGTERM && end.Code != 2 {
		t.Errorf("ended by %+v, want SIGTERM", end)
	}
	if got := box.OOMKills(); got != 0 {
		t.Errorf("oom_kill = %d, want 0", got)
	}
}

func TestRun_Cpuset(t *testing.T) {
	oomtest.Require(t, oomtest.InVM, oomtest.TwoNodes)
	box := oomtest.New(t).Cgroup("box", oomtest.Mems("1"))
	if _, end := box.Run(oomtest.Load{}); end.Signal != killed {
		t.Errorf("ended by %+v, want SIGKILL", end)
	}
}

// TestStorm: the book of a storm agrees with the kernel's counters.
func TestStorm(t *testing.T) {
	tree := oomtest.New(t)
	var boxes []*oomtest.Cgroup
	for i := range 10 {
		boxes = append(boxes, tree.Cgroup(fmt.Sprint("box", i), oomtest.Limit(oomtest.StormBytes)))
	}
	const kills = 20
	s := oomtest.StartStorm(t, boxes, kills, 0)
	s.Wait()
	for i, b := range boxes {
		if n := len(s.PIDs(i)); n < kills-2 || b.OOMKills() != uint64(n) || !s.Over(i) {
			t.Errorf("box %d: %d in the book, %d counted, want the same, and %d or nearly", i, n, b.OOMKills(), kills)
		}
	}
}
