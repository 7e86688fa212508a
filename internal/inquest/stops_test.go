// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// timed is what a source says, so many milliseconds after the scene began.
type timed struct {
	ms int
	saying
	later int // it was told so many milliseconds after
}

func docker(ms int, b signal.Body) timed { return timed{ms: ms, saying: saying{"docker", b}} }

func kernel(ms int, b signal.Body) timed { return timed{ms: ms, saying: saying{"tracepoint", b}} }

// playStops plays a scene and gives a death for each end of web-1.
func playStops(t *testing.T, who signal.ContainerSeen, says []timed) []death.Death {
	t.Helper()
	sc := &scene{}
	var sigs []signal.Signal
	for _, src := range []death.Source{"docker", "tracepoint", "cgroup"} {
		if src == "docker" || says[0].src == "tracepoint" || says[len(says)-1].src == "tracepoint" {
			sigs = append(sigs, sources(sc, src)...)
		}
	}
	sigs = append(sigs, sc.sig("docker", who), sc.sig("cgroup", seen(7, webPath, 40*mib, 100)))
	for _, x := range says {
		sc.n = 1000 + x.ms
		sigs = append(sigs, sc.sig(x.src, x.body))
	}
	return ticking(New(Options{}), sigs...)
}

// TestStops_OfWhichRun: what an engine was asked is of the run that it was
// asked in, and what it has done of the last run that ended before.
func TestStops_OfWhichRun(t *testing.T) {
	first := task(100, "app", webPath, true)
	for _, tc := range []struct {
		name string
		says []timed
		want string
	}{
		{"killed from the host after a restart, and stopped after that", []timed{
			docker(0, asked(15, "kill")), docker(20, webExit(143, false)), docker(30, asked(0, "stop")), docker(400, asked(0, "restart")),
			docker(1000, webExit(137, false)), docker(2000, asked(15, "kill")), docker(2010, webExit(0, false)), docker(2020, asked(0, "stop")),
		}, "stopped stopped certain, unknown sigkill possible, stopped stopped certain"},
		{"ended at once after a restart", []timed{
			docker(0, asked(15, "kill")), docker(20, webExit(143, false)), docker(30, asked(0, "stop")), docker(300, webExit(1, false)), docker(400, asked(0, "restart")),
		}, "stopped stopped certain, error error certain"},
		{"started anew after it crashed", []timed{
			docker(0, webExit(1, false)), docker(500, asked(0, "restart")),
		}, "error error certain"},
		{"stopped before the kernel's word", []timed{
			docker(0, asked(15, "kill")), docker(20, webExit(143, false)), docker(30, asked(0, "stop")), kernel(40, signal.Exit{Task: first, Code: ptr(143)}),
		}, "stopped stopped certain"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ds := playStops(t, webSeen, tc.says)
			if got := judged(ds); got != tc.want {
				t.Errorf("got %s\nwant %s\n%s", got, tc.want, sketch(ds))
			}
			for _, d := range ds[1:] {
				if strings.Contains(d.Summary, "restart") {
					t.Errorf("no restart: %s", d.Summary)
				}
			}
		})
	}
}

// TestStops_Requests: a signal on request is no stop, but where the engine says
// so, or where it could be one by its time.
func TestStops_Requests(t *testing.T) {
	patient := webSeen
	patient.StopTimeout = ptr(int64(30))
	for _, tc := range []struct {
		name string
		seen signal.ContainerSeen
		says []timed
		want string
	}{
		{"SIGTERM, handled, and left long after", webSeen, []timed{docker(0, asked(15, "kill")), docker(42000, webExit(7, false))}, "error error certain"},
		{"SIGTERM, and left soon", webSeen, []timed{docker(0, asked(15, "kill")), docker(8000, webExit(7, false))}, "stopped stopped probable"},
		{"SIGTERM by one that waits for long", patient, []timed{docker(0, asked(15, "kill")), docker(28000, webExit(7, false))}, "stopped stopped probable"},
		{"stop -t 60", webSeen, []timed{docker(0, asked(15, "kill")), docker(42000, webExit(7, false)), docker(42010, asked(0, "stop"))}, "stopped stopped certain"},
		{"stop", webSeen, []timed{docker(0, asked(15, "kill")), docker(10050, asked(9, "kill")), docker(10100, webExit(137, false)), docker(10110, asked(0, "stop"))}, "stop_timeout stop-timeout certain"},
		{"stop, of which the end was not told", webSeen, []timed{docker(0, asked(15, "kill")), docker(10050, asked(9, "kill")), docker(10100, webExit(137, false))}, "stop_timeout stop-timeout probable"},
		{"stop -t 30, and killed meanwhile", webSeen, []timed{docker(0, asked(15, "kill")), docker(1000, asked(9, "kill")), docker(1100, webExit(137, false)), docker(1110, asked(0, "stop"))}, "stop_timeout stop-timeout probable"},
		{"SIGTERM, then docker kill", webSeen, []timed{docker(0, asked(15, "kill")), docker(6000, asked(9, "kill")), docker(6100, webExit(137, false))}, "killed killed-on-request certain"},
		{"docker kill -s INT", webSeen, []timed{docker(0, asked(2, "kill")), docker(100, webExit(130, false))}, "killed signalled-on-request certain"},
		{"docker kill -s INT, with a code of its own", webSeen, []timed{docker(0, asked(2, "kill")), docker(100, webExit(4, false))}, "killed signalled-on-request probable"},
		{"docker kill -s HUP", webSeen, []timed{docker(0, asked(1, "kill")), docker(100, webExit(129, false))}, "killed signalled-on-request certain"},
		{"docker kill -s HUP, with a code of its own", webSeen, []timed{docker(0, asked(1, "kill")), docker(100, webExit(9, false))}, "error error probable"},
		{"docker kill -s HUP long before", webSeen, []timed{docker(0, asked(1, "kill")), docker(40000, webExit(9, false))}, "error error certain"},
		{"docker kill -s SEGV", webSeen, []timed{docker(0, asked(11, "kill")), docker(100, webExit(139, false))}, "killed signalled-on-request certain"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ds := playStops(t, tc.seen, tc.says)
			if got := judged(ds); got != tc.want {
				t.Errorf("got %s\nwant %s\n%s", got, tc.want, sketch(ds))
			}
		})
	}
}

// TestStops_OfTheRuntime: a signal of a runtime's that is no request to stop
// leaves the end's own code probable.
func TestStops_OfTheRuntime(t *testing.T) {
	first := task(100, "app", webPath, true)
	shim := onHost(task(901, "containerd-shim", "/system.slice/containerd.service", false))
	ds := playStops(t, webSeen, []timed{kernel(0, signal.Kill{Target: first, Sender: shim, Signal: 1}), kernel(20, signal.Exit{Task: first, Code: ptr(3)})})
	if got := judged(ds); got != "error error probable" || !strings.Contains(ds[0].Summary, "SIGHUP") {
		t.Errorf("got %s\n%s", got, sketch(ds))
	}
}

func judged(ds []death.Death) string {
	var out []string
	for _, d := range ds {
		out = append(out, string(d.Cause)+" "+d.Rule+" "+string(d.Confidence))
	}
	return strings.Join(out, ", ")
}
