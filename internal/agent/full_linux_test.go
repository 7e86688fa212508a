// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/history"
)

// smallDisk is a tmpfs, and fill leaves no room on it.
func smallDisk(t *testing.T) (dir string, fill func() (free func())) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a tmpfs")
	}
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	return dir, func() func() {
		f, err := os.Create(ballast)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{1 << 20, 4096, 1} {
			for err = nil; err == nil; {
				_, err = f.Write(make([]byte, size))
			}
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		_ = f.Close()
		return func() {
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func fetched(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// TestAgent_DiskFull: on a disk without room the agent watches, counts and
// says what is wrong; with room again nothing is missing. Once the disk is
// full while it runs, once from the start.
func TestAgent_DiskFull(t *testing.T) {
	for _, fromStart := range []bool{false, true} {
		t.Run(map[bool]string{false: "while it runs", true: "at the start"}[fromStart], func(t *testing.T) {
			dir, fill := smallDisk(t)
			var free func()
			if fromStart {
				free = fill()
			}
			o := idle(t)
			o.History.Path = filepath.Join(dir, "deaths.db")
			a, err := New(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- a.Run(ctx) }()
			base := "http://" + a.Addresses()[0].String()

			given := 0
			give := func() {
				d := killed(given)
				d.Advice = []string{strings.Repeat("so that it needs some room ", 100)}
				a.keeper.give(progress{deaths: []death.Death{d}})
				given++
			}
			if !fromStart {
				give()
				until(t, "kept", func() bool { return a.keeper.stat().QueueLength == 0 })
				free = fill()
			}
			for range 300 {
				give()
			}
			until(t, "trouble", func() bool { return a.keeper.failure() != "" })
			until(t, "counted all the same", func() bool { return scraped(t, a.metrics) == uint64(given) })

			if _, ready := fetched(t, base+"/-/ready"); !strings.Contains(ready, "history: down: ") || !strings.Contains(ready, "0 were dropped") {
				t.Errorf("/-/ready: %s", ready)
			}
			if _, m := fetched(t, base+"/metrics"); !strings.Contains(m, `coroner_sink_up{sink="history"} 0`) {
				t.Error("coroner_sink_up is not 0")
			}
			st := a.Status(t.Context()).History
			if st.Error == "" || !fromStart && st.Waiting == 0 {
				t.Errorf("status: %+v", st)
			}
			if code, _ := fetched(t, base+"/api/v1/deaths"); code != http.StatusOK {
				t.Errorf("deaths: %d, want 200", code)
			}

			free()
			until(t, "back", func() bool { return a.keeper.failure() == "" && a.keeper.stat().QueueLength == 0 })
			give()
			until(t, "the last one kept", func() bool { return a.Status(t.Context()).History.Deaths == int64(given) })
			if _, ready := fetched(t, base+"/-/ready"); !strings.Contains(ready, "history: up") {
				t.Errorf("/-/ready: %s", ready)
			}
			st = a.Status(t.Context()).History
			if st.Error != "" || st.Waiting != 0 || st.Dropped != 0 || st.Path != o.History.Path {
				t.Errorf("status: %+v", st)
			}
			stop()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			inFile(t, o.History.Path, given)
		})
	}
}

// inFile checks what the next run would find.
func inFile(t *testing.T, path string, deaths int) {
	t.Helper()
	s, err := history.Open(context.Background(), path, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for n := range deaths {
		if _, err := s.Get(context.Background(), fmt.Sprintf("d%06d", n)); err != nil {
			t.Errorf("death %d: %v", n, err)
		}
	}
	counts, err := s.Counts(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if kills := killsIn(slices.Values(counts)); kills != uint64(deaths) {
		t.Errorf("counters of %d, want %d", kills, deaths)
	}
}
