// SPDX-License-Identifier: Apache-2.0

package death

import "strings"

// Workload is what a container outside Kubernetes belongs to, by its labels:
// claims of whoever made it.
type Workload struct {
	Kind  string `json:"kind"`            // compose, ecs, nomad
	Group string `json:"group,omitempty"` // compose project, ECS task definition family, Nomad job
	Name  string `json:"name"`            // compose service, ECS container name, Nomad task
}

// String is GROUP/NAME, as people type it.
func (w *Workload) String() string {
	if w.Group == "" {
		return w.Name
	}
	return w.Group + "/" + w.Name
}

// Title is what kind of workload, and which.
func (w *Workload) Title() string {
	kind := w.Kind
	switch kind {
	case WorkloadECS:
		kind = "ECS"
	case WorkloadNomad:
		kind = "Nomad"
	}
	return kind + " " + w.String()
}

// The kinds of Workload.
const (
	WorkloadCompose = "compose"
	WorkloadECS     = "ecs"
	WorkloadNomad   = "nomad"
)

// workloadLabels are the labels that name a workload. Nomad tells more than the
// allocation only where its plugin's extra_labels say so.
var workloadLabels = []struct{ kind, group, name string }{
	{WorkloadCompose, "com.docker.compose.project", "com.docker.compose.service"},
	{WorkloadECS, "com.amazonaws.ecs.task-definition-family", "com.amazonaws.ecs.container-name"},
	{WorkloadNomad, "com.hashicorp.nomad.job_name", "com.hashicorp.nomad.task_name"},
}

// nomadAlloc is the one label that Nomad always gives.
const nomadAlloc = "com.hashicorp.nomad.alloc_id"

// WorkloadOf reads the labels of a container with that name; nil: they name none.
func WorkloadOf(name string, labels map[string]string) *Workload {
	for _, l := range workloadLabels {
		if n := labels[l.name]; n != "" {
			return &Workload{Kind: l.kind, Group: labels[l.group], Name: n}
		}
	}
	// Nomad's docker driver calls a container TASK-ALLOCATION.
	if alloc := labels[nomadAlloc]; alloc != "" {
		if task, ok := strings.CutSuffix(name, "-"+alloc); ok && task != "" {
			return &Workload{Kind: WorkloadNomad, Group: labels["com.hashicorp.nomad.job_name"], Name: task}
		}
	}
	return nil
}
