// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// ownerKinds are what pods are made by.
func ownerKinds() []string {
	return []string{"Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"}
}

// owned makes one of each kind, called o, whose pods end with 7.
func owned() string {
	var b strings.Builder
	for _, kind := range ownerKinds() {
		spec, labels := "containers: ["+main1("", "", "sleep=1s", "exit=7")+"]", "metadata: {labels: {app: o}}"
		always := "selector: {matchLabels: {app: o}}, template: {" + labels + ", spec: {" + spec + "}}"
		once := "backoffLimit: 0, template: {" + labels + ", spec: {restartPolicy: Never, " + spec + "}}"
		group, what := "apps/v1", always
		switch kind {
		case "StatefulSet":
			what += ", serviceName: o"
		case "Job":
			group, what = "batch/v1", once
		case "CronJob":
			group, what = "batch/v1", `schedule: "* * * * *", jobTemplate: {spec: {`+once+"}}"
		}
		namespace := "owner-" + strings.ToLower(kind)
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n---\napiVersion: %s\nkind: %s\nmetadata: {name: o, namespace: %s}\nspec: {%s}\n", namespace, group, kind, namespace, what)
	}
	return b.String()
}

// owners holds the first death of each against who made the pod.
func (c *Cluster) owners(t *testing.T) {
	for _, kind := range ownerKinds() {
		t.Run(kind, func(t *testing.T) {
			namespace := "owner-" + strings.ToLower(kind)
			var d death
			// The CronJob's comes at the next full minute.
			c.until(t, 90*time.Second, "a death of its pods", func() error {
				deaths, err := c.deaths(namespace)
				if err != nil {
					return err
				}
				if len(deaths) == 0 || (want{}).of(&deaths[0]) != (want{"container", "main", "error", 7, "true"}) {
					return fmt.Errorf("told %v", deaths)
				}
				d = deaths[0]
				return nil
			})
			if got := d.Container.Pod.Owner; got.Kind != kind || got.Name != "o" || !strings.HasPrefix(d.Container.Pod.Name, "o-") {
				t.Errorf("pod %s is told to be of %+v, want %s o", d.Container.Pod.Name, got, kind)
			}
			if _, err := c.kubectl("delete", strings.ToLower(kind), "o", "-n", namespace, "--wait=false"); err != nil {
				t.Error(err)
			}
		})
	}
}
