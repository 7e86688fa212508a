// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
)

// books is what a test knows of the rounds that it gave: the n-th brings the
// death n, amends the one before, and counts both in the state and a counter.
type books struct{ rounds int }

func (b *books) next() Round {
	n := b.rounds
	d := sample(n)
	r := Round{
		Deaths: []death.Death{d},
		State:  map[string]string{"n": fmt.Sprint(n)},
		Counts: []Count{{Pod: "web", Cause: death.OOMContainerLimit, OOMKills: uint64(n + 1), Last: d.Time}},
	}
	if n > 0 {
		before := sample(n - 1)
		before.Revision = 2
		r.Deaths = append(r.Deaths, before)
	}
	return r
}

// check compares a history with the rounds that were kept in it. One more may
// be there: what was not acknowledged may have been done all the same.
func (b *books) check(t *testing.T, s *Store) {
	t.Helper()
	ctx := context.Background()
	state, err := s.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	rounds := 0
	if v, ok := state["n"]; ok {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatal(err)
		}
		rounds = n + 1
	}
	if rounds != b.rounds && rounds != b.rounds+1 {
		t.Fatalf("%d rounds are there, %d were acknowledged", rounds, b.rounds)
	}
	got, _, err := s.Since(ctx, Query{Limit: MaxLimit}, 0)
	if err != nil {
		t.Fatal(err)
	}
	revisions, last := map[string]int{}, int64(0)
	for _, e := range got {
		if _, twice := revisions[e.Death.ID]; twice || e.Seq <= last {
			t.Errorf("death %s with seq %d after %d: there twice, or out of order", e.Death.ID, e.Seq, last)
		}
		revisions[e.Death.ID], last = e.Death.Revision, e.Seq
	}
	want := map[string]int{}
	for n := range rounds {
		want[sample(n).ID] = 2
		if n == rounds-1 {
			want[sample(n).ID] = 1
		}
	}
	if diff := cmp.Diff(want, revisions); diff != "" {
		t.Errorf("revisions of the deaths of %d rounds (-want +got):\n%s", rounds, diff)
	}
	if found := ids(t, s, Query{Q: "leaker"}); len(found) != rounds {
		t.Errorf("a search finds %d deaths of %d", len(found), rounds)
	}
	counts, err := s.Counts(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if rounds > 0 && (len(counts) != 1 || counts[0].OOMKills != uint64(rounds)) {
		t.Errorf("counters %+v after %d rounds", counts, rounds)
	}
	var verdict string
	if err := s.write.QueryRow(`PRAGMA integrity_check`).Scan(&verdict); err != nil || verdict != "ok" {
		t.Errorf("integrity: %s, %v", verdict, err)
	}
}

// keep gives rounds until they are kept, as the agent does.
func (b *books) keep(t *testing.T, s *Store, rounds int) (refused int) {
	t.Helper()
	for end := b.rounds + rounds; b.rounds < end; {
		_, err := s.Keep(context.Background(), b.next())
		if err == nil {
			b.rounds++
			continue
		}
		if refused++; refused > 50 {
			t.Fatalf("still refused: %v", err)
		}
	}
	return refused
}

// made is a closed history of some rounds, to copy from.
func made(t *testing.T, rounds int) (dir string, b books) {
	t.Helper()
	dir = t.TempDir()
	s, err := Open(context.Background(), filepath.Join(dir, "h.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	b.keep(t, s, rounds)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, b
}

func copied(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func notAside(t *testing.T, dir string) {
	t.Helper()
	if aside, _ := filepath.Glob(filepath.Join(dir, "*.damaged-*")); len(aside) > 0 {
		t.Errorf("a whole file was set aside: %q", aside)
	}
}

// everyCall runs f with a fault at the 1st, 2nd, ... call, until f makes no
// call of that number. Without CORONER_LONG it takes every fifth, from another
// one on each time.
func everyCall(t *testing.T, stride int, f func(t *testing.T, d *disk, n int) (calls int)) {
	d := newDisk(t)
	if os.Getenv("CORONER_LONG") == "" {
		stride *= 5
	}
	n := 1 + rand.IntN(stride)
	t.Logf("from call %d on, each %d", n, stride)
	for f(t, d, n) >= n && !t.Failed() {
		n += stride
	}
	if n < 30 && !t.Failed() {
		t.Errorf("no more than %d calls", n)
	}
	t.Logf("faults at each of %d calls", n)
}

// TestKeep_FaultAtEveryCall: whatever call fails, and however, what Keep
// acknowledged is there once, and it works again when the disk does.
func TestKeep_FaultAtEveryCall(t *testing.T) {
	dir, had := made(t, 3)
	for _, tt := range []struct {
		name string
		plan func(at int) func(int, call) outcome
	}{
		{"EIO once", func(at int) func(int, call) outcome {
			return func(n int, _ call) outcome {
				if n == at {
					return failed
				}
				return done
			}
		}},
		{"half a write", func(at int) func(int, call) outcome {
			return func(n int, what call) outcome {
				if n == at && what == callWrite {
					return half
				}
				return done
			}
		}},
		{"EIO for 40 calls", func(at int) func(int, call) outcome {
			return func(n int, _ call) outcome {
				if n >= at && n < at+40 {
					return failed
				}
				return done
			}
		}},
		{"disk full for 60 calls", func(at int) func(int, call) outcome {
			return func(n int, what call) outcome {
				if n >= at && n < at+60 && (what == callWrite || what == callOpen) {
					return full
				}
				return done
			}
		}},
		{"no sync for 20 calls", func(at int) func(int, call) outcome {
			return func(n int, what call) outcome {
				if n >= at && n < at+20 && what == callSync {
					return failed
				}
				return done
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			everyCall(t, 1, func(t *testing.T, d *disk, n int) int {
				at, b := copied(t, dir), had
				s, err := Open(context.Background(), filepath.Join(at, "h.db"), Options{vfs: d.name})
				if err != nil {
					t.Fatal(err)
				}
				d.set(tt.plan(n))
				b.keep(t, s, 2)
				_ = s.vacuum(context.Background()) // checkpoints
				b.keep(t, s, 1)
				calls := d.count()
				d.set(nil)
				b.check(t, s)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = open(t, filepath.Join(at, "h.db"), Options{})
				b.check(t, s)
				notAside(t, at)
				if t.Failed() {
					t.Logf("with the fault at call %d", n)
				}
				return calls
			})
		})
	}
}

// TestOpen_FaultAtEveryCall: a fault while the file is opened, and brought up
// to date, is an error and harms nothing.
func TestOpen_FaultAtEveryCall(t *testing.T) {
	fresh, had := made(t, 3)
	older, was := madeAt(t, 1, 3)
	for name, from := range map[string]struct {
		dir string
		b   books
	}{"this version": {fresh, had}, "schema 1": {older, was}, "nothing yet": {t.TempDir(), books{}}} {
		t.Run(name, func(t *testing.T) {
			everyCall(t, 3, func(t *testing.T, d *disk, n int) int {
				at, b := copied(t, from.dir), from.b
				d.set(func(call int, _ call) outcome {
					if call == n {
						return failed
					}
					return done
				})
				s, err := Open(context.Background(), filepath.Join(at, "h.db"), Options{vfs: d.name})
				calls := d.count()
				d.set(nil)
				if err != nil {
					if s, err = Open(context.Background(), filepath.Join(at, "h.db"), Options{vfs: d.name}); err != nil {
						t.Fatalf("after a fault at call %d: %v", n, err)
					}
				}
				b.keep(t, s, 1)
				b.check(t, s)
				notAside(t, at)
				if t.Failed() {
					t.Log(s.Notice())
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				return calls
			})
		})
	}
}

// TestKeep_PowerCutAtEveryCall: of what was written since the last sync the
// cut leaves whatever it likes, in whatever sectors.
func TestKeep_PowerCutAtEveryCall(t *testing.T) {
	dir, had := made(t, 3)
	for _, kill := range []bool{false, true} {
		t.Run(map[bool]string{false: "power cut", true: "kill -9"}[kill], func(t *testing.T) {
			everyCall(t, 1, func(t *testing.T, d *disk, n int) int {
				b := had
				d.files = map[string]*platter{}
				at := copied(t, dir)
				s, err := Open(context.Background(), filepath.Join(at, "h.db"), Options{vfs: d.name})
				if err != nil {
					t.Fatal(err)
				}
				d.set(func(call int, _ call) outcome {
					if call == n {
						return powerIsCut
					}
					return done
				})
				b.untilCut(s)
				calls := d.count()
				var rnd *rand.Rand
				if !kill {
					rnd = rand.New(rand.NewPCG(uint64(n), 9))
				}
				left := copied(t, dir)
				d.leftBy(rnd, left)
				d.set(nil)
				_ = s.Close()
				again := open(t, filepath.Join(left, "h.db"), Options{})
				b.check(t, again)
				notAside(t, left)
				if t.Failed() {
					t.Logf("with the cut at call %d of %d", n, calls)
				}
				return calls
			})
		})
	}
}

func (b *books) untilCut(s *Store) {
	for step := range 6 {
		if step == 3 {
			if s.vacuum(context.Background()) != nil {
				return
			}
			continue
		}
		if _, err := s.Keep(context.Background(), b.next()); err != nil {
			return
		}
		b.rounds++
	}
}

// TestOpen_PowerCutAtEveryCall: a migration that is cut short leaves a file
// that opens, with all that was in it.
func TestOpen_PowerCutAtEveryCall(t *testing.T) {
	dirs, all := map[string]string{}, map[string]books{}
	for _, version := range versions(t) {
		name := fmt.Sprintf("schema %d", version)
		dirs[name], all[name] = madeAt(t, version, 3)
	}
	dirs["nothing yet"], all["nothing yet"] = t.TempDir(), books{}
	for _, name := range slices.Sorted(maps.Keys(dirs)) {
		for _, kill := range []bool{false, true} {
			t.Run(name+map[bool]string{false: ", power cut", true: ", kill -9"}[kill], func(t *testing.T) {
				everyCall(t, 3, func(t *testing.T, d *disk, n int) int {
					b := all[name]
					d.files = map[string]*platter{}
					at := copied(t, dirs[name])
					d.set(func(call int, _ call) outcome {
						if call == n {
							return powerIsCut
						}
						return done
					})
					s, err := Open(context.Background(), filepath.Join(at, "h.db"), Options{vfs: d.name})
					calls := d.count()
					var rnd *rand.Rand
					if !kill {
						rnd = rand.New(rand.NewPCG(uint64(n), 10))
					}
					left := copied(t, dirs[name])
					d.leftBy(rnd, left)
					d.set(nil)
					if err == nil {
						_ = s.Close()
					}
					s = open(t, filepath.Join(left, "h.db"), Options{})
					b.keep(t, s, 1)
					b.check(t, s)
					notAside(t, left)
					return calls
				})
			})
		}
	}
}
