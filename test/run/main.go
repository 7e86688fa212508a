// SPDX-License-Identifier: Apache-2.0

// Command run is what "make test" runs: the unit tests anywhere; the tests
// with real OOM kills as root, one package at a time; the agent in a real
// Kubernetes; and some of the tests with kills again in virtual machines with
// other kernels. At the end it says what passed, what failed, and what was left
// out and why. With CORONER_CI=1 nothing that a Debian machine can do may be
// left out.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// runner holds what the flags say and what has come of it.
type runner struct {
	race     bool
	packages string // what the virtual machines run
	atOnce   int    // how many of them
	timeout  time.Duration
	dir      string   // where go test runs: "" is here
	args     []string // for go test
	tally    *tally
	started  time.Time
}

func main() {
	os.Exit(run())
}

func run() int {
	r := &runner{tally: newTally(os.Stdout), started: time.Now()}
	only := flag.String("only", "unit,real,cluster,vm", "which `parts` to run")
	install := flag.Bool("install", true, "as root on Debian, install the packages that the tests need")
	flag.BoolVar(&r.race, "race", true, "use the race detector where there is a C compiler")
	flag.StringVar(&r.packages, "vm-packages", "./internal/oomtest ./test/system", "packages to run in the virtual machines")
	flag.IntVar(&r.atOnce, "vm-at-once", runtime.NumCPU(), "how many virtual machines run at the same time")
	flag.DurationVar(&r.timeout, "timeout", 20*time.Minute, "limit for each package")
	flag.Parse()
	r.args = flag.Args()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	if *install {
		r.install(ctx, *only)
	}
	if _, err := exec.LookPath("cc"); err != nil && r.race {
		r.race = false
		r.tally.leave("the race detector", "no C compiler (hint: apt-get install gcc libc6-dev)")
	}
	unit, real, err := packages(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		return 1
	}
	kubernetes := clusterAhead(ctx, *only)
	defer func() { _ = kubernetes() }()
	for _, part := range strings.Split(*only, ",") {
		switch part {
		case "unit":
			err = r.goTest(ctx, "unit tests", unit, "-skip="+alone)
			err = errors.Join(err, r.calm().goTest(ctx, "unit tests of one goroutine", []string{"./internal/history"}, "-run="+alone))
			err = errors.Join(err, r.calm().in("test/chart").goTest(ctx, "the chart for Kubernetes", []string{"."}))
		case "real":
			// One package at a time: the kernel limits the rate of its
			// reports over the whole machine.
			err = r.goTest(ctx, "tests on this kernel", real, "-p=1", "-count=1", "-skip="+storms)
			err = errors.Join(err, r.calm().goTest(ctx, "storms on this kernel", []string{"./test/system"}, "-count=1", "-run="+storms))
		case "cluster":
			err = r.cluster(ctx, kubernetes)
		case "vm":
			err = r.machines(ctx)
		default:
			err = fmt.Errorf("no part %q: unit, real, cluster, vm", part)
		}
		if err != nil {
			r.tally.broken(part, err)
		}
	}
	return r.tally.end(time.Since(r.started), os.Getenv("CORONER_CI") == "1")
}

// storms are tests of test/system that measure what the agent bears. A storm
// is as much as the machine can do: an agent that the race detector makes ten
// times as slow is none that anybody runs.
const storms = "^TestAgent_(Storm|KilledInAStorm|ThrottledInAStorm)$"

// alone are tests of internal/history in which one goroutine does much with
// SQLite: the race detector has nothing to find, and makes it take 20 times as
// long. Those with more goroutines run under it.
const alone = "^Test(Prune_SizeHoldsOverManyContainers|Standby_IsBounded|Keep_DiskFull|(Keep|Open)_(FaultAtEveryCall|PowerCutAtEveryCall))$"

// calm runs without the race detector.
func (r *runner) calm() *runner {
	c := *r
	c.race = false
	return &c
}

// in runs in the folder of a module of its own.
func (r *runner) in(module string) *runner {
	c := *r
	c.dir = module
	return &c
}

// realFolders hold the tests that kill real processes or read this kernel.
func realFolders() []string {
	return []string{
		"cmd/", "internal/agent", "internal/host", "internal/nodemap", "internal/oomtest",
		"internal/source/cgroup", "internal/source/kmsg", "internal/source/tracepoint", "test/",
	}
}

// packages splits the module's packages into those without and with real kills.
func packages(ctx context.Context) (unit, real []string, err error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-e", "-f", "{{.Dir}} {{.ImportPath}} {{.Module.Dir}}", "./...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, nil, fmt.Errorf("go list: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		folder := strings.TrimPrefix(f[0], f[2]+string(os.PathSeparator))
		list := &unit
		for _, p := range realFolders() {
			if strings.HasPrefix(folder+"/", strings.TrimSuffix(p, "/")+"/") {
				list = &real
			}
		}
		*list = append(*list, f[1])
	}
	return unit, real, nil
}

// goTest runs go test over packages and counts its results.
func (r *runner) goTest(ctx context.Context, title string, pkgs []string, flags ...string) error {
	r.tally.title(title)
	args := append([]string{"test", "-json", "-timeout=" + r.timeout.String()}, flags...)
	if r.race {
		args = append(args, "-race")
	}
	args = append(append(args, r.args...), pkgs...)
	c := exec.CommandContext(ctx, "go", args...)
	c.Dir, c.Stderr = r.dir, os.Stderr
	return r.tally.follow(c, "", "")
}
