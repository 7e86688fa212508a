// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package cri runs the cri source against a real containerd that the test
// starts for itself.
package cri

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/signal"
	source "github.com/coroner-dev/coroner/internal/source/cri"
	"github.com/coroner-dev/coroner/test/engines"
)

// TestCRI plays lives of pods on one runtime, in order.
func TestCRI(t *testing.T) {
	e := startEngine(t)
	before := e.pod("before", nil, nil)
	old := before.run("old", 0, "/bin/true")
	engines.Poll(t, "an end before anybody listens", func() bool { return e.status(old).GetState() == runtimeapi.ContainerState_CONTAINER_EXITED })
	r := engines.Watch(t, source.New(source.Options{
		Endpoints: []string{"unix://" + e.socket()}, Labels: []string{"app.kubernetes.io/*", "io.kubernetes.*"}, Logger: enginetest.Logger(t),
	}))
	engines.Find(r, "the runtime's version", func(_ signal.Signal, st signal.SourceState) bool {
		return st.Up && strings.HasPrefix(st.Mode, "containerd ")
	})
	for _, part := range []struct {
		name string
		play func(*testing.T, *engine, *engines.Recorder)
	}{
		{"two in a pod", twoInAPod}, {"leak", leak}, {"started again", startedAgain}, {"not started", notStarted}, {"hostile", hostile}, {"while away", whileAway},
	} {
		t.Run(part.name, func(t *testing.T) { part.play(t, e, r) })
	}
	for _, s := range r.All() {
		switch b := s.Body.(type) {
		case signal.Lost:
			t.Errorf("lost %+v", b)
		case signal.ContainerExit:
			if b.ID == old && !e.containerd2() { // whose event may come after the agent
				t.Errorf("the end of one that had ended before: %+v", b)
			}
		}
	}
}

// twoInAPod is a pod with two containers, of which one ends well and the other
// does not.
func twoInAPod(t *testing.T, e *engine, r *engines.Recorder) {
	p := e.pod("two", map[string]string{"app.kubernetes.io/name": "two"}, nil)
	web, job := p.run("web", 0, "/bin/sleep", "600"), p.run("job", 0, "/bin/sh", "-c", "exit 3")
	_, pause := engines.Find(r, "the pod", func(_ signal.Signal, s signal.ContainerSeen) bool { return s.Container.ID == p.id && s.PID > 0 })
	_, seen := engines.Find(r, "its container", func(_ signal.Signal, s signal.ContainerSeen) bool { return s.Container.ID == web && s.PID > 0 })
	want := signal.ContainerSeen{
		Container: death.Container{
			ID: web, Name: "web", Runtime: "containerd", Image: baseImage, Cgroup: p.cgroup(web), RestartCount: new(0),
			Labels: map[string]string{
				"app.kubernetes.io/name": "two", "io.kubernetes.container.name": "web", "io.kubernetes.pod.name": "two",
				"io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": p.config.GetMetadata().GetUid(),
			},
			Pod: &death.Pod{Namespace: "shop", Name: "two", UID: p.config.GetMetadata().GetUid(), QoSClass: "Burstable"},
		},
		Namespace: "k8s.io", PID: p.pid(web), Program: "sleep", State: "running", LimitBytes: new(int64(32 << 20)), StopTimeout: new(int64(7)),
		LogPath: p.config.GetLogDirectory() + "/web.0.log", Started: time.Unix(0, e.status(web).GetStartedAt()).UTC(),
	}
	if e.containerd2() {
		want.StopSignal = 15 // it tells that of each
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("seen (-want +got):\n%s", diff)
	}
	if !pause.Sandbox || pause.PID != p.pid(p.id) || pause.Container.Cgroup != p.cgroup(p.id) || pause.Container.Pod.Name != "two" {
		t.Errorf("the pod %+v", pause)
	}
	if _, err := os.Stat(seen.LogPath); err != nil {
		t.Errorf("its log: %v", err)
	}
	s, exit := engines.Find(r, "the job's end", func(_ signal.Signal, x signal.ContainerExit) bool { return x.ID == job })
	checkExit(t, e, s, exit, 3, "Error")
	began := time.Now()
	_, err := e.cri.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: web, Timeout: 1})
	engines.Must(t, err)
	s, exit = engines.Find(r, "the other's end", func(_ signal.Signal, x signal.ContainerExit) bool { return x.ID == web })
	checkExit(t, e, s, exit, 137, "Error")
	if exit.PID != seen.PID || !exit.Started.Equal(seen.Started) || exit.Finished.Before(began) {
		t.Errorf("exit %+v", exit)
	}
	for _, id := range []string{web, job} {
		_, err := e.cri.RemoveContainer(t.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: id})
		engines.Must(t, err)
		engines.Find(r, "its removal", func(_ signal.Signal, g signal.ContainerGone) bool { return g.ID == id })
	}
	for _, s := range r.All() {
		if x, ok := s.Body.(signal.ContainerExit); ok && x.ID == p.id {
			t.Errorf("an end of the pod's own container: %+v", x)
		}
	}
}

// checkExit compares what was told of an end with what the runtime says.
func checkExit(t *testing.T, e *engine, s signal.Signal, x signal.ContainerExit, code int, reason string) {
	t.Helper()
	st := e.status(x.ID)
	if x.Code == nil || *x.Code != code || int32(*x.Code) != st.GetExitCode() || x.Reason != reason || *x.OOMKilled != (reason == "OOMKilled") ||
		x.Finished.UnixNano() != st.GetFinishedAt() || !s.Time.Equal(x.Finished) || s.Recovered {
		t.Errorf("told at %v, recovered %v: %+v; the runtime says %v", s.Time, s.Recovered, x, st)
	}
}

// leak is a container that the kernel kills.
func leak(t *testing.T, e *engine, r *engines.Recorder) {
	p := e.pod("leak", nil, nil)
	id := p.run("leak", 0, "/bin/sh", "-c", "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done")
	s, exit := engines.Find(r, "its end", func(_ signal.Signal, x signal.ContainerExit) bool { return x.ID == id })
	if exit.Code == nil || *exit.Code != 137 || s.Recovered {
		t.Errorf("exit %+v", exit)
	}
	var last signal.ContainerExit
	n := 0
	lastWord := func() bool {
		n = 0
		for _, s := range r.All() {
			if x, ok := s.Body.(signal.ContainerExit); ok && x.ID == id {
				last = x
				n++
				if !s.Time.Equal(exit.Finished) {
					t.Errorf("told again with another time: %v", s.Time)
				}
			}
		}
		return last.Reason == e.status(id).GetReason()
	}
	// A list tells the end, late where lists take long; the last word is asked for
	// a second and a half after that.
	engines.Poll(t, "the runtime's last word", func() bool { return time.Since(s.Observed) > 3*time.Second && lastWord() })
	if *last.OOMKilled != (last.Reason == "OOMKilled") {
		t.Errorf("told %+v", last)
	}
	t.Logf("told %d times, at last %q, first %v after the end", n, last.Reason, s.Observed.Sub(exit.Finished).Round(time.Millisecond))
}

// startedAgain is a container that ends well, and runs again as the kubelet
// would have it: under another id, with the next number.
func startedAgain(t *testing.T, e *engine, r *engines.Recorder) {
	p := e.pod("again", nil, nil)
	first := p.run("again", 0, "/bin/true")
	s, exit := engines.Find(r, "its end", func(_ signal.Signal, x signal.ContainerExit) bool { return x.ID == first })
	checkExit(t, e, s, exit, 0, "Completed")
	second := p.run("again", 1, "/bin/sh", "-c", "exit 3")
	s, exit = engines.Find(r, "its second end", func(_ signal.Signal, x signal.ContainerExit) bool { return x.ID == second })
	checkExit(t, e, s, exit, 3, "Error")
	_, seen := engines.Find(r, "its name", func(_ signal.Signal, s signal.ContainerSeen) bool { return s.Container.ID == second && s.LogPath != "" })
	if seen.Container.Name != "again" || *seen.Container.RestartCount != 1 || seen.Container.Cgroup != p.cgroup(second) {
		t.Errorf("seen %+v", seen)
	}
}

// notStarted is a container whose program is not there.
func notStarted(t *testing.T, e *engine, r *engines.Recorder) {
	p := e.pod("never", nil, nil)
	id := p.create("never", 0, "/no/such/program")
	if _, err := e.cri.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err == nil {
		t.Fatal("it was started")
	}
	_, exit := engines.Find(r, "its end", func(_ signal.Signal, x signal.ContainerExit) bool { return x.ID == id })
	if *exit.Code != 128 || exit.Reason != "StartError" || !strings.Contains(exit.Error, "/no/such/program") || exit.PID != 0 {
		t.Errorf("exit %+v", exit)
	}
}

// containerd2 tells whether the runtime is of that version.
func (e *engine) containerd2() bool {
	v, err := e.cri.Version(e.t.Context(), &runtimeapi.VersionRequest{})
	engines.Must(e.t, err)
	return strings.HasPrefix(strings.TrimPrefix(v.GetRuntimeVersion(), "v"), "2.")
}

// hostile is a pod with text that hides the pods of others from who reads it
// as protobuf asks. containerd 2 takes no such text.
func hostile(t *testing.T, e *engine, r *engines.Recorder) {
	invalid, mended := enginetest.InvalidUTF8, "?I?ID8"
	refuses := e.containerd2()
	if refuses {
		invalid, mended = "", ""
	}
	bad := invalid + "\n\"\u202e"
	p := e.pod("hostile", map[string]string{"app.kubernetes.io/name": bad}, map[string]string{"note": bad + strings.Repeat("x", 64<<10)})
	id := p.run("web", 0, "/bin/sleep", "600")
	_, seen := engines.Find(r, "its container", func(_ signal.Signal, s signal.ContainerSeen) bool { return s.Container.ID == id && s.PID > 0 })
	if got := seen.Container.Labels["app.kubernetes.io/name"]; got != mended+"\n\"\u202e" {
		t.Errorf("label %q", got)
	}
	if _, err := e.cri.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{}); err == nil && !refuses {
		t.Error("a list can be read without care: this runtime mends text by itself")
	}
	e.removePod(t, p)
	engines.Find(r, "its removal", func(_ signal.Signal, g signal.ContainerGone) bool { return g.ID == p.id })
}

// whileAway is a container that dies while the runtime is away, beside one
// that lives on.
func whileAway(t *testing.T, e *engine, r *engines.Recorder) {
	p := e.pod("away", nil, nil)
	dies, lives := p.run("dies", 0, "/bin/sleep", "600"), p.run("lives", 0, "/bin/sleep", "600")
	for _, id := range []string{dies, lives} {
		engines.Find(r, "its pid", func(_ signal.Signal, s signal.ContainerSeen) bool { return s.Container.ID == id && s.PID > 0 })
	}
	pid := p.pid(dies)
	e.daemon.Stop()
	r.State("down", false)
	killed := time.Now()
	engines.Must(t, syscall.Kill(pid, syscall.SIGKILL))
	e.daemon.Start()
	r.State("up again", true)
	s, exit := engines.Find(r, "its end", func(_ signal.Signal, x signal.ContainerExit) bool { return x.ID == dies })
	// containerd 2 does not learn the code of what ended while it was away.
	unknown := exit.Code == nil && exit.Reason == "Unknown" && e.containerd2()
	if !s.Recovered || exit.PID != pid || !unknown && (exit.Code == nil || *exit.Code != 137) {
		t.Errorf("exit %+v, recovered %v", exit, s.Recovered)
	}
	t.Logf("told with reason %q, %v after the kill", exit.Reason, s.Time.Sub(killed))
	for _, s := range r.All() {
		if x, ok := s.Body.(signal.ContainerExit); ok && x.ID == lives {
			t.Errorf("the one that lives: %+v", x)
		}
	}
}
