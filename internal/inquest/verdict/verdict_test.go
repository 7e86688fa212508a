// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
)

var update = flag.Bool("update", false, "rewrite docs/causes.md")

const docsPath = "../../../docs/causes.md"

func TestDocs_AreTheTables(t *testing.T) {
	if *update {
		if err := os.WriteFile(docsPath, []byte(Docs()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(docsPath)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Docs(), string(have)); diff != "" {
		t.Errorf("docs/causes.md is not what the tables say; make generate (-want +got):\n%s", diff)
	}
}

func ptr[T any](v T) *T { return &v }

const (
	mib       = int64(1 << 20)
	container = "/kubepods/burstable/pod6b3f0c1e-8d2a-4f57-9c3b-1a2b3c4d5e6f/3f1c9a5e7b2d4c6f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7"
	pod       = "/kubepods/burstable/pod6b3f0c1e-8d2a-4f57-9c3b-1a2b3c4d5e6f"
)

// inPod are the facts of a kill in a container of a pod.
func inPod(change func(*Facts)) Facts {
	f := Facts{
		Container: &death.Container{ID: "3f1c9a5e7b2d4c6f", Name: "cart", Runtime: "containerd", Cgroup: container,
			Pod: &death.Pod{Namespace: "shop", Name: "cart-1", QoSClass: "Burstable"}},
		PodCgroup: pod, TaskMemcg: container,
		OOM: true, Basis: BasisKernel, Constraint: ConstraintMemcg, LivesOn: true,
		Processes: []death.Process{{PID: 7, Comm: "java", Fate: death.FateVictim, AnonRSSBytes: ptr(38 * mib), Init: ptr(false)}},
	}
	change(&f)
	return f
}

func limit(path string, level cgpath.Level, n int64) func(*Facts) {
	return func(f *Facts) { f.OOMMemcg, f.OOMLevel, f.LimitBytes, f.UsageBytes = path, level, &n, &n }
}

func leaks(perSecond int64, d time.Duration) func(*Facts) {
	return func(f *Facts) { f.LeakPerSecond, f.LeakedFor = float64(perSecond), d }
}

func both(fs ...func(*Facts)) func(*Facts) {
	return func(f *Facts) {
		for _, g := range fs {
			g(f)
		}
	}
}

func TestJudge(t *testing.T) {
	atPod := limit(pod, cgpath.Pod, 40*mib)
	for _, tc := range []struct {
		name       string
		facts      Facts
		rule       string
		confidence death.Confidence
		says       string
	}{
		{"own limit", inPod(limit(container, cgpath.Container, 40*mib)), "container-limit", death.Certain,
			"Container cart (containerd 3f1c9a5e7b2d, Burstable pod shop/cart-1) reached its memory limit of 40 MiB: the kernel killed java (pid 7, holding 38 MiB); the container lives on."},
		{"own limit, inferred", inPod(both(limit(container, cgpath.Container, 40*mib), func(f *Facts) { f.Basis = BasisInferred })),
			"container-limit", death.Probable, "40 MiB"},
		{"first process", inPod(both(limit(container, cgpath.Container, 40*mib), func(f *Facts) { f.Ended = true; f.Processes[0].Init = ptr(true) })),
			"container-limit", death.Certain, "killed its first process java (pid 7, holding 38 MiB); the container ended."},
		{"another container's limit above", inPod(limit("/docker/a7e6d5c4b3a291807f6e5d4c3b2a19080f7e6d5c4b3a291807f6e5d4c3b2a190", cgpath.Container, 40*mib)),
			"ancestor-limit", death.Certain, "reached its memory limit of 40 MiB: the kernel killed java (pid 7, holding 38 MiB) of container cart (containerd 3f1c9a5e7b2d, Burstable pod shop/cart-1); the container lives on."},
		{"first process, the node's limit", inPod(both(limit("/kubepods", cgpath.Kubepods, 400*mib), func(f *Facts) { f.Ended = true; f.Processes[0].Init = ptr(true) })),
			"kubepods-limit", death.Certain, ": the kernel killed the first process java (pid 7, holding 38 MiB) of container cart (containerd 3f1c9a5e7b2d, Burstable pod shop/cart-1); the container ended."},
		{"pod, limits equal, filled", inPod(both(atPod, func(f *Facts) { f.ContainerLimit, f.ContainerUsage = ptr(40*mib), ptr(39*mib) })),
			"pod-limit-is-container-limit", death.Certain, "which the kernel accounts at its pod"},
		{"pod, limits equal, usage unknown", inPod(both(atPod, func(f *Facts) { f.ContainerLimit = ptr(40 * mib) })),
			"pod-limit-is-container-limit", death.Certain, "reached its memory limit of 40 MiB"},
		{"pod, limits equal, not filled", inPod(both(atPod, func(f *Facts) { f.ContainerLimit, f.ContainerUsage = ptr(40*mib), ptr(9*mib) })),
			"pod-limit", death.Certain, "the container held 9 MiB of its own 40 MiB"},
		{"pod, container lower", inPod(both(atPod, func(f *Facts) { f.ContainerLimit = ptr(30 * mib) })),
			"pod-limit", death.Certain, "the container may have 30 MiB"},
		{"pod, container unlimited", inPod(both(atPod, func(f *Facts) { f.ContainerUnlimited = true })),
			"pod-limit", death.Certain, "has none of its own"},
		{"pod, dead held all of it", inPod(atPod), "pod-filled-by-container", death.Probable, "accounts at its pod"},
		{"pod, nothing else known", inPod(both(atPod, func(f *Facts) { f.Processes[0].AnonRSSBytes = ptr(2 * mib) })),
			"pod-limit-alone", death.Possible, "reached the pod's memory limit of 40 MiB"},
		{"all pods", inPod(limit("/kubepods", cgpath.Kubepods, 400*mib)), "kubepods-limit", death.Certain, "All pods together reached the node's limit for pods of 400 MiB"},
		{"QoS class", inPod(limit("/kubepods/burstable", cgpath.QoS, 400*mib)), "kubepods-limit", death.Certain, "one QoS class"},
		{"inside", inPod(limit(container+"/app", cgpath.Inside, 10*mib)), "limit-inside-container", death.Certain, "A group inside container cart"},
		{"node", inPod(func(f *Facts) { f.Constraint = ConstraintNone }), "node", death.Certain, "The machine ran out of memory: the kernel killed java (pid 7, holding 38 MiB) of container cart ("},
		{"sysrq", inPod(func(f *Facts) { f.Constraint, f.Manual = ConstraintNone, true }), "sysrq", death.Certain, "by hand (sysrq f)"},
		{"cpuset", inPod(func(f *Facts) { f.Constraint = ConstraintCpuset }), "cpuset", death.Certain, "NUMA nodes"},
		{"policy", inPod(func(f *Facts) { f.Constraint = ConstraintMemoryPolicy }), "cpuset", death.Certain, "NUMA nodes"},
		{"no report", inPod(func(f *Facts) { f.Basis, f.Constraint, f.SaidMemcg = BasisNone, "", true }), "limit-not-named", death.Possible, "the kernel's report is missing"},
		{"global line alone", inPod(func(f *Facts) { f.Basis, f.Constraint, f.SaidGlobal = BasisNone, "", true }), "node-line-alone", death.Probable, "The machine ran out of memory"},
		{"counter alone", inPod(func(f *Facts) {
			f.Basis, f.Constraint, f.CountedOnly = BasisNone, "", true
			f.Processes = []death.Process{{Fate: death.FateVictim}}
		}), "limit-not-named", death.Possible, "the kernel killed a process"},
		{"unit", Facts{OOM: true, Basis: BasisKernel, Unit: "nginx.service", TaskMemcg: "/system.slice/nginx.service",
			OOMMemcg: "/system.slice/nginx.service", OOMLevel: cgpath.Unit}, "ancestor-limit", death.Certain, "/system.slice/nginx.service reached its memory limit"},
		{"outside, not named", Facts{OOM: true, TaskMemcg: "/batch"}, "limit-not-named-outside", death.Possible, "Cgroup /batch ran out of memory"},
		{"nothing known", Facts{OOM: true}, "oom-not-placed", death.Possible, "OOM killer ran"},
		{"killed", Facts{Container: &death.Container{ID: "3f1c9a5e7b2d4c6f"}, Killer: &death.Killer{PID: 9, Comm: "bash", UID: ptr(int64(1000)), Unit: "session-3.scope"},
			Processes: []death.Process{{PID: 7, Comm: "app", Fate: death.FateSignalled}}}, "killed", death.Certain,
			"bash (pid 9, uid 1000, in unit session-3.scope) sent SIGKILL to the first process of container 3f1c9a5e7b2d, app (pid 7); it was not the OOM killer."},
		{"runtime", Facts{Killer: &death.Killer{PID: 9, Comm: "runc"}, KillerIsRuntime: true}, "killed-by-runtime", death.Possible, "it acted for somebody"},
		{"memory and swap together", inPod(both(limit(container, cgpath.Container, 40*mib), func(f *Facts) { f.UsageBytes, f.MemswLimitBytes = ptr(20*mib), ptr(48*mib) })),
			"container-limit", death.Certain, "limit of 48 MiB for memory and swap together (it held 20 MiB of memory, which may have 40 MiB)"},
		{"a process of the pod itself", Facts{OOM: true, Basis: BasisKernel, Constraint: ConstraintMemcg, PodCgroup: pod, TaskMemcg: pod, OOMMemcg: pod, OOMLevel: cgpath.Pod,
			LimitBytes: ptr(40 * mib), Processes: []death.Process{{Comm: "p", Fate: death.FateVictim, AnonRSSBytes: ptr(39 * mib)}}}, "pod-limit-alone", death.Possible, "cgroup " + pod},
		{"nothing", Facts{}, "unknown", death.Possible, "nothing that was seen says why"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := Judge(tc.facts)
			if v.Rule != tc.rule || v.Confidence != tc.confidence {
				t.Errorf("rule %s %s, want %s %s", v.Rule, v.Confidence, tc.rule, tc.confidence)
			}
			if !strings.Contains(v.Summary, tc.says) {
				t.Errorf("summary %q does not say %q", v.Summary, tc.says)
			}
		})
	}
}

// TestRules_AreTold: each rule is reached by TestJudge's situations or is
// known to the docs, has a cause of the table, and an id of its own.
func TestRules_AreTold(t *testing.T) {
	known := map[death.Cause]bool{}
	for _, c := range death.Causes() {
		known[c.Cause] = true
	}
	seen := map[string]bool{}
	for _, r := range Rules() {
		if !known[r.Cause] {
			t.Errorf("rule %s: cause %q is not in death.Causes", r.ID, r.Cause)
		}
		if seen[r.ID] || r.Meaning == "" || r.Needs == "" {
			t.Errorf("rule %q: id repeated, or no meaning or needs", r.ID)
		}
		seen[r.ID] = true
	}
}

func TestSummary_HostileNamesAreEscaped(t *testing.T) {
	f := inPod(limit(container, cgpath.Container, 40*mib))
	f.Processes[0].Comm = "a\x1b[2J\n\xff"
	f.Container.Name = "web\u202e1"
	if s := Judge(f).Summary; strings.ContainsAny(s, "\x1b\n\u202e") || !strings.Contains(s, `a\x1b[2J\x0a\xff`) {
		t.Errorf("summary %q", s)
	}
}

// TestAdvice_NamesTheNumbers: advice has the numbers of the case.
func TestAdvice_NamesTheNumbers(t *testing.T) {
	big := []death.Task{{TGID: 99, RSSPages: 5000, Name: "hog"}, {TGID: 7, RSSPages: 10, Name: "java"}}
	for _, tc := range []struct {
		name  string
		facts Facts
		says  string
	}{
		{"limit", inPod(limit(container, cgpath.Container, 40*mib)), "40 MiB; 50 MiB would leave a quarter"},
		{"what grew", inPod(limit(container, cgpath.Container, 40*mib)), "what grew in java, which held 38 MiB"},
		{"a heap setting", inPod(limit(container, cgpath.Container, 96*mib)), "below 72 MiB, three quarters of the limit"},
		{"leak", inPod(both(limit(container, cgpath.Container, 96*mib), leaks(mib, 90*time.Second))),
			"grew steadily by 1 MiB/s over 90 s: look for a leak. A limit of 120 MiB instead of 96 MiB would last about 24 s longer.\nLook at what grew in java"},
		{"slow leak", inPod(both(limit(container, cgpath.Container, 96*mib), leaks(512, 3*time.Hour))), "by 512 B/s over 3 h: look for a leak. A limit of 120 MiB instead of 96 MiB would last about 14 h longer."},
		{"invisible", inPod(limit(container, cgpath.Container, 40*mib)), "alert on coroner_oom_kills_total"},
		{"limit not known", inPod(func(f *Facts) { f.Basis, f.Constraint = BasisNone, ""; f.Processes = nil }), "raise the container's memory limit."},
		{"pod", inPod(both(limit(pod, cgpath.Pod, 400*mib), func(f *Facts) { f.Processes[0].AnonRSSBytes = ptr(mib) })), "In a pod of one container"},
		{"all pods", inPod(both(limit("/kubepods", cgpath.Kubepods, 400*mib), func(f *Facts) { f.Tasks = big })), "hog (pid 99, 5000 pages resident)"},
		{"ancestor", inPod(both(limit("/batch.slice", cgpath.Slice, 40*mib), func(f *Facts) { f.Tasks = big })), "Raise the limit at /batch.slice"},
		{"node", inPod(func(f *Facts) { f.Constraint, f.Tasks = ConstraintNone, big }), "hog"},
		{"the largest is the victim", inPod(func(f *Facts) { f.Constraint, f.Tasks = ConstraintNone, big[1:] }), "highest oom_score"},
		{"inside", inPod(limit(container+"/app", cgpath.Inside, 10*mib)), container + "/app"},
		{"cpuset", inPod(func(f *Facts) { f.Constraint = ConstraintCpuset }), "numastat"},
		{"sysrq", inPod(func(f *Facts) { f.Constraint, f.Manual = ConstraintNone, true }), "kernel.sysrq"},
		{"outside", Facts{OOM: true, TaskMemcg: "/batch"}, "on the way up from /batch"},
		{"not placed", Facts{OOM: true}, "coroner doctor"},
		{"killed", Facts{Killer: &death.Killer{Comm: "bash"}}, "the owner of bash"},
		{"runtime", Facts{Killer: &death.Killer{Comm: "runc"}, KillerIsRuntime: true}, "the engine's events"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if all := strings.Join(Judge(tc.facts).Advice, "\n"); !strings.Contains(all, tc.says) {
				t.Errorf("advice does not say %q:\n%s", tc.says, all)
			}
		})
	}
}

// TestSummary_SaysWhoDied: victims, groups, sharers, bystanders, who asked.
func TestSummary_SaysWhoDied(t *testing.T) {
	dead := func(fates ...death.Fate) func(*Facts) {
		return func(f *Facts) {
			limit(container, cgpath.Container, 40*mib)(f)
			f.Processes = nil
			for i, fate := range fates {
				f.Processes = append(f.Processes, death.Process{PID: i + 1, Comm: "p", Fate: fate})
			}
		}
	}
	v, g, s, c := death.FateVictim, death.FateGroup, death.FateSharer, death.FateCollateral
	for _, tc := range []struct {
		name string
		f    Facts
		says string
	}{
		{"two victims", inPod(dead(v, v)), "killed p (pid 1) and then p (pid 2)"},
		{"many victims", inPod(dead(v, v, v, v)), "and then 3 more"},
		{"group", inPod(dead(v, g, g)), "the other 2 processes of its group"},
		{"another container's group", inPod(dead(g)), "killed p (pid 1) with a group of other containers"},
		{"group of one", inPod(both(dead(v), func(f *Facts) { f.Group = true })), "as a group"},
		{"sharer", inPod(dead(v, s)), "unseen 1 process that shared its memory"},
		{"bystanders", inPod(dead(v, c, c)), "with its pid namespace 2 processes"},
		{"nothing known", inPod(dead()), "the kernel killed a process"},
		{"asker elsewhere", inPod(both(dead(v), func(f *Facts) { f.Trigger = &death.Trigger{PID: 9, Comm: "sidecar", Cgroup: "/x"} })), "asked for by sidecar (pid 9) in /x."},
		{"asker in the same cgroup", inPod(both(dead(v), func(f *Facts) { f.Trigger = &death.Trigger{PID: 9, Comm: "other"} })), "asked for by other (pid 9)."},
		{"pod by name alone", inPod(both(dead(v), func(f *Facts) { f.Container.Pod.Namespace = "" })), "Burstable pod cart-1)"},
		{"pod by uid, container by id", inPod(both(dead(v), func(f *Facts) { f.Container.Name, f.Container.Pod = "", &death.Pod{UID: "u1"} })), "Container 3f1c9a5e7b2d (containerd, pod u1)"},
		{"usage below the limit", inPod(both(dead(v), func(f *Facts) { f.UsageBytes = ptr(30 * mib) })), "limit of 40 MiB (usage 30 MiB)"},
		{"QoS group", inPod(both(dead(v), limit("/kubepods/burstable", cgpath.QoS, 3<<30))), "limit of 3 GiB at /kubepods/burstable"},
		{"asker is the victim", inPod(both(dead(v), func(f *Facts) { f.Trigger = &death.Trigger{PID: 1, Comm: "p"} })), "killed p (pid 1); the container lives on."},
		{"asker is a thread of it", inPod(both(dead(v), func(f *Facts) { f.Trigger = &death.Trigger{PID: 8, Comm: "p"} })), "killed p (pid 1)"},
		{"killer without a name", Facts{Killer: &death.Killer{PID: 9, Cgroup: "/x"}, TaskMemcg: "/y"}, "A process (pid 9, in cgroup /x) sent SIGKILL to the first process of cgroup /y"},
		{"killer in a container", Facts{Killer: &death.Killer{PID: 9, Comm: "sh", Container: &death.Container{Name: "ops"}}}, "sh (pid 9, in container ops)"},
		{"unit", Facts{OOM: true, Unit: "a.service", TaskMemcg: "/system.slice/a.service"}, "Unit a.service ran out of memory"},
		{"root", Facts{OOM: true, Basis: BasisKernel, Constraint: ConstraintNone, TaskMemcg: "/"}, "The machine ran out of memory"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Judge(tc.f).Summary; !strings.Contains(got, tc.says) {
				t.Errorf("%q does not say %q", got, tc.says)
			}
		})
	}
}

// TestSummary_ShortTimes: what took less than a tenth of a second is told in
// milliseconds.
func TestSummary_ShortTimes(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for d, says := range map[time.Duration]string{
		-time.Second: "after less than 1 ms.", 900 * time.Microsecond: "after less than 1 ms.", 8 * time.Millisecond: "after 8 ms.",
		100 * time.Millisecond: "after 0.1 s.", 4 * time.Second: "after 4.0 s.", 90 * time.Second: "after 90 s.", 3 * time.Minute: "after 3m0s.",
	} {
		f := Facts{Exit: &death.Exit{Code: ptr(0)}, Stop: &Stop{Engine: death.SourceDocker, At: at, End: at.Add(d), Confirmed: true}}
		if s := Judge(f).Summary; !strings.HasSuffix(s, says) {
			t.Errorf("%v: %q", d, s)
		}
	}
}
