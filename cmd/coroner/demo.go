// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/signal"
	"github.com/coroner-dev/coroner/internal/source/kmsg"
)

// recordedKill is a real report of a Debian 12 machine, for where no kill can
// be made.
//
//go:embed demo.kmsg
var recordedKill string

// demoWait bounds the whole demonstration.
const demoWait = 20 * time.Second

// errNoRights says that a real kill cannot be made here.
var errNoRights = errors.New("no real kill here")

func newDemo() *cobra.Command {
	o := agent.Defaults()
	c := &cobra.Command{
		Use:   "demo",
		Short: "Make a real OOM kill in a cgroup of its own and show the verdict",
		Long: `demo makes a control group with a memory limit of 32 MiB, lets coroner leak run into it
as the first process of a pid namespace (as a container's is), shows the verdict, and
removes the group. Without the rights to do that it explains a recorded kill instead.`,
		Example: `  coroner demo
  coroner demo -o json`,
		Args: cobra.NoArgs,
	}
	form := outputFlag(c)
	sourceFlags(c.Flags(), &o)
	pathFlags(c.Flags(), &o.Path)
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(c.Context(), demoWait)
		defer cancel()
		say := func(format string, args ...any) {
			_, _ = fmt.Fprintf(c.ErrOrStderr(), "coroner: "+format+"\n", args...)
		}
		d, err := demoKill(ctx, o, say)
		if errors.Is(err, errNoRights) {
			say("%v", err)
			say("explaining a recorded kill instead")
			deaths, err := explainText(recordedKill)
			if err != nil {
				return err
			}
			return printDeaths(c.OutOrStdout(), *form, deaths, nil)
		}
		if err != nil {
			return err
		}
		return printDeaths(c.OutOrStdout(), *form, []death.Death{d}, nil)
	}
	return c
}

// demoKill makes the kill and returns the settled verdict.
func demoKill(ctx context.Context, o agent.Options, say func(string, ...any)) (death.Death, error) {
	load, err := prepareLoad(o.Path)
	if err != nil {
		return death.Death{}, err
	}
	defer load.cleanUp(say)
	w := newWitness(load.cgroup)
	watch, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	ready := make(chan []api.SourceStatus, 1)
	go func() {
		defer close(ended)
		agent.ObserveStarted(watch, o, w.emit, func(s []api.SourceStatus) { ready <- s })
	}()
	defer func() {
		stop()
		w.discard(ended)
	}()
	select {
	case sources := <-ready:
		say("watching with %s", sourceNames(sources))
	case <-ctx.Done():
		return death.Death{}, errors.New("no source answered in time")
	}
	say("coroner leak (pid %d) grows in %s, limit %s", load.pid(), load.cgroup, death.FormatBytes(demoLimit))
	if err := load.release(); err != nil {
		return death.Death{}, err
	}
	return w.verdict(ctx, say)
}

func sourceNames(ss []api.SourceStatus) string {
	var up []string
	for _, s := range ss {
		switch {
		case s.Up && s.Mode != "" && s.Mode != string(s.Name):
			up = append(up, fmt.Sprintf("%s (%s)", s.Name, s.Mode))
		case s.Up:
			up = append(up, string(s.Name))
		}
	}
	if len(up) == 0 {
		return "no source: see coroner doctor"
	}
	return strings.Join(up, ", ")
}

// witness runs an inquest for the death in one cgroup.
type witness struct {
	cgroup string
	in     chan signal.Signal
}

func newWitness(cgroup string) *witness {
	return &witness{cgroup: cgroup, in: make(chan signal.Signal, 1024)}
}

func (w *witness) emit(s signal.Signal) { w.in <- s }

// discard takes what the sources still say until they have ended.
func (w *witness) discard(ended <-chan struct{}) {
	for {
		select {
		case <-w.in:
		case <-ended:
			return
		}
	}
}

// demoAmend is how long the verdict waits for evidence after its first word.
const demoAmend = 300 * time.Millisecond

// verdict waits for the death, and a moment for what amends it.
func (w *witness) verdict(ctx context.Context, say func(string, ...any)) (death.Death, error) {
	q := inquest.New(inquest.Options{})
	var last death.Death
	var enough <-chan time.Time
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case s := <-w.in:
			q.Feed(s)
		case now := <-ticker.C:
			q.Tick(now)
		case <-enough:
			return last, nil
		case <-ctx.Done():
			return death.Death{}, withHint(errors.New("no source saw the kill"), "coroner doctor")
		}
		for _, d := range q.Take() {
			if d.OOM == nil || !strings.HasPrefix(d.OOM.TaskMemcg, w.cgroup) {
				continue
			}
			if last.ID == "" {
				say("first word %s after the kill", time.Since(d.Time).Round(10*time.Microsecond))
				enough = time.After(demoAmend)
			}
			last = d
		}
	}
}

// explainText explains a log that is at hand.
func explainText(text string) ([]death.Death, error) {
	q := inquest.New(inquest.Options{})
	deaths := newLatest()
	_, err := kmsg.ReadFile(io.NopCloser(strings.NewReader(text)), kmsg.FileOptions{Now: time.Now()}, func(s signal.Signal) {
		q.Feed(s)
		deaths.take(q.Take())
	})
	deaths.take(q.Close())
	return deaths.list, err
}
