// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"sort"
	"time"

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
	look, heap := "Else look", "well below the limit"
	switch {
	case limit != nil && f.LeakPerSecond > 0:
		look = "Look"
		out = append(out, leakAdvice(f, *limit))
	case limit != nil:
		out = append(out, fmt.Sprintf("If the work honestly needs it, raise the container's memory limit of %s; %s would leave a quarter of headroom over what it held.",
			death.FormatBytes(*limit), death.FormatBytes(higher(*limit))))
	default:
		out = append(out, "If the work honestly needs it, raise the container's memory limit.")
	}
	if limit != nil {
		heap = "below " + death.FormatBytes(*limit/4*3) + ", three quarters of the limit"
	}
	grew := "it"
	if p := largest(f.Processes); p != nil {
		grew = death.Printable(p.Comm) + ", which held " + death.FormatBytes(heldBy(*p))
	}
	out = append(out, look+" at what grew in "+grew+"; if its runtime has a heap setting, put that "+heap+".")
	if limit != nil {
		if how := raiseHow(f, *limit, higher(*limit)); how != "" {
			out = append(out, how)
		}
	}
	if !f.Ended && f.Container != nil {
		whose := "The engine's status"
		if f.Container.Pod != nil {
			whose = "Pod status"
		}
		out = append(out, whose+" and restart counts need not show this kill: alert on coroner_oom_kills_total.")
	}
	return out
}

// leakAdvice says how long a higher limit would help against a leak.
func leakAdvice(f *Facts, limit int64) string {
	more := higher(limit)
	longer := time.Duration(float64(more-limit) / f.LeakPerSecond * float64(time.Second))
	return fmt.Sprintf("Its memory grew steadily by %s/s over %s: look for a leak. A limit of %s instead of %s would last about %s longer.",
		death.FormatBytes(int64(f.LeakPerSecond)), roughly(f.LeakedFor), death.FormatBytes(more), death.FormatBytes(limit), roughly(longer))
}

// higher is a limit with a quarter of headroom over limit.
func higher(limit int64) int64 { return roundUp(limit / 4 * 5) }

// roughly is a duration in two digits or three.
func roughly(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}

// adviseEscaped says what to do about processes outside of their container's
// cgroup.
func adviseEscaped(f *Facts) []string {
	who := "A process"
	switch {
	case f.Escaped == 0 && !f.Stray:
		return nil
	case f.Escaped > 1:
		who = fmt.Sprintf("%d processes", f.Escaped)
	}
	return []string{who + " of the container lived outside its cgroup, where no limit of the container holds and none of its figures counts: let nothing in it write to the host's cgroups (a cgroup namespace of its own; no bind mount of /sys/fs/cgroup), or limit the cgroup where it lives."}
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

func adviseDaemon(f *Facts) []string {
	out := []string{"Look at what uses the machine's memory: " + f.OOMDaemon + " goes by that, or by the pressure on it, and its victim need not be the cause."}
	switch f.OOMDaemon {
	case "systemd-oomd":
		out = append(out, "Its limits are ManagedOOMSwap= and ManagedOOMMemoryPressure= of the unit or slice (oomctl shows what it watches); ManagedOOMPreference=omit spares a unit.")
	case "earlyoom":
		out = append(out, "Its limits are the options -m and -s in /etc/default/earlyoom; --avoid spares processes by name.")
	}
	return out
}

func noAdvice(*Facts) []string { return nil }

func adviseStart(*Facts) []string {
	return []string{"Correct what the engine names: the command, its rights (it must be executable), the image, a mount, a port or a device."}
}

func adviseSender(f *Facts) []string {
	return []string{"Ask the owner of " + death.Printable(f.toldToStop(false).Comm) + " why it tells the container to end."}
}

func adviseWhoKilled(f *Facts) []string {
	if f.FromKernel {
		return []string{"Raising memory limits will not help."} // tracepoints are there, and did not see who
	}
	return []string{"Run coroner doctor: with tracepoints the sender is named. Raising memory limits will not help."}
}

func adviseError(f *Facts) []string {
	how := ""
	if cmd := logCommand(f.Container); cmd != "" {
		how = " (" + cmd + ")"
	}
	out := []string{"Its last log lines say why it left" + how + "."}
	if x := f.Exit; x != nil && x.Code != nil {
		switch *x.Code {
		case 126:
			out = append(out, "Shells use 126 for a command that is there but may not be run.")
		case 127:
			out = append(out, "Shells use 127 for a command that was not found.")
		}
	}
	return out
}
