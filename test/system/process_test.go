// SPDX-License-Identifier: Apache-2.0

//go:build linux

package system

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/oomtest"
)

// agentVariable makes this binary an agent, which a test can kill.
const agentVariable = "CORONER_SYSTEM_AGENT"

func TestMain(m *testing.M) {
	if spec, ok := os.LookupEnv(agentVariable); ok {
		if err := runAgent(spec); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	oomtest.Main(m)
}

// setup is what an agent of its own process is told.
type setup struct {
	History string
	Sources agent.SourceOptions
}

func runAgent(spec string) error {
	var s setup
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		return err
	}
	o := agent.Defaults()
	o.NodeName = "test-node"
	o.History.Path = s.History
	o.Source = s.Sources
	o.Web.ListenAddress = []string{"127.0.0.1:0"}
	o.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	a, err := agent.New(ctx, o)
	if err != nil {
		return err
	}
	fmt.Println(a.Addresses()[0])
	return a.Run(ctx)
}

// process is an agent in a process of its own.
type process struct {
	*rig
	cmd  *exec.Cmd
	done chan struct{}
}

// spawn starts an agent and waits until it serves, not until its sources watch.
func spawn(t *testing.T, s setup) *process {
	t.Helper()
	oomtest.Require(t, oomtest.RealKills)
	spec, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command("/proc/self/exe"), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), agentVariable+"="+string(spec))
	p.cmd.Stderr = testWriter{t}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first := make(chan string, 1)
	go func() {
		defer close(p.done)
		line, _ := bufio.NewReader(out).ReadString('\n')
		first <- strings.TrimSpace(line)
		_ = p.cmd.Wait() // the test kills it
	}()
	p.rig = &rig{t: t, began: began, stop: func() { p.end(syscall.SIGTERM) }}
	t.Cleanup(func() { p.end(syscall.SIGKILL) })
	address := <-first
	if address == "" {
		t.Fatal("the agent did not start")
	}
	p.base = "http://" + address
	if p.client, err = api.NewClient(p.base, nil); err != nil {
		t.Fatal(err)
	}
	return p
}

// end sends a signal and waits for the end.
func (p *process) end(s syscall.Signal) {
	_ = p.cmd.Process.Signal(s)
	<-p.done
}

// signal sends one that does not end it.
func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}
