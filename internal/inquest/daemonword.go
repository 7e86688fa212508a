// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
	"github.com/coroner-dev/coroner/internal/signal"
)

// The time around a death in which lines of the journal can be about it:
// earlyoom waits 10 s after a SIGTERM, and journald may be slow.
const (
	spokeBefore = 15 * time.Second
	// sameBreath joins what earlyoom says of the memory with whom it chose.
	sameBreath = time.Second
)

// wantDaemon asks once for what a program that frees memory left behind.
func (q *Inquest) wantDaemon(c *caseFile) {
	id, path := c.whose()
	if !c.daemonAsked.IsZero() || c.recovered || len(q.wants) >= maxWants {
		return
	}
	c.daemonAsked, c.askedID, c.askedPath = c.endTime(), id, path
	c.await(WantDaemon, q.now.Add(wantFor))
	units := spokenUnits
	if c.killer != nil && c.killer.Unit != "" {
		units = []string{c.killer.Unit}
	}
	q.wants = append(q.wants, Want{
		Kind: WantDaemon, Source: death.SourceJournal, ContainerID: id, Cgroup: path, Units: units,
		Since: c.daemonAsked.Add(-spokeBefore), At: c.daemonAsked,
	})
}

// whose is what c is of: a container, and its cgroup or that of the dead.
func (c *caseFile) whose() (id, path string) {
	if c.container == nil {
		return "", c.taskMemcg
	}
	if c.container.Cgroup == "" {
		return c.container.ID, c.taskMemcg
	}
	return c.container.ID, c.container.Cgroup
}

// daemonWord takes the answer to WantDaemon.
func (q *Inquest) daemonWord(b signal.OOMDaemonWord) {
	for _, c := range q.cases {
		if c.daemonAsked.IsZero() || !c.daemonAsked.Equal(b.At) || c.askedID != b.ID || c.askedPath != b.Path {
			continue
		}
		delete(c.awaits, WantDaemon)
		if c.heedDaemon(b) {
			q.touch(c)
		}
		return
	}
	q.stats.Late++
}

// heedDaemon adds what is about c, and tells whether anything is.
func (c *caseFile) heedDaemon(b signal.OOMDaemonWord) bool {
	heeded := false
	for i, l := range b.Lines {
		why, about := c.meant(l, b.ID, b.Path)
		if !about || c.killer != nil && c.killer.Unit != l.Unit {
			continue
		}
		heeded = true
		for _, x := range contextOf(b.Lines, i) {
			c.noteLine(x)
			why = strings.Join(strings.Fields(strings.TrimPrefix(x.Text, "low memory! ")), " ")
		}
		c.noteLine(l)
		if why != "" {
			c.daemonWhy = why
		}
		if c.killer == nil {
			c.daemon = oomDaemons[l.Unit]
			c.daemonLogged = &death.Killer{PID: l.PID, Comm: c.daemon, Unit: l.Unit, Signal: sigkill}
		}
	}
	if c.heedAttributes(b) {
		heeded = true
	}
	if b.Error != "" && c.daemon != "" {
		heeded = true
		c.note(signal.Signal{Time: b.At, Source: death.SourceJournal}, "what %s wrote to the journal is not known: %s", c.daemon, death.Printable(b.Error))
	}
	return heeded
}

// heedAttributes takes what systemd-oomd noted on the cgroup.
func (c *caseFile) heedAttributes(b signal.OOMDaemonWord) bool {
	if b.OOMs == nil || *b.OOMs == 0 || c.daemon != "" && c.daemon != "systemd-oomd" {
		return false
	}
	killed := "a number of processes that it does not tell yet"
	if b.Killed != nil {
		killed = strconv.FormatInt(*b.Killed, 10) + " processes"
	}
	c.note(signal.Signal{Time: b.At, Source: death.SourceCgroup}, "user.oomd_ooms of %s is %d: systemd-oomd began to kill there, %s (user.oomd_kill)",
		death.Printable(b.Path), *b.OOMs, killed)
	if c.daemon == "" {
		c.daemon = "systemd-oomd"
	}
	return true
}

func (c *caseFile) noteLine(l signal.JournalLine) {
	c.note(signal.Signal{Time: l.Time, Source: death.SourceJournal}, "%s: %s", l.Unit, death.Printable(l.Text))
}

// meant tells whether a line says that its program killed what c is of, and why,
// in its words.
func (c *caseFile) meant(l signal.JournalLine, id, path string) (why string, about bool) {
	switch l.Unit {
	case "systemd-oomd.service":
		return oomdKilled(l.Text, id, path)
	case "earlyoom.service":
		return "", slices.Contains(c.pids(), earlyoomKills(l.Text))
	}
	return "", false
}

// pids are those that died, and the first process.
func (c *caseFile) pids() []int {
	var out []int
	if c.first.pid != 0 {
		out = append(out, c.first.pid)
	}
	for _, p := range c.procs {
		if p.PID != 0 {
			out = append(out, p.PID)
		}
	}
	return out
}

// oomdKilled reads "Killed PATH due to REASON", of the cgroup at path, one around
// it, or the container's.
func oomdKilled(text, id, path string) (why string, about bool) {
	rest, ok := strings.CutPrefix(text, "Killed /")
	if !ok {
		return "", false
	}
	killed, why, ok := strings.Cut("/"+rest, " due to ")
	around := path != "" && (killed == path || cgpath.Within(killed, path))
	return why, ok && (around || id != "" && cgpath.Parse(killed).ContainerID == id)
}

// earlyoomKills reads "sending SIGTERM to process PID uid UID "NAME": ..."; 0:
// the line is another.
func earlyoomKills(text string) int {
	rest, ok := strings.CutPrefix(text, "sending SIG")
	if !ok {
		return 0
	}
	_, rest, ok = strings.Cut(rest, " to process ")
	digits, _, spaced := strings.Cut(rest, " ")
	pid, err := strconv.Atoi(digits)
	if !ok || !spaced || err != nil {
		return 0
	}
	return pid
}

// contextOf is what earlyoom says of the machine when it writes line i: which
// limit is reached, and how much memory there is. These come in any order.
func contextOf(lines []signal.JournalLine, i int) []signal.JournalLine {
	l := lines[i]
	var out []signal.JournalLine
	for _, begins := range []string{"low memory! ", "mem avail: "} {
		var nearest *signal.JournalLine
		for j := range lines {
			x := &lines[j]
			apart := l.Time.Sub(x.Time).Abs()
			if x.Unit != l.Unit || l.Unit != "earlyoom.service" || apart > sameBreath || !strings.HasPrefix(x.Text, begins) {
				continue
			}
			if nearest == nil || apart < l.Time.Sub(nearest.Time).Abs() {
				nearest = x
			}
		}
		if nearest != nil {
			out = append(out, *nearest)
		}
	}
	return out
}
