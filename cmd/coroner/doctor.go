// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/host"
)

// finding is one line of the doctor's report.
type finding struct {
	host.Probe
	// Adds is what the signal is good for.
	Adds string `json:"adds"`
	// Needs is the smallest set of rights with which it worked, found by
	// taking rights away; absent where it does not work, or was not tried so.
	Needs *rights `json:"needs,omitempty"`
	// Missing is what it would need beyond the rights that there are.
	Missing *rights `json:"missing,omitempty"`

	set   host.CapSet
	apart bool
}

// report is what doctor prints.
type report struct {
	Kernel string `json:"kernel,omitempty"`
	// Identity and Capabilities are what doctor had itself.
	Identity     string    `json:"identity"`
	Capabilities []string  `json:"capabilities,omitempty"`
	Findings     []finding `json:"findings"`
	// Least are the fewest rights with which all works that works here, but for
	// engines, logs and escapes: what these need is as good as root.
	Least *rights `json:"least"`
}

func newDoctor() *cobra.Command {
	var roots host.Roots
	var history string
	var hosts engineHosts
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say which signals this machine offers, and how to get the others",
		Long: `doctor does for real what the agent does - reads a record of the log, loads and attaches
programs, makes a trace instance, reads counters, writes to the history's folder, asks
container engines - and undoes it. What works it does again with fewer rights, and says how few are enough. It has
the rights that it is given: run it as the agent will run. Exit code 1 means that no source
at all would work.`,
		Example: `  coroner doctor
  coroner doctor -o json
  setpriv --reuid 65534 --clear-groups --inh-caps +bpf,+perfmon,+syslog --ambient-caps +bpf,+perfmon,+syslog coroner doctor`,
		Args: cobra.NoArgs,
	}
	form := outputFlag(c)
	pathFlags(c.Flags(), &roots)
	c.Flags().StringVar(&history, "history.path", defaultHistory(), `file that the agent will keep deaths in; ":memory:": none`)
	c.Flags().StringArrayVar(&hosts.docker, "source.docker.host", nil, "socket of an engine with Docker's API; may be repeated (default: the usual places)")
	c.Flags().StringArrayVar(&hosts.containerd, "source.containerd.host", nil, "socket of containerd; may be repeated (default: the usual places)")
	c.Flags().StringArrayVar(&hosts.cri, "source.cri.endpoint", nil, "socket of a CRI runtime; may be repeated (default: the usual places)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		r := examine(roots, history, hosts)
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
	case probeHistory:
		return "deaths outlive the agent"
	case string(death.SourceDocker):
		return "names, images, labels, exit codes, and who was asked to stop"
	case string(death.SourceContainerd):
		return "names, images, labels and exit codes in all namespaces"
	case string(death.SourceCRI):
		return "names, pods, restart counts, exit codes and reasons"
	case probeLogs:
		return "the last lines of containers that failed: a runtime's own limit (heap_limit)"
	case probeEscapes:
		return "processes that their container's limit does not hold for"
	}
	return ""
}

// probeTracepoint is the finding of the tracepoint source as a whole.
const probeTracepoint = "tracepoint"

func examine(roots host.Roots, history string, hosts engineHosts) report {
	r := report{Identity: identity()}
	r.Kernel, _ = roots.KernelRelease()    // absent when not known
	have, _ := host.Roots{}.Capabilities() // its own, whatever procfs is examined
	r.Capabilities = have.Names()
	var tried []finding
	for _, t := range append(trials(roots, history), engineTrials(roots, hosts)...) {
		tried = append(tried, t.finding(have))
	}
	r.Findings = append(r.Findings, summed(tried))
	r.Findings = append(r.Findings, tried...)
	for _, p := range []host.Probe{roots.ProbeBTF(), roots.ProbeDmesgRestrict(), roots.ProbeLockdown()} {
		r.Findings = append(r.Findings, finding{Probe: p, Adds: adds(p.Name)})
	}
	r.Least = least(tried)
	return r
}

// summed is the tracepoint source as a whole: the first of its ways that works.
func summed(tried []finding) finding {
	tp := finding{Probe: host.Probe{Name: probeTracepoint, Status: host.No, Remedy: "see bpf and tracefs below"}, Adds: adds(probeTracepoint)}
	for _, f := range tried {
		way := f.Name == host.ProbeBPF || f.Name == host.ProbeTracefs
		if way && f.Status == host.Yes && tp.Status != host.Yes {
			tp.Probe = host.Probe{Name: probeTracepoint, Status: host.Yes, Detail: "mode " + f.Name}
		}
	}
	return tp
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
			text = strings.TrimPrefix(text+": "+f.Remedy, ": ")
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
	if err := tw.Flush(); err != nil {
		return err
	}
	return printLeast(w, r)
}

// printLeast prints the rights that are enough, and what more would add.
func printLeast(w io.Writer, r report) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "\nENOUGH, AS %s\tCAPABILITIES\tFILES\n", strings.ToUpper(r.Identity))
	for _, f := range r.Findings {
		if f.Needs != nil {
			fmt.Fprintf(tw, "%s\t%s\t%s\n", f.Name, orNone(f.Needs.Capabilities), strings.Join(f.Needs.Files, ", "))
		}
	}
	fmt.Fprintf(tw, "together\t%s\twithout engines, logs, escapes: what those need is as good as root\n", orNone(r.Least.Capabilities))
	titled := false
	for _, f := range r.Findings {
		if f.Missing == nil || len(f.Missing.Capabilities)+len(f.Missing.Files) == 0 {
			continue
		}
		if !titled {
			fmt.Fprintf(tw, "\nMISSING FOR\tRIGHTS\tWOULD ADD\n")
			titled = true
		}
		lacking := append(slices.Clone(f.Missing.Capabilities), f.Missing.Files...)
		fmt.Fprintf(tw, "%s\t%s\t%s\n", f.Name, strings.Join(lacking, ", "), f.Adds)
	}
	return tw.Flush()
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, " ")
}
