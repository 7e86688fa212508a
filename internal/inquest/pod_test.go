// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

var (
	shopPod = death.Pod{Namespace: "shop", Name: "web-1", UID: podUID, QoSClass: "Burstable", Owner: &death.Owner{Kind: "Deployment", Name: "web"}}
	podMain = signal.ContainerSeen{
		Container: death.Container{ID: leftID, Name: "main", Runtime: "containerd", Image: "shop/web:3", Pod: &shopPod},
		State:     "running", StopTimeout: ptr(int64(5)),
	}
)

const evictedWords = "The node was low on resource: memory. Threshold quantity: 500Mi, available: 400Mi. Container main was using 300Mi, request is 100Mi, has larger consumption of memory. "

func kubeExit(code int, reason string) signal.ContainerExit {
	oom := reason == "OOMKilled"
	return signal.ContainerExit{ID: leftID, Runtime: "containerd", Code: &code, OOMKilled: &oom, Reason: reason}
}

// inKube is a scene with Kubernetes and the kernel, in which the pod web-1 runs.
func inKube(sc *scene) []signal.Signal {
	return append(sources(sc, "kube", "tracepoint", "cgroup"), sc.sig("kube", signal.PodSeen{Pod: shopPod, Phase: "Running"}), sc.sig("kube", podMain))
}

// TestPods_Causes: what Kubernetes did to a pod, with what the kernel saw of
// it, in each order.
func TestPods_Causes(t *testing.T) {
	first := task(100, "app", leftPath, true)
	runc := onHost(task(901, "runc", "/system.slice/containerd.service", false))
	person := onHost(task(902, "bash", "/user.slice/user-0.slice/session-3.scope", false))
	kill := func(by signal.Task, n int) saying {
		return saying{"tracepoint", signal.Kill{Target: first, Sender: by, Signal: n}}
	}
	killed := saying{"tracepoint", signal.Exit{Task: first, Signal: ptr(9)}}
	left := func(code int) saying { return saying{"tracepoint", signal.Exit{Task: first, Code: &code}} }
	pod := func(reason, message string, d *signal.Disruption, deleted *signal.Deletion) saying {
		return saying{"kube", signal.PodSeen{Pod: shopPod, Reason: reason, Message: message, Disruption: d, Deletion: deleted}}
	}
	overdue := func(deadline time.Time) saying {
		return saying{"kube", signal.PodSeen{Pod: shopPod, Phase: "Failed", Reason: "DeadlineExceeded", Message: "Pod was active on the node longer than the specified deadline", Deadline: deadline}}
	}
	by := func(reason, message string) *signal.Disruption {
		return &signal.Disruption{Reason: reason, Message: message, At: epoch}
	}
	deleted := &signal.Deletion{At: epoch.Add(-5 * time.Second), GraceSeconds: 5}
	events := func(es ...signal.PodEvent) saying { return saying{"kube", signal.PodEvents{Events: es}} }
	stopping := events(signal.PodEvent{Reason: "Killing", Container: "main", Message: "Stopping container main", First: epoch, Last: epoch, Count: 1})
	oom := oomKill(first, first, level(leftPath, 40*mib, 40*mib))
	for _, tc := range []struct {
		name  string
		says  []saying
		cause death.Cause
		rule  string
	}{
		{"S5 evicted", []saying{kill(runc, 15), kill(runc, 9), killed, {"kube", kubeExit(137, "Error")}, pod("Evicted", evictedWords, by("TerminationByKubelet", evictedWords), nil)}, death.EvictedMemory, "evicted-memory"},
		{"S5 evicted, and ended well", []saying{kill(runc, 15), left(0), {"kube", kubeExit(0, "Completed")}, pod("", "", by("TerminationByKubelet", evictedWords), nil)}, death.EvictedMemory, "evicted-memory"},
		{"evicted for its own disk space", []saying{kill(runc, 15), left(0), pod("Evicted", `Usage of EmptyDir volume "scratch" exceeds the limit "1Mi". `, nil, nil)}, death.EvictedStorage, "evicted-storage"},
		{"S8 the kernel was first", []saying{{"tracepoint", oom[0]}, {"tracepoint", oom[1]}, killed, {"kube", kubeExit(137, "OOMKilled")}, pod("Evicted", evictedWords, by("TerminationByKubelet", evictedWords), nil)}, death.OOMContainerLimit, "container-limit"},
		{"preempted", []saying{kill(runc, 15), left(0), pod("", "", by("PreemptionByScheduler", "default-scheduler: preempting"), deleted)}, death.Preempted, "preempted"},
		{"drained", []saying{kill(runc, 15), left(143), pod("", "", by("EvictionByEvictionAPI", "Eviction API: evicting"), deleted)}, death.Drained, "drained"},
		{"node shut down", []saying{kill(runc, 15), left(143), pod("Terminated", "Pod was terminated in response to imminent node shutdown.", by("TerminationByKubelet", "Pod was terminated in response to imminent node shutdown."), nil)}, death.NodeShutdown, "node-shutdown"},
		{"S13 deleted, in time", []saying{kill(runc, 15), left(143), pod("", "", nil, deleted)}, death.Stopped, "deleted"},
		{"S13 deleted, too late", []saying{kill(runc, 15), kill(runc, 9), killed, pod("", "", nil, deleted)}, death.StopTimeout, "deletion-timeout"},
		{"S10 killed by a person while it was deleted", []saying{kill(person, 9), killed, pod("", "", nil, deleted)}, death.Killed, "killed"},
		{"S14 crashed long before the pod was evicted", []saying{left(3), pod("Evicted", evictedWords, &signal.Disruption{Reason: "TerminationByKubelet", Message: evictedWords, At: epoch.Add(time.Minute)}, nil)}, death.Error, "error"},
		{"S12 liveness probe", []saying{kill(runc, 15), kill(runc, 9), killed, events(
			signal.PodEvent{Reason: "Unhealthy", Container: "main", Message: "Liveness probe failed: HTTP probe failed with statuscode: 500", First: epoch.Add(-9 * time.Second), Last: epoch, Count: 3},
			signal.PodEvent{Reason: "Killing", Container: "main", Message: "Container main failed liveness probe, will be restarted", First: epoch, Last: epoch, Count: 1})}, death.LivenessProbe, "liveness-probe"},
		{"S12 startup probe, ended with 0", []saying{kill(runc, 15), left(0), events(
			signal.PodEvent{Reason: "Killing", Container: "main", Message: "Container main failed startup probe, will be restarted", First: epoch, Last: epoch, Count: 1})}, death.StartupProbe, "startup-probe"},
		{"S12 liveness probe of a sidecar", []saying{kill(runc, 15), left(0), events(
			signal.PodEvent{Reason: "Killing", Container: "main", Message: "Init container main failed liveness probe", First: epoch, Last: epoch, Count: 1})}, death.LivenessProbe, "liveness-probe"},
		{"S12 startup probe of a sidecar", []saying{kill(runc, 15), kill(runc, 9), killed, events(
			signal.PodEvent{Reason: "Killing", Container: "main", Message: "Init container main failed startup probe", First: epoch, Last: epoch, Count: 1})}, death.StartupProbe, "startup-probe"},
		{"its time was over", []saying{kill(runc, 15), left(0), {"kube", kubeExit(0, "Completed")}, overdue(epoch.Add(-time.Second))}, death.Stopped, "deadline"},
		{"its time was over, and it is deaf", []saying{kill(runc, 15), kill(runc, 9), killed, {"kube", kubeExit(137, "Error")}, overdue(epoch.Add(-time.Second))}, death.StopTimeout, "deadline-timeout"},
		{"it had left before its time was over", []saying{left(3), {"kube", kubeExit(3, "Error")}, overdue(epoch.Add(time.Second))}, death.Error, "error"},
		{"a person was first, when its time was over", []saying{kill(person, 9), killed, overdue(epoch.Add(-time.Second))}, death.Killed, "killed"},
		{"made anew, with another image", []saying{kill(runc, 15), left(0), events(
			signal.PodEvent{Reason: "Killing", Container: "main", Message: "Container main definition changed, will be restarted", First: epoch, Last: epoch, Count: 1})}, death.Stopped, "replaced"},
		{"made anew, with other resources, and it is deaf", []saying{kill(runc, 15), kill(runc, 9), killed, events(
			signal.PodEvent{Reason: "Killing", Container: "main", Message: "Container main resize requires restart", First: epoch, Last: epoch, Count: 1})}, death.StopTimeout, "replaced-timeout"},
		{"S12 liveness probe of a pod that is not restarted", []saying{kill(runc, 15), kill(runc, 9), killed, events(
			signal.PodEvent{Reason: "Unhealthy", Container: "main", Message: "Liveness probe failed: HTTP probe failed with statuscode: 500", First: epoch.Add(-9 * time.Second), Last: epoch, Count: 3},
			signal.PodEvent{Reason: "Killing", Container: "main", Message: "Stopping container main", First: epoch, Last: epoch, Count: 1})}, death.LivenessProbe, "liveness-probe-inferred"},
		{"the same, of a pod that was deleted", []saying{kill(runc, 15), kill(runc, 9), killed, pod("", "", nil, deleted), events(
			signal.PodEvent{Reason: "Unhealthy", Container: "main", Message: "Liveness probe failed: HTTP probe failed with statuscode: 500", First: epoch.Add(-9 * time.Second), Last: epoch, Count: 3},
			signal.PodEvent{Reason: "Killing", Container: "main", Message: "Stopping container main", First: epoch, Last: epoch, Count: 1})}, death.StopTimeout, "deletion-timeout"},
		{"a readiness probe stops nobody", []saying{kill(runc, 15), left(0), events(
			signal.PodEvent{Reason: "Unhealthy", Container: "main", Message: "Readiness probe failed: HTTP probe failed with statuscode: 500", First: epoch.Add(-9 * time.Second), Last: epoch, Count: 3},
			signal.PodEvent{Reason: "Killing", Container: "main", Message: "Stopping container main", First: epoch, Last: epoch, Count: 1})}, death.Stopped, "stopped-by-kubelet"},
		{"a probe that failed well before the stop", []saying{kill(runc, 15), left(0), events(
			signal.PodEvent{Reason: "Unhealthy", Container: "main", Message: "Liveness probe failed: HTTP probe failed with statuscode: 500", First: epoch.Add(-29 * time.Second), Last: epoch.Add(-9 * time.Second), Count: 2},
			signal.PodEvent{Reason: "Killing", Container: "main", Message: "Stopping container main", First: epoch, Last: epoch, Count: 1})}, death.Stopped, "stopped-by-kubelet"},
		{"a sidecar, when the others have ended", []saying{{"kube", kubeExit(143, "Error")}, stopping}, death.Stopped, "stopped-by-kubelet"},
		{"a deaf sidecar, when the others have ended", []saying{kill(runc, 9), killed, {"kube", kubeExit(137, "Error")}, stopping}, death.StopTimeout, "stop-timeout-by-kubelet"},
		{"the same, and only Kubernetes tells", []saying{{"kube", kubeExit(137, "Error")}, stopping}, death.StopTimeout, "stop-timeout-by-kubelet"},
		{"the same, and it was OOM-killed for all that is known", []saying{{"kube", kubeExit(137, "OOMKilled")}, stopping}, death.OOMContainerLimit, "sigkill-flagged"},
		{"its postStart hook failed", []saying{kill(runc, 15), left(0), events(
			signal.PodEvent{Reason: "FailedPostStartHook", Container: "main", Message: "PostStartHook failed", First: epoch, Last: epoch, Count: 1},
			signal.PodEvent{Reason: "Killing", Container: "main", Message: "FailedPostStartHook", First: epoch, Last: epoch, Count: 1})}, death.Stopped, "stopped-by-kubelet"},
		{"the kubelet stops it, and a person is faster", []saying{kill(person, 9), killed, stopping}, death.Killed, "killed"},
		{"the kubelet stops it, and it crashes", []saying{kill(runc, 15), {"tracepoint", signal.Exit{Task: first, Signal: ptr(11)}}, stopping}, death.Segfault, "segfault"},
		{"another container's probe", []saying{kill(runc, 15), left(0), events(
			signal.PodEvent{Reason: "Killing", Container: "side", Message: "Container side failed liveness probe, will be restarted", First: epoch, Last: epoch, Count: 1})}, death.Stopped, "stopped-by-runtime"},
		{"a probe of long ago", []saying{kill(runc, 15), left(0), events(
			signal.PodEvent{Reason: "Killing", Container: "main", Message: "Container main failed liveness probe, will be restarted", First: epoch.Add(-time.Hour), Last: epoch.Add(-time.Hour), Count: 1})}, death.Stopped, "stopped-by-runtime"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			permute(len(tc.says), func(order []int) {
				if !inKernelOrder(tc.says, order) {
					return
				}
				sc := &scene{}
				q := New(Options{})
				var sigs []signal.Signal
				sigs = append(sigs, inKube(sc)...)
				for _, i := range order {
					sigs = append(sigs, sc.sig(tc.says[i].src, tc.says[i].body))
				}
				d := only(t, answering(q, sigs...))
				if d.Cause != tc.cause || d.Rule != tc.rule || d.Subject != death.SubjectContainer || d.Container.Name != "main" || d.Container.Pod.Name != "web-1" || d.Container.Pod.Owner == nil {
					t.Errorf("order %v:\n%s", order, sketch([]death.Death{d}))
				}
			})
		})
	}
}

// inKernelOrder tells whether what one source says comes in its own order, and
// whether events, which are asked for, come last.
func inKernelOrder(says []saying, order []int) bool {
	last := map[death.Source]int{}
	for at, i := range order {
		if says[i].src == "tracepoint" {
			if j, ok := last["tracepoint"]; ok && j > i {
				return false
			}
			last["tracepoint"] = i
		}
		if _, asked := says[i].body.(signal.PodEvents); asked && at != len(order)-1 {
			return false
		}
	}
	return true
}

// answering feeds signals, with the events of a pod as the answer to the
// question for them, and returns the last revisions.
func answering(q *Inquest, sigs ...signal.Signal) []death.Death {
	at := map[string]int{}
	var out []death.Death
	take := func() {
		for _, d := range q.Take() {
			if i, known := at[d.ID]; known {
				out[i] = d
				continue
			}
			at[d.ID] = len(out)
			out = append(out, d)
		}
	}
	var now time.Time
	for _, s := range sigs {
		if e, isAnswer := s.Body.(signal.PodEvents); isAnswer {
			now = now.Add(askEventsAfter + time.Second)
			q.Tick(now)
			for _, w := range q.TakeWants() {
				if w.Kind == WantEvents {
					e.UID, e.At = w.Pod.UID, w.At
					s.Observed, s.Body = now, e
					q.Feed(s)
				}
			}
			take()
			continue
		}
		now = s.Observed
		q.Feed(s)
		take()
	}
	for _, d := range q.Close() {
		if i, known := at[d.ID]; known {
			out[i] = d
		} else {
			out = append(out, d)
		}
	}
	return out
}

// TestPods_NeverRan: a pod that is evicted before any container ran is a death
// of its own, told once.
func TestPods_NeverRan(t *testing.T) {
	sc := &scene{}
	b := signal.PodSeen{Pod: shopPod, Phase: "Failed", Reason: "Evicted", Message: "Pod was rejected: The node had condition: [MemoryPressure]. ", NeverRan: true}
	again := b
	again.Message += "(said again)"
	d := only(t, answering(New(Options{}), append(sources(sc, "kube"), sc.sig("kube", b), sc.sig("kube", b), sc.sig("kube", again))...))
	if d.Subject != death.SubjectPod || d.Cause != death.EvictedMemory || d.Container.Pod.Name != "web-1" || !strings.Contains(d.Summary, "none of its containers had run") {
		t.Errorf("got:\n%s", sketch([]death.Death{d}))
	}
}

// TestPods_Rejected: a pod that failed before any container ran, and was not
// evicted, says what it failed of; it is no container without a name.
func TestPods_Rejected(t *testing.T) {
	for _, tc := range []struct {
		reason, message string
		cause           death.Cause
		rule, says      string
	}{
		{"OutOfmemory", "Pod was rejected: Node didn't have enough resource: memory, requested: 1073741824, used: 0, capacity: 524288000", death.StartFailed, "rejected",
			"Pod shop/web-1 failed before any of its containers had run: OutOfmemory: Pod was rejected: Node didn't have enough resource: memory, requested: 1073741824, used: 0, capacity: 524288000."},
		{"DeadlineExceeded", "Pod was active on the node longer than the specified deadline", death.Stopped, "deadline", "before any of its containers had run"},
		{"Preempting", "Preempted in order to admit critical pod", death.Preempted, "preempted", "had to make room"},
	} {
		sc := &scene{}
		b := signal.PodSeen{Pod: shopPod, Phase: "Failed", Reason: tc.reason, Message: tc.message, NeverRan: true}
		d := only(t, answering(New(Options{}), append(sources(sc, "kube"), sc.sig("kube", b))...))
		if d.Subject != death.SubjectPod || d.Cause != tc.cause || d.Rule != tc.rule || d.Confidence != death.Certain || !strings.Contains(d.Summary, tc.says) {
			t.Errorf("%s: got:\n%s", tc.reason, sketch([]death.Death{d}))
		}
	}
}

// TestPods_AreBounded: pods that Kubernetes tells of without end.
func TestPods_AreBounded(t *testing.T) {
	q := New(Options{TombstoneTTL: time.Second})
	sc := &scene{}
	for i := range maxPods + 10 {
		p := shopPod
		p.UID = itoa(i)
		q.Feed(sc.sig("kube", signal.PodSeen{Pod: p}))
	}
	if len(q.pods.byUID) != maxPods || q.pods.full != 10 {
		t.Errorf("%d pods known, %d too many", len(q.pods.byUID), q.pods.full)
	}
	for i := range maxPods {
		q.Feed(sc.sig("kube", signal.PodGone{UID: itoa(i)}))
	}
	q.Tick(sc.sig("kube", signal.PodGone{}).Time.Add(2 * time.Second))
	if len(q.pods.byUID) != 0 || len(q.pods.graves) != 0 {
		t.Errorf("%d pods and %d graves left", len(q.pods.byUID), len(q.pods.graves))
	}
}

// TestPods_NameUnknownContainers: a container of which only the kernel tells has
// its pod's name, from a static pod's configuration too.
func TestPods_NameUnknownContainers(t *testing.T) {
	for _, uid := range []string{podUID, "0123456789abcdef0123456789abcdef"} {
		sc, known := &scene{}, shopPod
		known.UID = uid
		first := task(100, "app", "/kubepods/burstable/pod"+uid+"/"+leftID, true)
		sigs := append(sources(sc, "kube", "tracepoint", "cgroup"), sc.sig("kube", signal.PodSeen{Pod: known, Phase: "Running"}), sc.sig("tracepoint", signal.Exit{Task: first, Code: ptr(3)}))
		d := only(t, answering(New(Options{}), sigs...))
		if p := d.Container.Pod; p == nil || p.Name != "web-1" || p.Namespace != "shop" || p.UID != uid || p.Owner == nil || d.Container.ID != leftID {
			t.Errorf("got:\n%s", sketch([]death.Death{d}))
		}
	}
}

// TestPods_LateWord: what Kubernetes says of an end amends it, also where its API
// was away or slow; an end of which it never speaks is let go all the same.
func TestPods_LateWord(t *testing.T) {
	away := signal.SourceState{Reason: "connection refused"}
	standIn := signal.SourceState{Up: true, Mode: "kubelet"}
	back := signal.SourceState{Up: true, Mode: "api"}
	for _, tc := range []struct {
		name string
		then []signal.SourceState // each 10 minutes after the one before
		wait time.Duration        // after the last
		open bool
	}{
		{"slow", nil, 50 * time.Second, true},
		{"it never says so", nil, 70 * time.Second, false},
		{"away", []signal.SourceState{away, back}, 50 * time.Second, true},
		{"away, the kubelet in its place", []signal.SourceState{away, standIn, back}, 50 * time.Second, true},
		{"away, and it never says so", []signal.SourceState{away, back}, 70 * time.Second, false},
		{"away for long", []signal.SourceState{away, away, away, away, away, away, away, back}, 50 * time.Second, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			for _, s := range append(inKube(sc), sc.sig("tracepoint", signal.Exit{Task: task(100, "app", leftPath, true), Code: ptr(0)})) {
				q.Feed(s)
			}
			now := epoch.Add(time.Second)
			q.Tick(now)
			first := only(t, q.Take())
			pass := func(d time.Duration) {
				for end := now.Add(d); now.Before(end); now = now.Add(time.Second) {
					q.Tick(now)
					for _, d := range q.Take() {
						first = d
					}
				}
			}
			for i, st := range tc.then {
				if i > 0 {
					pass(10 * time.Minute)
				}
				s := sc.sig("kube", st)
				s.Time, s.Observed = now, now
				q.Feed(s)
			}
			pass(tc.wait)
			if open := q.Stats().OpenCases == 1; open != tc.open {
				t.Fatalf("open: %v, want %v", open, tc.open)
			}
			word := sc.sig("kube", kubeExit(0, "Completed"))
			word.Observed = now
			q.Feed(word)
			ds := q.Take()
			if !tc.open {
				if len(ds) != 0 {
					t.Errorf("told again: %s", sketch(ds))
				}
				return
			}
			d := only(t, ds)
			if d.ID != first.ID || d.Revision <= first.Revision || d.Exit.Agrees == nil || !*d.Exit.Agrees {
				t.Errorf("at first %s then %s", sketch([]death.Death{first}), sketch(ds))
			}
			pass(time.Minute)
			if n := q.Stats().OpenCases; n != 0 {
				t.Errorf("%d cases are open", n)
			}
		})
	}
}

// TestPods_EventsAskedAgain: the kubelet writes that it acts on a probe after the
// probe, and an API server that starts refuses for a moment.
func TestPods_EventsAskedAgain(t *testing.T) {
	unhealthy := signal.PodEvent{Reason: "Unhealthy", Container: "main", Message: "Startup probe failed: no such file", First: epoch, Last: epoch, Count: 2}
	killing := signal.PodEvent{Reason: "Killing", Container: "main", Message: "Container main failed startup probe, will be restarted", First: epoch, Last: epoch, Count: 1}
	half, whole := signal.PodEvents{Events: []signal.PodEvent{unhealthy}}, signal.PodEvents{Events: []signal.PodEvent{unhealthy, killing}}
	refused := signal.PodEvents{Error: "events is forbidden"}
	for name, tc := range map[string]struct {
		answers []signal.PodEvents
		asked   int
		cause   death.Cause
	}{
		"at once":    {[]signal.PodEvents{whole}, 1, death.StartupProbe},
		"half":       {[]signal.PodEvents{half, whole}, 2, death.StartupProbe},
		"refused":    {[]signal.PodEvents{refused, whole}, 2, death.StartupProbe},
		"never":      {[]signal.PodEvents{refused, refused, refused, whole}, 3, death.Stopped},
		"nothing":    {[]signal.PodEvents{{}, whole}, 1, death.Stopped},
		"only fails": {[]signal.PodEvents{half, half, half, whole}, 3, death.Stopped},
	} {
		t.Run(name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			first := task(100, "app", leftPath, true)
			runc := onHost(task(901, "runc", "/system.slice/containerd.service", false))
			for _, s := range append(inKube(sc), sc.sig("tracepoint", signal.Kill{Target: first, Sender: runc, Signal: 15}),
				sc.sig("tracepoint", signal.Exit{Task: first, Code: ptr(0)}), sc.sig("kube", kubeExit(0, "Completed"))) {
				q.Feed(s)
			}
			var last death.Death
			asked := 0
			for now := epoch; now.Before(epoch.Add(time.Minute)); now = now.Add(time.Second) {
				q.Tick(now)
				for _, w := range q.TakeWants() {
					if w.Kind != WantEvents {
						continue
					}
					answer := tc.answers[asked]
					answer.UID, answer.At = w.Pod.UID, w.At
					asked++
					s := sc.sig("kube", answer)
					s.Observed = now
					q.Feed(s)
				}
				for _, d := range q.Take() {
					last = d
				}
			}
			if asked != tc.asked || last.Cause != tc.cause {
				t.Errorf("asked %d times, want %d:\n%s", asked, tc.asked, sketch([]death.Death{last}))
			}
			if n := strings.Count(sketch([]death.Death{last}), "is not known"); name == "never" && n != 1 {
				t.Errorf("said %d times that they are not known", n)
			}
		})
	}
}

// TestPods_EventsBesideTheEnd: Kubernetes says when the container ended while its
// pod's events are on their way: they are of that end.
func TestPods_EventsBesideTheEnd(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	for _, s := range append(inKube(sc), sc.sig("kmsg", signal.SourceState{Up: true}),
		sc.sig("cgroup", signal.CgroupSeen{Level: level(leftPath, 40*mib, -1), InitPID: 100}), sc.sig("kmsg", reported(100, "app", leftPath, leftPath, 40*mib, 40*mib))) {
		q.Feed(s)
	}
	q.Take()
	var now time.Time
	answers := 0
	for second := range 30 {
		now = epoch.Add(time.Duration(second) * time.Second)
		q.Tick(now)
		for _, w := range q.TakeWants() {
			if w.Kind != WantEvents {
				continue
			}
			if answers++; answers == 1 {
				end := sc.sig("kube", kubeExit(137, "OOMKilled"))
				end.Time, end.Observed = epoch.Add(900*time.Millisecond), now
				q.Feed(end)
			}
			s := sc.sig("kube", signal.PodEvents{UID: w.Pod.UID, At: w.At, Error: "events is forbidden"})
			s.Observed = now
			q.Feed(s)
		}
		q.Take()
	}
	if answers != eventsTries || q.stats.Late != 0 {
		t.Errorf("asked %d times, want %d; %d answers came too late", answers, eventsTries, q.stats.Late)
	}
}

// TestPods_EndInWholeSeconds: Kubernetes tells of an end before the agent ran
// first, by the whole second, and the kernel's log then of the kill that it was.
func TestPods_EndInWholeSeconds(t *testing.T) {
	for _, late := range []time.Duration{0, 90 * time.Millisecond, 700 * time.Millisecond, 999 * time.Millisecond} {
		sc := &scene{}
		end, kill := sc.sig("kube", kubeExit(137, "OOMKilled")), sc.sig("kmsg", reported(100, "app", leftPath, leftPath, 40*mib, 40*mib))
		end.Time, kill.Time = epoch.Add(-5*time.Second), epoch.Add(-5*time.Second+late)
		end.Recovered, kill.Recovered = true, true
		for _, order := range [][]signal.Signal{{end, kill}, {kill, end}} {
			d := only(t, play(t, New(Options{}), append(append(inKube(sc), sc.sig("kmsg", signal.SourceState{Up: true})), order...)...))
			if d.Cause != death.OOMContainerLimit || d.Subject != death.SubjectContainer {
				t.Errorf("%s: %s", late, sketch([]death.Death{d}))
			}
		}
	}
}

// TestPods_EventsOfTheMeantime: of an end while no agent ran Kubernetes still has
// the events, for an hour; older ones are not asked for.
func TestPods_EventsOfTheMeantime(t *testing.T) {
	for _, tc := range []struct {
		ago   time.Duration
		cause death.Cause
	}{{time.Minute, death.LivenessProbe}, {2 * time.Hour, death.Unknown}} {
		sc := &scene{}
		at := epoch.Add(-tc.ago)
		end := sc.sig("kube", kubeExit(137, "Error"))
		end.Time, end.Recovered = at, true
		sigs := append(inKube(sc), end, sc.sig("kube", signal.PodEvents{Events: []signal.PodEvent{
			{Reason: "Killing", Container: "main", Message: "Container main failed liveness probe, will be restarted", First: at.Add(-time.Second), Last: at.Add(-time.Second), Count: 1}}}))
		d := only(t, answering(New(Options{}), sigs...))
		if d.Cause != tc.cause || !d.Recovered {
			t.Errorf("%s ago: got:\n%s", tc.ago, sketch([]death.Death{d}))
		}
	}
}

// TestPods_NeverRanOnce: such a pod stays in the API, and is told of again when
// the agent is started anew; its death is the one that was told.
func TestPods_NeverRanOnce(t *testing.T) {
	sc := &scene{}
	b := signal.PodSeen{Pod: shopPod, Phase: "Failed", Reason: "Evicted", Message: "Pod was rejected: The node had condition: [MemoryPressure]. ", NeverRan: true, Failed: epoch.Add(-5 * time.Second)}
	first := only(t, answering(New(Options{}), append(sources(sc, "kube"), sc.sig("kube", b))...))
	if !first.Time.Equal(b.Failed) {
		t.Errorf("at %s, want %s", first.Time, b.Failed)
	}
	for name, again := range map[string]signal.PodSeen{
		"as it was":    b,
		"with more":    func() signal.PodSeen { b := b; b.Message += "(more)"; return b }(),
		"as old news":  func() signal.PodSeen { b := b; b.NeverRan = false; return b }(),
		"by its name":  {Pod: shopPod, Phase: "Failed", NeverRan: true},
		"it went away": {Pod: death.Pod{Namespace: "shop", Name: "other", UID: "other"}, Phase: "Running"},
	} {
		q := New(Options{})
		q.Restore(epoch.Add(time.Minute), []death.Death{first})
		s := sc.sig("kube", again)
		s.Recovered, s.Time, s.Observed = true, epoch.Add(time.Minute), epoch.Add(time.Minute)
		for _, d := range answering(q, s) {
			if d.ID != first.ID || d.Subject != death.SubjectPod || d.Cause != first.Cause || !d.Time.Equal(first.Time) {
				t.Errorf("%s: got:\n%swas:\n%s", name, sketch([]death.Death{d}), sketch([]death.Death{first}))
			}
		}
	}
}
