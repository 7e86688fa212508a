// SPDX-License-Identifier: Apache-2.0

package history

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func closed(t *testing.T, path string, n int) {
	t.Helper()
	s, err := Open(context.Background(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, samples(n)...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpen_DamagedFileIsSetAside(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(whole []byte) []byte
	}{
		{"no database at all", func([]byte) []byte { return []byte("this was never a database, but somebody wrote it here\n") }},
		{"header overwritten", func(b []byte) []byte { return append(bytes.Repeat([]byte{0xA5}, 100), b[100:]...) }},
		{"middle overwritten", func(b []byte) []byte {
			copy(b[len(b)/4:], bytes.Repeat([]byte{0x5A}, len(b)/2))
			return b
		}},
		{"cut short", func(b []byte) []byte { return b[:len(b)/2] }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := context.Background()
			path := filepath.Join(t.TempDir(), "history.db")
			closed(t, path, 300)
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			broken := tt.damage(whole)
			if err := os.WriteFile(path, broken, 0o600); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			now := func() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC) }
			for _, aside := range []string{path + ".damaged-20260304T050607", path + ".damaged-20260304T050607-2"} {
				s, err := Open(ctx, path, Options{Now: now, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(s.Notice(), aside) || !strings.Contains(log.String(), "damaged history set aside") {
					t.Errorf("notice %q, log %q", s.Notice(), log.String())
				}
				kept, err := os.ReadFile(aside)
				if err != nil || !bytes.Equal(kept, broken) {
					t.Errorf("%s: the file set aside is not what was there: %v, %d bytes, want %d", s.Notice(), err, len(kept), len(broken))
				}
				put(t, s, sample(7))
				if got := ids(t, s, Query{}); len(got) != 1 {
					t.Errorf("the new history has %q", got)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, broken, 0o600); err != nil { // once more, in the same second
					t.Fatal(err)
				}
			}
		})
	}
}

// TestOpen_EmptiedFile: what was cut to nothing while its log of writes was
// still there is no new history.
func TestOpen_EmptiedFile(t *testing.T) {
	for _, inUse := range []bool{false, true} {
		t.Run(fmt.Sprint("in use ", inUse), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "history.db")
			s, err := Open(context.Background(), path, Options{})
			if err != nil {
				t.Fatal(err)
			}
			put(t, s, sample(1), sample(2))
			other := path
			if !inUse { // as a crash leaves it
				other = filepath.Join(t.TempDir(), "history.db")
				for _, suffix := range []string{"", "-wal"} {
					b, err := os.ReadFile(path + suffix)
					if err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(other+suffix, b, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := os.Truncate(other, 0); err != nil {
				t.Fatal(err)
			}
			if !inUse {
				if s, err = Open(context.Background(), other, Options{}); err != nil {
					t.Fatal(err)
				}
			}
			t.Cleanup(func() { _ = s.Close() })
			put(t, s, sample(3))
			got := ids(t, s, Query{})
			whole := len(got) == 3 // the log of writes had all of it
			if !whole && (len(got) != 1 || !strings.Contains(s.Notice(), "is kept as")) {
				t.Errorf("deaths %q, notice %q", got, s.Notice())
			}
			aside, _ := filepath.Glob(other + ".damaged-*-wal")
			if !inUse && len(aside) != 1 {
				t.Errorf("the log of writes set aside: %q, notice %q", aside, s.Notice())
			}
		})
	}
}

func TestOpen_Refuses(t *testing.T) {
	ctx := context.Background()
	sqlFile := func(t *testing.T, path string, statements ...string) {
		t.Helper()
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range statements {
			if _, err := db.Exec(s); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		make func(t *testing.T, dir string) (path string)
		want []string
	}{
		{"newer schema", func(t *testing.T, dir string) string {
			closed(t, dir+"/h.db", 1)
			sqlFile(t, dir+"/h.db", `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)`)
			return dir + "/h.db"
		}, []string{"newer coroner", "schema 99"}},
		{"another program's database", func(t *testing.T, dir string) string {
			sqlFile(t, dir+"/h.db", `CREATE TABLE bookmarks (url text)`)
			return dir + "/h.db"
		}, []string{"another program"}},
		{"a folder", func(_ *testing.T, dir string) string { return dir }, []string{"is a directory"}},
		{"below a file", func(t *testing.T, dir string) string {
			if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return dir + "/file/history.db"
		}, []string{"not a directory"}},
		{"where no folder can be made", func(*testing.T, string) string { return "/proc/coroner/history.db" }, []string{"/proc/coroner"}},
		{"no regular file", func(*testing.T, string) string { return "/dev/null" }, []string{"no regular file"}},
		{"no path", func(*testing.T, string) string { return "" }, []string{"no path"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := tt.make(t, t.TempDir())
			s, err := Open(ctx, path, Options{})
			if err == nil {
				_ = s.Close()
				t.Fatal("no error")
			}
			for _, want := range append(tt.want, path, "--history.path") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error of more than one line: %q", err)
			}
			if beside, _ := filepath.Glob(path + ".damaged-*"); len(beside) > 0 {
				t.Errorf("set aside: %q", beside)
			}
		})
	}
}

func TestOpen_FileIsPrivate(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir+"/state/history.db", Options{})
	put(t, s, sample(1))
	for _, name := range []string{"history.db", "history.db-wal", "history.db-shm"} {
		fi, err := os.Stat(filepath.Join(dir, "state", name))
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, fi.Mode())
		}
	}
	if fi, err := os.Stat(dir + "/state"); err != nil || fi.Mode().Perm()&0o027 != 0 {
		t.Errorf("folder has mode %v, %v", fi.Mode(), err)
	}
}
