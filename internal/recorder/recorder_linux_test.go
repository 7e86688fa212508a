// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

const mib = 1 << 20

// machine is a hierarchy of plain files and a Recorder on it, in a bubble
// where time is the test's.
type machine struct {
	*Recorder
	t       *testing.T
	version int
	dir     string
	logged  strings.Builder
}

// inBubble runs a test on both versions.
func inBubble(t *testing.T, opt Options, test func(m *machine)) {
	t.Helper()
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			dir := t.TempDir()
			mark := map[int]string{1: "memory.oom_control", 2: "cgroup.controllers"}[version]
			if err := os.WriteFile(filepath.Join(dir, mark), []byte("cpu memory\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				m := &machine{t: t, version: version, dir: dir}
				opt.Roots = host.Roots{Cgroup: dir}
				opt.Logger = slog.New(slog.NewTextHandler(&m.logged, nil))
				m.Recorder = New(opt)
				ctx, cancel := context.WithCancel(context.Background())
				done := make(chan error)
				go func() { done <- m.Run(ctx) }()
				defer func() {
					cancel()
					if err := <-done; err != nil {
						t.Errorf("Run: %v", err)
					}
				}()
				synctest.Wait()
				test(m)
			})
		})
	}
}

// truth is what a cgroup's files say.
type truth struct {
	usage, inactive, limit, peak int64 // limit 0: none; peak 0: v2 has no such file
	shmem                        int64 // 0: 3 bytes
}

// cgroup makes a cgroup, or changes one; the time of the test stands still.
func (m *machine) cgroup(path string, v truth) signal.Cgroup {
	m.t.Helper()
	dir := filepath.Join(m.dir, path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		m.t.Fatal(err)
	}
	write := func(name, format string, args ...any) {
		if err := os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, format, args...), 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
	limit := fmt.Sprint(v.limit)
	shared := max(v.shmem, 3)
	if m.version == 1 {
		if v.limit == 0 {
			limit = "9223372036854771712"
		}
		write("memory.usage_in_bytes", "%d\n", v.usage)
		write("memory.limit_in_bytes", "%s\n", limit)
		write("memory.max_usage_in_bytes", "%d\n", max(v.peak, v.usage))
		write("memory.kmem.usage_in_bytes", "4\n")
		write("memory.stat", "cache 99\ninactive_file 99\ntotal_cache 2\ntotal_rss 1\ntotal_shmem %d\ntotal_inactive_file %d\n", shared, v.inactive)
	} else {
		if v.limit == 0 {
			limit = "max"
		}
		write("memory.current", "%d\n", v.usage)
		write("memory.max", "%s\n", limit)
		if v.peak != 0 {
			write("memory.peak", "%d\n", v.peak)
		}
		write("memory.pressure", "some avg10=1.25 avg60=0.00 avg300=0.00 total=0\n")
		write("memory.stat", "anon 1\nfile 2\nkernel 4\nshmem %d\ninactive_file %d\n", shared, v.inactive)
	}
	info, err := os.Stat(dir)
	if err != nil {
		m.t.Fatal(err)
	}
	return signal.Cgroup{ID: inode(m.t, info), Path: path}
}

// sleep lets time pass, to the end of what it causes.
func (m *machine) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (m *machine) history(c signal.Cgroup) signal.MemoryHistory {
	m.t.Helper()
	h, ok := m.History(c)
	if !ok {
		m.t.Fatalf("nothing is known of %+v", c)
	}
	return h
}

// TestRecorder_EachSecond: the figures of each second, as the test wrote them.
func TestRecorder_EachSecond(t *testing.T) {
	for _, noKeep := range []bool{false, true} {
		inBubble(t, Options{noKeep: noKeep}, func(m *machine) {
			start := time.Now()
			var all [][3]int64
			var c signal.Cgroup
			for s := range int64(260) {
				usage := (s%97 + 100) * mib
				c = m.cgroup("/a/b", truth{usage, s * unit, 300 * mib, 250 * mib, 0})
				m.Watch(c) // again and again: one cgroup
				all = append(all, [3]int64{start.Unix() + s, usage - s*unit, usage})
				m.sleep(950 * time.Millisecond) // before the next second's reading
				if s < 259 {
					m.cgroup("/a/b", truth{((s+1)%97 + 100) * mib, (s + 1) * unit, 300 * mib, 250 * mib, 0})
					m.sleep(50 * time.Millisecond)
				}
			}
			want, got, last := kept(all), m.history(c), all[len(all)-1]
			head := signal.MemoryHistory{
				Cgroup: c, LimitBytes: new(int64(300 * mib)), PeakBytes: new(int64(250 * mib)), First: start.UTC(), Samples: want,
				ShmemBytes: new(int64(3)),
				Last: &signal.MemoryReading{
					Time: got.Last.Time, WorkingSetBytes: last[1], UsageBytes: last[2],
					AnonBytes: new(int64(1)), FileBytes: new(int64(2)), ShmemBytes: new(int64(3)), KernelBytes: new(int64(4)),
				},
			}
			head.Limits = []signal.LimitReading{{First: start.UTC(), Last: start.Add(241 * time.Second).UTC(), Bytes: new(int64(300 * mib))}}
			if m.version == 2 {
				head.Last.SomeAvg10 = new(1.25)
			}
			if diff := cmp.Diff(head, got); diff != "" {
				m.t.Errorf("(-want +got):\n%s", diff)
			}
			if age := time.Since(got.Last.Time); age < 0 || age > time.Second || got.Last.Time.Location() != time.UTC {
				m.t.Errorf("last reading at %s, %s ago", got.Last.Time, age)
			}
		})
	}
}
