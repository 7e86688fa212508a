// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// kmsgFile is /dev/kmsg in non-blocking mode, waited for by the runtime's own
// poller, so that a deadline ends a read at once and no thread is held.
type kmsgFile struct {
	f    *os.File
	conn syscall.RawConn
}

func openDevice(path string) (device, error) {
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	conn, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &kmsgFile{f: f, conn: conn}, nil
}

// Read reads one record.
func (k *kmsgFile) Read(buf []byte, wait bool) (n int, err error) {
	poll := k.conn.Read(func(fd uintptr) bool {
		n, err = unix.Read(int(fd), buf)
		return !wait || !errors.Is(err, unix.EAGAIN)
	})
	if poll != nil {
		return 0, poll
	}
	if errors.Is(err, unix.EAGAIN) {
		err = errNoRecord
	}
	return max(n, 0), err
}

// SetReadDeadline breaks a Read that waits.
func (k *kmsgFile) SetReadDeadline(t time.Time) error { return k.f.SetReadDeadline(t) }

// Close closes the device.
func (k *kmsgFile) Close() error { return k.f.Close() }
