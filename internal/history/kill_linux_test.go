// SPDX-License-Identifier: Apache-2.0

package history

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// The test binary runs itself with one of these names in roleEnv.
const (
	roleEnv  = "CORONER_HISTORY_TEST_ROLE"
	pathEnv  = "CORONER_HISTORY_TEST_PATH"
	roleFill = "fill"
	roleOpen = "open"
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case roleFill:
		fill(os.Getenv(pathEnv))
	case roleOpen:
		s, err := Open(context.Background(), os.Getenv(pathEnv), Options{})
		if err == nil {
			err = s.Close()
		}
		fmt.Println(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fill puts deaths until it is killed, and prints the number of each when Put
// has returned.
func fill(path string) {
	ctx := context.Background()
	s, err := Open(ctx, path, Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for n := 0; ; n++ {
		if _, err := s.Put(ctx, []death.Death{sample(n)}, map[string]string{"n": fmt.Sprint(n)}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(n)
	}
}

func TestPut_SurvivesKill9(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	for round := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), roleEnv+"="+roleFill, pathEnv+"="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		last, lines := -1, bufio.NewScanner(out)
		for lines.Scan() {
			if _, err := fmt.Sscan(lines.Text(), &last); err != nil {
				t.Fatal(err)
			}
			if last == 100+50*round {
				if err := cmd.Process.Kill(); err != nil { // SIGKILL, amid the writing
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || last < 100 {
			t.Fatalf("the child ended by itself after %d: %v", last, err)
		}
		s, err := Open(context.Background(), path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if s.Notice() != "" {
			t.Errorf("notice %q", s.Notice())
		}
		for n := range last + 1 {
			if _, err := s.Get(context.Background(), sample(n).ID); err != nil {
				t.Errorf("round %d: death %d of %d: %v", round, n, last, err)
			}
		}
		state, err := s.State(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		var kept int
		if _, err := fmt.Sscan(state["n"], &kept); err != nil || kept < last {
			t.Errorf("state says %q after %d was returned", state["n"], last)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpen_SecondOneIsRefused(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "history.db")
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+roleFill, pathEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() { // it has the history now
		t.Fatal("the child wrote nothing")
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, out)
	}()
	for _, name := range []string{path, link} {
		s, err := Open(ctx, name, Options{})
		if err == nil {
			_ = s.Close()
			t.Errorf("%s: opened while another process has it", name)
			continue
		}
		for _, want := range []string{name, "in use by another", "--history.path"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q lacks %q", err, want)
			}
		}
	}
	if err := cmd.Process.Kill(); err != nil { // SIGKILL
		t.Fatal(err)
	}
	<-drained
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}
	s := open(t, path, Options{}) // the lock died with it
	if _, err := Open(ctx, path, Options{}); err == nil || !strings.Contains(err.Error(), "in use by another") {
		t.Errorf("a second Open in one process: %v", err)
	}
	put(t, s, sample(1_000_000))
	for range 2 { // histories in memory are not one
		open(t, Memory, Options{})
	}
}

func TestOpen_WithoutTheRights(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to run a child as nobody")
	}
	dir := t.TempDir()
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	binary, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	child := filepath.Join(dir, "child")
	if err := os.WriteFile(child, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	closed(t, filepath.Join(dir, "readonly.db"), 1)
	for _, path := range []string{filepath.Join(dir, "new", "history.db"), filepath.Join(dir, "history.db"), filepath.Join(dir, "readonly.db")} {
		cmd := exec.Command(child)
		cmd.Env = append(os.Environ(), roleEnv+"="+roleOpen, pathEnv+"="+path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, want := range []string{"permission denied", filepath.Dir(path), "--history.path"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: error %q lacks %q", path, out, want)
			}
		}
	}
}

func TestStore_Concurrent(t *testing.T) {
	everywhere(t, func(t *testing.T, s *Store) {
		ctx := context.Background()
		const writers, each = 4, 15
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for n := range each {
					if _, err := s.Put(ctx, []death.Death{sample(w*each + n)}, map[string]string{"w": fmt.Sprint(w)}); err != nil {
						t.Error(err)
					}
				}
			})
			wg.Go(func() {
				for range each {
					if _, err := s.List(ctx, Query{Q: "leaker", Limit: 20}); err != nil {
						t.Error(err)
					}
					if _, err := s.Stats(ctx); err != nil {
						t.Error(err)
					}
					if _, err := s.Prune(ctx, epoch.Add(time.Hour)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		// A reader that follows sees every seq once and in order.
		var seen int
		var after int64
		for deadline := time.Now().Add(time.Minute); seen < writers*each && time.Now().Before(deadline); {
			entries, upTo, err := s.Since(ctx, Query{}, after)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if e.Seq <= after {
					t.Errorf("seq %d after %d", e.Seq, after)
				}
				after = e.Seq
				seen++
			}
			after = max(after, upTo)
		}
		wg.Wait()
		if seen != writers*each {
			t.Errorf("the follower saw %d deaths of %d", seen, writers*each)
		}
	})
}
