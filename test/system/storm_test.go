// SPDX-License-Identifier: Apache-2.0

//go:build linux

package system

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
)

// long tells whether the tests that take many minutes run.
func long() bool { return os.Getenv("CORONER_LONG") != "" }

// storm is a storm and the cgroups in which it is.
type storm struct {
	*oomtest.Storm
	boxes []*oomtest.Cgroup
}

func newStorm(t *testing.T, tree *oomtest.Tree, name string, boxes, kills int, pause time.Duration) storm {
	t.Helper()
	var s storm
	for i := range boxes {
		s.boxes = append(s.boxes, tree.Cgroup("docker/"+oomtest.ContainerID(fmt.Sprint(tree.Root, name, i)), oomtest.Limit(oomtest.StormBytes)))
	}
	s.Storm = oomtest.StartStorm(t, s.boxes, kills, pause)
	return s
}

// truth is which processes were killed where.
func (s storm) truth() map[string][]int {
	out := map[string][]int{}
	for i, b := range s.boxes {
		pids := s.PIDs(i)
		slices.Sort(pids)
		out[b.Path] = pids
	}
	return out
}

// said is the same as the agent tells it; a process that is not known by name
// has pid 0.
func (r *rig) said(root string) (map[string][]int, error) {
	out := map[string][]int{}
	for d, err := range r.client.All(r.t.Context(), api.Query{Since: r.began}) {
		if err != nil {
			return nil, err
		}
		if at := cgroupOf(&d); at == "" || strings.HasPrefix(at, root+"/") {
			out[at] = append(out[at], pidsOf(&d, death.FateVictim)...)
		}
	}
	for _, pids := range out {
		slices.Sort(pids)
	}
	return out, nil
}

// makeNoise fills the kernel's log with lines of no meaning, so that what was
// not read in time is lost. The console does not get them. The kernel takes
// ten lines of each open file.
func makeNoise(t *testing.T) {
	t.Helper()
	line := []byte("<15>coroner-test: " + strings.Repeat("noise ", 120) + "\n")
	for range 50 {
		f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if _, err := f.Write(line); err != nil {
				t.Fatal(err)
			}
		}
		_ = f.Close()
	}
}

// TestAgent_Storm is S18.
func TestAgent_Storm(t *testing.T) {
	on := agent.Defaults().Source
	with := func(change func(*agent.SourceOptions)) agent.SourceOptions {
		s := on
		change(&s)
		return s
	}
	boxes, kills, fallback := 200, 20, 5
	if testing.Short() {
		boxes, kills, fallback = 20, 5, 5
	}
	if long() { // 10,000 kills each
		kills, fallback = 50, 50
	}
	type situation struct {
		name    string
		sources agent.SourceOptions
		kills   int
		// named: each victim is known by its pid. Else how many died in each
		// cgroup that is still there is known, and no wrong name is told.
		named bool
	}
	situations := []situation{
		{"bpf, log and counters", on, kills, true},
		{"tracefs, log and counters", with(func(s *agent.SourceOptions) { s.TracepointMode = "tracefs" }), fallback, false},
		{"log and counters", with(func(s *agent.SourceOptions) { s.Tracepoint = false }), fallback, false},
		{"counters alone", with(func(s *agent.SourceOptions) { s.Tracepoint, s.Kmsg = false, false }), fallback, false},
	}
	if testing.Short() { // an emulated machine takes minutes for each
		situations = situations[:1]
	}
	for _, tc := range situations {
		t.Run(tc.name, func(t *testing.T) {
			p := spawn(t, setup{History: filepath.Join(t.TempDir(), "deaths.db"), Sources: tc.sources})
			p.waitUp()
			before := nodeKills(t)
			tree := oomtest.New(t)
			all := newStorm(t, tree, "storm", boxes, tc.kills, 0)
			short := newStorm(t, tree, "short", boxes/10, 2, 0)
			removed := p.weather(all, short)
			kernel := nodeKills(t) - before

			truth := all.truth()
			for path, pids := range short.truth() {
				truth[path] = pids
			}
			total := 0
			for _, pids := range truth {
				total += len(pids)
			}
			for i, b := range all.boxes {
				if n := b.OOMKills(); n != uint64(len(all.PIDs(i))) {
					t.Errorf("the kernel counted %d in %s, the book %v", n, b.Path, all.PIDs(i))
				}
			}
			if uint64(total) != kernel {
				t.Fatalf("the book has %d kills, the kernel %d: somebody else's kills disturb", total, kernel)
			}
			p.audited(tree.Root, total, func(said map[string][]int) error {
				if err := agrees(said, truth, removed, tc.named, tree.Version); err != nil {
					return err
				}
				return p.countsAgree(said)
			})
			p.cost(total)
		})
	}
}

// TestAgent_ThrottledInAStorm: an agent that gets a tenth of a processor, as a
// limit of 100m gives it, falls behind a storm. What the kernel then drops has
// no name; each kill is still told once, in its cgroup.
func TestAgent_ThrottledInAStorm(t *testing.T) {
	boxes, kills := 40, 50
	if testing.Short() {
		boxes, kills = 10, 20
	}
	p := spawn(t, setup{History: filepath.Join(t.TempDir(), "deaths.db"), Sources: agent.Defaults().Source})
	p.waitUp()
	before := nodeKills(t)
	tree := oomtest.New(t)
	all := newStorm(t, tree, "throttled", boxes, kills, 0)
	p.throttle(all.Wait)
	truth, total := all.truth(), 0
	for _, pids := range truth {
		total += len(pids)
	}
	if kernel := nodeKills(t) - before; uint64(total) != kernel {
		t.Fatalf("the book has %d kills, the kernel %d: somebody else's kills disturb", total, kernel)
	}
	p.audited(tree.Root, total, func(said map[string][]int) error {
		if err := agrees(said, truth, nil, false, tree.Version); err != nil {
			return err
		}
		return p.countsAgree(said)
	})
	p.cost(total)
}

// throttle lets the agent run for a tenth of the time while do does something.
func (p *process) throttle(do func()) {
	p.t.Helper()
	over := make(chan struct{})
	go func() {
		defer close(over)
		do()
	}()
	for {
		for _, turn := range []struct {
			signal syscall.Signal
			lasts  time.Duration
		}{{syscall.SIGSTOP, 90 * time.Millisecond}, {syscall.SIGCONT, 10 * time.Millisecond}} {
			p.signal(turn.signal)
			pass(p.t, turn.lasts)
		}
		select {
		case <-over:
			return
		default:
		}
	}
}

// weather lets a storm pass: cgroups go as soon as their kills are over, and
// the agent is stopped for moments in which the log overruns.
func (p *process) weather(all, short storm) (removed map[string]bool) {
	p.t.Helper()
	removed = map[string]bool{}
	over := make(chan struct{})
	go func() {
		defer close(over)
		all.Wait()
		short.Wait()
	}()
	naps := time.NewTicker(700 * time.Millisecond)
	defer naps.Stop()
	for n := 0; ; n++ {
		for i, b := range short.boxes {
			if short.Over(i) && !removed[b.Path] {
				b.Remove()
				removed[b.Path] = true
			}
		}
		select {
		case <-over:
			return removed
		case <-naps.C:
			if n < 3 {
				p.signal(syscall.SIGSTOP)
				makeNoise(p.t)
				p.signal(syscall.SIGCONT)
			}
		}
	}
}

// agrees holds what was said against the truth.
func agrees(said, truth map[string][]int, removed map[string]bool, named bool, version int) error {
	for path, pids := range truth {
		got := said[path]
		switch {
		case named && !slices.Equal(got, pids):
			return fmt.Errorf("in %s died %v, want %v", path, got, pids)
		case named:
		case !removed[path] && len(got) != len(pids):
			return fmt.Errorf("in %s died %d, want %d", path, len(got), len(pids))
		case len(got) > len(pids):
			return fmt.Errorf("in %s, which was removed, died %d, more than %d", path, len(got), len(pids))
		}
		for _, pid := range got {
			if pid != 0 && !slices.Contains(pids, pid) {
				return fmt.Errorf("pid %d did not die in %s", pid, path)
			}
		}
	}
	for path, pids := range said {
		if _, known := truth[path]; !known && path != "" {
			return fmt.Errorf("%v died in %s, where nobody did", pids, path)
		}
	}
	return nil
}

// audited wants all kills told as want says, or counted as unattributed, in
// the metrics too.
func (p *process) audited(root string, total int, want func(map[string][]int) error) {
	p.t.Helper()
	var said map[string][]int
	err := oomtest.Poll(2*patience, func() error {
		var err error
		if said, err = p.said(root); err != nil {
			return err
		}
		told := 0
		for _, pids := range said {
			told += len(pids)
		}
		counted, known := p.metric("coroner_node_oom_kills_total")
		missed, _ := p.metric("coroner_unattributed_oom_kills_total")
		if !known || int(counted) != total || told+int(missed) != total {
			return fmt.Errorf("%d told, %v unattributed, %v counted; want %d", told, missed, counted, total)
		}
		return want(said)
	})
	if err != nil {
		p.t.Fatalf("%v; without a cgroup: %d", err, len(said[""]))
	}
	missed, _ := p.metric("coroner_unattributed_oom_kills_total")
	p.t.Logf("%d kills, %d without a cgroup, %v unattributed; lost: %v of the log, %v of the tracepoints", total, len(said[""]), missed,
		p.sum("coroner_source_lost_total", `source="kmsg"`), p.sum("coroner_source_lost_total", `source="tracepoint"`))
}

// countsAgree holds the counters against the deaths of each container.
func (r *rig) countsAgree(said map[string][]int) error {
	counts := r.containerKills()
	var wrong []error
	for path, pids := range said {
		if id := filepath.Base(path); path != "" && counts[id[:12]] != len(pids) {
			wrong = append(wrong, fmt.Errorf("coroner_oom_kills_total of %s is %d, want %d", id[:12], counts[id[:12]], len(pids)))
		}
	}
	return errors.Join(wrong...)
}

// containerKills is coroner_oom_kills_total by container.
func (r *rig) containerKills() map[string]int {
	r.t.Helper()
	out := map[string]int{}
	for l := range strings.Lines(r.get("/metrics")) {
		rest, ok := strings.CutPrefix(l, "coroner_oom_kills_total{")
		_, rest, found := strings.Cut(rest, `container="`)
		if !ok || !found {
			continue
		}
		id, rest, _ := strings.Cut(rest, `"`)
		var n float64
		if _, err := fmt.Sscan(rest[strings.LastIndexByte(rest, '}')+1:], &n); err != nil {
			r.t.Fatalf("parse %q: %v", l, err)
		}
		out[id] += int(n)
	}
	return out
}

// cost logs what the storm cost the agent, and wants its memory bounded.
func (p *process) cost(kills int) {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	var peak int64
	if _, err := fmt.Sscan(rest, &peak); err != nil {
		p.t.Fatal(err)
	}
	p.stop()
	used := p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
	p.t.Logf("at most %d MiB resident, %v of CPU, %v a kill", peak>>10, used.Round(time.Millisecond), (used / time.Duration(kills)).Round(time.Microsecond))
	if peak<<10 > 160*mib {
		p.t.Error(errors.New("more than 160 MiB"))
	}
}
