// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"sort"

	"github.com/coroner-dev/coroner/internal/death"
)

func adviseLimit(f *Facts) []string {
	if f.MemswLimitBytes != nil {
		return []string{"It is the limit of memory and swap together (memory.memsw.limit_in_bytes, --memory-swap) that was reached: raise that, or find what grew; the memory limit alone leaves it where it is."}
	}
	var out []string
	limit := f.ContainerLimit
	if limit == nil {
		limit = f.LimitBytes
	}
	if limit != nil {
		out = append(out, fmt.Sprintf("If the work honestly needs it, raise the container's memory limit of %s; %s would leave a quarter of headroom over what it held.",
			death.FormatBytes(*limit), death.FormatBytes(roundUp(*limit/4*5))))
	} else {
		out = append(out, "If the work honestly needs it, raise the container's memory limit.")
	}
	if p := largest(f.Processes); p != nil {
		out = append(out, fmt.Sprintf("Else look at what grew in %s, which held %s; if its runtime has a heap setting, put that well below the limit.",
			death.Printable(p.Comm), death.FormatBytes(heldBy(*p))))
	} else {
		out = append(out, "Else look at what grew in it; if its runtime has a heap setting, put that well below the limit.")
	}
	if !f.Ended && f.Container != nil {
		out = append(out, "Pod status and restart counts need not show this kill: alert on coroner_oom_kills_total.")
	}
	return out
}

func advisePod(f *Facts) []string {
	out := []string{"Compare the pod's memory limit with the sum of what its containers use; memory of emptyDir volumes on tmpfs and of dead containers' caches stays charged to the pod."}
	if f.ContainerLimit == nil && !f.ContainerUnlimited {
		out = append(out, "In a pod of one container the pod's limit is the container's: then raise that, or find what grew.")
	}
	return out
}

func adviseInside(f *Facts) []string {
	return []string{"The limit was set inside the container (a service manager or a nested engine in it): change it there, at " + death.Printable(f.OOMMemcg) + "."}
}

func adviseAllocatable(f *Facts) []string {
	out := []string{
		"The pods of this node use more than it may give them: lower what pods may use over their requests, or move some away.",
		"The kubelet evicts only every 10 seconds: a soft eviction threshold with a grace period, or a higher hard one, acts before the kernel does.",
	}
	if s := biggest(f); s != "" {
		out = append([]string{s}, out...)
	}
	return out
}

func adviseAncestor(f *Facts) []string {
	if f.OOMMemcg == "" {
		return []string{"Find the limit on the way up from " + death.Printable(f.TaskMemcg) + ": memory.max, or memory.limit_in_bytes on cgroup v1."}
	}
	out := []string{fmt.Sprintf("Raise the limit at %s (for a systemd unit: MemoryMax=), or lower what runs in it.", death.Printable(f.OOMMemcg))}
	if s := biggest(f); s != "" {
		out = append(out, s)
	}
	return out
}

func adviseNode(f *Facts) []string {
	out := []string{
		"The victim need not be the cause: the kernel takes the highest oom_score. Look at what uses the machine's memory, outside containers too.",
		"Give containers limits, and the system its reserve, so that the node cannot run out.",
	}
	if s := biggest(f); s != "" {
		out = append([]string{s}, out...)
	}
	return out
}

func adviseCpuset(*Facts) []string {
	return []string{
		"Allow the task more NUMA nodes (cpuset.mems, numactl, --cpuset-mems), or move memory users off the nodes that it is bound to.",
		"free and node exporters show the machine's sum: look at numastat for the single nodes.",
	}
}

func adviseSysrq(*Facts) []string {
	return []string{"Somebody with access to sysrq (a console, /proc/sysrq-trigger) asked for this kill; find out who, or switch it off with kernel.sysrq."}
}

func adviseKilled(f *Facts) []string {
	return []string{fmt.Sprintf("Ask the owner of %s why it sends SIGKILL; raising memory limits will not help.", death.Printable(f.Killer.Comm))}
}

func adviseRuntimeKill(*Facts) []string {
	return []string{"Look at the engine's events, or at the pod's, for a stop, a deletion, a failed probe or an eviction at this moment; raising memory limits will not help."}
}

func adviseUnplaced(*Facts) []string {
	return []string{"Run coroner doctor: it says which source is missing that would have named the process and its cgroup."}
}

// biggest names the largest process of the kernel's task table where it is
// not among the dead.
func biggest(f *Facts) string {
	if len(f.Tasks) == 0 {
		return ""
	}
	tasks := append([]death.Task(nil), f.Tasks...)
	sort.SliceStable(tasks, func(i, j int) bool { return tasks[i].RSSPages > tasks[j].RSSPages })
	top := tasks[0]
	for _, p := range f.Processes {
		if p.PID == top.TGID {
			return ""
		}
	}
	return fmt.Sprintf("The largest process in the kernel's table is another: %s (pid %d, %d pages resident). Look there first.",
		death.Printable(top.Name), top.TGID, top.RSSPages)
}

func largest(ps []death.Process) *death.Process {
	var top *death.Process
	for i := range ps {
		if n := heldBy(ps[i]); n > 0 && (top == nil || n > heldBy(*top)) {
			top = &ps[i]
		}
	}
	return top
}

// roundUp makes a size that people would write into a manifest.
func roundUp(n int64) int64 {
	step := int64(1 << 20)
	for step*64 < n {
		step *= 2
	}
	return (n + step - 1) / step * step
}
