// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coroner-dev/coroner/internal/cluster"
)

// Set by the linker (Makefile).
var (
	version  = ""
	revision = ""
)

// The command line's manners: results go to standard output, everything else
// to standard error, with the program's name in front, in lower case and
// without a full stop; a line that begins with "hint:" says what to do.

// usageError is a mistake in the command line: exit code 2.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// hinted is an error with the remedy.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// withHint adds the remedy to err.
func withHint(err error, format string, args ...any) error {
	return hinted{err, fmt.Sprintf(format, args...)}
}

func complain(w io.Writer, err error) {
	_, _ = fmt.Fprintf(w, "coroner: %s\n", safe(oneLine(err.Error())))
	var e *cluster.Error
	if errors.As(err, &e) && e.Remedy != "" {
		_, _ = fmt.Fprintf(w, "coroner: hint: %s\n", safe(oneLine(e.Remedy)))
	}
	for h := (hinted{}); errors.As(err, &h); err = h.error {
		_, _ = fmt.Fprintf(w, "coroner: hint: %s\n", h.hint)
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

const reached = "reached"

// reachedCommand tells whether the command line was understood: what fails
// before a command begins is wrong usage.
func reachedCommand(root *cobra.Command) bool { return root.Annotations[reached] != "" }

// pluginName is what this program is called where kubectl starts it.
const pluginName = "kubectl-coroner"

// isPlugin tells whether kubectl started this program.
func isPlugin(root *cobra.Command) bool {
	return root.Annotations[cobra.CommandDisplayNameAnnotation] != ""
}

// newRoot makes the command line of a program that was started under a name.
func newRoot(name string) *cobra.Command {
	root := &cobra.Command{
		Use:   "coroner",
		Short: "Says why a container died",
		Long: `coroner takes in every trace that a death leaves on a Linux machine - kernel log,
tracepoints, cgroup counters - and gives each death one verdict with its evidence.`,
		Example: `  coroner demo                       make a real OOM kill and see it explained
  coroner agent                      watch this node; metrics, API and pages on :3001
  coroner why web-1                  why that container died
  dmesg | coroner explain -          the OOM kills in a kernel log, on any system`,
		Version:       versionText(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Annotations:   map[string]string{},
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	if strings.TrimSuffix(filepath.Base(name), ".exe") == pluginName {
		root.Annotations[cobra.CommandDisplayNameAnnotation] = strings.Replace(pluginName, "-", " ", 1)
	}
	root.PersistentPreRun = func(*cobra.Command, []string) { root.Annotations[reached] = "yes" }
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{withHint(err, "%s --help", c.CommandPath())}
	})
	root.SetVersionTemplate("{{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(
		newAgent(), newExplain(), newWhy(), newList(), newWatch(), newNode(),
		newDoctor(), newDemo(), newLeak(), newRecord(), newReplay(), newRules(), newDashboard(),
	)
	return root
}

// build is what this program was made of.
func build() (ver, rev string) {
	ver, rev = version, revision
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ver, rev
	}
	if ver == "" {
		ver = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && rev == "" {
			rev = s.Value
		}
	}
	return ver, rev
}

func versionText() string {
	ver, rev := build()
	if rev == "" {
		return "coroner " + ver
	}
	return fmt.Sprintf("coroner %s (%s)", ver, rev)
}

// exactly is cobra.ExactArgs with a hint of what is meant.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{withHint(fmt.Errorf("%s takes %s", c.CommandPath(), what), "%s --help", c.CommandPath())}
		}
		return nil
	}
}

// atMost is cobra.MaximumNArgs with a hint of what is meant.
func atMost(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > n {
			return usageError{withHint(fmt.Errorf("%s takes %s", c.CommandPath(), what), "%s --help", c.CommandPath())}
		}
		return nil
	}
}
