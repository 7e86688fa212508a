// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/kubelet"
)

// Disruption is why Kubernetes makes a pod go: its condition DisruptionTarget.
type Disruption struct {
	Reason, Message string
	At              time.Time
}

// Deletion is that somebody asked Kubernetes to delete the pod.
type Deletion struct {
	At    time.Time
	Grace time.Duration
}

// Probe is a probe that failed so often that the kubelet stopped the container.
type Probe struct {
	Kind  string // liveness, startup
	Found string // what it found last; "": not known
	Times int    // how often it failed so, as far as events tell; 0: not known
	At    time.Time
	// Inferred is true where the kubelet says that it stopped the container just
	// after the probe had failed, and not why: it ended the pod, which is not
	// to be started again.
	Inferred bool
	// What Kubernetes was told of it; 0: not known.
	Period, Timeout time.Duration
	Failures        int
}

// The reasons of the condition DisruptionTarget (k8s.io/api/core/v1, 1.26 to 1.37).
const (
	byScheduler    = "PreemptionByScheduler"
	byTaint        = "DeletionByTaintManager"
	byEvictionAPI  = "EvictionByEvictionAPI"
	byKubelet      = "TerminationByKubelet"
	reasonEvicted  = "Evicted"
	reasonShutdown = "NodeShutdown"
	reasonDeadline = "DeadlineExceeded"
)

// podRules judge what Kubernetes did to a pod or a container. What made a pod
// go comes before who was asked to stop its containers.
var podRules = []Rule{
	evictionRule("evicted-memory", death.EvictedMemory, "memory", "memory"),
	evictionRule("evicted-storage", death.EvictedStorage, "disk space or inodes", "ephemeral-storage", "inodes"),
	evictionRule("evicted-pids", death.EvictedPIDs, "process ids", "pids"),
	{
		ID: "node-shutdown", Cause: death.NodeShutdown, Confidence: death.Certain,
		Meaning: "The node was shut down, and the kubelet ended its pods before that.",
		Needs:   "the pod's status or condition, which says so",
		fits: func(f *Facts) bool {
			return f.madeToGo() && (f.PodReason == reasonShutdown || kubelet.Shutdown(f.PodMessage) || f.Disruption != nil && kubelet.Shutdown(f.Disruption.Message))
		},
		advice: noAdvice,
	},
	{
		ID: "preempted", Cause: death.Preempted, Confidence: death.Certain,
		Meaning: "A pod of higher priority needed the room: the scheduler, or for a critical pod the kubelet, made this one go.",
		Needs:   "the pod's condition DisruptionTarget",
		fits: func(f *Facts) bool {
			return f.madeToGo() && (f.disruptedBy(byScheduler) || kubelet.CriticalPod(f.PodMessage) || f.Disruption != nil && kubelet.CriticalPod(f.Disruption.Message))
		},
		advice: func(*Facts) []string {
			return []string{"Give the pod a higher priority class, or the cluster more room; look for the pod in whose favour it was (event Preempted)."}
		},
	},
	{
		ID: "drained", Cause: death.Drained, Confidence: death.Certain,
		Meaning: "Somebody evicted the pod through the API (kubectl drain, a cluster autoscaler), or a taint of the node (NoExecute) made it go.",
		Needs:   "the pod's condition DisruptionTarget; of a taint also the event TaintManagerEviction of a pod that is deleted",
		fits:    func(f *Facts) bool { return f.madeToGo() && (f.disruptedBy(byEvictionAPI) || f.byTaint()) },
		advice:  noAdvice,
	},
	{
		ID: "node-shutting-down", Cause: death.NodeShutdown, Confidence: death.Probable,
		Meaning: "The node was being shut down, a runtime's process told the container to stop, and nobody had asked for the pod's deletion: the kubelet ended it. That it says so of the pod itself, it did not get done.",
		Needs:   "the node's condition Ready, which says so, before the end; signal_generate: SIGTERM to the first process by a runtime's process",
		fits: func(f *Facts) bool {
			return !f.NodeShutdownAt.IsZero() && f.Deletion == nil && f.Disruption == nil && f.Probe == nil && f.Exit != nil && f.toldToStop(true) != nil && !f.otherKiller()
		},
		advice: noAdvice,
	},
	probeRule("liveness-probe", death.LivenessProbe, "liveness"),
	probeRule("startup-probe", death.StartupProbe, "startup"),
	inferredProbeRule("liveness-probe-inferred", death.LivenessProbe, "liveness"),
	inferredProbeRule("startup-probe-inferred", death.StartupProbe, "startup"),
	{
		ID: "deadline-timeout", Cause: death.StopTimeout, Confidence: death.Certain,
		Meaning: "The pod ran until its deadline (activeDeadlineSeconds); the container did not end within the grace period, and was killed.",
		Needs:   "the pod's reason DeadlineExceeded, its start and its deadline, before the end; SIGKILL as its end",
		fits:    func(f *Facts) bool { return f.pastDeadline() && f.endedBy(sigkill) },
		advice:  adviseStopTimeout,
	},
	{
		ID: "deadline", Cause: death.Stopped, Confidence: death.Certain,
		Meaning: "The pod ran until its deadline (activeDeadlineSeconds): the kubelet ended it, whatever its exit code.",
		Needs:   "the pod's reason DeadlineExceeded, its start and its deadline, before the end",
		fits:    (*Facts).pastDeadline,
		advice: func(*Facts) []string {
			return []string{"If it honestly needs longer, raise activeDeadlineSeconds; of a Job that counts for all its pods together."}
		},
	},
	{
		ID: "rejected", Cause: death.StartFailed, Confidence: death.Certain,
		Meaning: "The pod failed before any of its containers ran: the kubelet did not let it in (OutOfmemory, NodeAffinity), or something ended it before.",
		Needs:   "the pod's status, of which no container was ever started",
		fits:    func(f *Facts) bool { return f.PodNeverRan },
		advice:  noAdvice,
	},
	{
		ID: "deletion-timeout", Cause: death.StopTimeout, Confidence: death.Certain,
		Meaning: "The pod was deleted, the container did not end within the grace period, and was killed.",
		Needs:   "the pod's deletionTimestamp; SIGKILL as its end",
		fits:    func(f *Facts) bool { return f.deletedBefore() && f.endedBy(sigkill) && !f.otherKiller() },
		advice:  adviseStopTimeout,
	},
	{
		ID: "replaced-timeout", Cause: death.StopTimeout, Confidence: death.Certain,
		Meaning: "The kubelet stopped the container to make it anew, since somebody changed its image or its resources; it did not end within the grace period, and was killed.",
		Needs:   "the event Killing, which says so; SIGKILL as its end",
		fits:    func(f *Facts) bool { return f.replaced() && f.endedBy(sigkill) },
		advice:  adviseStopTimeout,
	},
	{
		ID: "replaced", Cause: death.Stopped, Confidence: death.Certain,
		Meaning: "The kubelet stopped the container to make it anew, since somebody changed its image or its resources.",
		Needs:   "the event Killing, which says so",
		fits:    (*Facts).replaced,
		advice:  noAdvice,
	},
	{
		ID: "stop-timeout-by-kubelet", Cause: death.StopTimeout, Confidence: death.Certain,
		Meaning: "The kubelet stopped the container, and not for its pod's deletion: a sidecar when the pod's own containers have ended, all of them when their sandbox is gone. It did not end within the grace period, and was killed.",
		Needs:   "the event Killing; SIGKILL as its end, by no other than a runtime's process. Probable where the kernel does not tell of it",
		fits: func(f *Facts) bool {
			return f.stoppedByKubelet() && f.endedBy(sigkill) && (f.OOMKilled == nil || !*f.OOMKilled)
		},
		sure:   func(f *Facts) bool { return f.FromKernel },
		advice: adviseStopTimeout,
	},
}

// deletionRules are for containers of pods that were deleted and that were not
// killed: what they did themselves is asked before.
var deletionRules = []Rule{
	{
		ID: "deleted", Cause: death.Stopped, Confidence: death.Certain,
		Meaning: "The pod was deleted, and the container ended in time, by the signal or with a code of its own.",
		Needs:   "the pod's deletionTimestamp, before the end",
		fits:    func(f *Facts) bool { return f.deletedBefore() && !f.endedBy(sigkill) && f.toldToStop(false) == nil },
		advice:  noAdvice,
	},
	{
		ID: "stopped-by-kubelet", Cause: death.Stopped, Confidence: death.Certain,
		Meaning: "The kubelet stopped the container, and not for its pod's deletion: a sidecar when the pod's own containers have ended, all of them when their sandbox is gone. It ended in time, by the signal or with a code of its own.",
		Needs:   "the event Killing, just before the end",
		fits:    func(f *Facts) bool { return f.stoppedByKubelet() && !f.endedBy(sigkill) && f.toldToStop(false) == nil },
		advice:  noAdvice,
	},
}

// evictionRule is for what the kubelet evicts pods for.
func evictionRule(id string, cause death.Cause, of string, resources ...string) Rule {
	return Rule{
		ID: id, Cause: cause, Confidence: death.Certain,
		Meaning: "The node was short of " + of + ", or the pod used more of it than it may: the kubelet evicted the pod. That is no OOM kill.",
		Needs:   "the pod's condition DisruptionTarget or its reason Evicted, which names what was short",
		fits: func(f *Facts) bool {
			e, ok := f.eviction()
			if !ok || !f.madeToGo() {
				return false
			}
			for _, r := range resources {
				if e.Resource == r {
					return true
				}
			}
			return false
		},
		advice: adviseEvicted,
	}
}

func probeRule(id string, cause death.Cause, kind string) Rule {
	return Rule{
		ID: id, Cause: cause, Confidence: death.Certain,
		Meaning: "The container's " + kind + " probe failed as often as it may: the kubelet stopped the container, to start it again. Its exit code, 0 included, only says how it took that.",
		Needs:   "the event Killing, which says so",
		fits: func(f *Facts) bool {
			return f.Probe != nil && f.Probe.Kind == kind && !f.Probe.Inferred && !f.otherKiller()
		},
		advice: adviseProbe,
	}
}

// inferredProbeRule is for pods that are not restarted, of which the kubelet
// only says that it stops their containers.
func inferredProbeRule(id string, cause death.Cause, kind string) Rule {
	return Rule{
		ID: id, Cause: cause, Confidence: death.Probable,
		Meaning: "The kubelet stopped the container just after its " + kind + " probe had failed, and nobody had asked for the pod's deletion. Of a pod that is not to be started again the kubelet does not say why it stops it.",
		Needs:   "the events Unhealthy and Killing, the one just before the other; no deletionTimestamp, condition DisruptionTarget or reason of the pod",
		fits: func(f *Facts) bool {
			return f.Probe != nil && f.Probe.Kind == kind && f.Probe.Inferred && !f.deletedBefore() && f.Disruption == nil && f.PodReason == "" &&
				f.NodeShutdownAt.IsZero() && !f.otherKiller()
		},
		advice: adviseProbe,
	}
}

// eviction is what the kubelet says of the pod's eviction.
func (f *Facts) eviction() (kubelet.Eviction, bool) {
	if d := f.Disruption; d != nil {
		if d.Reason != byKubelet {
			return kubelet.Eviction{}, false
		}
		if e, ok := kubelet.ParseEviction(d.Message); ok {
			return e, true
		}
	}
	if f.PodReason == reasonEvicted {
		return kubelet.ParseEviction(f.PodMessage)
	}
	return kubelet.Eviction{}, false
}

func (f *Facts) disruptedBy(reason string) bool {
	return f.Disruption != nil && f.Disruption.Reason == reason
}

// byTaint tells whether a taint of the node made the pod go. Before Kubernetes
// 1.26 an event alone says so.
func (f *Facts) byTaint() bool {
	if f.Disruption != nil {
		return f.disruptedBy(byTaint)
	}
	return !f.TaintedAt.IsZero() && f.deletedBefore() && !f.EndedAt.Before(f.TaintedAt.Add(-apiGrain))
}

// taintOf names the taint that made a pod go, where there is but one.
func taintOf(f *Facts) string {
	if len(f.Taints) == 1 {
		return "The node's taint " + death.Printable(f.Taints[0])
	}
	return "A taint of the node (NoExecute)"
}

// How far apart the API's whole seconds and an end may be, and how long after
// the last container's end the kubelet sets the condition.
const (
	apiGrain  = 2 * time.Second
	saidAfter = 5 * time.Second
)

// madeToGo tells whether the container ended because its pod was made to go,
// and not by itself before that. The kubelet says so when all containers have
// ended, others do before.
func (f *Facts) madeToGo() bool {
	if f.PodNeverRan {
		return true
	}
	if f.Exit == nil || f.otherKiller() {
		return false
	}
	at := f.EvictedAt
	if d := f.Disruption; at.IsZero() && d != nil && !d.At.IsZero() {
		at = d.At
		if d.Reason == byKubelet {
			at = at.Add(-f.PodGrace - saidAfter)
		}
	}
	return !f.EndedAt.Before(at.Add(-apiGrain))
}

// pastDeadline tells whether the kubelet ended the pod because its time was over,
// and the container not before that: both are by the node's clock.
func (f *Facts) pastDeadline() bool {
	if f.PodReason != reasonDeadline {
		return false
	}
	return f.PodNeverRan || f.Exit != nil && !f.otherKiller() && !f.Deadline.IsZero() && !f.EndedAt.Before(f.Deadline)
}

// replaced tells whether the container ended because it is to be made anew.
func (f *Facts) replaced() bool { return f.Replaced != "" && f.Exit != nil && !f.otherKiller() }

// stoppedByKubelet tells whether the kubelet stopped the container, and nothing
// says that its pod was to go.
func (f *Facts) stoppedByKubelet() bool {
	return f.Stopping && f.Exit != nil && f.Deletion == nil && f.Disruption == nil && f.PodReason == "" && !f.otherKiller()
}

// deletedBefore tells whether the pod's deletion was asked for before the end.
func (f *Facts) deletedBefore() bool {
	d := f.Deletion
	return d != nil && f.Exit != nil && !d.At.After(f.EndedAt.Add(apiGrain))
}

// podOf names the pod and, where there is one, the container in it.
func podOf(f *Facts) string {
	c := f.Container
	if c == nil || c.Pod == nil {
		return where(f)
	}
	s := "pod " + death.Printable(c.Pod.Namespace+"/"+c.Pod.Name)
	if c.Name != "" {
		s += " (container " + death.Printable(c.Name) + ")"
	}
	return s
}

// evictedSentence names what was short, with the numbers.
func evictedSentence(f *Facts) string {
	e, _ := f.eviction()
	short := map[string]string{"memory": "memory", "ephemeral-storage": "disk space", "inodes": "inodes", "pids": "process ids"}[e.Resource]
	var b strings.Builder
	fmt.Fprintf(&b, "The kubelet evicted %s", podOf(f))
	if e.OwnLimit {
		b.WriteString(", which used more disk space than it may")
	} else {
		b.WriteString(": the node was short of " + short)
	}
	amount := func(n int64) string {
		if e.Resource == "memory" || e.Resource == "ephemeral-storage" {
			return death.FormatBytes(n)
		}
		return fmt.Sprint(n)
	}
	if e.AvailableBytes != nil && e.ThresholdBytes != nil {
		fmt.Fprintf(&b, ", %s left and a threshold of %s", amount(*e.AvailableBytes), amount(*e.ThresholdBytes))
	}
	if u := userOf(f, e); u != nil && u.UsedBytes != nil {
		fmt.Fprintf(&b, "; it used %s", amount(*u.UsedBytes))
		if u.RequestBytes != nil {
			fmt.Fprintf(&b, ", having requested %s", amount(*u.RequestBytes))
		}
	}
	switch {
	case f.PodNeverRan:
		b.WriteString("; none of its containers had run")
	case f.Exit != nil:
		b.WriteString("; it " + endedHow(f))
	}
	return b.String() + "."
}

// userOf is what the kubelet says of this container, or of the only one that it
// names.
func userOf(f *Facts, e kubelet.Eviction) *kubelet.User {
	for i := range e.Users {
		if f.Container != nil && e.Users[i].Container == f.Container.Name {
			return &e.Users[i]
		}
	}
	return nil
}

func probeSentence(f *Facts) string {
	s := fmt.Sprintf("The kubelet stopped %s because its %s probe failed", where(f), f.Probe.Kind)
	if f.Probe.Found = strings.TrimSpace(f.Probe.Found); f.Probe.Found != "" {
		s += ": " + shorten(death.Printable(f.Probe.Found), 200)
	}
	return s + "; it " + endedHow(f) + "."
}

func adviseEvicted(f *Facts) []string {
	e, _ := f.eviction()
	if e.OwnLimit {
		return []string{"Raise the pod's limit of ephemeral storage (or the emptyDir's sizeLimit), or find what wrote so much."}
	}
	if e.Resource != "memory" {
		return []string{"Find what uses it up on the node (images, logs, emptyDir volumes; processes), and give pods limits of it."}
	}
	var out []string
	if u := userOf(f, e); u != nil && u.UsedBytes != nil && u.RequestBytes != nil && *u.UsedBytes > *u.RequestBytes {
		out = append(out, fmt.Sprintf("The kubelet first evicts pods that use more than they requested: a request of %s would have kept this container out of that.", death.FormatBytes(roundUp(*u.UsedBytes))))
	}
	return append(out, "The evicted pod need not be the cause: look at what else uses the node's memory, outside pods too.")
}

func adviseProbe(f *Facts) []string {
	p := f.Probe
	set := func(n string, v int) string { // the field, with what it is now
		if v == 0 {
			return n
		}
		return fmt.Sprintf("%s (%d)", n, v)
	}
	failures := set("failureThreshold", p.Failures)
	if p.Kind == "startup" {
		return []string{"Let it take longer to start (startupProbe: " + failures + " times " + set("periodSeconds", int(p.Period.Seconds())) + "), or find what keeps it from being ready."}
	}
	return []string{
		"Find out why the probe failed: no memory or processor time left for an answer (throttling), a deadlock, a dependency that the probe should not ask.",
		"If it was only slow, raise " + set("timeoutSeconds", int(p.Timeout.Seconds())) + " or " + failures + "; give a slow start a startupProbe.",
	}
}

// podSentences are the summaries of podRules.
var podSentences = map[string]func(*Facts) string{
	"evicted-memory":  evictedSentence,
	"evicted-storage": evictedSentence,
	"evicted-pids":    evictedSentence,
	"node-shutdown": func(f *Facts) string {
		return fmt.Sprintf("The node was shut down, and the kubelet ended %s; it %s.", podOf(f), endedHow(f))
	},
	"node-shutting-down": func(f *Facts) string {
		return fmt.Sprintf("The node was being shut down when %s was told to stop; it %s.", podOf(f), endedHow(f))
	},
	"preempted": func(f *Facts) string {
		return fmt.Sprintf("%s had to make room for a pod of higher priority; it %s.", upper(podOf(f)), endedHow(f))
	},
	"drained": func(f *Facts) string {
		if f.byTaint() {
			return fmt.Sprintf("%s made %s go; it %s.", taintOf(f), podOf(f), endedHow(f))
		}
		return fmt.Sprintf("Somebody evicted %s through the API, as kubectl drain does; it %s.", podOf(f), endedHow(f))
	},
	"liveness-probe": probeSentence,
	"startup-probe":  probeSentence,
	"deadline-timeout": func(f *Facts) string {
		return fmt.Sprintf("%s had run until its deadline (activeDeadlineSeconds); %s did not end within its grace period of %s and was killed (SIGKILL).", upper(podOf(f)), firstName(f), Spell(f.PodGrace))
	},
	"deadline": func(f *Facts) string {
		if f.PodNeverRan {
			return upper(podOf(f)) + " reached its deadline (activeDeadlineSeconds) before any of its containers had run."
		}
		return fmt.Sprintf("%s had run until its deadline (activeDeadlineSeconds), and the kubelet ended it; it %s.", upper(podOf(f)), endedHow(f))
	},
	"rejected": func(f *Facts) string {
		s := upper(podOf(f)) + " failed before any of its containers had run"
		reason, message := f.PodReason, f.PodMessage
		if d := f.Disruption; reason == "" && d != nil {
			reason, message = d.Reason, d.Message
		}
		for _, w := range []string{reason, strings.TrimRight(message, ". ")} {
			if w != "" {
				s += ": " + shorten(death.Printable(w), 300)
			}
		}
		return s + "."
	},
	"replaced-timeout": func(f *Facts) string {
		return fmt.Sprintf("The kubelet stopped %s to make it anew, since %s; %s did not end within its grace period of %s and was killed (SIGKILL).", where(f), f.Replaced, firstName(f), Spell(f.PodGrace))
	},
	"replaced": func(f *Facts) string {
		return fmt.Sprintf("The kubelet stopped %s to make it anew, since %s; it %s.", where(f), f.Replaced, endedHow(f))
	},
	"stop-timeout-by-kubelet": func(f *Facts) string {
		return fmt.Sprintf("The kubelet stopped %s; %s did not end within its grace period of %s and was killed (SIGKILL).", where(f), firstName(f), Spell(f.PodGrace))
	},
	"stopped-by-kubelet": func(f *Facts) string {
		return fmt.Sprintf("The kubelet stopped %s; it ended in time: it %s.", where(f), endedHow(f))
	},
	"deletion-timeout": func(f *Facts) string {
		return fmt.Sprintf("%s was deleted; %s did not end within its grace period of %s and was killed (SIGKILL).", upper(podOf(f)), firstName(f), Spell(f.Deletion.Grace))
	},
	"deleted": func(f *Facts) string {
		return fmt.Sprintf("%s was deleted and ended in time: %s %s.", upper(podOf(f)), firstName(f), endedHow(f))
	},
}
