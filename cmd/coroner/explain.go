// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/signal"
	"github.com/coroner-dev/coroner/internal/source/kmsg"
)

func newExplain() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain [FILE...]",
		Short: "Explain the OOM kills in a kernel log",
		Long: `explain reads kernel logs in any form - raw /dev/kmsg records, dmesg plain or -T,
journalctl as text or json, syslog, also gzipped - and prints the OOM kills in them,
oldest first. "-", or no FILE, is standard input. It needs no privileges and no Linux.`,
		Example: `  dmesg | coroner explain
  coroner explain /var/log/kern.log /var/log/kern.log.2.gz
  journalctl -k -b -1 -o json | coroner explain -o json -`,
	}
	form := outputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			args = []string{"-"}
		}
		var all []death.Death
		for _, name := range args {
			deaths, err := explain(name, c.InOrStdin(), c.ErrOrStderr())
			if err != nil {
				return err
			}
			all = append(all, deaths...)
		}
		sort.SliceStable(all, func(i, j int) bool { return all[i].Time.Before(all[j].Time) })
		return printDeaths(c.OutOrStdout(), *form, all)
	}
	return c
}

// explain runs the inquest over one log.
func explain(name string, stdin io.Reader, stderr io.Writer) ([]death.Death, error) {
	in, err := openInput(name, stdin)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	shown := name
	if name == "-" {
		shown = "standard input"
	}
	q := inquest.New(inquest.Options{MaxCases: 1 << 16})
	deaths := newLatest()
	opts := kmsg.FileOptions{Now: time.Now(), Progress: progressOf(in, stderr)}
	stats, err := kmsg.ReadFile(in, opts, func(s signal.Signal) {
		if s.Observed.IsZero() {
			s.Observed = s.Time
		}
		q.Tick(s.Observed)
		q.Feed(s)
		deaths.take(q.Take())
	})
	opts.Progress(-1)
	if err != nil {
		return nil, withHint(fmt.Errorf("%s: %w", shown, err), "explain reads kernel logs: dmesg, journalctl -k, /var/log/kern.log, gzipped or not")
	}
	deaths.take(q.Close())
	if len(deaths.list) == 0 {
		_, _ = fmt.Fprintf(stderr, "coroner: %s: no OOM kill in %d lines\n", shown, stats.Lines)
	}
	return deaths.list, nil
}

// openInput opens a file, or standard input for "-".
func openInput(name string, stdin io.Reader) (io.ReadCloser, error) {
	if name == "-" {
		if f, ok := stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return nil, usageError{withHint(errors.New("standard input is a terminal"), "give a FILE, or pipe something in: dmesg | coroner explain")}
		}
		return io.NopCloser(stdin), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err == nil && st.IsDir() {
		_ = f.Close()
		return nil, fmt.Errorf("%s: is a directory: give a file", name)
	}
	return f, nil
}

// showProgressFrom is the size from which a terminal sees progress.
const showProgressFrom = 16 << 20

// progressOf shows on a terminal how much of a large file is read; called
// with -1 it clears its line.
func progressOf(in io.Reader, stderr io.Writer) func(read int64) {
	f, isFile := in.(*os.File)
	t, isTerm := stderr.(*os.File)
	if !isFile || !isTerm || !term.IsTerminal(int(t.Fd())) {
		return func(int64) {}
	}
	st, err := f.Stat()
	if err != nil || st.Size() < showProgressFrom {
		return func(int64) {}
	}
	last := -1
	return func(read int64) {
		if read < 0 {
			_, _ = fmt.Fprint(stderr, "\r\x1b[K")
			return
		}
		if percent := int(read * 100 / st.Size()); percent != last {
			last = percent
			_, _ = fmt.Fprintf(stderr, "\rcoroner: %s %d %%", f.Name(), percent)
		}
	}
}

// latest keeps the last revision of each death, in order of their opening.
type latest struct {
	list []death.Death
	at   map[string]int
}

func newLatest() *latest { return &latest{at: map[string]int{}} }

func (l *latest) take(ds []death.Death) {
	for _, d := range ds {
		if i, known := l.at[d.ID]; known {
			l.list[i] = d
			continue
		}
		l.at[d.ID] = len(l.list)
		l.list = append(l.list, d)
	}
}
