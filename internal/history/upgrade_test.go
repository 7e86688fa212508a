// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// versions are those of the schema before this one.
func versions(t *testing.T) []int {
	t.Helper()
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil || len(files) < 2 {
		t.Fatalf("migrations %q, %v", files, err)
	}
	var all []int
	for n := range len(files) - 1 {
		all = append(all, n+1)
	}
	return all
}

// madeAt is a closed history of some rounds, as the coroner wrote it whose
// schema had that version.
func madeAt(t *testing.T, version, rounds int) (dir string, b books) {
	t.Helper()
	ctx := context.Background()
	dir = t.TempDir()
	path := filepath.Join(dir, "h.db")
	if err := prepare(path); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", dsn(path, "immediate", ""))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	old := fstest.MapFS{}
	files, _ := fs.Glob(migrations, "migrations/*.sql")
	for _, name := range files[:version] {
		text, err := fs.ReadFile(migrations, name)
		if err != nil {
			t.Fatal(err)
		}
		old[strings.TrimPrefix(name, "migrations/")] = &fstest.MapFile{Data: text}
	}
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.Exec(statement, args...); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	exec(fmt.Sprintf(`PRAGMA application_id = %d`, applicationID))
	if err := migrateWith(ctx, db, old); err != nil {
		t.Fatal(err)
	}
	if err := createSearch(ctx, db); err != nil {
		t.Fatal(err)
	}
	exec(`INSERT INTO sequences (name, value) VALUES ('deaths', 1770000000000000)`)
	for ; b.rounds < rounds; b.rounds++ {
		d := sample(b.rounds)
		if d.Revision = 2; b.rounds == rounds-1 {
			d.Revision = 1
		}
		body, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		seq := 1770000000000000 - rounds + b.rounds
		exec(`INSERT INTO deaths (seq, revision, time_ns, node, subject, cause, namespace, pod, pod_uid, container_id,
			container_name, unit, cgroup, words, body, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			columns(row{&d, searchable(&d), body}, int64(seq))...)
		exec(`INSERT INTO deaths_words (rowid, words) VALUES (?, ?)`, seq, searchable(&d))
		exec(`INSERT INTO state (name, value) VALUES ('n', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, fmt.Sprint(b.rounds))
		if version >= 2 {
			exec(`INSERT INTO counters VALUES ('', 'web', '', 'oom_container_limit', ?, 0, ?) ON CONFLICT DO UPDATE SET oom_kills = excluded.oom_kills`,
				b.rounds+1, d.Time.UnixNano())
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, b
}

// TestOpen_EarlierSchemas: every death, state and counter of a file that an
// earlier version wrote is there afterwards.
func TestOpen_EarlierSchemas(t *testing.T) {
	for _, version := range versions(t) {
		t.Run(fmt.Sprint("schema ", version), func(t *testing.T) {
			dir, b := madeAt(t, version, 5)
			s := open(t, filepath.Join(dir, "h.db"), Options{})
			if s.Notice() != "" {
				t.Errorf("notice %q", s.Notice())
			}
			for n := range b.rounds {
				if d, err := s.Get(context.Background(), sample(n).ID); err != nil || d.Summary != sample(n).Summary {
					t.Errorf("death %d: %+v, %v", n, d, err)
				}
			}
			b.keep(t, s, 2)
			b.check(t, s)
		})
	}
}
