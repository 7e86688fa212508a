// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
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
		all := newLatest()
		var failed error
		for _, name := range args {
			err := explain(c.Context(), name, c.InOrStdin(), c.ErrOrStderr(), all)
			failed = errors.Join(failed, err)
		}
		if failed != nil && len(all.list) == 0 {
			return failed
		}
		found := all.oldestFirst()
		if *form == formatJSON {
			unknownTimes(found)
		}
		// What was found is told, also when a file could not be read to its end.
		return errors.Join(failed, printDeaths(c.OutOrStdout(), *form, found, nil))
	}
	return c
}

// unknownTimes takes out the times of a log that has none: they count from
// 1970 there, and their differences alone are true.
func unknownTimes(deaths []death.Death) {
	for i := range deaths {
		d := &deaths[i]
		if d.Time.Year() > 1971 {
			continue
		}
		d.Time, d.ObservedAt = time.Time{}, time.Time{}
		if d.Repeat != nil {
			d.Repeat = &death.Repeat{Count: d.Repeat.Count}
		}
		for j := range d.Evidence {
			d.Evidence[j].Time = time.Time{}
		}
	}
}

// explain runs the inquest over one log and adds to deaths what it finds. The
// same death found in two logs is one.
func explain(ctx context.Context, name string, stdin io.Reader, stderr io.Writer, deaths *latest) error {
	in, err := openInput(name, stdin)
	if err != nil {
		return withHint(err, "give the name of a kernel log, or - for standard input")
	}
	defer func() { _ = in.Close() }()
	known := len(deaths.list)
	shown := name
	if name == "-" {
		shown = "standard input"
	}
	q := inquest.New(inquest.Options{MaxCases: 1 << 16})
	opts := kmsg.FileOptions{Now: time.Now(), Location: time.Local, Progress: progressOf(in, stderr)}
	stats, err := kmsg.ReadFile(untilDone(ctx, in), opts, func(s signal.Signal) {
		if s.Observed.IsZero() {
			s.Observed = s.Time
		}
		q.Tick(s.Observed)
		q.Feed(s)
		deaths.take(q.Take())
	})
	opts.Progress(-1)
	deaths.take(q.Close())
	switch {
	case err != nil:
		return withHint(fmt.Errorf("%s: %w", shown, err), "explain reads kernel logs: dmesg, journalctl -k, /var/log/kern.log, gzipped or not")
	case stats.Kills == 0 && stats.Framed == 0:
		return withHint(fmt.Errorf("%s: none of its %d lines has the form of a kernel log", shown, stats.Lines),
			"explain reads dmesg, dmesg -T, journalctl -k (also -o json), syslog and /dev/kmsg records; not json-pretty, export, verbose or coloured output")
	case len(deaths.list) == known && stats.Kills == 0:
		_, _ = fmt.Fprintf(stderr, "coroner: %s: no OOM kill in %d lines\n", shown, stats.Lines)
	}
	return nil
}

// untilDone ends a reader that waits for input (a pipe, a device) when ctx
// ends. The read itself cannot be broken: it is left to the program's end,
// which follows.
func untilDone(ctx context.Context, in io.Reader) io.Reader {
	if f, ok := in.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			return in
		}
	}
	pr, pw := io.Pipe()
	context.AfterFunc(ctx, func() { pw.CloseWithError(context.Cause(ctx)) })
	go func() {
		_, err := io.Copy(pw, in)
		pw.CloseWithError(err)
	}()
	return pr
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

// oldestFirst gives them by when they happened, which is not always how they
// became known. Nothing is taken after it.
func (l *latest) oldestFirst() []death.Death {
	slices.SortStableFunc(l.list, func(a, b death.Death) int { return a.Time.Compare(b.Time) })
	return l.list
}

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
