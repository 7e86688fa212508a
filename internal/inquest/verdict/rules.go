// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"slices"
	"strings"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
)

// Rule is one row of the table: when it fits, and what it then says.
type Rule struct {
	// ID is kebab-case; it is told with each death.
	ID string
	// Cause is what it says.
	Cause death.Cause
	// Meaning says in one sentence what happened, Needs which evidence must
	// be there.
	Meaning, Needs string
	// Confidence is the best that this rule can give; inferred facts lower it.
	Confidence death.Confidence

	fits   func(*Facts) bool
	advice func(*Facts) []string
	// sure tells whether it can give its best; nil: it can.
	sure func(*Facts) bool
	// claim is the line of the container's log that it rests on; nil: on none.
	claim func(*Facts) *LogLine
}

// Rules returns the table, for docs and tests.
func Rules() []Rule {
	all := tables()
	return slices.Concat(all[:]...)
}

// tables gives the rules in the order in which they are asked. A rule may rely
// on those above it not having fitted. A new cause or a finer verdict is a row
// in one of them.
func tables() [9][]Rule {
	return [9][]Rule{oomRules, podRules, endRules, heapRules, shmRules, faultRules, deletionRules, lateRules, lastRules}
}

// oomRules judge what the kernel's OOM killer did.
var oomRules = []Rule{
	{
		ID: "sysrq", Cause: death.OOMNode, Confidence: death.Certain,
		Meaning: "Somebody asked the kernel by hand (sysrq f) to kill the largest process; the machine need not have been short of memory.",
		Needs:   "kmsg: order=-1 in the report",
		fits:    func(f *Facts) bool { return f.OOM && f.Manual },
		advice:  adviseSysrq,
	},
	{
		ID: "cpuset", Cause: death.OOMCpuset, Confidence: death.Certain,
		Meaning: "The NUMA nodes that the task's cpuset or memory policy allows had no memory left, though others may have had.",
		Needs:   "kmsg or oom_kill_process: CONSTRAINT_CPUSET or CONSTRAINT_MEMORY_POLICY",
		fits: func(f *Facts) bool {
			return f.OOM && (f.Constraint == ConstraintCpuset || f.Constraint == ConstraintMemoryPolicy)
		},
		advice: adviseCpuset,
	},
	{
		ID: "container-limit", Cause: death.OOMContainerLimit, Confidence: death.Certain,
		Meaning: "The cgroup whose limit was reached is the container's own.",
		Needs:   "oom_memcg is the container's cgroup",
		fits:    func(f *Facts) bool { return f.limitAt(cgpath.Container) },
		advice:  adviseLimit,
	},
	{
		ID: "limit-inside-container", Cause: death.OOMAncestorLimit, Confidence: death.Certain,
		Meaning: "A cgroup that something inside the container made has a limit of its own, and that was reached.",
		Needs:   "oom_memcg lies below the container's cgroup",
		fits: func(f *Facts) bool {
			return f.limitKnown() && f.Container != nil && f.Container.Cgroup != "" &&
				cgpath.Within(f.Container.Cgroup, f.OOMMemcg)
		},
		advice: adviseInside,
	},
	{
		ID: "pod-limit-is-container-limit", Cause: death.OOMContainerLimit, Confidence: death.Certain,
		Meaning: "The kernel accounts it at the pod, but the container has the very same limit and filled it: in a pod of one container the pod's counter fails first.",
		Needs:   "oom_memcg is the pod's cgroup; the container's limit equals the pod's, and its usage was near it",
		fits: func(f *Facts) bool {
			return f.limitAtPod() && f.Container != nil && f.limitsEqual() && (f.ContainerUsage == nil || f.fillsPod())
		},
		advice: adviseLimit,
	},
	{
		ID: "pod-limit", Cause: death.OOMPodLimit, Confidence: death.Certain,
		Meaning: "The pod's limit was reached while the container was below its own, or has none: the sum of its containers, or memory that stays charged to the pod (tmpfs, caches of dead containers).",
		Needs:   "oom_memcg is the pod's cgroup; the container's limit or usage is known",
		fits:    func(f *Facts) bool { return f.limitAtPod() && (f.belowOwnLimit() || f.limitsEqual()) },
		advice:  advisePod,
	},
	{
		ID: "pod-filled-by-container", Cause: death.OOMContainerLimit, Confidence: death.Probable,
		Meaning: "The kernel accounts it at the pod; what died in this one container held nearly all that the pod may hold, so the container's limit is the pod's.",
		Needs:   "oom_memcg is the pod's cgroup; figures of the dead processes",
		fits:    func(f *Facts) bool { return f.limitAtPod() && f.Container != nil && f.fillsPod() },
		advice:  adviseLimit,
	},
	{
		ID: "pod-limit-alone", Cause: death.OOMPodLimit, Confidence: death.Possible,
		Meaning: "The kernel accounts it at the pod. Whether the container's own limit is the same is not known; in a pod of one container it is.",
		Needs:   "oom_memcg is the pod's cgroup",
		fits:    func(f *Facts) bool { return f.limitAtPod() },
		advice:  advisePod,
	},
	{
		ID: "kubepods-limit", Cause: death.OOMNodeAllocatable, Confidence: death.Certain,
		Meaning: "All pods together (or those of one QoS class) reached the limit that the kubelet set for them, before an eviction could help.",
		Needs:   "oom_memcg is kubepods or a QoS group below it",
		fits: func(f *Facts) bool {
			return f.limitAt(cgpath.Kubepods) || f.limitAt(cgpath.QoS)
		},
		advice: adviseAllocatable,
	},
	{
		ID: "ancestor-limit", Cause: death.OOMAncestorLimit, Confidence: death.Certain,
		Meaning: "A systemd unit or slice, a Docker cgroup parent, a nested node or another group above the victim reached its limit.",
		Needs:   "oom_memcg is none of the above",
		fits:    (*Facts).limitKnown,
		advice:  adviseAncestor,
	},
	{
		ID: "node", Cause: death.OOMNode, Confidence: death.Certain,
		Meaning: "The machine had no memory left; the kernel chose the process with the highest oom_score.",
		Needs:   "kmsg: CONSTRAINT_NONE with global_oom, or oom_kill_process without a cgroup",
		fits: func(f *Facts) bool {
			return f.OOM && f.Basis != BasisNone && f.Constraint == ConstraintNone
		},
		advice: adviseNode,
	},
	{
		ID: "node-line-alone", Cause: death.OOMNode, Confidence: death.Probable,
		Meaning: "The kill line says that no cgroup's limit was reached. The report around it is missing, so a NUMA node that ran out cannot be told apart.",
		Needs:   "kmsg: a kill line that begins with \"Out of memory\"",
		fits:    func(f *Facts) bool { return f.OOM && f.SaidGlobal },
		advice:  adviseNode,
	},
	{
		ID: "limit-not-named", Cause: death.OOMContainerLimit, Confidence: death.Possible,
		Meaning: "A cgroup's limit was reached, and the victim lived in this container; the kernel's report, which names the limit, is missing (it is limited to 10 in 5 seconds for the whole machine).",
		Needs:   "a kill in a container; no report",
		fits:    func(f *Facts) bool { return f.OOM && f.Container != nil && !f.Stray },
		advice:  adviseLimit,
	},
	{
		ID: "limit-not-named-outside", Cause: death.OOMAncestorLimit, Confidence: death.Possible,
		Meaning: "The victim lived in a group with a memory limit on the way up; which one was reached is not known.",
		Needs:   "a kill outside containers, in a known cgroup; no report",
		fits:    func(f *Facts) bool { return f.OOM && f.TaskMemcg != "" },
		advice:  adviseAncestor,
	},
	{
		ID: "oom-not-placed", Cause: death.Unknown, Confidence: death.Possible,
		Meaning: "The kernel's OOM killer took a process; neither its cgroup nor whose limit it was is known (the kernel's report is missing).",
		Needs:   "a kill line without its report, and no other source",
		fits:    func(f *Facts) bool { return f.OOM },
		advice:  adviseUnplaced,
	},
}

// The constraints of the OOM killer (mm/oom_kill.c, oom_constraint_text).
const (
	ConstraintNone         = "CONSTRAINT_NONE"
	ConstraintCpuset       = "CONSTRAINT_CPUSET"
	ConstraintMemoryPolicy = "CONSTRAINT_MEMORY_POLICY"
	ConstraintMemcg        = "CONSTRAINT_MEMCG"
)

func (f *Facts) limitKnown() bool { return f.OOM && f.OOMMemcg != "" }

func (f *Facts) limitAt(l cgpath.Level) bool { return f.limitKnown() && f.OOMLevel == l && f.ours(l) }

// ours tells whether a limit at level l is the dead one's own: another
// container's cgroup above it (a nested node) is an ancestor like any other.
func (f *Facts) ours(l cgpath.Level) bool {
	if l != cgpath.Container {
		return true
	}
	return f.Container != nil && f.Container.Cgroup == f.OOMMemcg
}

func (f *Facts) limitAtPod() bool {
	return f.limitKnown() && f.PodCgroup != "" && f.OOMMemcg == f.PodCgroup
}

// Judge asks the rules in their order.
func Judge(f Facts) Verdict {
	for _, rules := range tables() {
		for i := range rules {
			r := &rules[i]
			if !r.fits(&f) {
				continue
			}
			v := Verdict{
				Rule:       r.ID,
				Cause:      r.Cause,
				Confidence: confidence(r, &f),
				Summary:    summary(r.Cause, r.ID, &f),
				Advice:     append(adviseChange(r.Cause, &f), r.advice(&f)...),
				AsksLog:    f.asksLog(),
				AsksDaemon: f.Waited && strings.HasPrefix(r.ID, "sigkill"),
				Killer:     f.killerBy(r.ID),
			}
			v.Advice = append(v.Advice, adviseEscaped(&f)...)
			if r.claim != nil {
				v.Claim = r.claim(&f)
			}
			return v
		}
	}
	return Verdict{Rule: "unknown", Cause: death.Unknown, Confidence: death.Possible}
}

// bySignal tells whether the rule rests on the signal that ended the container.
func (r *Rule) bySignal() bool {
	return slices.ContainsFunc(faults, func(x fault) bool { return x.id == r.ID })
}

// confidence lowers what a rule promises to what the facts can carry.
func confidence(r *Rule, f *Facts) death.Confidence {
	best := r.Confidence
	if f.OOM && f.Basis < BasisKernel && best == death.Certain {
		best = death.Probable
	}
	if !f.OOM && f.signalInferred() && best == death.Certain && r.bySignal() {
		best = death.Probable
	}
	if r.sure != nil && best == death.Certain && !r.sure(f) {
		best = death.Probable
	}
	if f.CountedOnly {
		return death.Possible
	}
	return best
}
