// SPDX-License-Identifier: Apache-2.0

package web

import (
	"fmt"

	"github.com/coroner-dev/coroner/internal/death"
)

// usage is the picture of what filled the memory of the cgroup whose limit
// was reached.
type usage struct {
	Usage, Limit *int64
	// Percent is usage of limit, where both are known.
	Percent string
	Parts   []part
}

// part is one kind of memory: a piece of the bar, in thousandths of its length.
type part struct {
	Name, Meaning, Class string
	Bytes                int64
	X, Width             int
}

// barLength is the bar's length in the picture's own units.
const barLength = 1000

// memoryUse makes the picture from the kernel's figures: names of cgroup v2,
// then of v1. Nil: the kernel gave none.
func memoryUse(o *death.OOM) *usage {
	u := &usage{Usage: o.UsageBytes, Limit: o.LimitBytes}
	if u.Usage != nil && u.Limit != nil && *u.Limit > 0 {
		u.Percent = fmt.Sprintf("%.0f %%", 100*float64(*u.Usage)/float64(*u.Limit))
	}
	parts := partsOf(o.MemoryStat)
	var sum int64
	for _, p := range parts {
		sum += p.Bytes
	}
	if sum == 0 && u.Usage == nil && u.Limit == nil {
		return nil
	}
	whole := sum
	for _, p := range []*int64{u.Usage, u.Limit} {
		if p != nil {
			whole = max(whole, *p)
		}
	}
	u.Parts = drawn(parts, whole)
	if len(u.Parts) == 0 && u.Usage != nil && whole > 0 {
		u.Parts = []part{{"used", "the kernel did not say by what", "anon", *u.Usage, 0, int(float64(*u.Usage) / float64(whole) * barLength)}}
	}
	return u
}

// partsOf sorts the counters into the kinds of memory that people know.
func partsOf(stat map[string]int64) []part {
	first := func(names ...string) int64 {
		for _, n := range names {
			if v := stat[n]; v > 0 {
				return v
			}
		}
		return 0
	}
	shmem := first("shmem")
	kernel := first("kernel")
	if kernel == 0 {
		for _, n := range []string{"slab", "kernel_stack", "pagetables", "percpu", "sock"} {
			kernel += max(stat[n], 0)
		}
	}
	return []part{
		{"anonymous", "heap, stacks and other memory of the processes themselves", "anon", first("anon", "total_rss", "rss"), 0, 0},
		{"shared memory", "tmpfs files and shared memory; it stays until it is deleted", "shmem", shmem, 0, 0},
		{"files", "page cache, which the kernel drops first", "file", max(first("file", "total_cache", "cache")-shmem, 0), 0, 0},
		{"kernel", "slab, stacks, page tables and sockets", "kernel", kernel, 0, 0},
	}
}

// drawn places the parts that are not empty along the bar.
func drawn(parts []part, whole int64) []part {
	var out []part
	x := 0
	for _, p := range parts {
		if p.Bytes == 0 {
			continue
		}
		p.X, p.Width = x, max(int(float64(p.Bytes)/float64(whole)*barLength), 2)
		x += p.Width
		out = append(out, p)
	}
	return out
}
