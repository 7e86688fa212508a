// SPDX-License-Identifier: Apache-2.0

package nodemap

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
)

var update = flag.Bool("update", false, "rewrite the golden file")

const (
	mib = int64(1) << 20
	gib = int64(1) << 30
)

func group(path string, workingSet, cache int64) Group {
	return Group{Path: path, Is: cgpath.Parse(path), UsageBytes: workingSet + cache, WorkingSetBytes: workingSet, FileBytes: cache, HeldBytes: workingSet}
}

func limited(g Group, n int64) Group {
	g.LimitBytes = &n
	return g
}

// Pods of the sample node, by what they are for.
const (
	podWeb   = "11111111-29e1-478b-b365-4cb5dfc7d6fb"
	podBatch = "22222222-29e1-478b-b365-4cb5dfc7d6fb"
	podDB    = "33333333-29e1-478b-b365-4cb5dfc7d6fb"
	podDNS   = "44444444-29e1-478b-b365-4cb5dfc7d6fb"
	podCache = "55555555-29e1-478b-b365-4cb5dfc7d6fb"
)

// sample is a node of 64 GiB whose working set is over allocatable.
func sample() Input {
	id := strings.Repeat("0123456789abcdef", 4)
	web := "/kubepods/burstable/pod" + podWeb
	f := Facts{
		Time: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), Version: 2,
		MemInfo: host.MemInfo{
			"MemTotal": 64 * gib, "MemFree": gib, "MemAvailable": 5 * gib, "Buffers": 128 * mib, "Cached": 8 * gib, "Shmem": 256 * mib,
			"SReclaimable": gib, "AnonPages": 49 * gib, "SUnreclaim": 3 * gib, "PageTables": 512 * mib, "KernelStack": 64 * mib,
		},
		RootUsageBytes: new(58 * gib), InactiveFileBytes: new(gib),
		Groups: []Group{
			group("/system.slice/kubelet.service", 512*mib, 64*mib), group("/system.slice/backup.service", 6*gib, gib),
			limited(group("/system.slice/docker-"+id+".scope", 128*mib, 0), 256*mib),
		},
		Kubepods: new(limited(group("/kubepods", 42*gib, 2*gib), 54*gib)),
		Pods: []Group{
			group("/kubepods/pod"+podDB, 16*gib, gib), group("/kubepods/besteffort/pod"+podBatch, 9*gib, 0),
			group(web, 12*gib, gib), group("/kubepods/burstable/pod"+podDNS, 4*gib, 0), group("/kubepods/burstable/pod"+podCache, gib, 0),
		},
		Tasks: []Task{
			{PID: 1, TaskMemory: host.TaskMemory{Comm: "systemd", RSSBytes: 16 * mib}, Cgroup: "/init.scope"},
			{PID: 700, TaskMemory: host.TaskMemory{Comm: "kubelet", RSSBytes: 400 * mib, OOMScoreAdj: -999}, Cgroup: "/system.slice/kubelet.service"},
			{PID: 701, TaskMemory: host.TaskMemory{Comm: "sshd", RSSBytes: 8 * mib, OOMScoreAdj: -1000}, Cgroup: "/system.slice/ssh.service"},
			{PID: 702, TaskMemory: host.TaskMemory{Comm: "backup", RSSBytes: 6 * gib, PageTablesBytes: 12 * mib}, Cgroup: "/system.slice/backup.service"},
			{PID: 4711, TaskMemory: host.TaskMemory{Comm: "java", RSSBytes: 12 * gib, PageTablesBytes: 24 * mib, OOMScoreAdj: 875}, Cgroup: web + "/" + id},
			{PID: 4712, TaskMemory: host.TaskMemory{Comm: "batch", RSSBytes: 9 * gib, OOMScoreAdj: 1000}, Cgroup: "/kubepods/besteffort/pod" + podBatch},
			{PID: 4713, TaskMemory: host.TaskMemory{Comm: "postgres", RSSBytes: 16 * gib, OOMScoreAdj: -997}, Cgroup: "/kubepods/pod" + podDB},
		},
	}
	pod := func(uid, name, qos string, priority int32, request, limit int64) Pod {
		p := Pod{Pod: death.Pod{Namespace: "shop", Name: name, UID: uid, QoSClass: qos}, Priority: &priority, Told: true}
		c := Container{Name: "main"}
		if request > 0 {
			p.RequestBytes, c.RequestBytes = &request, &request
		}
		if limit > 0 {
			c.LimitBytes = &limit
		}
		p.Containers = []Container{c}
		return p
	}
	in := Input{Node: "worker-3", Facts: f, Pods: []Pod{
		pod(podWeb, "web-1", "Burstable", 0, 8*gib, 16*gib), pod(podBatch, "batch-x", "BestEffort", 0, 0, 0),
		pod(podDB, "db-0", "Guaranteed", 1000, 20*gib, 20*gib), pod(podDNS, "dns-7", "Burstable", systemCritical, gib, 8*gib),
		pod(podCache, "cache-0", "Burstable", -10, 512*mib, 24*gib),
	}}
	in.Pods[0].Containers[0] = Container{ID: id, Name: "app", Cgroup: web + "/" + id, RequestBytes: new(8 * gib), LimitBytes: new(16 * gib)}
	in.Containers = []Container{{ID: id, Name: "app"}}
	in.Kubernetes = &NodeFacts{CapacityBytes: new(64 * gib), AllocatableBytes: new(54*gib - 100*mib), Kubelet: &KubeletConfig{
		KubeReservedBytes: new(8 * gib), SystemReservedBytes: new(2 * gib), Hard: &Threshold{Setting: "100Mi", Bytes: 100 * mib},
	}}
	in.Before = SampleOf(f)
	in.Before.At = f.Time.Add(-Window)
	in.Before.Groups["/system.slice/backup.service"] -= 3 * gib
	in.Before.Kinds["units_working_set"] -= 3 * gib
	in.Before.Kinds["kubelet_available"] += 3 * gib
	return in
}

// TestBuild_Kubernetes compares the whole map of a node with a golden file,
// which the tests of the command and of the page show too.
func TestBuild_Kubernetes(t *testing.T) {
	m := Build(sample())
	got, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "kubernetes.json")
	if *update {
		if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
		t.Errorf("-want +got (-update rewrites it):\n%s", diff)
	}
	var order []string
	for _, p := range m.Pods {
		order = append(order, p.Name)
	}
	// cache-0 has the lowest priority of those over their request, then those of
	// priority 0 by how far they are over, then dns-7, which is critical; db-0
	// is below its request.
	if want := "cache-0 batch-x web-1 dns-7 db-0"; strings.Join(order, " ") != want {
		t.Errorf("the kubelet evicts %q, want %q", order, want)
	}
	if len(m.OOMOrder) != 5 || m.OOMOrder[0].Comm != "batch" || m.OOMOrder[1].Comm != "java" || m.OOMOrder[2].Comm != "backup" {
		t.Errorf("the kernel kills %+v", m.OOMOrder)
	}
	for _, c := range m.PodsOOMOrder {
		if !strings.HasPrefix(c.Cgroup, "/kubepods/") {
			t.Errorf("%s is no pod's, and dies at the pods' limit", c.Comm)
		}
	}
	var sum int64
	for _, kind := range []string{"pods_working_set", "containers_working_set", "units_working_set", "unaccounted", "reclaimable", "free"} {
		sum += m.Memory[kind].Bytes
	}
	if sum != 64*gib {
		t.Errorf("the parts add up to %d, want %d", sum, 64*gib)
	}
}

// TestBuild_Refused: without the kubelet's configuration what it would say is
// computed, and marked so.
func TestBuild_Refused(t *testing.T) {
	in := sample()
	in.Kubernetes.Kubelet, in.Kubernetes.KubeletWhy = nil, "forbidden"
	m := Build(in)
	for kind, want := range map[string]int64{"reserved": 10 * gib, "eviction_hard": 100 * mib} {
		if f := m.Memory[kind]; f.Bytes != want || !f.Computed {
			t.Errorf("%s: %+v, want %d, computed", kind, f, want)
		}
	}
	if !strings.Contains(strings.Join(m.Notes, "\n"), "forbidden") || len(m.Thresholds) != 1 || !m.Thresholds[0].Computed {
		t.Errorf("notes %q, thresholds %+v", m.Notes, m.Thresholds)
	}
	if strings.Contains(strings.Join(m.Advice, "\n"), "no soft eviction threshold") {
		t.Errorf("a soft threshold that nobody looked for is said to be missing: %q", m.Advice)
	}
	// Without the API the limit of all pods still tells what is reserved.
	in.Kubernetes = nil
	in.Pods = nil
	m = Build(in)
	if f := m.Memory["reserved"]; f.Bytes != 10*gib || !f.Computed {
		t.Errorf("reserved without the API: %+v", f)
	}
	if _, known := m.Memory["allocatable"]; known || m.Pods[0].EvictionRank != 0 || m.Pods[0].UID != podDB {
		t.Errorf("without the API: allocatable known %v, pods %+v", known, m.Pods)
	}
}

// TestBuild_HugePages: the Node object's allocatable memory lacks what is set
// aside for huge pages, the limit of all pods does not
// (pkg/kubelet/nodestatus/setters.go): that is no eviction threshold.
func TestBuild_HugePages(t *testing.T) {
	in := sample()
	in.Kubernetes.Kubelet = nil
	in.Facts.MemInfo["Hugetlb"] = 4 * gib
	in.Kubernetes.AllocatableBytes = new(*in.Kubernetes.AllocatableBytes - 4*gib)
	if f := Build(in).Memory["eviction_hard"]; f.Bytes != 100*mib {
		t.Errorf("eviction_hard %d, want %d", f.Bytes, 100*mib)
	}
	in.Facts.Kubepods.LimitBytes = nil
	if f := Build(in).Memory["reserved"]; f.Bytes != 10*gib+100*mib {
		t.Errorf("reserved %d, want %d", f.Bytes, 10*gib+100*mib)
	}
	in = sample()
	in.Facts.MemInfo["Hugetlb"] = 4 * gib
	in.Kubernetes.AllocatableBytes = nil
	without := sample()
	without.Kubernetes.AllocatableBytes = nil
	if is, was := Build(in).Memory["allocatable"].Bytes, Build(without).Memory["allocatable"].Bytes; is != was-4*gib {
		t.Errorf("allocatable %d, want %d less than %d", is, 4*gib, was)
	}
}

// TestBuild_Docker: on a host without Kubernetes there is nothing of it.
func TestBuild_Docker(t *testing.T) {
	in := sample()
	in.Facts.Kubepods, in.Facts.Pods, in.Kubernetes, in.Pods = nil, nil, nil, nil
	m := Build(in)
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"kubectl", "kubelet_", "eviction", "pods_", "allocatable", "reserved"} {
		if strings.Contains(string(body), `"`+word) {
			t.Errorf("%q in the map of a plain host: %s", word, body)
		}
	}
	if len(m.Groups) == 0 || len(m.Tools) == 0 || len(m.OOMOrder) == 0 || len(m.Gives) != 1 {
		t.Errorf("got %+v", m)
	}
}

// The figures of /proc/meminfo of a machine with Linux 6.18 and two CPUs,
// before and after the kernel's trace buffer of an instance was made 64 MiB
// for each CPU. No cgroup is charged for it.
const (
	meminfoBefore = "MemTotal: 24731700 kB\nMemFree: 17694932 kB\nMemAvailable: 23035708 kB\nSUnreclaim: 227960 kB\n"
	meminfoAfter  = "MemTotal: 24731700 kB\nMemFree: 17503464 kB\nMemAvailable: 22851536 kB\nSUnreclaim: 230324 kB\n"
)

// TestBuild_KernelGrows: memory that no cgroup has is told as that (S24).
func TestBuild_KernelGrows(t *testing.T) {
	facts := func(text string, at time.Duration) Facts {
		m, err := host.ParseMemInfo(text)
		if err != nil {
			t.Fatal(err)
		}
		return Facts{Time: time.Unix(0, 0).Add(at), Version: 1, MemInfo: m, Groups: []Group{group("/system.slice/a.service", gib, 0)}}
	}
	m := Build(Input{Facts: facts(meminfoAfter, time.Minute), Before: SampleOf(facts(meminfoBefore, 0))})
	grew := m.Memory["unaccounted"].GrowthBytes
	if want := int64(17694932-17503464) << 10; grew == nil || *grew != want {
		t.Errorf("unaccounted: %+v, want growth of %d", m.Memory["unaccounted"], want)
	}
	if len(m.Advice) != 1 || !strings.Contains(m.Advice[0], "Memory that no cgroup has grew by 187 MiB in 1m0s") {
		t.Errorf("advice: %q", m.Advice)
	}
	for _, g := range m.Groups {
		if *g.GrowthBytes != 0 {
			t.Errorf("%s is blamed: %+v", g.Name, g)
		}
	}
}

// TestBuild_IsTheKubeletsFigure: what cAdvisor read of the root cgroup of a
// node (Kubernetes 1.34.4, cgroup v1), and what the kubelet made of it in the
// same moment (/stats/summary): kubectl top node shows its workingSetBytes.
func TestBuild_IsTheKubeletsFigure(t *testing.T) {
	const workingSet, available = 9951006720, 15325507584
	f := Facts{Time: time.Unix(0, 0), Version: 1, MemInfo: host.MemInfo{"MemTotal": 24684096 << 10, "MemFree": gib},
		RootUsageBytes: new(int64(20171550720)), InactiveFileBytes: new(int64(10220544000)), Kubepods: new(group("/kubepods", 532480, 0))}
	m := Build(Input{Facts: f, Kubernetes: &NodeFacts{AllocatableBytes: new(int64(8 << 30))}})
	if got := m.Memory["kubelet_working_set"].Bytes; got != workingSet {
		t.Errorf("working set %d, the kubelet said %d", got, workingSet)
	}
	if got := m.Memory["kubelet_available"].Bytes; got != available {
		t.Errorf("available %d, the kubelet said %d", got, available)
	}
	top := m.Tools[0]
	if top.Tool != "kubectl top node" || top.Bytes != workingSet || *top.Percent != 115.8 || !strings.Contains(top.Why, "over 100 %") {
		t.Errorf("with 8 GiB allocatable: %+v", top)
	}
}

func TestRank_ByTheKubeletsRules(t *testing.T) {
	pod := func(name string, priority int32, over int64) api.NodePod {
		return api.NodePod{Pod: death.Pod{Name: name}, Priority: &priority, OverRequestBytes: &over, Cgroup: name}
	}
	pods := []api.NodePod{pod("below, low", -5, -1), pod("over, high", 100, 1), pod("over, more", 0, 20), pod("over", 0, 10), pod("exactly", -9, 0), pod("below", 0, -30)}
	rank(pods)
	var got []string
	for i, p := range pods {
		got = append(got, p.Name)
		if p.EvictionRank != i+1 {
			t.Errorf("%s: rank %d, want %d", p.Name, p.EvictionRank, i+1)
		}
	}
	if want := []string{"over, more", "over", "over, high", "exactly", "below, low", "below"}; !cmp.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTrend(t *testing.T) {
	var tr Trend
	if !tr.Oldest().At.IsZero() {
		t.Error("an empty trend has a sample")
	}
	start := time.Unix(1_000_000, 0)
	for i := range 1000 {
		tr.Add(Sample{At: start.Add(time.Duration(i) * Interval)})
	}
	last := start.Add(999 * Interval)
	if got := last.Sub(tr.Oldest().At); got != Window || len(tr.samples) != int(Window/Interval)+1 {
		t.Errorf("the oldest of %d samples is %s old, want %s", len(tr.samples), got, Window)
	}
}

// TestBuild_WaitsBeforeItAdvises: what was taken in the first seconds after a
// start, and what is little on a node of this size, is shown and not concluded
// from (S24).
func TestBuild_WaitsBeforeItAdvises(t *testing.T) {
	for _, c := range []struct {
		name            string
		capacity, grown int64
		over            time.Duration
		want            string
	}{
		{"a start", 64 * gib, 3 * gib, 12 * time.Second, ""},
		{"just before a minute", 64 * gib, 3 * gib, 59 * time.Second, ""},
		{"a minute", 64 * gib, 3 * gib, time.Minute, "backup.service, outside of all containers, grew by 3 GiB in 1m0s to 6 GiB"},
		{"little on a big node", 64 * gib, 255 * mib, 5 * time.Minute, ""},
		{"enough on a big node", 64 * gib, 256 * mib, 5 * time.Minute, "grew by 256 MiB in 5m0s"},
		{"the same on a node of 8 GiB", 8 * gib, 33 * mib, 90 * time.Second, "grew by 33 MiB in 1m30s"},
		{"little on a node of 8 GiB", 8 * gib, 31 * mib, 90 * time.Second, ""},
		{"little on a small node", gib, 15 * mib, 5 * time.Minute, ""},
		{"enough on a small node", gib, 16 * mib, 5 * time.Minute, "grew by 16 MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := Facts{
				Time: time.Unix(1000, 0), Version: 2, Groups: []Group{group("/system.slice/backup.service", 6*gib, 0)},
				MemInfo: host.MemInfo{"MemTotal": c.capacity, "MemFree": c.capacity - 8*gib, "MemAvailable": gib, "AnonPages": 6 * gib},
			}
			before := SampleOf(f)
			before.At = f.Time.Add(-c.over)
			before.Groups["/system.slice/backup.service"] -= c.grown
			before.Kinds["available"] += c.grown
			m := Build(Input{Facts: f, Before: before})
			if got := strings.Join(m.Advice, "\n"); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("advice %q, want %q", got, c.want)
			}
			if eta := m.Gives[0].ETASeconds; (eta != nil) != (c.want != "") {
				t.Errorf("time until memory ends: %v", eta)
			}
			if m.GrowthSeconds != c.over.Seconds() || *m.Groups[0].GrowthBytes != c.grown {
				t.Errorf("grown by %d in %g s is not shown", *m.Groups[0].GrowthBytes, m.GrowthSeconds)
			}
		})
	}
}
