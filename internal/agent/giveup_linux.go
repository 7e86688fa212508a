// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// giveUp lets the kernel drop a connection whose client does not take what was
// written, after that time.
func giveUp(t *net.TCPConn, after time.Duration) {
	rc, err := t.SyscallConn()
	if err != nil {
		return // it has ended
	}
	_ = rc.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(after.Milliseconds()))
	})
}
