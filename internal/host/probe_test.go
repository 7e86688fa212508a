// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/host"
)

const (
	capsAll     = "Name:\tx\nCapEff:\t000001fffeffffff\n"
	capsNone    = "CapEff:\t0000000000000000\n"
	capsBPF     = "CapEff:\t000000c000000000\n"
	capsBPFOnly = "CapEff:\t0000008000000000\n"
	capsAdmin   = "CapEff:\t0000000000200000\n"
)

func TestProbes(t *testing.T) {
	type files = map[string]string
	tests := []struct {
		name   string
		files  files
		probe  func(host.Roots) host.Probe
		want   host.Status
		detail string // part of Detail and Remedy
	}{
		{"kmsg", files{"dev/kmsg": ""}, host.Roots.ProbeKmsg, host.Yes, "/dev/kmsg"},
		{"kmsg not there", files{"dev/": ""}, host.Roots.ProbeKmsg, host.No, "--device"},
		{"tracefs", files{"sys/kernel/tracing/events/oom/mark_victim/format": "name: mark_victim\n"}, host.Roots.ProbeTracefs, host.Yes, "mounted at"},
		{"tracefs old", files{"sys/kernel/tracing/events/oom/": ""}, host.Roots.ProbeTracefs, host.No, "4.13"},
		{"tracefs none", files{"sys/kernel/": ""}, host.Roots.ProbeTracefs, host.No, "4.1"},
		{"tracefs mountable", files{"sys/kernel/tracing/": "", "proc/self/status": capsAdmin}, host.Roots.ProbeTracefs, host.Yes, "can be mounted"},
		{"tracefs not mountable", files{"sys/kernel/tracing/": "", "proc/self/status": capsNone}, host.Roots.ProbeTracefs, host.No, "mount -t tracefs"},
		{"tracefs without procfs", files{"sys/kernel/tracing/": ""}, host.Roots.ProbeTracefs, host.Unknown, "status"},
		{"btf", files{"sys/kernel/btf/vmlinux": ""}, host.Roots.ProbeBTF, host.Yes, "vmlinux"},
		{"btf none", files{"sys/kernel/": ""}, host.Roots.ProbeBTF, host.No, "5.4"},
		{"bpf root", files{"proc/self/status": capsAll}, host.Roots.ProbeBPF, host.Yes, "CAP_BPF"},
		{"bpf own capabilities", files{"proc/self/status": capsBPF}, host.Roots.ProbeBPF, host.Yes, "CAP_PERFMON"},
		{"bpf half", files{"proc/self/status": capsBPFOnly}, host.Roots.ProbeBPF, host.No, "CAP_PERFMON"},
		{"bpf before 5.8", files{"proc/self/status": capsAdmin}, host.Roots.ProbeBPF, host.Yes, "CAP_SYS_ADMIN"},
		{"bpf none", files{"proc/self/status": capsNone}, host.Roots.ProbeBPF, host.No, "run with"},
		{"bpf no line", files{"proc/self/status": "Name:\tx\n"}, host.Roots.ProbeBPF, host.Unknown, "CapEff"},
		{"bpf bad line", files{"proc/self/status": "CapEff:\tzz\n"}, host.Roots.ProbeBPF, host.Unknown, "zz"},
		{"bpf locked down", files{"proc/self/status": capsAll, "sys/kernel/security/lockdown": "none integrity [confidentiality]\n"}, host.Roots.ProbeBPF, host.No, "locked down"},
		{"lockdown none", files{"sys/kernel/security/lockdown": "[none] integrity confidentiality\n"}, host.Roots.ProbeLockdown, host.Yes, "none"},
		{"lockdown integrity", files{"sys/kernel/security/lockdown": "none [integrity] confidentiality\n"}, host.Roots.ProbeLockdown, host.Yes, "integrity"},
		{"lockdown confidentiality", files{"sys/kernel/security/lockdown": "none integrity [confidentiality]\n"}, host.Roots.ProbeLockdown, host.No, "confidentiality"},
		{"lockdown not told", files{"sys/": ""}, host.Roots.ProbeLockdown, host.Unknown, "securityfs"},
		{"lockdown odd", files{"sys/kernel/security/lockdown": "none\n"}, host.Roots.ProbeLockdown, host.Unknown, "brackets"},
		{"dmesg open", files{"proc/sys/kernel/dmesg_restrict": "0\n"}, host.Roots.ProbeDmesgRestrict, host.Yes, "=0"},
		{"dmesg restricted", files{"proc/sys/kernel/dmesg_restrict": "1\n"}, host.Roots.ProbeDmesgRestrict, host.No, "CAP_SYSLOG"},
		{"dmesg not told", files{"proc/": ""}, host.Roots.ProbeDmesgRestrict, host.Unknown, "not told"},
		{"dmesg odd", files{"proc/sys/kernel/dmesg_restrict": "x\n"}, host.Roots.ProbeDmesgRestrict, host.Unknown, "not told"},
		{"vmstat", files{"proc/vmstat": "oom_kill 4\n"}, host.Roots.ProbeVMStat, host.Yes, "4 OOM kills"},
		{"vmstat old", files{"proc/vmstat": "pgfault 4\n"}, host.Roots.ProbeVMStat, host.No, "4.13"},
		{"vmstat none", files{"proc/": ""}, host.Roots.ProbeVMStat, host.Unknown, "vmstat"},
		{"cgroup v1", files{"sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"}, host.Roots.ProbeCgroup, host.Yes, "v1 at"},
		{"cgroup v1 old", files{"sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n"}, host.Roots.ProbeCgroup, host.No, "4.13"},
		{"cgroup v2", files{"sys/fs/cgroup/cgroup.controllers": "memory\n", "sys/fs/cgroup/a/": "", "sys/fs/cgroup/b/memory.events": "low 0\noom 0\noom_kill 0\n"}, host.Roots.ProbeCgroup, host.Yes, "v2 at"},
		{"cgroup v2 empty", files{"sys/fs/cgroup/cgroup.controllers": "memory\n"}, host.Roots.ProbeCgroup, host.Unknown, "no cgroup to read"},
		{"cgroup none", files{"sys/fs/cgroup/": ""}, host.Roots.ProbeCgroup, host.No, "--path.cgroupfs"},
		{"cgroup not seen", files{"sys/": ""}, host.Roots.ProbeCgroup, host.Unknown, "cgroup"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.probe(roots(tree(t, tt.files)))
			if got.Status != tt.want || !strings.Contains(got.Detail+" "+got.Remedy, tt.detail) {
				t.Errorf("got %+v, want %s with %q", got, tt.want, tt.detail)
			}
			if got.Name == "" || (got.Status == host.Yes && got.Remedy != "") {
				t.Errorf("got %+v: no name, or a remedy for what is there", got)
			}
		})
	}
}

func TestProbes_AreDistinct(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range roots(t.TempDir()).Probes() {
		if seen[p.Name] || p.Status == host.Yes {
			t.Errorf("nothing is there, yet %+v", p)
		}
		seen[p.Name] = true
	}
	if len(seen) != 8 {
		t.Errorf("got %d probes, want 8", len(seen))
	}
}
