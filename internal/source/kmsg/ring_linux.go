// SPDX-License-Identifier: Apache-2.0

package kmsg

import "golang.org/x/sys/unix"

// The commands of syslog(2) that change nothing (include/linux/syslog.h).
const (
	actionReadAll    = 3
	actionSizeBuffer = 10
)

// syslogCall is syslog(2).
type syslogCall struct{}

// openRing tries whether the log may be read.
func openRing() (ring, error) {
	_, err := syslogCall{}.ReadAll(make([]byte, maxRecord))
	return syslogCall{}, err
}

// Size is the length of the kernel's buffer.
func (syslogCall) Size() (int, error) { return unix.Klogctl(actionSizeBuffer, nil) }

// ReadAll copies the end of the log.
func (syslogCall) ReadAll(buf []byte) (int, error) { return unix.Klogctl(actionReadAll, buf) }
