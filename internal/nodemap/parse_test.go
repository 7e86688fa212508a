// SPDX-License-Identifier: Apache-2.0

package nodemap

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/host"
)

// As the kubelet of Kubernetes 1.34 answers, but for what is of no interest.
const configz = `{"kubeletconfig":{"enableServer":true,"evictionHard":{"imagefs.available":"15%","memory.available":"100Mi"},
"evictionSoft":{"memory.available":"5%"},"evictionSoftGracePeriod":{"memory.available":"1m30s"},"kubeReserved":{"cpu":"100m","memory":"1Gi"},"enforceNodeAllocatable":["pods"]}}`

func TestParseConfigz(t *testing.T) {
	got, err := ParseConfigz([]byte(configz))
	want := KubeletConfig{
		KubeReservedBytes: new(gib), SystemReservedBytes: new(int64(0)), SoftGrace: 90 * time.Second,
		Hard: &Threshold{Setting: "100Mi", Bytes: 100 * mib}, Soft: &Threshold{Setting: "5%", Percent: 5},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	if n := got.Soft.Of(100 * gib); n != 5*gib {
		t.Errorf("5 %% of 100 GiB: %d", n)
	}
	off, err := ParseConfigz([]byte(`{"kubeletconfig":{"evictionHard":{"memory.available":"0%"}}}`))
	if err != nil || off.Hard != nil || off.Soft != nil {
		t.Errorf("switched off: %+v, %v", off, err)
	}
	for _, bad := range []string{"", "{}", "[]", `{"kubeletconfig":{"evictionHard":{"memory.available":"much"}}}`, `{"kubeletconfig":{"kubeReserved":{"memory":"-1"}}}`, `{"kubeletconfig":{"evictionSoft":{"memory.available":"NaN%"}}}`} {
		if c, err := ParseConfigz([]byte(bad)); err == nil {
			t.Errorf("%q: %+v, want an error", bad, c)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(configz)
	f.Add("anon 4096\nfile 8192\ninactive_file 1\n")
	f.Add("total_rss 4096\ntotal_cache 8192\ntotal_inactive_file 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := ParseConfigz([]byte(text)); err != nil && !cmp.Equal(c, KubeletConfig{}) {
			t.Errorf("%+v and %v", c, err)
		} else if c.Hard != nil && (c.Hard.Bytes < 0 || c.Hard.Of(gib) < 0) {
			t.Errorf("%+v", c.Hard)
		}
		for version := 1; version <= 2; version++ {
			got, err := parseStat(text, version)
			if err != nil && got != (stat{}) {
				t.Errorf("%+v and %v", got, err)
			}
			if min(got.anon, got.file, got.shmem, got.slabReclaimable) < 0 || got.inactiveFile != nil && *got.inactiveFile < 0 {
				t.Errorf("%+v", got)
			}
		}
	})
}

// tree makes a hierarchy of files.
func tree(t *testing.T, groups map[string]int64) host.Roots {
	t.Helper()
	r := host.Roots{Proc: t.TempDir(), Sys: t.TempDir(), Cgroup: t.TempDir()}
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(r.ProcPath("meminfo"), "MemTotal: 4194304 kB\nMemFree: 1048576 kB\nCached: 102400 kB\nAnonPages: 1048576 kB\n")
	write(r.CgroupPath("cgroup.controllers"), "cpu memory\n")
	write(r.CgroupPath("memory.stat"), "anon 1073741824\nfile 104857600\ninactive_file 4194304\n")
	for path, n := range groups {
		write(r.CgroupPath(path, "memory.current"), fmt.Sprintln(n))
		write(r.CgroupPath(path, "memory.max"), map[bool]string{true: "2147483648\n", false: "max\n"}[path == "/kubepods.slice"])
		write(r.CgroupPath(path, "memory.stat"), fmt.Sprintf("anon %d\nfile 4096\nshmem 0\ninactive_file 4096\nslab_reclaimable 100\n", n-4096))
	}
	return r
}

// TestRead_PartsTheTree: each byte belongs to one group.
func TestRead_PartsTheTree(t *testing.T) {
	const qos = "/kubepods.slice/kubepods-burstable.slice"
	pod := qos + "/kubepods-burstable-pod11111111_29e1_478b_b365_4cb5dfc7d6fb.slice"
	id := "46b3e0a4df44b752b841aecca454e6e78995d567912a84950390bae6f6777a63"
	f, err := Read(tree(t, map[string]int64{
		"/init.scope": mib, "/system.slice": 40 * mib, "/system.slice/ssh.service": 8 * mib, "/system.slice/docker-" + id + ".scope": 16 * mib,
		"/user.slice": 5 * mib, "/user.slice/user-0.slice": 5 * mib, "/user.slice/user-0.slice/session-1.scope": 5 * mib,
		"/batch": 9 * mib, "/batch/" + id: 9 * mib, "/hand": 7 * mib, "/hand/made": 3 * mib,
		"/kubepods.slice": 100 * mib, qos: 100 * mib, pod: 100 * mib, pod + "/cri-containerd-" + id + ".scope": 99 * mib,
	}))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, g := range f.Groups {
		got[g.key()] = g.UsageBytes / mib
	}
	want := map[string]int64{
		"/init.scope": 1, "/system.slice/ssh.service": 8, "/system.slice/docker-" + id + ".scope": 16, "/system.slice rest": 16,
		"/user.slice/user-0.slice/session-1.scope": 5, "/batch/" + id: 9, "/hand": 7,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("groups, -want +got:\n%s", diff)
	}
	if f.Kubepods == nil || *f.Kubepods.LimitBytes != 2*gib || len(f.Pods) != 1 || f.Pods[0].Path != pod || f.Pods[0].LimitBytes != nil || f.Unread != 0 {
		t.Errorf("kubepods %+v, pods %+v, %d unread", f.Kubepods, f.Pods, f.Unread)
	}
	if *f.RootUsageBytes != 1073741824+104857600 || *f.InactiveFileBytes != 4194304 {
		t.Errorf("the root: %d, %d", *f.RootUsageBytes, *f.InactiveFileBytes)
	}
}
