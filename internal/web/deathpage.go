// SPDX-License-Identifier: Apache-2.0

package web

import (
	"cmp"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

// deathView is the page of one death.
type deathView struct {
	frame
	D        *death.Death
	Cause    death.CauseInfo
	Delay    time.Duration // from the death to coroner's knowing
	Usage    *usage
	Evidence []death.Evidence
	Stat     []statLine
	Tasks    []taskLine
	MoreTask int
	OOMKills int
	Columns  processColumns
	Labels   []label
	Paths    []label // the cgroups that matter
	Chart    *memoryChart
}

// label is a name and what it stands for.
type label struct{ Name, Value string }

// statLine is one figure of the kernel's memory statistics.
type statLine struct {
	Name  string
	Bytes int64
}

// taskLine is one row of the kernel's table of tasks.
type taskLine struct {
	death.Task
	Dead bool // among the processes of this death
}

// maxTasks bounds the table of tasks on a page.
const maxTasks = 200

// deathPage serves GET /deaths/{id}.
func (h *handler) deathPage(w http.ResponseWriter, r *http.Request) {
	// The place in the stream first: an amendment right after is then news.
	_, newest, err := h.Store.Since(r.Context(), api.Query{Limit: 1}, math.MaxInt64)
	if err != nil {
		code, text := h.failed(r, err)
		h.errorPage(w, r, code, text)
		return
	}
	d, err := h.Store.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		code, text := h.failed(r, err)
		h.errorPage(w, r, code, text)
		return
	}
	v := deathView{frame: h.frame(r, who(&d)), D: &d, Cause: d.Cause.Info(), Delay: d.ObservedAt.Sub(d.Time), OOMKills: d.OOMKills()}
	v.Live, v.Watch = h.base+api.PathStream+"?"+lastIDParameter+"="+strconv.FormatInt(newest, 10), d.ID
	v.Evidence = slices.Clone(d.Evidence)
	slices.SortStableFunc(v.Evidence, func(a, b death.Evidence) int { return a.Time.Compare(b.Time) })
	v.Columns = columnsOf(d.Processes)
	if d.OOM != nil {
		v.Usage = memoryUse(d.OOM)
		v.Stat = statLines(d.OOM.MemoryStat)
		v.Tasks, v.MoreTask = taskLines(&d)
	}
	v.Paths = cgroups(&d)
	v.Chart = chart(d.Memory)
	if d.Container != nil {
		for name, value := range d.Container.Labels {
			v.Labels = append(v.Labels, label{name, value})
		}
		slices.SortFunc(v.Labels, func(a, b label) int { return strings.Compare(a.Name, b.Name) })
	}
	h.render(w, r, http.StatusOK, h.pages.death, v)
}

// processColumns are the columns that the table of processes has: those in
// which anything is known.
type processColumns struct{ Fate, UID, Anon, File, Shmem, Pgtables, VM, Adj bool }

func columnsOf(processes []death.Process) processColumns {
	var c processColumns
	for i := range processes {
		p := &processes[i]
		c.Fate = c.Fate || p.Fate != ""
		c.UID = c.UID || p.UID != nil
		c.Anon = c.Anon || p.AnonRSSBytes != nil
		c.File = c.File || p.FileRSSBytes != nil
		c.Shmem = c.Shmem || p.ShmemRSSBytes != nil
		c.Pgtables = c.Pgtables || p.PgtablesBytes != nil
		c.VM = c.VM || p.TotalVMBytes != nil
		c.Adj = c.Adj || p.OOMScoreAdj != nil
	}
	return c
}

// cgroups are the paths that a death names, each once.
func cgroups(d *death.Death) []label {
	var paths []label
	add := func(name, path string) {
		if path != "" && !slices.ContainsFunc(paths, func(l label) bool { return l.Value == path }) {
			paths = append(paths, label{name, path})
		}
	}
	if o := d.OOM; o != nil {
		add("Whose limit", o.OOMMemcg)
		add("The victim's", o.TaskMemcg)
	}
	if d.Container != nil {
		add("The container's", d.Container.Cgroup)
	}
	if d.OOM != nil && d.OOM.Trigger != nil {
		add("Who asked for memory", d.OOM.Trigger.Cgroup)
	}
	if d.Killer != nil {
		add("The killer's", d.Killer.Cgroup)
	}
	return paths
}

// statLines are the figures that are not zero, largest first.
func statLines(stat map[string]int64) []statLine {
	var lines []statLine
	for name, n := range stat {
		if n != 0 {
			lines = append(lines, statLine{name, n})
		}
	}
	slices.SortFunc(lines, func(a, b statLine) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Name, b.Name))
	})
	return lines
}

// taskLines are the tasks with the most memory, and how many there are more.
func taskLines(d *death.Death) ([]taskLine, int) {
	dead := map[int]bool{}
	for i := range d.Processes {
		dead[d.Processes[i].PID] = true
	}
	lines := make([]taskLine, 0, len(d.OOM.Tasks))
	for _, t := range d.OOM.Tasks {
		lines = append(lines, taskLine{t, dead[t.PID] || t.TGID != 0 && dead[t.TGID]})
	}
	slices.SortStableFunc(lines, func(a, b taskLine) int { return cmp.Compare(b.RSSPages, a.RSSPages) })
	if len(lines) > maxTasks {
		return lines[:maxTasks], len(lines) - maxTasks
	}
	return lines, 0
}
