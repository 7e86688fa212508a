// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	disk    = "/dev/vda"
	newRoot = "/newroot"
)

// service runs this program again once systemd is up, and ends the machine.
// The test is not what the machine shall kill.
const service = `[Unit]
Description=what the machine is for
[Service]
ExecStart=/test/init service
OOMScoreAdjust=-1000
`

// switchRoot puts the plan and /test on the disk, and hands over to the
// systemd there. It returns only after an error.
func switchRoot(p plan, text []byte) error {
	for _, m := range [][4]string{{"sysfs", "/sys", "sysfs", ""}, {"devtmpfs", "/dev", "devtmpfs", ""}} {
		if err := mount(m); err != nil {
			return err
		}
	}
	for _, m := range p.Modules {
		if err := loadModule(filepath.Join("/modules", m)); err != nil {
			return fmt.Errorf("module %s: %w", m, err)
		}
	}
	if err := mountDisk(); err != nil {
		return err
	}
	if err := settle(text); err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	// The files here are memory.
	for _, dir := range []string{"/test", "/modules"} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	for _, point := range []string{"/sys", "/dev"} {
		if err := syscall.Unmount(point, syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", point, err)
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := syscall.Mount(".", "/", "", syscall.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move root: %w", err)
	}
	if err := syscall.Chroot("."); err != nil {
		return err
	}
	return syscall.Exec("/sbin/init", []string{"/sbin/init"}, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=dumb"})
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// mountDisk waits for the disk, which is found while this runs.
func mountDisk() error {
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return err
	}
	var err error
	for range 200 {
		if err = syscall.Mount(disk, newRoot, "ext4", syscall.MS_NOATIME, ""); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // there is nothing to wait for: no udev yet
	}
	return fmt.Errorf("mount %s: %w", disk, err)
}

// settle writes what the service needs.
func settle(plan []byte) error {
	if err := copyTree("/test", newRoot+"/test"); err != nil {
		return err
	}
	if err := copyFile("/init", newRoot+"/test/init"); err != nil {
		return err
	}
	const units = newRoot + "/etc/systemd/system/"
	if err := os.MkdirAll(units+"multi-user.target.wants", 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{
		newRoot + "/plan.json": string(plan),
		units + "test.service": service,
		newRoot + "/etc/fstab": "",
		newRoot + "/etc/hosts": "127.0.0.1 localhost\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return os.Symlink("../test.service", units+"multi-user.target.wants/test.service")
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		dst := filepath.Join(to, strings.TrimPrefix(p, from))
		if d.IsDir() {
			return os.MkdirAll(dst, 0o755)
		}
		return copyFile(p, dst)
	})
}

func copyFile(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fi.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	_, err = io.Copy(dst, src)
	return err
}
