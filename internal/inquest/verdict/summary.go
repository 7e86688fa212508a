// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
)

// summary is the sentence for people: what gave way, with which numbers, who
// died, who asked, and whether the container lives.
func summary(c death.Cause, rule string, f *Facts) string {
	switch {
	case strings.HasPrefix(rule, "killed") && rule != "killed-on-request":
		return killedSentence(rule, f)
	case f.OOM:
		gave := gaveWay(c, rule, f)
		return upper(gave+": "+tookLife(f, home(f, gave))+outcome(f)) + "." + strayed(f) + asker(f)
	}
	return endSentence(c, rule, f)
}

// strayed says that the victim was a container's, and not in its cgroup.
func strayed(f *Facts) string {
	if !f.Stray {
		return ""
	}
	return " It was a process of " + where(f) + ", and lived outside its cgroup, in " + death.Printable(f.TaskMemcg) + ": the container's limit did not hold for it."
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// gaveWay says whose limit it was.
func gaveWay(c death.Cause, rule string, f *Facts) string {
	switch c {
	case death.OOMContainerLimit:
		if rule == "limit-not-named" {
			return where(f) + " ran out of memory, by all that is known at a limit of its own (the kernel's report is missing)"
		}
		s := where(f) + " reached its memory limit" + ofLimit(f)
		if f.OOMMemcg != "" && f.OOMMemcg == f.PodCgroup {
			s += " (which the kernel accounts at its pod)"
		}
		return s
	case death.OOMPodLimit:
		s := "the pod of " + where(f) + " reached the pod's memory limit" + ofLimit(f)
		if own := ownLimit(f); own != "" {
			s += ", the container " + own
		}
		return s
	case death.OOMNodeAllocatable:
		if f.OOMLevel == cgpath.QoS {
			return "the pods of one QoS class together reached their limit" + ofLimit(f) + at(f.OOMMemcg)
		}
		return "all pods together reached the node's limit for pods" + ofLimit(f) + at(f.OOMMemcg)
	case death.OOMAncestorLimit:
		return ancestorGaveWay(rule, f)
	case death.OOMCpuset:
		return "the NUMA nodes that the task may use had no memory left"
	case death.OOMNode:
		if f.Manual {
			return "the OOM killer was called by hand (sysrq f)"
		}
		return "the machine ran out of memory"
	}
	if f.SaidMemcg {
		return "some cgroup reached its memory limit (the kernel's report, which names it, is missing)"
	}
	return "the kernel's OOM killer ran"
}

func ancestorGaveWay(rule string, f *Facts) string {
	if f.OOMMemcg == "" {
		return where(f) + " ran out of memory at a limit that is not known (the kernel's report is missing)"
	}
	if rule == "limit-inside-container" {
		return "a group inside " + where(f) + " reached its memory limit" + ofLimit(f) + at(f.OOMMemcg)
	}
	return death.Printable(f.OOMMemcg) + " reached its memory limit" + ofLimit(f)
}

func ofLimit(f *Facts) string {
	if f.LimitBytes == nil {
		return ""
	}
	s := death.FormatBytes(*f.LimitBytes)
	if f.MemswLimitBytes != nil {
		return fmt.Sprintf(" of %s for memory and swap together (it held %s of memory, which may have %s)",
			death.FormatBytes(*f.MemswLimitBytes), death.FormatBytes(*f.UsageBytes), s)
	}
	if f.UsageBytes != nil {
		if used := death.FormatBytes(*f.UsageBytes); used != s {
			s += " (usage " + used + ")"
		}
	}
	return " of " + s
}

func ownLimit(f *Facts) string {
	switch {
	case f.ContainerUnlimited:
		return "has none of its own"
	case f.ContainerLimit != nil && f.ContainerUsage != nil:
		return "held " + death.FormatBytes(*f.ContainerUsage) + " of its own " + death.FormatBytes(*f.ContainerLimit)
	case f.ContainerLimit != nil:
		return "may have " + death.FormatBytes(*f.ContainerLimit)
	}
	return ""
}

func at(path string) string {
	if path == "" {
		return ""
	}
	return " at " + death.Printable(path)
}

// where names the owner of the dead.
func where(f *Facts) string {
	c := f.Container
	switch {
	case c != nil:
		return containerName(c)
	case f.Unit != "":
		return "unit " + death.Printable(f.Unit)
	case f.TaskMemcg == "/":
		return "the root cgroup"
	case f.TaskMemcg != "":
		return "cgroup " + death.Printable(f.TaskMemcg)
	}
	return "an unknown cgroup"
}

func containerName(c *death.Container) string {
	name, id := death.Printable(c.Name), death.ShortID(c.ID)
	var notes []string
	switch {
	case name != "" && id != "":
		notes = append(notes, strings.TrimSpace(c.Runtime+" "+id))
	case c.Runtime != "":
		notes = append(notes, c.Runtime)
	}
	if name == "" {
		name = death.Printable(id)
	}
	if c.Workload != nil {
		notes = append(notes, death.Printable(c.Workload.Title()))
	}
	if p := c.Pod; p != nil {
		notes = append(notes, podName(p))
	}
	s := "container " + name
	if len(notes) > 0 {
		s += " (" + strings.Join(notes, ", ") + ")"
	}
	return s
}

func podName(p *death.Pod) string {
	s := "pod "
	switch {
	case p.Name != "" && p.Namespace != "":
		s += p.Namespace + "/" + p.Name
	case p.Name != "":
		s += p.Name
	default:
		s += p.UID
	}
	if p.QoSClass != "" {
		s = p.QoSClass + " " + s
	}
	return death.Printable(s)
}

// home says whose the killed are, where what gave way does not say it; "".
func home(f *Facts, gave string) string {
	if f.Container == nil && f.Unit == "" || strings.Contains(gave, where(f)) || f.Unit != "" && strings.Contains(gave, death.Printable(f.Unit)) {
		return ""
	}
	return " of " + where(f)
}

// tookLife says which processes the kernel killed, and whose they are.
func tookLife(f *Facts, home string) string {
	by := map[death.Fate][]death.Process{}
	for _, p := range f.Processes {
		by[p.Fate] = append(by[p.Fate], p)
	}
	victims := by[death.FateVictim]
	if group := by[death.FateGroup]; len(victims) == 0 && len(group) > 0 {
		return "the kernel killed " + some(group) + home + " with a group of other containers (memory.oom.group)"
	}
	if len(victims) == 0 {
		if f.CountedOnly {
			return "the kernel's counter says that a process" + home + " was killed, which one was not seen"
		}
		return "the kernel killed a process" + home
	}
	who := some(victims)
	if first, is := strings.CutPrefix(who, firstOfIts); is && home != "" {
		who = "the first process " + first
	}
	s := "the kernel killed " + who + home
	if n := len(by[death.FateGroup]); n > 0 {
		s += fmt.Sprintf(", and with it the other %s of its group (memory.oom.group)", processes(n))
	} else if f.Group {
		s += ", as a group (memory.oom.group)"
	}
	if n := len(by[death.FateSharer]); n > 0 {
		s += fmt.Sprintf(", and unseen %s that shared its memory", processes(n))
	}
	if n := len(by[death.FateCollateral]); n > 0 {
		s += fmt.Sprintf(", and with its pid namespace %s", processes(n))
	}
	return s
}

// some names the first of several.
func some(ps []death.Process) string {
	s := processName(ps[0])
	switch n := len(ps) - 1; {
	case n == 1:
		s += " and then " + processName(ps[1])
	case n > 1:
		s += fmt.Sprintf(" and then %d more", n)
	}
	return s
}

func processes(n int) string {
	if n == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", n)
}

const firstOfIts = "its first process "

func processName(p death.Process) string {
	s := death.Printable(p.Comm)
	if s == "" {
		s = "a process"
	}
	if p.Init != nil && *p.Init {
		s = firstOfIts + s
	}
	var notes []string
	if p.PID != 0 {
		notes = append(notes, fmt.Sprintf("pid %d", p.PID))
	}
	if n := heldBy(p); n > 0 {
		notes = append(notes, "holding "+death.FormatBytes(n))
	}
	if len(notes) > 0 {
		s += " (" + strings.Join(notes, ", ") + ")"
	}
	return s
}

// outcome says whether the container lives, where that is known.
func outcome(f *Facts) string {
	if f.Container == nil {
		return ""
	}
	if f.Ended {
		return "; the container ended"
	}
	if !f.LivesOn {
		return ""
	}
	return "; the container lives on"
}

// asker names the task whose allocation tipped it, where it is another's.
func asker(f *Facts) string {
	t := f.Trigger
	if t == nil || t.Comm == "" {
		return ""
	}
	for _, p := range f.Processes {
		if p.PID == t.PID {
			return ""
		}
	}
	if t.Cgroup == "" || t.Cgroup == f.TaskMemcg {
		if f.Processes == nil || f.Processes[0].Comm == t.Comm {
			return "" // most likely a thread of the victim
		}
		return fmt.Sprintf(" The memory was asked for by %s (pid %d).", death.Printable(t.Comm), t.PID)
	}
	return fmt.Sprintf(" The memory was asked for by %s (pid %d) in %s.", death.Printable(t.Comm), t.PID, death.Printable(t.Cgroup))
}

func killedSentence(rule string, f *Facts) string {
	s := fmt.Sprintf("%s sent SIGKILL to the first process of %s", senderName(f.Killer), where(f))
	if len(f.Processes) > 0 {
		p := f.Processes[0]
		p.Init = nil
		s += ", " + processName(p)
	}
	s += "; it was not the OOM killer."
	switch {
	case rule == "killed-past-engine":
		s += " The engine was not asked for it."
	case f.KillerIsRuntime:
		s += " If that is the container's runtime, as its name says, it acted for somebody whom only the engine can name."
	}
	return s
}

// senderName names who sent a signal, and where it lives.
func senderName(k *death.Killer) string {
	who := death.Printable(k.Comm)
	notes := []string{fmt.Sprintf("pid %d", k.PID)}
	if k.UID != nil {
		notes = append(notes, fmt.Sprintf("uid %d", *k.UID))
	}
	switch {
	case k.Container != nil:
		notes = append(notes, "in "+containerName(k.Container))
	case k.Unit != "":
		notes = append(notes, "in unit "+death.Printable(k.Unit))
	case k.Cgroup != "":
		notes = append(notes, "in cgroup "+death.Printable(k.Cgroup))
	}
	if k.Comm == "" {
		who = "A process" // a name keeps its own case, a word does not
	}
	return who + " (" + strings.Join(notes, ", ") + ")"
}
