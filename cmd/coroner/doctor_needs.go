// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/source/kmsg"
	"github.com/coroner-dev/coroner/internal/source/tracepoint"
)

// rights are what a program must be given for something to work.
type rights struct {
	// Capabilities are the smallest set that was found to do.
	Capabilities []string `json:"capabilities"`
	// Files are what must be readable or writable for the program's user.
	Files []string `json:"files,omitempty"`
	// Mounts are what a container must be given, at the same paths or at
	// those that --path.* name.
	Mounts []string `json:"mounts,omitempty"`
}

// trial is a thing that is done for real, with fewer and fewer rights.
type trial struct {
	name string
	// enough are the capabilities that do on some machine, the smaller set
	// first. The empty set is tried before them all.
	enough []host.CapSet
	reads  []string
	writes []string
	mounts []string
	// apart is what is as good as root, and therefore no part of the fewest rights.
	apart bool
	// try does it and undoes it. The status says whether it worked.
	try func() host.Probe
}

// trials are all things that the agent does with rights that not everybody has.
func trials(roots host.Roots, history string) []trial {
	const (
		look = host.CapDACReadSearch
		bpf  = host.CapBPF | host.CapPerfmon
	)
	tracefs, mounted := tracefsPath(roots)
	tracing := []host.CapSet{host.CapDACOverride}
	if !mounted {
		tracing = []host.CapSet{host.CapSysAdmin, host.CapSysAdmin | host.CapDACOverride}
	}
	cgroups := cgroupPath(roots)
	out := []trial{
		{
			name: host.ProbeBPF, enough: []host.CapSet{bpf, bpf | host.CapSysResource, host.CapSysAdmin, host.CapSysAdmin | host.CapSysResource},
			reads: []string{roots.SysPath("kernel/btf/vmlinux")}, mounts: []string{roots.SysPath("kernel/btf")},
			try: func() host.Probe { return attach(roots, host.ProbeBPF, tracepoint.ModeBPF) },
		},
		{
			name: host.ProbeTracefs, enough: tracing,
			writes: []string{tracefs}, mounts: []string{tracefs + " (tracefs, writable)"},
			try: func() host.Probe { return attach(roots, host.ProbeTracefs, tracepoint.ModeTracefs) },
		},
		kernelLog(roots),
		{
			name: host.ProbeCgroup, enough: []host.CapSet{look},
			reads: []string{cgroups}, mounts: []string{cgroups + " (read-only is enough)"}, try: roots.ProbeCgroup,
		},
		{
			name: host.ProbeVMStat, enough: []host.CapSet{look},
			reads: []string{roots.ProcPath("vmstat")}, mounts: []string{roots.ProcPath()}, try: roots.ProbeVMStat,
		},
	}
	if history != ":memory:" {
		out = append(out, trial{
			name: probeHistory, enough: []host.CapSet{host.CapDACOverride},
			writes: []string{filepath.Dir(history)}, mounts: []string{filepath.Dir(history) + " (writable)"},
			try: func() host.Probe { return keep(history) },
		})
	}
	return out
}

// kernelLog is the log of the device, or where there is none of syslog(2), for
// which no file is needed.
func kernelLog(roots host.Roots) trial {
	t := trial{
		name: host.ProbeKmsg, enough: []host.CapSet{host.CapSyslog, host.CapDACReadSearch | host.CapSyslog},
		reads: []string{roots.Devkmsg()}, mounts: []string{roots.Devkmsg() + " (device)"}, try: roots.ProbeKmsg,
	}
	if _, err := os.Stat(roots.Devkmsg()); !errors.Is(err, fs.ErrNotExist) {
		return t
	}
	if _, err := os.Stat(filepath.Dir(roots.Devkmsg())); err != nil {
		return t
	}
	t.reads, t.mounts = nil, nil
	t.try = func() host.Probe {
		if kmsg.Readable(roots.Devkmsg()) {
			return host.Probe{Name: host.ProbeKmsg, Status: host.Yes, Detail: "syslog(2) can be called"}
		}
		p := roots.ProbeKmsg()
		p.Remedy = "run with CAP_SYSLOG, or " + p.Remedy
		return p
	}
	return t
}

// attach loads and attaches for real, and takes everything away again.
func attach(roots host.Roots, name, mode string) host.Probe {
	_, lesser, err := tracepoint.Probe(tracepoint.Options{Roots: roots, Mode: mode})
	if err != nil {
		p := host.Probe{Name: name, Status: host.No, Detail: err.Error()}
		static := roots.ProbeBPF()
		if mode == tracepoint.ModeTracefs {
			static = roots.ProbeTracefs()
		}
		p.Remedy = static.Remedy
		return p
	}
	detail := "programs were loaded and attached"
	if mode == tracepoint.ModeTracefs {
		detail = "an instance of the trace buffer was made, enabled and removed"
	}
	if lesser != "" {
		detail += "; " + lesser
	}
	return host.Probe{Name: name, Status: host.Yes, Detail: detail}
}

// keep writes in the history's folder, which the agent makes if need be.
func keep(history string) host.Probe {
	p := host.Probe{Name: probeHistory, Status: host.No, Remedy: "let the program's user write there, or name another file with --history.path"}
	dir := filepath.Dir(history)
	made := false
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(dir, 0o750); err != nil {
			p.Detail = err.Error()
			return p
		}
		made = true
	}
	f, err := os.CreateTemp(dir, ".coroner-probe-*")
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(f.Name()))
	}
	if err == nil && !made {
		err = writable(history)
	}
	if made {
		err = errors.Join(err, os.Remove(dir))
	}
	if err != nil {
		p.Detail = err.Error()
		return p
	}
	return host.Probe{Name: probeHistory, Status: host.Yes, Detail: dir + " can be written"}
}

// writable opens a file that is there already, and changes nothing.
func writable(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

func tracefsPath(roots host.Roots) (path string, mounted bool) {
	if t, err := roots.Tracefs(); err == nil {
		return t.Path, t.Mounted
	}
	return roots.SysPath("kernel/tracing"), false
}

func cgroupPath(roots host.Roots) string {
	if h, err := roots.MemoryHierarchy(); err == nil {
		return h.Mount
	}
	return roots.CgroupPath()
}

// finding runs a trial with all rights of this process, and where it works
// again with few, to find how many it takes.
func (t trial) finding(have host.CapSet) finding {
	f := finding{Probe: t.try(), Adds: adds(t.name)}
	f.apart = t.apart
	if f.Status == host.Absent {
		return f
	}
	if f.Status != host.Yes {
		f.Missing = t.missing(have)
		return f
	}
	for _, few := range append([]host.CapSet{0}, t.enough...) {
		if !have.Has(few) {
			continue
		}
		works := false
		err := host.WithCapabilities(few, func() { works = t.try().Status == host.Yes })
		if err != nil {
			return f // not known how many it takes
		}
		if works {
			return f.with(t, few)
		}
	}
	return f.with(t, have)
}

func (f finding) with(t trial, set host.CapSet) finding {
	f.set = set
	f.Needs = &rights{Capabilities: append([]string{}, set.Names()...), Files: t.files(), Mounts: t.mounts}
	return f
}

func (t trial) files() []string {
	var out []string
	for _, path := range t.reads {
		out = append(out, "read "+path)
	}
	for _, path := range t.writes {
		out = append(out, "write "+path)
	}
	return out
}

// missing says what of the smallest set this process has not got.
func (t trial) missing(have host.CapSet) *rights {
	r := &rights{Capabilities: []string{}}
	// The right to write is a matter of files, before one of capabilities.
	switch {
	case t.name == host.ProbeTracefs && os.Geteuid() != 0: // its files are user 0's
		r.Capabilities = append(r.Capabilities, (t.enough[len(t.enough)-1] &^ have).Names()...)
	case len(t.writes) > 0 && t.apart: // the socket's group will do
	case t.name != probeHistory && !have.Has(host.CapSysAdmin):
		r.Capabilities = append(r.Capabilities, (t.enough[0] &^ have).Names()...)
	}
	for _, path := range t.reads {
		f, err := os.Open(path)
		if err == nil {
			err = f.Close()
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			r.Files, r.Mounts = append(r.Files, "read "+path), t.mounts
		case errors.Is(err, syscall.EACCES): // EPERM is no matter of the file's mode
			r.Files = append(r.Files, "read "+path)
		}
	}
	for _, path := range t.writes {
		r.Files = append(r.Files, "write "+path)
	}
	return r
}

// least adds up what works, but for what is apart; of the two ways to tracepoints the one that the
// agent takes.
func least(fs []finding) *rights {
	sum := &rights{Capabilities: []string{}}
	var set host.CapSet
	bpf := false
	for _, f := range fs {
		if f.Needs == nil || f.apart || f.Name == host.ProbeTracefs && bpf {
			continue
		}
		bpf = bpf || f.Name == host.ProbeBPF
		set |= f.set
		sum.Files = append(sum.Files, f.Needs.Files...)
		sum.Mounts = append(sum.Mounts, f.Needs.Mounts...)
	}
	sum.Capabilities = append(sum.Capabilities, set.Names()...)
	return sum
}

// identity is who asks: files are readable to users.
func identity() string {
	if uid := os.Geteuid(); uid >= 0 {
		return fmt.Sprintf("user %d", uid)
	}
	return "this user"
}

// probeHistory is the finding about the place of the history.
const probeHistory = "history"

func defaultHistory() string { return agent.DefaultHistoryPath }
