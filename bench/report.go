// SPDX-License-Identifier: Apache-2.0

package bench

import (
	_ "embed"
	"fmt"
	"strings"
)

// notes are what people wrote about rows: a heading "## ID" and text below.
//
//go:embed notes.md
var notes string

// Report is docs/benchmarks.md in the making.
type Report struct {
	// Machine are lines of what was measured where, when and how.
	Machine []string
	Results map[string]Result
	// Profiles are the largest costs, as Markdown.
	Profiles []string
}

const head = `<!-- Made by "make bench" from bench/. Do not edit: what is said about a row is in bench/notes.md. -->

# Benchmarks

`

// Missing are the rows without a result.
func (r *Report) Missing() []string {
	var out []string
	for _, row := range Rows() {
		if _, ok := r.Results[row.ID]; !ok {
			out = append(out, row.ID)
		}
	}
	return out
}

// Markdown is the whole file.
func (r *Report) Markdown() string {
	var b strings.Builder
	b.WriteString(head)
	for _, l := range r.Machine {
		b.WriteString("- " + l + "\n")
	}
	said := Notes()
	var missed []Row
	section := ""
	for _, row := range Rows() {
		if row.Section != section {
			section = row.Section
			fmt.Fprintf(&b, "\n## %s\n\n", section)
			if n := said[section]; n != "" {
				b.WriteString(n + "\n\n")
			}
			b.WriteString("| row | what | figure | goal | met |\n|---|---|---|---|---|\n")
		}
		res, ok := r.Results[row.ID]
		figure, met := "not measured", "–"
		if ok {
			figure = strings.TrimSpace(row.figures(res.Values) + " " + bracketed(res.Remark))
		}
		switch {
		case row.Goal == nil || !ok:
		case row.met(res.Values):
			met = "yes"
		default:
			met = "**no**"
			missed = append(missed, row)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", row.ID, row.What, figure, row.goal(), met)
	}
	b.WriteString("\n## What is missed, why, and what would reach it\n\n")
	if len(missed) == 0 {
		b.WriteString("Nothing.\n")
	}
	for _, row := range missed {
		why := said[row.ID]
		if why == "" {
			why = "Not looked into yet: bench/notes.md has no word on it."
		}
		fmt.Fprintf(&b, "- `%s`: %s\n", row.ID, why)
	}
	b.WriteString("\n## Where the largest costs are\n\n" + said["costs"] + "\n")
	for _, p := range r.Profiles {
		b.WriteString("\n" + strings.TrimSpace(p) + "\n")
	}
	b.WriteString("\n## What was removed\n\n" + said["removed"] + "\n")
	return b.String()
}

func bracketed(s string) string {
	if s == "" {
		return ""
	}
	return "(" + s + ")"
}

// Notes are what notes.md says, by row, section or place.
func Notes() map[string]string {
	out := map[string]string{}
	for _, part := range strings.Split(notes, "\n## ")[1:] {
		name, text, _ := strings.Cut(part, "\n")
		out[name] = strings.TrimSpace(text)
	}
	return out
}
