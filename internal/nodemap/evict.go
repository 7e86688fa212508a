// SPDX-License-Identifier: Apache-2.0

package nodemap

import (
	"cmp"
	"slices"

	"github.com/coroner-dev/coroner/internal/api"
)

// systemCritical is the priority from which on the kubelet evicts no pod
// (scheduling.SystemCriticalPriority; types.IsCriticalPod).
const systemCritical = 2_000_000_000

// maxPodsShown bounds the pods that are told of: ten times what a node is made for.
const maxPodsShown = 1100

// pods tells of all pods, in the order in which the kubelet evicts them for
// memory (rankMemoryPressure of pkg/kubelet/eviction/helpers.go, 1.34).
func (b *builder) pods() {
	ranked := len(b.in.Facts.Pods) > 0
	untold := 0
	for i := range b.in.Facts.Pods {
		if i == maxPodsShown {
			b.note("of %d pods only %d are listed", len(b.in.Facts.Pods), maxPodsShown)
			break
		}
		p, told := b.pod(&b.in.Facts.Pods[i])
		if !told {
			ranked = false
			untold++
		}
		b.out.Pods = append(b.out.Pods, p)
	}
	if !ranked {
		if untold > 0 {
			b.note("whom the kubelet would evict first is not known: of %d pods Kubernetes did not tell priority and request", untold)
		}
		slices.SortFunc(b.out.Pods, func(x, y api.NodePod) int {
			return cmp.Or(cmp.Compare(y.WorkingSetBytes, x.WorkingSetBytes), cmp.Compare(x.Cgroup, y.Cgroup))
		})
		return
	}
	rank(b.out.Pods)
}

// rank puts the pods into the kubelet's order and numbers those that it evicts.
func rank(pods []api.NodePod) {
	slices.SortFunc(pods, func(x, y api.NodePod) int {
		return cmp.Or(
			trueFirst(exceeds(&x), exceeds(&y)),
			cmp.Compare(*x.Priority, *y.Priority),
			cmp.Compare(*y.OverRequestBytes, *x.OverRequestBytes),
			cmp.Compare(x.Cgroup, y.Cgroup),
		)
	})
	n := 0
	for i := range pods {
		if !pods[i].Critical {
			n++
			pods[i].EvictionRank = n
		}
	}
}

// exceeds tells whether a pod uses more than it requested: these go first.
func exceeds(p *api.NodePod) bool { return *p.OverRequestBytes > 0 }

func trueFirst(x, y bool) int {
	switch {
	case x == y:
		return 0
	case x:
		return -1
	}
	return 1
}

// pod describes one pod, and says whether Kubernetes told enough to rank it.
func (b *builder) pod(g *Group) (api.NodePod, bool) {
	p := api.NodePod{Pod: *b.podName(g.Is), Cgroup: g.Path, WorkingSetBytes: g.WorkingSetBytes, GrowthBytes: b.grew(g)}
	if p.QoSClass == "" {
		p.QoSClass = g.Is.QoS
	}
	known := b.byUID[g.Is.PodUID]
	if known == nil {
		return p, false
	}
	p.Priority = known.Priority
	p.Critical = g.Is.Static || known.Priority != nil && *known.Priority >= systemCritical
	p.RequestBytes, p.LimitBytes = sums(known)
	if p.RequestBytes != nil {
		p.OverRequestBytes = new(g.WorkingSetBytes - *p.RequestBytes)
	}
	if known.Told && p.Priority == nil {
		p.Priority = new(int32(0)) // as the kubelet takes it
	}
	return p, known.Told && p.RequestBytes != nil
}

// sums gives what a pod requested, else what its containers did, and what they
// may have at most.
func sums(p *Pod) (request, limit *int64) {
	var r, l int64
	bounded := len(p.Containers) > 0
	for i := range p.Containers {
		c := &p.Containers[i]
		if c.RequestBytes != nil {
			r += *c.RequestBytes
		}
		if c.LimitBytes == nil {
			bounded = false
		} else {
			l += *c.LimitBytes
		}
	}
	switch {
	case p.RequestBytes != nil:
		request = p.RequestBytes
	case p.Told || r > 0:
		request = &r
	}
	if bounded {
		limit = &l
	}
	return request, limit
}
