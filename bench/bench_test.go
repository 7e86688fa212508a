// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/oomtest"
)

// settings are the flags of "make bench".
type settings struct {
	run    bool
	out    string
	binary string
	kills  int
	crowd  int
}

var flags settings

func TestMain(m *testing.M) {
	flag.BoolVar(&flags.run, "bench.all", false, "measure")
	flag.StringVar(&flags.out, "bench.out", "", "file to write, once all rows were measured")
	flag.StringVar(&flags.binary, "bench.binary", "../bin/coroner", "agent to measure")
	flag.IntVar(&flags.kills, "bench.kills", 50, "kills in each of the storm's 200 containers")
	flag.IntVar(&flags.crowd, "bench.crowd", 0, "measure beside real engines with so many containers alone")
	oomtest.Main(m)
}

// TestBenchmarks is what "make bench" runs.
func TestBenchmarks(t *testing.T) {
	if !flag.Parsed() {
		flag.Parse()
	}
	if !flags.run {
		t.Skip(`it takes minutes and a quiet machine: run "make bench"`)
	}
	r := &Report{Machine: machine(t), Results: map[string]Result{}}
	began := time.Now()
	for _, part := range []struct {
		name    string
		measure func(*testing.T, *Report)
	}{
		{"parser", measureParser},
		{"start", measureStart},
		{"rest", measureRest},
		{"kill", measureKills},
		{"storm", measureStorm},
		{"engines", measureEngines},
	} {
		t.Run(part.name, func(t *testing.T) {
			since, before := time.Now(), slices.Collect(maps.Keys(r.Results))
			part.measure(t, r)
			t.Logf("took %.0f s", time.Since(since).Seconds())
			for _, row := range Rows() {
				if res, ok := r.Results[row.ID]; ok && !slices.Contains(before, row.ID) {
					t.Logf("%s: %s %s", row.ID, row.figures(res.Values), bracketed(res.Remark))
				}
			}
		})
	}
	text := r.Markdown()
	missing := r.Missing()
	switch {
	case len(missing) > 0 || t.Failed():
		t.Logf("%s\nnot written to %s: not measured are %q", text, flags.out, missing)
	case flags.out != "":
		if err := os.WriteFile(flags.out, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d rows in %.0f s", len(Rows())-len(missing), len(Rows()), time.Since(began).Seconds())
}

// machine says what was measured where, when and how.
func machine(t *testing.T) []string {
	t.Helper()
	model := field(t, "/proc/cpuinfo", "model name")
	var kib int64
	if _, err := fmt.Sscan(field(t, "/proc/meminfo", "MemTotal"), &kib); err != nil {
		t.Fatal(err)
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	version := 2
	if oomtest.Has(oomtest.V1) {
		version = 1
	}
	return []string{
		fmt.Sprintf("Machine: %s, %d cores, %.1f GiB of memory", model, runtime.NumCPU(), float64(kib)/(1<<20)),
		fmt.Sprintf("Kernel: Linux %s, memory controller on cgroup v%d", strings.TrimSpace(string(release)), version),
		"The history is on " + filesystem(t, t.TempDir()),
		"Date: " + time.Now().UTC().Format("2006-01-02") + "; load before it began: " + strings.Fields(string(load))[0],
		"Go: " + strings.TrimPrefix(runtime.Version(), "go") + ", " + runtime.GOOS + "/" + runtime.GOARCH,
		"Command: `make bench`, as root",
	}
}

// field reads what stands behind a name and a colon.
func field(t *testing.T, path, name string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	t.Fatalf("%s has no %s", path, name)
	return ""
}

// quantile is the value that a share of all does not exceed.
func quantile(values []float64, share float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return s[min(len(s)-1, int(share*float64(len(s))))]
}

// spread is the median and the 99th percentile.
func spread(values []float64) []float64 {
	return []float64{quantile(values, .5), quantile(values, .99)}
}
