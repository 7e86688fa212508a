// SPDX-License-Identifier: Apache-2.0

//go:build unix

package lastwords

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// entry is a line as Docker's json-file driver writes it.
func entry(text string, at time.Time) string {
	return fmt.Sprintf("{\"log\":%q,\"stream\":\"stderr\",\"time\":%q}\n", text+"\n", at.Format(time.RFC3339Nano))
}

func put(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, r *Reader, path string) signal.ContainerLog {
	t.Helper()
	l, err := r.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Read(t.Context(), Ask{ContainerID: "c1"})
}

func texts(a signal.ContainerLog) []string {
	var out []string
	for _, l := range a.Lines {
		out = append(out, l.Text)
	}
	return out
}

// TestOpen_OnlyWhatIsALog: no link is followed out of the folder, and nothing
// but a regular file is opened.
func TestOpen_OnlyWhatIsALog(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside", "secret.log")
	put(t, outside, entry("secret", noon))
	logs := filepath.Join(dir, "logs")
	put(t, filepath.Join(logs, "real.log"), entry("real", noon))
	must(t, os.Symlink("real.log", filepath.Join(logs, "inside.log")))
	must(t, os.Symlink("../outside/secret.log", filepath.Join(logs, "relative.log")))
	must(t, os.Symlink(outside, filepath.Join(logs, "absolute.log")))
	must(t, os.Symlink("loop.log", filepath.Join(logs, "loop.log")))
	must(t, os.Symlink(os.DevNull, filepath.Join(logs, "null.log")))
	must(t, os.Mkdir(filepath.Join(logs, "folder.log"), 0o755))
	must(t, syscall.Mkfifo(filepath.Join(logs, "pipe.log"), 0o600))
	must(t, os.Symlink("../outside/secret.log", filepath.Join(logs, "c-json.log.1")))
	put(t, filepath.Join(logs, "c-json.log"), entry("new", noon))
	for _, tc := range []struct {
		path string
		want string // "": refused
	}{
		{"real.log", "real"}, {"inside.log", "real"}, {"c-json.log", "new"},
		{"relative.log", ""}, {"absolute.log", ""}, {"loop.log", ""}, {"null.log", ""}, {"folder.log", ""}, {"pipe.log", ""}, {"missing.log", ""},
	} {
		t.Run(tc.path, func(t *testing.T) {
			r := &Reader{}
			l, err := r.Open(filepath.Join(logs, tc.path))
			if (err == nil) != (tc.want != "") {
				t.Fatalf("Open: %v", err)
			}
			if err != nil {
				return
			}
			defer l.Close()
			if got := texts(l.Read(t.Context(), Ask{})); len(got) != 1 || got[0] != tc.want {
				t.Errorf("read %q, want %q", got, tc.want)
			}
		})
	}
	for _, path := range []string{"", "real.log", "/", "/" + strings.Repeat("x", 5000)} {
		if _, err := (&Reader{}).Open(path); err == nil {
			t.Errorf("Open(%.20q) opens something", path)
		}
	}
}

// TestOpen_BelowRoot: where the host's root is seen below another directory,
// no link on the way leads out of it.
func TestOpen_BelowRoot(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "host")
	put(t, filepath.Join(dir, "outside", "c.log"), entry("outside", noon))
	put(t, filepath.Join(root, "var", "lib", "c.log"), entry("host's", noon))
	must(t, os.Symlink("lib", filepath.Join(root, "var", "relative")))
	must(t, os.Symlink(filepath.Join(dir, "outside"), filepath.Join(root, "var", "absolute")))
	must(t, os.Symlink("../../outside", filepath.Join(root, "var", "up")))
	r := &Reader{Roots: host.Roots{Root: root}}
	for _, path := range []string{"/var/lib/c.log", "/var/relative/c.log", "/../../var/lib/c.log"} {
		if got := texts(read(t, r, path)); len(got) != 1 || got[0] != "host's" {
			t.Errorf("%s: read %q", path, got)
		}
	}
	for _, path := range []string{"/var/absolute/c.log", "/var/up/c.log", filepath.Join(dir, "outside", "c.log")} {
		if _, err := r.Open(path); err == nil {
			t.Errorf("%s opens something", path)
		}
	}
}

// TestRead_Large: the size of a log and of a line do not matter.
func TestRead_Large(t *testing.T) {
	dir := t.TempDir()
	sparse := filepath.Join(dir, "sparse.log")
	f, err := os.Create(sparse)
	must(t, err)
	must(t, f.Truncate(10<<30))
	_, err = f.WriteAt([]byte("\n"+entry("the end", noon)), 10<<30)
	must(t, err)
	must(t, f.Close())
	st, err := os.Stat(sparse)
	must(t, err)
	if blocks := st.Sys().(*syscall.Stat_t).Blocks; blocks > 1<<11 {
		t.Skipf("this file system keeps no holes: %d blocks", blocks)
	}
	long := filepath.Join(dir, "long.log")
	put(t, long, entry(strings.Repeat("x", 10<<20), noon)+entry("the end", noon))
	unended := filepath.Join(dir, "unended.log")
	put(t, unended, entry("first", noon)+strings.Repeat("x", 10<<20))
	split := filepath.Join(dir, "split.log")
	part := strings.TrimSuffix(entry(strings.Repeat("y", 16<<10), noon), "\n")
	part = strings.Replace(part, `\n"`, `"`, 1) + "\n"
	put(t, split, strings.Repeat(part, 640)+entry("the end", noon))
	for _, tc := range []struct {
		path string
		want []string
		err  string
	}{
		{sparse, []string{"the end"}, ""},
		{long, []string{"the end"}, ""},
		{unended, nil, "1 lines of the log are in no form known here"},
		{split, []string{strings.Repeat("y", maxLine)}, ""},
	} {
		t.Run(filepath.Base(tc.path), func(t *testing.T) {
			var got signal.ContainerLog
			n := testing.AllocsPerRun(1, func() { got = read(t, &Reader{}, tc.path) })
			if diff := cmp.Diff(tc.want, texts(got)); diff != "" || got.Error != tc.err {
				t.Errorf("error %q (-want +got):\n%s", got.Error, diff)
			}
			if n > 2000 {
				t.Errorf("%.0f allocations", n)
			}
		})
	}
}

// TestRead_Long: where the last lines are part of something long, more is read
// for its beginning.
func TestRead_Long(t *testing.T) {
	var b strings.Builder
	b.WriteString(entry("fatal error: out of memory", noon))
	for i := range 40000 {
		b.WriteString(entry(fmt.Sprintf("goroutine %d [running]:", i), noon))
	}
	path := filepath.Join(t.TempDir(), "c-json.log")
	put(t, path, b.String())
	if b.Len() < 3*window || b.Len() > farthest {
		t.Fatalf("%d bytes show nothing", b.Len())
	}
	keep := func(s string) bool { return strings.Contains(s, "out of memory") }
	long := func(s string) bool { return strings.HasPrefix(s, "goroutine ") }
	for _, tc := range []struct {
		name  string
		r     Reader
		first string
	}{
		{"not known to be long", Reader{Keep: keep}, "goroutine 39936 [running]:"},
		{"long", Reader{Keep: keep, Long: long}, "fatal error: out of memory"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := texts(read(t, &tc.r, path)); len(got) == 0 || got[0] != tc.first {
				t.Errorf("%d lines, first %q, want %q", len(got), got[:1], tc.first)
			}
		})
	}
}

// TestRead_HeldBack: an engine that holds a stream back writes what counts of
// the other one long before the end. What was written before this run began is
// not gone through for it.
func TestRead_HeldBack(t *testing.T) {
	piece := strings.NewReplacer("stderr", "stdout", `\n"`, `"`).Replace(entry(strings.Repeat("x", 16<<10), noon))
	line := entry("out of memory", noon)
	keep := func(s string) bool { return strings.Contains(s, "out of memory") }
	for _, tc := range []struct {
		name, text string
		since      time.Time
		want       bool
	}{
		{"by a megabyte", strings.Repeat(piece, 640) + line + strings.Repeat(piece, 64), time.Time{}, true},
		{"by too much", strings.Repeat(piece, 640) + line + strings.Repeat(piece, 640), time.Time{}, false},
		{"with lines", line + strings.Repeat(strings.Repeat(piece, 30)+entry("well", noon), 10), time.Time{}, true},
		{"with many lines", line + strings.Repeat(piece+entry("well", noon), 80), time.Time{}, false},
		{"of an earlier run", line + strings.Repeat(piece, 64), noon.Add(time.Second), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c-json.log")
			put(t, path, tc.text)
			l, err := (&Reader{Keep: keep}).Open(path)
			must(t, err)
			defer l.Close()
			got := texts(l.Read(t.Context(), Ask{ContainerID: "c1", Since: tc.since}))
			if slices.ContainsFunc(got, keep) != tc.want {
				t.Errorf("%d lines, one that counts: %t, want %t", len(got), !tc.want, tc.want)
			}
		})
	}
}

// TestRead_Rotated: a log that was begun a moment ago goes on from the one
// before it.
func TestRead_Rotated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c-json.log")
	put(t, path+".1", entry("before", noon))
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"empty", "", []string{"before"}},
		{"nearly empty", entry("now", noon), []string{"before", "now"}},
		{"full", strings.Repeat(entry(strings.Repeat("x", 900), noon), 5), slices5(strings.Repeat("x", 900))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			put(t, path, tc.text)
			if diff := cmp.Diff(tc.want, texts(read(t, &Reader{}, path))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func slices5(s string) []string { return []string{s, s, s, s, s} }

// TestRead_OfTheRun: lines of the run before and of the one after are not
// this run's.
func TestRead_OfTheRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c-json.log")
	put(t, path, entry("before", noon)+entry("this", noon.Add(time.Minute))+entry("after", noon.Add(2*time.Minute)))
	l, err := (&Reader{}).Open(path)
	must(t, err)
	defer l.Close()
	got := l.Read(t.Context(), Ask{ContainerID: "c1", At: noon, Since: noon.Add(time.Second), Until: noon.Add(90 * time.Second)})
	if diff := cmp.Diff(signal.ContainerLog{ID: "c1", At: noon, Lines: []signal.LogLine{{Time: noon.Add(time.Minute), Stream: "stderr", Text: "this"}}}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestRead_Removed: an engine that removes the container at once takes away
// nothing that was opened.
func TestRead_Removed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c-json.log")
	put(t, path, entry("last words", noon))
	l, err := (&Reader{}).Open(path)
	must(t, err)
	defer l.Close()
	must(t, os.Chtimes(path, noon, noon))
	must(t, os.Remove(path))
	if at := l.Written(); !at.Equal(noon) {
		t.Errorf("written at %v", at)
	}
	if got := texts(l.Read(t.Context(), Ask{})); len(got) != 1 || got[0] != "last words" {
		t.Errorf("read %q", got)
	}
}

// TestRead_RotatedMeanwhile: what was opened is not what the engine writes to
// any more.
func TestRead_RotatedMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c-json.log")
	put(t, path, entry("first", noon))
	l, err := (&Reader{}).Open(path)
	must(t, err)
	defer l.Close()
	must(t, os.Rename(path, path+".2"))
	put(t, path+".1", entry("second", noon))
	put(t, path, entry("third", noon))
	must(t, os.Chtimes(path, noon, noon))
	if at := l.Written(); !at.Equal(noon) {
		t.Errorf("written at %v", at)
	}
	if diff := cmp.Diff([]string{"second", "third"}, texts(l.Read(t.Context(), Ask{}))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestRead_TimeIsUp: a reading that takes too long is given up, and says so.
func TestRead_TimeIsUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c-json.log")
	put(t, path, entry("last words", noon))
	l, err := (&Reader{}).Open(path)
	must(t, err)
	defer l.Close()
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if got := l.Read(ctx, Ask{}); len(got.Lines) != 0 || !strings.Contains(got.Error, context.DeadlineExceeded.Error()) {
		t.Errorf("answer %+v", got)
	}
}

// BenchmarkRead reads the end of a log of 16 MiB of lines of 100 bytes.
func BenchmarkRead(b *testing.B) {
	path := filepath.Join(b.TempDir(), "c-json.log")
	line := entry(strings.Repeat("x", 100), noon)
	if err := os.WriteFile(path, []byte(strings.Repeat(line, 16<<20/len(line))), 0o600); err != nil {
		b.Fatal(err)
	}
	keep := func(s string) bool { return strings.Contains(s, "out of memory") }
	for _, bc := range []struct {
		name string
		r    Reader
	}{{"window", Reader{Keep: keep}}, {"farthest", Reader{Keep: keep, Long: func(string) bool { return true }}}} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l, err := bc.r.Open(path)
				if err != nil {
					b.Fatal(err)
				}
				if a := l.Read(b.Context(), Ask{}); len(a.Lines) != maxLines {
					b.Fatalf("%d lines", len(a.Lines))
				}
				_ = l.Close()
			}
		})
	}
}
