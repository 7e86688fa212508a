// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Status is the answer of a probe.
type Status string

// The answers. Unknown means that the probe could not tell, not that the
// thing is missing; Absent that this machine has no such thing to begin with.
const (
	Yes     Status = "yes"
	No      Status = "no"
	Unknown Status = "unknown"
	Absent  Status = "absent"
)

// Probe is one thing that this machine offers to this process, or does not.
type Probe struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Detail says what was found.
	Detail string `json:"detail,omitempty"`
	// Remedy says how to get it; empty where the answer is yes, or where
	// nothing helps but another kernel, which Detail then names.
	Remedy string `json:"remedy,omitempty"`
}

// The names of the probes.
const (
	ProbeKmsg          = "kmsg"           // the kernel's log can be read
	ProbeTracefs       = "tracefs"        // tracepoints can be read without BPF
	ProbeBTF           = "btf"            // the kernel describes its types
	ProbeBPF           = "bpf"            // this process may load tracing programs
	ProbeCgroup        = "cgroup"         // memory cgroups and their OOM counters can be read
	ProbeVMStat        = "vmstat"         // the machine's own count of OOM kills
	ProbeLockdown      = "lockdown"       // yes: lockdown hides nothing that coroner reads
	ProbeDmesgRestrict = "dmesg_restrict" // yes: the log is open to every process
)

// Probes looks at everything that doctor tells of. It changes nothing: no
// mount, no program, no trace instance.
func (r Roots) Probes() []Probe {
	return []Probe{
		r.ProbeBPF(), r.ProbeBTF(), r.ProbeTracefs(), r.ProbeKmsg(), r.ProbeDmesgRestrict(),
		r.ProbeCgroup(), r.ProbeVMStat(), r.ProbeLockdown(),
	}
}

// ProbeKmsg opens the log device, where the kernel checks the rights, and
// reads a record.
func (r Roots) ProbeKmsg() Probe {
	p := Probe{Name: ProbeKmsg}
	path := r.Devkmsg()
	err := readRecord(path)
	switch {
	case err == nil:
		p.Status, p.Detail = Yes, path+" can be read"
	case errors.Is(err, fs.ErrNotExist):
		p.Status, p.Detail, p.Remedy = No, path+" is not there", "give the container the device (--device /dev/kmsg, or a privileged pod)"
	case errors.Is(err, fs.ErrPermission):
		p.Status, p.Detail = No, path+" must not be opened: "+cause(err)
		p.Remedy = "run with CAP_SYSLOG; in a container also allow the device (--device /dev/kmsg, or a privileged pod)"
	default:
		p.Status, p.Detail = Unknown, err.Error()
	}
	return p
}

// readRecord reads the oldest record of the log. An empty log, or one that was
// overrun just now, can be read as well.
func readRecord(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_ = f.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // a plain file has none
	_, err = f.Read(make([]byte, 16<<10))
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.EPIPE):
		return nil
	}
	return err
}

// ProbeTracefs looks for the tracepoint oom:mark_victim (since Linux 4.13),
// or whether tracefs could be mounted.
func (r Roots) ProbeTracefs() Probe {
	p := Probe{Name: ProbeTracefs}
	t, err := r.Tracefs()
	switch {
	case errors.Is(err, ErrNotSupported):
		p.Status, p.Detail = No, err.Error()
		return p
	case err != nil:
		p.Status, p.Detail = Unknown, err.Error()
		return p
	case !t.Mounted:
		return r.probeMountable(p, t)
	}
	_, err = readFile(filepath.Join(t.Path, "events/oom/mark_victim/format"), maxSmallFile)
	switch {
	case err == nil:
		p.Status, p.Detail = Yes, "mounted at "+t.Path
	case errors.Is(err, fs.ErrPermission):
		p.Status, p.Detail, p.Remedy = No, t.Path+": "+cause(err), "run as user 0: the files' modes decide, no capability is needed"
	case errors.Is(err, fs.ErrNotExist):
		p.Status, p.Detail = No, t.Path+" has no tracepoint oom:mark_victim; Linux 4.13 and later have it"
	default:
		p.Status, p.Detail = Unknown, err.Error()
	}
	return p
}

func (r Roots) probeMountable(p Probe, t Tracefs) Probe {
	caps, err := r.Capabilities()
	switch {
	case err != nil:
		p.Status, p.Detail = Unknown, err.Error()
	case caps.Has(CapSysAdmin):
		p.Status, p.Detail = Yes, "can be mounted at "+t.Path
	default:
		p.Status, p.Detail = No, "not mounted at "+t.Path
		p.Remedy = "mount -t tracefs tracefs " + t.Path + ", or run with CAP_SYS_ADMIN"
	}
	return p
}

// ProbeBTF looks for the kernel's description of its own types (since Linux
// 5.4, with CONFIG_DEBUG_INFO_BTF), without which no BPF program fits.
func (r Roots) ProbeBTF() Probe {
	p := Probe{Name: ProbeBTF}
	path := r.SysPath("kernel/btf/vmlinux")
	switch _, err := os.Stat(path); {
	case err == nil:
		p.Status, p.Detail = Yes, path
	case errors.Is(err, fs.ErrNotExist):
		p.Status, p.Detail = No, path+" is not there; kernels since 5.4 built with CONFIG_DEBUG_INFO_BTF have it"
	default:
		p.Status, p.Detail = Unknown, err.Error()
	}
	return p
}

// ProbeBPF tells from the capabilities of this process whether the kernel
// will take tracing programs. Loading one is the only proof.
func (r Roots) ProbeBPF() Probe {
	p := Probe{Name: ProbeBPF}
	caps, err := r.Capabilities()
	if err != nil {
		p.Status, p.Detail = Unknown, err.Error()
		return p
	}
	mode, _ := r.lockdown()
	switch {
	case mode == lockdownConfidentiality:
		p.Status, p.Detail = No, "the kernel is locked down for confidentiality"
		p.Remedy = "boot with lockdown=integrity or none"
	case caps.Has(CapBPF | CapPerfmon):
		p.Status, p.Detail = Yes, "CAP_BPF and CAP_PERFMON are there"
	case caps.Has(CapSysAdmin):
		p.Status, p.Detail = Yes, "CAP_SYS_ADMIN is there"
	default:
		p.Status, p.Detail = No, "no CAP_BPF and CAP_PERFMON"
		p.Remedy = "run with CAP_BPF and CAP_PERFMON, or with CAP_SYS_ADMIN on kernels before 5.8"
	}
	return p
}

// ProbeVMStat reads the machine's own count of OOM kills.
func (r Roots) ProbeVMStat() Probe {
	p := Probe{Name: ProbeVMStat}
	n, err := r.NodeOOMKills()
	switch {
	case err == nil:
		p.Status, p.Detail = Yes, fmt.Sprintf("%d OOM kills since boot", n)
	case errors.Is(err, ErrNotSupported):
		p.Status, p.Detail = No, err.Error()
	default:
		p.Status, p.Detail = Unknown, err.Error()
	}
	return p
}

const lockdownConfidentiality = "confidentiality"

// lockdown reads the mode that stands in brackets (since Linux 5.4).
func (r Roots) lockdown() (string, error) {
	s, err := readWord(r.SysPath("kernel/security/lockdown"))
	if err != nil {
		return "", err
	}
	_, s, open := strings.Cut(s, "[")
	mode, _, closed := strings.Cut(s, "]")
	if !open || !closed {
		return "", fmt.Errorf("parse lockdown: no mode in brackets: %q", clip(s))
	}
	return mode, nil
}

// ProbeLockdown tells whether the kernel hides its memory from its own
// administrator. Only confidentiality takes something from coroner.
func (r Roots) ProbeLockdown() Probe {
	p := Probe{Name: ProbeLockdown}
	switch mode, err := r.lockdown(); {
	case err != nil:
		p.Status, p.Detail = Unknown, "not told: "+cause(err)
		p.Remedy = "mount -t securityfs securityfs " + r.SysPath("kernel/security")
	case mode == lockdownConfidentiality:
		p.Status, p.Detail = No, "confidentiality: no tracepoints, no BPF; the log and the counters still tell"
		p.Remedy = "boot with lockdown=integrity or none"
	default:
		p.Status, p.Detail = Yes, mode
	}
	return p
}

// ProbeDmesgRestrict tells whether reading the log needs CAP_SYSLOG.
func (r Roots) ProbeDmesgRestrict() Probe {
	p := Probe{Name: ProbeDmesgRestrict}
	s, err := readWord(r.ProcPath("sys/kernel/dmesg_restrict"))
	n, bad := strconv.Atoi(s)
	switch {
	case err != nil || bad != nil:
		p.Status, p.Detail = Unknown, "not told"
		if err != nil {
			p.Detail = "not told: " + cause(err)
		}
	case n == 0:
		p.Status, p.Detail = Yes, "kernel.dmesg_restrict=0"
	default:
		p.Status, p.Detail = No, fmt.Sprintf("kernel.dmesg_restrict=%d: reading the log needs CAP_SYSLOG", n)
		p.Remedy = "run with CAP_SYSLOG"
	}
	return p
}

// cause is an error without its path.
func cause(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
