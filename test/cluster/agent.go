// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const agentURL = "http://127.0.0.1:3001"

// death is what a death's record says, of its JSON form.
type death struct {
	ID         string `json:"id"`
	Revision   int    `json:"revision"`
	Subject    string `json:"subject"`
	Recovered  bool   `json:"recovered"`
	Cause      string `json:"cause"`
	Confidence string `json:"confidence"`
	Rule       string `json:"rule"`
	Summary    string `json:"summary"`
	Container  struct {
		Name string `json:"name"`
		Pod  struct {
			Namespace, Name, UID string
			Owner                struct{ Kind, Name string }
		} `json:"pod"`
	} `json:"container"`
	Exit struct {
		Code   *int   `json:"code"`
		Reason string `json:"reported_reason"`
		Agrees *bool  `json:"agrees"`
	} `json:"exit"`
	Killer *struct {
		PID  int    `json:"pid"`
		Comm string `json:"comm"`
	} `json:"killer"`
	Processes []struct {
		PID  int   `json:"pid"`
		Init *bool `json:"init"`
	} `json:"processes"`
	OOM *struct {
		LimitBytes int64 `json:"limit_bytes"`
	} `json:"oom"`
	Evidence []struct {
		Time         time.Time
		Source, Text string
	} `json:"evidence"`
}

func (d *death) String() string {
	s := fmt.Sprintf("%s %s (%s, %s) r%d: %s", d.Subject, d.Cause, d.Confidence, d.Rule, d.Revision, d.Summary)
	for _, e := range d.Evidence {
		s += "\n      " + e.Source + " " + e.Text
	}
	return s
}

// agent runs coroner's agent beside the kubelet, with no runtime's socket: names
// come from the API, deaths from the kernel.
func (c *Cluster) agent(t *testing.T) *process {
	t.Helper()
	return c.run(t, "agent", c.built.coroner, "agent", "--source.kube.kubeconfig", c.path("coroner.kubeconfig"), "--source.kube.kubelet", "http://"+address+":10255", "--node.name", node, "--web.listen-address", "127.0.0.1:3001", "--web.listen-address", address+":3001",
		"--history.path", c.path("deaths.db"), "--no-source.docker", "--no-source.containerd", "--no-source.cri", "--log.level", "debug")
}

// deaths are those of the pods in a namespace, oldest first.
func (c *Cluster) deaths(namespace string) ([]death, error) {
	var l struct{ Deaths []death }
	if err := c.get(agentURL+"/api/v1/deaths?limit=1000&namespace="+namespace, &l); err != nil {
		return nil, err
	}
	slices.Reverse(l.Deaths)
	return l.Deaths, nil
}

// want is one death as it must be told.
type want struct {
	subject, container, cause string
	code                      int // -1: none
	agrees                    string
}

func (want) of(d *death) want {
	g := want{d.Subject, d.Container.Name, d.Cause, -1, ""}
	if d.Exit.Code != nil {
		g.code = *d.Exit.Code
	}
	if d.Exit.Agrees != nil {
		g.agrees = fmt.Sprint(*d.Exit.Agrees)
	}
	return g
}

// settled waits until the namespace has n deaths, and then until none of them
// changes any more: later evidence amends.
func (c *Cluster) settled(t *testing.T, namespace string, n int) []death {
	t.Helper()
	var last string
	var since time.Time
	var got []death
	c.until(t, 90*time.Second, fmt.Sprintf("%d deaths in %s", n, namespace), func() (err error) {
		if got, err = c.deaths(namespace); err != nil {
			return err
		}
		var now strings.Builder
		for i := range got {
			fmt.Fprintln(&now, got[i].String())
		}
		if now.String() != last {
			last, since = now.String(), time.Now()
		}
		if len(got) < n || time.Since(since) < 4*time.Second {
			return fmt.Errorf("%d deaths so far:\n%s", len(got), last)
		}
		return nil
	})
	return got
}
