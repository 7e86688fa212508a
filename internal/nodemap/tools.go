// SPDX-License-Identifier: Apache-2.0

package nodemap

import (
	"fmt"
	"math"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

// tools says what other programs show for the same memory, and why they differ.
func (b *builder) tools() {
	b.kubectl()
	m := b.in.Facts.MemInfo
	capacity := m["MemTotal"]
	cache := m["Buffers"] + m["Cached"] + m["SReclaimable"]
	if a := m.Available(); a != nil {
		b.tool("free (used)", capacity-*a, capacity, "capacity",
			"capacity less MemAvailable (procps 4): all that could not be had without swapping, the kernel's own memory too")
	}
	b.tool("free (used), procps 3", capacity-m["MemFree"]-cache, capacity, "capacity",
		"capacity less free, buffers and all page cache: shared memory and tmpfs, which are page cache to the kernel, are missing")
	b.tool("htop", capacity-m["MemFree"]-cache+m["Shmem"], capacity, "capacity",
		"capacity less free, buffers and page cache, with shared memory: the kernel's own memory too, and no page cache, also none in use")
}

func (b *builder) kubectl() {
	used, told := b.get("kubelet_working_set")
	if b.in.Facts.Kubepods == nil || !told {
		return
	}
	why := "what the kubelet takes for used on the whole node (anonymous memory and page cache, less inactive_file): pods, daemons, and page cache in active use, which can be dropped; not most of the kernel's own"
	allocatable, known := b.get("allocatable")
	if known && used > allocatable {
		capacity, _ := b.get("capacity")
		why += fmt.Sprintf(". It is over 100 %% because it is divided by allocatable, which leaves out the %s that are reserved, while what is in use has those who live there: of capacity it is %.0f %%",
			death.FormatBytes(max(0, capacity-allocatable)), percent(used, capacity))
	}
	b.tool("kubectl top node", used, allocatable, "allocatable", why)
	if pods, ok := b.get("pods_working_set"); ok {
		b.tool("kubectl top pod -A (sum)", pods, 0, "",
			"usage less inactive_file of the pods' cgroups, with the kernel's memory that is charged to them; nothing outside of pods. It is up to a minute old there, and leaves out the pods' own sandboxes")
	}
}

func (b *builder) tool(name string, n, of int64, what, why string) {
	t := api.ToolFigure{Tool: name, Bytes: max(0, n), Why: why}
	if of > 0 {
		t.Percent, t.Of = new(math.Round(percent(n, of)*10)/10), what
	}
	b.out.Tools = append(b.out.Tools, t)
}

func percent(n, of int64) float64 {
	if of <= 0 {
		return 0
	}
	return 100 * float64(n) / float64(of)
}
