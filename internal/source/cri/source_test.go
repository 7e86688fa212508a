// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines/enginetest"
	"github.com/coroner-dev/coroner/internal/signal"
)

// bubble runs a test with a fake runtime in time that is not real.
func bubble(t *testing.T, test func(t *testing.T, f *fake)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newFake(t)) })
}

func TestSource_Life(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.podRuns("p1", "web")
		f.runs("old", "p1", 11)
		r := follow(t, f, Options{})
		enginetest.Settle()
		said := r.Taken()
		if st := enginetest.LastState(said); st != (signal.SourceState{Up: true, Mode: "containerd 1.6.20~ds1, lists"}) {
			t.Errorf("state %+v", st)
		}
		got := enginetest.Of[signal.ContainerSeen](said)
		labels := map[string]string{"app.kubernetes.io/name": "web"}
		pod := &death.Pod{Namespace: "shop", Name: "web", UID: "uid-web"}
		sandbox := signal.ContainerSeen{
			Container: death.Container{ID: "p1", Runtime: "containerd", Labels: labels, Pod: pod}, Namespace: "k8s.io", Sandbox: true, State: "running",
		}
		seen := signal.ContainerSeen{
			Container: death.Container{
				ID: "old", Name: "name-old", Runtime: "containerd", Image: "image", RestartCount: new(2), Labels: labels, Pod: pod,
			},
			Namespace: "k8s.io", State: "running", StopTimeout: new(int64(30)),
		}
		sandboxFull, full := sandbox, seen
		sandboxFull.PID, sandboxFull.Container.Cgroup = 9001, "/kubepods/podweb/p1"
		full.Container.Pod = &death.Pod{Namespace: "shop", Name: "web", UID: "uid-web", QoSClass: "Burstable"}
		full.PID, full.LogPath, full.LimitBytes, full.Container.Cgroup = 11, "/log/old", new(int64(32<<20)), "/kubepods/burstable/pod1/old"
		if len(got) == 4 && got[2].Container.ID == "old" {
			got[2], got[3] = got[3], got[2] // answers come in either order
		}
		full.Started = got[len(got)-1].Started
		if diff := cmp.Diff([]signal.ContainerSeen{sandbox, seen, sandboxFull, full}, got); diff != "" || full.Started.IsZero() {
			t.Errorf("seen (-want +got):\n%s", diff)
		}

		at := f.ended("old", 137, "OOMKilled")
		enginetest.Pass(2 * time.Second)
		said = r.Taken()
		want := []signal.ContainerExit{{
			ID: "old", Runtime: "containerd", Namespace: "k8s.io", Code: new(137), OOMKilled: new(true), Reason: "OOMKilled", PID: 11,
			Started: full.Started, Finished: at,
		}}
		if diff := cmp.Diff(want, enginetest.Of[signal.ContainerExit](said)); diff != "" {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
		for _, s := range said {
			if _, ok := s.Body.(signal.ContainerExit); ok && (s.Recovered || !s.Time.Equal(at)) {
				t.Errorf("exit at %v, recovered %v; want %v", s.Time, s.Recovered, at)
			}
		}
		f.removed("old")
		enginetest.Pass(5 * time.Second)
		if gone := enginetest.Of[signal.ContainerGone](r.Taken()); len(gone) != 1 || gone[0] != (signal.ContainerGone{ID: "old", Runtime: "containerd", Namespace: "k8s.io"}) {
			t.Errorf("gone: %+v", gone)
		}
	})
}

// exits gives each end in a line.
func exits(said []signal.Signal) []string {
	var out []string
	for _, s := range said {
		if e, ok := s.Body.(signal.ContainerExit); ok {
			code := "-"
			if e.Code != nil {
				code = fmt.Sprint(*e.Code)
			}
			out = append(out, fmt.Sprintf("%s %s %s pid %d recovered %v", e.ID, code, e.Reason, e.PID, s.Recovered))
		}
	}
	return out
}

// TestSource_BetweenLists: a container that lives and dies between two lists
// has its name and its end all the same.
func TestSource_BetweenLists(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		r := follow(t, f, Options{})
		enginetest.Settle()
		r.Taken()
		f.podRuns("p1", "web")
		f.runs("a", "p1", 11)
		at := f.ended("a", 3, "Error")
		enginetest.Pass(4 * time.Second)
		said := r.Taken()
		seen := enginetest.Of[signal.ContainerSeen](said)
		named := false
		for _, s := range seen {
			named = named || s.Container.ID == "a" && s.Container.Name == "name-a" && s.Container.Pod.Name == "web"
		}
		if !named {
			t.Errorf("seen %+v", seen)
		}
		if diff := cmp.Diff([]string{"a 3 Error pid 0 recovered false"}, exits(said)); diff != "" {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
		for _, s := range said {
			if _, ok := s.Body.(signal.ContainerExit); ok && !s.Time.Equal(at) {
				t.Errorf("ended at %v, told %v", at, s.Time)
			}
		}
		if n := f.count("ContainerStatus", "a"); n != 2 { // at its end, and when that has settled
			t.Errorf("%d statuses asked for", n)
		}
	})
}

// TestSource_RemovedAtOnce: one that is removed between a list and the
// question for its status ended all the same.
func TestSource_RemovedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("a", "", 11)
		r := follow(t, f, Options{})
		enginetest.Settle()
		r.Taken()
		f.ended("a", 3, "Error")
		f.beforeEach(func(_ context.Context, method, id string) error {
			if method == "ContainerStatus" && id == "a" {
				f.removed("a")
			}
			return nil
		})
		enginetest.Pass(10 * time.Second)
		said := r.Taken()
		if diff := cmp.Diff([]string{"a -  pid 11 recovered false"}, exits(said)); diff != "" {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
		if n := len(enginetest.Of[signal.ContainerGone](said)); n != 1 {
			t.Errorf("gone %d times", n)
		}
	})
}

// TestSource_LateReason: what the runtime says later of an end is told again,
// with the time of the end.
func TestSource_LateReason(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("a", "", 11)
		r := follow(t, f, Options{})
		enginetest.Settle()
		r.Taken()
		at := f.ended("a", 137, "Error")
		enginetest.Pass(time.Second)
		f.change(func() { f.boxes["a"].Reason = "OOMKilled" })
		enginetest.Pass(10 * time.Second)
		said := r.Taken()
		want := []string{"a 137 Error pid 11 recovered false", "a 137 OOMKilled pid 11 recovered false"}
		if diff := cmp.Diff(want, exits(said)); diff != "" {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
		for _, s := range said {
			if _, ok := s.Body.(signal.ContainerExit); ok && !s.Time.Equal(at) {
				t.Errorf("ended at %v, told %v", at, s.Time)
			}
		}
	})
}

// TestSource_EndedBefore: what ended before anybody listened is named, and its
// end is not told. What ended while the runtime could not be reached is told.
func TestSource_EndedBefore(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("a", "", 11)
		f.ended("a", 3, "Error")
		enginetest.Pass(10 * time.Millisecond)
		f.Refuse(syscall.ECONNREFUSED)
		r := follow(t, f, Options{})
		enginetest.Pass(10 * time.Second)
		f.runs("b", "", 12)
		f.ended("b", 4, "Error")
		enginetest.Pass(10 * time.Second)
		f.Refuse(nil)
		enginetest.Pass(time.Minute)
		said := r.Taken()
		if seen := enginetest.Of[signal.ContainerSeen](said); len(seen) != 4 || seen[0].State != "exited" {
			t.Errorf("seen %+v", seen)
		}
		if diff := cmp.Diff([]string{"b 4 Error pid 0 recovered true"}, exits(said)); diff != "" {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
		if n := f.count("ContainerStatus", "a"); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestSource_StartedAgain: the kubelet starts a container again under another
// id; one that could not be started says why.
func TestSource_StartedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("a", "", 11)
		r := follow(t, f, Options{})
		enginetest.Settle()
		r.Taken()
		f.ended("a", 0, "Completed")
		f.runs("b", "", 0)
		f.ended("b", 128, "StartError")
		f.change(func() {
			f.boxes["b"].Metadata = &runtimeapi.ContainerMetadata{Name: "name-a", Attempt: 3}
			f.boxes["b"].Message = "exec: no such file"
		})
		enginetest.Pass(5 * time.Second)
		said := r.Taken()
		got := enginetest.Of[signal.ContainerExit](said)
		if len(got) == 2 && got[0].ID == "b" {
			got[0], got[1] = got[1], got[0]
		}
		if len(got) != 2 || got[0].Reason != "Completed" || *got[0].OOMKilled || got[1].Error != "exec: no such file" || *got[1].Code != 128 {
			t.Errorf("exits %+v", got)
		}
		for _, s := range enginetest.Of[signal.ContainerSeen](said) {
			if s.Container.ID == "b" && (s.Container.Name != "name-a" || *s.Container.RestartCount != 3) {
				t.Errorf("seen %+v", s)
			}
		}
	})
}

// TestSource_WhileAway: ends between two connections are told when the second
// is made, with the time at which they were, each once.
func TestSource_WhileAway(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		for i, id := range []string{"lives", "dies", "removed", "told"} {
			f.runs(id, "", 10+i)
		}
		r := follow(t, f, Options{})
		enginetest.Settle()
		f.ended("told", 1, "Error")
		enginetest.Pass(15 * time.Second)
		r.Taken()
		f.runs("ancient", "", 0)
		f.ended("ancient", 9, "Error")
		enginetest.Pass(15 * time.Second)
		r.Taken()

		f.Refuse(syscall.ECONNREFUSED)
		f.CutOff()
		time.Sleep(2 * time.Second)
		diedAt := f.ended("dies", 137, "OOMKilled")
		f.removed("removed")
		f.runs("new", "", 50)
		f.ended("new", 2, "Error")
		// One that was forgotten, as by a runtime that comes back with more.
		f.runs("stranger", "", 60)
		f.ended("stranger", 4, "Error")
		f.change(func() { f.boxes["stranger"].FinishedAt = time.Now().Add(-time.Hour).UnixNano() })
		enginetest.Pass(10 * time.Second)
		if st := enginetest.LastState(r.Taken()); st.Up || !strings.Contains(st.Reason, "refused") {
			t.Errorf("while away: %+v", st)
		}
		f.Refuse(nil)
		enginetest.Pass(40 * time.Second)
		said := r.Taken()
		got := map[string]bool{}
		for _, e := range exits(said) {
			got[e] = true
		}
		want := map[string]bool{"dies 137 OOMKilled pid 11 recovered true": true, "new 2 Error pid 0 recovered true": true}
		if diff := cmp.Diff(want, got); diff != "" || len(exits(said)) != 2 {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
		for _, s := range said {
			if e, ok := s.Body.(signal.ContainerExit); ok && e.ID == "dies" && !s.Time.Equal(diedAt) {
				t.Errorf("died at %v, told %v", diedAt, s.Time)
			}
		}
		if gone := enginetest.Of[signal.ContainerGone](said); len(gone) != 1 || gone[0].ID != "removed" {
			t.Errorf("gone %+v", gone)
		}
		if st := enginetest.LastState(said); !st.Up {
			t.Errorf("after: %+v", st)
		}
	})
}

// TestSource_Hangs: a runtime that stops answering is left, said to be down,
// and found again.
func TestSource_Hangs(t *testing.T) {
	for _, at := range []string{"Version", "ListContainers", "ListPodSandbox"} {
		t.Run(at, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fake) {
				r := follow(t, f, Options{})
				enginetest.Settle()
				if st := enginetest.LastState(r.Taken()); !st.Up {
					t.Fatalf("at first %+v", st)
				}
				f.change(func() {
					f.before = func(ctx context.Context, method, _ string) error {
						if method == at {
							return hang(ctx)
						}
						return nil
					}
				})
				if at == "Version" {
					f.CutOff()
				}
				enginetest.Pass(50 * time.Second)
				if st := enginetest.LastState(r.Taken()); st.Up || !strings.Contains(st.Reason, "no answer") {
					t.Errorf("hanging %+v", st)
				}
				f.beforeEach(nil)
				enginetest.Pass(90 * time.Second)
				if st := enginetest.LastState(r.Taken()); !st.Up {
					t.Errorf("afterwards %+v", st)
				}
			})
		})
	}
}

// TestSource_StatusHangs: an answer that never comes holds up nothing else, and
// is not asked for ever.
func TestSource_StatusHangs(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("bad", "", 11)
		f.beforeEach(func(ctx context.Context, method, id string) error {
			if method == "ContainerStatus" && id == "bad" {
				return hang(ctx)
			}
			return nil
		})
		r := follow(t, f, Options{})
		enginetest.Settle()
		f.runs("good", "", 77)
		enginetest.Pass(2 * time.Second)
		f.ended("good", 7, "Error")
		enginetest.Pass(4 * time.Second)
		if diff := cmp.Diff([]string{"good 7 Error pid 77 recovered false"}, exits(r.Taken())); diff != "" {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
		enginetest.Pass(5 * time.Minute)
		if n := f.count("ContainerStatus", "bad"); n != maxTries {
			t.Errorf("asked %d times", n)
		}
		f.ended("bad", 1, "Error")
		enginetest.Pass(2 * time.Minute)
		said := r.Taken()
		if diff := cmp.Diff([]string{"bad -  pid 0 recovered false"}, exits(said)); diff != "" {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
		var lost uint64
		for _, l := range enginetest.Of[signal.Lost](said) {
			lost += l.Count
		}
		if lost != 2 {
			t.Errorf("lost %d", lost)
		}
	})
}

// TestSource_ManyPods: each container's status is asked for once, a few at a
// time, however many there are.
func TestSource_ManyPods(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		const n = 1000
		for i := range n {
			p := fmt.Sprint("p", i)
			f.podRuns(p, p)
			f.runs(fmt.Sprint("c", i), p, 100+i)
		}
		f.beforeEach(func(_ context.Context, method, _ string) error {
			if strings.HasSuffix(method, "Status") {
				time.Sleep(time.Millisecond)
			}
			return nil
		})
		r := follow(t, f, Options{})
		enginetest.Pass(time.Minute)
		pids := map[int]bool{}
		for _, s := range enginetest.Of[signal.ContainerSeen](r.Taken()) {
			if s.PID != 0 && !s.Sandbox {
				pids[s.PID] = true
			}
		}
		if len(pids) != n || f.most > maxStatuses {
			t.Errorf("%d containers with a pid, %d asked at once", len(pids), f.most)
		}
		for i := range n {
			if a, b := f.count("ContainerStatus", fmt.Sprint("c", i)), f.count("PodSandboxStatus", fmt.Sprint("p", i)); a != 1 || b != 1 {
				t.Fatalf("container %d was asked for %d times, its pod %d times", i, a, b)
			}
		}
	})
}

// TestSource_Pace: the quieter it is, the rarer the lists; and one that takes
// long is not asked for all the time.
func TestSource_Pace(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		r := follow(t, f, Options{})
		enginetest.Pass(time.Hour)
		if n := f.count("ListContainers", ""); n < 1790 || n > 1805 {
			t.Errorf("%d lists in a quiet hour", n)
		}
		r.Taken()
		f.change(func() {
			f.before = func(_ context.Context, method, _ string) error {
				if method == "ListContainers" {
					time.Sleep(400 * time.Millisecond)
				}
				return nil
			}
			clear(f.asked)
		})
		enginetest.Pass(time.Hour)
		if n := f.count("ListContainers", ""); n < 150 || n > 185 {
			t.Errorf("%d slow lists in an hour", n)
		}
	})
}

// TestSource_Large: an answer beyond all measure is given up.
func TestSource_Large(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("a", "", 11)
		f.change(func() { f.boxes["a"].Annotations = map[string]string{"x": strings.Repeat("y", maxList)} })
		r := follow(t, f, Options{})
		enginetest.Pass(time.Minute)
		if st := enginetest.LastState(r.Taken()); st.Up || !strings.Contains(st.Reason, "too large") {
			t.Errorf("state %+v", st)
		}
	})
}

// TestSource_HostileText: text of pods comes bounded and as UTF-8, whatever
// somebody gave them, and hides no other container.
func TestSource_HostileText(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.podRuns("p1", "web")
		f.runs("a", "p1", 11)
		f.runs("good", "", 12)
		f.change(func() {
			f.pods["p1"].Labels = map[string]string{"app.kubernetes.io/name": strings.Repeat("x\n\"", 20<<10), "app.kubernetes.io/" + strings.Repeat("k", 300): "v"}
			f.pods["p1"].Annotations = map[string]string{"any": enginetest.InvalidUTF8, enginetest.InvalidUTF8: "x"}
			f.boxes["a"].Labels = map[string]string{"app.kubernetes.io/part": enginetest.InvalidUTF8, "other": strings.Repeat("z", 64<<10)}
			f.boxes["a"].Metadata.Name = enginetest.InvalidUTF8
		})
		r := follow(t, f, Options{})
		enginetest.Settle()
		said := r.Taken()
		if st := enginetest.LastState(said); !st.Up {
			t.Fatalf("state %+v", st)
		}
		pids := 0
		for _, s := range enginetest.Of[signal.ContainerSeen](said) {
			if s.PID > 0 {
				pids++
			}
			if s.Container.ID != "a" {
				continue
			}
			l := s.Container.Labels
			if len(l) != 2 || len(l["app.kubernetes.io/name"]) != 4096 || !strings.HasPrefix(l["app.kubernetes.io/part"], "?") || !strings.HasPrefix(s.Container.Name, "?") {
				t.Errorf("labels of %d, name %q", len(l), s.Container.Name)
			}
		}
		if pids != 3 {
			t.Errorf("%d pids", pids)
		}
		var lost uint64
		for _, l := range enginetest.Of[signal.Lost](said) {
			lost += l.Count
		}
		if lost != 2 {
			t.Errorf("lost %+v", enginetest.Of[signal.Lost](said))
		}
	})
}

// TestSource_BadRows: rows without an id that can be asked for are counted, once.
func TestSource_BadRows(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.runs("../x", "", 11)
		f.runs("", "", 12)
		f.runs("good", "", 13)
		f.change(func() { f.infos["good"] = "{\"pid\":\"x\"" })
		r := follow(t, f, Options{})
		enginetest.Pass(time.Minute)
		said := r.Taken()
		lost := map[string]uint64{}
		for _, l := range enginetest.Of[signal.Lost](said) {
			lost[strings.TrimPrefix(l.Why, "/fake.sock: ")] += l.Count
			if !l.Other {
				t.Errorf("%+v", l)
			}
		}
		if diff := cmp.Diff(map[string]uint64{whyNoID: 2, whyInfo: 1}, lost); diff != "" || len(enginetest.Of[signal.Lost](said)) != 2 {
			t.Errorf("lost (-want +got):\n%s", diff)
		}
		if seen := enginetest.Of[signal.ContainerSeen](said); len(seen) != 2 || seen[0].Container.ID != "good" {
			t.Errorf("seen %+v", seen)
		}
	})
}

func TestSource_Denied(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.Refuse(syscall.EACCES)
		r := follow(t, f, Options{})
		enginetest.Settle()
		want := signal.SourceState{Reason: "/fake.sock: dial unix: permission denied: needs user 0, or the group of the socket (for the systemd unit: engines.conf)"}
		if st := enginetest.LastState(r.Taken()); st != want {
			t.Errorf("state %+v", st)
		}
	})
}

// TestSource_NoCRI: a containerd for Docker alone has no CRI.
func TestSource_NoCRI(t *testing.T) {
	bubble(t, func(t *testing.T, f *fake) {
		f.beforeEach(func(context.Context, string, string) error {
			return status.Error(codes.Unimplemented, "unknown service runtime.v1.RuntimeService")
		})
		r := follow(t, f, Options{})
		enginetest.Settle()
		if st := enginetest.LastState(r.Taken()); st.Up || !strings.Contains(st.Reason, "CRI v1 is not served there") {
			t.Errorf("state %+v", st)
		}
	})
}

// TestSource_Garbage: whatever else listens there costs nothing but time.
func TestSource_Garbage(t *testing.T) {
	for name, text := range map[string]string{
		"HTTP": "HTTP/1.1 400 Bad Request\r\n\r\n", "nothing": "", "zeros": strings.Repeat("\x00", 4096), "a large frame": "\xff\xff\xff\x04\x00\x00\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fake) {
				r := follow(t, nil, Options{dial: func(context.Context, string) (net.Conn, error) {
					ours, theirs := net.Pipe()
					go func() {
						defer theirs.Close()
						_ = theirs.SetDeadline(time.Now().Add(20 * time.Second))
						if _, err := theirs.Write([]byte(text)); err == nil {
							_, _ = theirs.Read(make([]byte, 1<<10))
						}
					}()
					return ours, nil
				}})
				enginetest.Pass(30 * time.Second)
				if st := enginetest.LastState(r.Taken()); st.Up || st.Reason == "" || len(st.Reason) > 1024 {
					t.Errorf("state %+v", st)
				}
				r.Stop()
				enginetest.Pass(time.Minute)
			})
		})
	}
}
