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
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/cluster"
	"github.com/coroner-dev/coroner/internal/death"
)

// serverVariable names the agent or hub to ask, where no flag does.
const serverVariable = "CORONER_SERVER"

// localAgent is where an agent on this machine listens.
const localAgent = "http://localhost:3001"

// clientFlag adds --server.
func clientFlag(c *cobra.Command) func() (*api.Client, error) {
	server := c.Flags().String("server", "", "agent or hub to ask (default: $"+serverVariable+", else "+localAgent+")")
	return func() (*api.Client, error) {
		address := *server
		if address == "" {
			address = os.Getenv(serverVariable)
		}
		if address == "" {
			address = localAgent
		}
		client, err := api.NewClient(address, nil)
		if err != nil {
			return nil, usageError{err}
		}
		return client, nil
	}
}

// filterFlags add the API's filters; those by time only to what looks back.
func filterFlags(c *cobra.Command, back bool) func() (api.Query, error) {
	f := c.Flags()
	causes := f.StringSlice("cause", nil, "only these causes (docs/causes.md)")
	var q api.Query
	f.StringVarP(&q.Namespace, "namespace", "n", "", "only this namespace of Kubernetes, or of containerd")
	completeNamespaces(c, "namespace")
	everywhere := f.BoolP("all-namespaces", "A", false, "of all namespaces, as without -n")
	f.StringVar(&q.Pod, "pod", "", "only this pod, by name or uid")
	f.StringVar(&q.Container, "container", "", "only this container, by name, id or first digits of the id")
	f.StringVar(&q.Node, "node", "", "only this node")
	completeFlag(c, "pod", func(ctx context.Context, k *cluster.Cluster) ([]string, error) { return k.Pods(ctx, k.Namespace) })
	completeFlag(c, "node", func(ctx context.Context, k *cluster.Cluster) ([]string, error) { return k.AgentNodes(ctx) })
	f.StringVar(&q.Unit, "unit", "", "only this systemd unit")
	f.StringVarP(&q.Q, "query", "q", "", "only deaths in whose text all these words occur")
	var since, until string
	if back {
		f.StringVar(&since, "since", "", "only deaths since this time (RFC 3339), or for this long (2h)")
		f.StringVar(&until, "until", "", "only deaths before this time (RFC 3339), or this long ago")
	}
	_ = c.RegisterFlagCompletionFunc("cause", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var out []cobra.Completion
		for _, i := range death.Causes() {
			out = append(out, cobra.CompletionWithDesc(string(i.Cause), i.Meaning))
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	})
	return func() (api.Query, error) {
		out := q
		if *everywhere {
			out.Namespace = ""
		}
		now := time.Now()
		var err error
		if out.Since, err = api.ParseTime(since, now); err != nil {
			return out, usageError{fmt.Errorf("--since: %w", err)}
		}
		if out.Until, err = api.ParseTime(until, now); err != nil {
			return out, usageError{fmt.Errorf("--until: %w", err)}
		}
		for _, c := range *causes {
			if !knownCause(c) {
				return out, usageError{withHint(fmt.Errorf("--cause: %q is no cause", c), "the causes: %s", strings.Join(causeIDs(), ", "))}
			}
			out.Cause = append(out.Cause, death.Cause(c))
		}
		return out, nil
	}
}

func causeIDs() []string {
	var out []string
	for _, i := range death.Causes() {
		out = append(out, string(i.Cause))
	}
	return out
}

func knownCause(id string) bool { return slices.Contains(causeIDs(), id) }

// filtersAlone is what list and watch take.
const filtersAlone = "no argument: what is meant is said by flags, as --pod and --container"

func newList() *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List deaths, newest first",
		Long: `list prints deaths, newest first. What died of one cause again and again is one line:
its last death, how often it died so and since when. With --each, and with -o json, each
death is told.`,
		Example: `  coroner list
  coroner list --each
  coroner list --since 2h --cause oom_container_limit
  coroner list -q "java burstable" -o json`,
		Args: atMost(0, filtersAlone),
	}
	whom, filters, form := whomFlags(c), filterFlags(c, true), outputFlag(c)
	limit := c.Flags().Int("limit", api.DefaultLimit, "how many at most; 0: all")
	each := c.Flags().Bool("each", false, "a line for each death, also of what died of one cause again and again")
	c.RunE = func(c *cobra.Command, _ []string) error {
		q, err := filters()
		if err != nil {
			return err
		}
		if *limit < 0 {
			return usageError{errors.New("--limit: must be 0 or more")}
		}
		from, err := whom(c.Context())
		if err != nil {
			return err
		}
		row := line
		if !*each && *form == formatText {
			from, row = stories{from}, storyLine
		}
		deaths, err := from.newest(c.Context(), q, *limit)
		if err != nil {
			return err
		}
		by := from.by()
		announce(c.ErrOrStderr(), &by)
		if *form == formatJSON {
			return printJSON(c.OutOrStdout(), api.DeathsPage{Deaths: deaths, By: &by})
		}
		if len(deaths) == 0 {
			_, _ = fmt.Fprintln(c.ErrOrStderr(), "coroner: no deaths")
			return nil
		}
		return table(c.OutOrStdout(), deaths, row)
	}
	return c
}

// columns head the listings.
func columns() []string {
	return []string{"TIME", "CAUSE", "CONFIDENCE", "WHERE", "KILLED", "REPEAT"}
}

func table(w io.Writer, deaths []death.Death, row func(*death.Death) []string) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	if _, err := fmt.Fprintln(tw, strings.Join(columns(), "\t")); err != nil {
		return err
	}
	for i := range deaths {
		if _, err := fmt.Fprintln(tw, strings.Join(row(&deaths[i]), "\t")); err != nil {
			return err
		}
	}
	return tw.Flush()
}

func newWatch() *cobra.Command {
	c := &cobra.Command{
		Use:   "watch",
		Short: "Follow deaths as they happen",
		Long: `watch prints each death as it becomes known, and once more when later evidence
changes its cause. With -o json each line is one death.`,
		Example: `  coroner watch
  coroner watch --cause killed -o json`,
		Args: atMost(0, filtersAlone),
	}
	whom, filters, form := whomFlags(c), filterFlags(c, false), outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		q, err := filters()
		if err != nil {
			return err
		}
		from, err := whom(c.Context())
		if err != nil {
			return err
		}
		by := from.by()
		announce(c.ErrOrStderr(), &by)
		return from.follow(c.Context(), q, printer(*form, c.OutOrStdout()))
	}
	return c
}

// printer writes deaths as they come: each once more when its cause changes.
func printer(form format, w io.Writer) func(death.Death) error {
	causes := map[string]death.Cause{}
	return func(d death.Death) error {
		if form == formatJSON {
			return printLine(w, d)
		}
		known, seen := causes[d.ID]
		if seen && known == d.Cause {
			return nil
		}
		if len(causes) > 10000 {
			clear(causes)
		}
		causes[d.ID] = d.Cause
		_, err := fmt.Fprintln(w, strings.TrimRight(strings.Join(line(&d), "  "), " "))
		return err
	}
}

func newWhy() *cobra.Command {
	c := &cobra.Command{
		Use:   "why TARGET",
		Short: "Say why a container or pod died",
		Long: `why prints the newest verdict for TARGET: a container by name, id or the id's first
digits, pod/NAME or NAMESPACE/POD[/CONTAINER], NAMESPACE/CONTAINER of containerd, PROJECT/SERVICE of Docker Compose,
FAMILY/CONTAINER of Amazon ECS, JOB/TASK of Nomad, unit/NAME or a systemd unit's name,
or the id of a death.

The agent on this machine is asked; where none answers, the cluster of the kubeconfig: its agents, else what
the Kubernetes API alone can tell. Which of them answered is said on standard error.`,
		Example: `  coroner why web-1
  coroner why 3f1c9a5e7b2d
  coroner why shop/cart-7d9f/worker
  coroner why pod/cart-7d9f -n shop --context prod
  coroner why cart-7d9f -c worker --all
  coroner why shop/web
  coroner why nginx.service`,
		Args: exactly(1, "one TARGET"),
	}
	whom, form := whomFlags(c), outputFlag(c)
	c.Flags().StringP("namespace", "n", "", "the namespace of a TARGET that names none (default: any; in a cluster that of the context)")
	all := c.Flags().Bool("all", false, "all of its deaths, newest first, not only the newest")
	inside := c.Flags().StringP("container", "c", "", "of the pod that TARGET names, this container")
	completeNamespaces(c, "namespace")
	completePods(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		limit, ask := 1, besides
		if *all {
			limit, ask = api.DefaultLimit, api.DefaultLimit
		}
		target, err := ofPod(args[0], *inside)
		if err != nil {
			return err
		}
		from, err := whom(c.Context())
		if err != nil {
			return err
		}
		a, err := from.why(c.Context(), target, ask)
		if err != nil {
			return err
		}
		tell(c.ErrOrStderr(), &a.By)
		shown := a.Deaths[:min(limit, len(a.Deaths))]
		if s := siblings(shown[0].Container, a.Deaths[len(shown):]); s != "" {
			_, _ = fmt.Fprintf(c.ErrOrStderr(), "coroner: of the same pod: %s; --all shows them, -c one container's\n", s)
		}
		return printDeaths(c.OutOrStdout(), *form, shown, &a.By)
	}
	return c
}

// besides is how many deaths are looked at to tell that others of the same pod
// died, too.
const besides = 20

// siblings are the other containers of a pod among deaths that are not shown, each
// with its latest end.
func siblings(shown *death.Container, deaths []death.Death) string {
	if shown == nil || shown.Pod == nil {
		return ""
	}
	seen := map[string]bool{shown.Name: true}
	var out []string
	for i := range deaths {
		d := &deaths[i]
		if c := d.Container; c != nil && c.Pod != nil && c.Pod.UID == shown.Pod.UID && c.Name != "" && !seen[c.Name] {
			seen[c.Name] = true
			out = append(out, fmt.Sprintf("%s (%s, %s)", death.Printable(c.Name), d.Cause, d.Time.UTC().Format(time.DateTime)))
		}
	}
	return strings.Join(out, ", ")
}

// ofPod is the target that names a container of the pod that target names.
func ofPod(target, container string) (string, error) {
	if container == "" {
		return target, nil
	}
	switch parts := strings.Split(target, "/"); {
	case len(parts) == 1:
		return "pod/" + target + "/" + container, nil
	case len(parts) == 2 && parts[0] != "unit" && parts[0] != "container":
		return target + "/" + container, nil
	}
	return "", usageError{withHint(fmt.Errorf("%q names no pod, of which -c %s would be a container", target, container), "coroner why --help")}
}

// namesakes are the containers that target means as well as d's, in other
// namespaces of containerd.
func namesakes(ctx context.Context, cl *api.Client, target string, d *death.Death) []string {
	if d.Container == nil || d.Container.Namespace == "" || strings.Contains(target, "/") {
		return nil
	}
	page, err := cl.Deaths(ctx, api.Query{Container: target, Limit: api.DefaultLimit})
	if err != nil {
		return nil // what was asked for is known
	}
	var out []string
	for _, o := range page.Deaths {
		c := o.Container
		if c == nil || c.Namespace == "" || c.Namespace == d.Container.Namespace {
			continue
		}
		if name := place(&o); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// why finds the deaths of what people call target, in a namespace where one is
// given.
func why(ctx context.Context, cl *api.Client, target, namespace string, limit int) ([]death.Death, error) {
	queries := meanings(target)
	if len(queries) == 0 {
		return nil, noTarget(target)
	}
	queries = within(queries, namespace)
	for _, q := range queries {
		q.Limit = limit
		page, err := cl.Deaths(ctx, q)
		if err != nil {
			return nil, err
		}
		if len(page.Deaths) > 0 {
			return page.Deaths, nil
		}
	}
	if ds, err := ofWorkload(ctx, cl, target, limit); err != nil || len(ds) > 0 {
		return ds, err
	}
	if d, err := cl.Death(ctx, target); err == nil {
		return []death.Death{d}, nil
	} else if !errors.Is(err, api.ErrNotFound) {
		return nil, err
	}
	return nil, withHint(fmt.Errorf("no death of %q is known to the agent at %s", target, cl.Address()),
		"coroner list shows what it knows; it cannot know what happened before it ran, but for what the kernel's log still holds")
}

// maxSearched bounds the deaths that are looked through for a workload's.
const maxSearched = 1000

// ofWorkload finds the deaths of what containers' labels call target: GROUP/NAME,
// or NAME alone.
func ofWorkload(ctx context.Context, cl *api.Client, target string, limit int) ([]death.Death, error) {
	var out []death.Death
	searched := 0
	for d, err := range cl.All(ctx, api.Query{Q: target}) {
		if err != nil {
			return nil, err
		}
		if c := d.Container; c != nil && c.Workload != nil && (c.Workload.String() == target || c.Workload.Name == target) {
			out = append(out, d)
		}
		if searched++; len(out) == limit || searched == maxSearched {
			break
		}
	}
	return out, nil
}

func noTarget(target string) error {
	return usageError{withHint(fmt.Errorf("%q names no container, pod or unit", target), "coroner why --help")}
}

// within gives pods and containers without a namespace the one asked for.
func within(queries []api.Query, namespace string) []api.Query {
	for i := range queries {
		if q := &queries[i]; q.Namespace == "" && q.Unit == "" {
			q.Namespace = namespace
		}
	}
	return queries
}

// meanings lists what target may mean, the likeliest first.
func meanings(target string) []api.Query {
	parts := strings.Split(target, "/")
	if slices.Contains(parts, "") {
		return nil // an empty name would mean any
	}
	switch {
	case len(parts) == 2 && (parts[0] == "pod" || parts[0] == "pods"):
		return []api.Query{{Pod: parts[1]}, {Namespace: parts[0], Pod: parts[1]}}
	case len(parts) == 2 && parts[0] == "unit":
		return []api.Query{{Unit: parts[1]}}
	case len(parts) == 2 && parts[0] == "container":
		return []api.Query{{Container: parts[1]}}
	case len(parts) == 2:
		return []api.Query{{Namespace: parts[0], Pod: parts[1]}, {Namespace: parts[0], Container: parts[1]}}
	case len(parts) == 3 && (parts[0] == "pod" || parts[0] == "pods"):
		return []api.Query{{Pod: parts[1], Container: parts[2]}, {Namespace: parts[0], Pod: parts[1], Container: parts[2]}}
	case len(parts) == 3:
		return []api.Query{{Namespace: parts[0], Pod: parts[1], Container: parts[2]}}
	}
	return []api.Query{{Container: target}, {Pod: target}, {Unit: target}}
}
