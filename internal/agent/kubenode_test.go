// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestAgent_KubeNode: the node is as Kubernetes told of it last.
func TestAgent_KubeNode(t *testing.T) {
	a := &Agent{pipe: newPipeline(inquest.New(inquest.Options{}), func(progress) {})}
	if n := a.KubeNode(); n != nil {
		t.Errorf("told %+v by nobody", n)
	}
	for _, memory := range []int64{1 << 30, 2 << 30} {
		a.pipe.feed(signal.Signal{Source: death.SourceKube, Body: signal.NodeSeen{Name: "n1", Capacity: signal.NodeResources{MemoryBytes: &memory}}})
	}
	if n := a.KubeNode(); n == nil || n.Name != "n1" || *n.Capacity.MemoryBytes != 2<<30 {
		t.Errorf("got %+v", n)
	}
}
