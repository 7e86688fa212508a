// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/history"
	"github.com/coroner-dev/coroner/internal/oomtest"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

// childEnv is the history of a child that is to be killed.
const childEnv = "CORONER_AGENT_TEST_HISTORY"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		keepUntilKilled(path)
	}
	oomtest.Main(m)
}

// keepUntilKilled goes on from a history as an agent does: what comes after
// the sequence number in it is read again, as from the kernel's log. It prints
// the sum of the counters at each scrape.
func keepUntilKilled(path string) {
	ctx := context.Background()
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	store, err := history.Open(ctx, path, history.Options{})
	fail(err)
	state, err := store.State(ctx)
	fail(err)
	a := &Agent{store: store, metrics: metrics.New(metrics.Options{})}
	fail(a.seed(ctx, state))
	known, err := store.Recent(ctx, time.Unix(0, 0), 1<<20)
	fail(err)
	a.metrics.Remember(known)
	k := newKeeper(store, a.metrics, state, slog.New(slog.DiscardHandler))
	total := number(state[stateNodeKills])
	k.latest = audit{kills: total, vmstat: total}
	k.node = func() audit { return audit{kills: total, vmstat: total} }
	go k.run()
	go func() {
		for n := number(state[stateKmsgSeq]); ; n++ {
			total = n + 1
			d := killed(int(n))
			d.Time = time.Unix(int64(n), 0)
			k.give(progress{deaths: []death.Death{d}, state: readTo(n + 1)})
			if n%7 == 0 { // and an amendment, of which the sequence number tells nothing
				d.Revision, d.Cause = 2, death.OOMPodLimit
				k.give(progress{deaths: []death.Death{d}, state: readTo(n + 1)})
			}
			<-time.After(time.Duration(n%5) * 100 * time.Microsecond)
		}
	}()
	for {
		families, err := a.metrics.Gatherer().Gather()
		fail(err)
		sum := 0.0
		for _, f := range families {
			if f.GetName() == "coroner_oom_kills_total" {
				for _, m := range f.GetMetric() {
					sum += m.GetCounter().GetValue()
				}
			}
		}
		fmt.Println(uint64(sum), k.counted().kills)
	}
}

// TestCounters_OverKill9: however often the agent is killed, no scrape shows
// less than one before, and each death is there and counted once.
func TestCounters_OverKill9(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	path := filepath.Join(t.TempDir(), "deaths.db")
	rnd := rand.New(rand.NewPCG(5, 5))
	var shown, machine uint64
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var once sync.Once
		after := time.Duration(20+rnd.IntN(150)) * time.Millisecond
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var sum, kills uint64
			if _, err := fmt.Sscan(lines.Text(), &sum, &kills); err != nil {
				break // cut short by the kill
			}
			if sum < shown || kills < machine {
				t.Errorf("round %d: %d and %d shown after %d and %d", round, sum, kills, shown, machine)
			}
			shown, machine = sum, kills
			once.Do(func() { time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) })
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the child ended by itself: %v", err)
		}
	}
	store, err := history.Open(t.Context(), path, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	state, err := store.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	counts, err := store.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sum := killsIn(slices.Values(counts))
	st, err := store.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d deaths over %d kills", st.Deaths, rounds)
	if sum != uint64(st.Deaths) || sum < shown || number(state[stateKmsgSeq]) > sum || shown == 0 {
		t.Errorf("counters of %d, %d deaths, up to %s; %d were shown", sum, st.Deaths, state[stateKmsgSeq], shown)
	}
	for n := range st.Deaths {
		if _, err := store.Get(t.Context(), killed(int(n)).ID); err != nil {
			t.Errorf("death %d: %v", n, err)
		}
	}
}
