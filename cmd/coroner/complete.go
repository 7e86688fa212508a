// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coroner-dev/coroner/internal/cluster"
)

// completeLimit is how long a shell waits for names.
const completeLimit = 3 * time.Second

// clusterOf opens the cluster that a command line names so far; nil: none.
func clusterOf(c *cobra.Command) *cluster.Cluster {
	var o cluster.Options
	o.Kubeconfig, _ = c.Flags().GetString("kubeconfig")
	o.Context, _ = c.Flags().GetString("context")
	o.Namespace, _ = c.Flags().GetString("namespace")
	o.AgentNamespace, _ = c.Flags().GetString("agent-namespace")
	out, err := cluster.Open(o)
	if err != nil {
		return nil
	}
	return out
}

// completeFlags has the shell complete contexts and the agents' namespace.
func completeFlags(c *cobra.Command, o *cluster.Options) {
	_ = c.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return cluster.Contexts(o.Kubeconfig), cobra.ShellCompDirectiveNoFileComp
	})
	completeNamespaces(c, "agent-namespace")
}

// completeNamespaces has the shell complete the namespaces of a flag.
func completeNamespaces(c *cobra.Command, flag string) {
	completeFlag(c, flag, func(ctx context.Context, k *cluster.Cluster) ([]string, error) { return k.Namespaces(ctx) })
}

// completeFlag has the shell complete a flag with names that a cluster has.
func completeFlag(c *cobra.Command, flag string, of func(context.Context, *cluster.Cluster) ([]string, error)) {
	_ = c.RegisterFlagCompletionFunc(flag, func(c *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		k := clusterOf(c)
		if k == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), completeLimit)
		defer cancel()
		names, _ := of(ctx, k)
		return beginning(names, begun), cobra.ShellCompDirectiveNoFileComp
	})
}

// completeNodes has the shell complete a NODE that has an agent.
func completeNodes(c *cobra.Command) {
	completeFirst(c, func(ctx context.Context, k *cluster.Cluster, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		names, _ := k.AgentNodes(ctx)
		return beginning(names, begun), cobra.ShellCompDirectiveNoFileComp
	})
}

// completePods has the shell complete a TARGET: POD, pod/POD, NAMESPACE/POD, and
// with another slash the pod's containers.
func completePods(c *cobra.Command) { completeFirst(c, targets) }

// completeFirst has the shell complete the one argument with what a cluster has.
func completeFirst(c *cobra.Command, of func(context.Context, *cluster.Cluster, string) ([]cobra.Completion, cobra.ShellCompDirective)) {
	c.ValidArgsFunction = func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		k := clusterOf(c)
		if k == nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), completeLimit)
		defer cancel()
		return of(ctx, k, begun)
	}
}

func targets(ctx context.Context, k *cluster.Cluster, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	before, after, parts := "", "", strings.Split(begun, "/")
	var names []string
	switch namespace := k.Namespace; len(parts) {
	case 1:
		names, _ = k.Pods(ctx, namespace)
		if names = beginning(names, begun); len(names) == 0 {
			names, _ = k.Namespaces(ctx)
			after = "/"
		}
	case 2:
		before = parts[0] + "/"
		if before != "pod/" && before != "pods/" {
			namespace = parts[0]
		}
		names, _ = k.Pods(ctx, namespace)
	case 3:
		before = parts[0] + "/" + parts[1] + "/"
		if parts[0] != "pod" && parts[0] != "pods" {
			namespace = parts[0]
		}
		names, _ = k.Containers(ctx, namespace, parts[1])
	}
	out := beginning(names, begun[len(before):])
	for i := range out {
		out[i] = before + out[i] + after
	}
	if after != "" {
		return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// beginning are the names that begin so.
func beginning(names []string, begun string) []string {
	var out []string
	for _, n := range names {
		if strings.HasPrefix(n, begun) {
			out = append(out, n)
		}
	}
	return out
}
