// SPDX-License-Identifier: Apache-2.0

package nodemap

import (
	"cmp"
	"slices"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
)

// What the kernel takes for never, and the first process of all
// (include/uapi/linux/oom.h; is_global_init).
const (
	adjNever = -1000
	adjScale = 1000
	firstPID = 1
)

// badness is oom_badness of mm/oom_kill.c (the same since Linux 3.9 but for how
// it ends below 0): pages of memory, swap and page tables, and a thousandth of total for
// each point of oom_score_adj. False: the kernel never takes this one.
func badness(t *Task, total, page int64) (points int64, ok bool) {
	if t.PID == firstPID || t.OOMScoreAdj == adjNever {
		return 0, false
	}
	points = t.RSSBytes/page + t.SwapBytes/page + t.PageTablesBytes/page
	return points + int64(t.OOMScoreAdj)*(total/adjScale), true
}

// score is what /proc/PID/oom_score shows of a badness (proc_oom_score of
// fs/proc/base.c, since Linux 5.9).
func score(points, total int64) int {
	if total <= 0 {
		return 0
	}
	return int((1000 + points*1000/total) * 2 / 3)
}

// maxCandidates bounds the processes that are told of.
const maxCandidates = 20

// oomOrder is whom the kernel would take, the first one first, where total
// bytes of memory and swap are at issue, of the tasks that in selects. machine
// is what the whole machine has of both: /proc always goes by that.
func oomOrder(tasks []Task, total, machine, page int64, in func(*Task) bool) []api.OOMCandidate {
	var out []api.OOMCandidate
	for i := range tasks {
		t := &tasks[i]
		points, ok := badness(t, total/page, page)
		if !ok || !in(t) {
			continue
		}
		whole, _ := badness(t, machine/page, page)
		out = append(out, api.OOMCandidate{
			PID: t.PID, Comm: t.Comm, PointsBytes: points * page, OOMScore: score(whole, machine/page), OOMScoreAdj: t.OOMScoreAdj,
			RSSBytes: t.RSSBytes, SwapBytes: t.SwapBytes, PageTablesBytes: t.PageTablesBytes, Cgroup: t.Cgroup,
		})
	}
	slices.SortFunc(out, func(a, b api.OOMCandidate) int {
		return cmp.Or(cmp.Compare(b.PointsBytes, a.PointsBytes), cmp.Compare(a.PID, b.PID))
	})
	return out[:min(len(out), maxCandidates)]
}

// orders fills in both orders of the OOM killer.
func (b *builder) orders() {
	f := &b.in.Facts
	if f.TasksWhy != "" {
		b.note("whom the kernel would kill first is not known: %s", f.TasksWhy)
	}
	if len(f.Tasks) == 0 {
		return
	}
	machine := f.MemInfo["MemTotal"] + f.MemInfo["SwapTotal"]
	b.out.OOMOrder = b.named(oomOrder(f.Tasks, machine, machine, b.page, func(*Task) bool { return true }))
	if k := f.Kubepods; k != nil && k.LimitBytes != nil {
		b.out.PodsOOMOrder = b.named(oomOrder(f.Tasks, *k.LimitBytes+f.MemInfo["SwapTotal"], machine, b.page, func(t *Task) bool {
			return cgpath.Within(k.Path, t.Cgroup)
		}))
	}
}

// named adds whose the processes are.
func (b *builder) named(cs []api.OOMCandidate) []api.OOMCandidate {
	for i := range cs {
		c := &cs[i]
		is := cgpath.Parse(c.Cgroup)
		c.Unit = is.Unit
		if is.ContainerID != "" {
			c.Container = b.containerName(is)
			c.Unit = ""
		}
		if is.PodUID != "" {
			c.Pod = b.podName(is)
			c.Unit = ""
		}
	}
	return cs
}
