// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

func TestPrune_ByAge(t *testing.T) {
	ctx := context.Background()
	s := open(t, "", Options{Retention: time.Hour})
	entries := put(t, s, samples(600)...)
	now := sample(599).Time
	removed, err := s.Prune(ctx, now)
	if err != nil || removed != 539 {
		t.Fatalf("removed %d, %v; want 539", removed, err)
	}
	got := ids(t, s, Query{Limit: 1000})
	if len(got) != 61 || got[60] != sample(539).ID {
		t.Errorf("%d deaths left, the oldest %q", len(got), got[len(got)-1])
	}
	if got := ids(t, s, Query{Q: "1001"}); got != nil {
		t.Errorf("words of a removed death still find %q", got)
	}
	if next := put(t, s, sample(700)); next[0].Seq != entries[599].Seq+1 {
		t.Errorf("seq %d after %d", next[0].Seq, entries[599].Seq)
	}
	// Everything goes.
	if _, err := s.Prune(ctx, now.Add(1000*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if st, err := s.Stats(ctx); err != nil || st.Deaths != 0 {
		t.Errorf("%d deaths after a thousand hours, %v", st.Deaths, err)
	}
}

func TestPrune_BySizeTakesTheOldestAndShrinksTheFile(t *testing.T) {
	ctx := context.Background()
	const limit = 1 << 20
	s := open(t, "", Options{MaxBytes: limit})
	for n := range 120 {
		d := sample(n)
		d.Evidence[0].Text = strings.Repeat("filler and evidence ", 1500) // 30 KB
		put(t, s, d)
	}
	full, err := s.Stats(ctx)
	if err != nil || full.Bytes < 2*limit {
		t.Fatalf("only %d bytes before: %v", full.Bytes, err)
	}
	if _, err := s.Prune(ctx, epoch); err != nil {
		t.Fatal(err)
	}
	st, err := s.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if st.Bytes > limit || st.Bytes < limit/2 {
		t.Errorf("%d bytes after pruning to %d", st.Bytes, limit)
	}
	if fi, err := os.Stat(s.Path()); err != nil || fi.Size() > limit*5/4 {
		t.Errorf("the file has %d bytes after pruning to %d: %v", fi.Size(), limit, err)
	}
	got := ids(t, s, Query{Limit: 1000})
	for i, id := range got {
		if want := sample(119 - i).ID; id != want {
			t.Fatalf("death %d from the newest is %q, want %q", i, id, want)
		}
	}
	if int64(len(got)) != st.Deaths {
		t.Errorf("%d listed, %d counted", len(got), st.Deaths)
	}
}

// Each death is of a container of its own: nothing else may grow along.
func TestPrune_SizeHoldsOverManyContainers(t *testing.T) {
	ctx := context.Background()
	const limit, batch = 1 << 20, 100
	deaths := 16_000 // the bound holds some 500
	if testing.Short() {
		deaths = 3_000
	}
	// The bound is of the file's pages. Above it come at most one batch and a
	// sixteenth of the bound, put before Run looks again; and beside it the
	// -wal file, which SQLite takes back after 1000 pages of 4 KiB.
	const slack, walSlack = limit / 2, 8 << 20
	s := open(t, "", Options{MaxBytes: limit})
	var largest, largestWAL int64
	for first := 0; first < deaths; first += batch {
		some := make([]death.Death, batch)
		for i := range some {
			d := sample(first + i) // a short one, for the test's time
			d.Processes, d.OOM, d.Evidence, d.Advice = nil, nil, nil, nil
			d.Container.ID = fmt.Sprintf("%064x", (first+i)*7919)
			d.Container.Pod.UID = fmt.Sprintf("0f3c1a52-8f7e-4a87-9b11-%012d", first+i)
			some[i] = d
		}
		put(t, s, some...)
		select {
		case <-s.grown.full: // as Run waits for it
			if _, err := s.Prune(ctx, epoch); err != nil {
				t.Fatal(err)
			}
		default:
		}
		fi, err := os.Stat(s.Path())
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, fi.Size())
		if fi, err = os.Stat(s.Path() + "-wal"); err != nil {
			t.Fatal(err)
		}
		largestWAL = max(largestWAL, fi.Size())
	}
	if largestWAL > walSlack {
		t.Errorf("the -wal file had up to %d bytes, want at most %d", largestWAL, walSlack)
	}
	if largest > limit+slack {
		t.Errorf("the file had up to %d bytes, want at most %d", largest, limit+slack)
	}
	if _, err := s.Prune(ctx, epoch); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(s.Path()); err != nil || fi.Size() > limit {
		t.Errorf("the file has %d bytes at last, %v; want at most %d", fi.Size(), err, limit)
	}
	got := ids(t, s, Query{Limit: 1000})
	if len(got) < 100 {
		t.Errorf("%d deaths are left, want some hundred", len(got))
	}
	for i, id := range got {
		if want := sample(deaths - 1 - i).ID; id != want {
			t.Fatalf("death %d from the newest is %q, want %q", i, id, want)
		}
	}
	t.Logf("the file had up to %d bytes, its -wal up to %d; %d deaths are kept", largest, largestWAL, len(got))
}

func TestRun_PrunesWhenMuchWasPut(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	const limit = 1 << 20
	s := open(t, "", Options{MaxBytes: limit})
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	deadline := time.Now().Add(20 * time.Second)
	for n := 0; ; n++ {
		put(t, s, sample(n))
		st, err := s.Stats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if st.Deaths < int64(n) { // some went
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing pruned at %d bytes of %d", st.Bytes, limit)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}
