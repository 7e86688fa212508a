// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/source/tracepoint"
)

// finding is one line of the doctor's report.
type finding struct {
	host.Probe
	// Adds is what the signal is good for.
	Adds string `json:"adds"`
}

// report is what doctor prints.
type report struct {
	Kernel   string    `json:"kernel,omitempty"`
	Findings []finding `json:"findings"`
}

func newDoctor() *cobra.Command {
	var roots host.Roots
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say which signals this machine offers, and how to get the others",
		Long: `doctor tries what the agent's sources need, with the rights that it has itself: run it
as the agent will run. Exit code 1 means that no source at all would work.`,
		Example: `  coroner doctor
  coroner doctor -o json`,
		Args: cobra.NoArgs,
	}
	form := outputFlag(c)
	pathFlags(c.Flags(), &roots)
	c.RunE = func(c *cobra.Command, _ []string) error {
		r := examine(roots)
		if *form == formatJSON {
			if err := printJSON(c.OutOrStdout(), r); err != nil {
				return err
			}
		} else if err := printReport(c.OutOrStdout(), r); err != nil {
			return err
		}
		if !r.works() {
			return withHint(fmt.Errorf("no source works with these rights"), "run as root, or give what the remedies above say")
		}
		return nil
	}
	return c
}

// adds says what each probe is good for.
func adds(name string) string {
	switch name {
	case probeTracepoint:
		return "each kill at once, on its cgroup, with its sender; never rate limited"
	case host.ProbeKmsg:
		return "whose limit, usage, breakdown and the task table; kills from before the agent ran"
	case host.ProbeCgroup:
		return "how many kills, in the end: the audit of the others"
	case host.ProbeVMStat:
		return "the machine's own count: proof that nothing was missed"
	case host.ProbeBPF, host.ProbeBTF:
		return "tracepoints with the victim's cgroup taken in the kernel"
	case host.ProbeTracefs:
		return "tracepoints without BPF"
	case host.ProbeLockdown:
		return "reading kernel memory (BPF) and tracefs"
	case host.ProbeDmesgRestrict:
		return "the kernel's log without CAP_SYSLOG"
	}
	return ""
}

// probeTracepoint is the finding of the tracepoint source as a whole.
const probeTracepoint = "tracepoint"

func examine(roots host.Roots) report {
	var r report
	r.Kernel, _ = roots.KernelRelease() // absent when not known
	mode, err := tracepoint.Probe(tracepoint.Options{Roots: roots})
	tp := host.Probe{Name: probeTracepoint, Status: host.Yes, Detail: "mode " + mode}
	if err != nil {
		tp.Status, tp.Detail, tp.Remedy = host.No, err.Error(), "see bpf and tracefs below"
	}
	for _, p := range append([]host.Probe{tp}, roots.Probes()...) {
		r.Findings = append(r.Findings, finding{p, adds(p.Name)})
	}
	return r
}

// works tells whether at least one source can tell of kills.
func (r report) works() bool {
	for _, f := range r.Findings {
		switch f.Name {
		case probeTracepoint, host.ProbeKmsg, host.ProbeCgroup:
			if f.Status == host.Yes {
				return true
			}
		}
	}
	return false
}

func printReport(w io.Writer, r report) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	rows := [][3]string{{"SIGNAL", "HERE", "WHAT IT ADDS, OR HOW TO GET IT"}}
	for _, f := range r.Findings {
		text := f.Detail
		if f.Status != host.Yes && f.Remedy != "" {
			text += ": " + f.Remedy
		}
		rows = append(rows, [3]string{f.Name, string(f.Status), f.Adds})
		if text != "" {
			rows = append(rows, [3]string{"", "", "  " + oneLine(text)})
		}
	}
	for _, row := range rows {
		if _, err := fmt.Fprintf(tw, "%s\t%s\t%s\n", row[0], row[1], row[2]); err != nil {
			return err
		}
	}
	return tw.Flush()
}
