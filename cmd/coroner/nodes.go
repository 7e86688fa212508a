// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

// nodesTable has a line for each node, the one nearest to an eviction first,
// those of which that is not known last.
func nodesTable(w io.Writer, maps []api.NodeMap) error {
	maps = slices.Clone(maps)
	slices.SortStableFunc(maps, func(a, b api.NodeMap) int { return cmp.Compare(leftOf(&a), leftOf(&b)) })
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	rows := [][]string{{"NODE", "CAPACITY", "ALLOCATABLE", "WORKING SET", "KERNEL", "TO EVICTION", "EVICTED FIRST", "ADVICE"}}
	for i := range maps {
		rows = append(rows, nodeRow(&maps[i]))
	}
	for _, r := range rows {
		if _, err := fmt.Fprintln(tw, strings.Join(r, "\t")); err != nil {
			return err
		}
	}
	return tw.Flush()
}

func nodeRow(m *api.NodeMap) []string {
	size := func(kind string) string {
		if f, known := m.Memory[kind]; known {
			return death.FormatBytes(f.Bytes)
		}
		return "-"
	}
	left, first := "-", "-"
	if g := evicts(m); g != nil {
		left = death.FormatBytes(g.LeftBytes)
		if g.ETASeconds != nil {
			left += fmt.Sprintf(" (in %s)", time.Duration(*g.ETASeconds*float64(time.Second)).Round(time.Second))
		}
	}
	for i := range m.Pods {
		if m.Pods[i].EvictionRank == 1 {
			first = podTitle(&m.Pods[i].Pod)
		}
	}
	return []string{
		death.Printable(m.Node), size("capacity"), size("allocatable"), size("kubelet_working_set"), size("unaccounted"),
		left, first, fmt.Sprint(len(m.Advice)),
	}
}

// evicts is the line at which the kubelet evicts at once; nil: it is not known.
func evicts(m *api.NodeMap) *api.NodeGives {
	if i := slices.IndexFunc(m.Gives, func(g api.NodeGives) bool { return g.What == "eviction_hard" }); i >= 0 {
		return &m.Gives[i]
	}
	return nil
}

func leftOf(m *api.NodeMap) int64 {
	if g := evicts(m); g != nil {
		return g.LeftBytes
	}
	return math.MaxInt64
}
