// SPDX-License-Identifier: Apache-2.0

package nodemap

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

// gives lists the lines that use can reach, the nearest first.
func (b *builder) gives() {
	kubelet, told := b.get("kubelet_available")
	if told && b.soft != nil {
		b.give("eviction_soft", kubelet-*b.soft, "kubelet_available", -1, b.evicted("after its grace period"))
	}
	if told && b.hard != nil {
		b.give("eviction_hard", kubelet-*b.hard, "kubelet_available", -1, b.evicted("at once; it looks each 10 s"))
	}
	limit, limited := b.get("pods_limit")
	pods, ok := b.get("pods_working_set")
	if ok && limited && b.hard != nil {
		b.give("eviction_allocatable", limit-pods-*b.hard, "pods_working_set", 1, b.evicted("because all pods together hold more than allocatable; it looks each 10 s"))
	}
	if ok && limited {
		b.give("pods_limit", limit-pods, "pods_working_set", 1, killed(b.out.PodsOOMOrder, "the kernel kills in a pod"))
	}
	if available, ok := b.get("available"); ok {
		b.give("node", available, "available", -1, killed(b.out.OOMOrder, "the kernel kills on the whole node"))
	}
	slices.SortStableFunc(b.out.Gives, func(x, y api.NodeGives) int { return cmp.Compare(x.LeftBytes, y.LeftBytes) })
}

// give adds one line. It comes nearer as kind grows, or shrinks where sign is
// below 0.
func (b *builder) give(what string, left int64, kind string, sign int64, then string) {
	g := api.NodeGives{What: what, LeftBytes: max(0, left), Then: then}
	if grew := b.out.Memory[kind].GrowthBytes; grew != nil && b.goesOn(new(*grew*sign)) {
		g.ETASeconds = new(float64(g.LeftBytes) / float64(*grew*sign) * b.out.GrowthSeconds)
	}
	b.out.Gives = append(b.out.Gives, g)
}

func (b *builder) evicted(when string) string {
	s := "the kubelet evicts a pod " + when
	for i := range b.out.Pods {
		if p := &b.out.Pods[i]; p.EvictionRank == 1 {
			return s + ": first " + podTitle(&p.Pod)
		}
	}
	return s
}

func killed(order []api.OOMCandidate, what string) string {
	if len(order) == 0 {
		return what
	}
	c := &order[0]
	who := fmt.Sprintf("%s (pid %d)", death.Printable(c.Comm), c.PID)
	switch {
	case c.Pod != nil:
		who += " of " + podTitle(c.Pod)
	case c.Container != "":
		who += " of container " + death.Printable(c.Container)
	case c.Unit != "":
		who += " of " + death.Printable(c.Unit)
	}
	return what + ": first " + who
}

func podTitle(p *death.Pod) string {
	if p.Name == "" {
		return "pod " + death.Printable(p.UID)
	}
	return "pod " + death.Printable(p.Namespace+"/"+p.Name)
}

// overcommit adds up what pods may have, and what they were promised.
func (b *builder) overcommit() {
	if b.in.Facts.Kubepods == nil {
		return
	}
	var o api.Overcommit
	for i := range b.in.Facts.Pods {
		p := b.byUID[b.in.Facts.Pods[i].Is.PodUID]
		if p == nil {
			continue
		}
		for j := range p.Containers {
			c := &p.Containers[j]
			o.Containers++
			if c.LimitBytes == nil {
				o.Unlimited++
			} else {
				o.LimitsBytes += *c.LimitBytes
			}
			if c.RequestBytes != nil {
				o.RequestsBytes += *c.RequestBytes
			}
		}
	}
	if o.Containers == 0 {
		return
	}
	allocatable, known := b.get("allocatable")
	if known && allocatable > 0 {
		o.Ratio = float64(o.LimitsBytes) / float64(allocatable)
	}
	o.Summary = b.overcommitted(&o, allocatable)
	b.out.Overcommit = &o
}

// overcommitted says what would give if all containers took what they may.
func (b *builder) overcommitted(o *api.Overcommit, allocatable int64) string {
	s := fmt.Sprintf("the limits of %d containers add up to %s", o.Containers-o.Unlimited, death.FormatBytes(o.LimitsBytes))
	if allocatable > 0 {
		s += fmt.Sprintf(", %.0f %% of allocatable", 100*o.Ratio)
	}
	if o.Unlimited > 0 {
		s += fmt.Sprintf("; of %d more there is none", o.Unlimited)
	}
	if o.Unlimited == 0 && allocatable > 0 && o.LimitsBytes <= allocatable {
		return s + ": all may take what they may at the same time"
	}
	s += ". If all took what they may, "
	capacity, _ := b.get("capacity")
	limit, limited := b.get("pods_limit")
	switch {
	case b.hard != nil:
		return s + "the kubelet would begin to evict first; pods that take it faster than it looks, each 10 s, meet the kernel's OOM killer"
	case limited && limit < capacity:
		return s + fmt.Sprintf("the limit of all pods, %s, would be reached first, and the kernel would kill in a pod", death.FormatBytes(limit))
	}
	return s + "the machine would run out of memory, and the kernel would kill on the whole node"
}
