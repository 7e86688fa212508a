// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"strings"
)

//go:generate go test -run ^TestDocs_AreTheTable$ -update .

// Docs is the text of docs/metrics.md.
func Docs() string {
	var b strings.Builder
	b.WriteString(docsHead)
	for _, r := range Table() {
		labels := "–"
		if len(r.Labels) > 0 {
			labels = "`" + strings.Join(r.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", r.Name, r.Type, labels, r.Help, r.Stability)
	}
	fmt.Fprintf(&b, docsTail, foldedContainer, DefaultMaxSeries, shortID, maxLabel)
	return b.String()
}

const docsHead = `<!-- Made by "make generate" from internal/sink/metrics/table.go. Do not edit. -->

# Metrics

` + "`/metrics`" + ` serves these, and the usual ` + "`go_`, `process_` and `promhttp_`" + ` metrics of the agent itself.

| metric | type | labels | meaning | stability |
|---|---|---|---|---|
`

const docsTail = `
## How deaths are counted

- An OOM kill is one process that the kernel's OOM killer took: the victim, and what ` + "`memory.oom.group`" + ` took with it.
  Processes that died with them for other reasons (they shared the victim's memory, or their pid namespace ended) are
  in the death's record but not in ` + "`coroner_oom_kills_total`" + `, so that it can be compared with the kernel's own count.
  At the very first start the kernel's log is read from its beginning: those deaths count here, while
  ` + "`coroner_node_oom_kills_total`" + ` begins with the first start. ` + "`increase()`" + ` shows neither.
- A kill counts as soon as it is certain, under the cause known at that moment. When later evidence changes the cause or
  names the container, the count moves with it as long as no scrape has shown it. After that it stays where it was shown, for
  a counter must not go down; the death's record has the last word. Later evidence never counts a process twice.
- A container that is known and lives has its ` + "`coroner_oom_kills_total`" + ` at 0 for each cause that is an OOM kill, so that
  ` + "`increase()`" + ` sees the first one. A container that lives keeps all of its series, one that is gone for a day.
- ` + "`coroner_container_terminations_total`" + ` counts ends by any cause. Its series begin with the first death of the cause, at 0 where the
  container survived it: causes are many, and most containers end by none of them. On other ends than OOM kills alert with ` + "`time() - coroner_last_death_timestamp_seconds < 600`" + `, which sees the first one too.
- A container that lived between two scrapes has a series that begins above 0, where ` + "`increase()`" + ` sees nothing. The alerts that ` + "`coroner rules`" + `
  prints do. Where Prometheus gives targets a ` + "`namespace`, `pod` or `container`" + `, scrape with ` + "`honor_labels: true`" + `: those of a death are meant.
- On Kubernetes an agent's pod that is replaced has another address, and so another ` + "`instance`" + `, which goes on with all that was counted: alerts of
  the last while come again, and a number of kills over both is too high. Relabel ` + "`__meta_kubernetes_pod_node_name`" + ` to ` + "`instance`" + `, as the chart's
  PodMonitor does: each node has one series for good.

## What memory looks like

` + "`coroner_container_memory_limit_eta_seconds`" + ` takes two minutes of readings at least, and rather nothing than a chance is told: a window tells of
30 times its own length at most. A death's ` + "`memory.pattern`" + ` (` + "`leak`, `spike`, `steady`" + `) takes a minute before it: of a container that lived
shorter, or whose curve fits none of them, it is absent, and that is intended.

## Instead of missing-container-metrics

` + "`container_restarts`, `container_ooms` and `container_last_exit_code`" + ` have the names, labels and life of those of
missing-container-metrics, on the same port, so that its rules, dashboards and joins with ` + "`kube_pod_container_info`" + ` on ` + "`container_id`" + `
go on. They are there at 0 as soon as a container is known, and for five minutes after it was removed.

The first two are counters whose names do not end in ` + "`_total`" + `, as they were there: ` + "`promtool check metrics`" + ` says so and ends with status 3.

| label | Docker | other runtimes | known by its cgroup alone |
|---|---|---|---|
| ` + "`container_id`" + ` | ` + "`docker://ID`" + ` | ` + "`containerd://ID`, `cri-o://ID`, `podman://ID`" + ` | ID, with the runtime where the path tells it |
| ` + "`container_short_id`" + ` | %[3]d characters of the id | the same | the same |
| ` + "`docker_container_id`" + ` | the id | ` + "`not-a-docker-container`" + ` | empty, where the runtime is not known |
| ` + "`name`" + ` | the container's name | the name in the pod | empty |
| ` + "`image_id`" + ` | ` + "`docker-pullable://`" + ` and the image as it was named; ` + "`docker://`" + ` and its id where it has no name | the image as it was named | empty |
| ` + "`pod`, `namespace`" + ` | of the pod, where a source tells it | the same | empty |

What differs is the values, which are the true ones:

- ` + "`container_restarts`" + ` counts starts after the first, with every runtime; the other counts Docker's first start too, and nothing
  with containerd. A pod's container has a new id after each restart: all ids that are there show the count of the pod's container, one
  that was removed the count as it was then. So ` + "`increase()`" + ` shows a restart, on the id that was there before. The count goes on over
  restarts of the agent, and takes in what the engine itself counted meanwhile (the kubelet all, Docker those by
  its restart policy). Of starts that it does not count, as by hand, one while no agent runs is counted, further ones are lost.
- ` + "`container_ooms`" + ` counts processes that the kernel's OOM killer took, once each, as ` + "`coroner_oom_kills_total`" + ` does; the other counts
  the engine's events, which are missing for some kills and many for others.
- ` + "`container_last_exit_code`" + ` is of the container's first process; with containerd the other takes those of execs and probes as well. For a
  container that no engine knows it is the kernel's: 128 and the number of the signal, where one ended it.
- Containers that only hold a pod's namespaces are left out.
- At most %[2]d containers are shown, the living ones first.

## Restarts

- The counters of deaths, ` + "`container_ooms`, `coroner_node_oom_kills_total` and `coroner_unattributed_oom_kills_total`" + ` go on from where they were. They are
  kept in the history, each in one transaction with the deaths that it counts, and a scrape shows them once that is done: no scrape
  shows a counter lower than an earlier one, also after a kill -9.
- When the history refuses or does not answer for a second, they are shown without it. ` + "`coroner_sink_up{sink=\"history\"}`" + ` is 0 then, and
  a kill -9 before it is back takes them back as well, which Prometheus takes for a counter that began anew.
- ` + "`container_restarts`" + ` goes on as well; it is kept a moment after it is shown.
- All others count since the agent's start.

## Labels

- ` + "`container`" + ` is the container's name; where no source knows names, the first %[3]d characters of its id; for a process
  outside containers its systemd unit, or empty. ` + "`pod`" + ` is the pod's name, or its uid. ` + "`cause`" + `: see causes.md.
- At most %[2]d combinations of these labels are kept. Deaths of further ones count under ` + "`container=\"%[1]s\"`" + `, with
  ` + "`namespace` and `pod`" + ` empty, and ` + "`coroner_folded_deaths_total`" + ` says how many.
- Bytes that are not UTF-8 are shown as U+FFFD, and values end after %[4]d bytes.
`
