// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/lastwords"
	"github.com/coroner-dev/coroner/internal/signal"
	"github.com/coroner-dev/coroner/internal/source/containerd"
	"github.com/coroner-dev/coroner/internal/source/cri"
	"github.com/coroner-dev/coroner/internal/source/docker"
)

// The findings about container engines, what their containers write, and
// processes outside of their cgroups.
const (
	probeLogs    = "logs"
	probeEscapes = "escapes"
)

const (
	// answerLimit is how long an engine may take to say who it is and what it has.
	answerLimit = 4 * time.Second
	// maxLogPaths bounds the logs that are tried.
	maxLogPaths = 16
	usualLogs   = "var/lib/docker/containers"
)

// engineHosts are the sockets that flags name, as the agent takes them.
type engineHosts struct{ docker, containerd, cri []string }

// engine is one kind of engine, as doctor asks it.
type engine struct {
	name   death.Source
	flag   string
	places []string // where its sockets are looked for
	mount  string   // what a container is given
	run    func(ctx context.Context, emit func(signal.Signal)) error
}

func enginesOf(roots host.Roots, hosts engineHosts) []engine {
	pick := func(named []string, own, users []string) []string {
		if len(named) > 0 {
			return named
		}
		return append(own, users...)
	}
	dockerOwn, dockerUsers := docker.Places(roots)
	containerdOwn, containerdUsers := containerd.Places(roots)
	return []engine{
		{
			death.SourceDocker, "--source.docker.host", pick(hosts.docker, dockerOwn, dockerUsers), "/var/run/docker.sock",
			docker.New(docker.Options{Roots: roots, Hosts: hosts.docker}).Run,
		},
		{
			death.SourceContainerd, "--source.containerd.host", pick(hosts.containerd, containerdOwn, containerdUsers), "/run/containerd/containerd.sock",
			containerd.New(containerd.Options{Roots: roots, Hosts: hosts.containerd}).Run,
		},
		{
			death.SourceCRI, "--source.cri.endpoint", pick(hosts.cri, cri.Places(roots), nil), "/run/containerd/containerd.sock",
			cri.New(cri.Options{Roots: roots, Endpoints: hosts.cri}).Run,
		},
	}
}

// sockets are those of its places that are there, each once: /var/run is
// /run under another name.
func (e engine) sockets() []string {
	var out []string
	var known []fs.FileInfo
	for _, p := range e.places {
		found, err := filepath.Glob(strings.TrimPrefix(p, "unix://"))
		if err != nil {
			continue
		}
		for _, path := range found {
			st, err := os.Stat(path)
			if err != nil || st.Mode()&os.ModeSocket == 0 || slices.ContainsFunc(known, func(k fs.FileInfo) bool { return os.SameFile(k, st) }) {
				continue
			}
			out, known = append(out, path), append(known, st)
		}
	}
	return out
}

// engineTrials are what can be done with engines. They are no part of the
// fewest rights: to ask an engine is as good as to be root.
func engineTrials(roots host.Roots, hosts engineHosts) []trial {
	var out []trial
	logs := &logPaths{}
	for _, e := range enginesOf(roots, hosts) {
		sockets := e.sockets()
		out = append(out, trial{
			name: string(e.name), enough: []host.CapSet{host.CapDACOverride}, apart: true,
			writes: sockets, mounts: []string{e.mount}, try: func() host.Probe { return e.probe(sockets, logs) },
		})
	}
	folder := roots.RootPath(usualLogs)
	return append(out,
		trial{
			name: probeLogs, enough: []host.CapSet{host.CapDACReadSearch}, apart: true,
			reads: []string{folder}, mounts: []string{folder + " (read-only is enough)"}, try: func() host.Probe { return logs.probe(roots, folder) },
		},
		trial{
			name: probeEscapes, enough: []host.CapSet{host.CapSysPtrace}, apart: true, try: func() host.Probe { return othersSpaces(roots) },
		},
	)
}

// probe connects as the process is just now, which may have fewer rights than
// it began with, and then asks as the agent does.
func (e engine) probe(sockets []string, logs *logPaths) host.Probe {
	p := host.Probe{Name: string(e.name), Status: host.No}
	if len(sockets) == 0 {
		p.Status, p.Detail = host.Absent, "no socket at "+strings.Join(e.places, ", ")
		p.Remedy = fmt.Sprintf("where there is one, name it with %s; in a container, pass it in: --volume %s:%[2]s", e.flag, e.mount)
		return p
	}
	var refused []error
	var reasons []string
	for _, s := range sockets {
		if err := connect(s); err != nil {
			refused, reasons = append(refused, err), append(reasons, err.Error())
		}
	}
	if len(refused) == len(sockets) {
		p.Detail = strings.Join(reasons, "; ")
		p.Remedy = "is the engine running?"
		if errors.Is(refused[0], fs.ErrPermission) {
			p.Remedy = "run as user 0 (for the systemd unit: engines.conf), or in the group of the socket (SupplementaryGroups=docker); either is as good as root"
		}
		return p
	}
	st := e.ask(logs)
	if p.Detail = st.Reason; st.Up {
		p.Status, p.Detail = host.Yes, strings.TrimSuffix(st.Mode+" at "+strings.Join(sockets, ", ")+": "+st.Reason, ": ")
	} else if st.Reason == "" {
		p.Detail = fmt.Sprintf("no answer within %v from %s", answerLimit, strings.Join(sockets, ", "))
	}
	return p
}

func connect(path string) error {
	c, err := net.DialTimeout("unix", path, answerLimit)
	if err != nil {
		return err
	}
	return c.Close()
}

// ask runs the source until it says how it is.
func (e engine) ask(logs *logPaths) signal.SourceState {
	ctx, cancel := context.WithTimeout(context.Background(), answerLimit)
	defer cancel()
	var mu sync.Mutex
	var last signal.SourceState
	_ = e.run(ctx, func(s signal.Signal) { // what it cannot it says itself
		mu.Lock()
		defer mu.Unlock()
		switch b := s.Body.(type) {
		case signal.SourceState:
			if last = b; b.Up {
				cancel()
			}
		case signal.ContainerSeen:
			logs.add(b.LogPath)
		}
	})
	mu.Lock()
	defer mu.Unlock()
	return last
}

// logPaths are where engines say that containers' logs are.
type logPaths struct {
	mu    sync.Mutex
	paths []string
}

func (l *logPaths) add(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if path != "" && len(l.paths) < maxLogPaths && !slices.Contains(l.paths, path) {
		l.paths = append(l.paths, path)
	}
}

// probe opens a log that an engine named, else the folder of Docker's.
func (l *logPaths) probe(roots host.Roots, folder string) host.Probe {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := host.Probe{Name: probeLogs, Status: host.No}
	var err error
	for _, path := range l.paths {
		var log *lastwords.Log
		if log, err = (&lastwords.Reader{Roots: roots}).Open(path); err == nil {
			p.Status, p.Detail = host.Yes, path+" can be read"
			_ = log.Close()
			return p
		}
	}
	if len(l.paths) == 0 {
		if _, err = os.ReadDir(folder); err == nil {
			p.Status, p.Detail = host.Yes, folder+" can be read"
			return p
		}
	}
	p.Detail = err.Error()
	switch {
	case errors.Is(err, fs.ErrPermission):
		p.Remedy = "run as user 0 or with CAP_DAC_READ_SEARCH: engines keep logs for user 0 alone"
	case len(l.paths) == 0 && errors.Is(err, fs.ErrNotExist):
		p.Status, p.Remedy = host.Absent, "no engine named a log; in a container, pass the folder in: --volume "+folder+":"+folder+":ro"
	default:
		p.Remedy = "in a container, pass the folder in: --volume " + folder + ":" + folder + ":ro"
	}
	return p
}

// othersSpaces reads the pid namespaces of processes, most of which have
// rights that the agent has not.
func othersSpaces(roots host.Roots) host.Probe {
	const most = 1024
	p := host.Probe{Name: probeEscapes, Status: host.No}
	var told, denied int
	var last error
	look := func(pid int) {
		switch _, err := roots.PIDNS(pid); {
		case err == nil:
			told++
		case errors.Is(err, fs.ErrPermission):
			denied, last = denied+1, err
		}
	}
	err := roots.EachPID(most, look, func() bool { return false })
	switch {
	case err != nil:
		p.Status, p.Detail = host.Unknown, err.Error()
	case !roots.KernelPIDs():
		p.Detail, p.Remedy = "only the processes of this pid namespace are seen", "in a container: --pid host"
	case denied*10 > told: // some guard themselves from everybody
		p.Detail = fmt.Sprintf("pid namespaces of %d of %d processes are not told: %v", denied, told+denied, last)
		p.Remedy = "run with CAP_SYS_PTRACE, which can look into and change any process; coroner_escaped_processes alone needs it"
	default:
		p.Status, p.Detail = host.Yes, fmt.Sprintf("pid namespaces of %d of %d processes are told", told, told+denied)
	}
	return p
}
