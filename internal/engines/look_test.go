// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func listen(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
}

// TestLook_UsersAreBounded: users' sockets are as many as they like, and the
// machine's own engine is found all the same, also after them.
func TestLook_UsersAreBounded(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "docker.sock")
	for i := range maxEngines + 4 {
		listen(t, filepath.Join(dir, fmt.Sprint(1000+i), "d.sock"))
	}
	r := &run{log: slog.New(slog.DiscardHandler), cfg: Config{
		Own: []string{own}, Users: []string{filepath.Join(dir, "*", "d.sock")}, New: func(*Engine) Follower { return nil },
	}}
	var found []string
	start := func(e *Engine) { found = append(found, e.Path) }
	r.look(start)
	if len(found) != maxEngines {
		t.Errorf("%d engines of users, want %d", len(found), maxEngines)
	}
	listen(t, own)
	r.look(start)
	if n := len(found); n != maxEngines+1 || found[n-1] != own {
		t.Errorf("%d engines, the last %s; want the machine's too", n, found[n-1])
	}
	r.look(start)
	if n := len(found); n != maxEngines+1 {
		t.Errorf("%d engines at the third look", n)
	}
}

// TestLook_NamedBeforeItIsThere: an engine that somebody named and whose socket
// comes later is tried at once then, not when the next try is due.
func TestLook_NamedBeforeItIsThere(t *testing.T) {
	dir := t.TempDir()
	early, late := filepath.Join(dir, "early.sock"), filepath.Join(dir, "late.sock")
	listen(t, early)
	r := &run{log: slog.New(slog.DiscardHandler), cfg: Config{Hosts: []string{early, late}, New: func(*Engine) Follower { return nil }}}
	if err := r.configure(); err != nil {
		t.Fatal(err)
	}
	look := func(want int) {
		t.Helper()
		r.look(func(e *Engine) { t.Errorf("started %s", e.Path) })
		if n := len(r.engines[1].changed); n != want || len(r.engines[0].changed) != 0 {
			t.Fatalf("told %d times that it came, and %d times of the other", n, len(r.engines[0].changed))
		}
	}
	look(0)
	listen(t, late)
	look(1)
	<-r.engines[1].changed
	look(0)
}
