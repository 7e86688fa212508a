// SPDX-License-Identifier: Apache-2.0

//go:build linux

package system

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
	agentrig "github.com/coroner-dev/coroner/test/rig"
)

// TestAgent_KilledInAStorm is S19: the agent is killed at random moments of a
// storm, stays away for a while, and comes back. In the end each kill is told
// once, in its cgroup, and no counter ever went back.
func TestAgent_KilledInAStorm(t *testing.T) {
	rounds, boxes, pause := 10, 20, 60*time.Millisecond
	switch {
	case testing.Short():
		rounds, boxes = 3, 5
	case long():
		rounds, pause = 200, 500*time.Millisecond // all are in the history at the end
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 19))
	upTo := func(d time.Duration) time.Duration { return time.Duration(rnd.Int64N(int64(d))) }

	s := setup{History: filepath.Join(t.TempDir(), "deaths.db"), Sources: agent.Defaults().Source}
	p := spawn(t, s) // once, so that the counters' stand is known
	p.waitUp()
	began := p.began
	p.stop()

	before := nodeKills(t)
	tree := oomtest.New(t)
	// So many kills that the storm lasts for all rounds; it is stopped then.
	all := newStorm(t, tree, "restart", boxes, 40*rounds, pause)
	away := 0
	shown := map[string]int{}
	for round := range rounds {
		p = spawn(t, s)
		pass(t, upTo(1500*time.Millisecond))
		if round%3 == 0 { // as a scrape may come at any time
			forward(t, shown, p.containerKills())
		}
		end := syscall.SIGKILL
		if round%4 == 3 {
			end = syscall.SIGTERM
		}
		p.end(end)
		was := nodeKills(t)
		pass(t, upTo(800*time.Millisecond))
		away += int(nodeKills(t) - was)
	}
	all.Stop()
	p = spawn(t, s)
	p.began = began
	p.waitUp()

	truth, total := all.truth(), 0
	for i, b := range all.boxes {
		total += len(all.PIDs(i))
		if n := b.OOMKills(); n != uint64(len(all.PIDs(i))) {
			t.Fatalf("the kernel counted %d in %s, the book %d", n, b.Path, len(all.PIDs(i)))
		}
	}
	if kernel := nodeKills(t) - before; uint64(total) != kernel {
		t.Fatalf("the book has %d kills, the kernel %d: somebody else's kills disturb", total, kernel)
	}
	var said map[string][]int
	err := oomtest.Poll(patience, func() error {
		var err error
		if said, err = p.said(tree.Root); err != nil {
			return err
		}
		return agrees(said, truth, nil, false, tree.Version)
	})
	if err != nil {
		t.Fatalf("%v; without a cgroup: %v", err, said[""])
	}
	p.poll(func() error {
		for path, pids := range truth {
			id := filepath.Base(path)[:12]
			if n := p.containerKills()[id]; n != len(pids) {
				return fmt.Errorf("coroner_oom_kills_total of %s = %d, want %d", id, n, len(pids))
			}
		}
		return nil
	})
	forward(t, shown, p.containerKills())
	if missed, _ := p.metric("coroner_unattributed_oom_kills_total"); missed != 0 {
		t.Errorf("unattributed = %v, want 0", missed)
	}
	named, recovered := 0, 0
	for _, d := range p.below(tree.Root) {
		if d.Recovered {
			recovered++
		}
		if !slices.Contains(pidsOf(&d, "victim"), 0) {
			named++
		}
	}
	if recovered < away {
		t.Errorf("%d deaths are recovered, while the agent was away there were %d", recovered, away)
	}
	t.Logf("%d rounds, %d kills, %d of them while no agent ran; %d recovered, %d known by name", rounds, total, away, recovered, named)
}

// TestAgent_FirstProcessesWhileAway: the agent sees the first process of a
// container OOM-killed, which has several threads and so ends its pid namespace
// by a SIGKILL of its own threads; two more die so while the agent is away, and
// their cgroups go. All are told, none as counted twice.
func TestAgent_FirstProcessesWhileAway(t *testing.T) {
	quiet(t) // the cgroups that go at once are named by the context of their reports
	history := filepath.Join(t.TempDir(), "deaths.db")
	keep := func(o *agent.Options) { o.History.Path = history }
	r := start(t, keep)
	tree := oomtest.New(t)
	run := func(name string, first bool) string {
		box := tree.Cgroup("docker/"+oomtest.ContainerID(name), oomtest.Limit(32*mib))
		box.Run(oomtest.Load{Comm: []byte("first"), NewPIDNS: first})
		if n := box.OOMKills(); n != 1 {
			t.Fatalf("the kernel counted %d OOM kills in %s, want 1", n, box.Path)
		}
		box.Remove()
		return box.Path
	}
	twice := func() uint64 {
		st, err := r.client.Status(t.Context())
		if err != nil || st.Audit == nil {
			t.Fatalf("%+v, %v", st.Audit, err)
		}
		return st.Audit.CountedTwice
	}
	// The log still has the group kills of tests before this one. It is read up
	// to here when the line of this kill is told.
	r.one(run("up to here", false), func(d *death.Death) error {
		if !slices.ContainsFunc(d.Evidence, func(e death.Evidence) bool { return e.Source == death.SourceKmsg }) {
			return errors.New("the log's line is not among the evidence")
		}
		return nil
	})
	before := twice()
	for i := range 4 { // which of its threads is last, and whether it asked for memory, is up to the scheduler
		r.one(run(fmt.Sprint("seen", i), true), func(*death.Death) error { return nil })
	}
	if n := twice() - before; n != 0 {
		t.Errorf("%d counted twice, want none", n)
	}
	r.stop()
	away := []string{run("away", true), run("away too", true)}
	began := r.began
	r = start(t, keep)
	r.began = began
	for _, path := range away {
		d := r.one(path, func(*death.Death) error { return nil })
		if !d.Recovered || !d.Cause.OOM() {
			t.Errorf("recovered %v\n%s", d.Recovered, agentrig.Sketch([]death.Death{d}))
		}
	}
}

// forward wants no counter to go back.
func forward(t *testing.T, shown, now map[string]int) {
	t.Helper()
	for id, n := range shown {
		if now[id] < n {
			t.Errorf("coroner_oom_kills_total of %s went back from %d to %d", id, n, now[id])
		}
	}
	for id, n := range now {
		shown[id] = n
	}
}

// pass lets time pass.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}
