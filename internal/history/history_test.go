// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
)

// everywhere runs a test on a file and in memory.
func everywhere(t *testing.T, test func(t *testing.T, s *Store)) {
	for _, path := range []string{"", Memory} {
		t.Run(map[bool]string{true: "memory", false: "file"}[path == Memory], func(t *testing.T) {
			test(t, open(t, path, Options{}))
		})
	}
}

func TestStore_RoundTrip(t *testing.T) {
	everywhere(t, func(t *testing.T, s *Store) {
		ctx := context.Background()
		want := samples(3)
		entries, err := s.Put(ctx, want, map[string]string{"boot_id": "b1", "kmsg_seq": "41"})
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range entries {
			if diff := cmp.Diff(want[i], e.Death); diff != "" {
				t.Errorf("entry %d (-want +got):\n%s", i, diff)
			}
			if i > 0 && e.Seq != entries[i-1].Seq+1 {
				t.Errorf("entry %d has seq %d after %d", i, e.Seq, entries[i-1].Seq)
			}
			got, err := s.Get(ctx, want[i].ID)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want[i], got); diff != "" {
				t.Errorf("Get (-want +got):\n%s", diff)
			}
		}
		if _, err := s.Put(ctx, nil, map[string]string{"kmsg_seq": "42"}); err != nil {
			t.Fatal(err)
		}
		state, err := s.State(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"boot_id": "b1", "kmsg_seq": "42"}, state); diff != "" {
			t.Errorf("State (-want +got):\n%s", diff)
		}
		if _, err := s.Get(ctx, "no such"); !errors.Is(err, ErrNotFound) {
			t.Errorf("Get of an unknown id: %v, want ErrNotFound", err)
		}
		st, err := s.Stats(ctx)
		if err != nil || st.Deaths != 3 || !st.Oldest.Equal(want[0].Time) || !st.Newest.Equal(want[2].Time) || st.Bytes <= 0 {
			t.Errorf("Stats = %+v, %v", st, err)
		}
	})
}

func TestStore_ReopenedKeepsAllAndCountsOn(t *testing.T) {
	ctx := context.Background()
	path := t.TempDir() + "/sub dir/hist?ory#%41.db"
	s, err := Open(ctx, path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	first := put(t, s, sample(1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, Options{})
	if got := ids(t, s, Query{}); !slices.Equal(got, []string{sample(1).ID}) {
		t.Errorf("deaths after reopening: %q", got)
	}
	if next := put(t, s, sample(2)); next[0].Seq != first[0].Seq+1 {
		t.Errorf("seq %d after %d", next[0].Seq, first[0].Seq)
	}
	if s.Notice() != "" {
		t.Errorf("notice %q", s.Notice())
	}
}

func TestPut_RevisionsAndSince(t *testing.T) {
	everywhere(t, func(t *testing.T, s *Store) {
		ctx := context.Background()
		d := sample(1)
		first := put(t, s, d)
		if again := put(t, s, d); len(again) != 0 {
			t.Errorf("the same revision again gave %d entries", len(again))
		}
		other := put(t, s, sample(2))
		d.Revision, d.Cause, d.Summary = 3, death.OOMPodLimit, "amended amethyst"
		amended := put(t, s, d)
		if len(amended) != 1 || amended[0].Seq <= other[0].Seq {
			t.Fatalf("amendment gave %+v", amended)
		}
		lower := d
		lower.Revision, lower.Summary = 2, "late and older"
		if got := put(t, s, lower); len(got) != 0 {
			t.Errorf("a lower revision gave %d entries", len(got))
		}
		got, upTo, err := s.Since(ctx, Query{}, first[0].Seq)
		if err != nil {
			t.Fatal(err)
		}
		want := []Entry{{other[0].Seq, sample(2)}, {amended[0].Seq, d}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Since (-want +got):\n%s", diff)
		}
		if upTo < amended[0].Seq {
			t.Errorf("up to %d, want at least %d", upTo, amended[0].Seq)
		}
		for q, want := range map[string]int{"amethyst": 1, "d": 2, "64 MiB": 1} {
			if got := ids(t, s, Query{Q: q}); len(got) != want && q != "d" {
				t.Errorf("q=%q finds %q, want %d", q, got, want)
			}
		}
		if st, err := s.Stats(ctx); err != nil || st.Deaths != 2 {
			t.Errorf("%d deaths after an amendment, %v; want 2", st.Deaths, err)
		}
		if got := ids(t, s, Query{Cause: []death.Cause{death.OOMPodLimit}}); !slices.Equal(got, []string{d.ID}) {
			t.Errorf("found by the amended cause: %q", got)
		}
	})
}

func TestSince_LimitAndFilterGoOn(t *testing.T) {
	ctx := context.Background()
	s := open(t, "", Options{})
	put(t, s, samples(95)...)
	q := Query{Pod: "web-3", Limit: 4}
	var got []string
	var after int64
	for {
		entries, upTo, err := s.Since(ctx, q, after)
		if err != nil {
			t.Fatal(err)
		}
		if upTo <= after {
			break
		}
		for _, e := range entries {
			got = append(got, e.Death.ID)
		}
		after = upTo
	}
	var want []string
	for n := 3; n < 95; n += 10 {
		want = append(want, sample(n).ID)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRecent_NewestOldestFirst(t *testing.T) {
	s := open(t, "", Options{})
	put(t, s, samples(10)...)
	deaths, err := s.Recent(context.Background(), sample(4).Time, 3)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range deaths {
		got = append(got, d.ID)
	}
	if want := []string{sample(7).ID, sample(8).ID, sample(9).ID}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestList_CursorIsStableWhileDeathsArrive(t *testing.T) {
	ctx := context.Background()
	s := open(t, "", Options{})
	var want []string
	for n := range 200 {
		d := sample(n)
		d.Time = epoch.Add(time.Duration(n/7) * time.Second) // many at the same moment
		put(t, s, d)
		want = append(want, d.ID)
	}
	slices.Reverse(want)

	done := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for n := 1000; ; n++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, err := s.Put(ctx, []death.Death{sample(n)}, nil); err != nil {
				done <- err
				return
			}
		}
	}()
	page, err := s.List(ctx, Query{Limit: 3, Until: epoch.Add(time.Hour)})
	var got []string
	for ; err == nil; page, err = s.List(ctx, Query{Limit: 7, Until: epoch.Add(time.Hour), Cursor: page.Next}) {
		for _, d := range page.Deaths {
			got = append(got, d.ID)
		}
		if page.Next == "" {
			break
		}
	}
	close(stop)
	if putErr := <-done; err != nil || putErr != nil {
		t.Fatal(err, putErr)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestList_EndsAPageBeforeItIsTooLarge(t *testing.T) {
	s := open(t, "", Options{})
	for n := range 10 {
		d := sample(n)
		d.Evidence[0].Text = strings.Repeat("x", 1<<20)
		put(t, s, d)
	}
	page, err := s.List(context.Background(), Query{Limit: 10})
	if err != nil || len(page.Deaths) != 3 || page.Next == "" {
		t.Errorf("page of %d deaths, next %q, %v; want 3 and more", len(page.Deaths), page.Next, err)
	}
	if got := ids(t, s, Query{Limit: 10}); len(got) != 10 {
		t.Errorf("%d deaths over all pages, want 10", len(got))
	}
}

func TestList_Filters(t *testing.T) {
	s := open(t, "", Options{})
	plainProcess := death.Death{
		ID: "process", Revision: 1, Time: epoch.Add(-time.Hour), Node: "node-b", Subject: death.SubjectProcess,
		Cause: death.OOMAncestorLimit, Unit: "nginx.service", Summary: "Process nginx (pid 7) was killed: 100% of 20_MiB used.",
		Processes: []death.Process{{PID: 7, Comm: "(sd-pam)", Fate: death.FateVictim}},
		Evidence:  []death.Evidence{{Text: `comm "a\b" OR 1=1 -- ärger`}},
	}
	plainProcess.Container = &death.Container{ID: "same", Name: "same", Namespace: "n2"}
	put(t, s, sample(1), sample(2), sample(11), plainProcess)
	one, two, eleven, proc := sample(1).ID, sample(2).ID, sample(11).ID, plainProcess.ID
	id := sample(1).Container.ID
	for _, tt := range []struct {
		name string
		q    Query
		want []string
	}{
		{"all", Query{}, []string{eleven, two, one, proc}},
		{"cause", Query{Cause: []death.Cause{death.OOMAncestorLimit}}, []string{proc}},
		{"one of two causes", Query{Cause: []death.Cause{death.OOMAncestorLimit, death.OOMContainerLimit}}, []string{eleven, two, one, proc}},
		{"cause that nothing has", Query{Cause: []death.Cause{"heap_limit"}}, nil},
		{"namespace", Query{Namespace: "shop"}, []string{eleven, two, one}},
		{"namespace of containerd", Query{Namespace: "n2", Container: "same"}, []string{proc}},
		{"another namespace of containerd", Query{Namespace: "n1", Container: "same"}, nil},
		{"pod", Query{Pod: "web-1"}, []string{eleven, one}},
		{"pod uid", Query{Pod: sample(2).Container.Pod.UID}, []string{two}},
		{"container name", Query{Container: "app-2"}, []string{two}},
		{"container id", Query{Container: id}, []string{eleven, one}},
		{"container id prefix", Query{Container: id[:60]}, []string{eleven, two, one}},
		{"container id prefix too short", Query{Container: id[:5]}, nil},
		{"container of wildcards", Query{Container: "%%%%%%%"}, nil},
		{"node", Query{Node: "node-b"}, []string{proc}},
		{"unit", Query{Unit: "nginx.service"}, []string{proc}},
		{"since", Query{Since: sample(2).Time}, []string{eleven, two}},
		{"until", Query{Until: sample(2).Time}, []string{one, proc}},
		{"and", Query{Pod: "web-1", Until: sample(2).Time}, []string{one}},
		{"word", Query{Q: "nginx"}, []string{proc}},
		{"word in capitals", Query{Q: "NGINX"}, []string{proc}},
		{"beginning of a word", Query{Q: "leak"}, []string{eleven, two, one}},
		{"every word", Query{Q: "leaker 1011"}, []string{eleven}},
		{"not every word", Query{Q: "leaker nginx"}, nil},
		{"word with signs", Query{Q: "web-2"}, []string{two}},
		{"cgroup", Query{Q: "/kubepods/burstable"}, []string{eleven, two, one}},
		{"comm in brackets", Query{Q: "(sd-pam)"}, []string{proc}},
		{"quote", Query{Q: `"a\b"`}, []string{proc}},
		{"operator is a word", Query{Q: "OR"}, []string{proc}},
		{"operator AND", Query{Q: "nginx AND leaker"}, nil},
		{"letters beyond ASCII", Query{Q: "ÄRGER"}, []string{proc}},
		{"only signs", Query{Q: "%"}, []string{proc}},
		{"only signs, absent", Query{Q: "€"}, nil},
		{"backslash", Query{Q: `\`}, []string{proc}},
		{"space only", Query{Q: "  \t "}, []string{eleven, two, one, proc}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, ids(t, s, tt.q)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			entries, _, err := s.Since(context.Background(), Query{Q: tt.q.Q, Container: tt.q.Container}, 0)
			if err != nil {
				t.Errorf("Since: %v (%d)", err, len(entries))
			}
		})
	}
}

func TestList_HostileWords(t *testing.T) {
	s := open(t, "", Options{})
	put(t, s, sample(1))
	for _, q := range []string{
		`"`, `""`, `"""`, `'`, `"unclosed`, `a"b`, `NEAR(a b)`, `a NEAR b`, `NOT a`, `AND`, `(`, `)`, `a*`, `*`, `^a`, `words:a`, `{a b}:c`, `-a`, `a + b`,
		"nul\x00byte", "\x00", "\xff\xfe", "a\xffb", `\`, `%`, `_`, "\u202e", "é́", "💥", "Ⅷ", "\U0001E900", "𞤀", "़", "०",
		strings.Repeat("x", 10<<10), strings.Repeat(`"`, 10<<10), strings.Repeat("x ", 5<<10), strings.Repeat("(", 10<<10),
	} {
		if _, err := s.List(context.Background(), Query{Q: q}); err != nil {
			t.Errorf("q=%.40q: %v", q, err)
		}
	}
	var many []string
	for n := range 1000 {
		many = append(many, fmt.Sprint("w", n))
	}
	var qe *QueryError
	if _, err := s.List(context.Background(), Query{Q: strings.Join(many, " ")}); !errors.As(err, &qe) || qe.Field != "q" {
		t.Errorf("1000 words: %v, want a QueryError for q", err)
	}
}

func FuzzSearchWhere(f *testing.F) {
	for _, q := range []string{"", "a b", `"a" OR (b*)`, "nul\x00", "\xff", "💥 é", `\%_`} {
		f.Add(q)
	}
	s, err := Open(context.Background(), Memory, Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	f.Fuzz(func(t *testing.T, q string) {
		var qe *QueryError
		if _, err := s.List(context.Background(), Query{Q: q}); err != nil && !errors.As(err, &qe) {
			t.Errorf("q=%q: %v", q, err)
		}
	})
}

func TestList_ForeignCursor(t *testing.T) {
	s := open(t, "", Options{})
	for _, c := range []string{"x", "!!", "AAAA", "MQ", strings.Repeat("A", 10<<10)} {
		var qe *QueryError
		if _, err := s.List(context.Background(), Query{Cursor: c}); !errors.As(err, &qe) || qe.Field != "cursor" {
			t.Errorf("cursor %.20q: %v, want a QueryError", c, err)
		}
	}
}

func TestPut_HostileText(t *testing.T) {
	s := open(t, "", Options{})
	d := sample(1)
	d.Container.Name, d.Container.Cgroup, d.Summary = "a\x00b\xff", "/x\x1b[31m'; DROP TABLE deaths; --", "nul \x00 in it"
	put(t, s, d)
	if got := ids(t, s, Query{Q: "drop"}); len(got) != 1 {
		t.Errorf("found %q", got)
	}
	if _, err := s.Put(context.Background(), []death.Death{{}}, nil); err == nil {
		t.Error("a death without an id was taken")
	}
}
