// SPDX-License-Identifier: Apache-2.0

package history

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
)

// ran runs s until the test ends.
func ran(t *testing.T, s *Store) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// TestStandby_ComesBack: what is kept in memory is in the file once that can
// be opened, each death once, under the numbers by which streams go on.
func TestStandby_ComesBack(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	path := filepath.Join(dir, "sub", "h.db")
	// The file has a past: deaths 0 to 2, of which 2 is to come again, amended.
	closed(t, path, 3)
	if err := os.Rename(filepath.Dir(path), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Dir(path), nil, 0o600); err != nil { // in the way
		t.Fatal(err)
	}
	s := open(t, path, Options{Standby: true})
	if s.Path() != Memory || s.Trouble() == nil || !strings.Contains(s.Trouble().Error(), path) {
		t.Fatalf("path %s, trouble %v", s.Path(), s.Trouble())
	}
	amended := sample(2)
	amended.Revision, amended.Summary = 4, "amended"
	kept, err := s.Keep(ctx, Round{
		Deaths: []death.Death{sample(5), amended, sample(6)},
		State:  map[string]string{"kmsg_seq": "77"},
		Counts: []Count{{Pod: "p", Cause: death.OOMNode, OOMKills: 2}},
	})
	if err != nil {
		t.Fatal(err)
	}
	before, upTo, err := s.Since(ctx, Query{}, 0)
	if err != nil || len(before) != 3 {
		t.Fatalf("%d deaths in memory, %v", len(before), err)
	}
	ran(t, s)
	if err := os.Remove(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "away"), filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "back in the file", func() bool { return s.Trouble() == nil })
	if s.Path() != path || !strings.Contains(s.Notice(), "3 deaths") {
		t.Errorf("path %s, notice %q", s.Path(), s.Notice())
	}
	if again, _, err := s.Since(ctx, Query{}, upTo); err != nil || len(again) != 0 {
		t.Errorf("a stream gets %d deaths twice, %v", len(again), err)
	}
	more := put(t, s, sample(7))
	if more[0].Seq <= kept.Entries[2].Seq {
		t.Errorf("seq %d after %d", more[0].Seq, kept.Entries[2].Seq)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, Options{})
	want := []string{sample(7).ID, sample(6).ID, sample(5).ID, sample(2).ID, sample(1).ID, sample(0).ID}
	if diff := cmp.Diff(want, ids(t, s, Query{})); diff != "" {
		t.Errorf("in the file (-want +got):\n%s", diff)
	}
	if d, err := s.Get(ctx, sample(2).ID); err != nil || d.Summary != "amended" {
		t.Errorf("amended death: %+v, %v", d, err)
	}
	state, _ := s.State(ctx)
	counts, _ := s.Counts(ctx)
	if state["kmsg_seq"] != "77" || len(counts) != 1 || counts[0].OOMKills != 2 {
		t.Errorf("state %v, counters %+v", state, counts)
	}
}

// TestStandby_ClockSetBack: the file's numbers are above those in memory.
func TestStandby_ClockSetBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h.db")
	other := open(t, path, Options{}) // has the file
	put(t, other, samples(3)...)
	s := open(t, path, Options{Standby: true, Now: func() time.Time { return time.Unix(1000, 0) }})
	put(t, s, sample(8), sample(9))
	ran(t, s)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "back in the file", func() bool { return s.Trouble() == nil })
	all, _, err := s.Since(context.Background(), Query{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range all {
		got = append(got, e.Death.ID)
	}
	if diff := cmp.Diff([]string{sample(0).ID, sample(1).ID, sample(2).ID, sample(8).ID, sample(9).ID}, got); diff != "" {
		t.Errorf("in order (-want +got):\n%s", diff)
	}
}

// TestStandby_IsBounded: what memory has no room for is counted.
func TestStandby_IsBounded(t *testing.T) {
	ctx := context.Background()
	s := open(t, filepath.Join(t.TempDir(), "no", "\x00"), Options{Standby: true})
	given := 0
	for range 12 {
		var deaths []death.Death
		for range 500 {
			d := sample(given)
			d.Evidence[0].Text = strings.Repeat("x", 4000)
			deaths = append(deaths, d)
			given++
		}
		put(t, s, deaths...)
		if _, err := s.Prune(ctx, epoch); err != nil {
			t.Fatal(err)
		}
	}
	st, err := s.Stats(ctx)
	if err != nil || st.Bytes > standbyBytes {
		t.Errorf("%d bytes, %v", st.Bytes, err)
	}
	if got := uint64(st.Deaths) + s.Dropped(); got != uint64(given) || s.Dropped() == 0 {
		t.Errorf("%d deaths and %d dropped of %d", st.Deaths, s.Dropped(), given)
	}
}

// TestKeep_DamagedWhileInUse: the damaged file is set aside at once, and what
// comes is kept in a new one.
func TestKeep_DamagedWhileInUse(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "h.db")
	var log bytes.Buffer
	s := open(t, path, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	put(t, s, samples(2000)...)
	if err := s.checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	overwrite(t, path)
	anew, kept := 0, 0
	for n := 2000; n < 2040; n++ {
		r, err := s.Keep(ctx, Round{Deaths: []death.Death{sample(n)}})
		if err != nil {
			t.Fatalf("death %d: %v", n, err)
		}
		if r.Anew {
			anew++
			kept = n
		}
	}
	if anew != 1 || !strings.Contains(s.Notice(), "is kept as "+path+".damaged-") {
		t.Fatalf("begun anew %d times, notice %q", anew, s.Notice())
	}
	got := ids(t, s, Query{})
	if len(got) != 2040-kept || got[len(got)-1] != sample(kept).ID {
		t.Errorf("%d deaths since death %d", len(got), kept)
	}
}

// TestRun_DamageMetByAReader: a read that meets damage lets Run look.
func TestRun_DamageMetByAReader(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "h.db")
	s := open(t, path, Options{})
	put(t, s, samples(2000)...)
	if err := s.checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	ran(t, s)
	overwrite(t, path)
	for n := 0; n < 2000; n += 50 {
		_, _ = s.Get(ctx, sample(n).ID)
	}
	eventually(t, "set aside", func() bool { return strings.Contains(s.Notice(), "is kept as") })
	put(t, s, sample(1))
	if got := ids(t, s, Query{}); len(got) != 1 {
		t.Errorf("the new history has %d deaths", len(got))
	}
}

// overwrite spoils all but the first pages of a file.
func overwrite(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := f.Stat()
	if err == nil {
		_, err = f.WriteAt(bytes.Repeat([]byte{0x5A}, int(fi.Size())-8192), 8192)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestKeep_LogOfWritesRemoved: SQLite would go on writing into a file without
// a name, and the next run would find nothing of it.
func TestKeep_LogOfWritesRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h.db")
	s := open(t, path, Options{})
	put(t, s, samples(5)...)
	remove(t, path+wal)
	put(t, s, sample(5))
	put(t, s, sample(6))
	if !strings.Contains(s.Notice(), "-wal was removed") {
		t.Errorf("notice %q", s.Notice())
	}
	left := t.TempDir() // as a kill -9 leaves it
	if err := os.CopyFS(left, os.DirFS(filepath.Dir(path))); err != nil {
		t.Fatal(err)
	}
	if got := ids(t, open(t, filepath.Join(left, "h.db"), Options{}), Query{}); len(got) != 7 {
		t.Errorf("the next run finds %q", got)
	}
}
