// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/oomtest"
	"github.com/coroner-dev/coroner/internal/recorder/pattern"
	"github.com/coroner-dev/coroner/internal/signal"
)

// slack is what each CPU holds back of its counts, and what changed between two
// readings.
const slack = 4 * mib

// complaints are what is wrong of figures.
type complaints []string

func (c *complaints) between(name string, got *int64, least, most int64) {
	switch {
	case got == nil:
		*c = append(*c, name+" is not known")
	case *got < least || *got > most:
		*c = append(*c, fmt.Sprintf("%s is %.1f MiB, want %d to %d", name, float64(*got)/mib, least/mib, most/mib))
	}
}

func (c complaints) err() error {
	if len(c) == 0 {
		return nil
	}
	return errors.New(strings.Join(c, "; "))
}

func named(c *oomtest.Cgroup) signal.Cgroup { return signal.Cgroup{ID: c.Inode(), Path: c.Path} }

// kernelNumber reads a file of a cgroup.
func kernelNumber(t *testing.T, c *oomtest.Cgroup, v1, v2 string, version int) int64 {
	t.Helper()
	name := v2
	if version == 1 {
		name = v1
	}
	b, err := os.ReadFile(filepath.Join(c.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestReal_Figures: a container of two processes, one in a cgroup below, that
// hold 40 MiB of private and 16 of shared memory, and wrote a file of 32.
func TestReal_Figures(t *testing.T) {
	const private, shared, written, limit = 40 * mib, 16 * mib, 32 * mib, 256 * mib
	tree := oomtest.New(t)
	box := tree.Cgroup("box", oomtest.Limit(limit))
	inner := tree.Cgroup("box/inner")
	a, b := inner.Start(oomtest.Load{Bytes: private}), inner.Start(oomtest.Load{Bytes: shared, Shared: true})
	r := New(Options{})
	run(t, r.Run)
	r.Watch(named(box))
	a.Go()
	b.Go()
	sharedToo := writeIn(t, inner, written)
	inactiveFile := map[int]string{1: "total_inactive_file", 2: "inactive_file"}[tree.Version]
	err := oomtest.Poll(10*time.Second, func() error {
		f, ok := r.Live(named(box))
		if !ok {
			return errors.New("no figures")
		}
		now, rss, usage, inactive := f.Reading, anonOf(t, inner.PIDs()), box.Usage(), stat(t, box, inactiveFile)
		peak := kernelNumber(t, box, "memory.max_usage_in_bytes", peakFile(t, box), tree.Version)
		var c complaints
		c.between("truth", &rss, private, limit)
		c.between("anon", now.AnonBytes, private, rss+slack) // what a process took before it came stays where it was
		c.between("shmem", now.ShmemBytes, shared+sharedToo, shared+sharedToo+mib)
		c.between("file", now.FileBytes, shared+written-slack, shared+written+3*slack)
		c.between("kernel", now.KernelBytes, 4096, 8*slack)
		c.between("usage", &now.UsageBytes, usage-slack, usage+slack)
		c.between("limit", f.LimitBytes, limit, limit)
		c.between("peak", f.PeakBytes, peak-slack, peak)
		// The kubelet's working set, from the kernel's own files.
		c.between("working set", &now.WorkingSetBytes, usage-inactive-slack, min(usage-inactive+slack, now.UsageBytes))
		return c.err()
	})
	if err != nil {
		t.Error(err)
	}
}

// anonOf adds up the anonymous memory that the kernel counts of processes.
func anonOf(t *testing.T, pids []int) int64 {
	t.Helper()
	var sum int64
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "RssAnon:"); ok {
				n, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				sum += n << 10
			}
		}
	}
	return sum
}

// writeIn has a process in the cgroup write a file, whose pages then are its.
// It returns how much of it the kernel counts as shared memory: all on a tmpfs.
func writeIn(t *testing.T, c *oomtest.Cgroup, size int) int64 {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, fmt.Sprintf("written-%d", os.Getpid()))
	t.Cleanup(func() { _ = os.Remove(file) })
	cmd := testCommand(file, size)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	move(t, cmd.Process.Pid, c)
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type == 0x01021994 { // TMPFS_MAGIC
		return int64(size)
	}
	return 0
}

// peakFile is memory.peak, or where the kernel has none what is there.
func peakFile(t *testing.T, c *oomtest.Cgroup) string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(c.Dir, "memory.peak")); err != nil {
		return "memory.current"
	}
	return "memory.peak"
}

// stat returns a line of memory.stat.
func stat(t *testing.T, c *oomtest.Cgroup, key string) int64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.Dir, "memory.stat"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key+" "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s", key)
	return 0
}

// TestReal_UpToTheKill: a process that takes 16 MiB a second is killed at 64;
// the history has its way there, and the kernel's own peak, after its cgroup
// has gone. All files are closed then.
func TestReal_UpToTheKill(t *testing.T) {
	tree := oomtest.New(t)
	before := openFDs(t)
	r := New(Options{})
	stop := start(t, r.Run)
	var late error
	for n := range 3 { // a busy machine keeps the recorder from the last reading, and not always
		if late = upToTheKill(t, r, tree, n); late == nil {
			break
		}
		t.Log(late)
	}
	if late != nil {
		t.Error(late)
	}
	stop()
	if after := openFDs(t); after > before {
		t.Errorf("%d open files, %d before", after, before)
	}
}

// upToTheKill is the nth such end; an error: what was read last is too old.
func upToTheKill(t *testing.T, r *Recorder, tree *oomtest.Tree, n int) error {
	t.Helper()
	const limit, rate = 64 * mib, 16 * mib
	box := tree.Cgroup(fmt.Sprint("box", n), oomtest.Limit(limit))
	its := named(box)
	r.Watch(its)
	p := box.Start(oomtest.Load{Rate: rate})
	p.Go()
	p.Wait()
	peak := kernelNumber(t, box, "memory.max_usage_in_bytes", peakFile(t, box), tree.Version)
	died := time.Now()
	if kills := box.OOMKills(); kills != 1 {
		t.Fatalf("%d kills", kills)
	}
	box.Remove()
	err := oomtest.Poll(30*time.Second, func() error {
		if s := r.Stats(); s.Recorded != 0 || s.Ended != n+1 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if err != nil {
		t.Errorf("it has gone, and nobody said so: %v", err)
	}
	h, ok := r.History(its)
	if !ok {
		t.Fatal("no history")
	}
	// Read each 100 ms as the limit comes near, it is at most 1.6 MiB late, and
	// a slow machine's later.
	var c, late complaints
	c.between("limit", h.LimitBytes, limit, limit)
	if peakFile(t, tree.Cgroup("any")) == "memory.peak" || tree.Version == 1 {
		c.between("peak", h.PeakBytes, mib, peak)
		late.between("peak", h.PeakBytes, limit-rate/2, peak)
		if h.PeakSampled {
			t.Error("the kernel's peak is said to be sampled")
		}
	}
	if err := c.err(); err != nil {
		t.Error(err)
	}
	last := h.Samples[len(h.Samples)-1]
	age := died.Unix() - last[0]
	if age < 0 {
		t.Errorf("died at %d: %v", died.Unix(), h.Samples)
	}
	if age > 2 || len(h.Samples) < 3 {
		late = append(late, fmt.Sprintf("died at %d: %v", died.Unix(), h.Samples))
	}
	for i := 1; i < len(h.Samples); i++ {
		if a, b := h.Samples[i-1], h.Samples[i]; b[0] <= a[0] || b[2] > limit+slack {
			t.Errorf("%v then %v", a, b)
		}
	}
	if p := pattern.Of(h.Samples, limit); p != "" {
		t.Errorf("of %d s somebody says %q", len(h.Samples), p)
	}
	return late.err()
}

func openFDs(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range all {
		to, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if errors.Is(err, os.ErrNotExist) {
			continue // of this listing
		}
		if strings.Contains(to, "memory") {
			n++
		}
	}
	return n
}
