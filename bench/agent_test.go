// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/oomtest"
)

const (
	patience = 30 * time.Second
	// settling is how long an agent that is to be measured at rest is left
	// alone before: what its start took must be given back.
	settling = 4 * time.Second
)

// running is an agent: the binary that users run, in a process of its own.
type running struct {
	t     *testing.T
	cmd   *exec.Cmd
	base  string
	began time.Duration // by the monotonic clock
	http  *http.Client
	done  chan struct{}
	log   *os.File
}

// launch starts an agent, and waits for nothing.
func launch(t *testing.T, flagged ...string) *running {
	t.Helper()
	oomtest.Require(t, oomtest.RealKills)
	dir := t.TempDir()
	a := &running{t: t, done: make(chan struct{}), http: &http.Client{Transport: &http.Transport{DisableCompression: true}}}
	address := free(t)
	a.base = "http://" + address
	a.cmd = exec.Command(flags.binary, append([]string{"agent", "--web.enable-pprof",
		"--web.listen-address", address, "--history.path", filepath.Join(dir, "deaths.db")}, flagged...)...)
	var err error
	if a.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	a.cmd.Stderr = a.log
	a.began = clock()
	if err := a.cmd.Start(); err != nil {
		t.Fatalf("start the agent: %v (make build)", err)
	}
	go func() {
		defer close(a.done)
		_ = a.cmd.Wait() // its end is asked for
	}()
	t.Cleanup(a.stop)
	return a
}

// start launches an agent and waits until all its sources watch.
func start(t *testing.T, flagged ...string) *running {
	t.Helper()
	a := launch(t, flagged...)
	client, err := api.NewClient(a.base, nil)
	if err != nil {
		t.Fatal(err)
	}
	a.poll(func() error {
		st, err := client.Status(t.Context())
		if err != nil {
			return err
		}
		for _, s := range st.Sources {
			if s.Enabled && !s.Up && !s.Absent {
				return fmt.Errorf("source %s is down: %s", s.Name, s.Reason)
			}
		}
		return nil
	})
	return a
}

func (a *running) poll(f func() error) {
	a.t.Helper()
	if err := oomtest.Poll(patience, f); err != nil {
		text, _ := os.ReadFile(a.log.Name())
		a.t.Fatalf("%v\n%s", err, text[:min(len(text), 4000)])
	}
}

// stop ends the agent.
func (a *running) stop() {
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-a.done:
	case <-time.After(patience):
		_ = a.cmd.Process.Kill()
		<-a.done
	}
	a.http.CloseIdleConnections()
}

// free is an address that nobody listens on.
func free(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// get reads an answer of 200.
func (a *running) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return body, err
}

// must is get that works.
func (a *running) must(path string) []byte {
	a.t.Helper()
	b, err := a.get(a.t.Context(), path)
	if err != nil {
		a.t.Fatalf("%s: %v", path, err)
	}
	return b
}

// metric adds all series of a metric.
func (a *running) metric(name string) float64 {
	a.t.Helper()
	return total(a.must("/metrics"), name)
}

// total adds all series of a metric in a scrape.
func total(scrape []byte, name string) float64 {
	var sum float64
	for line := range strings.Lines(string(scrape)) {
		if rest, ok := strings.CutPrefix(line, name); ok && rest != "" && (rest[0] == '{' || rest[0] == ' ') {
			v, _ := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]), 64)
			sum += v
		}
	}
	return sum
}

// cpu is what the agent's process has used until now. The scheduler counts
// each thread in nanoseconds.
func (a *running) cpu() time.Duration {
	a.t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", a.cmd.Process.Pid))
	if err != nil || len(files) == 0 {
		a.t.Fatalf("schedstat of %d: %d files, %v", a.cmd.Process.Pid, len(files), err)
	}
	var sum time.Duration
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that ended
		}
		var ns int64
		if _, err := fmt.Sscan(string(b), &ns); err != nil {
			a.t.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// memory is a line of the agent's /proc/PID/status, in MiB.
func (a *running) memory(name string) float64 {
	a.t.Helper()
	var kib float64
	if _, err := fmt.Sscan(field(a.t, fmt.Sprintf("/proc/%d/status", a.cmd.Process.Pid), name), &kib); err != nil {
		a.t.Fatal(err)
	}
	return kib / 1024
}

// clock is CLOCK_MONOTONIC, which the kernel's trace buffer can have too.
func clock() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // it cannot fail
	return time.Duration(ts.Nano())
}

// rest lets a time pass. What happens in it is what is measured.
func rest(d time.Duration) { <-time.After(d) }

// filesystem names what a folder is on.
func filesystem(t *testing.T, dir string) string {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	names := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs"}
	name, ok := names[st.Type]
	if !ok {
		name = fmt.Sprintf("a file system of type %#x", st.Type)
	}
	return name
}
