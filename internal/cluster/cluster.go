// SPDX-License-Identifier: Apache-2.0

// Package cluster asks a Kubernetes cluster from outside, as kubectl does:
// coroner's agents through the API server's proxy, and where no agent answers,
// the API itself. It changes nothing there.
//
// An agent is a pod with the label app.kubernetes.io/name=coroner. What an agent
// says is foreign text: it is bounded, and a redirect is never followed, since
// the request to its aim would bear the user's credentials.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/coroner-dev/coroner/internal/kubeclient"
)

// ErrNone is that nothing says where a cluster would be.
var ErrNone = errors.New("no kubeconfig")

const (
	// askLimit is how long the API, or one agent, may take for an answer.
	askLimit = 10 * time.Second
	// lookAgain is how often a watch looks for agents that came.
	lookAgain = 15 * time.Second
)

// Options say which cluster, and as whom: as kubectl's flags do.
type Options struct {
	// Kubeconfig is the file; empty: $KUBECONFIG, else ~/.kube/config, else the
	// service account of the pod that this runs in.
	Kubeconfig string
	// Context is the kubeconfig's; empty: the current one.
	Context string
	// Namespace is the one of names without any; empty: the context's.
	Namespace string
	// AgentNamespace is where the agents are; empty: in any.
	AgentNamespace string
	// OnTrouble hears of agents that do not answer while others do; nil: nobody.
	OnTrouble func(error)
}

// Cluster is one cluster as one user sees it.
type Cluster struct {
	// Context is the kubeconfig's, Namespace that of names without one.
	Context, Namespace string

	opt    Options
	api    rest.Interface
	http   *http.Client
	base   *url.URL
	fails  []string
	told   []string
	limit  time.Duration // askLimit; tests are shorter
	lookIn time.Duration // lookAgain, likewise
}

// Open reads the kubeconfig; nothing is asked yet. The error is ErrNone where
// there is none.
func Open(o Options) (*Cluster, error) {
	cfg := loader(o)
	conf, err := cfg.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	raw, err := cfg.RawConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	c := &Cluster{Context: o.Context, opt: o, limit: askLimit, lookIn: lookAgain}
	if c.Context == "" {
		c.Context = raw.CurrentContext
	}
	if c.Context == "" {
		c.Context = "of the pod's service account"
	}
	if c.Namespace, _, err = cfg.Namespace(); err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return c, c.connect(conf)
}

func loader(o Options) clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath, rules.WarnIfAllMissing = o.Kubeconfig, false
	over := &clientcmd.ConfigOverrides{CurrentContext: o.Context}
	over.Context.Namespace = o.Namespace
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, over)
}

// Contexts are the names of a kubeconfig's contexts.
func Contexts(kubeconfig string) []string {
	raw, err := loader(Options{Kubeconfig: kubeconfig}).RawConfig()
	if err != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(raw.Contexts))
}

// connect makes the clients.
func (c *Cluster) connect(conf *rest.Config) error {
	conf = rest.CopyConfig(conf)
	conf.WarningHandler = rest.NoWarnings{}
	conf.Timeout = 0 // streams have none; all else has its context
	var err error
	if c.api, err = kubeclient.Core(conf); err != nil {
		return fmt.Errorf("context %s: %w", c.Context, err)
	}
	if c.http, err = rest.HTTPClientFor(conf); err != nil {
		return fmt.Errorf("context %s: %w", c.Context, err)
	}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if c.base, _, err = rest.DefaultServerUrlFor(conf); err != nil {
		return fmt.Errorf("context %s: %w", c.Context, err)
	}
	return nil
}

// asking bounds one question to the API, and keeps client-go from writing to
// standard error itself.
func (c *Cluster) asking(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(klog.NewContext(ctx, klog.Logger{}), c.limit)
}

// trouble tells of an agent that did not answer while others may.
func (c *Cluster) trouble(err error) {
	c.fails = append(c.fails, err.Error())
	if c.opt.OnTrouble != nil {
		c.opt.OnTrouble(err)
	}
}

// Failed are the agents that did not answer so far, and why.
func (c *Cluster) Failed() []string { return c.fails }

// maxListed bounds a list: as many nodes as Kubernetes is made for.
const maxListed = 5000

func (c *Cluster) pods(ctx context.Context, namespace, selector string) ([]corev1.Pod, error) {
	ctx, cancel := c.asking(ctx)
	defer cancel()
	var list corev1.PodList
	o := metav1.ListOptions{LabelSelector: selector, Limit: maxListed}
	err := c.api.Get().Namespace(namespace).Resource("pods").SpecificallyVersionedParams(&o, metav1.ParameterCodec, corev1.SchemeGroupVersion).Do(ctx).Into(&list)
	if err != nil {
		return nil, c.said("list", "pods", namespace, err)
	}
	return list.Items, nil
}

// pod is one pod; nil: there is none of that name.
func (c *Cluster) pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	ctx, cancel := c.asking(ctx)
	defer cancel()
	var p corev1.Pod
	err := c.api.Get().Namespace(namespace).Resource("pods").Name(name).Do(ctx).Into(&p)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil //nolint:nilnil // that there is none is an answer
	case err != nil:
		return nil, c.said("get", "pods", namespace, err)
	}
	return &p, nil
}

// Pods are the names of a namespace's pods, and Namespaces those of all
// namespaces: for completion.
func (c *Cluster) Pods(ctx context.Context, namespace string) ([]string, error) {
	all, err := c.pods(ctx, namespace, "")
	var out []string
	for i := range all {
		out = append(out, all[i].Name)
	}
	return out, err
}

// Containers are the names of a pod's containers, those that prepare it first.
func (c *Cluster) Containers(ctx context.Context, namespace, name string) ([]string, error) {
	p, err := c.pod(ctx, namespace, name)
	if p == nil {
		return nil, err
	}
	var out []string
	for _, x := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		out = append(out, x.Name)
	}
	return out, nil
}

// Namespaces are the cluster's.
func (c *Cluster) Namespaces(ctx context.Context) ([]string, error) {
	ctx, cancel := c.asking(ctx)
	defer cancel()
	var list corev1.NamespaceList
	if err := c.api.Get().Resource("namespaces").Do(ctx).Into(&list); err != nil {
		return nil, c.said("list", "namespaces", "", err)
	}
	var out []string
	for i := range list.Items {
		out = append(out, list.Items[i].Name)
	}
	return out, nil
}
