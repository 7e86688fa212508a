// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"
)

// quicks is how many deaths latency looks at.
const quicks = 5

func quick() string {
	s := ""
	for i := range quicks {
		s += pod(fmt.Sprint("quick-", i), "p", "{"+tolerant+", restartPolicy: Never, containers: ["+main1("", "", "wait")+"]}")
	}
	return s
}

// latency: how long after the kernel's kill a death is on the API, and how long
// after the word of Kubernetes it has that.
func (c *Cluster) latency(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var told, amended []time.Duration
	for i := range quicks {
		namespace := fmt.Sprint("quick-", i)
		pid := c.firstOf(t, namespace)
		deaths, err := c.follow(ctx, namespace)
		if err != nil {
			t.Fatal(err)
		}
		killed := time.Now()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		first := c.next(t, deaths)
		told = append(told, first.at.Sub(killed))
		var said time.Time
		c.until(t, time.Minute, "the word of Kubernetes", func() error {
			p, err := c.pod(namespace)
			said = time.Now()
			if err == nil && p.Status.ContainerStatuses[0].State.Terminated == nil {
				err = fmt.Errorf("phase %s", p.Status.Phase)
			}
			return err
		})
		for d := first; ; d = c.next(t, deaths) {
			if d.Exit.Code != nil {
				amended = append(amended, max(0, d.at.Sub(said)))
				break
			}
		}
	}
	slices.Sort(told)
	slices.Sort(amended)
	t.Logf("told after %v, amended %v after the API said so", told, amended)
	// What else runs on the machine is in the way, and not always.
	if told[0] > 25*time.Millisecond {
		t.Errorf("the quickest death was told after %v", told[0])
	}
	if worst := amended[len(amended)-1]; worst > 2*time.Second {
		t.Errorf("the API's word was told %v later", worst)
	}
}

// next is what the stream tells next.
func (c *Cluster) next(t *testing.T, deaths <-chan seen) seen {
	t.Helper()
	select {
	case d, ok := <-deaths:
		if !ok {
			t.Fatal("the stream ended")
		}
		return d
	case <-time.After(time.Minute):
		t.Fatal("the stream tells nothing")
	}
	panic("unreachable")
}
