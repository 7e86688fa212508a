// SPDX-License-Identifier: Apache-2.0

package history

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// damageBodies changes one byte of the body of each of these deaths in the file.
func damageBodies(t *testing.T, path string, numbers ...int) {
	t.Helper()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range numbers {
		body := []byte(`{"id":"` + sample(n).ID + `"`)
		if bytes.Count(whole, body) != 1 {
			t.Fatalf("the body of death %d is in the file %d times", n, bytes.Count(whole, body))
		}
		whole[bytes.Index(whole, body)] = 'X'
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestStore_UnreadableDeathsAreLeftOut(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "history.db")
	closed(t, path, 10)
	damageBodies(t, path, 4, 7, 8, 9)
	var log bytes.Buffer
	s := open(t, path, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if s.Notice() != "" {
		t.Fatalf("quick_check found it already: %q", s.Notice())
	}
	var want []string // oldest first
	for _, n := range []int{0, 1, 2, 3, 5, 6} {
		want = append(want, sample(n).ID)
	}

	recent, err := s.Recent(ctx, epoch, 100)
	if err != nil {
		t.Fatalf("Recent: %v", err)
	}
	var got []string
	for _, d := range recent {
		got = append(got, d.ID)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Recent (-want +got):\n%s", diff)
	}

	for limit := 1; limit <= 10; limit++ { // the damaged ones at all places of a page
		got = ids(t, s, Query{Limit: limit})
		slices.Reverse(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("List by %d (-want +got):\n%s", limit, diff)
		}
		got = nil
		var after int64
		for {
			entries, upTo, err := s.Since(ctx, Query{Limit: limit}, after)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				got = append(got, e.Death.ID)
			}
			if after = upTo; len(entries) == 0 { // as the stream of the pages takes it
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Since by %d (-want +got):\n%s", limit, diff)
		}
	}
	page, err := s.List(ctx, Query{Limit: 1})
	if err != nil || len(page.Deaths) != 1 || page.Deaths[0].ID != sample(6).ID {
		t.Errorf("the newest one: %+v, %v", page.Deaths, err)
	}

	var unreadable *UnreadableError
	if _, err := s.Get(ctx, sample(8).ID); !errors.As(err, &unreadable) || !strings.Contains(err.Error(), sample(8).ID) {
		t.Errorf("Get: %v, want an UnreadableError with the id", err)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "cannot be read") {
		t.Errorf("logged %d lines, want 1: %s", n, log.String())
	}
	st, err := s.Stats(ctx)
	if err != nil || st.Unreadable != 4 || st.Deaths != 10 {
		t.Errorf("Stats = %+v, %v; want 4 unreadable of 10", st, err)
	}
	if !strings.Contains(s.Notice(), "4 deaths") || !strings.Contains(s.Notice(), path) {
		t.Errorf("notice %q", s.Notice())
	}

	// Put goes on, and heals what it amends.
	healed := sample(8)
	healed.Revision = 2
	put(t, s, sample(20), healed)
	if d, err := s.Get(ctx, healed.ID); err != nil || d.Revision != 2 {
		t.Errorf("after the amendment: revision %d, %v", d.Revision, err)
	}
	if !strings.Contains(s.Notice(), "3 deaths") {
		t.Errorf("notice after the amendment %q", s.Notice())
	}
}

func TestStore_BodyThatIsNoText(t *testing.T) {
	ctx := context.Background()
	s := open(t, "", Options{})
	put(t, s, samples(3)...)
	if _, err := s.write.Exec(`UPDATE deaths SET body = x'00ff' WHERE id = ?`, sample(1).ID); err != nil {
		t.Fatal(err)
	}
	if got := ids(t, s, Query{}); len(got) != 2 {
		t.Errorf("listed %q", got)
	}
	var unreadable *UnreadableError
	if _, err := s.Get(ctx, sample(1).ID); !errors.As(err, &unreadable) {
		t.Errorf("Get: %v", err)
	}
}

func TestStore_WhatAnAgentBeginsWithIsNoError(t *testing.T) {
	ctx := context.Background()
	var log bytes.Buffer
	s := open(t, "", Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if _, err := s.Put(ctx, nil, map[string]string{"boot_id": "b"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.write.Exec(`DROP TABLE state`); err != nil {
		t.Fatal(err)
	}
	state, err := s.State(ctx)
	if err != nil || len(state) != 0 || state == nil {
		t.Errorf("State = %v, %v; want an empty one", state, err)
	}
	if !strings.Contains(log.String(), "state of the last run") {
		t.Errorf("log %q", log.String())
	}
	// The deaths' own table may be as bad.
	if _, err := s.write.Exec(`DROP TABLE sequences`); err != nil {
		t.Fatal(err)
	}
	if deaths, err := s.Recent(ctx, epoch, 10); err != nil || len(deaths) != 0 {
		t.Errorf("Recent = %d deaths, %v; want none", len(deaths), err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.State(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("State of a cancelled context: %v", err)
	}
}
