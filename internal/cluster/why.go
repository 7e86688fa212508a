// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

// Answer is deaths, and who told them.
type Answer struct {
	Deaths []death.Death
	By     api.AnsweredBy
}

// Why finds the n newest deaths of what queries mean, the likeliest first, or of
// the death with that id. The agent on the pod's node is asked first, then the
// others, and where none knows of a death, the API.
func (c *Cluster) Why(ctx context.Context, queries []api.Query, id string, n int) (Answer, error) {
	agents, reason := c.agents(ctx, "")
	pod, query, err := c.find(ctx, queries)
	if err != nil && reason != nil {
		return Answer{}, err
	}
	if err != nil {
		c.trouble(err)
	}
	near, far := apart(agents, pod)
	var here, there found
	if here, err = c.ask(ctx, near, queries, id, n); err == nil && len(here.deaths) > 0 {
		return c.byAgents(here), nil
	}
	reason = errors.Join(reason, err)
	if there, err = c.ask(ctx, far, queries, id, n); err != nil {
		reason = errors.Join(reason, err)
	}
	if ctx.Err() != nil {
		return Answer{}, context.Cause(ctx)
	}
	if pod == nil && len(there.deaths) > 0 {
		return c.byAgents(there), nil
	}
	if pod == nil {
		return Answer{}, c.unknown(reason)
	}
	if reason == nil {
		reason = notNear(near, pod)
	}
	return c.byAPI(ctx, pod, query.Container, n, reason, there)
}

// found is what agents know, and those that told it.
type found struct {
	deaths  []death.Death
	tellers []*agent
}

func (c *Cluster) byAgents(f found) Answer {
	return Answer{f.deaths, api.AnsweredBy{Who: api.WhoAgents, Context: c.Context, Agents: keys(f.tellers), Failed: c.fails}}
}

// notNear is why the agents that answered do not know.
func notNear(near []*agent, p *corev1.Pod) error {
	switch {
	case p.Spec.NodeName == "":
		return errors.New("it is on no node yet, and no agent knows of a death of it")
	case len(near) == 0:
		return fmt.Errorf("no agent runs on its node %s, and no other knows of a death of it", p.Spec.NodeName)
	}
	return errors.New("no agent knows of a death of it")
}

// find is the first pod that queries name and the API has; nil: none.
func (c *Cluster) find(ctx context.Context, queries []api.Query) (*corev1.Pod, api.Query, error) {
	var failed error
	for _, q := range queries {
		if q.Namespace == "" || q.Pod == "" {
			continue
		}
		p, err := c.pod(ctx, q.Namespace, q.Pod)
		if p != nil {
			return p, q, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, api.Query{}, failed
}

// apart are the agents on a pod's node, and all others.
func apart(agents []*agent, p *corev1.Pod) (near, far []*agent) {
	for _, a := range agents {
		if p != nil && a.node == p.Spec.NodeName {
			near = append(near, a)
		} else {
			far = append(far, a)
		}
	}
	return near, far
}

// ask asks agents for what queries mean, one after the other, and then for the
// death with that id.
func (c *Cluster) ask(ctx context.Context, agents []*agent, queries []api.Query, id string, n int) (found, error) {
	for _, q := range queries {
		answers := each(ctx, c, agents, newest(q, n))
		deaths, err := c.gather(ctx, answers, n)
		if err != nil || len(deaths) > 0 {
			return found{deaths, tellers(answers, deaths)}, err
		}
		agents = answered(answers) // a failure is told once
	}
	if id == "" {
		return found{}, nil
	}
	answers := each(ctx, c, agents, func(ctx context.Context, cl *api.Client) ([]death.Death, error) {
		d, err := cl.Death(ctx, id)
		if errors.Is(err, api.ErrNotFound) {
			return nil, nil
		}
		return []death.Death{d}, err
	})
	deaths, err := c.gather(ctx, answers, n)
	return found{deaths, tellers(answers, deaths)}, err
}

func answered(answers []answer[[]death.Death]) (out []*agent) {
	for _, a := range answers {
		if a.err == nil {
			out = append(out, a.agent)
		}
	}
	return out
}

// tellers are the agents that told one of these deaths.
func tellers(answers []answer[[]death.Death], deaths []death.Death) (out []*agent) {
	ids := map[string]bool{}
	for i := range deaths {
		ids[deaths[i].ID] = true
	}
	for _, a := range answers {
		for i := range a.told {
			if ids[a.told[i].ID] {
				out = append(out, a.agent)
				break
			}
		}
	}
	return out
}

// unknown is that nobody knows of a death, and why not.
func (c *Cluster) unknown(reason error) error {
	if reason != nil {
		return fmt.Errorf("no pod of that name is there, and no agent answers for one that was: %w", reason)
	}
	return &Error{What: "context " + c.Context, Err: errors.New("no agent knows of such a death, and no pod of that name is there"),
		Remedy: "names of pods are NAMESPACE/POD, or POD in the namespace of -n, else of the context, which is " + c.Namespace}
}

// byAPI answers from the API alone; or by agents of other nodes, where they know
// of a death that is not older.
func (c *Cluster) byAPI(ctx context.Context, p *corev1.Pod, container string, n int, reason error, there found) (Answer, error) {
	deaths := c.alone(ctx, p, container, n)
	if len(there.deaths) > 0 && (len(deaths) == 0 || !deaths[0].Time.After(there.deaths[0].Time.Add(time.Second))) { // whose times are whole seconds
		if near := (*Error)(nil); errors.As(reason, &near) {
			c.trouble(reason)
		}
		return c.byAgents(there), nil
	}
	e := &Error{What: "context " + c.Context, Remedy: remedyOf(reason)}
	if len(deaths) == 0 {
		e.Err = fmt.Errorf("the Kubernetes API tells of no death in %s/%s: %s; an OOM kill that a container outlives is not in it, and an agent would know: %w", p.Namespace, p.Name, state(p), reason)
		return Answer{}, e
	}
	by := api.AnsweredBy{Who: api.WhoKubernetes, Context: c.Context, Reason: reason.Error(), Remedy: e.Remedy, Lacks: lacks(&deaths[0]), Failed: c.fails}
	return Answer{deaths, by}, nil
}

// remedyOf is what an error says is to be done.
func remedyOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Remedy
	}
	return ""
}

// lacks says what an agent on the node would have told of a death beyond what
// the API has.
func lacks(d *death.Death) string {
	const all = ", the container's memory up to its end, and OOM kills that containers outlive"
	switch d.Cause {
	case death.OOMContainerLimit, death.OOMPodLimit, death.OOMNodeAllocatable, death.OOMAncestorLimit, death.OOMNode:
		return "which processes were killed and how big they were, whose limit it was" + all
	case death.Unknown, death.Killed:
		return "whether the kernel killed for memory, who sent the signal" + all
	case death.Error:
		return "what the container wrote last, whether a child of it was OOM-killed before" + all
	}
	return "who sent which signal, to the millisecond" + all
}
