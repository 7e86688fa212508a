// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

// maxNodeLines bounds the lines of each list of the map; -o json has all.
const maxNodeLines = 10

func newNode() *cobra.Command {
	c := &cobra.Command{
		Use:   "node [NODE]",
		Short: "Show where the node's memory is, and who goes first when it ends",
		Long: `node prints the memory map of the agent's node: what there is, what is set aside,
what pods, containers and units hold and what no cgroup has, with its growth over
the last minutes; whom the kubelet would evict and the kernel kill first; what other
programs show for the same memory, and why they differ. Of a cluster NODE says which
agent is asked, and without it all are: a line for each node, the one nearest to an
eviction first. Else NODE must be the agent's own.`,
		Example: `  coroner node
  coroner node --context production
  coroner node worker-3 --context production
  coroner node worker-3 --server http://worker-3:3001
  coroner node -o json | jq .memory.unaccounted`,
		Args: atMost(1, "at most one NODE"),
	}
	whom, form := whomFlags(c), outputFlag(c)
	completeNodes(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		from, err := whom(c.Context())
		if err != nil {
			return err
		}
		maps, err := from.nodes(c.Context(), strings.Join(args, ""))
		if err != nil {
			return err
		}
		by := from.by()
		announce(c.ErrOrStderr(), &by)
		all := by.Who != api.WhoAgent && len(args) == 0
		switch {
		case all && *form == formatJSON:
			return printJSON(c.OutOrStdout(), api.Nodes{Nodes: maps, By: &by})
		case all:
			return nodesTable(c.OutOrStdout(), maps)
		case *form == formatJSON:
			return printJSON(c.OutOrStdout(), maps[0])
		}
		return nodeText(c.OutOrStdout(), &maps[0])
	}
	return c
}

// nodeText is a map for people at a terminal.
func nodeText(w io.Writer, m *api.NodeMap) error {
	t := nodeWriter{Writer: tabwriter.NewWriter(w, 0, 8, 2, ' ', 0), m: m}
	head := "memory of " + death.Printable(m.Node)
	if m.GrowthSeconds > 0 {
		head += fmt.Sprintf("; growth is over %s", time.Duration(m.GrowthSeconds*float64(time.Second)).Round(time.Second))
	}
	t.line("%s", head)
	t.figures()
	t.holders()
	t.pods()
	t.candidates("OOM-killed first, if the machine ran out of memory", m.OOMOrder)
	t.candidates("OOM-killed first, if the limit of all pods were reached", m.PodsOOMOrder)
	t.ends()
	for _, l := range []struct {
		name  string
		lines []string
	}{{"advice", m.Advice}, {"not known", m.Notes}} {
		t.list(l.name, len(l.lines))
		for _, s := range l.lines {
			t.line("  %s", safe(s))
		}
	}
	return t.Flush()
}

type nodeWriter struct {
	*tabwriter.Writer
	m *api.NodeMap
}

func (t *nodeWriter) line(format string, args ...any) {
	fmt.Fprintln(t.Writer, strings.TrimRight(fmt.Sprintf(format, args...), "\t "))
}

// list heads a list, if there is something in it.
func (t *nodeWriter) list(name string, n int) {
	if n > 0 {
		t.line("\n%s", name)
	}
}

// more says how many of a list are not shown, and tells whether i is one of them.
func (t *nodeWriter) more(i, n int) bool {
	if i < maxNodeLines {
		return false
	}
	t.line("  and %d more", n-i)
	return true
}

func (t *nodeWriter) figures() {
	for _, k := range api.NodeKinds() {
		f, known := t.m.Memory[k.ID]
		if !known {
			continue
		}
		from := ""
		if f.Computed {
			from = "computed: " + safe(f.From)
		}
		if grew := change(f.GrowthBytes); grew != "" || from != "" {
			t.line("  %s\t%s\t%s\t%s", k.Title, death.FormatBytes(f.Bytes), grew, from)
		} else {
			t.line("  %s\t%s", k.Title, death.FormatBytes(f.Bytes))
		}
	}
	for _, e := range t.m.Thresholds {
		if e.Setting != "" {
			grace := ""
			if e.GraceSeconds > 0 {
				grace = fmt.Sprintf(" for %s", time.Duration(e.GraceSeconds*float64(time.Second)))
			}
			t.line("  eviction, %s: memory.available < %s (%s)%s", safe(e.Kind), death.Printable(e.Setting), death.FormatBytes(e.Bytes), grace)
		}
	}
}

// change is growth with its sign; empty where it is none, or not known.
func change(n *int64) string {
	switch {
	case n == nil || *n > -(1<<20) && *n < 1<<20:
		return ""
	case *n > 0:
		return "+" + death.FormatBytes(*n)
	}
	return death.FormatBytes(*n)
}

func (t *nodeWriter) holders() {
	t.list("outside of pods", len(t.m.Groups))
	for i := range t.m.Groups {
		g := &t.m.Groups[i]
		if t.more(i, len(t.m.Groups)) {
			break
		}
		limit := ""
		if g.LimitBytes != nil {
			limit = "limit " + death.FormatBytes(*g.LimitBytes)
		}
		t.line("  %s\t%s\t%s\t%s", death.FormatBytes(g.WorkingSetBytes), change(g.GrowthBytes), death.Printable(g.Name), strings.TrimSpace(safe(g.Kind)+" "+limit))
	}
}

func (t *nodeWriter) pods() {
	t.list("pods, as the kubelet would evict them", len(t.m.Pods))
	for i := range t.m.Pods {
		p := &t.m.Pods[i]
		if t.more(i, len(t.m.Pods)) {
			break
		}
		rank := "-"
		if p.EvictionRank > 0 {
			rank = fmt.Sprint(p.EvictionRank)
		}
		var notes []string
		if p.Priority != nil {
			notes = append(notes, fmt.Sprintf("priority %d", *p.Priority))
		}
		if o := p.OverRequestBytes; o != nil {
			notes = append(notes, fmt.Sprintf("request %s, %s", death.FormatBytes(*p.RequestBytes), over(*o)))
		}
		if p.Critical {
			notes = append(notes, "critical: not evicted")
		}
		t.line("  %s\t%s\t%s\t%s %s\t%s", rank, death.FormatBytes(p.WorkingSetBytes), change(p.GrowthBytes), podTitle(&p.Pod), safe(p.QoSClass), strings.Join(notes, ", "))
	}
}

func over(n int64) string {
	if n <= 0 {
		return death.FormatBytes(-n) + " below"
	}
	return death.FormatBytes(n) + " over"
}

func podTitle(p *death.Pod) string {
	if p.Name == "" {
		return death.Printable(p.UID)
	}
	return death.Printable(p.Namespace + "/" + p.Name)
}

func (t *nodeWriter) candidates(head string, cs []api.OOMCandidate) {
	t.list(head, len(cs))
	for i := range cs {
		c := &cs[i]
		if t.more(i, len(cs)) {
			break
		}
		whose := death.Printable(c.Unit)
		switch {
		case c.Pod != nil:
			whose = "pod " + podTitle(c.Pod)
			if c.Container != "" {
				whose += ", container " + death.Printable(c.Container)
			}
		case c.Container != "":
			whose = "container " + death.Printable(c.Container)
		}
		t.line("  %s\tpid %d\tscore %d\t%s\toom_score_adj %d\t%s", death.Printable(c.Comm), c.PID, c.OOMScore,
			death.FormatBytes(c.RSSBytes+c.SwapBytes+c.PageTablesBytes), c.OOMScoreAdj, whose)
	}
}

// ends tells what can be reached, and what the tools show.
func (t *nodeWriter) ends() {
	t.list("what gives, the nearest first", len(t.m.Gives))
	for _, g := range t.m.Gives {
		eta := ""
		if g.ETASeconds != nil {
			eta = fmt.Sprintf(" (in %s, as it grows now)", time.Duration(*g.ETASeconds*float64(time.Second)).Round(time.Second))
		}
		t.line("  %s\t%s left%s: %s", safe(g.What), death.FormatBytes(g.LeftBytes), eta, safe(g.Then))
	}
	if o := t.m.Overcommit; o != nil {
		t.line("  %s", safe(o.Summary))
	}
	t.list("what other programs show", len(t.m.Tools))
	for _, f := range t.m.Tools {
		part := ""
		if f.Percent != nil {
			part = fmt.Sprintf(" (%.1f %% of %s)", *f.Percent, safe(f.Of))
		}
		t.line("  %s: %s%s: %s", safe(f.Tool), death.FormatBytes(f.Bytes), part, safe(f.Why))
	}
}
