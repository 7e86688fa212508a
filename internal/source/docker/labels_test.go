// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"maps"
	"testing"

	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestSource_Labels: those that a flag names are carried, and what a container
// belongs to is known whether its labels are or not.
func TestSource_Labels(t *testing.T) {
	all := map[string]string{
		"team": "a", "app.kubernetes.io/name": "x", "app": "y", "teams": "z",
		"com.docker.compose.project": "shop", "com.docker.compose.service": "web",
	}
	for _, tc := range []struct {
		name  string
		carry []string
		want  map[string]string
	}{
		{"by default", nil, map[string]string{"com.docker.compose.project": "shop", "com.docker.compose.service": "web"}},
		{"by name and by prefix", []string{"team", "app.*"}, map[string]string{"team": "a", "app.kubernetes.io/name": "x"}},
		{"all", []string{"*"}, all},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fake) {
				r := follow(t, f, Options{Labels: tc.carry})
				enginetest.Settle()
				f.event("create", "a", all)
				enginetest.Settle()
				seen := enginetest.Of[signal.ContainerSeen](r.Taken())
				if len(seen) == 0 {
					t.Fatal("nothing was told")
				}
				c := seen[0].Container
				if !maps.Equal(c.Labels, tc.want) || c.Workload == nil || c.Workload.String() != "shop/web" {
					t.Errorf("labels %v, belongs to %+v", c.Labels, c.Workload)
				}
			})
		})
	}
}
