// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

const (
	qemuBinary = "qemu-system-x86_64"
	// The first process leaves by QEMU's isa-debug-exit device, which ends
	// QEMU with 2n+1 for the byte n. exitBase tells these from QEMU's own
	// (init/main_linux_amd64.go has the same number).
	exitBase = 16
	exitPort = 0x501
)

func findQEMU() (string, error) {
	p, err := exec.LookPath(qemuBinary)
	if err != nil {
		return "", fmt.Errorf("%w (hint: apt-get install -y --no-install-recommends qemu-system-x86)", err)
	}
	return p, nil
}

// parts are the files that a machine is made of.
type parts struct {
	kernel, initrd string
	root           string // the disk's image; "" for none
	console        string // where the first serial port goes
}

// boot runs the machine to its end.
func (m *machine) boot(ctx context.Context, qemu string, p parts) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	start := time.Now()
	c := exec.CommandContext(ctx, qemu, m.args(p)...)
	c.Stdout, c.Stderr = returns{os.Stdout}, os.Stderr
	err := c.Run()
	if ctx.Err() != nil {
		return 124, errors.Join(fmt.Errorf("stopped after %s: %w", time.Since(start).Round(time.Second), ctx.Err()), tail(p.console))
	}
	code, ok := exitCode(c.ProcessState)
	if !ok {
		return 125, errors.Join(errors.New("the machine ended without a status"), err, tail(p.console))
	}
	if code == 125-exitBase { // the first process itself went wrong
		return 125, tail(p.console)
	}
	fmt.Fprintf(os.Stderr, "vm: kernel %s, cgroup v%d, %d MiB: exit status %d after %.1f s\n",
		m.kernel, m.cgroup, m.memory, code, time.Since(start).Seconds())
	return code, nil
}

func (m *machine) args(p parts) []string {
	// On tmpfs, the pages of every program here would count as shared memory.
	words := "console=ttyS0 quiet loglevel=3 panic=-1 oops=panic rootfstype=ramfs " + m.append
	args := []string{
		// Multi-threaded emulation crashed guests that switch tracepoints.
		"-machine", "q35", "-accel", "tcg,thread=single", "-cpu", "max",
		"-m", fmt.Sprint(m.memory), "-smp", fmt.Sprint(m.cpus),
		"-display", "none", "-nodefaults", "-no-reboot",
		"-serial", "file:" + p.console, "-serial", "stdio",
		"-device", fmt.Sprintf("isa-debug-exit,iobase=%#x,iosize=1", exitPort),
		"-kernel", p.kernel, "-initrd", p.initrd, "-append", words,
	}
	if m.numa {
		half := m.memory / 2
		args = append(args,
			"-object", fmt.Sprintf("memory-backend-ram,id=m0,size=%dM", m.memory-half),
			"-object", fmt.Sprintf("memory-backend-ram,id=m1,size=%dM", half),
			"-numa", "node,nodeid=0,memdev=m0,cpus=0", "-numa", "node,nodeid=1,memdev=m1,cpus=1")
	}
	if p.root != "" {
		args = append(args, "-drive", "if=none,id=root,format=raw,snapshot=on,file="+p.root, "-device", "virtio-blk-pci,drive=root")
	}
	return args
}

func exitCode(s *os.ProcessState) (int, bool) {
	if s == nil || s.ExitCode() < 2*exitBase+1 || s.ExitCode()%2 == 0 {
		return 0, false
	}
	return (s.ExitCode()-1)/2 - exitBase, true
}

// tail gives the last words of the kernel's console as an error.
func tail(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return fmt.Errorf("console:\n%s", b[max(0, len(b)-4096):])
}

// returns drops the carriage returns of a terminal line.
type returns struct{ f *os.File }

func (r returns) Write(p []byte) (int, error) {
	_, err := r.f.Write(bytes.ReplaceAll(p, []byte{'\r'}, nil))
	return len(p), err
}
