// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/history"
)

// noon is the present of the tests.
var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func ptr[T any](v T) *T { return &v }

const mib = int64(1) << 20

// keeper is a history as the pages want it.
type keeper struct{ *history.Store }

func (k keeper) List(ctx context.Context, q api.Query) (Page, error) {
	p, err := k.Store.List(ctx, history.Query(q))
	return Page(p), err
}

func (k keeper) Get(ctx context.Context, id string) (death.Death, error) {
	d, err := k.Store.Get(ctx, id)
	if errors.Is(err, history.ErrNotFound) {
		err = api.ErrNotFound
	}
	return d, err
}

func (k keeper) Since(ctx context.Context, q api.Query, after int64) ([]Entry, int64, error) {
	kept, upTo, err := k.Store.Since(ctx, history.Query(q), after)
	entries := make([]Entry, len(kept))
	for i, e := range kept {
		entries[i] = Entry(e)
	}
	return entries, upTo, err
}

// site is a handler on a real history.
type site struct {
	http.Handler
	t      testing.TB
	store  keeper
	broker *Broker
}

func newSite(t testing.TB, change func(*Options)) *site {
	t.Helper()
	s, err := history.Open(context.Background(), filepath.Join(t.TempDir(), "history.db"), history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	st := &site{t: t, store: keeper{s}, broker: NewBroker()}
	o := Options{
		Store: st.store, Broker: st.broker, Version: "1.2.3", Now: func() time.Time { return noon },
		Status: func(context.Context) api.Status { return sampleStatus() },
		Ready:  func() (bool, []api.SourceStatus) { return true, sampleStatus().Sources },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("metrics here\n"))
		}),
	}
	if change != nil {
		change(&o)
	}
	if st.Handler, err = New(o); err != nil {
		t.Fatal(err)
	}
	return st
}

func (s *site) put(deaths ...death.Death) {
	s.t.Helper()
	if _, err := s.store.Put(context.Background(), deaths, nil); err != nil {
		s.t.Fatal(err)
	}
	s.broker.Publish()
}

func (s *site) do(method, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w
}

func (s *site) get(target string) *httptest.ResponseRecorder { return s.do(http.MethodGet, target) }

func sampleStatus() api.Status {
	return api.Status{
		Version: "1.2.3", Node: "worker-3.fra1", Kernel: "6.12.43", Started: noon.Add(-50 * time.Hour),
		Sources: []api.SourceStatus{
			{Name: death.SourceTracepoint, Enabled: true, Up: true, Mode: "bpf", Since: noon.Add(-50 * time.Hour), Events: 4711},
			{Name: death.SourceKmsg, Enabled: true, Up: true, Since: noon.Add(-50 * time.Hour), Events: 120, Lost: 3},
			{Name: death.SourceCgroup, Enabled: true, Up: false, Reason: "memory.events: permission denied"},
			{Name: death.SourceDocker, Enabled: false},
		},
		History:      api.HistoryStatus{Path: "/var/lib/coroner/history.db", Deaths: 1284, Bytes: 9 << 20, Oldest: ptr(noon.Add(-700 * time.Hour))},
		NodeOOMKills: ptr(uint64(1290)), UnattributedOOMKills: ptr(uint64(0)),
	}
}

// hostile is what somebody may name a process or a cgroup.
const hostile = "a\x1b[31m\x00\xff\u202egnp.exe<script>alert(1)</script>\"'`${}\n,pid=1"

// sampleDeaths are of every kind that this version tells apart.
func sampleDeaths() []death.Death {
	id := func(c string) string { return strings.Repeat(c, 64/len(c)) }
	leak := death.Death{
		ID: "oom-3f2a9c-4211", Revision: 3, Time: noon.Add(-3*time.Minute - 200*time.Millisecond), Node: "worker-3.fra1",
		Subject: death.SubjectContainer, Cause: death.OOMContainerLimit, Confidence: death.Certain, Rule: "memcg-container",
		Summary: "Container checkout-api of pod shop/checkout-7d9f4c5b6-x2x8k was killed: its memory limit of 256 MiB was reached (used 256 MiB); the process java held 243 MiB.",
		Container: &death.Container{
			ID: id("3f2a9c41"), Name: "checkout-api", Runtime: "containerd", Image: "registry.example.com/shop/checkout:2.14.0", RestartCount: ptr(4),
			Cgroup: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0f3c1a52_8f7e_4a87_9b11_6f1f3c6f7a10.slice/cri-containerd-" + id("3f2a9c41") + ".scope",
			Pod: &death.Pod{Namespace: "shop", Name: "checkout-7d9f4c5b6-x2x8k", UID: "0f3c1a52-8f7e-4a87-9b11-6f1f3c6f7a10", QoSClass: "Burstable",
				Owner: &death.Owner{Kind: "ReplicaSet", Name: "checkout-7d9f4c5b6"}},
			Labels: map[string]string{"app": "checkout", "version": "2.14.0"},
		},
		Processes: []death.Process{{PID: 41211, Comm: "java", UID: ptr(int64(1000)), TotalVMBytes: ptr(4213 * mib), AnonRSSBytes: ptr(243*mib + 81920), FileRSSBytes: ptr(int64(12 << 10)),
			ShmemRSSBytes: ptr(int64(0)), PgtablesBytes: ptr(int64(1376 << 10)), OOMScoreAdj: ptr(984), Init: ptr(true), Fate: death.FateVictim}},
		OOM: &death.OOM{Constraint: "CONSTRAINT_MEMCG", OOMMemcg: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0f3c1a52_8f7e_4a87_9b11_6f1f3c6f7a10.slice",
			TaskMemcg: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0f3c1a52_8f7e_4a87_9b11_6f1f3c6f7a10.slice/cri-containerd-" + id("3f2a9c41") + ".scope",
			Trigger:   &death.Trigger{PID: 41219, Comm: "C2 CompilerThre"}, UsageBytes: ptr(256 * mib), LimitBytes: ptr(256 * mib), SwapUsageBytes: ptr(int64(0)),
			MemoryStat: map[string]int64{"anon": 236 * mib, "file": 9*mib + 4096, "shmem": 6 * mib, "kernel": 9 * mib, "kernel_stack": 1835008, "pagetables": 1409024, "slab": 5 * mib, "sock": 4096, "inactive_anon": 120 * mib, "active_anon": 122 * mib, "swapcached": 0},
			Order:      ptr(0), GFPMask: "0xcc0(GFP_KERNEL)", Events: 1, Containers: 1,
			Tasks: []death.Task{
				{PID: 41180, UID: 65535, TGID: 41180, TotalVMPages: 256, RSSPages: 1, PgtablesBytes: ptr(int64(28672)), OOMScoreAdj: ptr(-998), Name: "pause"},
				{PID: 41211, UID: 1000, TGID: 41211, TotalVMPages: 1078528, RSSPages: 62231, RSSAnonPages: ptr(int64(62228)), RSSFilePages: ptr(int64(3)), PgtablesBytes: ptr(int64(1409024)), SwapentsPages: ptr(int64(0)), OOMScoreAdj: ptr(984), Name: "java"},
				{PID: 41302, UID: 1000, TGID: 41302, TotalVMPages: 1120, RSSPages: 211, PgtablesBytes: ptr(int64(49152)), OOMScoreAdj: ptr(984), Name: "sh"},
			}},
		Exit:   &death.Exit{Code: ptr(137), ReportedReason: "OOMKilled", Agrees: ptr(true)},
		Memory: &death.Memory{LimitBytes: ptr(256 * mib), PeakBytes: ptr(256 * mib), Pattern: "leak", Samples: growing(noon.Add(-3*time.Minute), 60*mib, 255*mib)},
		Evidence: []death.Evidence{
			{Time: noon.Add(-3*time.Minute - 199*time.Millisecond), Source: death.SourceKmsg, Text: "Memory cgroup out of memory: Killed process 41211 (java) total-vm:4314112kB, anon-rss:248912kB, file-rss:12kB, shmem-rss:0kB, UID:1000 pgtables:1376kB oom_score_adj:984"},
			{Time: noon.Add(-3*time.Minute - 200*time.Millisecond), Source: death.SourceTracepoint, Text: "The kernel chose process 41211 (java) as the victim; the task C2 CompilerThre (41219) had asked for memory."},
			{Time: noon.Add(-3*time.Minute - 150*time.Millisecond), Source: death.SourceCgroup, Text: "memory.events.local of the pod: oom +1; of the container: oom_kill +1. Pod and container have the same limit, so it is the container's."},
		},
		Advice: []string{"The heap alone is 91 % of the limit: set -XX:MaxRAMPercentage to 75 or lower, or raise the limit to about 340 MiB.", "Look at the four restarts before this one: memory grew by the same rate each time, which speaks for a leak."},
		Repeat: &death.Repeat{Count: 5, First: noon.Add(-26 * time.Hour), Last: noon.Add(-3 * time.Minute), PerHour: ptr(0.19)},
	}
	leak.ObservedAt = leak.Time.Add(1800 * time.Microsecond)
	node := death.Death{
		ID: "oom-node-993", Revision: 1, Time: noon.Add(-2 * time.Hour), ObservedAt: noon.Add(-2 * time.Hour).Add(4 * time.Millisecond), Node: "worker-3.fra1",
		Subject: death.SubjectContainer, Cause: death.OOMNode, Confidence: death.Certain,
		Summary:   "Container redis of pod cache/redis-0 was killed because the machine itself ran out of memory; it used 61 MiB, far below its limit.",
		Container: &death.Container{ID: id("b81f"), Name: "redis", Runtime: "containerd", Pod: &death.Pod{Namespace: "cache", Name: "redis-0", QoSClass: "BestEffort"}},
		Processes: []death.Process{{PID: 993, Comm: "redis-server", Fate: death.FateVictim, AnonRSSBytes: ptr(61 * mib), OOMScoreAdj: ptr(1000)}},
		OOM:       &death.OOM{Constraint: "CONSTRAINT_NONE"},
		Evidence:  []death.Evidence{{Time: noon.Add(-2 * time.Hour), Source: death.SourceKmsg, Text: "Out of memory: Killed process 993 (redis-server)"}},
	}
	worker := death.Death{
		ID: "oom-worker-8812", Revision: 1, Time: noon.Add(-41 * time.Minute), ObservedAt: noon.Add(-41 * time.Minute), Node: "worker-3.fra1", Subject: death.SubjectProcess,
		Cause: death.OOMPodLimit, Confidence: death.Probable, Summary: "The process fluent-bit of container forwarder (pod logging/forwarder-q8zzp) was killed: the pod's limit of 128 MiB was reached. The container lives on.",
		Container: &death.Container{ID: id("77de"), Name: "forwarder", Runtime: "cri-o", Pod: &death.Pod{Namespace: "logging", Name: "forwarder-q8zzp"}},
		Processes: []death.Process{{PID: 8812, Comm: "fluent-bit", Fate: death.FateVictim}}, OOM: &death.OOM{UsageBytes: ptr(128 * mib), LimitBytes: ptr(128 * mib)},
		Repeat: &death.Repeat{Count: 14, First: noon.Add(-51 * time.Minute), Last: noon.Add(-41 * time.Minute)},
	}
	killed := death.Death{
		ID: "kill-5150", Revision: 2, Time: noon.Add(-20 * time.Hour), ObservedAt: noon.Add(-20 * time.Hour), Node: "worker-3.fra1", Subject: death.SubjectContainer, Cause: death.Killed,
		Confidence: death.Certain, Summary: "Container batch (9ac04e11d2f3) was killed with SIGKILL by bash (pid 5150, uid 0) in the unit ssh.service.",
		Container: &death.Container{ID: id("9ac04e11"), Runtime: "docker"}, Processes: []death.Process{{PID: 4999, Comm: "python3", Init: ptr(true), Fate: death.FateSignalled}},
		Killer: &death.Killer{PID: 5150, Comm: "bash", UID: ptr(int64(0)), Signal: 9, Unit: "ssh.service", Cgroup: "/system.slice/ssh.service"},
	}
	unit := death.Death{
		ID: "oom-unit-1", Revision: 1, Time: noon.Add(-21 * time.Hour), ObservedAt: noon.Add(-21 * time.Hour), Node: "worker-3.fra1", Subject: death.SubjectProcess, Cause: death.OOMAncestorLimit, Recovered: true,
		Confidence: death.Certain, Unit: "postgresql@15-main.service", Summary: "Three processes of postgresql@15-main.service were killed: the unit's limit of 2.0 GiB was reached.",
		Processes: []death.Process{{PID: 70, Comm: "postgres", Fate: death.FateVictim}, {PID: 71, Comm: "postgres", Fate: death.FateGroup}, {PID: 72, Comm: "postgres", Fate: death.FateSharer}},
		OOM:       &death.OOM{GroupKill: true, Events: 1, UsageBytes: ptr(2048 * mib), LimitBytes: ptr(2048 * mib), MemoryStat: map[string]int64{"rss": 700 * mib, "cache": 1300 * mib, "shmem": 1200 * mib}},
	}
	return []death.Death{leak, worker, node, killed, unit, hostileDeath()}
}

// growing is a minute of samples up to then.
func growing(then time.Time, from, to int64) [][3]float64 {
	var out [][3]float64
	for i := range int64(13) {
		n := float64(from + (to-from)*i/12)
		out = append(out, [3]float64{float64(then.Unix() - 60 + 5*i), n, n})
	}
	return out
}

// hostileDeath has hostile text wherever text can be.
func hostileDeath() death.Death {
	c := &death.Container{ID: hostile, Name: hostile, Runtime: hostile, Image: hostile, Cgroup: "/" + hostile, Labels: map[string]string{hostile: hostile},
		Pod: &death.Pod{Namespace: hostile, Name: hostile, UID: hostile, QoSClass: hostile, Owner: &death.Owner{Kind: hostile, Name: hostile}}}
	return death.Death{
		ID: "hostile/../<b>?#", Revision: 2, Time: noon.Add(-9 * time.Minute), ObservedAt: noon.Add(-8 * time.Minute), Node: hostile,
		Subject: death.Subject(hostile), Cause: death.Cause(hostile), Confidence: death.Confidence(hostile), Rule: hostile,
		Summary: "Process " + hostile + " was killed.", Container: c, Unit: hostile,
		Processes: []death.Process{{PID: 1, Comm: hostile, Fate: death.Fate(hostile), Cgroup: hostile}},
		OOM: &death.OOM{Constraint: hostile, OOMMemcg: hostile, TaskMemcg: hostile, GFPMask: hostile, Trigger: &death.Trigger{PID: 2, Comm: hostile, Cgroup: hostile},
			MemoryStat: map[string]int64{hostile: 4096, "anon": 1 << 20}, Tasks: []death.Task{{PID: 1, Name: hostile}}},
		Exit:     &death.Exit{ReportedReason: hostile, Agrees: ptr(false)},
		Killer:   &death.Killer{PID: 3, Comm: hostile, Cgroup: hostile, Unit: hostile, Container: c},
		Memory:   &death.Memory{Pattern: hostile},
		Evidence: []death.Evidence{{Time: noon, Source: death.Source(hostile), Text: hostile}},
		Advice:   []string{hostile},
	}
}

// many are n deaths of one container, a minute apart.
func many(n int) []death.Death {
	deaths := make([]death.Death, n)
	for i := range deaths {
		deaths[i] = death.Death{ID: fmt.Sprintf("many-%04d", i), Revision: 1, Time: noon.Add(time.Duration(i-n) * time.Minute), Node: "n",
			Subject: death.SubjectContainer, Cause: death.OOMContainerLimit, Confidence: death.Certain, Summary: fmt.Sprintf("Number %d.", i),
			Container: &death.Container{Name: fmt.Sprintf("c%d", i%2)}}
	}
	return deaths
}
