// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/oomtest"
)

// TestAgent_NamesTheUnitThatGrows: memory that grows outside of all containers
// is told with its unit and its growth (S24).
func TestAgent_NamesTheUnitThatGrows(t *testing.T) {
	tree := oomtest.New(t)
	unit := tree.Cgroup("system.slice/backup.service", oomtest.Limit(1<<30))
	o := idle(t)
	o.growthAfter = time.Millisecond
	_, base := running(t, o)
	client, err := api.NewClient(base, nil)
	if err != nil {
		t.Fatal(err)
	}
	node := func(ready func(m *api.NodeMap) error) (m api.NodeMap) {
		t.Helper()
		if err := oomtest.Poll(20*time.Second, func() (err error) {
			if m, err = client.Node(t.Context()); err == nil {
				err = ready(&m)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return m
	}
	node(func(m *api.NodeMap) error { // there is a sample of before
		if m.GrowthSeconds == 0 {
			return fmt.Errorf("no growth is known: %+v", m)
		}
		return nil
	})
	const held = 128 << 20
	unit.Start(oomtest.Load{Bytes: held}).Go()
	m := node(func(m *api.NodeMap) error {
		for _, g := range m.Groups {
			if g.Cgroup == unit.Path && *g.GrowthBytes >= held {
				return nil
			}
		}
		return fmt.Errorf("%s did not grow: %+v", unit.Path, m.Groups)
	})
	if !strings.Contains(strings.Join(m.Advice, "\n"), "backup.service, outside of all containers, grew by 1") {
		t.Errorf("advice: %q", m.Advice)
	}
}
