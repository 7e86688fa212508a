// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"strconv"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/coroner-dev/coroner/internal/signal"
)

// TestTable_IsBounded: of more containers than are remembered the rest is
// counted, once.
func TestTable_IsBounded(t *testing.T) {
	seen, lost := 0, 0
	tb := newTable()
	tb.tell = func(_ time.Time, _ bool, b signal.Body) {
		if _, ok := b.(signal.ContainerSeen); ok {
			seen++
		}
	}
	tb.lost = func(n int, _ string) { lost += n }
	tb.want = func(job) {}
	at := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	tb.connect(reader{}, at, at)
	var l listing
	for i := range maxContainers + 10 {
		id := strconv.Itoa(i)
		l.containers = append(l.containers, &runtimeapi.Container{Id: "c" + id})
		l.pods = append(l.pods, &runtimeapi.PodSandbox{Id: "p" + id})
	}
	for range 3 {
		tb.merge(l, at)
	}
	if seen != 2*maxContainers || lost != 20 || len(tb.boxes) != maxContainers || len(tb.homes) != maxContainers {
		t.Errorf("%d told, %d lost, %d and %d remembered", seen, lost, len(tb.boxes), len(tb.homes))
	}
	tb.event(&runtimeapi.ContainerEventResponse{
		ContainerId: "new", PodSandboxStatus: &runtimeapi.PodSandboxStatus{Id: "new-pod"}, ContainersStatuses: []*runtimeapi.ContainerStatus{{Id: "new"}},
	}, at)
	if len(tb.boxes) != maxContainers || len(tb.homes) != maxContainers {
		t.Errorf("%d and %d remembered", len(tb.boxes), len(tb.homes))
	}
	tb.merge(listing{asked: tb.seq}, at)
	if len(tb.boxes) != 0 || len(tb.homes) != 0 {
		t.Errorf("%d and %d remembered of none", len(tb.boxes), len(tb.homes))
	}
}

// TestTable_OldAnswer: an end is not taken back by a list that is older.
func TestTable_OldAnswer(t *testing.T) {
	var told []signal.Body
	tb := newTable()
	tb.tell = func(_ time.Time, _ bool, b signal.Body) { told = append(told, b) }
	tb.lost, tb.want = func(int, string) {}, func(job) {}
	at := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	tb.connect(reader{}, at, at)
	runs := listing{containers: []*runtimeapi.Container{{Id: "a", State: runtimeapi.ContainerState_CONTAINER_RUNNING}}}
	tb.merge(runs, at)
	tb.answered(answer{job: job{id: "a", verbose: true}, container: &runtimeapi.ContainerStatus{
		Id: "a", State: runtimeapi.ContainerState_CONTAINER_EXITED, FinishedAt: at.Add(time.Second).UnixNano(), Reason: reasonOOM,
	}}, at.Add(2*time.Second))
	n := len(told)
	tb.merge(runs, at.Add(3*time.Second))
	if len(told) != n || n != 3 {
		t.Errorf("told %+v", told)
	}
}

// TestTable_OtherAnswer: an answer about another container is none.
func TestTable_OtherAnswer(t *testing.T) {
	told, lost := 0, 0
	tb := newTable()
	tb.tell = func(time.Time, bool, signal.Body) { told++ }
	tb.lost = func(n int, _ string) { lost += n }
	tb.want = func(job) {}
	at := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	tb.connect(reader{}, at, at)
	tb.merge(listing{
		containers: []*runtimeapi.Container{{Id: "a", State: runtimeapi.ContainerState_CONTAINER_RUNNING}}, pods: []*runtimeapi.PodSandbox{{Id: "p"}},
	}, at)
	told = 0
	tb.answered(answer{job: job{id: "a", verbose: true}, container: &runtimeapi.ContainerStatus{Id: "b"}}, at)
	tb.answered(answer{job: job{id: "a", verbose: true}}, at)
	tb.answered(answer{job: job{id: "p", sandbox: true, verbose: true}, sandbox: &runtimeapi.PodSandboxStatus{Id: "a"}}, at)
	if told != 0 || lost != 3 {
		t.Errorf("%d told, %d lost", told, lost)
	}
}

// TestTable_NotAskedInTime: one that is removed before it was its turn to be
// asked about ended all the same.
func TestTable_NotAskedInTime(t *testing.T) {
	var told []signal.Body
	tb := newTable()
	tb.tell = func(_ time.Time, _ bool, b signal.Body) { told = append(told, b) }
	tb.lost, tb.want = func(int, string) {}, func(job) {}
	at := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	tb.connect(reader{}, at, at)
	tb.merge(listing{}, at)
	tb.merge(listing{containers: []*runtimeapi.Container{{Id: "a", State: runtimeapi.ContainerState_CONTAINER_EXITED}}}, at)
	tb.merge(listing{}, at)
	if len(told) != 3 || told[1] != signal.Body(signal.ContainerExit{ID: "a"}) || told[2] != signal.Body(signal.ContainerGone{ID: "a"}) {
		t.Errorf("told %+v", told)
	}
}
