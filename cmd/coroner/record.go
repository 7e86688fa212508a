// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/signal"
)

func newRecord() *cobra.Command {
	o := agent.Defaults()
	var length time.Duration
	c := &cobra.Command{
		Use:   "record FILE",
		Short: "Write the signals of this node to a file",
		Long: `record writes what the sources see to FILE ("-": standard output) until it is told to
end, and what a verdict needs beside it: the memory of containers that died, and the last
lines of their logs. coroner replay then runs the inquest over it. The file holds names of
processes and control groups of this machine, and those lines.`,
		Example: `  coroner record incident.signals
  coroner record --for 1m - | gzip > incident.signals.gz`,
		Args: exactly(1, "one FILE"),
	}
	logger := logFlags(c)
	sourceFlags(c.Flags(), &o)
	pathFlags(c.Flags(), &o.Path)
	c.Flags().DurationVar(&length, "for", 0, "end after this time; 0: when told to")
	c.RunE = func(c *cobra.Command, args []string) error {
		o.Logger = logger()
		ctx := c.Context()
		if length > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, length)
			defer cancel()
		}
		return record(ctx, o, args[0], c.OutOrStdout(), c.ErrOrStderr())
	}
	return c
}

func record(ctx context.Context, o agent.Options, name string, stdout, stderr io.Writer) (err error) {
	out := stdout
	if name != "-" {
		f, ferr := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if ferr != nil {
			if errors.Is(ferr, fs.ErrExist) {
				return withHint(ferr, "record overwrites nothing: give another name, or remove the file")
			}
			return withHint(ferr, "give the name of a file that can be made, or - for standard output")
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	ver, _ := build()
	header := signal.Header{Agent: ver}
	header.Node, _ = o.Path.Hostname() // absent when not known
	header.Kernel, _ = o.Path.KernelRelease()
	header.BootID, _ = o.Path.BootID()
	buffered := bufio.NewWriter(out)
	w, err := signal.NewWriter(buffered, header)
	if err != nil {
		return err
	}
	count := 0
	var failed error
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	agent.Record(ctx, o, func(s signal.Signal) {
		if failed != nil {
			return
		}
		if failed = w.Write(s); failed != nil {
			stop()
			return
		}
		count++
	})
	_, _ = fmt.Fprintf(stderr, "coroner: %d signals recorded\n", count)
	if failed != nil {
		return fmt.Errorf("write %s: %w", name, failed)
	}
	return buffered.Flush()
}

func newReplay() *cobra.Command {
	c := &cobra.Command{
		Use:   "replay FILE",
		Short: "Run the inquest over a file of signals",
		Long: `replay prints the deaths that a file made by coroner record holds, oldest first.
The same file always gives the same deaths.`,
		Example: `  coroner replay incident.signals
  zcat incident.signals.gz | coroner replay -o json -`,
		Args: exactly(1, "one FILE"),
	}
	form := outputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		in, err := openInput(args[0], c.InOrStdin())
		if err != nil {
			return err
		}
		defer func() { _ = in.Close() }()
		r, err := signal.NewReader(untilDone(c.Context(), in))
		if err != nil {
			return withHint(fmt.Errorf("%s: %w", args[0], err), "a gzipped recording goes through a pipe: zcat FILE | coroner replay -")
		}
		deaths, failed := replay(r)
		if r.Skipped > 0 {
			_, _ = fmt.Fprintf(c.ErrOrStderr(), "coroner: %d signals of kinds that this version does not know were skipped\n", r.Skipped)
		}
		if failed != nil {
			failed = withHint(fmt.Errorf("%s: %w", args[0], failed), "what could be read before that is told above")
		}
		return errors.Join(failed, printDeaths(c.OutOrStdout(), *form, deaths, nil))
	}
	return c
}

// replay runs the inquest over a recording, as far as it can be read.
func replay(r *signal.Reader) ([]death.Death, error) {
	q := inquest.New(inquest.Options{Node: r.Header.Node, BootID: r.Header.BootID})
	deaths := newLatest()
	for {
		s, err := r.Read()
		if err != nil {
			deaths.take(q.Close())
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return deaths.oldestFirst(), err
		}
		q.Tick(s.Observed)
		q.Feed(s)
		deaths.take(q.Take())
	}
}
