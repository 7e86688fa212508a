// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// told is an event of the agent's.
type told struct {
	Type, Reason, Message string
	Count                 int
	InvolvedObject        struct{ Name, FieldPath string }
	Source                struct{ Component, Host string }
}

// events are those of the agent in a namespace.
func (c *Cluster) events(namespace string) ([]told, error) {
	var l struct{ Items []told }
	err := c.get(server+"/api/v1/namespaces/"+namespace+"/events?fieldSelector=source%3Dcoroner", &l)
	return l.Items, err
}

// described holds what kubectl shows of the pods of the scenarios against what
// was done to them: each end that nobody asked for has one event, others none.
func (c *Cluster) described(t *testing.T) {
	for namespace, want := range map[string][]string{
		"a-oom-init":             {"OOMKilled spec.containers{main}"},
		"b-oom-child":            {"OOMKilled spec.containers{main}"},
		"b-oom-child-then-exit3": {"OOMKilled spec.containers{main}", "ContainerDied spec.containers{main}"},
		"d-sigkill":              {"ContainerDied spec.containers{main}"},
		"f-segv":                 {"ContainerDied spec.containers{main}"},
		"g-completed":            nil,
		"j-delete":               nil,
		"j-delete-stubborn":      nil,
		"k-oom-initcontainer":    {"OOMKilled spec.initContainers{prepare}"},
		"m-api-eviction":         nil,
	} {
		t.Run(namespace, func(t *testing.T) {
			deaths, err := c.deaths(namespace)
			if err != nil {
				t.Fatal(err)
			}
			var got []told
			c.until(t, time.Minute, "its events", func() (err error) {
				if got, err = c.events(namespace); err == nil && len(got) < len(want) {
					err = fmt.Errorf("%d events", len(got))
				}
				return err
			})
			left := map[string]int{}
			for _, w := range want {
				left[w]++
			}
			for _, e := range got {
				t.Logf("%+v", e)
				left[e.Reason+" "+e.InvolvedObject.FieldPath]--
				if e.Type != "Warning" || e.Count != 1 || e.Source.Host != node || e.InvolvedObject.Name != "p" || !sentence(deaths, e.Message) {
					t.Errorf("event %+v is of none of %v", e, deaths)
				}
			}
			for what, n := range left {
				if n != 0 {
					t.Errorf("%s: %+d events missing", what, n)
				}
			}
		})
	}
	out, err := c.kubectl("describe", "pod", "p", "-n", "a-oom-init")
	if err != nil {
		t.Fatal(err)
	}
	_, events, _ := strings.Cut(out, "\nEvents:")
	t.Log(events)
	for line := range strings.Lines(events) {
		if f := strings.Fields(line); len(f) > 3 && f[0] == "Warning" && f[1] == "OOMKilled" && f[3] == "coroner" {
			return
		}
	}
	t.Errorf("kubectl describe pod does not show it:\n%s", out)
}

func sentence(deaths []death, message string) bool {
	for i := range deaths {
		if deaths[i].Summary == message {
			return true
		}
	}
	return false
}
