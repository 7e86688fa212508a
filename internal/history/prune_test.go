// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPrune_ByAge(t *testing.T) {
	ctx := context.Background()
	s := open(t, "", Options{Retention: time.Hour})
	entries := put(t, s, samples(600)...)
	before, err := s.Counts(ctx)
	if err != nil {
		t.Fatal(err)
	}
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
	after, err := s.Counts(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("counts fell by pruning (-want +got):\n%s", diff)
	}
	if next := put(t, s, sample(700)); next[0].Seq != entries[599].Seq+1 {
		t.Errorf("seq %d after %d", next[0].Seq, entries[599].Seq)
	}
	// Everything goes, and the counts of owners that were silent for long.
	if _, err := s.Prune(ctx, now.Add(1000*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if counts, err := s.Counts(ctx); err != nil || len(counts) != 0 {
		t.Errorf("counts after a thousand hours: %+v, %v", counts, err)
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
