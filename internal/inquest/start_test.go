// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// starting is a container's first process that is still runc's.
func starting() signal.Task { return task(100, "runc:[2:INIT]", webPath, true) }

// TestStart_AfterARestart: what was found out before a restart is not undone by
// judging less of it again.
func TestStart_AfterARestart(t *testing.T) {
	named := signal.ContainerSeen{Container: death.Container{ID: webID, Runtime: "docker", Name: "web"}}
	for _, tc := range []struct {
		name  string
		after []signal.Body
		rule  string
	}{
		{"named", []signal.Body{named}, "left-in-runtime"},
		{"its code", []signal.Body{named, signal.ContainerExit{ID: webID, Runtime: "docker", Code: ptr(1)}}, "left-in-runtime"},
		{"its fault", []signal.Body{named, signal.ContainerExit{ID: webID, Runtime: "docker", Code: ptr(127), Error: "not found"}}, "never-ran"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			before := only(t, play(t, New(Options{}), append(sources(sc, "docker", "tracepoint"),
				sc.sig("tracepoint", signal.Exit{Task: starting(), Code: ptr(1)}))...))
			if before.Rule != "left-in-runtime" {
				t.Fatalf("before:\n%s", sketch([]death.Death{before}))
			}
			q := New(Options{})
			q.Restore(epoch.Add(time.Second), []death.Death{before})
			for _, s := range append(sources(sc, "docker", "tracepoint"), sc.sig("docker", tc.after[0])) {
				q.Feed(s)
			}
			for _, b := range tc.after[1:] {
				q.Feed(sc.sig("docker", b))
			}
			last := before
			for _, d := range append(q.Take(), q.Close()...) {
				if d.ID != before.ID {
					t.Errorf("another death: %s", sketch([]death.Death{d}))
				}
				last = d
			}
			if last.Rule != tc.rule || last.Cause != death.StartFailed {
				t.Errorf("got:\n%s", sketch([]death.Death{last}))
			}
		})
	}
}

// TestStart_KilledInTheRuntime: what the runtime kills before it ran its
// program never ran, in whichever order that is told.
func TestStart_KilledInTheRuntime(t *testing.T) {
	kill := signal.Kill{Target: starting(), Sender: onHost(task(900, "runc", "/system.slice/docker.service", false)), Signal: 9}
	left := signal.Exit{Task: starting(), Signal: ptr(9)}
	fault := signal.ContainerExit{ID: webID, Runtime: "docker", Code: ptr(128), Error: "bind: address already in use"}
	for _, tc := range []struct {
		name string
		said []dated
		rule string
	}{
		{"killed", []dated{{0, "tracepoint", kill}}, "left-in-runtime"},
		{"killed and left", []dated{{0, "tracepoint", kill}, {0, "tracepoint", left}}, "left-in-runtime"},
		{"and the engine's fault", []dated{{0, "tracepoint", kill}, {0, "tracepoint", left}, {0, "docker", fault}}, "never-ran"},
		{"the fault first", []dated{{0, "docker", fault}, {0, "tracepoint", kill}, {0, "tracepoint", left}}, "never-ran"},
		{"the fault between", []dated{{0, "tracepoint", kill}, {0, "docker", fault}, {0, "tracepoint", left}}, "never-ran"},
		{"on request", []dated{{0, "docker", signal.ContainerStop{ID: webID, Runtime: "docker", Signal: 9, Action: "kill"}}, {0, "tracepoint", kill}, {0, "tracepoint", left}}, "killed-on-request"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := told(t, tc.said)
			if d.Rule != tc.rule || strings.Contains(d.Summary, "code SIG") {
				t.Errorf("got:\n%s", sketch([]death.Death{d}))
			}
			if tc.rule == "never-ran" && (d.Confidence != death.Certain || *d.Exit.Code != 128 || d.Exit.Signal != nil || !strings.Contains(d.Summary, "address already in use")) {
				t.Errorf("exit %+v, got:\n%s", d.Exit, sketch([]death.Death{d}))
			}
			t.Log(d.Summary)
		})
	}
}
