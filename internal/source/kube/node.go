// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/signal"
)

// maxTaints bounds the taints of a node that are told.
const maxTaints = 32

// nodeConditions are those that bear on why containers end.
var nodeConditions = map[corev1.NodeConditionType]bool{
	corev1.NodeReady: true, corev1.NodeMemoryPressure: true, corev1.NodeDiskPressure: true, corev1.NodePIDPressure: true,
}

// node reads what is told of a node.
func (r reader) node(n *corev1.Node) signal.NodeSeen {
	seen := signal.NodeSeen{Name: engines.Cut(n.Name, engines.MaxName), Capacity: resources(n.Status.Capacity), Allocatable: resources(n.Status.Allocatable)}
	told := map[corev1.NodeConditionType]bool{}
	for _, c := range n.Status.Conditions {
		if !nodeConditions[c.Type] || told[c.Type] {
			continue
		}
		told[c.Type] = true
		seen.Conditions = append(seen.Conditions, signal.NodeCondition{
			Type: string(c.Type), Status: engines.Cut(string(c.Status), engines.MaxName),
			Reason: engines.Cut(c.Reason, engines.MaxName), Message: engines.Cut(c.Message, engines.MaxReason), Since: r.conditionSince(&c),
		})
	}
	for _, t := range n.Spec.Taints[:min(len(n.Spec.Taints), maxTaints)] {
		taint := signal.Taint{Key: engines.Cut(t.Key, engines.MaxName), Value: engines.Cut(t.Value, engines.MaxName), Effect: engines.Cut(string(t.Effect), engines.MaxName)}
		if t.TimeAdded != nil {
			taint.Added = r.remote(instant(*t.TimeAdded))
		}
		seen.Taints = append(seen.Taints, taint)
	}
	return seen
}

// conditionSince is since when a condition is so. The kubelet sets them, but for
// those of a kubelet that is not heard of, which a controller sets.
func (r reader) conditionSince(c *corev1.NodeCondition) time.Time {
	at := instant(c.LastTransitionTime)
	if c.Status == corev1.ConditionUnknown {
		return r.remote(at)
	}
	return at
}

func resources(l corev1.ResourceList) signal.NodeResources {
	amount := func(name corev1.ResourceName, scaled func() (int64, bool)) *int64 {
		if _, ok := l[name]; !ok {
			return nil
		}
		if n, ok := scaled(); ok && n >= 0 {
			return &n
		}
		return nil
	}
	value := func(name corev1.ResourceName) *int64 {
		return amount(name, func() (int64, bool) { q := l[name]; return q.Value(), true })
	}
	return signal.NodeResources{
		MemoryBytes: value(corev1.ResourceMemory), StorageBytes: value(corev1.ResourceEphemeralStorage), Pods: value(corev1.ResourcePods),
		MilliCPU: amount(corev1.ResourceCPU, func() (int64, bool) { q := l[corev1.ResourceCPU]; return q.MilliValue(), true }),
	}
}

// nodeFollower takes what the reflector brings of the node, and tells what is
// news: a node's heartbeat is none.
type nodeFollower struct {
	f    *follower
	name string
	mu   sync.Mutex
	told *signal.NodeSeen
	none bool // the API has no node of that name
}

// lacks says what is wrong with the node's name; empty: nothing that is known.
func (n *nodeFollower) lacks() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.none {
		return "the API has no node " + n.name + ", so that no pod can be seen: --node.name is to be as kubectl get nodes shows it"
	}
	return ""
}

// is notes whether there is such a node.
func (n *nodeFollower) is(there bool) {
	n.mu.Lock()
	news := n.none == there
	n.none = !there
	n.mu.Unlock()
	if news {
		n.f.missing(lesserNode, n.lacks())
	}
}

// Add takes the node.
func (n *nodeFollower) Add(o any) error { return n.Update(o) }

// Update takes the node as it is now.
func (n *nodeFollower) Update(o any) error {
	node, ok := o.(*corev1.Node)
	if !ok {
		return fmt.Errorf("a %T among the nodes", o)
	}
	n.is(true)
	seen := n.f.reader().node(node)
	n.mu.Lock()
	news := n.told == nil || !sameNode(n.told, &seen)
	n.told = &seen
	n.mu.Unlock()
	if news {
		n.f.tell(time.Now().UTC(), false, seen)
	}
	return nil
}

// Delete says that there is no such node any more: what was told of it stays so.
func (n *nodeFollower) Delete(any) error {
	n.is(false)
	return nil
}

// Replace takes all nodes there are of this name.
func (n *nodeFollower) Replace(all []any, _ string) error {
	if len(all) == 0 {
		n.is(false)
	}
	for _, o := range all {
		if err := n.Update(o); err != nil {
			return err
		}
	}
	return nil
}

// Resync does nothing: nothing is kept that could be stale.
func (n *nodeFollower) Resync() error { return nil }

func sameNode(a, b *signal.NodeSeen) bool {
	return a.Name == b.Name && sameResources(&a.Capacity, &b.Capacity) && sameResources(&a.Allocatable, &b.Allocatable) &&
		slices.Equal(a.Conditions, b.Conditions) && slices.Equal(a.Taints, b.Taints)
}

func sameResources(a, b *signal.NodeResources) bool {
	return samePtr(a.MemoryBytes, b.MemoryBytes) && samePtr(a.StorageBytes, b.StorageBytes) && samePtr(a.MilliCPU, b.MilliCPU) && samePtr(a.Pods, b.Pods)
}
