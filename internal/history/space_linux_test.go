// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// tmpfs mounts a small one.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillUp leaves no room, and returns what gives it back.
func fillUp(t *testing.T, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "ballast")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1 << 20, 4096, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill %s: %v", dir, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKeep_DiskFull(t *testing.T) {
	dir := tmpfs(t, "4m")
	s, err := Open(context.Background(), filepath.Join(dir, "h.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var b books
	b.keep(t, s, 5)
	for range 3 {
		free := fillUp(t, dir)
		refused := 0
		for range 300 { // the log of writes may have room left
			if _, err := s.Keep(context.Background(), b.next()); err != nil {
				refused++
				continue
			}
			b.rounds++
		}
		if refused == 0 {
			t.Fatal("nothing was refused on a full disk")
		}
		if _, err := s.List(context.Background(), Query{Limit: 5}); err != nil {
			t.Errorf("not even read: %v", err)
		}
		free()
		if n := b.keep(t, s, 5); n != 0 {
			t.Errorf("refused %d times with room", n)
		}
		b.check(t, s)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = Open(context.Background(), filepath.Join(dir, "h.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	b.check(t, s)
	notAside(t, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestStandby_FullWhenOpened: a disk that is full at the start is one more
// reason to stand by.
func TestStandby_FullWhenOpened(t *testing.T) {
	dir := tmpfs(t, "1m")
	free := fillUp(t, dir)
	s, err := Open(context.Background(), filepath.Join(dir, "h.db"), Options{Standby: true})
	if err != nil {
		t.Fatal(err)
	}
	if s.Trouble() == nil {
		t.Fatal("no trouble on a full disk")
	}
	put(t, s, samples(10)...)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	free()
	eventually(t, "back in the file", func() bool { return s.Trouble() == nil })
	stop()
	if err := errors.Join(<-ended, s.Close()); err != nil {
		t.Fatal(err)
	}
	s, err = Open(context.Background(), filepath.Join(dir, "h.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(t, s, Query{}); len(got) != 10 {
		t.Errorf("in the file: %q", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestKeep_ReadOnly(t *testing.T) {
	dir := tmpfs(t, "4m")
	s, err := Open(context.Background(), filepath.Join(dir, "h.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, samples(3)...)
	// Files that are open for writing keep a mount from being made read-only.
	// One over it does not ask, and takes the file away as well.
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := s.Put(context.Background(), samples(5), nil); err == nil {
			t.Error("kept below a read-only mount")
		}
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	put(t, s, samples(5)...)
	got := ids(t, s, Query{})
	slices.Sort(got)
	if len(slices.Compact(got)) != 5 {
		t.Errorf("kept %q", got)
	}
	notAside(t, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
