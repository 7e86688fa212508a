// SPDX-License-Identifier: Apache-2.0

// Command init is the first process of the machine of test/vm: it mounts what
// a node has, runs the plan's command with its output on the second serial
// port, reaps what is orphaned, and ends the machine with its exit status.
// Where the plan names modules, it hands over to the systemd on the disk, and
// runs as a service of that.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// plan is written by test/vm (initrd.go).
type plan struct {
	Cgroup int      `json:"cgroup"`
	Args   []string `json:"args"`
	Env    []string `json:"env"`
	// Modules make the disk visible that holds systemd; none: no disk.
	Modules []string `json:"modules"`
}

// Both are of test/vm (qemu.go).
const (
	exitBase = 16
	exitPort = 0x501
)

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
		code = 125 - exitBase
	}
	if err := leave(code); err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
	}
	// Without the device the machine ends by panic=-1.
	os.Exit(1)
}

func run() (int, error) {
	b, err := os.ReadFile("/plan.json")
	if err != nil {
		return 0, err
	}
	var p plan
	if err := json.Unmarshal(b, &p); err != nil {
		return 0, fmt.Errorf("plan.json: %w", err)
	}
	switch {
	case len(os.Args) > 1 && os.Args[1] == "service":
	case len(p.Modules) > 0:
		return 0, switchRoot(p, b)
	default:
		if err := mounts(p.Cgroup); err != nil {
			return 0, err
		}
		if err := loopback(); err != nil {
			return 0, fmt.Errorf("loopback: %w", err)
		}
	}
	out, err := os.OpenFile("/dev/ttyS1", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return 0, err
	}
	code, err := command(p, out)
	// Wait until the line has sent all.
	return code, errors.Join(err, unix.IoctlSetInt(int(out.Fd()), unix.TCSBRK, 1))
}

// mounts makes the file systems of a node; what is optional may be missing.
func mounts(cgroup int) error {
	must := [][4]string{
		{"proc", "/proc", "proc", ""},
		{"sysfs", "/sys", "sysfs", ""},
		{"devtmpfs", "/dev", "devtmpfs", ""},
		{"tmpfs", "/tmp", "tmpfs", "mode=1777"},
		{"tmpfs", "/run", "tmpfs", "mode=755"},
	}
	if cgroup == 2 {
		must = append(must, [4]string{"cgroup2", "/sys/fs/cgroup", "cgroup2", ""})
	} else {
		must = append(must, [4]string{"tmpfs", "/sys/fs/cgroup", "tmpfs", "mode=755"})
		for _, c := range []string{"memory", "cpuset", "pids", "cpu,cpuacct", "freezer", "devices", "blkio"} {
			must = append(must, [4]string{"cgroup", "/sys/fs/cgroup/" + c, "cgroup", c})
		}
		must = append(must, [4]string{"cgroup2", "/sys/fs/cgroup/unified", "cgroup2", ""})
	}
	for _, m := range must {
		if err := mount(m); err != nil {
			return err
		}
	}
	for _, m := range [][4]string{
		{"tracefs", "/sys/kernel/tracing", "tracefs", ""},
		{"debugfs", "/sys/kernel/debug", "debugfs", ""},
		{"bpf", "/sys/fs/bpf", "bpf", ""},
	} {
		if err := mount(m); err != nil {
			fmt.Fprintln(os.Stderr, "init:", err)
		}
	}
	return nil
}

func mount(m [4]string) error {
	if err := os.MkdirAll(m[1], 0o755); err != nil {
		return err
	}
	if err := syscall.Mount(m[0], m[1], m[2], 0, m[3]); err != nil {
		return fmt.Errorf("mount %s: %w", m[1], err)
	}
	return nil
}

// loopback brings up lo.
func loopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr)
}

// command runs the plan's command, and reaps everything until it ends.
func command(p plan, out *os.File) (int, error) {
	fd := out.Fd()
	pid, err := syscall.ForkExec(p.Args[0], p.Args, &syscall.ProcAttr{
		Dir: filepath.Dir(p.Args[0]), Env: p.Env, Files: []uintptr{fd, fd, fd},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", p.Args[0], err)
	}
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait: %w", err)
		case got != pid:
		case ws.Signaled():
			fmt.Fprintf(out, "ended by %s\n", ws.Signal())
			return 3, nil
		default:
			return ws.ExitStatus(), nil
		}
	}
}

// leave gives the exit status to the device that ends the machine. Debian's
// kernels have no /dev/port.
func leave(code int) error {
	runtime.LockOSThread() // the right to the ports is the thread's
	if err := unix.Iopl(3); err != nil {
		return fmt.Errorf("iopl: %w", err)
	}
	outb(exitPort, byte(code+exitBase))
	return nil
}

// outb writes a byte to an I/O port (port_linux_amd64.s).
func outb(port uint16, value byte)
