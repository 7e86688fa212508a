// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/signal"
)

// told is a table whose words are kept as lines.
func told(t *testing.T) (*table, *[]string) {
	t.Helper()
	var lines []string
	tb := newTable()
	tb.lost, tb.own = func(n int, why string) { lines = append(lines, fmt.Sprint("lost ", n, " ", why)) }, func(string, bool) {}
	tb.want = func(job) bool { return false }
	tb.tell = func(_ time.Time, _ bool, b signal.Body) {
		switch b := b.(type) {
		case signal.ContainerExit:
			line := fmt.Sprint("exit ", b.ID, " ", b.PID)
			if b.Code != nil {
				line += " " + strconv.Itoa(*b.Code)
			}
			lines = append(lines, line)
		case signal.ContainerGone:
			lines = append(lines, "gone "+b.ID)
		case signal.ContainerSeen:
			lines = append(lines, strings.Join(strings.Fields(fmt.Sprint("seen ", b.Container.ID, " ", b.Container.Name, " ", b.State)), " "))
		}
	}
	return tb, &lines
}

var start = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

func (t *table) play(a action, pid int, code *int, after time.Duration) {
	t.event(happening{namespace: "n", id: "a", action: a, at: start.Add(after), pid: pid, code: code}, nil, start.Add(time.Hour))
}

// TestTable_StartAfterItsEnd: of a short run containerd tells the start last.
func TestTable_StartAfterItsEnd(t *testing.T) {
	tb, lines := told(t)
	tb.connect(time.Time{}, start)
	tb.play(containerCreated, 0, nil, 0)
	tb.play(taskCreated, 7, nil, 10*time.Millisecond)
	tb.play(taskExited, 7, new(3), 40*time.Millisecond)
	tb.play(taskStarted, 7, nil, 41*time.Millisecond)
	tb.play(taskCreated, 7, nil, time.Second) // its number came back
	tb.play(taskStarted, 7, nil, 2*time.Second)
	tb.play(taskExited, 7, new(4), 3*time.Second)
	tb.play(taskStarted, 7, nil, 4*time.Second)
	want := []string{"seen a created", "seen a created", "exit a 7 3", "seen a created", "seen a running", "exit a 7 4"}
	if diff := cmp.Diff(want, *lines); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// TestTable_RemovedBeforeItsEnd: shims send an end later than containerd the
// removal; it is told first, and without it the removal is told all the same.
func TestTable_RemovedBeforeItsEnd(t *testing.T) {
	for _, tt := range []struct {
		name string
		play func(tb *table)
		want []string
	}{
		{"late", func(tb *table) { tb.play(taskExited, 7, new(3), 40*time.Millisecond) }, []string{"exit a 7 3", "seen a a", "gone a"}},
		{"only the task's removal", func(tb *table) { tb.play(taskDeleted, 7, new(3), 40*time.Millisecond) }, []string{"exit a 7 3", "seen a a", "gone a"}},
		{"never", func(tb *table) { tb.sweep(start.Add(4 * time.Second)); tb.sweep(start.Add(6 * time.Second)) }, []string{"exit a 7", "seen a a", "gone a"}},
		{"the connection ends", func(tb *table) { tb.disconnect() }, []string{"exit a 7", "seen a a", "gone a"}},
		{"too late", func(tb *table) {
			tb.sweep(start.Add(6 * time.Second))
			tb.play(taskExited, 7, new(3), 40*time.Millisecond)
			tb.play(taskDeleted, 7, new(3), 40*time.Millisecond)
		}, []string{"exit a 7", "seen a a", "gone a", "exit a 7 3"}},
		{"another one of its name", func(tb *table) {
			tb.play(containerCreated, 0, nil, time.Second)
			tb.play(taskExited, 7, new(3), 40*time.Millisecond)
			tb.play(taskStarted, 8, nil, 2*time.Second)
			tb.play(taskExited, 8, new(4), 3*time.Second)
		}, []string{"exit a 7", "seen a a", "gone a", "seen a created", "exit a 7 3", "seen a running", "exit a 8 4"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tb, lines := told(t)
			tb.connect(time.Time{}, start)
			tb.play(containerCreated, 0, nil, 0)
			tb.play(taskStarted, 7, nil, 10*time.Millisecond)
			tb.play(containerDeleted, 0, nil, 30*time.Millisecond)
			tb.play(containerDeleted, 0, nil, 30*time.Millisecond)
			tt.play(tb)
			if diff := cmp.Diff(append([]string{"seen a created", "seen a running"}, tt.want...), *lines); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTable_IsBounded: more containers than are remembered are still told of.
func TestTable_IsBounded(t *testing.T) {
	tb, lines := told(t)
	tb.connect(time.Time{}, start)
	for i := range maxContainers + 10 {
		tb.event(happening{namespace: "n", id: "c" + strconv.Itoa(i), action: containerCreated, at: start}, nil, start)
	}
	tb.event(happening{namespace: "n", id: "c10005", action: containerDeleted, at: start}, nil, start)
	seen, lost := 0, 0
	for _, l := range *lines {
		switch {
		case strings.HasPrefix(l, "seen"):
			seen++
		case strings.HasPrefix(l, "lost 1 too many"):
			lost++
		}
	}
	if seen != maxContainers+10 || lost != 10 || len(tb.boxes) != maxContainers || (*lines)[len(*lines)-1] != "gone c10005" {
		t.Errorf("%d seen, %d lost, %d remembered, last %s", seen, lost, len(tb.boxes), (*lines)[len(*lines)-1])
	}
}

// TestTable_OneNameInTwoNamespaces: they are two containers.
func TestTable_OneNameInTwoNamespaces(t *testing.T) {
	tb, lines := told(t)
	tb.connect(time.Time{}, start)
	for i, space := range []string{"n", "m"} {
		tb.event(happening{namespace: space, id: "a", action: taskStarted, pid: 7 + i, at: start}, nil, start)
	}
	tb.play(taskExited, 7, new(1), time.Second)
	tb.event(happening{namespace: "m", id: "a", action: taskExited, pid: 8, code: new(2), at: start}, nil, start)
	if diff := cmp.Diff([]string{"seen a running", "seen a running", "exit a 7 1", "exit a 8 2"}, *lines); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}
