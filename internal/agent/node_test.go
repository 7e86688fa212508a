// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestAgent_NodeMap asks a whole agent for a machine of 4 GiB without cgroups,
// and for one of which nothing is known.
func TestAgent_NodeMap(t *testing.T) {
	o := idle(t)
	o.Path = host.Roots{Proc: t.TempDir(), Cgroup: t.TempDir(), Sys: t.TempDir()}
	_, base := running(t, o)
	client, err := api.NewClient(base, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Node(t.Context()); err == nil || !strings.Contains(err.Error(), "the node's memory is not known") {
		t.Errorf("without /proc/meminfo: %v", err)
	}
	meminfo := "MemTotal: 4194304 kB\nMemFree: 1048576 kB\nMemAvailable: 2097152 kB\n"
	if err := os.WriteFile(filepath.Join(o.Path.Proc, "meminfo"), []byte(meminfo), 0o644); err != nil {
		t.Fatal(err)
	}
	m, err := client.Node(t.Context())
	if err != nil || m.Node != "n1" || m.Memory["capacity"].Bytes != 4<<30 || m.Memory["available"].Bytes != 2<<30 || len(m.Tools) == 0 || len(m.Notes) == 0 {
		t.Errorf("%+v, %v", m, err)
	}
	resp, err := http.DefaultClient.Get(base + "/metrics") //nolint:noctx // ends with the test's agent
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Contains(body, []byte("coroner_node_memory_bytes{kind=\"capacity\"} 4.294967296e+09\n")) {
		t.Errorf("%v, no capacity in the metrics", err)
	}
}

func TestShares(t *testing.T) {
	s := newShares()
	const mib = int64(1) << 20
	for _, b := range []signal.Body{
		signal.PodSeen{Pod: death.Pod{UID: "p1", Name: "web"}, Priority: new(int32(7)), RequestBytes: new(40 * mib)},
		signal.PodSeen{Pod: death.Pod{UID: "p2", Name: "gone"}}, signal.PodGone{UID: "p2"},
		signal.ContainerSeen{Container: death.Container{ID: "a"}, LimitBytes: new(64 * mib)},
		signal.ContainerSeen{Container: death.Container{ID: "a"}, RequestBytes: new(32 * mib)}, // what is absent did not change
		signal.ContainerSeen{Container: death.Container{ID: "b"}, LimitBytes: new(mib)}, signal.ContainerExit{ID: "b"},
		signal.ContainerSeen{Container: death.Container{ID: "b"}, LimitBytes: new(mib), State: "exited"},
	} {
		s.feed(b)
	}
	if len(s.containers) != 1 || len(s.pods) != 1 {
		t.Errorf("remembers %v and %v, want one each", s.containers, s.pods)
	}
	pods, alone := s.of([]api.Container{
		{Container: death.Container{ID: "a", Name: "app", Pod: &death.Pod{UID: "p1"}}},
		{Container: death.Container{ID: "c", Name: "side", Pod: &death.Pod{UID: "p3"}}},
		{Container: death.Container{ID: "d", Name: "job", Namespace: "batch"}},
	})
	if len(pods) != 2 || len(alone) != 1 || alone[0].Name != "batch/job" {
		t.Fatalf("got %+v and %+v", pods, alone)
	}
	web := pods[0]
	if !web.Told || web.Name != "web" || *web.Priority != 7 || *web.RequestBytes != 40*mib || *web.Containers[0].LimitBytes != 64*mib || *web.Containers[0].RequestBytes != 32*mib {
		t.Errorf("got %+v", web)
	}
	if other := pods[1]; other.Told || other.Containers[0].LimitBytes != nil {
		t.Errorf("of a pod that Kubernetes told nothing of: %+v", other)
	}
}
