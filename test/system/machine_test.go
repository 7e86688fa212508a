// SPDX-License-Identifier: Apache-2.0

//go:build linux

package system

import (
	"fmt"
	"slices"
	"testing"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
)

// TestAgent_GroupKill is S16: memory.oom.group takes the whole container at
// once, and the kernel may name and count its first victim twice.
func TestAgent_GroupKill(t *testing.T) {
	oomtest.Require(t, oomtest.V2)
	r := start(t, everything)
	before := nodeKills(t)
	tree := oomtest.New(t)
	for _, tc := range []struct {
		name     string
		podLimit int64
		boxLimit int64
	}{
		{"at the container's limit", 0, 96 * mib},
		{"at the pod's limit", 96 * mib, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := r.on(t)
			id := oomtest.ContainerID(tc.name)
			pod := oomtest.SystemdPod("burstable", oomtest.PodUID(tc.name))
			if tc.podLimit > 0 {
				tree.Cgroup(pod, oomtest.Limit(tc.podLimit))
			}
			settings := []oomtest.Setting{oomtest.Group()}
			if tc.boxLimit > 0 {
				settings = append(settings, oomtest.Limit(tc.boxLimit))
			}
			box := tree.Cgroup(oomtest.SystemdContainer(pod, id), settings...)
			truth := endGroup(t, box, true)
			r.one(box.Path, func(d *death.Death) error {
				if d.OOM == nil {
					return fmt.Errorf("no OOM record")
				}
				return all(is("subject", d.Subject, death.SubjectContainer), is("dead", deadOf(d), fmt.Sprint(truth)),
					is("group_kill", d.OOM.GroupKill, true), is("events", d.OOM.Events, 1), is("containers", d.OOM.Containers, 1))
			})
		})
	}
	r.balanced(before)
}

// TestAgent_NodeOOM is the machine itself running out: the kernel takes the
// fattest, and the agent lives to tell.
func TestAgent_NodeOOM(t *testing.T) {
	oomtest.Require(t, oomtest.InVM)
	r := start(t, everything)
	before := nodeKills(t)
	tree := oomtest.New(t)
	id := oomtest.ContainerID("node")
	box := tree.Cgroup(oomtest.CgroupfsContainer(oomtest.CgroupfsPod("besteffort", oomtest.PodUID("node")), id))
	p, _ := box.Run(oomtest.Load{Comm: []byte("glutton"), OOMScoreAdj: ptr(1000)})
	r.one(box.Path, func(d *death.Death) error {
		if d.OOM == nil || d.Container == nil {
			return fmt.Errorf("no OOM record or container")
		}
		return all(is("cause", d.Cause, death.OOMNode), is("confidence", d.Confidence, death.Certain),
			is("constraint", d.OOM.Constraint, "CONSTRAINT_NONE"), is("oom_memcg", d.OOM.OOMMemcg, ""),
			is("container", d.Container.ID, id), is("victims", fmt.Sprint(pidsOf(d, death.FateVictim)), fmt.Sprint([]int{p.PID})))
	})
	r.balanced(before)
}

// endGroup has four processes of a cgroup grow until the kernel takes them all,
// and tells their ids.
func endGroup(t *testing.T, box *oomtest.Cgroup, newPIDNS bool) (pids []int) {
	t.Helper()
	idle := oomtest.Load{Comm: []byte("member"), Bytes: oomtest.Idle}
	p := box.Start(oomtest.Load{Comm: []byte("first"), NewPIDNS: newPIDNS, Bytes: oomtest.Idle,
		Children: []oomtest.Load{idle, idle, {Comm: []byte("greedy"), OOMScoreAdj: ptr(1000)}}})
	p.Go()
	p.Wait()
	for i := range p.All {
		if !p.All[i].Ended(patience) {
			t.Fatalf("process %+v lives", p.All[i])
		}
		pids = append(pids, p.All[i].PID)
	}
	slices.Sort(pids)
	return pids
}

// deadOf are the ids of all processes of a death, in order.
func deadOf(d *death.Death) string {
	dead := []int{}
	for _, p := range d.Processes {
		dead = append(dead, p.PID)
	}
	slices.Sort(dead)
	return fmt.Sprint(dead)
}

// TestAgent_NodeOOMGroup is the machine running out where the kubelet has each
// container die as one: its members' lines in the log are those of a machine that
// ran out, too.
func TestAgent_NodeOOMGroup(t *testing.T) {
	oomtest.Require(t, oomtest.InVM, oomtest.V2)
	r := start(t, everything)
	before := nodeKills(t)
	tree := oomtest.New(t)
	id := oomtest.ContainerID("node-group")
	box := tree.Cgroup(oomtest.SystemdContainer(oomtest.SystemdPod("burstable", oomtest.PodUID("node-group")), id), oomtest.Group())
	truth := endGroup(t, box, false) // else the end of its first process is the end of all
	r.one(box.Path, func(d *death.Death) error {
		if d.OOM == nil || d.Container == nil {
			return fmt.Errorf("no OOM record or container")
		}
		return all(is("cause", d.Cause, death.OOMNode), is("constraint", d.OOM.Constraint, "CONSTRAINT_NONE"), is("container", d.Container.ID, id),
			is("dead", deadOf(d), fmt.Sprint(truth)), is("group_kill", d.OOM.GroupKill, true), is("events", d.OOM.Events, 1))
	})
	r.balanced(before)
}

// TestAgent_Cpuset: one NUMA node runs out while another has memory.
func TestAgent_Cpuset(t *testing.T) {
	oomtest.Require(t, oomtest.InVM, oomtest.TwoNodes, oomtest.V2)
	r := start(t, everything)
	tree := oomtest.New(t)
	box := tree.Cgroup("docker/"+oomtest.ContainerID("numa"), oomtest.Mems("1"))
	p, _ := box.Run(oomtest.Load{Comm: []byte("bound"), OOMScoreAdj: ptr(1000)})
	r.one(box.Path, func(d *death.Death) error {
		if d.OOM == nil {
			return fmt.Errorf("no OOM record")
		}
		return all(is("cause", d.Cause, death.OOMCpuset), is("confidence", d.Confidence, death.Certain),
			is("constraint", d.OOM.Constraint, "CONSTRAINT_CPUSET"), is("victims", fmt.Sprint(pidsOf(d, death.FateVictim)), fmt.Sprint([]int{p.PID})))
	})
}
