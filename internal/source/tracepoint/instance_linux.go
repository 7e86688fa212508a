// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/host"
)

// bufferKB is the size of the trace buffer per CPU. A kill takes some 160
// bytes of it, so one CPU holds 800 kills that nobody has read yet; the
// default of 1.4 MiB would cost a large machine hundreds.
// The events of others have a buffer of half that size.
const (
	bufferKB      = "128"
	otherBufferKB = "64"
)

const instancePrefix = "coroner-"

var errNotMounted = errors.New("tracefs is not mounted")

// mountTracefs returns a directory with the tracing files. Where no tracefs
// is mounted it takes a mount that no directory shows and that ends with the
// process (since 5.2): nothing of the host is changed.
func mountTracefs(r host.Roots) (dir string, hidden *os.File, err error) {
	t, err := r.Tracefs()
	if err != nil {
		return "", nil, err
	}
	if t.Mounted {
		return t.Path, nil, nil
	}
	hidden, err = detachedTracefs()
	if err != nil {
		return "", nil, fmt.Errorf("%w (mount -t tracefs nodev %s), and to mount it takes CAP_SYS_ADMIN: %w", errNotMounted, t.Path, err)
	}
	return r.ProcPath("self", "fd", strconv.Itoa(int(hidden.Fd()))), hidden, nil
}

func detachedTracefs() (*os.File, error) {
	fsfd, err := unix.Fsopen("tracefs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return nil, fmt.Errorf("fsconfig: %w", err)
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsmount: %w", err)
	}
	return os.NewFile(uintptr(fd), "tracefs"), nil
}

// makeInstance makes a trace buffer of our own. It is named after this
// process, so that the next one can tell when it was left behind.
func makeInstance(r host.Roots, tracefs string) (string, error) {
	self, err := os.Readlink(r.ProcPath("self")) // the id that others see in the same procfs
	if err != nil {
		return "", fmt.Errorf("own process id: %w", err)
	}
	removeStale(r, tracefs)
	for n := range 8 {
		dir := filepath.Join(tracefs, "instances", instancePrefix+self)
		if n > 0 { // a second source in this process
			dir += "-" + strconv.Itoa(n)
		}
		err = os.Mkdir(dir, 0o700)
		if !errors.Is(err, fs.ErrExist) {
			return dir, err
		}
	}
	return "", err
}

// removeStale removes the instances of processes that are no more. One that
// is in use cannot be removed: the kernel refuses.
func removeStale(r host.Roots, tracefs string) {
	dirs, err := os.ReadDir(filepath.Join(tracefs, "instances"))
	if err != nil {
		return
	}
	for _, d := range dirs {
		rest, ok := strings.CutPrefix(d.Name(), instancePrefix)
		pid, _, _ := strings.Cut(rest, "-")
		if n, err := strconv.Atoi(pid); !ok || err != nil || n <= 0 {
			continue
		}
		if _, err := os.Stat(r.ProcPath(pid)); errors.Is(err, fs.ErrNotExist) {
			_ = unix.Rmdir(filepath.Join(tracefs, "instances", d.Name()))
		}
	}
}

// write sets one of the instance's files.
func write(dir, name, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(value); err != nil {
		_ = f.Close() // the write's own error says more
		return fmt.Errorf("write %q to %s: %w", value, name, err)
	}
	return f.Close()
}

// setClock picks a clock whose times can be told as wall time.
func setClock(dir string) (func() (host.BootClock, error), error) {
	var errs []error
	for _, c := range []struct {
		name string
		read func() (host.BootClock, error)
	}{
		{"boot", host.BoottimeClock},
		{"mono", host.MonotonicClock},
	} {
		err := write(dir, "trace_clock", c.name)
		if err == nil {
			return c.read, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
