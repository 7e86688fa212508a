// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// guest is a virtual machine in which tests run.
type guest struct {
	name  string
	flags []string
	tests string // a pattern for -test.run; "" is all
}

// guests are the kernels that docs/kernels.md names. The last is for the tests
// that need two NUMA nodes.
func guests() []guest {
	return []guest{
		{"Linux 6.1, cgroup v2", []string{"-kernel=6.1", "-mem=2048"}, ""},
		{"Linux 6.12, cgroup v2", []string{"-kernel=6.12", "-mem=2048"}, ""},
		{"Linux 6.1, cgroup v1", []string{"-kernel=6.1", "-mem=2048", "-cgroup=1"}, ""},
		{"Linux 6.12, cgroup v2, two NUMA nodes", []string{"-kernel=6.12", "-mem=512", "-numa"}, "Cpuset"},
	}
}

// tool is a program that some tests need.
type tool struct {
	program, debian, why string
	parts                []string
}

func tools() []tool {
	return []tool{
		{"qemu-system-x86_64", "qemu-system-x86", "other kernels", []string{"vm"}},
		{"chromium", "chromium", "the pages in a browser", []string{"unit", "real"}},
		{"cc", "gcc libc6-dev", "the race detector", []string{"unit", "real"}},
		{"promtool", "prometheus", "the metrics as Prometheus' linter reads them", []string{"real"}},
		{"dockerd", "docker.io", "containers in Docker", []string{"real"}},
		{"containerd", "containerd", "Docker, and containers without it", []string{"real"}},
		{"runc", "runc", "what runs containers", []string{"real"}},
		{"busybox", "busybox-static", "what runs in containers", []string{"real"}},
		{"systemd-analyze", "systemd", "the unit as systemd reads it", []string{"real"}},
		{"dockerd", "docker.io", "a real Docker", []string{"real"}},
		{"containerd", "containerd runc", "a real containerd", []string{"real"}},
		{"busybox", "busybox-static", "what their containers run", []string{"real"}},
		{"mmdebstrap", "mmdebstrap", "a machine with systemd", []string{"vm"}},
		{"mke2fs", "e2fsprogs", "its disk", []string{"vm"}},
	}
}

// install gets what is missing, as root on Debian.
func (r *runner) install(ctx context.Context, only string) {
	var missing []string
	for _, t := range tools() {
		_, err := exec.LookPath(t.program)
		needed := slices.ContainsFunc(t.parts, func(p string) bool { return strings.Contains(only, p) })
		if err != nil && needed {
			missing = append(missing, strings.Fields(t.debian)...)
		}
	}
	_, noApt := exec.LookPath("apt-get")
	if len(missing) == 0 || os.Geteuid() != 0 || noApt != nil {
		return
	}
	r.tally.title("apt-get install " + strings.Join(missing, " "))
	for _, args := range [][]string{
		{"-qq", "update"},
		append([]string{"-qq", "install", "-y", "--no-install-recommends"}, missing...),
	} {
		c := exec.CommandContext(ctx, "apt-get", args...)
		c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		c.Stderr = os.Stderr
		if err := c.Run(); err != nil {
			// What needs them says so itself.
			fmt.Fprintf(r.tally.out, "apt-get %s: %v\n", args[1], err)
		}
	}
}

// machines runs the packages in each guest.
func (r *runner) machines(ctx context.Context) error {
	if why := noMachines(); why != "" {
		r.tally.leave(wholePart+"virtual machines", why)
		return nil
	}
	dir, err := os.MkdirTemp("", "coroner-test-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	vm := filepath.Join(dir, "vm")
	if err := build(ctx, "build", "-o", vm, "./test/vm"); err != nil {
		return err
	}
	for _, pkg := range strings.Fields(r.packages) {
		if _, err := os.Stat(pkg); err != nil {
			r.tally.leave(wholePart+pkg, "no such folder")
			continue
		}
		bin := filepath.Join(dir, filepath.Base(pkg)+".test")
		if err := build(ctx, "test", "-c", "-o", bin, pkg); err != nil {
			return err
		}
		for _, g := range guests() {
			r.tally.title(g.name)
			args := append(slices.Clone(g.flags), "-timeout="+r.timeout.String())
			if data := filepath.Join(pkg, "testdata"); exists(data) {
				args = append(args, "-file="+data+":/test/testdata")
			}
			args = append(args, bin, "-test.v=test2json", "-test.short", "-test.timeout="+r.timeout.String())
			if g.tests != "" {
				args = append(args, "-test.run="+g.tests)
			}
			args = append(args, r.args...)
			if err := r.inGuest(ctx, g, pkg, vm, args); err != nil {
				r.tally.broken(short(pkg)+" on "+g.name, err)
			}
		}
	}
	return r.underSystemd(ctx, dir, vm)
}

// underSystemd runs the agent as its unit in a small machine with systemd.
func (r *runner) underSystemd(ctx context.Context, dir, vm string) error {
	const pkg = "./test/systemd"
	g := guest{name: "Linux 6.1, systemd, cgroup v2, 320 MiB", flags: []string{"-kernel=6.1", "-mem=320", "-systemd"}}
	for _, p := range []string{"mmdebstrap", "mke2fs"} {
		if !program(p) {
			r.tally.leave(wholePart+pkg+" in a virtual machine", "no "+p+" (hint: apt-get install --no-install-recommends mmdebstrap e2fsprogs)")
			return nil
		}
	}
	r.tally.title(g.name)
	coroner, bin := filepath.Join(dir, "coroner"), filepath.Join(dir, "systemd.test")
	if err := build(ctx, "build", "-trimpath", "-ldflags=-s -w", "-o", coroner, "./cmd/coroner"); err != nil {
		return err
	}
	if err := build(ctx, "test", "-c", "-o", bin, pkg); err != nil {
		return err
	}
	args := append(g.flags, "-timeout="+r.timeout.String(), "-file="+coroner+":/test/coroner", "-file=deploy/systemd:/test/systemd",
		bin, "-test.v=test2json", "-test.timeout="+r.timeout.String())
	if err := r.inGuest(ctx, g, pkg, vm, append(args, r.args...)); err != nil {
		r.tally.broken(short(pkg)+" on "+g.name, err)
	}
	return nil
}

// inGuest runs a guest and lets go tool test2json read what it prints.
func (r *runner) inGuest(ctx context.Context, g guest, pkg, vm string, args []string) (err error) {
	name := "github.com/coroner-dev/coroner/" + strings.TrimPrefix(filepath.ToSlash(filepath.Clean(pkg)), "./")
	guest := exec.CommandContext(ctx, vm, args...)
	guest.Stderr = os.Stderr
	// Killed, it would leave its machine behind.
	guest.Cancel = func() error { return guest.Process.Signal(syscall.SIGTERM) }
	guest.WaitDelay = 10 * time.Second
	out, err := guest.StdoutPipe()
	if err != nil {
		return err
	}
	if err := guest.Start(); err != nil {
		return err
	}
	failed := len(r.tally.failed)
	reader := exec.Command("go", "tool", "test2json", "-t", "-p", name)
	reader.Stdin, reader.Stderr = out, os.Stderr
	err = r.tally.follow(reader, name, "on "+g.name)
	if ended := guest.Wait(); len(r.tally.failed) == failed {
		err = errors.Join(err, ended) // nothing told why
	}
	return err
}

func noMachines() string {
	switch {
	case runtime.GOARCH != "amd64":
		return "only written for amd64"
	case !program("qemu-system-x86_64"):
		return "no qemu-system-x86_64 (hint: apt-get install --no-install-recommends qemu-system-x86)"
	case !program("apt-get") || !program("dpkg"):
		return "the kernels come from Debian, with apt-get and dpkg"
	}
	return ""
}

func program(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// build runs go for a static Linux binary.
func build(ctx context.Context, args ...string) error {
	c := exec.CommandContext(ctx, "go", args...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	c.Stderr = os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("go %s %s: %w", args[0], args[len(args)-1], err)
	}
	return nil
}
