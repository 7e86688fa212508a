// SPDX-License-Identifier: Apache-2.0

package history

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPut_FileRemovedOrReplaced(t *testing.T) {
	for _, tt := range []struct {
		name    string
		to      func(t *testing.T, path string)
		before  []string // in the file that is at the path then
		noticed string
	}{
		{"removed", func(t *testing.T, path string) { remove(t, path) }, nil, "was removed"},
		{"removed with all beside it", func(t *testing.T, path string) {
			remove(t, path, path+"-wal", path+"-shm", path+".lock")
		}, nil, "was removed"},
		{"its folder removed", func(t *testing.T, path string) {
			if err := os.RemoveAll(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
		}, nil, "was removed"},
		{"replaced by another history", func(t *testing.T, path string) {
			other := filepath.Join(t.TempDir(), "other.db")
			closed(t, other, 2)
			if err := os.Rename(other, path); err != nil {
				t.Fatal(err)
			}
		}, []string{sample(0).ID, sample(1).ID}, "was replaced"},
		{"replaced by what is no history", func(t *testing.T, path string) {
			remove(t, path)
			if err := os.WriteFile(path, []byte("this was never a database, but it stands there\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, nil, "is kept as"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state", "history.db")
			var log bytes.Buffer
			s, err := Open(context.Background(), path, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			first := put(t, s, sample(100), sample(101))
			tt.to(t, path)
			log.Reset()
			want := slices.Clone(tt.before)
			for n := 102; n < 106; n++ {
				entries := put(t, s, sample(n))
				if len(entries) != 1 || entries[0].Seq <= first[1].Seq && tt.before == nil {
					t.Errorf("entries %+v after seq %d", entries, first[1].Seq)
				}
				want = append(want, sample(n).ID)
			}
			if !strings.Contains(s.Notice(), tt.noticed) || !strings.Contains(s.Notice(), path) || !strings.Contains(s.Notice(), "gone") {
				t.Errorf("notice %q", s.Notice())
			}
			if n := strings.Count(log.String(), "removed or replaced while in use"); n != 1 {
				t.Errorf("logged %d times: %s", n, log.String())
			}
			if _, err := Open(context.Background(), path, Options{}); err == nil {
				t.Error("the new file is not locked")
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			// What counts is what the next run finds at the path.
			got := ids(t, open(t, path, Options{}), Query{})
			slices.Reverse(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("at the path (-want +got):\n%s", diff)
			}
		})
	}
}

func remove(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPut_FileMovedAwayIsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	away := filepath.Join(t.TempDir(), "away.db")
	s := open(t, path, Options{})
	put(t, s, samples(20)...) // all of it still in the -wal
	if err := os.Rename(path, away); err != nil {
		t.Fatal(err)
	}
	put(t, s, sample(20))
	if got := ids(t, s, Query{}); !slices.Equal(got, []string{sample(20).ID}) {
		t.Errorf("at the path: %q", got)
	}
	moved := open(t, away, Options{})
	if got := ids(t, moved, Query{}); len(got) < 20 || got[len(got)-1] != sample(0).ID || moved.Notice() != "" {
		t.Errorf("in the file that was moved away: %q, notice %q", got, moved.Notice())
	}
}

func TestPut_NothingCanStandAtThePath(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "history.db")
	s := open(t, path, Options{})
	put(t, s, sample(1))
	remove(t, path)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := s.Put(ctx, samples(3), nil)
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "--history.path") {
			t.Fatalf("Put: %v, want the path and what to do", err)
		}
	}
	if _, err := s.List(ctx, Query{}); err == nil { // as long as there is none: an error, no panic
		t.Error("List has no error")
	}
	if _, err := s.Prune(ctx, epoch); err == nil {
		t.Error("Prune has no error")
	}
	remove(t, path)
	put(t, s, samples(3)...)
	if got := ids(t, s, Query{}); len(got) != 3 {
		t.Errorf("kept %q", got)
	}
}

func TestStore_FileRemovedWhileItIsRead(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "history.db")
	s := open(t, path, Options{MaxBytes: 1 << 20})
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.List(ctx, Query{Limit: 5}); err != nil {
					t.Error(err)
				}
				if _, err := s.Stats(ctx); err != nil {
					t.Error(err)
				}
				if _, err := s.Prune(ctx, epoch); err != nil {
					t.Error(err)
				}
				_ = s.Notice()
			}
		})
	}
	for n := range 30 {
		if n%5 == 4 {
			remove(t, path)
		}
		put(t, s, sample(n))
		if _, err := s.Get(ctx, sample(n).ID); err != nil {
			t.Errorf("death %d right after Put: %v", n, err)
		}
	}
	close(stop)
	readers.Wait()
}

func BenchmarkLook(b *testing.B) {
	s := open(b, "", Options{})
	for b.Loop() {
		if _, err := s.renew(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// TestClose_StaysClosed: nothing that is asked later opens the file again.
func TestClose_StaysClosed(t *testing.T) {
	ctx := t.Context()
	s, err := Open(ctx, filepath.Join(t.TempDir(), "deaths.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := s.Since(ctx, Query{}, 0); err == nil {
			t.Error("Since answers")
		}
		if _, err := s.Put(ctx, nil, map[string]string{"a": "b"}); err == nil {
			t.Error("Put takes")
		}
	}
}
