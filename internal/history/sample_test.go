// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

func ptr[T any](v T) *T { return &v }

// sample is the n-th of a series of deaths, a minute apart, over 10 pods.
func sample(n int) death.Death {
	pod := n % 10
	id := fmt.Sprintf("%064x", 0xabcdef0000+pod)
	return death.Death{
		ID: fmt.Sprintf("d-%07d", n), Revision: 1,
		Time: epoch.Add(time.Duration(n) * time.Minute), ObservedAt: epoch.Add(time.Duration(n)*time.Minute + 3*time.Millisecond),
		Node: "node-a", Subject: death.SubjectContainer, Cause: death.OOMContainerLimit, Confidence: death.Certain,
		Summary: fmt.Sprintf("Container app-%d of pod shop/web-%d was killed: its memory limit of 64 MiB was reached.", pod, pod),
		Container: &death.Container{
			ID: id, Name: fmt.Sprintf("app-%d", pod), Runtime: "containerd",
			Cgroup: "/kubepods/burstable/pod0f3c1a52-8f7e-4a87-9b11-00000000000" + fmt.Sprint(pod) + "/" + id,
			Pod:    &death.Pod{Namespace: "shop", Name: fmt.Sprintf("web-%d", pod), UID: fmt.Sprintf("0f3c1a52-8f7e-4a87-9b11-00000000000%d", pod)},
		},
		Processes: []death.Process{{PID: 1000 + n, Comm: "leaker", Fate: death.FateVictim, UID: ptr(int64(1000)), AnonRSSBytes: ptr(int64(66 << 20))}},
		OOM: &death.OOM{Constraint: "CONSTRAINT_MEMCG", TaskMemcg: "/kubepods/x", UsageBytes: ptr(int64(64 << 20)), LimitBytes: ptr(int64(64 << 20)),
			MemoryStat: map[string]int64{"anon": 66 << 20, "file": 4096, "kernel_stack": 16384, "slab": 0}},
		Evidence: []death.Evidence{{Time: epoch.Add(time.Duration(n) * time.Minute), Source: death.SourceKmsg,
			Text: fmt.Sprintf("Memory cgroup out of memory: Killed process %d (leaker) total-vm:70000kB", 1000+n)}},
		Advice: []string{"Raise the limit, or find what grows."},
	}
}

func samples(n int) []death.Death {
	deaths := make([]death.Death, n)
	for i := range deaths {
		deaths[i] = sample(i)
	}
	return deaths
}

func open(t testing.TB, path string, o Options) *Store {
	t.Helper()
	if path == "" {
		path = filepath.Join(t.TempDir(), "history.db")
	}
	s, err := Open(context.Background(), path, o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func put(t testing.TB, s *Store, deaths ...death.Death) []Entry {
	t.Helper()
	entries, err := s.Put(context.Background(), deaths, nil)
	if err != nil {
		t.Fatalf("Put: %v", err)
	}
	return entries
}

// ids lists everything that q selects, over all pages.
func ids(t testing.TB, s *Store, q Query) []string {
	t.Helper()
	var got []string
	for {
		page, err := s.List(context.Background(), q)
		if err != nil {
			t.Fatalf("List(%+v): %v", q, err)
		}
		for _, d := range page.Deaths {
			got = append(got, d.ID)
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return got
		}
	}
}
