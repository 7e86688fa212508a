// SPDX-License-Identifier: Apache-2.0

//go:build linux

package system

import (
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
	agentrig "github.com/coroner-dev/coroner/test/rig"
)

// shapes are trees as the kubelet makes them with either driver.
type shape struct {
	pod       func(qos, uid string) string
	container func(pod, id string) string
}

func shapes() map[string]shape {
	return map[string]shape{
		"systemd":  {oomtest.SystemdPod, oomtest.SystemdContainer},
		"cgroupfs": {oomtest.CgroupfsPod, oomtest.CgroupfsContainer},
	}
}

// TestAgent_ContainerLimit is S1 without an engine: a container's first
// process grows over the container's limit.
func TestAgent_ContainerLimit(t *testing.T) {
	quiet(t)
	r := start(t, everything)
	for name, sh := range shapes() {
		t.Run(name, func(t *testing.T) {
			r := r.on(t)
			tree := oomtest.New(t)
			id, uid := oomtest.ContainerID(name), oomtest.PodUID(name)
			box := tree.Cgroup(sh.container(sh.pod("burstable", uid), id), oomtest.Limit(48*mib))
			p, end := box.Run(oomtest.Load{Comm: []byte("leaky"), NewPIDNS: true})
			if end.Signal != syscall.SIGKILL || box.OOMKills() != 1 {
				t.Fatalf("the load ended by %v, the kernel counted %d; want a kill", end.Signal, box.OOMKills())
			}
			d := r.one(box.Path, func(d *death.Death) error {
				if d.Container == nil || d.OOM == nil || d.OOM.LimitBytes == nil || d.Container.Pod == nil || len(d.Processes) != 1 || d.Processes[0].Init == nil {
					return fmt.Errorf("container, pod, limit or process missing")
				}
				return all(
					is("cause", d.Cause, death.OOMContainerLimit), is("confidence", d.Confidence, death.Certain),
					is("subject", d.Subject, death.SubjectContainer),
					is("container", d.Container.ID, id), is("pod", d.Container.Pod.UID, uid), is("qos", d.Container.Pod.QoSClass, "Burstable"),
					is("cgroup", d.Container.Cgroup, box.Path), is("oom_memcg", d.OOM.OOMMemcg, box.Path),
					is("limit", *d.OOM.LimitBytes, 48*mib),
					is("pid", d.Processes[0].PID, p.PID), is("comm", d.Processes[0].Comm, "leaky"), is("init", *d.Processes[0].Init, true),
				)
			})
			if d.Repeat != nil {
				t.Errorf("a first death is told as a repeat: %+v", d.Repeat)
			}
		})
	}
}

// TestAgent_InvisibleKill is S2: a child is OOM-killed, again and again, and
// the first process lives on.
func TestAgent_InvisibleKill(t *testing.T) {
	r := start(t, everything)
	tree := oomtest.New(t)
	id := oomtest.ContainerID("forwarder")
	box := tree.Cgroup("docker/"+id, oomtest.Limit(48*mib))
	first := box.Start(oomtest.Load{Comm: []byte("forwarder"), NewPIDNS: true, Bytes: oomtest.Idle})
	first.Go()
	const kills = 14
	pids := map[int]bool{}
	for range kills {
		w, _ := box.Run(oomtest.Load{Comm: []byte("worker")})
		pids[w.PID] = true
	}
	ds := r.exactly(box.Path, kills, func(ds []death.Death) error {
		for i := range ds {
			d := &ds[i]
			if len(d.Processes) != 1 || d.Container == nil || !pids[d.Processes[0].PID] || d.Processes[0].Init == nil {
				return fmt.Errorf("death %d: not one worker of the container", i)
			}
			if err := all(is("subject", d.Subject, death.SubjectProcess), is("cause", d.Cause, death.OOMContainerLimit),
				is("container", d.Container.ID, id), is("runtime", d.Container.Runtime, "docker")); err != nil {
				return err
			}
		}
		last := ds[kills-1].Repeat
		if last == nil {
			return fmt.Errorf("the last is no repeat")
		}
		return is("repeat count", last.Count, kills)
	})
	if !ds[kills-1].Repeat.First.Equal(ds[0].Time) {
		t.Errorf("repeat begins at %s, want %s", ds[kills-1].Repeat.First, ds[0].Time)
	}
	// The history has a death a moment before the metrics show it.
	r.poll(func() error {
		return is("coroner_oom_kills_total of the container", r.sum("coroner_oom_kills_total", `container="`+id[:12]+`"`), kills)
	})
	if got := r.sum("coroner_container_terminations_total", `container="`+id[:12]+`"`); got != 0 {
		t.Errorf("coroner_container_terminations_total = %v, want 0: it lives", got)
	}
}

// TestAgent_PodLimit is S15 with two containers, and with one whose limit is
// the pod's.
func TestAgent_PodLimit(t *testing.T) {
	quiet(t)
	r := start(t, everything)
	for name, sh := range shapes() {
		t.Run(name+"/two containers", func(t *testing.T) {
			r := r.on(t)
			tree := oomtest.New(t)
			pod := tree.Cgroup(sh.pod("burstable", oomtest.PodUID(name+"2")), oomtest.Limit(96*mib))
			left := tree.Cgroup(sh.container(sh.pod("burstable", oomtest.PodUID(name+"2")), oomtest.ContainerID("left")), oomtest.Limit(80*mib))
			right := tree.Cgroup(sh.container(sh.pod("burstable", oomtest.PodUID(name+"2")), oomtest.ContainerID("right")), oomtest.Limit(80*mib))
			still := left.Start(oomtest.Load{Comm: []byte("still"), Bytes: 40 * mib})
			still.Go()
			r.poll(func() error {
				if n := left.Usage(); n < 40*mib {
					return fmt.Errorf("the quiet container holds %d bytes", n)
				}
				return nil
			})
			p, _ := right.Run(oomtest.Load{Comm: []byte("greedy"), Rate: 200 * mib, OOMScoreAdj: ptr(900)})
			r.one(right.Path, func(d *death.Death) error {
				if d.OOM == nil || d.OOM.LimitBytes == nil || len(d.Processes) == 0 {
					return fmt.Errorf("limit or process missing")
				}
				return all(is("cause", d.Cause, death.OOMPodLimit), is("confidence", d.Confidence, death.Certain),
					is("oom_memcg", d.OOM.OOMMemcg, pod.Path), is("limit", *d.OOM.LimitBytes, 96*mib), is("pid", d.Processes[0].PID, p.PID))
			})
		})
		t.Run(name+"/one container", func(t *testing.T) {
			r := r.on(t)
			tree := oomtest.New(t)
			pod := tree.Cgroup(sh.pod("burstable", oomtest.PodUID(name+"1")), oomtest.Limit(256*mib))
			box := tree.Cgroup(sh.container(sh.pod("burstable", oomtest.PodUID(name+"1")), oomtest.ContainerID("only")), oomtest.Limit(256*mib))
			// The pause process, a neighbour in the pod, tips the pod over first. It can
			// be charged for all pages of the test program itself: some 20 MiB.
			pause := tree.Cgroup(sh.container(sh.pod("burstable", oomtest.PodUID(name+"1")), oomtest.ContainerID("pause"))).
				Start(oomtest.Load{Comm: []byte("pause"), Bytes: oomtest.Idle})
			pause.Go()
			p, _ := box.Run(oomtest.Load{Comm: []byte("leaky"), OOMScoreAdj: ptr(900)})
			r.one(box.Path, func(d *death.Death) error {
				if d.OOM == nil || len(d.Processes) == 0 {
					return fmt.Errorf("process missing")
				}
				return all(is("cause", d.Cause, death.OOMContainerLimit), is("confidence", d.Confidence, death.Certain),
					is("oom_memcg", d.OOM.OOMMemcg, pod.Path), is("pid", d.Processes[0].PID, p.PID))
			})
		})
	}
}

// TestAgent_HigherLimits: kubepods, a QoS group, a slice, a unit.
func TestAgent_HigherLimits(t *testing.T) {
	quiet(t)
	r := start(t, everything)
	uid, id := oomtest.PodUID("high"), oomtest.ContainerID("high")
	for _, tc := range []struct {
		name, limited, victim string
		cause                 death.Cause
		unit                  string
	}{
		{"kubepods", "kubepods.slice", oomtest.SystemdContainer(oomtest.SystemdPod("burstable", uid), id), death.OOMNodeAllocatable, ""},
		{"QoS group", "kubepods/besteffort", oomtest.CgroupfsContainer(oomtest.CgroupfsPod("besteffort", uid), id), death.OOMNodeAllocatable, ""},
		{"slice", "batch.slice", "batch.slice/batch-night.slice/job.service", death.OOMAncestorLimit, "job.service"},
		{"unit", "system.slice/nginx.service", "system.slice/nginx.service", death.OOMAncestorLimit, "nginx.service"},
		{"Docker cgroup parent", "team-a", "team-a/" + id, death.OOMAncestorLimit, ""},
		{"inside a container", "docker/" + id + "/app", "docker/" + id + "/app", death.OOMAncestorLimit, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := r.on(t)
			tree := oomtest.New(t)
			limited := tree.Cgroup(tc.limited, oomtest.Limit(48*mib))
			box := limited
			if tc.victim != tc.limited {
				box = tree.Cgroup(tc.victim)
			}
			p, _ := box.Run(oomtest.Load{Comm: []byte("leaky")})
			r.one(box.Path, func(d *death.Death) error {
				if d.OOM == nil || len(d.Processes) == 0 {
					return fmt.Errorf("process missing")
				}
				return all(is("cause", d.Cause, tc.cause), is("confidence", d.Confidence, death.Certain),
					is("oom_memcg", d.OOM.OOMMemcg, limited.Path), is("unit", d.Unit, tc.unit), is("pid", d.Processes[0].PID, p.PID))
			})
		})
	}
}

// TestAgent_FirstProcessFollows is S3: a child is OOM-killed, and the first
// process leaves with a code of its own.
func TestAgent_FirstProcessFollows(t *testing.T) {
	r := start(t, everything)
	tree := oomtest.New(t)
	box := tree.Cgroup("docker/"+oomtest.ContainerID("s3"), oomtest.Limit(96*mib))
	p, end := box.Run(oomtest.Load{
		Comm: []byte("app"), NewPIDNS: true, Bytes: oomtest.Idle, ExitCode: ptr(3),
		Children: []oomtest.Load{{Comm: []byte("worker")}},
	})
	if end.Code != 3 {
		t.Fatalf("the first process ended with %+v, want exit code 3", end)
	}
	r.one(box.Path, func(d *death.Death) error {
		if d.Exit == nil || d.Exit.Code == nil {
			return fmt.Errorf("exit code missing")
		}
		return all(is("subject", d.Subject, death.SubjectContainer), is("cause", d.Cause, death.OOMContainerLimit),
			is("exit code", *d.Exit.Code, 3), is("killed", fmt.Sprint(pidsOf(d, death.FateVictim)), fmt.Sprint([]int{p.All[1].PID})))
	})
}

// TestAgent_SharedMemoryAndSharers: shmem figures, and processes that share
// the victim's memory and die unseen.
func TestAgent_SharedMemoryAndSharers(t *testing.T) {
	r := start(t, everything)
	tree := oomtest.New(t)
	t.Run("shmem", func(t *testing.T) {
		r := r.on(t)
		box := tree.Cgroup("docker/"+oomtest.ContainerID("shmem"), oomtest.Limit(48*mib))
		p, _ := box.Run(oomtest.Load{Comm: []byte("shm"), Shared: true})
		r.one(box.Path, func(d *death.Death) error {
			if len(d.Processes) == 0 || d.Processes[0].ShmemRSSBytes == nil {
				return fmt.Errorf("shmem figure missing")
			}
			// In the virtual machine the program itself lies on a tmpfs and counts too.
			if n := *d.Processes[0].ShmemRSSBytes; n < 24*mib || n > 64*mib {
				return fmt.Errorf("shmem_rss_bytes = %d, want most of 48 MiB", n)
			}
			return all(is("pid", d.Processes[0].PID, p.PID), is("cause", d.Cause, death.OOMContainerLimit))
		})
	})
	t.Run("sharers", func(t *testing.T) {
		r := r.on(t)
		box := tree.Cgroup("docker/"+oomtest.ContainerID("sharers"), oomtest.Limit(48*mib))
		p, _ := box.Run(oomtest.Load{Comm: []byte("app"), Sharers: 2})
		truth := []int{}
		for i := range p.All {
			truth = append(truth, p.All[i].PID)
			if !p.All[i].Ended(patience) {
				t.Fatalf("process %d of %v lives", p.All[i].PID, p.All)
			}
		}
		slices.Sort(truth)
		// Which of those that share the memory the kernel names is its choice.
		r.one(box.Path, func(d *death.Death) error {
			victims, sharers := pidsOf(d, death.FateVictim), pidsOf(d, death.FateSharer)
			dead := slices.Concat(victims, sharers)
			slices.Sort(dead)
			return all(is("victims", len(victims), 1), is("dead", fmt.Sprint(dead), fmt.Sprint(truth)))
		})
	})
}

// TestAgent_KilledBySomebody is S10 without an engine.
func TestAgent_KilledBySomebody(t *testing.T) {
	r := start(t, everything)
	tree := oomtest.New(t)
	box := tree.Cgroup("docker/"+oomtest.ContainerID("s10"), oomtest.Limit(96*mib))
	p := box.Start(oomtest.Load{Comm: []byte("app"), NewPIDNS: true, Bytes: oomtest.Idle, Children: []oomtest.Load{{Comm: []byte("child"), Bytes: oomtest.Idle}}})
	p.Go()
	p.Kill(syscall.SIGKILL)
	p.Wait()
	r.one(box.Path, func(d *death.Death) error {
		if d.Killer == nil || d.Container == nil {
			return fmt.Errorf("killer or container missing")
		}
		return all(is("cause", d.Cause, death.Killed), is("confidence", d.Confidence, death.Certain), is("subject", d.Subject, death.SubjectContainer),
			is("killer", d.Killer.PID, syscall.Getpid()), is("signal", d.Killer.Signal, 9), is("OOM kills", d.OOMKills(), 0))
	})
}

// TestAgent_KillsOfOthersAreNoDeaths: a SIGKILL to a process that is no
// container's first.
func TestAgent_KillsOfOthersAreNoDeaths(t *testing.T) {
	r := start(t, everything)
	tree := oomtest.New(t)
	box := tree.Cgroup("docker/"+oomtest.ContainerID("others"), oomtest.Limit(64*mib))
	p := box.Start(oomtest.Load{Comm: []byte("worker"), Bytes: oomtest.Idle})
	p.Go()
	p.Kill(syscall.SIGKILL)
	p.Wait()
	// A kill that is a death, after it: when that is told, the first was judged.
	mark := tree.Cgroup("docker/"+oomtest.ContainerID("mark"), oomtest.Limit(48*mib))
	mark.Run(oomtest.Load{Comm: []byte("mark")})
	r.one(mark.Path, func(*death.Death) error { return nil })
	if ds := r.below(box.Path); len(ds) != 0 {
		t.Errorf("deaths:\n%s", agentrig.Sketch(ds))
	}
}

// TestAgent_Counts holds sequential and parallel kills, and cgroups removed at
// once, against the kernel's own counters.
func TestAgent_Counts(t *testing.T) {
	type situation struct {
		name  string
		setup func(*agent.Options)
		// blind: victims may not be placed, above all of removed cgroups.
		blind bool
	}
	situations := []situation{
		{"all sources", everything, false},
		{"bpf and counters", func(o *agent.Options) { o.Source.Kmsg = false; o.Source.TracepointMode = "bpf" }, false},
		{"tracefs and counters", func(o *agent.Options) { o.Source.Kmsg = false; o.Source.TracepointMode = "tracefs" }, true},
	}
	sequential, parallel, removed := 100, 50, 20
	if testing.Short() { // an emulated machine takes half a second for each kill
		sequential, parallel, removed = 20, 10, 5
		situations = situations[:1]
	}
	for _, tc := range situations {
		t.Run(tc.name, func(t *testing.T) {
			r := start(t, tc.setup)
			before := nodeKills(t)
			tree := oomtest.New(t)
			t.Run("sequential", func(t *testing.T) {
				r := r.on(t)
				box := tree.Cgroup("docker/"+oomtest.ContainerID("seq"), oomtest.Limit(48*mib))
				pids := map[int]bool{0: tc.blind}
				for range sequential {
					p, _ := box.Run(oomtest.Load{Comm: []byte("seq")})
					pids[p.PID] = true
				}
				r.exactly(box.Path, sequential, func(ds []death.Death) error { return theirs(ds, pids, tc.blind) })
			})
			t.Run("parallel", func(t *testing.T) {
				r := r.on(t)
				boxes := make([]*oomtest.Cgroup, parallel)
				loads := make([]*oomtest.Process, parallel)
				for i := range boxes {
					boxes[i] = tree.Cgroup(fmt.Sprintf("docker/%s", oomtest.ContainerID(fmt.Sprint("par", i))), oomtest.Limit(48*mib))
					loads[i] = boxes[i].Start(oomtest.Load{Comm: []byte("par")})
				}
				for _, l := range loads {
					l.Go()
				}
				for i, l := range loads {
					l.Wait()
					if n := boxes[i].OOMKills(); n != 1 {
						t.Fatalf("the kernel counted %d in %s, want 1", n, boxes[i].Path)
					}
				}
				r.poll(func() error { return placed(r, boxes, loads, tc.blind) })
			})
			t.Run("removed at once", func(t *testing.T) {
				r := r.on(t)
				if tc.blind {
					return // the next subtest's audit still counts these out
				}
				for i := range removed {
					box := tree.Cgroup("docker/"+oomtest.ContainerID(fmt.Sprint("gone", i)), oomtest.Limit(48*mib))
					p, _ := box.Run(oomtest.Load{Comm: []byte("gone")})
					box.Remove()
					r.one(box.Path, func(d *death.Death) error {
						return is("pids", fmt.Sprint(pidsOf(d, death.FateVictim)), fmt.Sprint([]int{p.PID}))
					})
				}
			})
			r.balanced(before)
		})
	}
}

// placed wants one death in each box, of its load; where the source is blind,
// which of the loads it was may be not known.
func placed(r *rig, boxes []*oomtest.Cgroup, loads []*oomtest.Process, blind bool) error {
	in := map[string][]int{}
	for d, err := range r.client.All(r.t.Context(), api.Query{Since: r.began}) {
		if err != nil {
			return err
		}
		in[cgroupOf(&d)] = append(in[cgroupOf(&d)], pidsOf(&d, death.FateVictim)...)
	}
	for i, box := range boxes {
		if got := in[box.Path]; len(got) != 1 || got[0] != loads[i].PID && (!blind || got[0] != 0) {
			return fmt.Errorf("pids %v died in %s, want %d", got, box.Path, loads[i].PID)
		}
	}
	return nil
}

// placedOrNot wants one death of p, in its box or in none that is known.
func placedOrNot(r *rig, box *oomtest.Cgroup, p *oomtest.Process) error {
	found := 0
	for d, err := range r.client.All(r.t.Context(), api.Query{Since: r.began}) {
		if err != nil {
			return err
		}
		if !slices.Contains(pidsOf(&d, death.FateVictim), p.PID) {
			continue
		}
		found++
		if at := cgroupOf(&d); at != box.Path && at != "" {
			return fmt.Errorf("pid %d died in %q, want %q", p.PID, at, box.Path)
		}
	}
	return is("deaths of the process", found, 1)
}

// theirs wants a death for each of these processes; where the source is blind,
// up to a fifth may have no name, and none has another's.
func theirs(ds []death.Death, pids map[int]bool, blind bool) error {
	var named []death.Death
	for _, d := range ds {
		for _, pid := range pidsOf(&d, death.FateVictim) {
			if !pids[pid] {
				return fmt.Errorf("pid %d did not die there", pid)
			}
			if !blind || pid != 0 {
				named = append(named, d)
			}
		}
	}
	if len(named)*5 < len(ds)*4 {
		return fmt.Errorf("%d of %d have a name", len(named), len(ds))
	}
	return distinct(named)
}

func distinct(ds []death.Death) error {
	seen := map[int]bool{}
	for i := range ds {
		for _, pid := range pidsOf(&ds[i], death.FateVictim) {
			if seen[pid] {
				return fmt.Errorf("pid %d twice", pid)
			}
			seen[pid] = true
		}
	}
	return is("pids", len(seen), len(ds))
}

// TestAgent_EachSourceAlone: every source tells of a kill by itself, and does
// not say more than it can know.
func TestAgent_EachSourceAlone(t *testing.T) {
	for _, tc := range []struct {
		name       string
		setup      func(*agent.Options)
		pid        bool
		init       bool
		confidence death.Confidence
		blind      bool
	}{
		// Where oom_kill_process can be traced the kernel itself names the limit.
		{"bpf", alone(death.SourceTracepoint, "bpf"), true, true, bpfConfidence(), false},
		{"tracefs", alone(death.SourceTracepoint, "tracefs"), true, false, "", true},
		{"kmsg", alone(death.SourceKmsg, ""), true, false, death.Certain, false},
		{"cgroup", alone(death.SourceCgroup, ""), false, false, death.Possible, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.name == "kmsg" {
				quiet(t)
			}
			r := start(t, tc.setup)
			tree := oomtest.New(t)
			box := tree.Cgroup("docker/"+oomtest.ContainerID("alone"+tc.name), oomtest.Limit(48*mib))
			p, _ := box.Run(oomtest.Load{Comm: []byte("leaky"), NewPIDNS: true})
			if tc.blind {
				// Its cgroup is looked up after the kill: not known is allowed, wrong is not.
				r.poll(func() error { return placedOrNot(r, box, p) })
				return
			}
			r.one(box.Path, func(d *death.Death) error {
				if len(d.Processes) != 1 {
					return fmt.Errorf("%d processes, want 1", len(d.Processes))
				}
				v := d.Processes[0]
				pid := 0
				if tc.pid {
					pid = p.PID
				}
				if d.Confidence != tc.confidence {
					return fmt.Errorf("confidence %s, want %s", d.Confidence, tc.confidence)
				}
				if tc.init && (v.Init == nil || !*v.Init) {
					return fmt.Errorf("the first process is not known as such")
				}
				return all(is("cause", d.Cause, death.OOMContainerLimit), is("pid", v.PID, pid))
			})
		})
	}
}

// TestAgent_EachSubset: any sources together tell one kill as one death.
func TestAgent_EachSubset(t *testing.T) {
	for _, on := range [][]death.Source{
		{death.SourceTracepoint, death.SourceKmsg},
		{death.SourceTracepoint, death.SourceCgroup},
		{death.SourceKmsg, death.SourceCgroup},
	} {
		t.Run(fmt.Sprint(on), func(t *testing.T) {
			r := start(t, func(o *agent.Options) {
				o.Source.Tracepoint = slices.Contains(on, death.SourceTracepoint)
				o.Source.Kmsg = slices.Contains(on, death.SourceKmsg)
				o.Source.Cgroup = slices.Contains(on, death.SourceCgroup)
			})
			tree := oomtest.New(t)
			box := tree.Cgroup("docker/"+oomtest.ContainerID(fmt.Sprint(on)), oomtest.Limit(48*mib))
			p, _ := box.Run(oomtest.Load{Comm: []byte("leaky"), NewPIDNS: true})
			r.one(box.Path, func(d *death.Death) error {
				// Told by the kernel, or, in a rate-limited moment, by what is known of the limits.
				if d.Confidence == death.Possible {
					return fmt.Errorf("confidence %s", d.Confidence)
				}
				return all(is("cause", d.Cause, death.OOMContainerLimit), is("OOM kills", d.OOMKills(), 1),
					is("victims", fmt.Sprint(pidsOf(d, death.FateVictim)), fmt.Sprint([]int{p.PID})))
			})
		})
	}
}

// TestAgent_Collateral: what dies with the pid namespace of an OOM-killed
// first process belongs to that death, and is no OOM kill.
func TestAgent_Collateral(t *testing.T) {
	r := start(t, everything)
	tree := oomtest.New(t)
	box := tree.Cgroup("docker/"+oomtest.ContainerID("collateral"), oomtest.Limit(96*mib))
	idle := oomtest.Load{Comm: []byte("bystander"), Bytes: oomtest.Idle}
	p, _ := box.Run(oomtest.Load{Comm: []byte("first"), NewPIDNS: true, OOMScoreAdj: ptr(900), Children: []oomtest.Load{idle, idle}})
	var bystanders []int
	for i := range p.All[1:] {
		if !p.All[1+i].Ended(patience) {
			t.Fatalf("process %+v lives", p.All[1+i])
		}
		bystanders = append(bystanders, p.All[1+i].PID)
	}
	slices.Sort(bystanders)
	r.one(box.Path, func(d *death.Death) error {
		return all(is("subject", d.Subject, death.SubjectContainer), is("OOM kills", d.OOMKills(), 1),
			is("victims", fmt.Sprint(pidsOf(d, death.FateVictim)), fmt.Sprint([]int{p.PID})),
			is("collateral", fmt.Sprint(pidsOf(d, death.FateCollateral)), fmt.Sprint(bystanders)))
	})
}

// bpfConfidence is what BPF alone can give: certain in the virtual machines,
// whose kernels let oom_kill_process be traced.
func bpfConfidence() death.Confidence {
	if oomtest.Has(oomtest.InVM) {
		return death.Certain
	}
	return death.Probable
}

// quiet waits until the kernel gives the context of its reports again.
func quiet(t *testing.T) {
	t.Helper()
	pass(t, contextGap)
}

// TestAgent_RestartDoublesNothing: a clean restart keeps every death, reads
// the kernel's log again, and counts nothing twice.
func TestAgent_RestartDoublesNothing(t *testing.T) {
	history := t.TempDir() + "/deaths.db"
	keep := func(o *agent.Options) { o.History.Path = history }
	r := start(t, keep)
	tree := oomtest.New(t)
	box := tree.Cgroup("docker/"+oomtest.ContainerID("restart"), oomtest.Limit(48*mib))
	for range 3 {
		box.Run(oomtest.Load{Comm: []byte("again")})
	}
	before := r.exactly(box.Path, 3, distinct)
	began := r.began
	r.stop()
	// One more while nobody watches: the log still has it.
	missed, _ := box.Run(oomtest.Load{Comm: []byte("missed")})
	r = start(t, keep)
	r.began = began
	after := r.exactly(box.Path, 4, distinct)
	for i := range before {
		if after[i].ID != before[i].ID {
			t.Errorf("death %d changed its id from %s to %s", i, before[i].ID, after[i].ID)
		}
	}
	last := after[3]
	if !last.Recovered || fmt.Sprint(pidsOf(&last, death.FateVictim)) != fmt.Sprint([]int{missed.PID}) {
		t.Errorf("the kill while the agent was down: recovered %v\n%s", last.Recovered, agentrig.Sketch(after[3:]))
	}
}

func ptr[T any](v T) *T { return &v }
