// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package system tests the whole agent on real kills: the truth is what the
// test itself started and what the kernel counted, the claim is what the agent
// tells over HTTP. The same binary runs on a host and in a virtual machine.
package system

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
	agentrig "github.com/coroner-dev/coroner/test/rig"
)

const (
	mib = int64(1 << 20)
	// patience is how long a claim may take on a slow (emulated) machine.
	patience = agentrig.Patience
	// contextGap is how long the kernel withholds the context of its reports
	// after ten in a row (mm/oom_kill.c: 10 in 5 seconds).
	contextGap = 5500 * time.Millisecond
)

// rig is a running agent and its client.
type rig struct {
	t      *testing.T
	client *api.Client
	base   string
	stop   func()
	began  time.Time
}

// start runs an agent until the test ends. change sees its options first.
func start(t *testing.T, change func(*agent.Options)) *rig {
	t.Helper()
	oomtest.Require(t, oomtest.RealKills)
	a := agentrig.Start(t, change)
	return &rig{t: t, client: a.Client, base: a.Base, stop: a.Stop, began: a.Began}
}

// on is the same rig for a subtest.
func (r *rig) on(t *testing.T) *rig {
	sub := *r
	sub.t = t
	return &sub
}

// everything leaves the options as they are.
func everything(*agent.Options) {}

// alone switches all sources off but one.
func alone(source death.Source, mode string) func(*agent.Options) {
	return func(o *agent.Options) {
		o.Source.Tracepoint = source == death.SourceTracepoint
		o.Source.Kmsg = source == death.SourceKmsg
		o.Source.Cgroup = source == death.SourceCgroup
		o.Source.TracepointMode = mode
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

func (r *rig) waitUp() {
	r.t.Helper()
	(&agentrig.Agent{Client: r.client}).WaitUp(r.t)
}

func (r *rig) poll(f func() error) {
	r.t.Helper()
	if err := oomtest.Poll(patience, f); err != nil {
		r.t.Fatal(err)
	}
}

// below are the deaths of what lived in or below a cgroup since the agent
// began, oldest first.
func (r *rig) below(path string) []death.Death {
	r.t.Helper()
	var out []death.Death
	for d, err := range r.client.All(r.t.Context(), api.Query{Since: r.began.Add(-time.Second)}) {
		if err != nil {
			r.t.Fatal(err)
		}
		if at := cgroupOf(&d); at == path || path != "" && strings.HasPrefix(at, path+"/") {
			out = append(out, d)
		}
	}
	slices.Reverse(out)
	return out
}

func cgroupOf(d *death.Death) string {
	if d.OOM != nil && d.OOM.TaskMemcg != "" {
		return d.OOM.TaskMemcg
	}
	if d.Container != nil {
		return d.Container.Cgroup
	}
	return ""
}

// one waits for the one death below path to satisfy want.
func (r *rig) one(path string, want func(*death.Death) error) death.Death {
	r.t.Helper()
	ds := r.exactly(path, 1, func(ds []death.Death) error { return want(&ds[0]) })
	return ds[0]
}

// exactly waits until n deaths below path satisfy want.
func (r *rig) exactly(path string, n int, want func([]death.Death) error) []death.Death {
	r.t.Helper()
	var ds []death.Death
	err := oomtest.Poll(patience, func() error {
		ds = r.below(path)
		if len(ds) != n {
			return fmt.Errorf("%d deaths below %s, want %d", len(ds), path, n)
		}
		return want(ds)
	})
	if err != nil {
		r.t.Fatalf("%v\n%s", err, agentrig.Sketch(ds))
	}
	return ds
}

// metric reads one counter or gauge off /metrics; labels are part of name.
func (r *rig) metric(name string) (float64, bool) {
	r.t.Helper()
	text := r.get("/metrics")
	for l := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(l, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				r.t.Fatal(err)
			}
			return v, true
		}
	}
	return 0, false
}

// sum adds all series of a metric whose labels contain part.
func (r *rig) sum(name, part string) float64 {
	r.t.Helper()
	var sum float64
	for l := range strings.Lines(r.get("/metrics")) {
		if !strings.HasPrefix(l, name+"{") || !strings.Contains(l, part) {
			continue
		}
		v, err := strconv.ParseFloat(l[strings.LastIndexByte(strings.TrimSpace(l), ' ')+1:len(strings.TrimRight(l, "\n"))], 64)
		if err != nil {
			r.t.Fatal(err)
		}
		sum += v
	}
	return sum
}

func (r *rig) get(path string) string {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.base+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(body)
}

// balanced waits until the audit has looked, and wants it to find nothing.
func (r *rig) balanced(killsBefore uint64) {
	r.t.Helper()
	after, err := oomtest.NodeOOMKills()
	if err != nil {
		r.t.Fatal(err)
	}
	r.poll(func() error {
		counted, known := r.metric("coroner_node_oom_kills_total")
		if !known || uint64(counted) != after-killsBefore {
			return fmt.Errorf("coroner_node_oom_kills_total = %v, the kernel counted %d", counted, after-killsBefore)
		}
		return nil
	})
	// The audit speaks once nothing has moved for three seconds and more.
	deadline := time.Now().Add(4 * time.Second)
	r.poll(func() error {
		if n, _ := r.metric("coroner_unattributed_oom_kills_total"); n != 0 {
			r.t.Fatalf("coroner_unattributed_oom_kills_total = %v, want 0", n)
		}
		if time.Now().Before(deadline) {
			return errors.New("the audit has not looked yet")
		}
		return nil
	})
}

func nodeKills(t *testing.T) uint64 {
	t.Helper()
	n, err := oomtest.NodeOOMKills()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// all joins what several checks say.
func all(errs ...error) error { return errors.Join(errs...) }

func is[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s = %v, want %v", what, got, want)
	}
	return nil
}

// pidsOf lists the processes of a death by their fate.
func pidsOf(d *death.Death, fate death.Fate) []int {
	var out []int
	for _, p := range d.Processes {
		if p.Fate == fate {
			out = append(out, p.PID)
		}
	}
	slices.Sort(out)
	return out
}
