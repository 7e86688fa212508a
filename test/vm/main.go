// SPDX-License-Identifier: Apache-2.0

// Command vm runs a static test binary as root on a Debian kernel of its own,
// in QEMU under software emulation. Its output and exit status are the
// binary's. The kernel's package is fetched with apt-get, unpacked, never
// installed, and kept.
//
//	CGO_ENABLED=0 go test -c -o /tmp/t ./internal/oomtest
//	go run ./test/vm -kernel 6.1 -cgroup 2 /tmp/t -test.v
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// machine is what the flags say.
type machine struct {
	kernel  string
	cgroup  int
	memory  int
	cpus    int
	numa    bool
	systemd bool
	append  string
	timeout time.Duration
	cache   string
	files   list
	env     list
	command []string
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	m, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	code := 2
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		code, err = m.run(ctx)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		if code == 0 {
			code = 125
		}
	}
	os.Exit(code)
}

func parse(args []string) (machine, error) {
	m := machine{cache: os.Getenv("CORONER_CACHE")}
	if m.cache == "" {
		m.cache = ".cache"
	}
	f := flag.NewFlagSet("vm", flag.ContinueOnError)
	f.StringVar(&m.kernel, "kernel", "6.1", "`series` of Debian's cloud kernels (6.1, 6.12), or a package's full name")
	f.IntVar(&m.cgroup, "cgroup", 2, "cgroup version of the memory controller")
	f.IntVar(&m.memory, "mem", 512, "memory in `MiB`")
	f.IntVar(&m.cpus, "cpus", 2, "processors")
	f.BoolVar(&m.numa, "numa", false, "split the memory into two NUMA nodes")
	f.BoolVar(&m.systemd, "systemd", false, "boot a Debian with systemd from a disk, and run the binary as a service of it; files go below /test")
	f.StringVar(&m.append, "append", "", "more `words` for the kernel's command line")
	f.DurationVar(&m.timeout, "timeout", 2*time.Minute, "stop the machine after this `time`")
	f.Var(&m.files, "file", "put a file or folder in: `SRC[:DST]`; may be repeated")
	f.Var(&m.env, "env", "set a variable: `NAME=VALUE`; may be repeated")
	f.Usage = func() {
		fmt.Fprintln(f.Output(), "usage: go run ./test/vm [flags] BINARY [argument...]")
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return m, err
	}
	m.command = f.Args()
	switch {
	case len(m.command) == 0:
		return m, errors.New("no binary given")
	case m.systemd && m.cgroup != 2:
		return m, errors.New("with systemd the memory controller is on cgroup version 2")
	case m.cgroup != 1 && m.cgroup != 2:
		return m, fmt.Errorf("cgroup version %d: 1 or 2", m.cgroup)
	}
	return m, nil
}

// run makes the machine's parts and starts it.
func (m *machine) run(ctx context.Context) (code int, err error) {
	qemu, err := findQEMU()
	if err != nil {
		return 125, err
	}
	cache, err := filepath.Abs(filepath.Join(m.cache, "vm"))
	if err != nil {
		return 125, err
	}
	kernel, root, mods, err := m.fetch(ctx, cache)
	if err != nil {
		return 125, err
	}
	dir, err := os.MkdirTemp("", "coroner-vm-")
	if err != nil {
		return 125, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	initrd := filepath.Join(dir, "initrd")
	if err := m.writeInitrd(ctx, initrd, mods); err != nil {
		return 125, fmt.Errorf("initramfs: %w", err)
	}
	return m.boot(ctx, qemu, parts{kernel, initrd, root, filepath.Join(dir, "console")})
}

// fetch gets what the cache does not hold yet of the kernel and, with systemd,
// of its modules and the disk. Who needs no disk does not wait for one.
func (m *machine) fetch(ctx context.Context, cache string) (kernel, root string, mods []string, err error) {
	unlock, err := lock(ctx, filepath.Join(cache, "kernels"))
	if err != nil {
		return "", "", nil, err
	}
	kernel, err = fetchKernel(ctx, m.kernel, cache)
	if err != nil {
		err = fmt.Errorf("kernel %s: %w", m.kernel, err)
	} else if m.systemd {
		mods, err = modules(ctx, kernel)
	}
	unlock()
	if err != nil || !m.systemd {
		return kernel, "", nil, err
	}
	if unlock, err = lock(ctx, filepath.Join(cache, "disks")); err != nil {
		return "", "", nil, err
	}
	defer unlock()
	if root, err = fetchRoot(ctx, cache); err != nil {
		return "", "", nil, fmt.Errorf("disk: %w", err)
	}
	return kernel, root, mods, nil
}
