// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

func condition(kind, status string, since time.Duration, message string) signal.NodeCondition {
	return signal.NodeCondition{Type: kind, Status: status, Reason: "R" + kind, Message: message, Since: epoch.Add(since)}
}

// nodeWas are the node's lines of a death's evidence.
func nodeWas(d death.Death) (out []string) {
	for _, e := range d.Evidence {
		if strings.HasPrefix(e.Text, "the node") {
			out = append(out, e.Text)
		}
	}
	return out
}

// TestNode_Evidence: what the node was like is told where it bears on the death,
// whether it is told before or after it.
func TestNode_Evidence(t *testing.T) {
	first := task(100, "app", leftPath, true)
	runc := onHost(task(901, "runc", "/system.slice/containerd.service", false))
	term := saying{"tracepoint", signal.Kill{Target: first, Sender: runc, Signal: 15}}
	left := func(code int) saying { return saying{"tracepoint", signal.Exit{Task: first, Code: &code}} }
	node := func(cs ...signal.NodeCondition) saying {
		return saying{"kube", signal.NodeSeen{Name: "n1", Conditions: cs}}
	}
	tainted := func(ts ...signal.Taint) saying { return saying{"kube", signal.NodeSeen{Name: "n1", Taints: ts}} }
	evicted := saying{"kube", signal.PodSeen{Pod: shopPod, Reason: "Evicted", Message: evictedWords, Disruption: &signal.Disruption{Reason: "TerminationByKubelet", Message: evictedWords, At: epoch}}}
	deleted := func(d *signal.Disruption) saying {
		return saying{"kube", signal.PodSeen{Pod: shopPod, Disruption: d, Deletion: &signal.Deletion{At: epoch.Add(-5 * time.Second), GraceSeconds: 30}}}
	}
	byTaint := &signal.Disruption{Reason: "DeletionByTaintManager", Message: "Taint manager: deleting due to NoExecute taint", At: epoch.Add(-5 * time.Second)}
	batch := signal.Taint{Key: "dedicated", Value: "batch", Effect: "NoExecute", Added: epoch.Add(-6 * time.Second)}
	marked := saying{"kube", signal.PodEvents{Events: []signal.PodEvent{{Reason: "TaintManagerEviction", Message: "Marking for deletion Pod shop/web-1", First: epoch.Add(-5 * time.Second), Last: epoch.Add(-5 * time.Second), Count: 1}}}}
	spared := saying{"kube", signal.PodEvents{Events: []signal.PodEvent{{Reason: "TaintManagerEviction", Message: "Cancelling deletion of Pod shop/web-1", First: epoch, Last: epoch, Count: 1}}}}
	oom := oomKill(first, first, level(leftPath, 40*mib, 40*mib))
	for _, tc := range []struct {
		name  string
		says  []saying
		cause death.Cause
		node  string // in the evidence; "": nothing
		told  string // in the summary
	}{
		{"evicted, the condition written later", []saying{term, left(0), evicted, node(condition("MemoryPressure", "True", 8*time.Second, "kubelet has insufficient memory available"))}, death.EvictedMemory, "MemoryPressure is True (RMemoryPressure): kubelet has insufficient memory available", ""},
		{"evicted for memory, short of disk too", []saying{term, left(0), evicted, node(condition("DiskPressure", "True", -time.Minute, "m"))}, death.EvictedMemory, "", ""},
		{"an exit is none of the node's business", []saying{left(3), node(condition("MemoryPressure", "True", -time.Minute, "m"))}, death.Error, "", ""},
		{"the kernel was first", []saying{{"tracepoint", oom[0]}, {"tracepoint", oom[1]}, {"tracepoint", signal.Exit{Task: first, Signal: ptr(9)}}, node(condition("MemoryPressure", "True", -time.Minute, "m"))}, death.OOMContainerLimit, "MemoryPressure is True", ""},
		{"a pressure that came to its end", []saying{node(condition("MemoryPressure", "True", -time.Hour, "m")), node(condition("MemoryPressure", "False", -time.Minute, "m")), {"tracepoint", oom[0]}, {"tracepoint", oom[1]}, {"tracepoint", signal.Exit{Task: first, Signal: ptr(9)}}}, death.OOMContainerLimit, "", ""},
		{"a taint", []saying{tainted(batch), term, left(143), deleted(byTaint)}, death.Drained, "the node has the taint dedicated=batch:NoExecute", "The node's taint dedicated=batch:NoExecute made pod shop/web-1"},
		{"one of two taints", []saying{tainted(batch, signal.Taint{Key: "other", Effect: "NoExecute"}), term, left(143), deleted(byTaint)}, death.Drained, "dedicated=batch:NoExecute", "A taint of the node (NoExecute) made"},
		{"a taint, and an event alone says so", []saying{tainted(batch), term, left(143), deleted(nil), marked}, death.Drained, "dedicated=batch", "dedicated=batch:NoExecute made"},
		{"a taint that spared the pod", []saying{tainted(batch), term, left(143), deleted(nil), spared}, death.Stopped, "", ""},
		{"shut down", []saying{node(condition("Ready", "False", -3*time.Second, "node is shutting down")), term, left(143)}, death.NodeShutdown, "Ready is False (RReady): node is shutting down", "The node was being shut down when"},
		{"not ready for something else", []saying{node(condition("Ready", "False", -3*time.Second, "container runtime is down")), term, left(143)}, death.Stopped, "", ""},
		{"shut down before, and up again", []saying{node(condition("Ready", "False", -2*time.Minute, "node is shutting down")), node(condition("Ready", "True", -time.Minute, "m")), term, left(143)}, death.Stopped, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			permute(len(tc.says), func(order []int) {
				if !inKernelOrder(tc.says, order) || !inNodesOrder(tc.says, order) {
					return
				}
				sc := &scene{}
				sigs := inKube(sc)
				for _, i := range order {
					sigs = append(sigs, sc.sig(tc.says[i].src, tc.says[i].body))
				}
				d := only(t, answering(New(Options{}), sigs...))
				was := nodeWas(d)
				fits := len(was) == 0 && tc.node == "" || tc.node != "" && slices.ContainsFunc(was, func(s string) bool { return strings.Contains(s, tc.node) })
				if d.Cause != tc.cause || !fits || !strings.Contains(d.Summary, tc.told) {
					t.Errorf("order %v: %q\n%s", order, was, sketch([]death.Death{d}))
				}
			})
		})
	}
}

// inNodesOrder tells whether what is told of the node comes in its own order.
func inNodesOrder(says []saying, order []int) bool {
	last := -1
	for _, i := range order {
		if _, ok := says[i].body.(signal.NodeSeen); ok {
			if i < last {
				return false
			}
			last = i
		}
	}
	return true
}

// TestNode_IsBounded: a node that is given and rid of taints without end.
func TestNode_IsBounded(t *testing.T) {
	q, sc := New(Options{}), &scene{}
	for i := range 10 * maxSpells {
		q.Feed(sc.sig("kube", signal.NodeSeen{Taints: []signal.Taint{{Key: itoa(i), Effect: noExecute}}, Conditions: []signal.NodeCondition{condition("DiskPressure", []string{"True", "False"}[i%2], 0, "")}}))
	}
	if n := len(q.node.spells); n != maxSpells {
		t.Errorf("%d spells kept, want %d", n, maxSpells)
	}
}
