// SPDX-License-Identifier: Apache-2.0

package nodemap

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

const (
	// leastGrowth is what must have been added to be called growth; on bigger
	// nodes it is the growthPart-th part of the capacity.
	leastGrowth = 16 << 20
	growthPart  = 256
	// leastHistory is how long must have been looked before it is concluded from:
	// what a start takes is not what goes on.
	leastHistory = time.Minute
	// bigNode is where 100Mi, the kubelet's default, is less than 1 %.
	bigNode = 16 << 30
	// smallPart is the part of the capacity below which a hard threshold is
	// passed before the kubelet has looked.
	smallPart = 0.01
	// looks is how often the kubelet looks (--housekeeping-interval).
	looks = 10 * time.Second
)

// advise says what to do, most useful first.
func (b *builder) advise() {
	b.growing()
	if b.in.Facts.Kubepods == nil {
		return
	}
	capacity, _ := b.get("capacity")
	b.adviseThresholds(capacity)
	b.adviseReserved(capacity)
}

func (b *builder) add(format string, args ...any) {
	b.out.Advice = append(b.out.Advice, fmt.Sprintf(format, args...))
}

// much tells whether so much is growth, on a node of this capacity.
func (b *builder) much(n int64) bool {
	capacity, _ := b.get("capacity")
	return n >= max(leastGrowth, capacity/growthPart)
}

// goesOn tells whether so much growth, nil: it is not known, was seen for long
// enough to be concluded from.
func (b *builder) goesOn(n *int64) bool {
	seen := time.Duration(b.out.GrowthSeconds * float64(time.Second))
	return n != nil && b.much(*n) && seen >= cmp.Or(b.in.LeastHistory, leastHistory)
}

// growing names what grows outside of pods: no pod is to blame for it.
func (b *builder) growing() {
	over := time.Duration(b.out.GrowthSeconds * float64(time.Second)).Round(time.Second)
	if g := b.out.Memory["unaccounted"].GrowthBytes; b.goesOn(g) {
		s := ""
		for _, kind := range []string{"kernel_slab", "kernel_page_tables", "kernel_stacks", "kernel_percpu", "kernel_vmalloc"} {
			if n := b.out.Memory[kind].GrowthBytes; b.goesOn(n) {
				s += fmt.Sprintf("; %s grew by %s", title(kind), death.FormatBytes(*n))
			}
		}
		b.add("Memory that no cgroup has grew by %s in %s%s: no pod and no unit is to blame, but the kernel or a driver (slabtop, /proc/meminfo, /proc/vmallocinfo tell which).",
			death.FormatBytes(*g), over, s)
	}
	for i := range b.out.Groups {
		g := &b.out.Groups[i]
		if b.goesOn(g.GrowthBytes) && g.Kind != "container" {
			b.add("%s, outside of all containers, grew by %s in %s to %s: limit it, or reserve for it.",
				death.Printable(g.Name), death.FormatBytes(*g.GrowthBytes), over, death.FormatBytes(g.WorkingSetBytes))
		}
	}
}

// better is a hard threshold for a node of this size, in whole percent.
func better(capacity int64) (percent int, bytes int64) {
	switch {
	case capacity <= 32<<30:
		percent = 5
	case capacity <= 128<<30:
		percent = 3
	default:
		percent = 2
	}
	return percent, capacity / 100 * int64(percent)
}

func (b *builder) adviseThresholds(capacity int64) {
	if b.hard == nil {
		return
	}
	p, want := better(capacity)
	available, ok1 := b.get("available")
	kubelet, ok2 := b.get("kubelet_available")
	if unseen := kubelet - available; ok1 && ok2 && unseen > *b.hard {
		b.add("The kubelet takes %s for available where the kernel has %s: it does not see most of what the kernel itself holds, so the machine runs out of memory before the hard threshold of %s is reached. Set evictionHard memory.available to more than %s, and find out what the kernel holds.",
			death.FormatBytes(kubelet), death.FormatBytes(available), death.FormatBytes(*b.hard), death.FormatBytes(unseen))
	}
	if float64(*b.hard) < smallPart*float64(capacity) && capacity >= bigNode {
		speed := float64(*b.hard) / looks.Seconds()
		b.add("The hard eviction threshold of %s is %.2f %% of this node: the kubelet looks each 10 s, so pods that together take more than %s a second are met by the OOM killer instead. Set evictionHard memory.available to %d%% (%s here).",
			death.FormatBytes(*b.hard), percent(*b.hard, capacity), death.FormatBytes(int64(speed)), p, death.FormatBytes(want))
	}
	if b.config != nil && b.soft == nil {
		hard := max(*b.hard, want)
		n := math.Ceil(percent(hard, capacity) * 1.5)
		b.add("There is no soft eviction threshold: set evictionSoft memory.available to %.0f%% (%s here), above the hard one, with evictionSoftGracePeriod 1m30s and evictionMaxPodGracePeriod 60, so that pods that grow slowly are ended with their own grace period.",
			n, death.FormatBytes(int64(float64(capacity)*n/100)))
	}
	if b.soft != nil && *b.soft <= *b.hard {
		b.add("The soft eviction threshold of %s is not above the hard one of %s: it never acts. Set it to %s.",
			death.FormatBytes(*b.soft), death.FormatBytes(*b.hard), death.FormatBytes(*b.hard/2*3))
	}
}

// adviseReserved compares what lives outside of pods with what is set aside
// for it.
func (b *builder) adviseReserved(capacity int64) {
	units, ok1 := b.get("units_working_set")
	kernel, ok2 := b.get("unaccounted")
	reserved, known := b.get("reserved")
	if !known && b.config != nil {
		kube, _ := b.get("kube_reserved")
		system, _ := b.get("system_reserved")
		reserved, known = kube+system, true
	}
	containers, _ := b.get("containers_working_set")
	outside := units + kernel + containers
	if !ok1 || !ok2 || !known || outside <= reserved {
		return
	}
	limit := ""
	if n, told := b.get("pods_limit"); told && n+outside > capacity {
		limit = fmt.Sprintf(": the machine runs out of memory %s before all pods reach their limit together", death.FormatBytes(n+outside-capacity))
	}
	b.add("What lives outside of pods holds %s (units %s, containers %s, kernel %s), and %s are reserved for it%s. Set kubeReserved and systemReserved to %s together.",
		death.FormatBytes(outside), death.FormatBytes(units), death.FormatBytes(containers), death.FormatBytes(kernel), death.FormatBytes(reserved), limit,
		death.FormatBytes((outside/10*11+(64<<20))>>26<<26))
}

// title is what people call a kind of figure.
func title(kind string) string {
	for _, k := range api.NodeKinds() {
		if k.ID == kind {
			return k.Title
		}
	}
	return kind
}
