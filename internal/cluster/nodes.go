// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"context"
	"slices"

	"github.com/coroner-dev/coroner/internal/api"
)

// Nodes are the memory maps of a node, or of all that have an agent (""), in
// their names' order. It tells of the agents that did not answer, and fails
// where none did.
func (c *Cluster) Nodes(ctx context.Context, node string) ([]api.NodeMap, error) {
	agents, err := c.agents(ctx, node)
	if err != nil {
		return nil, err
	}
	answers := each(ctx, c, agents, func(ctx context.Context, cl *api.Client) (api.NodeMap, error) { return cl.Node(ctx) })
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := failures(c, answers); err != nil {
		return nil, err
	}
	var out []api.NodeMap
	for _, a := range answers {
		if a.err == nil {
			out = append(out, a.told)
			c.told = append(c.told, a.agent.key())
		}
	}
	slices.SortStableFunc(out, func(a, b api.NodeMap) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(b.GrowthSeconds, a.GrowthSeconds))
	})
	// While an agent is replaced a node can have two: the one that has looked for longer.
	return slices.CompactFunc(out, func(a, b api.NodeMap) bool { return a.Node == b.Node }), nil
}

// AgentNodes are the nodes that have an agent: for completion.
func (c *Cluster) AgentNodes(ctx context.Context) ([]string, error) {
	agents, err := c.agents(ctx, "")
	var out []string
	for _, a := range agents {
		out = append(out, a.node)
	}
	return slices.Compact(out), err
}
