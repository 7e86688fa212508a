// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/cluster"
	"github.com/coroner-dev/coroner/internal/death"
)

// asked is who answers: one agent or hub, or a cluster.
type asked interface {
	// newest are the n newest deaths; 0: all.
	newest(ctx context.Context, q api.Query, n int) ([]death.Death, error)
	// follow gives fn each death from now on.
	follow(ctx context.Context, q api.Query, fn func(death.Death) error) error
	// why are the n newest deaths of target, at least one.
	why(ctx context.Context, target string, n int) (cluster.Answer, error)
	by() api.AnsweredBy
	// nodes are the memory maps of a node; "": of all that there are.
	nodes(ctx context.Context, node string) ([]api.NodeMap, error)
}

// whomFlags add the flags that say who is asked: an agent, or a cluster as
// kubectl has them.
func whomFlags(c *cobra.Command) func(context.Context) (asked, error) {
	client := clientFlag(c)
	var o cluster.Options
	kubeFlags(c, &o)
	return func(ctx context.Context) (asked, error) {
		o.Namespace, _ = c.Flags().GetString("namespace")
		o.OnTrouble = troubles(c.ErrOrStderr())
		one, err := client()
		if err != nil {
			return nil, err
		}
		local := &server{Client: one, namespace: o.Namespace, said: c.ErrOrStderr()}
		one.OnRetry = local.retry
		named, kube := c.Flags().Changed("server"), kubeFlagGiven(c)
		switch {
		case named && kube:
			return nil, usageError{errors.New("--server names one agent or hub, the flags of a kubeconfig a cluster: give one of them")}
		case named, !kube && os.Getenv(serverVariable) != "":
			return local, nil
		case kube, isPlugin(c.Root()):
			a, err := openCluster(o)
			if err != nil {
				return nil, err
			}
			return a, nil
		}
		return localOrCluster(ctx, local, o)
	}
}

// kubeFlags add what says which cluster, by the names that kubectl has.
func kubeFlags(c *cobra.Command, o *cluster.Options) {
	f := c.Flags()
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "ask the cluster of this kubeconfig (default: $KUBECONFIG, else ~/.kube/config)")
	f.StringVar(&o.Context, "context", "", "ask the cluster of this context of the kubeconfig")
	f.StringVar(&o.AgentNamespace, "agent-namespace", "", "ask the agents in this namespace of the cluster (default: in any)")
	completeFlags(c, o)
}

func kubeFlagGiven(c *cobra.Command) bool {
	for _, name := range []string{"kubeconfig", "context", "agent-namespace"} {
		if c.Flags().Changed(name) {
			return true
		}
	}
	return false
}

func openCluster(o cluster.Options) (*agents, error) {
	c, err := cluster.Open(o)
	if errors.Is(err, cluster.ErrNone) {
		return nil, withHint(err, "--kubeconfig FILE, or $KUBECONFIG; an agent that is reached otherwise: --server")
	}
	if err != nil {
		return nil, err
	}
	return &agents{Cluster: c, opt: o}, nil
}

// localLimit is how long an agent on this machine may take to say that it is one.
const localLimit = 2 * time.Second

// localOrCluster takes the agent on this machine if it answers, else the cluster
// of the kubeconfig if there is one.
func localOrCluster(ctx context.Context, local *server, o cluster.Options) (asked, error) {
	ctx, cancel := context.WithTimeout(ctx, localLimit)
	defer cancel()
	if s, err := local.Status(ctx); err == nil && (s.Version != "" || s.Node != "") {
		return local, nil // another program could listen there
	}
	a, err := openCluster(o)
	switch {
	case errors.Is(err, cluster.ErrNone):
		return local, nil // its error says more
	case err != nil:
		return nil, err
	}
	a.insteadOf = local.Address()
	return a, nil
}

// troubles says what is amiss with agents while others answer; what to do about
// it, once.
func troubles(w io.Writer) func(error) {
	said := map[string]bool{}
	return func(err error) {
		_, _ = fmt.Fprintf(w, "coroner: %s\n", safe(oneLine(err.Error())))
		if e := (*cluster.Error)(nil); errors.As(err, &e) && e.Remedy != "" && !said[e.Remedy] {
			said[e.Remedy] = true
			_, _ = fmt.Fprintf(w, "coroner: hint: %s\n", safe(oneLine(e.Remedy)))
		}
	}
}

// server is one agent or hub.
type server struct {
	*api.Client
	namespace string
	said      io.Writer
}

func (s *server) retry(err error, wait time.Duration) {
	_, _ = fmt.Fprintf(s.said, "coroner: %v; trying again in %s\n", err, wait.Round(time.Millisecond))
}

func (s *server) by() api.AnsweredBy {
	return api.AnsweredBy{Who: api.WhoAgent, Address: s.Address()}
}

func (s *server) nodes(ctx context.Context, node string) ([]api.NodeMap, error) {
	m, err := s.Node(ctx)
	if err == nil && node != "" && node != m.Node {
		err = withHint(fmt.Errorf("the agent at %s is on node %s, not on %s", s.Address(), death.Printable(m.Node), death.Printable(node)),
			"--server names the agent to ask, --context the cluster")
	}
	return []api.NodeMap{m}, err
}

func (s *server) newest(ctx context.Context, q api.Query, n int) ([]death.Death, error) {
	deaths := []death.Death{}
	for d, err := range s.All(ctx, q) {
		if err != nil {
			return nil, err
		}
		if deaths = append(deaths, d); len(deaths) == n {
			break
		}
	}
	return deaths, nil
}

func (s *server) follow(ctx context.Context, q api.Query, fn func(death.Death) error) error {
	return s.Stream(ctx, q, "", func(_ string, d death.Death) error { return fn(d) })
}

func (s *server) why(ctx context.Context, target string, n int) (cluster.Answer, error) {
	deaths, err := why(ctx, s.Client, target, s.namespace, n)
	if err != nil {
		return cluster.Answer{}, err
	}
	if others := namesakes(ctx, s.Client, target, &deaths[0]); len(others) > 0 {
		_, _ = fmt.Fprintf(s.said, "coroner: others of that name: %s\n", strings.Join(others, ", "))
	}
	return cluster.Answer{Deaths: deaths, By: s.by()}, nil
}

// agents are those of a cluster.
type agents struct {
	*cluster.Cluster
	opt cluster.Options
	// insteadOf is the address on this machine where no agent answered; empty:
	// the cluster is what was asked for.
	insteadOf string
}

// explain adds to an error why it is about a cluster that was not asked for.
func (a *agents) explain(err error) error {
	if err == nil || a.insteadOf == "" {
		return err
	}
	return withHint(err, "the cluster of the kubeconfig was asked because no agent answers at %s: coroner agent starts one", a.insteadOf)
}

func (a *agents) by() api.AnsweredBy {
	return api.AnsweredBy{Who: api.WhoAgents, Context: a.Context, Agents: a.Told(), Failed: a.Failed()}
}

func (a *agents) nodes(ctx context.Context, node string) ([]api.NodeMap, error) {
	maps, err := a.Nodes(ctx, node)
	return maps, a.explain(err)
}

func (a *agents) newest(ctx context.Context, q api.Query, n int) ([]death.Death, error) {
	deaths, err := a.Newest(ctx, q, n)
	return deaths, a.explain(err)
}

func (a *agents) follow(ctx context.Context, q api.Query, fn func(death.Death) error) error {
	return a.explain(a.Stream(ctx, q, fn))
}

func (a *agents) why(ctx context.Context, target string, n int) (cluster.Answer, error) {
	queries := a.meanings(target)
	if len(queries) == 0 {
		return cluster.Answer{}, noTarget(target)
	}
	id := ""
	if !strings.Contains(target, "/") {
		id = target
	}
	out, err := a.Why(ctx, queries, id, n)
	if kind, _, ok := strings.Cut(target, "/"); err != nil && ok && workloadKinds[kind] {
		err = withHint(err, "TARGET is a pod, not a %s: kubectl get pods names them", kind)
	}
	if err != nil {
		if like := a.like(ctx, queries); len(like) > 0 {
			err = withHint(err, "pods whose names begin so: %s", safe(strings.Join(like, ", ")))
		}
	}
	return out, a.explain(err)
}

// maxLike bounds the pods that a user may have meant.
const maxLike = 5

// like are pods whose names begin as that of the first query, which is not one:
// those of a Deployment go by its name and more.
func (a *agents) like(ctx context.Context, queries []api.Query) []string {
	q := queries[0]
	if q.Pod == "" || q.Namespace == "" {
		return nil
	}
	names, _ := a.Pods(ctx, q.Namespace)
	names = slices.DeleteFunc(beginning(names, q.Pod), func(n string) bool { return n == q.Pod })
	return names[:min(maxLike, len(names))]
}

// workloadKinds are what kubectl takes before a slash, and means no pod.
var workloadKinds = map[string]bool{
	"deployment": true, "deployments": true, "deploy": true, "statefulset": true, "statefulsets": true, "sts": true,
	"daemonset": true, "daemonsets": true, "ds": true, "replicaset": true, "replicasets": true, "rs": true,
	"job": true, "jobs": true, "cronjob": true, "cronjobs": true, "cj": true,
}

// meanings lists what target may mean in a cluster: names are of the namespace
// asked for, else of the context's; a container's id is of any.
func (a *agents) meanings(target string) []api.Query {
	queries := meanings(target)
	if _, name, ok := strings.Cut(target, "/"); !ok && len(queries) > 0 {
		queries = []api.Query{{Pod: target}, {Container: target}, {Unit: target}}
	} else if strings.HasPrefix(target, "container/") {
		target = name
	}
	if strings.HasPrefix(target, "pod/") || strings.HasPrefix(target, "pods/") {
		queries = queries[:min(1, len(queries))] // as kubectl reads it: no namespace of that name
	}
	queries = within(queries, a.Namespace)
	if a.opt.Namespace == "" && isContainerID(target) {
		queries = append(queries, api.Query{Container: target})
	}
	return queries
}

// isContainerID tells whether s may be the id of a container, or its beginning.
func isContainerID(s string) bool {
	return len(s) >= 12 && strings.Trim(s, "0123456789abcdef") == ""
}

// tell says who answers.
func tell(w io.Writer, by *api.AnsweredBy) {
	for _, l := range says(by) {
		_, _ = fmt.Fprintf(w, "coroner: %s\n", safe(oneLine(l)))
	}
}

// announce says who answers, where that is not the one agent that one thinks of:
// those of a cluster without their names, which are many.
func announce(w io.Writer, by *api.AnsweredBy) {
	if by.Who != api.WhoAgent {
		short := *by
		short.Agents = nil
		tell(w, &short)
	}
}

// says puts into words who answered.
func says(by *api.AnsweredBy) []string {
	switch by.Who {
	case api.WhoAgents:
		s := "by the cluster's agents"
		switch len(by.Agents) {
		case 0:
		case 1:
			s = "by the agent " + by.Agents[0]
		default:
			s = "by the agents " + strings.Join(by.Agents, ", ")
		}
		return []string{s + ", context " + by.Context}
	case api.WhoKubernetes:
		out := []string{
			"by the Kubernetes API alone, context " + by.Context + ": " + by.Reason,
			"an agent on that node would have told " + by.Lacks,
		}
		if by.Remedy != "" {
			out = append(out, "hint: "+by.Remedy)
		}
		return out
	}
	return []string{"by the agent at " + by.Address}
}
