// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coroner-dev/coroner/internal/death"
)

func TestMemory(t *testing.T) {
	limit, peak, eta := int64(100), int64(90), 12.5
	web := death.Container{ID: "4f1c", Name: "web", Pod: &death.Pod{Namespace: "shop", Name: "cart-1"}}
	m := New(Options{Memory: func() []Memory {
		return []Memory{
			{Container: web, WorkingSetBytes: 40, UsageBytes: 50, LimitBytes: &limit, PeakBytes: &peak, LimitETASeconds: &eta},
			{Container: web, WorkingSetBytes: 10, UsageBytes: 20}, // its last life, still there
			{Container: death.Container{ID: "77de", Name: "a\"b\n"}, WorkingSetBytes: 1, UsageBytes: 2},
		}
	}})
	want := `# HELP coroner_container_memory_limit_bytes The container's own memory limit; absent where it has none.
# TYPE coroner_container_memory_limit_bytes gauge
coroner_container_memory_limit_bytes{container="web",namespace="shop",pod="cart-1"} 100
# HELP coroner_container_memory_limit_eta_seconds At the present rate, the time until the container reaches its limit; absent where it does not grow.
# TYPE coroner_container_memory_limit_eta_seconds gauge
coroner_container_memory_limit_eta_seconds{container="web",namespace="shop",pod="cart-1"} 12.5
# HELP coroner_container_memory_peak_bytes The most memory that the container used so far.
# TYPE coroner_container_memory_peak_bytes gauge
coroner_container_memory_peak_bytes{container="web",namespace="shop",pod="cart-1"} 90
# HELP coroner_container_memory_usage_bytes Memory that the container uses, page cache and all.
# TYPE coroner_container_memory_usage_bytes gauge
coroner_container_memory_usage_bytes{container="a\"b\n",namespace="",pod=""} 2
coroner_container_memory_usage_bytes{container="web",namespace="shop",pod="cart-1"} 50
# HELP coroner_container_memory_working_set_bytes Memory that the container uses without what could be dropped at once, as the kubelet computes it.
# TYPE coroner_container_memory_working_set_bytes gauge
coroner_container_memory_working_set_bytes{container="a\"b\n",namespace="",pod=""} 1
coroner_container_memory_working_set_bytes{container="web",namespace="shop",pod="cart-1"} 40
`
	names := []string{memoryLimit, memoryETA, memoryPeak, memoryUsage, memoryWorkingSet}
	if err := testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}
