// SPDX-License-Identifier: Apache-2.0

package mixin

import (
	"fmt"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

// alert is one rule. Its page is docs/runbooks/NAME.md.
type alert struct {
	name string
	expr string
	// hold is how long it must be true.
	hold     time.Duration
	severity severity
	// summary is who and what, description the numbers and where to look: both
	// are templates of Prometheus'.
	summary, description string
}

// severity says who is to be woken.
type severity string

const (
	critical severity = "critical" // somebody, now
	warning  severity = "warning"  // nobody: somebody should look today
)

// What the templates of several alerts say.
const (
	// who is a container, by all the names that it has.
	who = `{{ with $labels.namespace }}{{ . }}/{{ end }}{{ with $labels.pod }}{{ . }}/{{ end }}{{ or $labels.container "the host itself" }}`
	// whom is who without the container, where all of a pod are meant.
	whom = `{{ with $labels.namespace }}{{ . }}/{{ end }}{{ $labels.pod }}`
	// limit tells the limit of a container that is there still.
	limit = `{{ with printf "` + metrics.MemoryLimit + `{namespace=%q,pod=%q,container=%q,instance=%q}" $labels.namespace $labels.pod $labels.container $labels.instance | query }} Its memory limit is {{ . | first | value | humanize1024 }}B.{{ end }}`
	// kills tells how often it came to that.
	kills = `{{ with printf "` + metrics.OOMKills + `{namespace=%q,pod=%q,container=%q,instance=%q,cause=%q}" $labels.namespace $labels.pod $labels.container $labels.instance $labels.cause | query }} Processes taken so far: {{ . | first | value }}.{{ end }}`
	// holds tells how much a container holds.
	holds = `{{ with printf "` + metrics.MemoryWorkingSet + `{namespace=%q,pod=%q,container=%q,instance=%q}" $labels.namespace $labels.pod $labels.container $labels.instance | query }} It holds {{ . | first | value | humanize1024 }}B.{{ end }}`
	// why is the command that tells more; a pod of which only the uid is known
	// is asked for by its container.
	why = ` "coroner {{ if $labels.namespace }}why {{ $labels.namespace }}/{{ $labels.pod }}/{{ $labels.container }}{{ else if $labels.container }}why {{ $labels.container }}{{ else }}list{{ end }}" says why.`
)

// The windows and thresholds. An alert on something that happened stays for
// its window, so that who was called finds it.
const (
	recent       = 10 * time.Minute
	killsWindow  = time.Hour
	manyKills    = 5
	loopWindow   = 30 * time.Minute // the kubelet waits up to five minutes between two starts
	loopEnds     = 3
	nearETA      = time.Hour
	nearPart     = 0.5 // of the limit: what has just begun grows, too
	engineWindow = 6 * time.Hour
	auditWindow  = time.Hour
)

// alerts lists all, in the order in which a reader wants them. A new alert
// starts here. o's pace is in all times.
func alerts(o Options) []alert {
	return append(deathAlerts(o), agentAlerts(o)...)
}

// deathAlerts are on what happens to containers and to the machine.
func deathAlerts(o Options) []alert {
	evicted := fmt.Sprintf(`{cause=~"%s"}`, anyOf([]death.Cause{death.EvictedMemory, death.EvictedStorage, death.EvictedPIDs}))
	return []alert{
		{
			name: "CoronerOOMKill", severity: warning,
			expr:        died(oomCauses(), o.pace(recent)),
			summary:     "OOM kill in " + who,
			description: `The kernel's OOM killer took a process of ` + who + ` on {{ $labels.instance }} {{ $value | humanizeDuration }} ago: {{ $labels.cause }}.` + kills + limit + why,
		},
		{
			name: "CoronerOOMKillsRepeated", severity: critical,
			expr:        fmt.Sprintf("%s >= %d", counted(metrics.OOMKills, "", o.pace(killsWindow)), manyKills),
			summary:     "OOM kills again and again in " + who,
			description: `The kernel's OOM killer took {{ $value }} processes of ` + who + ` on {{ $labels.instance }} within ` + length(o.pace(killsWindow)) + `: {{ $labels.cause }}.` + limit + why,
		},
		{
			name: "CoronerNodeOutOfMemory", severity: critical,
			expr:        "count without (namespace, pod, container, cause) (" + died([]death.Cause{death.OOMNode}, o.pace(recent)) + ")",
			summary:     "{{ $labels.instance }} ran out of memory",
			description: `The machine of {{ $labels.instance }} itself ran out of memory: in the last ` + length(o.pace(recent)) + ` the kernel's OOM killer struck in {{ $value }} container(s) or unit(s), whoever was to blame. "coroner list --cause ` + string(death.OOMNode) + `" names the victims.`,
		},
		{
			name: "CoronerEvicted", severity: warning,
			expr:        fmt.Sprintf("time() - max without (container) (%s%s) < %s", metrics.LastDeath, evicted, seconds(o.pace(recent))),
			summary:     whom + " was evicted",
			description: `The kubelet evicted ` + whom + ` {{ $value | humanizeDuration }} ago, for the node ({{ $labels.instance }}) was short: {{ $labels.cause }}. "coroner why ` + whom + `" has the threshold, what was left, and what the pod used.`,
		},
		{
			name: "CoronerMemoryExhausted", severity: warning,
			expr:        died([]death.Cause{death.HeapLimit, death.OOMUserspace}, o.pace(recent)),
			summary:     who + " ran out of memory: {{ $labels.cause }}",
			description: who + ` on {{ $labels.instance }} ended {{ $value | humanizeDuration }} ago for want of memory, though the kernel killed nothing: {{ $labels.cause }}.` + limit + why,
		},
		{
			name: "CoronerCrashLoop", severity: critical,
			expr:        fmt.Sprintf("%s >= %d", counted(metrics.Terminations, fmt.Sprintf(`{cause!~"%s"}`, anyOf(intended())), o.pace(loopWindow)), loopEnds),
			summary:     who + " ends again and again: {{ $labels.cause }}",
			description: who + ` on {{ $labels.instance }} ended {{ $value }} times within ` + length(o.pace(loopWindow)) + `, each time by {{ $labels.cause }}.` + limit + why,
		},
		{
			name: "CoronerMemoryLimitNear", severity: warning, hold: 2 * time.Minute,
			expr: fmt.Sprintf("%s < %s\nand\n%s / %s > %g", metrics.MemoryLimitETA, seconds(o.pace(nearETA)),
				metrics.MemoryWorkingSet, metrics.MemoryLimit, nearPart),
			summary:     who + " reaches its memory limit in {{ $value | humanizeDuration }}",
			description: `At its present rate ` + who + ` on {{ $labels.instance }} reaches its memory limit in {{ $value | humanizeDuration }}, and is then OOM-killed.` + holds + limit,
		},
	}
}

// oomCauses are those by which the kernel's OOM killer takes processes.
func oomCauses() []death.Cause {
	var out []death.Cause
	for _, i := range death.Causes() {
		if i.OOM {
			out = append(out, i.Cause)
		}
	}
	return out
}

// intended are ends that a container is meant to have, or that somebody asked
// for: many of them are no crash loop.
func intended() []death.Cause {
	return []death.Cause{
		death.Completed, death.Stopped, death.StopTimeout, death.Drained, death.Preempted, death.NodeShutdown,
		death.EvictedMemory, death.EvictedStorage, death.EvictedPIDs,
	}
}

// kernelSources see a kill themselves; all others add names and reasons.
func kernelSources() []death.Source {
	return []death.Source{death.SourceTracepoint, death.SourceKmsg, death.SourceCgroup}
}

// agentAlerts are on coroner itself: who sees nothing must say so.
func agentAlerts(o Options) []alert {
	kernel := anyOf(kernelSources())
	return []alert{
		{
			name: "CoronerBlind", severity: critical, hold: 5 * time.Minute,
			expr:        fmt.Sprintf(`max without (source) (%s{source=~"%s"}) == 0`, metrics.SourceUp, kernel),
			summary:     "coroner on {{ $labels.instance }} sees no OOM kill",
			description: `None of the sources that see the kernel's kills is up on {{ $labels.instance }}: no alert on an OOM kill can come from there. "coroner doctor" on that node says what each lacks.`,
		},
		{
			name: "CoronerSourceDown", severity: warning, hold: 15 * time.Minute,
			expr: fmt.Sprintf("%[1]s{source=~\"%[2]s\"} == 0\nor\n(%[1]s{source!~\"%[2]s\"} == 0 and max_over_time(%[1]s{source!~\"%[2]s\"}[%[3]s]) == 1)",
				metrics.SourceUp, kernel, length(o.pace(engineWindow))),
			summary:     "coroner on {{ $labels.instance }} lacks the source {{ $labels.source }}",
			description: `The source {{ $labels.source }} has not watched on {{ $labels.instance }} for ` + length(o.pace(15*time.Minute)) + `: verdicts are less sure, or names are missing. "coroner doctor" on that node says what it lacks.`,
		},
		{
			name: "CoronerEvidenceLost", severity: warning,
			expr:        risen(metrics.SourceLostOOMEvidence, o.pace(recent)) + " > 0",
			summary:     "coroner on {{ $labels.instance }} lost what may have told of an OOM kill",
			description: `The source {{ $labels.source }} on {{ $labels.instance }} lost {{ $value }} signal(s) in the last ` + length(o.pace(recent)) + ` that may have told of an OOM kill. What no source told, the audit (` + metrics.Unattributed + `) finds.`,
		},
		{
			name: "CoronerUnattributedOOMKill", severity: warning,
			expr:        risen(metrics.Unattributed, o.pace(auditWindow)) + " > 0",
			summary:     "OOM kill on {{ $labels.instance }} that coroner cannot explain",
			description: `The kernel counted {{ $value }} OOM kill(s) on {{ $labels.instance }} within ` + length(o.pace(auditWindow)) + ` for which there is no death: somebody was killed, and coroner cannot say who.`,
		},
		{
			name: "CoronerNotKept", severity: warning, hold: 10 * time.Minute,
			expr:        metrics.SinkUp + " == 0",
			summary:     "coroner on {{ $labels.instance }} cannot keep its deaths",
			description: `The sink {{ $labels.sink }} on {{ $labels.instance }} has taken no death for ` + length(o.pace(10*time.Minute)) + `. They wait in memory; when the room is used up, or the agent ends, they are gone.`,
		},
		{
			name: "CoronerAgentAbsent", severity: warning, hold: 10 * time.Minute,
			expr:        fmt.Sprintf("up{%[1]s} == 0\nor\nabsent(up{%[1]s})", o.job()),
			summary:     "no coroner answers{{ with $labels.instance }} on {{ . }}{{ end }}",
			description: `{{ with $labels.instance }}The agent on {{ . }} has not answered Prometheus for {{ else }}Prometheus has known no agent (job ` + o.jobName() + `) for {{ end }}` + length(o.pace(10*time.Minute)) + `: nobody tells of deaths there.`,
		},
	}
}
