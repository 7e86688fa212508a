// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/host"
)

// bootID is that of the machine whose journal internal/parse/journal keeps.
const bootID = "e6af3b30-c860-4e7d-b279-aa3a0b8e707b"

// machine is a root with that journal.
func machine(t *testing.T) host.Roots {
	t.Helper()
	f, err := os.Open("../parse/journal/testdata/bookworm-252.journal.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	dir := filepath.Join(root, "var/log/journal/2e5acc88372141f2bf63aaa8e56aa939")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	to, err := os.Create(filepath.Join(dir, "system.journal"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, z); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return host.Roots{Root: root}
}

func TestLines(t *testing.T) {
	at := time.Date(2026, 11, 22, 15, 36, 39, 0, time.UTC)
	roots := machine(t)
	ask := Ask{Units: []string{"earlyoom.service"}, Since: at.Add(-15 * time.Second), Until: at.Add(2 * time.Second), BootID: bootID}
	lines, err := Lines(roots, ask)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for i, l := range lines {
		if l.Unit != "earlyoom.service" || l.PID != 165 || i > 0 && l.Time.Before(lines[i-1].Time) {
			t.Errorf("line %+v", l)
		}
		said = append(said, l.Text)
	}
	want := []string{
		"earlyoom v1.7", "mem total:  468 MiB, swap total:    0 MiB",
		"sending SIGTERM when mem <= 50.00% and swap <= 10.00%,", "        SIGKILL when mem <= 30.00% and swap <=  5.00%",
		"low memory! at or below SIGTERM limits: mem 50.00%, swap 10.00%",
		"mem avail:   228 of   468 MiB (48.83%), swap free:    0 of    0 MiB ( 0.00%)",
		`sending SIGTERM to process 172 uid 0 "coroner": badness 1124, VmRSS 181 MiB`, "process exited after 0.1 seconds",
	}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	for name, change := range map[string]func(*Ask){
		"another boot": func(a *Ask) { a.BootID = strings.Repeat("0", 32) },
		"another unit": func(a *Ask) { a.Units = []string{"earlyoom"} },
		"too late":     func(a *Ask) { a.Since, a.Until = at.Add(time.Minute), at.Add(time.Hour) },
		"too early":    func(a *Ask) { a.Since, a.Until = time.Time{}, at.Add(-time.Minute) },
	} {
		b := ask
		change(&b)
		if lines, err := Lines(roots, b); err != nil || len(lines) != 0 {
			t.Errorf("%s: %+v, %v", name, lines, err)
		}
	}
}

func TestLines_Lacking(t *testing.T) {
	empty := host.Roots{Root: t.TempDir()}
	if _, err := Lines(empty, Ask{}); !errors.Is(err, ErrNone) {
		t.Errorf("no journal: %v", err)
	}
	dir := filepath.Join(empty.Root, "run/log/journal/m")
	for name, make := range map[string]func(path string) error{
		"a folder":  func(path string) error { return os.Mkdir(path, 0o755) },
		"an empty":  func(path string) error { return os.WriteFile(path, nil, 0o644) },
		"something": func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("x", 4096)), 0o644) },
	} {
		if err := errors.Join(os.MkdirAll(dir, 0o755), make(filepath.Join(dir, "system.journal"))); err != nil {
			t.Fatal(err)
		}
		if lines, err := Lines(empty, Ask{}); err == nil || lines != nil {
			t.Errorf("%s: %+v, %v", name, lines, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}
