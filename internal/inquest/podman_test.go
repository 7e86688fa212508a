// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"testing"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestEnd_PodmanTellsNoRequests: that podman told of no request is no sign that
// there was none.
func TestEnd_PodmanTellsNoRequests(t *testing.T) {
	seenThere := webSeen
	seenThere.Container.Runtime = "podman"
	first, runc := task(100, "app", webPath, true), onHost(task(901, "runc", "/system.slice/x.service", false))
	for _, tc := range []struct {
		name  string
		sent  []int
		cause death.Cause
		rule  string
	}{
		{"asked before", []int{15, 9}, death.StopTimeout, "stop-timeout-by-runtime"},
		{"nothing before", []int{9}, death.Unknown, "killed-by-runtime"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			sigs := append(sources(sc, "docker", "tracepoint", "cgroup"), sc.sig("docker", seenThere), sc.sig("cgroup", seen(7, webPath, 40*mib, 100)))
			for _, n := range tc.sent {
				sigs = append(sigs, sc.sig("tracepoint", signal.Kill{Target: first, Sender: runc, Signal: n}))
			}
			sigs = append(sigs, sc.sig("tracepoint", signal.Exit{Task: first, Signal: ptr(9)}), sc.sig("docker", webExit(137, false)))
			if d := only(t, ticking(New(Options{}), sigs...)); d.Cause != tc.cause || d.Rule != tc.rule {
				t.Errorf("got:\n%s", sketch([]death.Death{d}))
			}
		})
	}
}

// TestEnd_PodmanKill: podman says that it was asked to kill, and not with what;
// that is what its runtime was seen to send then.
func TestEnd_PodmanKill(t *testing.T) {
	seenThere := webSeen
	seenThere.Container.Runtime = "podman"
	first, runc := task(100, "app", webPath, true), onHost(task(901, "runc", "/system.slice/x.service", false))
	by := func(n, result int) saying {
		return saying{"tracepoint", signal.Kill{Target: first, Sender: runc, Signal: n, Result: result}}
	}
	kill := saying{"docker", byPodman("kill")}
	left := func(code int) []saying {
		return []saying{{"tracepoint", signal.Exit{Task: first, Code: &code}}, {"docker", webExit(code, false)}}
	}
	killed := []saying{{"tracepoint", signal.Exit{Task: first, Signal: ptr(9)}}, {"docker", webExit(137, false)}}
	for _, tc := range []struct {
		name  string
		says  []saying
		cause death.Cause
		rule  string
	}{
		{"kill", append([]saying{by(9, 0), kill}, killed...), death.Killed, "killed-on-request"},
		{"kill -s TERM, heeded", append([]saying{by(15, 0), kill}, left(5)...), death.Stopped, "stopped"},
		{"kill -s HUP, dropped, and an end of its own", append([]saying{by(1, signal.ResultIgnored), kill}, left(3)...), death.Error, "error"},
		{"stop of one without a handler", append([]saying{by(15, signal.ResultIgnored), by(9, 0)}, killed...), death.StopTimeout, "stop-timeout-by-runtime"},
		{"stop without a grace period", append([]saying{by(9, 0)}, killed...), death.Unknown, "killed-by-runtime"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			permute(len(tc.says), func(order []int) {
				if !tellable(tc.says, order) {
					return
				}
				sc := &scene{}
				sigs := append(sources(sc, "docker", "tracepoint", "cgroup"), sc.sig("docker", seenThere), sc.sig("cgroup", seen(7, webPath, 40*mib, 100)))
				for _, i := range order {
					sigs = append(sigs, sc.sig(tc.says[i].src, tc.says[i].body))
				}
				if d := only(t, ticking(New(Options{}), sigs...)); d.Cause != tc.cause || d.Rule != tc.rule {
					t.Fatalf("order %v:\n%s", order, sketch([]death.Death{d}))
				}
			})
		})
	}
}
