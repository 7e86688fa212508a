// SPDX-License-Identifier: Apache-2.0

package nodemap

import "github.com/coroner-dev/coroner/internal/api"

// thresholds are where the kubelet begins to evict, as far as that is known.
type thresholds struct {
	hard, soft *int64
	config     *KubeletConfig
}

// kubernetes fills in what Kubernetes sets: what it says itself, else what
// follows from the limit of all pods and from the Node object.
func (b *builder) kubernetes() {
	k := b.in.Kubernetes
	if k == nil {
		k = &NodeFacts{}
	}
	capacity := b.in.Facts.MemInfo["MemTotal"]
	if k.CapacityBytes != nil {
		capacity = *k.CapacityBytes
	}
	if k.AllocatableBytes != nil {
		b.set("allocatable", *k.AllocatableBytes, "status of the Node object")
	}
	if k.Kubelet != nil {
		b.configured(k.Kubelet, capacity)
		return
	}
	// What is set aside for huge pages is missing in allocatable, and not in the
	// limit of all pods (pkg/kubelet/nodestatus/setters.go).
	huge := b.in.Facts.MemInfo["Hugetlb"]
	var limit *int64
	if p := b.in.Facts.Kubepods; p != nil {
		limit = p.LimitBytes
		why := k.KubeletWhy
		if why == "" {
			why = "nobody asked it"
		}
		b.note("the kubelet's own settings are not known (%s): what it reserves, and where it evicts, is computed from the limit of all pods and the Node object; a soft threshold is not seen", why)
	}
	switch {
	case limit != nil && *limit <= capacity:
		b.compute("reserved", capacity-*limit, "capacity less the limit of all pods")
		if n := k.AllocatableBytes; n != nil && *limit > *n+huge {
			hard := *limit - *n - huge
			b.threshold("hard", nil, hard, 0)
			b.compute("eviction_hard", hard, "limit of all pods less allocatable and huge pages")
		}
	case k.AllocatableBytes != nil:
		b.compute("reserved", max(0, capacity-*k.AllocatableBytes-huge), "capacity less allocatable and huge pages: with the hard eviction threshold")
	}
}

// configured fills in what the kubelet's configuration says.
func (b *builder) configured(c *KubeletConfig, capacity int64) {
	const from = "the kubelet's configuration"
	b.config = c
	reserved := int64(0)
	for kind, n := range map[string]*int64{"kube_reserved": c.KubeReservedBytes, "system_reserved": c.SystemReservedBytes} {
		if n != nil {
			b.set(kind, *n, from)
			reserved += *n
		}
	}
	if c.Hard != nil {
		n := c.Hard.Of(capacity)
		b.threshold("hard", c.Hard, n, 0)
		b.set("eviction_hard", n, from)
		reserved += n
	}
	if c.Soft != nil {
		n := c.Soft.Of(capacity)
		b.threshold("soft", c.Soft, n, c.SoftGrace.Seconds())
		b.set("eviction_soft", n, from)
	}
	if _, told := b.get("allocatable"); !told {
		b.compute("allocatable", max(0, capacity-reserved-b.in.Facts.MemInfo["Hugetlb"]), "capacity less what is reserved, the hard eviction threshold and huge pages")
	}
}

func (b *builder) threshold(kind string, t *Threshold, n int64, grace float64) {
	e := api.EvictionThreshold{Kind: kind, Bytes: n, GraceSeconds: grace, Computed: t == nil}
	if t != nil {
		e.Setting = t.Setting
	}
	b.out.Thresholds = append(b.out.Thresholds, e)
	if kind == "hard" {
		b.hard = &n
	} else {
		b.soft = &n
	}
}
