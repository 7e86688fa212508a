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
	"github.com/coroner-dev/coroner/internal/death"
)

// serverVariable names the agent or hub to ask, where no flag does.
const serverVariable = "CORONER_SERVER"

// clientFlag adds --server.
func clientFlag(c *cobra.Command) func() (*api.Client, error) {
	server := c.Flags().String("server", "", "agent or hub to ask (default: $"+serverVariable+", else http://localhost:3001)")
	return func() (*api.Client, error) {
		address := *server
		if address == "" {
			address = os.Getenv(serverVariable)
		}
		if address == "" {
			address = "http://localhost:3001"
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
	f.StringVarP(&q.Namespace, "namespace", "n", "", "only this Kubernetes namespace")
	f.StringVar(&q.Pod, "pod", "", "only this pod, by name or uid")
	f.StringVar(&q.Container, "container", "", "only this container, by name, id or first digits of the id")
	f.StringVar(&q.Node, "node", "", "only this node")
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

func newList() *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List deaths, newest first",
		Example: `  coroner list
  coroner list --since 2h --cause oom_container_limit
  coroner list -q "java burstable" -o json`,
		Args: cobra.NoArgs,
	}
	client, filters, form := clientFlag(c), filterFlags(c, true), outputFlag(c)
	limit := c.Flags().Int("limit", api.DefaultLimit, "how many at most; 0: all")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		q, err := filters()
		if err != nil {
			return err
		}
		if *limit < 0 {
			return usageError{errors.New("--limit: must be 0 or more")}
		}
		deaths := []death.Death{}
		for d, err := range cl.All(c.Context(), q) {
			if err != nil {
				return err
			}
			deaths = append(deaths, d)
			if len(deaths) == *limit {
				break
			}
		}
		if *form == formatJSON {
			return printJSON(c.OutOrStdout(), api.DeathsPage{Deaths: deaths})
		}
		if len(deaths) == 0 {
			_, _ = fmt.Fprintln(c.ErrOrStderr(), "coroner: no deaths")
			return nil
		}
		return table(c.OutOrStdout(), deaths)
	}
	return c
}

// columns head the listings.
func columns() []string {
	return []string{"TIME", "CAUSE", "CONFIDENCE", "WHERE", "KILLED", "REPEAT"}
}

func table(w io.Writer, deaths []death.Death) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	if _, err := fmt.Fprintln(tw, strings.Join(columns(), "\t")); err != nil {
		return err
	}
	for i := range deaths {
		if _, err := fmt.Fprintln(tw, strings.Join(line(&deaths[i]), "\t")); err != nil {
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
		Args: cobra.NoArgs,
	}
	client, filters, form := clientFlag(c), filterFlags(c, false), outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		q, err := filters()
		if err != nil {
			return err
		}
		cl.OnRetry = func(err error, wait time.Duration) {
			_, _ = fmt.Fprintf(c.ErrOrStderr(), "coroner: %v; trying again in %s\n", err, wait.Round(time.Millisecond))
		}
		return follow(c.Context(), cl, q, *form, c.OutOrStdout())
	}
	return c
}

func follow(ctx context.Context, cl *api.Client, q api.Query, form format, w io.Writer) error {
	causes := map[string]death.Cause{}
	return cl.Stream(ctx, q, "", func(_ string, d death.Death) error {
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
	})
}

func newWhy() *cobra.Command {
	c := &cobra.Command{
		Use:   "why TARGET",
		Short: "Say why a container or pod died",
		Long: `why prints the newest verdict for TARGET: a container by name, id or the id's first
digits, pod/NAME or NAMESPACE/POD[/CONTAINER], unit/NAME or a systemd unit's name, or
the id of a death.`,
		Example: `  coroner why web-1
  coroner why 3f1c9a5e7b2d
  coroner why shop/cart-7d9f/worker
  coroner why nginx.service`,
		Args: exactly(1, "one TARGET"),
	}
	client, form := clientFlag(c), outputFlag(c)
	all := c.Flags().Bool("all", false, "all of its deaths, newest first, not only the newest")
	c.RunE = func(c *cobra.Command, args []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		limit := 1
		if *all {
			limit = api.DefaultLimit
		}
		deaths, err := why(c.Context(), cl, args[0], limit)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(c.ErrOrStderr(), "coroner: by the agent at %s\n", cl.Address())
		return printDeaths(c.OutOrStdout(), *form, deaths)
	}
	return c
}

// why finds the deaths of what people call target.
func why(ctx context.Context, cl *api.Client, target string, limit int) ([]death.Death, error) {
	queries := meanings(target)
	if len(queries) == 0 {
		return nil, usageError{withHint(fmt.Errorf("%q names no container, pod or unit", target), "coroner why --help")}
	}
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
	if d, err := cl.Death(ctx, target); err == nil {
		return []death.Death{d}, nil
	} else if !errors.Is(err, api.ErrNotFound) {
		return nil, err
	}
	return nil, withHint(fmt.Errorf("no death of %q is known to the agent at %s", target, cl.Address()),
		"coroner list shows what it knows; it cannot know what happened before it ran, but for what the kernel's log still holds")
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
		return []api.Query{{Namespace: parts[0], Pod: parts[1]}}
	case len(parts) == 3:
		return []api.Query{{Namespace: parts[0], Pod: parts[1], Container: parts[2]}}
	}
	return []api.Query{{Container: target}, {Pod: target}, {Unit: target}}
}
