// SPDX-License-Identifier: Apache-2.0

//go:build linux

package privileges

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/oomtest"
)

const mib = 1 << 20

// build builds the real binary, where everybody may run it.
func build(t *testing.T) string {
	t.Helper()
	oomtest.Require(t, oomtest.RealKills)
	dir, err := os.MkdirTemp("", "coroner-privileges-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "coroner")
	c := exec.Command("go", "build", "-o", bin, "../../cmd/coroner")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// row is a part of the agent that is measured by itself.
type row struct {
	name    string
	flags   []string
	tracefs bool // mounted
	mode    string
	// told tells whether a death says what this part is there to say.
	told func(d *death.Death, pid int, cgroup string) bool
}

func rows() []row {
	only := func(keep string, more ...string) []string {
		var out []string
		for _, s := range []string{"tracepoint", "kmsg", "cgroup"} {
			if s != keep {
				out = append(out, "--no-source."+s)
			}
		}
		return append(out, more...)
	}
	names := func(d *death.Death, pid int) bool { return len(d.Processes) == 1 && d.Processes[0].PID == pid }
	lived := func(d *death.Death, cgroup string) bool { return d.OOM != nil && d.OOM.TaskMemcg == cgroup }
	victim := func(d *death.Death, pid int, _ string) bool { return names(d, pid) }
	both := func(d *death.Death, pid int, cgroup string) bool { return names(d, pid) && lived(d, cgroup) }
	return []row{
		{"tracepoint, bpf", only("tracepoint", "--source.tracepoint.mode=bpf"), false, "bpf", both},
		{"tracepoint, tracefs mounted", only("tracepoint", "--source.tracepoint.mode=tracefs"), true, "tracefs", victim},
		{"tracepoint, tracefs not mounted", only("tracepoint", "--source.tracepoint.mode=tracefs"), false, "tracefs", victim},
		{"kmsg", only("kmsg"), false, "", victim},
		{"cgroup", only("cgroup"), false, "", func(d *death.Death, _ int, cgroup string) bool { return lived(d, cgroup) }},
		{wholeAgent, nil, true, "bpf", func(d *death.Death, _ int, cgroup string) bool { return lived(d, cgroup) }},
	}
}

const wholeAgent = "whole agent"

// outcome is what came of one run.
type outcome struct {
	works bool
	// up are the sources that ran, why what the others said.
	up  []string
	why string
}

// confined is a running agent that was confined.
type confined struct {
	cmd    *exec.Cmd
	client *api.Client
	log    *strings.Builder
	read   sync.WaitGroup
}

// measure runs the agent confined and has it report a real kill.
func measure(t *testing.T, bin string, r row, uid int, caps host.CapSet) outcome {
	t.Helper()
	history := filepath.Join(ownFolder(t, uid), "deaths.db")
	args := append([]string{bin, "agent", "--web.listen-address=127.0.0.1:0", "--history.path=" + history, "--node.name=test"}, r.flags...)
	a := begin(t, confinement{UID: uid, Caps: caps, Tracefs: r.tracefs, Args: args})
	defer a.end(t)
	st := a.settled(t)
	var o outcome
	var lacking []string
	for _, s := range st.Sources {
		if s.Absent {
			continue // no engine is here
		}
		switch {
		case s.Up:
			name := string(s.Name)
			if s.Mode == "bpf" || s.Mode == "tracefs" {
				name = s.Mode
			}
			o.up = append(o.up, name)
			if s.Name == death.SourceTracepoint && s.Mode != r.mode {
				lacking = append(lacking, s.Reason)
			}
		case s.Enabled:
			lacking = append(lacking, s.Reason)
		}
	}
	if st.History.Path != history || st.History.Error != "" {
		lacking = append(lacking, "history: "+st.History.Error)
	}
	o.why = strings.Join(lacking, "; ")
	if len(o.up) == 0 {
		return o
	}
	if err := a.reports(t, r); err != nil {
		if o.why == "" {
			t.Logf("%s as %d with %s: up, but %v\n%s", r.name, uid, caps, err, a.log)
			o.why = err.Error()
		}
		o.up = nil
		return o
	}
	o.works = o.why == ""
	return o
}

// begin starts the child that confines itself and becomes the agent.
func begin(t *testing.T, c confinement) *confined {
	t.Helper()
	spec, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	a := &confined{cmd: exec.Command("/proc/self/exe"), log: &strings.Builder{}}
	a.cmd.Env = []string{confineVariable + "=" + string(spec), "PATH=" + os.Getenv("PATH")}
	a.cmd.Dir = "/"
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := a.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	a.read.Go(func() { a.follow(out, address) })
	select {
	case at, ok := <-address:
		if !ok {
			a.end(t)
			t.Fatalf("the agent ended at once:\n%s", a.log)
		}
		if err := c.verify(a.cmd.Process.Pid); err != nil {
			t.Error(err)
		}
		if a.client, err = api.NewClient("http://"+at, nil); err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		_ = a.cmd.Process.Kill()
		a.end(t)
		t.Fatalf("the agent does not serve:\n%s", a.log)
	}
	return a
}

// follow keeps the log, and finds the address in it.
func (a *confined) follow(out io.Reader, address chan<- string) {
	defer close(address)
	found := false
	for s := bufio.NewScanner(out); s.Scan(); {
		fmt.Fprintln(a.log, s.Text())
		_, rest, ok := strings.Cut(s.Text(), "address=")
		if ok && !found && strings.HasPrefix(rest, "127.0.0.1:") {
			found = true
			address <- strings.Fields(rest)[0]
		}
	}
}

func (a *confined) end(t *testing.T) {
	t.Helper()
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	a.read.Wait()
	if err := a.cmd.Wait(); err != nil && a.client != nil {
		t.Errorf("the agent: %v\n%s", err, a.log)
	}
}

// settled waits until each source has said how it is.
func (a *confined) settled(t *testing.T) api.Status {
	t.Helper()
	var st api.Status
	err := oomtest.Poll(20*time.Second, func() (err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if st, err = a.client.Status(ctx); err != nil {
			return err
		}
		for _, s := range st.Sources {
			if s.Enabled && !s.Up && !s.Absent && (s.Reason == "" || s.Reason == "starting") {
				return fmt.Errorf("source %s has not said how it is", s.Name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// reports makes kills until the agent has told one of them as it should: by
// tracefs a victim can be gone before it is looked up. On a busy machine a kill
// may be told while the next ones are made.
func (a *confined) reports(t *testing.T, r row) error {
	t.Helper()
	tree := oomtest.New(t)
	kills := map[int]string{} // cgroups, by pid
	told := func() error {
		for d, err := range a.client.All(t.Context(), api.Query{}) {
			if err != nil {
				return err
			}
			for pid, path := range kills {
				if r.told(&d, pid, path) {
					return nil
				}
			}
		}
		return fmt.Errorf("no death tells of one of %v", kills)
	}
	err := errors.New("no kill")
	for n := 0; n < 3 && err != nil; n++ {
		box := tree.Cgroup("docker/"+oomtest.ContainerID(fmt.Sprint(r.name, n)), oomtest.Limit(48*mib))
		p, end := box.Run(oomtest.Load{Comm: []byte("leaky")})
		if end.Signal != syscall.SIGKILL || box.OOMKills() != 1 {
			t.Fatalf("the load ended by %v, the kernel counted %d; want a kill", end.Signal, box.OOMKills())
		}
		kills[p.PID] = box.Path
		err = oomtest.Poll([]time.Duration{3 * time.Second, 3 * time.Second, 20 * time.Second}[n], told)
	}
	return err
}
