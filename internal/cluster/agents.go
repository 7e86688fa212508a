// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

const (
	// agentSelector finds the agents' pods.
	agentSelector = "app.kubernetes.io/name=coroner"
	// agentPort is where an agent listens that does not declare it.
	agentPort = 3001
	// atOnce bounds the agents that are asked at one time.
	atOnce = 16
	// maxTold bounds the agents of which it is said one by one that they failed.
	maxTold = 10
)

// ErrNoAgents is that no agent runs where one was looked for.
var ErrNoAgents = errors.New("no agent")

// agent is one pod of coroner's.
type agent struct {
	namespace, pod, node string
	scheme               string // https where it says so
	port                 int32
}

// String names it as it is shown.
func (a *agent) String() string {
	return "the agent " + a.namespace + "/" + a.pod + " on node " + a.node
}

// agentOf reads how a pod is reached: at the port that it calls http or https,
// else at coroner's own.
func agentOf(p *corev1.Pod) *agent {
	a := &agent{namespace: p.Namespace, pod: p.Name, node: p.Spec.NodeName, port: agentPort}
	for i := range p.Spec.Containers {
		for _, port := range p.Spec.Containers[i].Ports {
			if port.Name == "http" || port.Name == "https" {
				a.port, a.scheme = port.ContainerPort, port.Name
			}
		}
	}
	return a
}

// agents are those that run on a node; "": on any. They are in their nodes'
// order.
func (c *Cluster) agents(ctx context.Context, node string) ([]*agent, error) {
	pods, err := c.pods(ctx, c.opt.AgentNamespace, agentSelector)
	if err != nil {
		return nil, err
	}
	var out []*agent
	for i := range pods {
		p := &pods[i]
		if p.Status.Phase == corev1.PodRunning && (node == "" || p.Spec.NodeName == node) {
			out = append(out, agentOf(p))
		}
	}
	if len(out) == 0 {
		return nil, c.noAgents(node)
	}
	slices.SortFunc(out, func(a, b *agent) int {
		return cmp.Or(cmp.Compare(a.node, b.node), cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.pod, b.pod))
	})
	return out, nil
}

func (c *Cluster) noAgents(node string) error {
	where := "in any namespace"
	if c.opt.AgentNamespace != "" {
		where = "in namespace " + c.opt.AgentNamespace
	}
	if node != "" {
		where += " on node " + node
	}
	return &Error{What: "context " + c.Context, Err: fmt.Errorf("%w runs %s", ErrNoAgents, where),
		Remedy: "an agent is a pod with the label " + agentSelector + "; they run as a DaemonSet (docs/kubernetes.md)"}
}

// client asks one agent through the API server's proxy.
func (c *Cluster) client(a *agent) *api.Client {
	name := a.pod + ":" + strconv.Itoa(int(a.port))
	if a.scheme == "https" {
		name = "https:" + name
	}
	u := *c.base
	u.User = nil
	u = *u.JoinPath("api", "v1", "namespaces", url.PathEscape(a.namespace), "pods", url.PathEscape(name), "proxy")
	return &api.Client{Base: &u, HTTP: c.http, Name: a.String()}
}

// answer is what one agent said.
type answer[T any] struct {
	agent *agent
	told  T
	err   error
}

// each asks agents side by side, and gives what they said in their order.
func each[T any](ctx context.Context, c *Cluster, agents []*agent, ask func(context.Context, *api.Client) (T, error)) []answer[T] {
	out := make([]answer[T], len(agents))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(atOnce, len(agents)) {
		wg.Go(func() {
			for i := range next {
				ctx, cancel := context.WithTimeout(ctx, c.limit)
				told, err := ask(ctx, c.client(agents[i]))
				cancel()
				if err != nil {
					err = c.refusal(agents[i], err)
				}
				out[i] = answer[T]{agents[i], told, err}
			}
		})
	}
	for i := range agents {
		next <- i
	}
	close(next)
	wg.Wait()
	return out
}

// gather merges what agents said, newest first, at most n; 0: all. It tells of
// those that did not answer, and fails where none did.
func (c *Cluster) gather(ctx context.Context, answers []answer[[]death.Death], n int) ([]death.Death, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := failures(c, answers); err != nil {
		return nil, err
	}
	byID := map[string]death.Death{}
	for _, a := range answers {
		for _, d := range a.told {
			if known, twice := byID[d.ID]; !twice || known.Revision < d.Revision {
				byID[d.ID] = d
			}
		}
	}
	out := make([]death.Death, 0, len(byID))
	for _, d := range byID {
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b death.Death) int { return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.ID, b.ID)) })
	if n > 0 && len(out) > n {
		out = out[:n]
	}
	return out, nil
}

// failures tells of the agents that did not answer; where none did, that is the
// error.
func failures[T any](c *Cluster, answers []answer[T]) error {
	var failed []error
	for _, a := range answers {
		if a.err != nil {
			failed = append(failed, a.err)
		}
	}
	switch {
	case len(failed) == 0:
		return nil
	case len(failed) == len(answers) && len(failed) == 1:
		return failed[0]
	case len(failed) == len(answers):
		return fmt.Errorf("none of %d agents answered; %w", len(failed), failed[0])
	}
	for i, err := range failed {
		if i == maxTold && len(failed) > maxTold+1 {
			c.trouble(fmt.Errorf("and %d agents more did not answer", len(failed)-i))
			break
		}
		c.trouble(err)
	}
	return nil
}

// newest reads the n newest deaths of one agent; 0: all.
func newest(q api.Query, n int) func(context.Context, *api.Client) ([]death.Death, error) {
	if n > 0 && n < api.MaxLimit {
		q.Limit = n
	}
	return func(ctx context.Context, cl *api.Client) (out []death.Death, err error) {
		for d, err := range cl.All(ctx, q) {
			if err != nil {
				return out, err
			}
			if out = append(out, d); len(out) == n {
				break
			}
		}
		return out, nil
	}
}

// Newest are the n newest deaths that q selects, of all agents; 0: all. Where q
// names a node that has an agent, that one alone is asked.
func (c *Cluster) Newest(ctx context.Context, q api.Query, n int) ([]death.Death, error) {
	agents, err := c.agentsFor(ctx, q)
	if err != nil {
		return nil, err
	}
	answers := each(ctx, c, agents, newest(q, n))
	deaths, err := c.gather(ctx, answers, n)
	c.told = keys(tellers(answers, deaths))
	return deaths, err
}

// Told are the agents that told what was listed last, each as NAMESPACE/POD.
func (c *Cluster) Told() []string { return c.told }

func keys(agents []*agent) (out []string) {
	for _, a := range agents {
		out = append(out, a.key())
	}
	return out
}

// agentsFor are those that can know what q selects.
func (c *Cluster) agentsFor(ctx context.Context, q api.Query) ([]*agent, error) {
	all, err := c.agents(ctx, "")
	if err != nil || q.Node == "" {
		return all, err
	}
	var there []*agent
	for _, a := range all {
		if a.node == q.Node {
			there = append(there, a)
		}
	}
	if len(there) > 0 {
		return there, nil
	}
	return all, nil // an agent can call its node otherwise
}
