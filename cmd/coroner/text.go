// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coroner-dev/coroner/internal/death"
)

// maxProcessLines bounds the processes that a text lists.
const maxProcessLines = 12

// deathText is one death for people at a terminal.
func deathText(d *death.Death) string {
	var b strings.Builder
	b.WriteString(safe(strings.TrimSpace(d.Summary+"  "+confidenceNote(d))) + "\n")
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-10s %s\n", name, safe(fmt.Sprintf(format, args...)))
	}
	row("when", "%s%s", stamp(d.Time), on(d))
	rule := ""
	if d.Rule != "" { // the API's word alone needs none
		rule = ", rule " + d.Rule
	}
	row("cause", "%s (%s)%s", d.Cause, d.Confidence, rule)
	if c := d.Container; c != nil {
		row("container", "%s", containerText(c))
		if c.Image != "" {
			row("image", "%s", death.Printable(c.Image))
		}
		if c.Cgroup != "" {
			row("cgroup", "%s", death.Printable(c.Cgroup))
		}
	}
	if d.Unit != "" {
		row("unit", "%s", death.Printable(d.Unit))
	}
	limitRows(d, row)
	for i, p := range d.Processes {
		if i == maxProcessLines {
			row("", "and %d more", len(d.Processes)-i)
			break
		}
		row(map[bool]string{true: "killed"}[i == 0], "%s", processText(p))
	}
	if k := d.Killer; k != nil {
		row("killer", "%s, signal %d", killerText(k), k.Signal)
	}
	if e := d.Exit; e != nil {
		row("exit", "%s", exitText(e))
	}
	memoryRows(d, row)
	if r := d.Repeat; r != nil {
		row("repeat", "%s", repeatText(r))
	}
	for i, e := range d.Evidence {
		row(map[bool]string{true: "evidence"}[i == 0], "%s %-10s %s", e.Time.UTC().Format("15:04:05.000"), e.Source, death.Printable(e.Text))
	}
	for i, a := range d.Advice {
		row(map[bool]string{true: "advice"}[i == 0], "%s", a)
	}
	row("id", "%s, revision %d", d.ID, d.Revision)
	return b.String()
}

// safe keeps what a server or a recording calls its own words from moving the
// cursor: those are no foreign text on a machine of ours, but can be on another's.
func safe(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, s)
}

func confidenceNote(d *death.Death) string {
	if d.Confidence == death.Certain {
		return ""
	}
	return "[" + string(d.Confidence) + "]"
}

func on(d *death.Death) string {
	s := ""
	if d.Node != "" {
		s = " on " + death.Printable(d.Node)
	}
	if d.Recovered {
		s += "; it happened while coroner was not running"
	}
	return s
}

func stamp(t time.Time) string {
	if t.Year() < 1971 {
		return fmt.Sprintf("%.3f s after boot", t.Sub(time.Unix(0, 0)).Seconds())
	}
	return t.UTC().Format("2006-01-02 15:04:05.000 UTC")
}

func containerText(c *death.Container) string {
	var parts []string
	for _, s := range []string{c.Name, c.ID} {
		if s != "" {
			parts = append(parts, death.Printable(s))
		}
	}
	if c.Runtime != "" {
		parts = append(parts, "("+c.Runtime+")")
	}
	if c.Namespace != "" {
		parts = append(parts, "in namespace "+death.Printable(c.Namespace))
	}
	if w := c.Workload; w != nil {
		parts = append(parts, "of "+death.Printable(w.Title()))
	}
	if p := c.Pod; p != nil {
		name := p.UID
		if p.Name != "" {
			name = p.Namespace + "/" + p.Name
		}
		parts = append(parts, "in pod "+death.Printable(name))
		if p.QoSClass != "" {
			parts = append(parts, "("+p.QoSClass+")")
		}
	}
	return strings.Join(parts, " ")
}

func limitRows(d *death.Death, row func(string, string, ...any)) {
	o := d.OOM
	if o == nil {
		return
	}
	at := "the machine (no cgroup's limit)"
	if o.OOMMemcg != "" {
		at = death.Printable(o.OOMMemcg)
	} else if o.Constraint == "" {
		at = "not known"
	}
	figures := ""
	if o.LimitBytes != nil {
		figures = death.FormatBytes(*o.LimitBytes) + " at "
		if o.UsageBytes != nil {
			figures = death.FormatBytes(*o.UsageBytes) + " of " + figures
		}
	}
	row("limit", "%s%s", figures, at)
	if d.Container == nil && o.TaskMemcg != "" {
		row("cgroup", "%s", death.Printable(o.TaskMemcg))
	}
	if t := o.Trigger; t != nil {
		s := fmt.Sprintf("%s, pid %d", death.Printable(t.Comm), t.PID)
		if t.Cgroup != "" && t.Cgroup != o.TaskMemcg {
			s += " in " + death.Printable(t.Cgroup)
		}
		row("asked by", "%s", s)
	}
	if o.GroupKill {
		row("group", "%d processes in %d container(s), by memory.oom.group", len(d.Processes), max(1, o.Containers))
	}
}

func processText(p death.Process) string {
	name := death.Printable(p.Comm)
	if name == "" {
		name = "(not seen)"
	}
	s := fmt.Sprintf("%-15s", name)
	if p.PID != 0 {
		s += fmt.Sprintf("  pid %d", p.PID)
	}
	for _, f := range []struct {
		n    *int64
		what string
	}{{p.AnonRSSBytes, "anon"}, {p.FileRSSBytes, "file"}, {p.ShmemRSSBytes, "shmem"}} {
		if f.n != nil && *f.n > 0 {
			s += fmt.Sprintf("  %s %s", f.what, death.FormatBytes(*f.n))
		}
	}
	if p.OOMScoreAdj != nil {
		s += fmt.Sprintf("  oom_score_adj %d", *p.OOMScoreAdj)
	}
	if p.Init != nil && *p.Init {
		s += "  first process"
	}
	if p.Fate != death.FateVictim && p.Fate != "" {
		s += "  [" + string(p.Fate) + "]"
	}
	return strings.TrimRight(s, " ")
}

func killerText(k *death.Killer) string {
	s := fmt.Sprintf("%s, pid %d", death.Printable(k.Comm), k.PID)
	if k.UID != nil {
		s += fmt.Sprintf(", uid %d", *k.UID)
	}
	if k.Cgroup != "" {
		s += ", in " + death.Printable(k.Cgroup)
	}
	return s
}

func exitText(e *death.Exit) string {
	var parts []string
	if e.Signal != nil {
		parts = append(parts, fmt.Sprintf("by signal %d", *e.Signal))
	}
	if e.Code != nil {
		parts = append(parts, fmt.Sprintf("code %d", *e.Code))
	}
	if e.ReportedReason != "" {
		s := "reported as " + death.Printable(e.ReportedReason)
		if e.Agrees != nil && !*e.Agrees {
			s += ", which does not fit"
		}
		parts = append(parts, s)
	}
	if len(parts) == 0 {
		return "not known"
	}
	return strings.Join(parts, ", ")
}

func repeatText(r *death.Repeat) string {
	s := fmt.Sprintf("%d times within 1 s", r.Count)
	if span := r.Last.Sub(r.First); span >= time.Second {
		s = fmt.Sprintf("%d times in %s", r.Count, span.Round(time.Second))
	}
	return s + rateText(r)
}

// rateText is how often it is; "" where nobody can tell.
func rateText(r *death.Repeat) string {
	switch {
	case r.PerHour == nil:
		return ""
	case *r.PerHour < 1:
		return fmt.Sprintf(", %.1f a day", *r.PerHour*24)
	}
	return fmt.Sprintf(", %.0f an hour", *r.PerHour)
}

// line is one death as a row of a listing.
func line(d *death.Death) []string {
	killed := ""
	for i, p := range d.Processes {
		if i == 2 {
			killed += fmt.Sprintf(" +%d", len(d.Processes)-i)
			break
		}
		if i > 0 {
			killed += ", "
		}
		killed += strings.TrimSpace(fmt.Sprintf("%s %d", death.Printable(p.Comm), p.PID))
	}
	times := ""
	if d.Repeat != nil {
		times = fmt.Sprintf("x%d", d.Repeat.Count)
	}
	return []string{stamp(d.Time), safe(string(d.Cause)), safe(string(d.Confidence)), place(d), killed, times}
}

// inNamespace is a container's name, with containerd's namespace before it.
func inNamespace(c *death.Container) string {
	if c.Namespace == "" {
		return c.Name
	}
	return c.Namespace + "/" + c.Name
}

// place names the owner as shortly as people do.
func place(d *death.Death) string {
	c := d.Container
	switch {
	case c != nil && c.Pod != nil && c.Pod.Name != "":
		return death.Printable(c.Pod.Namespace + "/" + c.Pod.Name + "/" + c.Name)
	case c != nil && c.Name != "":
		return death.Printable(inNamespace(c))
	case c != nil && c.Pod != nil:
		return death.Printable(death.ShortID(c.ID) + " in pod " + c.Pod.UID)
	case c != nil:
		return death.Printable(death.ShortID(c.ID))
	case d.Unit != "":
		return death.Printable(d.Unit)
	case d.OOM != nil && d.OOM.TaskMemcg != "":
		return death.Printable(d.OOM.TaskMemcg)
	}
	return "-"
}
