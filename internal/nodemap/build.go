// SPDX-License-Identifier: Apache-2.0

package nodemap

import (
	"cmp"
	"fmt"
	"os"
	"strings"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
)

// maxShown bounds the cgroups outside of pods that are told of.
const maxShown = 20

// Build makes the map.
func Build(in Input) api.NodeMap {
	b := newBuilder(in)
	b.kubernetes()
	b.figures()
	b.growth()
	b.topGroups()
	b.pods()
	b.orders()
	b.overcommit()
	b.gives()
	b.tools()
	b.advise()
	return b.out
}

type builder struct {
	in   Input
	out  api.NodeMap
	page int64
	// groups are those of the facts, with the processes that are in none.
	groups []Group
	byUID  map[string]*Pod
	byPath map[string]*Container // and by id
	thresholds
}

func newBuilder(in Input) *builder {
	b := &builder{in: in, page: int64(os.Getpagesize()), byUID: map[string]*Pod{}, byPath: map[string]*Container{}}
	b.out = api.NodeMap{Node: in.Node, Time: in.Facts.Time, Memory: map[string]api.NodeFigure{}, Groups: []api.NodeGroup{}}
	for i := range in.Pods {
		p := &in.Pods[i]
		b.byUID[p.UID] = p
		for j := range p.Containers {
			b.index(&p.Containers[j])
		}
	}
	for i := range in.Containers {
		b.index(&in.Containers[i])
	}
	return b
}

func (b *builder) index(c *Container) {
	for _, key := range []string{c.ID, c.Cgroup} {
		if key != "" {
			b.byPath[key] = c
		}
	}
}

func (b *builder) note(format string, args ...any) {
	b.out.Notes = append(b.out.Notes, fmt.Sprintf(format, args...))
}

// set notes a figure.
func (b *builder) set(kind string, n int64, from string) {
	b.out.Memory[kind] = api.NodeFigure{Bytes: n, From: from}
}

// compute notes one that Kubernetes has, and did not tell.
func (b *builder) compute(kind string, n int64, from string) {
	b.out.Memory[kind] = api.NodeFigure{Bytes: n, From: from, Computed: true}
}

func (b *builder) get(kind string) (int64, bool) {
	f, ok := b.out.Memory[kind]
	return f.Bytes, ok
}

// figures fills in what the kernel tells, so that pods, containers, units,
// huge pages, unaccounted, page cache and free add up to the capacity.
func (b *builder) figures() {
	f := &b.in.Facts
	m := f.MemInfo
	b.set("capacity", m["MemTotal"], "MemTotal of /proc/meminfo")
	b.set("free", m["MemFree"]+f.PerCPUFreeBytes, "MemFree of /proc/meminfo, and the free pages that each CPU keeps (/proc/zoneinfo)")
	for kind, key := range map[string]string{
		"available": "MemAvailable", "hugepages": "Hugetlb", "kernel_slab": "SUnreclaim", "kernel_page_tables": "PageTables",
		"kernel_stacks": "KernelStack", "kernel_percpu": "Percpu", "kernel_vmalloc": "VmallocUsed", "swap_capacity": "SwapTotal", "swap_free": "SwapFree",
	} {
		if n, told := m[key]; told && (n > 0 || key == "MemAvailable") {
			b.set(kind, n, key+" of /proc/meminfo")
		}
	}
	if f.Version == 0 {
		b.note("there are no memory cgroups: who holds what is not known")
		return
	}
	if f.Part {
		b.note("only a part of the cgroups is seen from here: what lies outside of it is not told (in a container: --cgroupns host, and the host's cgroup file system)")
		b.groups = f.Groups
		return
	}
	if f.Unread > 0 {
		b.note("%d cgroups were not read: what they hold counts as unaccounted", f.Unread)
	}
	b.shares()
	if f.Kubepods != nil && f.RootUsageBytes != nil && f.InactiveFileBytes != nil {
		used := max(0, *f.RootUsageBytes-*f.InactiveFileBytes)
		b.set("kubelet_working_set", used, "anonymous memory and page cache of the root cgroup, less inactive_file: without most of the kernel's own")
		b.set("kubelet_available", max(0, m["MemTotal"]-used), "capacity less the kubelet's use")
	}
}

// shares parts the memory among those who hold it.
func (b *builder) shares() {
	f := &b.in.Facts
	m := f.MemInfo
	var all, units, containers Group
	for i := range f.Groups {
		g := &f.Groups[i]
		all = all.plus(*g, 1)
		if kindOf(g) == "container" {
			containers = containers.plus(*g, 1)
		} else {
			units = units.plus(*g, 1)
		}
	}
	if k := f.Kubepods; k != nil {
		all = all.plus(*k, 1)
		b.set("pods_working_set", k.WorkingSetBytes, "usage less inactive_file of "+k.Path)
		byQoS := map[string]int64{}
		for i := range f.Pods {
			byQoS[strings.ToLower(f.Pods[i].Is.QoS)] += f.Pods[i].WorkingSetBytes
		}
		for _, qos := range []string{"guaranteed", "burstable", "besteffort"} {
			b.set("pods_"+qos+"_working_set", byQoS[qos], "sum of the pods' cgroups")
		}
		if k.LimitBytes != nil {
			b.set("pods_limit", *k.LimitBytes, "limit of "+k.Path)
		}
	}
	// Processes in no cgroup, and page cache that was read by them or whose cgroup has gone.
	own := Group{Path: "/", Is: cgpath.Path{Level: cgpath.Root}}
	own.HeldBytes = max(0, m["AnonPages"]+m["Shmem"]-all.HeldBytes)
	own.UsageBytes, own.WorkingSetBytes = own.HeldBytes, own.HeldBytes
	b.groups = append(append(b.groups, f.Groups...), own)

	file := max(0, m["Cached"]+m["Buffers"]-m["Shmem"]-all.FileBytes)
	slab := max(0, m["SReclaimable"]-all.SlabBytes)
	reclaimable := all.UsageBytes - all.WorkingSetBytes + file + slab
	units = units.plus(own, 1)
	b.set("containers_working_set", containers.WorkingSetBytes, "sum of the containers' cgroups outside of pods")
	b.set("units_working_set", units.WorkingSetBytes, "sum of the other cgroups outside of pods, and anonymous memory in none")
	b.set("reclaimable", reclaimable, "inactive_file of all cgroups, page cache and reclaimable slab of none")
	rest := m["MemTotal"] - m["MemFree"] - f.PerCPUFreeBytes - m["Hugetlb"] - reclaimable - all.WorkingSetBytes - own.WorkingSetBytes
	b.set("unaccounted", max(0, rest), "capacity less free, huge pages, page cache and what all cgroups hold")
}

// growth adds what has changed since the earlier sample.
func (b *builder) growth() {
	before := b.in.Before
	if before.At.IsZero() || !b.in.Facts.Time.After(before.At) {
		return
	}
	b.out.GrowthSeconds = b.in.Facts.Time.Sub(before.At).Seconds()
	for kind, f := range b.out.Memory {
		if was, ok := before.Kinds[kind]; ok && !fixed(kind) {
			f.GrowthBytes = new(f.Bytes - was)
			b.out.Memory[kind] = f
		}
	}
}

// fixed tells the figures that are settings.
func fixed(kind string) bool {
	switch kind {
	case "capacity", "allocatable", "kube_reserved", "system_reserved", "reserved", "eviction_hard", "eviction_soft", "pods_limit", "swap_capacity":
		return true
	}
	return false
}

// grew is what a cgroup has added since the earlier sample; nil: not known. One
// that was not there began with nothing.
func (b *builder) grew(g *Group) *int64 {
	if b.out.GrowthSeconds == 0 {
		return nil
	}
	return new(g.WorkingSetBytes - b.in.Before.Groups[g.key()])
}

func kindOf(g *Group) string {
	switch l := g.Is.Level; {
	case l == cgpath.Root:
		return "root"
	case l == cgpath.Container, l == cgpath.Pod, l == cgpath.Inside:
		return "container"
	case g.Rest, l == cgpath.Slice:
		return "slice"
	case l == cgpath.Unit, l == cgpath.Monitor:
		return "unit"
	case l == cgpath.Guest:
		return "guest"
	}
	return "cgroup"
}

// topGroups tells of the cgroups outside of pods that hold most, and of those
// that grew most.
func (b *builder) topGroups() {
	gs := append([]Group(nil), b.groups...)
	bySize(gs)
	for i := range gs {
		g := &gs[i]
		grew := b.grew(g)
		if i >= maxShown && (grew == nil || !b.much(*grew)) || g.UsageBytes == 0 {
			continue
		}
		b.out.Groups = append(b.out.Groups, api.NodeGroup{
			Kind: kindOf(g), Name: b.groupName(g), Cgroup: g.Path, WorkingSetBytes: g.WorkingSetBytes, UsageBytes: g.UsageBytes,
			LimitBytes: g.LimitBytes, GrowthBytes: grew,
		})
	}
}

// groupName is what people call a cgroup.
func (b *builder) groupName(g *Group) string {
	switch {
	case g.Is.Level == cgpath.Root:
		return "processes in no cgroup"
	case g.Is.ContainerID != "":
		return b.containerName(g.Is)
	case g.Rest:
		return cmp.Or(g.Is.Unit, g.Path) + " itself"
	}
	return cmp.Or(g.Is.LXC, g.Is.Unit, g.Path)
}

func (b *builder) containerName(is cgpath.Path) string {
	for _, key := range []string{is.ContainerID, is.Cgroup} {
		if c := b.byPath[key]; c != nil && c.Name != "" {
			return c.Name
		}
	}
	return death.ShortID(is.ContainerID)
}

func (b *builder) podName(is cgpath.Path) *death.Pod {
	if p := b.byUID[is.PodUID]; p != nil {
		return &p.Pod
	}
	return &death.Pod{UID: is.PodUID, QoSClass: is.QoS}
}

// Figures are those of the map alone, by their kind.
func Figures(f Facts, k *NodeFacts) map[string]int64 {
	b := newBuilder(Input{Facts: f, Kubernetes: k})
	b.kubernetes()
	b.figures()
	out := make(map[string]int64, len(b.out.Memory))
	for kind, fig := range b.out.Memory {
		out[kind] = fig.Bytes
	}
	return out
}
